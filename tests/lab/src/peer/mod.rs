//! Peers that we did not write.

pub mod libreswan;
pub mod strongswan;
pub mod vm;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Where `tests/lab/peers/mkroot.sh` and `mkvm.sh` put what they make.
fn cache() -> PathBuf {
    PathBuf::from(std::env::var_os("POLLUX_PEERS").unwrap_or_else(|| "/var/cache/pollux-peers".into()))
}

/// A script of `tests/lab/peers`.
fn recipe(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

/// A tree or image in the cache.
fn cached(name: &str) -> Result<PathBuf> {
    let path = cache().join(name);
    if !path.join(".done").exists() {
        bail!("{} is not there: run tests/lab/peers/mkvm.sh", path.display());
    }
    Ok(path)
}
