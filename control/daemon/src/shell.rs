//! The gateway's control state, and how it answers what comes in. No sockets are read here: `drive` does
//! that, and calls one verb for each thing that happens. Keys pass through the verbs' frames, which lie below the
//! loop's own, where it wipes them afterwards: the verbs are not inlined.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pollux_abi::command::{PolicySpec, SaSpec};
use pollux_abi::{Event, Reqid, SaId, Spi};
use pollux_config::api::{PolicyRow, SaRow};
use pollux_config::{Config, Secrets};
use pollux_crypto::{AwsLc, OsRng};
use pollux_ike::Endpoint;
use pollux_ike::crypto::draw;
use pollux_ike::endpoint::{Command, LiveSa, Target};
use pollux_shm::RingBroken;
use tokio::sync::mpsc;

use crate::change::Change;
use crate::ike;
use crate::install::{Installer, Kind, Outcome, Refusal};
use crate::journal::{Journal, Level, fields};
use crate::peers::Peers;
use crate::policies::{self, Entry};
use crate::reqids::Reqids;
use crate::rings::Rings;
use crate::routes::KernelRoutes;
use crate::table::{Allocator, SaEntry, State, Table};
use crate::udp::{Datagram, Sockets};
use crate::waiter::Waiters;

/// How long one step of a manual SA or a policy list may take: bulk installs queue behind each other.
pub(crate) const BULK_PATIENCE: Duration = Duration::from_secs(10);
/// SPIs of removed SAs that are remembered, to tell packets lost to a rekey from strangers'.
const GONE_MAX: usize = 4_096;

/// What a data plane told of itself while control attached to it.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) rings: Rings,
    pub(crate) sas: Vec<SaRow>,
    pub(crate) policies: Vec<PolicyRow>,
}

/// Something that is due later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A removed or expired SA has lingered long enough.
    Remove(SaId),
    /// What the data plane has not acknowledged in time is asked for again.
    TryAgain,
}

/// Counters of this process's life.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) attachments: u64,
    pub(crate) child_rekeys: u64,
    pub(crate) ike_rekeys: u64,
    pub(crate) lost_to_rekey: u64,
    pub(crate) unreadable_events: u64,
}

/// All that control knows.
pub(crate) struct Shell {
    pub(crate) file: PathBuf,
    pub(crate) config: Config,
    pub(crate) secrets: Secrets,
    pub(crate) journal: Journal,
    pub(crate) started: Instant,
    pub(crate) counters: Counters,
    pub(crate) detached_reason: Option<String>,
    pub(crate) refused: BTreeMap<String, String>,
    pub(crate) rings: Option<Rings>,
    pub(crate) installer: Installer,
    pub(crate) table: Table,
    pub(crate) allocator: Allocator,
    pub(crate) timers: BTreeMap<(Instant, u64), Timer>,
    pub(crate) timer_number: u64,
    pub(crate) change: Option<Change>,
    pub(crate) entries: Vec<Entry>,
    /// Whether control has been told to stop and takes leave of its peers.
    pub(crate) is_leaving: bool,
    /// The list that the data plane has in force; `None` while that is unknown.
    pub(crate) in_force: Option<Vec<PolicySpec>>,
    pub(crate) reqids: Reqids,
    pub(crate) peers: Peers,
    pub(crate) endpoint: Endpoint,
    pub(crate) sockets: Option<Sockets>,
    /// What the sockets receive, for the loop to take.
    pub(crate) datagrams: Option<mpsc::Receiver<Datagram>>,
    pub(crate) waiters: Waiters,
    pub(crate) rng: OsRng,
    /// What negotiated SAs were installed with, but not their keys: for a peer that moves.
    pub(crate) negotiated: HashMap<SaId, Box<SaSpec>>,
    /// Whether keys have passed through since the stack was wiped.
    pub(crate) had_keys: bool,
    pub(crate) gone: VecDeque<Spi>,
    /// SAs that were removed without the core, which will ask for it once more.
    pub(crate) evicted: HashSet<SaId>,
    /// Peers whose last message was not sent, and why.
    pub(crate) unsent: HashMap<IpAddr, io::ErrorKind>,
    /// Children that came down and that traffic brings back: `close_action` or `dpd_action` is `trap`.
    pub(crate) trapped: BTreeSet<Reqid>,
    /// Children that the peer has narrowed: what their Child SAs leave out asks for further ones.
    pub(crate) narrowed: BTreeSet<Reqid>,
    /// SA events that are told, by name, for the last refusal of each connection.
    pub(crate) last_refusal: HashMap<Arc<str>, String>,
}

impl Shell {
    /// A shell that is not attached.
    pub(crate) fn new(
        config: Config,
        secrets: Secrets,
        reqids: Reqids,
    ) -> Result<Self, pollux_config::Problems> {
        let mut rng = OsRng::new();
        let allocator = Allocator::new(u32::from_le_bytes(draw(&mut rng)));
        let peers = Peers::default();
        let endpoint = Endpoint::new(
            Arc::new(ike::config(&config, &secrets, reqids.children())?),
            Arc::new(AwsLc),
            Box::new(allocator.clone()),
            Box::new(KernelRoutes { ike_port: config.control.ike_port }),
        );
        Ok(Self {
            file: config.file.clone(),
            entries: policies::list(&config, reqids.children(), &peers),
            config,
            secrets,
            journal: Journal::new(),
            started: Instant::now(),
            counters: Counters::default(),
            detached_reason: Some("not tried yet".to_owned()),
            refused: BTreeMap::new(),
            rings: None,
            installer: Installer::default(),
            table: Table::new(),
            allocator,
            timers: BTreeMap::new(),
            timer_number: 0,
            change: None,
            is_leaving: false,
            in_force: None,
            reqids,
            peers,
            endpoint,
            sockets: None,
            datagrams: None,
            waiters: Waiters::default(),
            rng,
            negotiated: HashMap::new(),
            had_keys: true,
            gone: VecDeque::new(),
            evicted: HashSet::new(),
            unsent: HashMap::new(),
            trapped: BTreeSet::new(),
            narrowed: BTreeSet::new(),
            last_refusal: HashMap::new(),
        })
    }

    /// The core's clock.
    pub(crate) fn ike_now(&self, now: Instant) -> pollux_ike::Instant {
        let since = now.saturating_duration_since(self.started).as_nanos();
        // Zero is the core's "never", and a life is never 584 years.
        pollux_ike::Instant::from_nanos(u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1))
    }

    /// The rings are attached, and what the data plane has is known.
    #[inline(never)]
    pub(crate) fn attached(&mut self, now: Instant, attached: Attached) {
        let Attached { rings, sas, policies } = attached;
        let attach_reply = rings.attach_reply.clone();
        self.allocator.reset(attach_reply.sa_capacity, attach_reply.spi_index_width);
        self.counters.attachments += 1;
        self.detached_reason = None;
        self.rings = Some(rings);
        self.table.clear();
        let names = self.reqids.names();
        for row in sas {
            let mut entry = SaEntry { row, state: State::Installed };
            if !entry.is_manual() {
                entry.row.name = names.get(&Reqid(entry.row.reqid)).cloned();
            }
            let index = pollux_abi::SaIndex(entry.row.index);
            self.allocator.claim(entry.direction(), index);
            self.table.insert(SaId(entry.row.id), entry);
        }
        self.journal.note(
            Level::Info,
            "attached",
            format!(
                "attached to the data plane: {} workers, room for {} SAs of each direction, {} SAs and {} policies there",
                attach_reply.workers,
                attach_reply.sa_capacity,
                self.table.len(),
                policies.len()
            ),
            fields().with("workers", attach_reply.workers).with("sas", self.table.len()).with("policies", policies.len()),
        );
        let is_fresh = self.table.is_empty() && policies.is_empty();
        self.peers.inherit(self.table.values().map(|entry| &entry.row));
        self.entries = policies::list(&self.config, self.reqids.children(), &self.peers);
        let same = policies.len() == self.entries.len()
            && policies.iter().zip(&self.entries).all(|(row, entry)| *row == PolicyRow::from(&entry.spec));
        self.in_force = if same { Some(self.entries.iter().map(|entry| entry.spec).collect()) } else { None };
        self.begin(now, is_fresh, None);
        let live = self.live();
        let ike_now = self.ike_now(now);
        self.endpoint.handle_command(ike_now, Command::DataPlaneUp { live }, &mut self.rng);
    }

    /// SAs of an earlier life, the newest traffic first.
    fn live(&self) -> Vec<LiveSa> {
        let mut live: Vec<LiveSa> = self
            .table
            .iter()
            .filter(|(_, entry)| !entry.is_manual() && entry.state != State::Removing)
            .filter_map(|(&id, entry)| {
                let row = &entry.row;
                Some(LiveSa {
                    id,
                    direction: entry.direction(),
                    spi: Spi::new(row.spi)?,
                    reqid: Reqid(row.reqid),
                    local: row.local?,
                    remote: row.remote?,
                    encap: row.encap.map(|(local, remote)| pollux_abi::command::EncapPorts { local, remote }),
                    idle_ns: row.idle_s.map_or(u64::MAX, |idle| {
                        let idle = Duration::try_from_secs_f64(idle).unwrap_or(Duration::MAX);
                        u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX)
                    }),
                })
            })
            .collect();
        live.sort_by_key(|sa| sa.idle_ns);
        live
    }

    /// The data plane went away, or its rings can't be trusted any more.
    pub(crate) fn detached(&mut self, now: Instant, reason: &str) {
        if self.rings.take().is_none() {
            return;
        }
        self.detached_reason = Some(reason.to_owned());
        self.journal.note(Level::Error, "detached", format!("lost the data plane: {reason}"), fields());
        let ike_now = self.ike_now(now);
        self.endpoint.handle_command(ike_now, Command::DataPlaneDown, &mut self.rng);
        self.installer.detached();
        self.timers.clear();
        self.settle(now);
        self.table.clear();
        self.negotiated.clear();
        self.evicted.clear();
        self.in_force = None;
        if let Some(change) = self.change.take() {
            change.answer(Err(
                "the data plane went away during the reload; it is applied when it is back".to_owned()
            ));
        }
    }

    /// One datagram for the core.
    #[inline(never)]
    pub(crate) fn datagram(&mut self, now: Instant, datagram: &Datagram) {
        let ike_now = self.ike_now(now);
        self.endpoint.handle_datagram(
            ike_now,
            datagram.local,
            datagram.remote,
            &datagram.bytes,
            &mut self.rng,
        );
    }

    /// Reads the rings; then does all that is due, until nothing is left to do at this moment.
    #[inline(never)]
    pub(crate) fn turn(&mut self, now: Instant) {
        if let Err(RingBroken) = self.read_events(now) {
            self.detached(now, "its rings are broken");
        }
        if self.endpoint.next_deadline().is_some_and(|at| at <= self.ike_now(now)) {
            let ike_now = self.ike_now(now);
            self.endpoint.handle_timeout(ike_now, &mut self.rng);
        }
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            let timer = entry.remove();
            self.timer(now, &timer);
        }
        if let Some(rings) = &mut self.rings
            && let Err(RingBroken) = self.installer.expire(rings, now)
        {
            self.detached(now, "its rings are broken");
        }
        self.settle(now);
        self.waiters.expire(now);
    }

    /// Carries outcomes to where they are waited for, and outputs of the core to where they go.
    fn settle(&mut self, now: Instant) {
        loop {
            let mut quiet = true;
            // Peers may come by the thousand: their policies go together, when the last list is in force.
            if self.rings.is_some() && !self.installer.has_policies() && self.peers.take_changed() {
                self.send_policies();
            }
            if let Some(rings) = &mut self.rings
                && let Err(RingBroken) = self.installer.pump(rings, now)
            {
                self.detached(now, "its rings are broken");
            }
            while let Some(outcome) = self.installer.outcome() {
                quiet = false;
                self.outcome(now, outcome);
            }
            while let Some(output) = self.endpoint.poll_output() {
                quiet = false;
                self.output(now, output);
            }
            if quiet {
                return;
            }
        }
    }

    fn read_events(&mut self, now: Instant) -> Result<(), RingBroken> {
        let mut events = Vec::new();
        let Some(rings) = &mut self.rings else { return Ok(()) };
        self.counters.unreadable_events += u64::from(rings.events(&mut events)?);
        for event in events {
            match event {
                Event::Ack { ticket, result } => {
                    let Some(rings) = &mut self.rings else { return Ok(()) };
                    self.installer.acknowledged(rings, now, ticket, result)?;
                }
                Event::SaStats { ticket, stats } => self.installer.answered(ticket, stats),
                other => self.event(now, other),
            }
        }
        Ok(())
    }

    /// An SA has left the data plane.
    fn left(&mut self, entry: &SaEntry) {
        if let Some(spi) = Spi::new(entry.row.spi).filter(|_| entry.is_inbound()) {
            if self.gone.len() == GONE_MAX {
                self.gone.pop_front();
            }
            self.gone.push_back(spi);
        }
        let reqid = Reqid(entry.row.reqid);
        let others = || self.table.values().any(|other| !other.is_inbound() && other.row.reqid == reqid.0);
        if self.peers.has_inherited(reqid) && !others() {
            self.peers.forget(reqid);
        }
    }

    /// Takes the end of one SA's or list's way.
    fn outcome(&mut self, now: Instant, outcome: Outcome) {
        match outcome {
            Outcome::Policies { number, list, result } => {
                let is_late = matches!(result, Err(Refusal::Late(_)));
                match result {
                    Ok(()) => self.refused.retain(|name, _| name != "policies"),
                    Err(refusal) => {
                        self.refuse("policies", format!("the policy list was not put in force: {refusal}"));
                    }
                }
                self.in_force = result.is_ok().then_some(list);
                self.change_policies_done(now, number, is_late);
            }
            Outcome::Stats { id, stats } => {
                if let Some(stats) = stats {
                    self.command(now, Command::SaStats { sa: id, stats });
                }
            }
            Outcome::Sa { id, kind, result } => {
                self.had_keys = true;
                let Some(entry) = self.table.get_mut(&id) else { return };
                let is_manual = entry.is_manual();
                let name = entry.row.name.clone();
                let failed_add = kind == Kind::Add && result.is_err();
                if kind == Kind::Remove || failed_add {
                    let (direction, index) = (entry.direction(), pollux_abi::SaIndex(entry.row.index));
                    let entry = self.table.remove(&id);
                    self.negotiated.remove(&id);
                    self.allocator.free(direction, index);
                    if let Some(entry) = entry {
                        self.left(&entry);
                    }
                } else {
                    entry.state = State::Installed;
                }
                if is_manual || self.change.as_ref().is_some_and(|change| change.awaits(id)) {
                    self.change_sa_done(now, id, name, result);
                } else if let (Kind::Replace, Err(refusal @ (Refusal::Command(_) | Refusal::Late(_)))) =
                    (kind, result)
                {
                    // It would go on sending to where the peer is no more, or with other marks than the file has.
                    let text =
                        format!("sa {} could not be changed and is replaced: {refusal}", self.sa_name(id));
                    let facts = self.sa_fields(id);
                    self.journal.note(Level::Error, "sa-not-changed", text, facts);
                    self.command(now, Command::Rekey(Target::Child(id)));
                } else if kind == Kind::Add {
                    let command = match result {
                        Ok(()) => Command::SaInstalled { sa: id },
                        Err(refusal) => Command::SaRefused { sa: id, error: refusal.command_error() },
                    };
                    self.command(now, command);
                }
            }
        }
    }

    /// Tells the core something.
    pub(crate) fn command(&mut self, now: Instant, command: Command) {
        let ike_now = self.ike_now(now);
        self.endpoint.handle_command(ike_now, command, &mut self.rng);
    }

    /// Remembers and tells what the data plane refused.
    pub(crate) fn refuse(&mut self, name: &str, line: String) {
        self.journal.note(Level::Error, "refused", line.clone(), fields().with("name", name));
        self.refused.insert(name.to_owned(), line);
    }

    /// Asks to be called at a moment.
    pub(crate) fn at(&mut self, when: Instant, timer: Timer) {
        self.timer_number += 1;
        self.timers.insert((when, self.timer_number), timer);
    }

    /// Asks for an SA to be removed.
    pub(crate) fn remove(&mut self, id: SaId, patience: Duration) {
        if let Some(entry) = self.table.get_mut(&id)
            && entry.state != State::Removing
        {
            entry.state = State::Removing;
            let owner = pollux_abi::WorkerId(entry.row.worker);
            self.installer.remove(id, owner, patience);
        }
    }

    /// When [`Self::turn`] is to be called, if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let ike = self.endpoint.next_deadline().map(|at| self.started + Duration::from_nanos(at.as_nanos()));
        let timer = self.timers.keys().next().map(|&(at, _)| at);
        [ike, timer, self.installer.deadline(), self.waiters.deadline()].into_iter().flatten().min()
    }
}
