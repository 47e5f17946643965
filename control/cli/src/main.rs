//! `pollux`: the operator's command. It talks to the sockets of both daemons and holds no state.
#![forbid(unsafe_code)]

mod arguments;
mod cmd;
mod machine;
mod output;
mod socket;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use pollux_config::api::ControlRequest;

use arguments::{Arguments, Verb};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let (file, json) = (arguments.config.as_path(), arguments.json);
    if let Verb::Check { file: named } = &arguments.verb {
        return cmd::check::check(named.as_deref().unwrap_or(file), json);
    }
    if let Verb::Up = &arguments.verb {
        return cmd::up::up(file, json);
    }
    if let Verb::Guard { file: named } = &arguments.verb {
        return cmd::guard::guard(named.as_deref().unwrap_or(file));
    }
    // All else has to find a gateway that runs, whatever its file has come to say.
    let places = pollux_config::load_places(file).map_err(anyhow::Error::msg)?;
    let paths = &places.paths;
    match &arguments.verb {
        Verb::Down => cmd::down::down(&places),
        Verb::Status => cmd::status::status(paths, json),
        Verb::Reload => cmd::reload::reload(paths, json),
        Verb::Up | Verb::Check { .. } | Verb::Guard { .. } => unreachable!("handled above"),
        Verb::Sas => cmd::lists::sas(paths, json),
        Verb::Policies => cmd::lists::policies(paths, json),
        Verb::Workers => cmd::lists::workers(paths, json),
        Verb::Ports => cmd::lists::ports(paths, json),
        Verb::Drops { all } => cmd::lists::drops(paths, *all, json),
        Verb::Explain(flow) => cmd::explain::explain(paths, flow, json),
        Verb::Events { past } => cmd::events::follow(paths, *past, json),
        Verb::Log { lines } => cmd::events::log(paths, *lines, json),
        Verb::ListConns => cmd::ike::connections(paths, json),
        Verb::ListSas => cmd::ike::sas(paths, json),
        Verb::Initiate { child, timeout } => {
            let request = ControlRequest::Initiate { child: child.clone(), timeout_ms: timeout * 1_000 };
            cmd::ike::done(paths, &request, json)
        }
        Verb::Terminate(which) => {
            let request = ControlRequest::Terminate { child: which.child.clone(), ike: which.ike.clone() };
            cmd::ike::done(paths, &request, json)
        }
        Verb::Rekey(which) => {
            let request = ControlRequest::Rekey { child: which.child.clone(), ike: which.ike.clone() };
            cmd::ike::done(paths, &request, json)
        }
    }
}
