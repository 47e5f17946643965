//! `pollux-dataplane`: the process that touches packets.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use pollux_dataplane::sandbox::HOUSEKEEPER;
use pollux_dataplane::{close, down, setup};
use pollux_sandbox::privileges;
use pollux_shm::log;

/// The data plane of Pollux: AF_XDP workers that do ESP.
///
/// It runs until it is told to stop by SIGTERM, SIGINT or `pollux down`. After any end but the last, what
/// is protected stays shut: the XDP program drops it, and the kernel's routes for it lead nowhere.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  pollux-dataplane --config /etc/pollux/pollux.toml
  pollux-dataplane --config /etc/pollux/pollux.toml --check
  pollux-dataplane --config /etc/pollux/pollux.toml down"
)]
struct Arguments {
    /// The configuration file.
    #[arg(long, global = true, default_value = "/etc/pollux/pollux.toml")]
    config: PathBuf,
    /// Read the configuration, say what is wrong with it, and end.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Stop a running data plane and remove XDP program, kernel routes, pollux0 and bpffs.
    Down,
    /// Put the guard and, on ports that exist, the XDP program in force from the configuration, and end.
    Guard,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Verb::Down) = arguments.command {
        return take_down(&arguments.config);
    }
    let config = match pollux_config::load(&arguments.config) {
        Ok(config) => config,
        Err(problems) => {
            pollux_shm::complain!("{problems}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.check {
        pollux_shm::say!("{}: no mistakes found", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    if let Err(error) = log::begin(&config.dataplane.log, UNLIMITED) {
        pollux_shm::complain!("pollux-dataplane: dataplane.log: {error}");
        return ExitCode::FAILURE;
    }
    if let Some(Verb::Guard) = arguments.command {
        return ended(close::close(&config));
    }
    ended(serve(config))
}

/// A mistake somewhere in the file must not keep anything up.
fn take_down(file: &Path) -> ExitCode {
    // Nothing has begun a log before, and the level is one.
    let _ = log::begin("info", UNLIMITED);
    match pollux_config::load_places(file) {
        Ok(places) => ended(down::down(&places)),
        Err(problems) => {
            pollux_shm::complain!("{problems}");
            ExitCode::FAILURE
        }
    }
}

/// No message of the data plane has a limit of its own.
const UNLIMITED: &str = "::none";

fn ended(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            pollux_shm::complain!("pollux-dataplane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: pollux_config::Config) -> Result<()> {
    // Blocked before any thread exists, so that all of them inherit it and the housekeeper alone hears.
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.add(Signal::SIGINT);
    mask.thread_block().context("blocking signals")?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("opening the signal descriptor")?;
    let sandboxed = config.dataplane.sandbox;
    let housekeeper = setup::bring_up(config)?;
    if sandboxed {
        privileges::close_memory().context("closing this process's memory to others")?;
        let kept = privileges::keep_only(HOUSEKEEPER).context("giving up privileges")?;
        let requested = privileges::names(HOUSEKEEPER);
        pollux_shm::say!("capabilities: requested {requested}, effective {}", privileges::names(kept));
    }
    for effective in housekeeper.effective() {
        pollux_shm::say!(
            "{}: requested {}, effective {}",
            effective.what,
            if effective.requested.is_empty() { "nothing" } else { &effective.requested },
            effective.effective
        );
    }
    pollux_shm::say!("ready");
    housekeeper.run(&signals);
    Ok(())
}
