//! What the IKE core wants done, and what the data plane tells it.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use pollux_abi::command::{Direction, EncapPorts, SaSpec};
use pollux_abi::dscp::{DfMark, DscpMark, EcnMode};
use pollux_abi::layout::SELECTORS_MAX;
use pollux_abi::{Event, SaId, SaIndex, Selectors, Spi};
use pollux_config::api::{ReloadReport, df_name, dscp_name, ecn_name, fingerprint};
use pollux_config::{Child, DpdAction, StartAction};
use pollux_ike::IkeSaId;
use pollux_ike::endpoint::{Command, Output, SaCommand, SaInstall};
use pollux_ike::event::{ChildUp, DownReason, IkeUp, NarrowedBy};

use crate::install::Refusal;
use crate::journal::{Fields, Level, fields};
use crate::keylog;
use crate::peers::Dynamic;
use crate::shell::Shell;
use crate::table::SaEntry;

/// A child's default replay window, where its configuration has gone in the meantime.
const WINDOW_DEFAULT: u32 = 1_024;

/// Peers that no message can be sent to, as far as they are remembered: what strangers pretend to be counts too.
const UNSENT_MAX: usize = 1_024;

impl Shell {
    /// Carries out one output of the core.
    pub(crate) fn output(&mut self, now: Instant, output: Output) {
        match output {
            Output::Transmit(transmit) => {
                let Some(sockets) = &self.sockets else { return };
                let (peer, sent) = (transmit.remote.ip(), sockets.send(&transmit));
                let Err(error) = sent else {
                    self.unsent.remove(&peer);
                    return;
                };
                // Once for each peer and reason, until a message goes out again: it is sent again and again.
                let known = self.unsent.get(&peer) == Some(&error.kind());
                if !known && (self.unsent.len() < UNSENT_MAX || self.unsent.contains_key(&peer)) {
                    self.unsent.insert(peer, error.kind());
                    let text = format!(
                        "a message to {} was not sent: {error}; told once, until one is sent",
                        transmit.remote
                    );
                    let facts = fields().with("remote", transmit.remote);
                    self.journal.note(Level::Warn, "ike-not-sent", text, facts);
                }
            }
            Output::Sa(command) => self.sa_command(now, command),
            Output::Event(event) => self.ike_event(event),
        }
    }

    fn sa_command(&mut self, now: Instant, command: SaCommand) {
        match command {
            SaCommand::Install(install) => self.install(now, *install),
            // Its place may be another's by now.
            SaCommand::Remove { id, .. } if self.evicted.remove(&id) => {}
            SaCommand::Remove { id, spi, direction } => {
                if self.table.contains_key(&id) {
                    self.remove(id, self.config.control.ack_deadline);
                } else if let Some(index) = self
                    .allocator
                    .index_of(spi)
                    .filter(|_| direction == Direction::Inbound && self.rings.is_some())
                {
                    self.allocator.free(direction, index);
                }
            }
            SaCommand::Query { id } => {
                let broken = self.rings.as_mut().map(|rings| self.installer.query(rings, id));
                if let Some(Err(_)) = broken {
                    self.detached(now, "its rings are broken");
                }
            }
            SaCommand::Move { id, local, remote, encap } => self.move_sa(id, local, remote, encap),
        }
    }

    fn install(&mut self, now: Instant, install: SaInstall) {
        let id = install.id;
        let refuse = |shell: &mut Self, refusal: Refusal| {
            shell.command(now, Command::SaRefused { sa: id, error: refusal.command_error() });
        };
        let Some(rings) = &self.rings else { return refuse(self, Refusal::Detached) };
        let key = rings.attach_reply.fingerprint_key;
        let index = match install.direction {
            // Its place was taken when the SPI was drawn.
            Direction::Inbound => self.allocator.index_of(install.spi),
            Direction::Outbound => self.allocator.place(Direction::Outbound, now),
        };
        let Some(index) = index else {
            return refuse(self, Refusal::Command(pollux_abi::CommandError::Full));
        };
        let name = format!("{}/{}", install.connection, install.child);
        let Some(spec) = self.spec(&install, index) else {
            return refuse(self, Refusal::Command(pollux_abi::CommandError::Field));
        };
        let print = fingerprint(&key, install.suite, &install.keys);
        self.table.insert(id, SaEntry::new(&spec, print, Some(name)));
        self.had_keys = true;
        self.negotiated.insert(id, Box::new(spec.clone()));
        self.installer.add(spec, install.keys, self.config.control.ack_deadline);
    }

    fn spec(&self, install: &SaInstall, index: SaIndex) -> Option<SaSpec> {
        let child = self.child(&install.connection, &install.child);
        Some(SaSpec {
            id: install.id,
            direction: install.direction,
            index,
            spi: install.spi,
            suite: install.suite,
            esn: install.esn,
            window_packets: child.map_or(WINDOW_DEFAULT, |child| child.window_packets),
            local: install.local,
            remote: install.remote,
            encap: install.encap,
            reqid: install.reqid,
            owner: self.owner(install.reqid),
            dscp: child.map_or(DscpMark::Copy, |child| child.dscp),
            ecn: child.map_or(EcnMode::Normal, |child| child.ecn),
            df: child.map_or(DfMark::Copy, |child| child.df),
            lifetimes: install.lifetimes,
            seq_start: u64::from(install.direction == Direction::Outbound),
            iv_start: 1,
            checkpoint: None,
            local_ts: Selectors::new(&install.local_ts)?,
            remote_ts: Selectors::new(&install.remote_ts)?,
        })
    }

    fn child(&self, connection: &str, child: &str) -> Option<&Child> {
        let connection = self.config.connections.iter().find(|one| one.name == connection)?;
        connection.children.iter().find(|one| one.name == child)
    }

    /// Negotiated SAs take the marks of the file at once. A replay window is of one size as long as its SA lives: the
    /// next one has the new size.
    pub(crate) fn apply_marks(&mut self, report: &mut ReloadReport) {
        let mut changed = Vec::new();
        for (&id, spec) in &self.negotiated {
            let Some(name) = self.table.get(&id).and_then(|entry| entry.row.name.as_deref()) else {
                continue;
            };
            let child = name.split_once('/').and_then(|(connection, child)| self.child(connection, child));
            let Some(child) = child else { continue };
            if (spec.dscp, spec.ecn, spec.df) != (child.dscp, child.ecn, child.df) {
                changed.push((id, name.to_owned(), (child.dscp, child.ecn, child.df)));
            }
            if spec.direction == Direction::Inbound && spec.window_packets != child.window_packets {
                report.waits_for_rekey.push(format!("replay_window of {name}"));
            }
        }
        for (id, name, (dscp, ecn, df)) in changed {
            let Some(spec) = self.negotiated.get_mut(&id) else { continue };
            (spec.dscp, spec.ecn, spec.df) = (dscp, ecn, df);
            self.installer.replace((**spec).clone(), None, self.config.control.ack_deadline);
            if let Some(entry) = self.table.get_mut(&id) {
                (entry.row.dscp, entry.row.ecn, entry.row.df) =
                    (dscp_name(dscp), ecn_name(ecn).to_owned(), df_name(df).to_owned());
            }
            report.sas_replaced.push(name);
        }
        report.waits_for_rekey.sort_unstable();
        report.waits_for_rekey.dedup();
    }

    /// The SA keeps its keys; its sequence numbers, and with them its IVs, go on.
    fn move_sa(&mut self, id: SaId, local: IpAddr, remote: IpAddr, encap: Option<EncapPorts>) {
        let Some(spec) = self.negotiated.get_mut(&id) else { return };
        (spec.local, spec.remote, spec.encap) = (local, remote, encap);
        self.installer.replace((**spec).clone(), None, self.config.control.ack_deadline);
        if let Some(entry) = self.table.get_mut(&id) {
            (entry.row.local, entry.row.remote) = (Some(local), Some(remote));
            entry.row.encap = encap.map(|ports| (ports.local, ports.remote));
        }
    }

    /// An event of the data plane that is no answer.
    pub(crate) fn event(&mut self, now: Instant, event: Event) {
        let is_manual = |shell: &Self, sa: SaId| shell.table.get(&sa).is_some_and(SaEntry::is_manual);
        match event {
            Event::Lifetime { sa, hard, limit } => {
                if !is_manual(self, sa) {
                    return self.command(now, Command::Lifetime { sa, hard });
                }
                let (level, what) = if hard {
                    (Level::Error, "it has stopped")
                } else {
                    (Level::Warn, "it needs new keys soon")
                };
                let limit = format!("{limit:?}").to_lowercase();
                let text = format!("sa {} has reached its {limit} limit: {what}", self.sa_name(sa));
                self.journal.note(level, "lifetime", text, self.sa_fields(sa).with("hard", hard));
            }
            Event::FirstPacket { sa } if !is_manual(self, sa) => {
                self.command(now, Command::FirstPacket { sa });
            }
            Event::PeerMoved { sa, source, port } => {
                let remote = SocketAddr::new(source, port);
                let text = format!("sa {}: authenticated packets come from {remote}", self.sa_name(sa));
                self.journal.note(Level::Info, "peer-moved", text, self.sa_fields(sa));
                if !is_manual(self, sa) {
                    self.command(now, Command::PeerMoved { sa, remote });
                }
            }
            Event::ReplayBurst { sa, count } => {
                let text = format!("sa {}: {count} packets were replayed or too old", self.sa_name(sa));
                self.journal.note(Level::Warn, "replay-burst", text, self.sa_fields(sa).with("count", count));
            }
            Event::UnknownSpi { spi, source, count } => {
                if Spi::new(spi).is_some_and(|spi| self.gone.contains(&spi)) {
                    self.counters.lost_to_rekey += u64::from(count);
                }
                let text =
                    format!("{count} ESP packets from {source} with SPI {spi:#010x}, which nobody here has");
                self.journal.note(
                    Level::Warn,
                    "unknown-spi",
                    text,
                    fields().with("count", count).with("source", source),
                );
            }
            Event::Restored { what, count } => {
                let text = format!(
                    "another program had removed {} ({count}); they are back: see \"other programs\" in the operating guide",
                    what.text()
                );
                self.journal.note(Level::Warn, "restored", text, fields().with("count", count));
            }
            Event::WantedSa { policy, source, destination, .. } => {
                self.wanted(now, policy, source, destination);
            }
            Event::FirstPacket { .. } | Event::Ack { .. } | Event::SaStats { .. } => {}
        }
    }

    /// An SA as the operator knows it: by its name, where it has one, and its SPI.
    pub(crate) fn sa_name(&self, sa: SaId) -> String {
        let Some(SaEntry { row, .. }) = self.table.get(&sa) else { return "that is gone".to_owned() };
        let spi = format!("{:#010x}", row.spi);
        match &row.name {
            Some(name) => format!("{name} ({} {spi})", row.direction),
            None => spi,
        }
    }

    /// The same, for programs that read events.
    pub(crate) fn sa_fields(&self, sa: SaId) -> Fields {
        let Some(SaEntry { row, .. }) = self.table.get(&sa) else { return fields() };
        let spi = format!("{:#010x}", row.spi);
        fields()
            .with("sa", row.name.as_ref().unwrap_or(&spi))
            .with("direction", &row.direction)
            .with("spi", spi)
    }

    fn wanted(&mut self, now: Instant, policy: pollux_abi::PolicyId, source: IpAddr, destination: IpAddr) {
        let entry = self.entries.iter().find(|entry| entry.spec.id == policy).cloned();
        let Some(entry) = entry else { return };
        if let pollux_abi::command::PolicyAction::Protect(reqid) = entry.spec.action
            && (entry.is_trap || self.trapped.contains(&reqid) || self.narrowed.contains(&reqid))
        {
            return self.command(now, Command::Acquire { reqid, source, destination });
        }
        let text = format!(
            "{source} to {destination} is protected by policy {}, and there is no SA for it",
            entry.name
        );
        self.journal.note(Level::Warn, "wanted-sa", text, fields().with("policy", entry.name));
    }

    fn ike_event(&mut self, event: pollux_ike::Event) {
        use pollux_ike::Event as E;
        match event {
            E::IkeUp(up) => {
                let text = format!(
                    "{}: IKE SA {} with {} ({}), {}",
                    up.connection, up.ike, up.remote_id, up.remote, up.proposal
                );
                self.journal.note(Level::Info, "ike-up", text, ike_fields(&up));
            }
            E::IkeRekeyed { old, new } => {
                self.counters.ike_rekeys += 1;
                let text = format!("{}: IKE SA {old} rekeyed as {}", new.connection, new.ike);
                self.journal.note(Level::Info, "ike-rekeyed", text, ike_fields(&new).with("old", old));
            }
            E::IkeDown { ike, connection, remote, reason } => {
                let name = connection.as_deref().unwrap_or("-").to_owned();
                let text = format!("{name}: IKE SA {ike} with {remote} is gone: {}", down(reason));
                let level = if reason == DownReason::PeerDead || reason == DownReason::Failed {
                    Level::Warn
                } else {
                    Level::Info
                };
                if self.is_last_hope(ike, &name) {
                    let why = self.last_refusal.remove(name.as_str());
                    self.waiters.failed(&name, why.as_deref().unwrap_or(&text));
                }
                self.journal.note(
                    level,
                    "ike-down",
                    text,
                    fields().with("connection", name).with("ike", ike),
                );
            }
            E::ChildUp(up) => self.child_up(&up, "child-up", "is up"),
            E::ChildRekeyed { new, initiator, .. } => {
                self.counters.child_rekeys += 1;
                let by = if initiator { "is rekeyed, by us" } else { "is rekeyed, by the peer" };
                self.child_up(&new, "child-rekeyed", by);
            }
            E::ChildDown { connection, child, inbound, spi_in, spi_out, reqid, reason, replaced, .. } => {
                self.peers.release(inbound);
                if !replaced && self.is_trapped(&connection, &child, reason) {
                    self.trapped.insert(reqid);
                }
                let text = format!(
                    "{connection}/{child}: Child SA in {spi_in} out {spi_out} is gone: {}",
                    down(reason)
                );
                let facts = fields().with("connection", connection).with("child", child);
                let facts = facts.with("spi_in", spi_in).with("spi_out", spi_out).with("replaced", replaced);
                self.journal.note(Level::Info, "child-down", text, facts);
            }
            E::ChildNarrowed { connection, child, reqid, wanted, carried, by } => {
                self.child_narrowed(&format!("{connection}/{child}"), reqid, (&wanted, &carried), by);
            }
            E::Keys(keys) => {
                let Some(file) = &self.config.control.key_log else { return };
                if let Err(error) = keylog::append(file, &keys) {
                    tracing::warn!(file = %file.display(), "keys not logged: {error}");
                }
            }
            other => self.ike_notice(other),
        }
    }

    /// Whether somebody waits for a connection that has no other IKE SA than this one, which is gone. After a reload the
    /// one that is closed may end when its successor is on its way.
    fn is_last_hope(&self, gone: IkeSaId, connection: &str) -> bool {
        self.waiters.wait_for(connection)
            && !self
                .ike_status()
                .iter()
                .any(|sa| sa.ike != gone && sa.connection.as_deref() == Some(connection))
    }

    /// Whether traffic is to bring back a child that came down for this reason.
    fn is_trapped(&self, connection: &str, child: &str, reason: DownReason) -> bool {
        self.child(connection, child).is_some_and(|child| match reason {
            DownReason::Peer => child.close_action == StartAction::Trap,
            DownReason::PeerDead => child.dpd_action == DpdAction::Trap,
            _ => false,
        })
    }

    fn child_up(&mut self, up: &ChildUp, event: &'static str, what: &str) {
        let list = |list: &[pollux_abi::TrafficSelector]| {
            list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let name = format!("{}/{}", up.connection, up.child);
        let text = format!(
            "{name}: Child SA {what}: in {} out {}, {}{}{}, {} === {}",
            up.spi_in,
            up.spi_out,
            up.suite,
            if up.esn { ", ESN" } else { "" },
            if up.encap { ", in UDP" } else { "" },
            list(&up.local_ts),
            list(&up.remote_ts)
        );
        self.trapped.remove(&up.reqid);
        if up.reqid.is_of_peer() {
            let (local_ts, remote_ts) = (up.local_ts.clone(), up.remote_ts.clone());
            self.peers.protect(up.inbound, up.reqid, Dynamic { name, local_ts, remote_ts });
        }
        self.waiters.up(&up.connection, &up.child, &text);
        let facts = fields()
            .with("connection", &up.connection)
            .with("child", &up.child)
            .with("spi_in", up.spi_in)
            .with("spi_out", up.spi_out)
            .with("reqid", up.reqid);
        self.journal.note(Level::Info, event, text, facts);
    }

    fn child_narrowed(
        &mut self,
        name: &str,
        reqid: pollux_abi::Reqid,
        (wanted, carried): (&str, &str),
        by: NarrowedBy,
    ) {
        let why = match by {
            NarrowedBy::Peer => {
                self.narrowed.insert(reqid);
                "the peer took the rest away; packets outside ask it for a further Child SA".to_owned()
            }
            NarrowedBy::Limit => {
                format!(
                    "{SELECTORS_MAX} selectors a side fit; the peer has to ask for a further Child SA, or both for wider prefixes"
                )
            }
        };
        let text = format!("{name}: the Child SA carries {carried} of {wanted}: {why}");
        self.journal.note(
            Level::Warn,
            "child-narrowed",
            text,
            fields().with("child", name).with("reqid", reqid),
        );
    }

    fn ike_notice(&mut self, event: pollux_ike::Event) {
        use pollux_ike::Event as E;
        let (level, name, text) = match event {
            E::Refused { connection, remote, error, authenticated, .. } => {
                let note = if authenticated { "" } else { " (not authenticated, and so without effect)" };
                let who = connection.as_deref().unwrap_or("-");
                let text = format!("{who}: {remote}: {error}{note}");
                if let Some(connection) = connection {
                    self.last_refusal.insert(connection, text.clone());
                }
                (Level::Warn, "ike-refused", text)
            }
            E::Retransmit { ike, remote, message_id, attempt } => (
                Level::Info,
                "ike-retransmit",
                format!("IKE SA {ike}: message {message_id} sent again to {remote}, attempt {attempt}"),
            ),
            E::LivenessProbe { ike, idle } => (
                Level::Info,
                "ike-liveness",
                format!("IKE SA {ike}: asking the peer whether it lives, after {idle:.1?} of silence"),
            ),
            E::PeerMoved { ike, old, new } => {
                (Level::Info, "ike-peer-moved", format!("IKE SA {ike}: the peer moved from {old} to {new}"))
            }
            E::Retry { connection, wait } => {
                (Level::Info, "ike-retry", format!("{connection}: will be tried again in {wait:.1?}"))
            }
            E::Overload { half_open, dropped } => (
                Level::Warn,
                "ike-overload",
                format!("{half_open} handshakes are half open; {dropped} requests were dropped"),
            ),
            other => (Level::Info, "ike", format!("{other:?}")),
        };
        self.journal.note(level, name, text, fields());
    }
}

fn ike_fields(up: &IkeUp) -> Fields {
    fields()
        .with("connection", &up.connection)
        .with("ike", up.ike)
        .with("remote", up.remote)
        .with("remote_id", &up.remote_id)
        .with("proposal", &up.proposal)
        .with("role", if up.initiator { "initiator" } else { "responder" })
}

/// Why something is gone, in words.
fn down(reason: DownReason) -> &'static str {
    match reason {
        DownReason::Operator => "as the operator or the configuration wants it",
        DownReason::Peer => "the peer deleted it",
        DownReason::PeerDead => "the peer does not answer",
        DownReason::Failed => "the handshake failed",
        DownReason::Lifetime => "its lifetime is over",
        DownReason::Replaced => "a newer one took its place",
        DownReason::InitialContact => "the peer began anew",
        DownReason::DataPlane => "the data plane did not install it",
    }
}
