//! A Pollux gateway: its two processes and its configuration.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::command::{output, run};
use crate::process::{Process, built};
use crate::wait::{poll, sleep, wait_for};
use crate::world::{Side, World};

/// How long a gateway has to come up or to carry out a command.
const READY: Duration = Duration::from_secs(20);

/// A gateway's configuration: the sections that the tests vary, and the two files made of them.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// More lines for `[dataplane]`, in place of the defaults of [`Config::dataplane`] where a key is there.
    pub dataplane: BTreeMap<&'static str, String>,
    /// Lines for `[control]`.
    pub control: BTreeMap<&'static str, String>,
    /// `[[sa]]`, `[[policy]]` and `[[connection]]` tables.
    pub tables: String,
    /// The secrets file.
    pub secrets: String,
}

impl Config {
    /// Adds a table in TOML.
    pub fn table(&mut self, text: &str) -> &mut Self {
        self.tables.push_str(text);
        self.tables.push('\n');
        self
    }

    /// Sets a key of `[dataplane]`; `value` is TOML.
    pub fn set(&mut self, key: &'static str, value: &str) -> &mut Self {
        self.dataplane.insert(key, value.to_owned());
        self
    }

    /// Sets a key of `[control]`; `value` is TOML.
    pub fn set_control(&mut self, key: &'static str, value: &str) -> &mut Self {
        self.control.insert(key, value.to_owned());
        self
    }

    /// The tables that `keep` wants, of those added so far.
    pub fn tables_where(&self, keep: impl Fn(&str) -> bool) -> String {
        self.tables.split("[[").filter(|table| keep(table)).map(|table| ["[[", table].concat()).collect()
    }

    fn text(&self, netns: &str, folder: &Path) -> String {
        let mut dataplane: BTreeMap<&str, String> = [
            ("netns", format!("\"{netns}\"")),
            ("wan", "\"wan0\"".to_owned()),
            ("lan", "\"lan0\"".to_owned()),
            ("idle", "\"adaptive\"".to_owned()),
        ]
        .into();
        dataplane.extend(self.dataplane.iter().map(|(key, value)| (*key, value.clone())));
        let lines = |table: &BTreeMap<&str, String>| -> String {
            table.iter().map(|(key, value)| [*key, " = ", value, "\n"].concat()).collect()
        };
        let folder = folder.display();
        format!(
            "[paths]\nrun_dir = \"{folder}/run\"\nstate_dir = \"{folder}/state\"\nsecrets = \"secrets.toml\"\n\n\
             [dataplane]\n{}\n[control]\n{}\n{}",
            lines(&dataplane),
            lines(&self.control),
            self.tables
        )
    }
}

/// Two processes in one namespace, from one configuration file. Stopped and taken down when dropped; a test whose
/// gateway has lost frames by then fails.
#[derive(Debug)]
pub struct Gateway {
    name: String,
    netns: String,
    folder: PathBuf,
    dataplane: Option<Process>,
    control: Option<Process>,
    starts: u32,
}

impl Gateway {
    /// Writes the configuration and starts both processes; returns once everything in it is installed.
    ///
    /// # Errors
    /// If either process does not come up.
    pub fn start(world: &World, side: Side, config: &Config) -> Result<Self> {
        let folder = world.folder().join(format!("gateway-{}", side.name()));
        let mut gateway = Self {
            name: format!("gateway {}", side.name()),
            netns: world.gateway(side).name().to_owned(),
            folder,
            dataplane: None,
            control: None,
            starts: 0,
        };
        gateway.configure(config)?;
        gateway.start_dataplane()?;
        gateway.start_control()?;
        gateway.wait_installed()?;
        Ok(gateway)
    }

    /// Writes both files anew; nothing takes notice before [`Self::reload`].
    ///
    /// # Errors
    /// If they can't be written.
    pub fn configure(&self, config: &Config) -> Result<()> {
        std::fs::create_dir_all(self.folder.join("state"))?;
        std::fs::write(self.config_file(), config.text(&self.netns, &self.folder))?;
        let secrets = self.folder.join("secrets.toml");
        std::fs::write(&secrets, &config.secrets)?;
        std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("pollux.toml")
    }

    /// The folder with its files, logs and sockets.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the data plane.
    ///
    /// # Errors
    /// If it does not say that it is ready.
    pub fn start_dataplane(&mut self) -> Result<()> {
        self.dataplane = Some(self.start_daemon("pollux-dataplane")?);
        wait_for("the data plane to answer", READY, || self.alive("dataplane", "ports"))
    }

    /// Starts control.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn start_control(&mut self) -> Result<()> {
        self.control = Some(self.start_daemon("pollux-control")?);
        wait_for("control to answer", READY, || self.alive("control", "status"))
    }

    fn start_daemon(&mut self, program: &str) -> Result<Process> {
        self.starts += 1;
        let log = self.folder.join(format!("{program}.{}.log", self.starts));
        let mut command = Command::new(built(program)?);
        command.arg("--config").arg(self.config_file());
        Process::start(&format!("{} {program}", self.name), &mut command, &log)
    }

    /// Whether `verb` answers; an error if the process behind it is gone.
    fn alive(&mut self, which: &str, verb: &str) -> Result<bool> {
        let process = if which == "control" { &mut self.control } else { &mut self.dataplane };
        let process = process.as_mut().context("not started")?;
        if !process.is_running() {
            bail!("{} {which} ended:\n{}", self.name, process.tail());
        }
        Ok(self.json(verb).is_ok())
    }

    /// Waits until every SA and policy of the configuration is acknowledged.
    ///
    /// # Errors
    /// If that does not happen in time; the error says what is missing.
    pub fn wait_installed(&self) -> Result<()> {
        let installed = wait_for("everything to be installed", READY, || {
            let status = self.status()?;
            let control = &status["control"];
            Ok(control["attached"] == true
                && control["sas_installed"] == control["sas_wanted"]
                && status["dataplane"]["policies"].as_u64() >= control["policies_wanted"].as_u64())
        });
        installed.with_context(|| format!("{}: {:?}\n{}", self.name, self.status(), self.logs()))
    }

    /// Runs `pollux ARGUMENTS` against this gateway.
    ///
    /// # Errors
    /// If it fails.
    pub fn cli(&self, arguments: &str) -> Result<String> {
        run(&mut self.cli_command(arguments)?)
    }

    /// Runs `pollux ARGUMENTS --json`.
    ///
    /// # Errors
    /// If it fails, or does not print JSON.
    pub fn json(&self, arguments: &str) -> Result<Value> {
        let text = self.cli(&format!("{arguments} --json"))?;
        serde_json::from_str(&text).with_context(|| format!("pollux {arguments} --json: {text}"))
    }

    /// `pollux status --json`, which fails where one of the two processes does not answer and tells of the other.
    ///
    /// # Errors
    /// If neither answers.
    pub fn status(&self) -> Result<Value> {
        let output = output(&mut self.cli_command("status --json")?)?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn cli_command(&self, arguments: &str) -> Result<Command> {
        let mut command = Command::new(built("pollux")?);
        command.args(arguments.split_whitespace()).arg("--config").arg(self.config_file());
        Ok(command)
    }

    /// Makes the configuration file take effect.
    ///
    /// # Errors
    /// If control refuses it.
    pub fn reload(&self) -> Result<String> {
        self.cli("reload")
    }

    /// The data plane's process id.
    ///
    /// # Errors
    /// If it is not running.
    pub fn dataplane_pid(&self) -> Result<u32> {
        Ok(self.dataplane.as_ref().context("no data plane")?.pid())
    }

    /// kill -9 of the data plane.
    ///
    /// # Errors
    /// If it is not running.
    pub fn kill_dataplane(&mut self) -> Result<()> {
        self.dataplane.take().context("no data plane")?.kill()
    }

    /// Stops the data plane for a while, as a hypervisor or a debugger does.
    ///
    /// # Errors
    /// If it is not running.
    pub fn pause_dataplane(&self, time: Duration) -> Result<()> {
        let process = self.dataplane.as_ref().context("no data plane")?;
        process.signal(Signal::SIGSTOP)?;
        let slept = sleep(time);
        process.signal(Signal::SIGCONT)?;
        slept
    }

    /// kill -9 of control.
    ///
    /// # Errors
    /// If it is not running.
    pub fn kill_control(&mut self) -> Result<()> {
        self.control.take().context("no control")?.kill()
    }

    /// Stops both and takes everything away.
    ///
    /// # Errors
    /// If `pollux down` fails.
    pub fn down(&mut self) -> Result<String> {
        let text = self.cli("down")?;
        for process in [&mut self.control, &mut self.dataplane] {
            if let Some(mut process) = process.take() {
                process.stop()?;
            }
        }
        Ok(text)
    }

    /// kill -9 of `pollux down` after `time`, and of both daemons if they still run.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn down_half_way(&mut self, time: Duration) -> Result<()> {
        let mut command = self.cli_command("down")?;
        let mut down = Process::start("pollux down", &mut command, &self.folder.join("down.log"))?;
        sleep(time)?;
        down.kill()?;
        for process in [&mut self.control, &mut self.dataplane] {
            if let Some(mut process) = process.take() {
                process.kill()?;
            }
        }
        Ok(())
    }

    /// Packets dropped so far by reason; reasons at 0 are left out.
    ///
    /// # Errors
    /// If the data plane does not answer.
    pub fn drops(&self) -> Result<BTreeMap<String, u64>> {
        let rows = self.json("drops")?;
        let rows = rows.as_array().context("drops is a list")?;
        let mut drops = BTreeMap::new();
        for row in rows {
            let packets = row["packets"].as_u64().unwrap_or_default();
            if packets > 0 {
                *drops.entry(row["reason"].as_str().unwrap_or_default().to_owned()).or_default() += packets;
            }
        }
        Ok(drops)
    }

    /// Packets dropped for one reason so far.
    ///
    /// # Errors
    /// If the data plane does not answer.
    pub fn dropped(&self, reason: &str) -> Result<u64> {
        Ok(self.drops()?.get(reason).copied().unwrap_or_default())
    }

    /// Fails unless every frame is accounted for.
    ///
    /// # Errors
    /// If frames are missing.
    pub fn check_ledger(&self) -> Result<()> {
        wait_for("the frame ledger to balance", Duration::from_secs(3), || {
            Ok(self.status()?["dataplane"]["frames"]["missing"] == 0)
        })
        .with_context(|| format!("{}: {:?}", self.name, self.status()))
    }

    /// What the ledger misses at the end of a test, where the data plane runs until then.
    fn ledger_at_end(&mut self) -> Option<Value> {
        if std::thread::panicking() || !self.dataplane.as_mut()?.is_running() {
            return None;
        }
        let mut frames = Value::Null;
        poll(Duration::from_secs(3), || {
            frames = self.status().map_or(Value::Null, |status| status["dataplane"]["frames"].clone());
            frames["missing"].as_i64().is_none_or(|missing| missing == 0)
        });
        frames["missing"].as_i64().is_some_and(|missing| missing != 0).then_some(frames)
    }

    /// The ends of both processes' logs.
    pub fn logs(&self) -> String {
        let tail = |process: &Option<Process>| process.as_ref().map(Process::tail).unwrap_or_default();
        format!("data plane:\n{}\ncontrol:\n{}", tail(&self.dataplane), tail(&self.control))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let unbalanced = self.ledger_at_end();
        self.control = None;
        if let Ok(mut command) = self.cli_command("down") {
            let _ = output(&mut command);
        }
        self.dataplane = None;
        match unbalanced {
            // Where a panic aborts, as in the demo, it would leave the namespaces behind.
            Some(frames) if cfg!(panic = "unwind") => panic!("{}: frames are missing: {frames}", self.name),
            Some(frames) => eprintln!("{}: frames are missing: {frames}", self.name),
            None => {}
        }
    }
}
