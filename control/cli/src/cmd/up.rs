//! `pollux up`: starts both daemons where they do not run yet.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pollux_config::api::{ControlRequest, ControlStatus, DataplaneRequest, DataplaneStatus};
use pollux_config::{CONTROL_DIR, Config, Paths};
use pollux_shm::RunDir;

use crate::cmd::status;
use crate::socket::{control, dataplane};

/// How long a daemon may take until it answers.
const READY: Duration = Duration::from_secs(30);

pub(crate) fn up(file: &Path, json: bool) -> Result<()> {
    // All mistakes are found before anything is started.
    let (config, _) = pollux_config::load_with_secrets(file).map_err(anyhow::Error::msg)?;
    let paths = &config.paths;
    let run_dir = RunDir::ensure(&paths.run_dir, config.run_dir_mode(), None)?;
    run_dir.child(CONTROL_DIR, config.control_dir_mode(), config.dataplane.control_uid)?;
    if dataplane::<DataplaneStatus>(paths, &DataplaneRequest::Status).is_err() {
        let mut child = start(&config, &run_dir, "pollux-dataplane")?;
        wait(paths, "pollux-dataplane", &mut child, || {
            dataplane::<DataplaneStatus>(paths, &DataplaneRequest::Status).is_ok()
        })?;
    }
    if control::<ControlStatus>(paths, &ControlRequest::Status).is_err() {
        let mut child = start(&config, &run_dir, "pollux-control")?;
        wait(paths, "pollux-control", &mut child, || installed(paths))?;
    }
    status::status(paths, json)
}

/// Whether control has put everything into the data plane, or says why not.
fn installed(paths: &Paths) -> bool {
    let Ok(wanted) = control::<ControlStatus>(paths, &ControlRequest::Status) else { return false };
    let in_force = dataplane::<DataplaneStatus>(paths, &DataplaneRequest::Status)
        .is_ok_and(|plane| plane.policies >= wanted.policies_wanted);
    let complete = wanted.sas_installed >= wanted.sas_wanted && in_force;
    wanted.attached && (complete || !wanted.refused.is_empty())
}

/// Starts a daemon in a process group of its own, so that Ctrl-C in this terminal does not reach it.
fn start(config: &Config, run_dir: &RunDir, name: &str) -> Result<Child> {
    // What the process before it has logged stays: it may say why that one died.
    let file = run_dir.log(&Paths::log_name(name))?;
    let child = Command::new(program(name))
        .arg("--config")
        .arg(fs::canonicalize(&config.file)?)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {name}: is it installed?"))?;
    run_dir.write(&Paths::pid_name(name), &format!("{}\n", child.id()))?;
    Ok(child)
}

/// The daemon beside this program, else whatever PATH has.
pub(crate) fn program(name: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| name.into())
}

fn wait(paths: &Paths, name: &str, child: &mut Child, ready: impl Fn() -> bool) -> Result<()> {
    let end = Instant::now() + READY;
    while !ready() {
        let log = paths.run_dir.join(Paths::log_name(name));
        if let Some(status) = child.try_wait()? {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let last =
                text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was logged");
            bail!("{name} ended ({status}): {last}; all of it is in {}", log.display());
        }
        if Instant::now() > end {
            bail!("{name} is not ready after {} s: see {}", READY.as_secs(), log.display());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
