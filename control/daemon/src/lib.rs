//! The control-plane process: a tokio shell around the IKEv2 core, and the client of the data plane's rings.
//!
//! ```text
//!   operator ── control.sock ──► api ──┐
//!   peers ───── UDP 500, 4500 ─► udp ──┤                                ┌─► install ─► rings ══► data plane
//!   data plane ══ rings ═══════════════┼─► drive ─► shell (one task) ───┤
//!   signals, timers ───────────────────┘              │                 └─► journal ─► events, log
//!                                                     └─ change, manual, policies (what is wanted)
//!                                                     └─ negotiated ◄─► pollux-ike
//! ```
//!
//! One task owns all state, so there are no locks but the one around table places, which the core shares.
//! What is wanted comes from the files; what is there is read back at each attachment; only the difference
//! is sent. Control may die at any moment: the data plane goes on with what it has.
#![forbid(unsafe_code)]

mod api;
mod change;
mod drive;
mod ike;
mod index;
mod install;
mod journal;
mod keylog;
mod manual;
mod negotiated;
mod operate;
mod peers;
mod policies;
mod query;
mod report;
mod reqids;
mod rings;
mod routes;
mod sandbox;
mod shell;
mod table;
mod udp;
mod waiter;

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};
use pollux_config::{CONTROL_DIR, Config, Secrets};
use pollux_shm::{RunDir, RunDirError};
use rustix::io::Errno;

use crate::reqids::Reqids;

/// Runs control until it is told to stop.
///
/// # Errors
/// If a namespace, socket or port cannot be had. What the configuration asks of the data plane is no error
/// here: it is told by `status`, and tried again.
pub fn run(config: Config, secrets: Secrets) -> anyhow::Result<()> {
    if let Some(netns) = &config.dataplane.netns {
        enter(netns)?;
    }
    let table = folders(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async move {
        let path = config.paths.control_socket();
        let (listener, place) = api::listen_once_free(&path, api::DYING).await?;
        let opened = config.clone();
        // Nobody else writes it any more: a predecessor is gone with its socket.
        let reqids = Reqids::load(table, &config);
        let mut shell = shell::Shell::new(config, secrets, reqids)?;
        shell.open_sockets(&opened).map_err(anyhow::Error::msg)?;
        shell.warn_of_key_log();
        shell.warn_of_files();
        if opened.control.sandbox {
            sandbox::enter().context("giving up privileges")?;
        }
        tracing::info!(event = "ready", socket = %path.display(), "pollux-control is ready");
        let result = drive::drive(shell, listener).await.context("the loop ended");
        // Left behind, it would only look as if somebody answered.
        place.remove();
        result
    })
}

/// Makes the run directory and our own folder in it, where that is ours to do: the one of a data plane that
/// runs as root is there already, with a folder for our user. Returns the table of reqids in it.
fn folders(config: &Config) -> anyhow::Result<File> {
    let run_dir = &config.paths.run_dir;
    let is_ours = std::fs::symlink_metadata(run_dir)
        .map_or(true, |about| std::os::unix::fs::MetadataExt::uid(&about) == nix::unistd::geteuid().as_raw());
    let opened =
        if is_ours { RunDir::ensure(run_dir, config.run_dir_mode(), None) } else { RunDir::open(run_dir) };
    // As root we may serve in the folder of the user that shall take our place.
    let owner = config.dataplane.control_uid.filter(|_| nix::unistd::geteuid().is_root());
    let ours = opened?.child(CONTROL_DIR, config.control_dir_mode(), owner).context(
        "pollux-control's own folder; pollux-dataplane makes it for the user that control_uid under [dataplane] names",
    )?;
    reqids_file(config, &ours, owner).context("the table of reqids")
}

/// The table of reqids. One that an earlier control process of another user has left, and that we may not read, is
/// replaced: the SAs that it knows come up anew.
fn reqids_file(config: &Config, ours: &RunDir, owner: Option<u32>) -> anyhow::Result<File> {
    let file = match ours.log(reqids::FILE) {
        Err(RunDirError::Call { source: Errno::ACCESS | Errno::PERM, .. }) => {
            std::fs::remove_file(config.paths.control_dir().join(reqids::FILE))?;
            ours.log(reqids::FILE)?
        }
        opened => opened?,
    };
    if owner.is_some() && std::os::unix::fs::fchown(&file, owner, None).is_err() {
        // Without CAP_CHOWN it stays ours, and that user will replace it.
        tracing::debug!(event = "reqids-not-given-away");
    }
    Ok(file)
}

/// Enters a network namespace, before there is any thread but this one.
fn enter(netns: &str) -> anyhow::Result<()> {
    let path = if netns.contains('/') { netns.into() } else { Path::new("/run/netns").join(netns) };
    let file = File::open(&path).with_context(|| {
        format!("{}: no such network namespace; make it with `ip netns add`", path.display())
    })?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("{}: can't enter the network namespace; run as root", path.display()))
}
