//! Network namespaces: entered by one thread, before anything with a name in it is looked up.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use thiserror::Error;

/// Why a network namespace could not be entered.
#[derive(Debug, Error)]
pub enum NamespaceError {
    /// There is none of that name.
    #[error("network namespace {name}: {path}: {source}; create it with `ip netns add`")]
    Open {
        /// As the configuration has it.
        name: String,
        /// The file it stands for.
        path: PathBuf,
        /// What opening it returned.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("network namespace {name}: setns: {source}")]
    Enter {
        /// As the configuration has it.
        name: String,
        /// What `setns` returned.
        #[source]
        source: io::Error,
    },
}

/// Moves the calling thread into a network namespace, given as a name of `ip netns` or as a path. Threads
/// that it starts afterwards are born there; mounts are not touched.
pub fn enter(name: &str) -> Result<(), NamespaceError> {
    let path = if name.contains('/') { PathBuf::from(name) } else { Path::new("/run/netns").join(name) };
    let file =
        File::open(&path).map_err(|source| NamespaceError::Open { name: name.to_owned(), path, source })?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .map_err(|source| NamespaceError::Enter { name: name.to_owned(), source: source.into() })
}
