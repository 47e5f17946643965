//! `pollux down`: stops both daemons and takes everything away.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pollux_config::api::{ControlRequest, ControlStatus};
use pollux_config::{Paths, Places};
use serde_json::Value;

use crate::cmd::up::{program, turn};
use crate::output::say;
use crate::socket::control;

/// How long control may take to end its connections.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn down(places: &Places) -> Result<()> {
    let paths = &places.paths;
    // Where there is no folder there is nobody to wait for.
    let _turn = paths.run_dir.exists().then(|| turn(paths)).transpose()?;
    // Control goes first: it tells its peers while the data plane still carries what is under way.
    if control::<Value>(paths, &ControlRequest::Stop).is_ok() {
        let end = Instant::now() + PATIENCE;
        while control::<ControlStatus>(paths, &ControlRequest::Status).is_ok() {
            if Instant::now() > end {
                bail!("control does not end; kill it, then run this again");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    remove(places)?;
    say!("down: nothing is protected by Pollux now");
    Ok(())
}

/// Stops the data plane and removes all that it leaves behind on purpose.
pub(crate) fn remove(places: &Places) -> Result<()> {
    let status = Command::new(program("pollux-dataplane"))
        .arg("--config")
        .arg(&places.file)
        .arg("down")
        .status()
        .context("starting pollux-dataplane: is it installed?")?;
    if !status.success() {
        bail!("pollux-dataplane could not take everything away ({status})");
    }
    for name in ["pollux-dataplane", "pollux-control"] {
        let _ = std::fs::remove_file(places.paths.run_dir.join(Paths::pid_name(name)));
    }
    Ok(())
}
