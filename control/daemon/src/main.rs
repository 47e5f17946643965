//! `pollux-control`: arguments, log, and off it goes.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

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
            eprintln!("{problems}");
            return ExitCode::from(2);
        }
    };
    let filter = EnvFilter::try_new(&config.control.log).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match pollux_control::run(config, secrets) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pollux-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}
