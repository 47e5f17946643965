//! One gateway's IKE: entry verbs, the table of IKE SAs, outputs.
//!
//! A verb finds the IKE SA that is meant, gives it one [`Turn`], and then settles: effects on other IKE SAs
//! are carried out, indices and the deadline follow what the turn has changed.

mod admission;
mod claims;
mod command;
mod connection_index;
mod connections;
mod cookie;
mod demux;
mod directory;
mod initial;
mod operate;
mod orphans;
mod output;
mod peer_reqids;
mod status;
mod turn;

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub(crate) use admission::Stranger;
pub use command::{Command, LiveSa, Target};
pub(crate) use connection_index::ConnectionIndex;
pub(crate) use connections::matching;
pub(crate) use directory::{Entry, Identities};
pub use output::{Output, Routes, SaAllocator, SaCommand, SaInstall, Transmit};
pub use status::{ChildStatus, IkeStatus};
pub(crate) use turn::{Effect, Shared, Turn};

use crate::config::EndpointConfig;
use crate::crypto::{Provider, Rng};
use crate::sa::{IkeSa, IkeSaId, State};
use crate::time::Instant;
use admission::Admission;
use claims::Claims;
use connections::Retries;
use cookie::Cookies;
use demux::Demux;
use directory::Directory;
use orphans::Orphans;
use peer_reqids::PeerReqids;

/// How long the data plane has to answer; what comes later is as good as a refusal.
pub const DATA_PLANE_DEADLINE: Duration = Duration::from_millis(500);

/// IKE SAs that are over and kept to repeat their last answer. Beyond, the answer is lost with the datagram.
const CLOSED_MAX: u32 = 1_024;

/// All IKE SAs of one gateway.
pub struct Endpoint {
    shared: Shared,
    sas: BTreeMap<IkeSaId, IkeSa>,
    demux: Demux,
    directory: Directory,
    deadlines: BTreeSet<(Instant, IkeSaId)>,
    admission: Admission,
    /// IKE SAs that are over and only repeat their last answer.
    closed: u32,
    cookies: Cookies,
    retries: Retries,
}

impl Endpoint {
    /// An endpoint without SAs. The data plane counts as down until [`Command::DataPlaneUp`], and
    /// connections with `start_action = start` are brought up then.
    pub fn new(
        config: Arc<EndpointConfig>,
        provider: Arc<dyn Provider>,
        allocator: Box<dyn SaAllocator + Send>,
        routes: Box<dyn Routes + Send>,
    ) -> Self {
        Self {
            shared: Shared {
                config: ConnectionIndex::new(config),
                provider,
                allocator,
                routes,
                out: VecDeque::new(),
                owners: BTreeMap::new(),
                effects: VecDeque::new(),
                data_plane: false,
                data_plane_lives: 0,
                ike_ids: 0,
                reqids: PeerReqids::default(),
                contacts: BTreeMap::new(),
                orphans: Orphans::default(),
                claims: Claims::default(),
            },
            sas: BTreeMap::new(),
            demux: Demux::default(),
            directory: Directory::default(),
            deadlines: BTreeSet::new(),
            admission: Admission::default(),
            closed: 0,
            cookies: Cookies::default(),
            retries: Retries::default(),
        }
    }

    /// Takes one datagram: the UDP payload without its non-ESP marker.
    ///
    /// `local` is the address and port it came to, `remote` where it came from. Never fails: what is wrong
    /// with it is answered, told as an event, or dropped.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
        rng: &mut dyn Rng,
    ) {
        self.receive(now, local, remote, bytes, rng);
        self.settle(now, rng);
    }

    /// Does what is due. Call it at [`Self::next_deadline`] or later; too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut dyn Rng) {
        // Each due IKE SA gets one turn; what is still due after it has a new, later deadline.
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.turn(now, id, rng, IkeSa::on_timeout);
            self.reindex(id);
            self.carry_out(now, rng);
            if self.deadlines.first() == Some(&(at, id)) {
                self.deadlines.remove(&(at, id));
            }
        }
        self.retry_due(now, rng);
        self.shared.orphans.on_timeout(now, &mut self.shared.out);
        self.settle(now, rng);
    }

    /// Takes one command, answer or event.
    pub fn handle_command(&mut self, now: Instant, command: Command, rng: &mut dyn Rng) {
        self.operate(now, command, rng);
        self.settle(now, rng);
    }

    /// The next thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shared.out.pop_front()
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let first = self.deadlines.first().map(|&(at, _)| at);
        [first, self.retries.deadline(), self.shared.orphans.deadline()].into_iter().flatten().min()
    }

    /// How many IKE SAs there are, half-open ones included. An error where an index has another view of them
    /// than their table: that is a defect of this crate, looked for by tests and the simulation.
    ///
    /// # Errors
    /// Which index is wrong.
    pub fn audit(&self) -> Result<usize, &'static str> {
        let sas = self.sas.len();
        let half_open = self.sas.values().filter(|sa| sa.channel.half_open.is_some()).count();
        let closed = self.sas.values().filter(|sa| matches!(sa.state, State::Closed)).count();
        let entries: Vec<Entry> = self.sas.values().map(IkeSa::entry).collect();
        let count = |has: fn(&Entry) -> bool| entries.iter().filter(|entry| has(entry)).count();
        let entered = (count(|entry| entry.connection.is_some()), count(|entry| entry.identities.is_some()));
        let deadlines = self.sas.values().filter(|sa| sa.indexed.deadline.is_some()).count();
        for (holds, index) in [
            (self.demux.len() == sas + half_open, "SPIs"),
            (self.admission.half_open() as usize == half_open, "half-open IKE SAs"),
            (self.shared.contacts.values().sum::<u32>() as usize == sas, "peers' addresses"),
            (self.closed as usize == closed, "IKE SAs that are over"),
            (self.deadlines.len() == deadlines, "deadlines"),
            (self.deadlines.iter().all(|(_, id)| self.sas.contains_key(id)), "deadlines of what is gone"),
            (self.directory.len() == entered, "the directory"),
            (self.sas.values().all(IkeSa::is_entered_rightly), "entries of the directory"),
            (self.shared.owners.values().all(|id| self.sas.contains_key(id)), "owners of SAs"),
        ] {
            if !holds {
                return Err(index);
            }
        }
        Ok(sas)
    }

    /// Gives one IKE SA a turn; its id, SPIs and deadline are settled afterwards.
    fn turn<R>(
        &mut self,
        now: Instant,
        id: IkeSaId,
        rng: &mut dyn Rng,
        act: impl FnOnce(&mut IkeSa, &mut Turn<'_>) -> R,
    ) -> Option<R> {
        let sa = self.sas.get_mut(&id)?;
        let mut turn = Turn { now, rng, shared: &mut self.shared };
        let result = act(sa, &mut turn);
        Some(result)
    }

    /// What a verb ends with: nothing is left to do.
    fn settle(&mut self, now: Instant, rng: &mut dyn Rng) {
        self.carry_out(now, rng);
    }

    /// One IKE SA after its turn: gone, or indexed anew.
    fn reindex(&mut self, id: IkeSaId) {
        let Some(sa) = self.sas.get_mut(&id) else { return };
        if let Some(stranger) = sa.take_no_longer_half_open() {
            self.admission.closed(&stranger);
            self.demux.no_longer_initial(&stranger);
        }
        if matches!(sa.state, State::Closed) && !sa.indexed.closed {
            if self.closed < CLOSED_MAX {
                self.closed += 1;
                sa.indexed.closed = true;
            } else {
                sa.state = State::Gone;
            }
        }
        let gone = sa.is_gone();
        let new = if gone { None } else { sa.deadline() };
        let old = core::mem::replace(&mut sa.indexed.deadline, new);
        if old != new {
            if let Some(old) = old {
                self.deadlines.remove(&(old, id));
            }
            if let Some(new) = new {
                self.deadlines.insert((new, id));
            }
        }
        if !sa.is_entered_rightly() {
            let new = sa.entry();
            self.directory.enter(id, &new);
            let old = core::mem::replace(&mut sa.indexed.entry, new);
            self.directory.strike(id, &old.without(&sa.indexed.entry));
        }
        if gone {
            self.closed -= u32::from(sa.indexed.closed);
            self.demux.forget(sa);
            self.shared.count_out(sa.channel.counted);
            self.sas.remove(&id);
        }
    }
}
