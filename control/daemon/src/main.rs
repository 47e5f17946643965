//! `pollux-control`: arguments, log, and off it goes.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// The control process of a Pollux gateway: installs SAs and policies in the data plane and speaks IKEv2.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example:\n  pollux-control --config /etc/pollux/pollux.toml")]
struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = "/etc/pollux/pollux.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (config, secrets) = match pollux_config::load_with_secrets(&arguments.config) {
        Ok(loaded) => loaded,
        Err(problems) => {
            pollux_shm::complain!("{problems}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = pollux_shm::log::begin(&config.control.log, "::journal") {
        pollux_shm::complain!("pollux-control: control.log: {error}");
        return ExitCode::from(2);
    }
    match pollux_control::run(config, secrets) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            pollux_shm::complain!("pollux-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}
