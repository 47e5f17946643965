//! The worker: everything that one core needs, and nothing that another touches.

use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use pollux_abi::{Event, SaIndex};
use pollux_esp::Engine;
use pollux_packet::Burst;
use pollux_port::FramePool;
use pollux_shm::DataplaneRing;

use crate::forward::Forwarder;
use crate::handover::Handover;
use crate::housekeeping::{FromWorker, Sleeper, WorkerEnd};
use crate::ports::{PacketSink, PortEntry};
use crate::stats::{WorkerCounters, WorkerLedger};

/// What a worker is made of.
pub struct WorkerParts {
    /// All ESP state.
    pub engine: Engine,
    /// Its frames.
    pub pool: FramePool,
    /// Its ports, in the order of their slots; at most [`crate::stats::PORTS_MAX`].
    pub ports: Vec<PortEntry>,
    /// Queues to and from the other workers.
    pub handover: Handover,
    /// Queues to and from the housekeeper.
    pub housekeeper: WorkerEnd,
    /// What wakes it.
    pub sleeper: Sleeper,
    /// Where it counts.
    pub counters: Arc<WorkerCounters>,
    /// Media older than this are discarded after a stall.
    pub stale_ns: u64,
    /// SAs of each direction that its tables hold.
    pub sa_capacity: u32,
}

/// Acknowledgements and events that wait for room in control's ring.
pub(crate) const EVENTS_PENDING_MAX: usize = 64;

/// Messages to the housekeeper that wait for room. Retired boxes must not be lost, so that a worker takes
/// no new ones while this is full.
pub(crate) const RETIRED_MAX: usize = 16;

/// One core's packet path.
pub struct Worker {
    pub(crate) engine: Engine,
    pub(crate) pool: FramePool,
    pub(crate) ports: Vec<PortEntry>,
    pub(crate) forwarder: Forwarder,
    pub(crate) handover: Handover,
    pub(crate) burst: Burst,
    pub(crate) again: Burst,
    pub(crate) aside: Burst,
    pub(crate) large: Burst,
    /// ESP that came before its SA.
    pub(crate) early: Burst,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) now_ns: u64,
    pub(crate) last_round_ns: u64,
    pub(crate) published_ns: u64,
    pub(crate) stale_ns: u64,
    pub(crate) stopping: bool,
    /// Something was put into the housekeeper's queue in this round.
    pub(crate) told: bool,
    /// A command of this round has brought an inbound SA, or word of its owner.
    pub(crate) sa_came: bool,
    // cold
    pub(crate) housekeeper: WorkerEnd,
    pub(crate) sleeper: Sleeper,
    pub(crate) ring: Option<Box<DataplaneRing>>,
    pub(crate) retired: ArrayVec<FromWorker, RETIRED_MAX>,
    pub(crate) events: ArrayVec<Event, EVENTS_PENDING_MAX>,
    pub(crate) remotes: Vec<(SaIndex, IpAddr)>,
}

impl Worker {
    /// A worker without routes, policies and SAs: it drops everything. All it will ever need is allocated
    /// here.
    pub fn new(parts: WorkerParts) -> Self {
        Self {
            engine: parts.engine,
            pool: parts.pool,
            ports: parts.ports,
            forwarder: Forwarder::default(),
            handover: parts.handover,
            burst: Burst::new(),
            again: Burst::new(),
            aside: Burst::new(),
            large: Burst::new(),
            early: Burst::new(),
            counters: parts.counters,
            now_ns: 0,
            last_round_ns: 0,
            published_ns: 0,
            stale_ns: parts.stale_ns,
            stopping: false,
            told: false,
            sa_came: false,
            housekeeper: parts.housekeeper,
            sleeper: parts.sleeper,
            ring: None,
            retired: ArrayVec::new(),
            events: ArrayVec::new(),
            remotes: Vec::with_capacity(parts.sa_capacity as usize),
        }
    }

    /// Where every frame of this worker is.
    pub fn ledger(&self) -> WorkerLedger {
        let queued: usize = self.ports.iter().map(|entry| entry.queued.len()).sum();
        let waiting = self.forwarder.waiting.len() + self.early.len();
        let held = waiting + self.handover.queued() + queued + self.again.len() + self.large.len();
        WorkerLedger { pool: self.pool.ledger(), held: held as u64 }
    }

    /// The ESP engine, for tests and benchmarks that install SAs without a ring.
    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Closes every port: their frames come back to the pool, and the devices are free for others.
    pub fn close_ports(&mut self) {
        for entry in &mut self.ports {
            if let Some(mut port) = entry.port.take() {
                port.close(&mut self.pool);
            }
        }
    }

    pub(crate) fn sink<'a>(pool: &'a mut FramePool, counters: &'a WorkerCounters) -> PacketSink<'a> {
        PacketSink { pool, counters }
    }
}
