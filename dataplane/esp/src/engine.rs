//! The engine: all ESP state of one worker.

use std::net::IpAddr;
use std::sync::Arc;

use pollux_abi::command::{CommandError, Direction, SaSpec};
use pollux_abi::event::LimitKind;
use pollux_abi::layout::SPI_INDEX_WIDTH_MAX;
use pollux_abi::{Checkpoint, Command, DropReason, Event, PolicyId, Reqid, SaId, SaIndex, Spi, WorkerId};
use pollux_packet::{Burst, Flow, Meta, Packet, Verdict, icmp};
use thiserror::Error;

use crate::counters::{EngineCounters, SaCounterTable};
use crate::event::EventQueue;
use crate::explain::{self, Explanation};
use crate::limit::{ErrorLimit, EventLimit};
use crate::outbound::FlowCache;
use crate::policy::CompiledPolicies;
use crate::replay::WindowArena;
use crate::sa::{Reached, SaTable, flag, place};
use crate::{apply, icmp_error, inbound, outbound};

/// Unknown SPIs that control hears of in a second: outsiders make them up.
const UNKNOWN_SPIS: usize = 16;
/// Policies whose missing SA control hears of in a second: after a restart there are many, and half of the
/// event queue has room for them.
const WANTED_POLICIES: usize = 128;

/// What an engine is made of.
#[derive(Debug)]
pub struct EngineConfig {
    /// Whose engine it is.
    pub worker: WorkerId,
    /// Workers of this data plane; SAs of owners beyond are refused.
    pub workers: u16,
    /// Bits of table index in our own SPIs.
    pub spi_index_width: u32,
    /// SAs in each direction.
    pub sa_capacity: u32,
    /// Packets that the replay windows of all inbound SAs of this worker may span together.
    pub window_packets_total: u64,
    /// The cipher engine.
    pub aead: pollux_aead::Engine,
    /// Where each SA's counters are; at least `sa_capacity` rows.
    pub sa_counters: Arc<SaCounterTable>,
    /// Where this engine counts.
    pub counters: Arc<EngineCounters>,
    /// The counter file.
    pub checkpoints: &'static [Checkpoint],
}

/// Why no engine could be made.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EngineError {
    /// The index width is beyond what an SPI can hold.
    #[error("an SPI holds at most {max} bits of table index, not {width}")]
    IndexWidth {
        /// What was asked for.
        width: u32,
        /// The most there can be.
        max: u32,
    },
    /// More SAs than the index can name, or than there are counters for.
    #[error("a table of {capacity} SAs does not fit {width} bits of index and {counters} rows of counters")]
    Capacity {
        /// What was asked for.
        capacity: u32,
        /// Bits of index.
        width: u32,
        /// Rows of counters.
        counters: usize,
    },
}

/// All ESP state of one worker. See the crate's documentation for how the calls follow each other.
#[derive(Debug)]
pub struct Engine {
    pub(crate) worker: WorkerId,
    pub(crate) workers: u16,
    pub(crate) aead: pollux_aead::Engine,
    pub(crate) sas: SaTable,
    pub(crate) windows: WindowArena,
    pub(crate) policies: Box<CompiledPolicies>,
    pub(crate) flows: FlowCache,
    /// Flows that may arrive by an inbound SA, and by which.
    pub(crate) arrivals: FlowCache,
    pub(crate) sa_counters: Arc<SaCounterTable>,
    pub(crate) counters: Arc<EngineCounters>,
    pub(crate) checkpoints: &'static [Checkpoint],
    pub(crate) unknown_spis: EventLimit<(u32, IpAddr), UNKNOWN_SPIS>,
    pub(crate) wanted: EventLimit<PolicyId, WANTED_POLICIES>,
    pub(crate) errors: ErrorLimit,
    pub(crate) error_source_v4: Option<u128>,
    pub(crate) error_source_v6: Option<u128>,
    /// The next IPv4 identification of an outer packet that may be fragmented.
    pub(crate) next_identification: u16,
    events: EventQueue,
}

impl Engine {
    /// An engine without SAs, whose policy drops everything.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        let (width, capacity) = (config.spi_index_width, config.sa_capacity);
        let (max, counters) = (SPI_INDEX_WIDTH_MAX, config.sa_counters.capacity());
        if width > max {
            return Err(EngineError::IndexWidth { width, max });
        }
        if capacity > 1 << width || capacity as usize > counters {
            return Err(EngineError::Capacity { capacity, width, counters });
        }
        Ok(Self {
            worker: config.worker,
            workers: config.workers,
            aead: config.aead,
            sas: SaTable::new(capacity, width),
            windows: WindowArena::new(config.window_packets_total),
            policies: Box::default(),
            flows: FlowCache::new(),
            arrivals: FlowCache::new(),
            sa_counters: config.sa_counters,
            counters: config.counters,
            checkpoints: config.checkpoints,
            unknown_spis: EventLimit::new(),
            wanted: EventLimit::new(),
            errors: ErrorLimit::new(),
            error_source_v4: None,
            error_source_v6: None,
            // Workers start far apart: they may share a pair of outer addresses.
            next_identification: config.worker.0.wrapping_mul(1 << 10),
            events: EventQueue::default(),
        })
    }

    /// Whose engine it is.
    pub const fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Turns the burst's ESP packets into inner packets: verdict `Forward`, `data()` and `Meta` of the inner
    /// packet. Others end as `Drop`, `HandOver` or `Early`; what is not ESP stays pending.
    pub fn inbound(&mut self, now_ns: u64, burst: &mut Burst) {
        inbound::run(self, now_ns, burst);
    }

    /// As [`Self::inbound`], for ESP packets that another worker handed over. What belongs to yet another
    /// worker by now is dropped as `HandoverLoop`.
    pub fn inbound_owned(&mut self, now_ns: u64, burst: &mut Burst) {
        for meta in burst.metas_mut() {
            meta.handed_over = true;
            meta.verdict = Verdict::Pending;
        }
        inbound::run(self, now_ns, burst);
    }

    /// Counts a packet that went to its SA's owner. One that found no room there is a drop, and not counted here.
    pub fn note_handed_over(&self) {
        self.counters.handed_over.add(1);
    }

    /// Whether there is an inbound SA with this SPI, here or at another worker: then an `Early` packet is to be
    /// offered again.
    pub fn knows_spi(&self, spi: Spi) -> bool {
        self.sas.find_spi(spi.get()).is_some()
    }

    /// Gives up an `Early` packet: tells of its SPI as of every unknown one, and says why it is dropped.
    pub fn give_up(&mut self, now_ns: u64, meta: &Meta) -> DropReason {
        inbound::give_up(self, now_ns, meta.spi.map_or(0, Spi::get), meta)
    }

    /// Judges what is pending and came in clear from outside (RFC 4301 §5.2): `ClearForProtected`,
    /// `InPolicyDiscard` or `NotOurs`, or `Bypass` where a policy says so.
    pub fn inbound_clear(&mut self, burst: &mut Burst) {
        inbound::judge_clear(self, burst);
    }

    /// Turns pending packets from inside into ESP with its outer IP header, no link header: verdict
    /// `Forward`, `Meta` of the outer packet. Or `Bypass`, `HandOver`, `Fragment` (see
    /// [`crate::fragment::split`]), `Reply`, `Drop`.
    pub fn outbound(&mut self, now_ns: u64, burst: &mut Burst) {
        outbound::run(self, now_ns, burst);
    }

    /// As [`Self::outbound`], for packets whose SA another worker chose and that belongs to this one.
    pub fn outbound_owned(&mut self, now_ns: u64, burst: &mut Burst) {
        outbound::run_owned(self, now_ns, burst);
    }

    /// Carries out `SaAdd`, `SaReplace`, `SaRoute`, `SaDelete` or `Barrier`.
    ///
    /// # Errors
    /// Why it was refused; then nothing has changed.
    pub fn apply(&mut self, _now_ns: u64, command: Command) -> Result<u32, CommandError> {
        // Whatever the command does, it may be an SA that flows take, or one that they should.
        self.flows.forget();
        self.arrivals.forget();
        apply::apply(self, command)
    }

    /// Puts other policies in force and gives back the old ones, to be dropped on another thread.
    #[must_use = "the old policies are to be freed elsewhere"]
    pub fn install_policies(&mut self, mut policies: Box<CompiledPolicies>) -> Box<CompiledPolicies> {
        for bundle in &mut policies.bundles {
            bundle.newest = self.sas.newest(bundle.reqid);
        }
        self.flows.forget();
        self.arrivals.forget();
        std::mem::replace(&mut self.policies, policies)
    }

    /// Makes events of what was counted and not told when its time comes. Call it every now and then: nothing else
    /// tells the end of a burst of packets whose SPI nobody has.
    pub fn tell_overdue(&mut self, now_ns: u64) {
        while let Some(((spi, source), count)) = self.unknown_spis.overdue(now_ns) {
            self.tell(Event::UnknownSpi { spi, source, count });
        }
    }

    /// The next event for control.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Sets the path MTU of an outbound SA, of the outer packet; false where no such SA is here.
    pub fn set_mtu(&mut self, sa: SaIndex, mtu: u16) -> bool {
        match self.sas.outbound.owned_mut(sa) {
            Some((_, sa)) => {
                sa.set_mtu(mtu);
                true
            }
            None => false,
        }
    }

    /// The outbound SAs that this worker owns and the outer address each sends to: who knows routes sets
    /// their path MTU.
    pub fn outbound_remotes(&self) -> impl Iterator<Item = (SaIndex, IpAddr)> {
        let half = &self.sas.outbound;
        (0..)
            .map(SaIndex)
            .zip(half.slots.iter().zip(&half.hot))
            .filter(|(_, (slot, _))| slot.owned)
            .map(|(index, (_, sa))| (index, sa.outer.destination()))
    }

    /// Which address ICMP errors to inside senders come from, one per family. Without one, none are sent.
    pub fn set_error_source(&mut self, source: IpAddr) {
        match source {
            IpAddr::V4(_) => self.error_source_v4 = Some(Flow::bits(source)),
            IpAddr::V6(_) => self.error_source_v6 = Some(Flow::bits(source)),
        }
    }

    /// Answers a packet that can't be forwarded in clear with an ICMP error in its own frame: verdict
    /// `Reply`, or `Drop` where no error may be sent. The engine does this itself for what it encrypts.
    pub fn answer(
        &mut self,
        now_ns: u64,
        packet: &mut Packet,
        meta: &mut Meta,
        error: icmp::Error,
        reason: DropReason,
    ) {
        icmp_error::answer(self, now_ns, packet, meta, error, reason);
    }

    /// What would become of a packet of `flow`: which policy, SA or drop reason.
    pub fn explain(&self, flow: &Flow, direction: Direction) -> Explanation {
        explain::explain(self, flow, direction)
    }

    /// The slot of the counter file that `spec` names.
    pub(crate) fn checkpoint(&self, spec: &SaSpec) -> Option<&'static Checkpoint> {
        self.checkpoints.get(spec.checkpoint? as usize)
    }

    /// Tells the policies which outbound SA of a reqid is the newest.
    pub(crate) fn refresh_bundle(&mut self, direction: Direction, reqid: Reqid) {
        if direction == Direction::Outbound {
            let newest = self.sas.newest(reqid);
            if let Some(bundle) = self.policies.bundle_mut(reqid) {
                bundle.newest = newest;
            }
        }
    }

    /// Queues an event; a full queue loses it, counted.
    pub(crate) fn tell(&mut self, event: Event) -> bool {
        let told = self.events.push(event);
        self.counters.events_lost.add(u64::from(!told));
        told
    }

    /// Tells of an inbound SA's first packet, once the queue takes it.
    #[cold]
    pub(crate) fn tell_first(&mut self, index: SaIndex) {
        let Some(sa) = self.sas.inbound.record(index).map(|record| record.id) else { return };
        if self.events.push(Event::FirstPacket { sa }) {
            self.sas.inbound.hot[place(index)].flags |= flag::FIRST_TOLD;
        }
    }

    /// Tells of an authenticated packet from a new outer address.
    #[cold]
    pub(crate) fn tell_moved(&mut self, now_ns: u64, meta: &Meta) {
        let (source, port) = (meta.flow.source(), meta.flow.source_port);
        let Some(record) = self.sas.inbound.record_mut(meta.sa) else { return };
        let sa = record.id;
        if record.peer.moved(now_ns, source, port) {
            self.tell(Event::PeerMoved { sa, source, port });
        }
    }

    /// Stops an SA at a hard limit, and tells of either kind of limit once the queue takes it.
    #[cold]
    pub(crate) fn tell_limit(&mut self, direction: Direction, index: SaIndex, reached: Reached) {
        let at = place(index);
        let (record, flags) = match direction {
            Direction::Inbound => (&self.sas.inbound.records[at], &mut self.sas.inbound.hot[at].flags),
            Direction::Outbound => (&self.sas.outbound.records[at], &mut self.sas.outbound.hot[at].flags),
        };
        if reached.hard && reached.kind != LimitKind::Sequence {
            *flags |= flag::STOPPED;
        }
        let told = if reached.hard { flag::HARD_TOLD } else { flag::SOFT_TOLD };
        let Some(sa) = record.as_ref().map(|record| record.id).filter(|_| *flags & told == 0) else { return };
        if self.events.push(Event::Lifetime { sa, hard: reached.hard, limit: reached.kind }) {
            *flags |= told;
        }
    }

    /// An SA has reached a limit by age, which the housekeeper watches.
    pub fn reach_age(&mut self, id: SaId, hard: bool) {
        if let Some((direction, index)) = self.sas.find_id(id) {
            self.tell_limit(direction, index, Reached { hard, kind: LimitKind::Age });
        }
    }

    /// A packet met a stopped SA: tells of the limit, if the queue was full when it was reached.
    #[cold]
    pub(crate) fn retell_limit(&mut self, direction: Direction, index: SaIndex) {
        let Some(counters) = self.sa_counters.row(direction, index) else { return };
        let (packets, bytes) = (counters.packets.value(), counters.bytes.value());
        let (limits, exhausted) = match direction {
            Direction::Inbound => (self.sas.inbound.hot[place(index)].limits, false),
            Direction::Outbound => {
                let sa = &self.sas.outbound.hot[place(index)];
                (sa.limits, sa.flags & flag::EXHAUSTED != 0)
            }
        };
        let reached = if exhausted {
            Some(Reached { hard: true, kind: LimitKind::Sequence })
        } else {
            limits.reached(packets, bytes).filter(|reached| reached.hard)
        };
        // What no counter has stopped, its age has.
        self.tell_limit(direction, index, reached.unwrap_or(Reached { hard: true, kind: LimitKind::Age }));
    }
}
