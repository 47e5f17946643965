//! What the operator asks of control.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pollux_config::Config;
use pollux_config::api::{ControlRequest, Done, ReloadReport};
use pollux_ike::endpoint::{Command, Target};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::api::Answer;
use crate::change::Reply;
use crate::ike;
use crate::journal::{Level, fields};
use crate::policies;
use crate::shell::Shell;
use crate::udp::Sockets;

/// Events that `pollux log` shows where it is not told how many.
const LOG_LINES: u32 = 200;

impl Shell {
    /// Answers one request. `Stop` is answered here and carried out by the caller.
    #[inline(never)]
    pub(crate) fn request(&mut self, now: Instant, request: ControlRequest) -> Answer {
        match request {
            ControlRequest::Status => ok(&self.status()),
            ControlRequest::Reload => self.reload(now),
            ControlRequest::Sas => Answer::SaNames(self.sa_names()),
            ControlRequest::Policies => Answer::PolicyNames(self.policy_names()),
            ControlRequest::Names { policy, sa } => ok(&self.names(policy, sa)),
            ControlRequest::ListConns => ok(&self.connections()),
            ControlRequest::ListSas => Answer::IkeSas(self.ike_sas()),
            ControlRequest::Initiate { child, timeout_ms } => self.initiate(now, &child, timeout_ms),
            ControlRequest::Terminate { child, ike } => {
                self.aim(now, child, ike, "terminated", Command::Terminate)
            }
            ControlRequest::Rekey { child, ike } => self.aim(now, child, ike, "rekeyed", Command::Rekey),
            ControlRequest::Events { past } => {
                let past = if past == 0 { Vec::new() } else { self.journal.last(past) };
                Answer::Stream(past, self.journal.listen())
            }
            ControlRequest::Log { lines } => {
                ok(&self.journal.last(if lines == 0 { LOG_LINES } else { lines }))
            }
            ControlRequest::Stop => ok(&()),
        }
    }

    /// Deletes every IKE SA and takes no new one: without connections there is none to be had. Policies and manual SAs
    /// stay as they are.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.is_leaving = true;
        let mut config = self.config.clone();
        config.connections.clear();
        match ike::config(&config, &self.secrets, self.reqids.children()) {
            Ok(endpoint) => self.command(now, Command::Reload(Arc::new(endpoint))),
            // It was without mistakes before the connections went; the peers find out by themselves.
            Err(problems) => tracing::error!(event = "peers-not-told", "{problems}"),
        }
    }

    /// Reads both files again. Nothing changes unless both are right.
    fn reload(&mut self, now: Instant) -> Answer {
        if self.is_leaving {
            return Answer::Error("control is about to end".to_owned());
        }
        if self.change.is_some() {
            return Answer::Error("the last change is still on its way; try again".to_owned());
        }
        let (config, secrets) = match pollux_config::load_with_secrets(&self.file) {
            Ok(loaded) => loaded,
            Err(problems) => return Answer::Error(format!("nothing was changed:\n{problems}")),
        };
        let reqids = self.reqids.of(&config, &self.table);
        let endpoint = match ike::config(&config, &secrets, &reqids) {
            Ok(endpoint) => endpoint,
            Err(problems) => return Answer::Error(format!("nothing was changed:\n{problems}")),
        };
        if let Err(reason) = self.open_sockets(&config) {
            return Answer::Error(format!("nothing was changed: {reason}"));
        }
        let report = self.compare(&config);
        self.config = config;
        self.secrets = secrets;
        self.reqids.adopt(reqids);
        self.warn_of_key_log();
        self.warn_of_files();
        self.command(now, Command::Reload(Arc::new(endpoint)));
        let (reply, answer): (Reply, _) = oneshot::channel();
        if self.rings.is_some() {
            self.begin(now, false, Some((reply, report)));
        } else {
            self.entries = policies::list(&self.config, self.reqids.children(), &self.peers);
            let mut report = report;
            report.refused.push("no data plane is attached; all of it is installed when one is".to_owned());
            // The receiver is in the answer below.
            let _ = reply.send(Ok(report));
        }
        Answer::Change(answer)
    }

    /// What a reload changes beside SAs and policies.
    fn compare(&self, new: &Config) -> ReloadReport {
        let mut report = ReloadReport::default();
        let old = &self.config;
        for connection in &new.connections {
            let mut before = old.connections.iter().find(|other| other.name == connection.name).cloned();
            if let Some(before) = &mut before {
                // Where it stands in the file is no change.
                before.line = connection.line;
                for child in &mut before.children {
                    let same = connection.children.iter().find(|other| other.name == child.name);
                    child.line = same.map_or(child.line, |same| same.line);
                }
            }
            match before {
                None => report.connections_added.push(connection.name.clone()),
                Some(before) if before != *connection => {
                    report.connections_changed.push(connection.name.clone());
                }
                Some(_) => {}
            }
        }
        let gone = |name: &&String| !new.connections.iter().any(|connection| connection.name == **name);
        report.connections_removed =
            old.connections.iter().map(|connection| &connection.name).filter(gone).cloned().collect();
        if old.dataplane != new.dataplane {
            report
                .needs_restart
                .push("[dataplane] has changed: pollux-dataplane takes it at its next start".to_owned());
        }
        if old.paths.run_dir != new.paths.run_dir || old.paths.state_dir != new.paths.state_dir {
            report
                .needs_restart
                .push("[paths] has changed: both processes take it at their next start".to_owned());
        }
        report
    }

    /// Says what is legal in the files and seldom meant.
    pub(crate) fn warn_of_files(&mut self) {
        for warning in &self.config.warnings {
            self.journal.note(Level::Warn, "config", warning.to_string(), fields());
        }
        for warning in self.secrets.warnings() {
            self.journal.note(Level::Warn, "secrets", warning.to_string(), fields());
        }
    }

    /// Says it where every negotiated key is written down: nobody shall forget to end that.
    pub(crate) fn warn_of_key_log(&mut self) {
        if let Some(file) = &self.config.control.key_log {
            let text = format!("every negotiated key is written to {}: control.key_log", file.display());
            self.journal.note(Level::Warn, "key-log", text, fields());
        }
    }

    /// Opens the IKE sockets where a connection needs them.
    pub(crate) fn open_sockets(&mut self, config: &Config) -> Result<(), String> {
        if config.connections.is_empty() || self.sockets.is_some() {
            return Ok(());
        }
        let (sockets, datagrams) = Sockets::open(config.control.ike_port, config.control.natt_port)
            .map_err(|error| error.to_string())?;
        self.sockets = Some(sockets);
        self.datagrams = Some(datagrams);
        Ok(())
    }

    /// `CHILD` or `CONNECTION/CHILD`.
    fn find_child(&self, name: &str) -> Result<(Arc<str>, Arc<str>), String> {
        let found: Vec<_> = self
            .reqids
            .children()
            .keys()
            .filter(|(connection, child)| &**child == name || format!("{connection}/{child}") == name)
            .collect();
        match found[..] {
            [(connection, child)] => Ok((Arc::clone(connection), Arc::clone(child))),
            [] => Err(format!("there is no child {name}; `pollux list-conns` shows them")),
            _ => {
                let names: Vec<_> =
                    found.iter().map(|(connection, child)| format!("{connection}/{child}")).collect();
                Err(format!("{name} may be {}; write which", names.join(" or ")))
            }
        }
    }

    fn initiate(&mut self, now: Instant, name: &str, timeout_ms: u64) -> Answer {
        let (connection, child) = match self.find_child(name) {
            Ok(found) => found,
            Err(reason) => return Answer::Error(reason),
        };
        self.last_refusal.remove(&connection);
        let (reply, answer) = oneshot::channel();
        if timeout_ms > 0 {
            let deadline = now + Duration::from_millis(timeout_ms);
            self.waiters.push(Arc::clone(&connection), Arc::clone(&child), deadline, reply);
        }
        let text = format!("{connection}/{child} is being set up");
        self.command(now, Command::Initiate { connection, child: Some(child) });
        if timeout_ms == 0 { ok(&Done { text, count: 1 }) } else { Answer::Done(answer) }
    }

    fn aim(
        &mut self,
        now: Instant,
        child: Option<String>,
        ike: Option<String>,
        what: &str,
        command: impl Fn(Target) -> Command,
    ) -> Answer {
        let (target, name, count) = match (child, ike) {
            (Some(name), None) => match self.find_child(&name) {
                Ok((connection, child)) => {
                    let count = self
                        .ike_status()
                        .iter()
                        .flat_map(|sa| &sa.children)
                        .filter(|up| up.sa.connection == connection && up.sa.child == child)
                        .count();
                    (Target::Connection { connection, child: Some(child) }, name, count)
                }
                Err(reason) => return Answer::Error(reason),
            },
            (None, Some(name)) => {
                if !self.config.connections.iter().any(|connection| connection.name == name) {
                    return Answer::Error(format!(
                        "there is no connection {name}; `pollux list-conns` shows them"
                    ));
                }
                let count =
                    self.ike_status().iter().filter(|sa| sa.connection.as_deref() == Some(&*name)).count();
                (Target::Connection { connection: name.as_str().into(), child: None }, name, count)
            }
            _ => return Answer::Error("name either a child or a connection".to_owned()),
        };
        if count == 0 {
            return Answer::Error(format!("{name} has no SA; `pollux list-sas` shows what is up"));
        }
        self.command(now, command(target));
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        ok(&Done { text: format!("{name}: {count} SA(s) are being {what}"), count })
    }
}

fn ok(value: &impl Serialize) -> Answer {
    match serde_json::to_value(value) {
        Ok(value) => Answer::Now(value),
        Err(error) => Answer::Error(format!("the answer can't be written: {error}")),
    }
}
