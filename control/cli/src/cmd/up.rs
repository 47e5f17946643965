//! `pollux up`: starts both daemons where they do not run yet.

use std::fs::{self, File, TryLockError};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pollux_config::api::{ControlRequest, ControlStatus, DataplaneRequest, DataplaneStatus};
use pollux_config::{CONTROL_DIR, Config, Paths};
use pollux_shm::RunDir;

use crate::cmd::{down, status};
use crate::output::complain;
use crate::socket::{control, dataplane, is_running};

/// How long a daemon may take until it answers, and control until everything is installed.
const READY: Duration = Duration::from_secs(30);

/// How long another command that starts or stops this gateway may take.
const TURN: Duration = Duration::from_mins(1);

pub(crate) fn up(file: &Path, json: bool) -> Result<()> {
    // All mistakes are found before anything is started.
    let (config, _) = pollux_config::load_with_secrets(file).map_err(anyhow::Error::msg)?;
    let paths = &config.paths;
    let run_dir = RunDir::ensure(&paths.run_dir, config.run_dir_mode(), None)?;
    run_dir.child(CONTROL_DIR, config.control_dir_mode(), config.dataplane.control_uid)?;
    let turn = turn(paths)?;
    let mut started = Started { config: &config, daemons: Vec::new(), is_closed: is_closed(paths) };
    let installed = started.daemons(&run_dir).and_then(|()| {
        // What is on its way does not keep others from looking.
        drop(turn);
        started.installed()
    });
    match installed {
        Ok(None) => status::status(paths, json),
        Ok(Some(missing)) => {
            status::status(paths, json)?;
            bail!("{missing}")
        }
        Err(error) => {
            started.take_back();
            Err(error)
        }
    }
}

/// Waits until no other command starts or stops this gateway; the turn ends when the file is dropped.
pub(crate) fn turn(paths: &Paths) -> Result<File> {
    let folder = File::open(&paths.run_dir).with_context(|| format!("{}", paths.run_dir.display()))?;
    let end = Instant::now() + TURN;
    while let Err(error) = folder.try_lock() {
        if let TryLockError::Error(error) = error {
            return Err(error).with_context(|| format!("locking {}", paths.run_dir.display()));
        }
        if Instant::now() > end {
            bail!("another `pollux up` or `pollux down` of {} does not end", paths.run_dir.display());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(folder)
}

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether something of ours protects already, without a process: `pollux guard`, or an earlier life.
fn is_closed(paths: &Paths) -> bool {
    fs::read_dir(paths.run_dir.join("bpf")).is_ok_and(|mut pins| pins.next().is_some())
}

/// What this command has started.
struct Started<'a> {
    config: &'a Config,
    daemons: Vec<(&'static str, Child)>,
    /// Whether what is protected was closed before.
    is_closed: bool,
}

impl Started<'_> {
    /// Starts the daemons that do not run. One that runs and does not answer is not started twice.
    fn daemons(&mut self, run_dir: &RunDir) -> Result<()> {
        let paths = &self.config.paths;
        let plane = || dataplane::<DataplaneStatus>(paths, &DataplaneRequest::Status).map(drop);
        let keys = || control::<ControlStatus>(paths, &ControlRequest::Status).map(drop);
        if is_running(&paths.dataplane_socket()) {
            plane()?;
        } else {
            self.start(run_dir, "pollux-dataplane", plane)?;
        }
        if is_running(&paths.control_socket()) { keys() } else { self.start(run_dir, "pollux-control", keys) }
    }

    fn start(
        &mut self,
        run_dir: &RunDir,
        name: &'static str,
        answers: impl Fn() -> Result<()>,
    ) -> Result<()> {
        self.daemons.push((name, start(self.config, run_dir, name)?));
        let end = Instant::now() + READY;
        while answers().is_err() {
            self.check_alive()?;
            if Instant::now() > end {
                let log = self.config.paths.run_dir.join(Paths::log_name(name));
                bail!("{name} is not ready after {} s: see {}", READY.as_secs(), log.display());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Fails with the last words of a daemon that has ended.
    fn check_alive(&mut self) -> Result<()> {
        for (name, child) in &mut self.daemons {
            let Some(status) = child.try_wait()? else { continue };
            let log = self.config.paths.run_dir.join(Paths::log_name(name));
            let text = fs::read_to_string(&log).unwrap_or_default();
            let last =
                text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was logged");
            bail!("{name} ended ({status}): {last}; all of it is in {}", log.display());
        }
        Ok(())
    }

    /// Waits until control has put everything into the data plane; what is missing, where that does not happen.
    fn installed(&mut self) -> Result<Option<String>> {
        let end = Instant::now() + READY;
        loop {
            self.check_alive()?;
            let status = control::<ControlStatus>(&self.config.paths, &ControlRequest::Status)?;
            let missing = missing(&status);
            let is_over = status.attached && !status.changing || Instant::now() > end;
            if missing.is_none() || is_over {
                return Ok(missing);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Leaves nothing behind that was not there before. What was closed before stays closed.
    fn take_back(self) {
        let started_all = self.daemons.iter().any(|(name, _)| *name == "pollux-dataplane");
        for (_, mut child) in self.daemons.into_iter().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if started_all
            && !self.is_closed
            && let Ok(places) = pollux_config::load_places(&self.config.file)
            && let Err(error) = down::remove(&places)
        {
            complain(format_args!("{error:#}"));
        }
    }
}

/// What is not in the data plane, in one line.
fn missing(status: &ControlStatus) -> Option<String> {
    let reason =
        if status.refused.is_empty() { String::new() } else { format!(": {}", status.refused.join("; ")) };
    if !status.attached {
        let reason = status.detached_reason.as_deref().unwrap_or("no answer yet");
        return Some(format!("control is not attached to the data plane: {reason}"));
    }
    if status.sas_installed < status.sas_wanted || status.policies_in_force < status.policies_wanted {
        return Some(format!(
            "{} of {} manual SAs are installed and {} of {} policies in force{reason}",
            status.sas_installed, status.sas_wanted, status.policies_in_force, status.policies_wanted
        ));
    }
    None
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
