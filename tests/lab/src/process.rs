//! Programs that run beside the test, each with a log file, stopped when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::unistd::Pid;

use crate::wait::{poll, wait_for};

/// How long a program has to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// A running program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with standard output and error going to `log`.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("{}", log.display()))?;
        let errors = file.try_clone()?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        // A child inherits the mask of signals that this program waits for in a thread of its own, and would
        // never see the one that asks it to end.
        let ours = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let child = command.spawn();
        ours.thread_set_mask()?;
        let child = child.with_context(|| format!("{command:?}"))?;
        Ok(Self { child, name: name.to_owned(), log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until its log contains `text`.
    ///
    /// # Errors
    /// If it ends or the time runs out first; the error holds the log's end.
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) -> Result<()> {
        let seen = poll(limit, || self.log().contains(text) || !self.is_running());
        if self.log().contains(text) {
            return Ok(());
        }
        let state = if seen { "ended" } else { "is silent" };
        bail!("{} {state} without saying `{text}`:\n{}", self.name, self.tail());
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.nix_pid()?, signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Kills it without warning and waits until it is gone.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if self.is_running() {
            self.signal(Signal::SIGTERM)?;
        }
        self.wait(GRACE)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        wait_for(&format!("{name} to end"), limit, || Ok(!self.is_running()))?;
        Ok(self.child.wait()?)
    }

    fn nix_pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() && self.stop().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A program that was built beside this one.
///
/// # Errors
/// If it was not built.
pub fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: run `cargo build --workspace --bins`"))
}
