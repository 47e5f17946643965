//! The engine: all ESP state of one worker.

use std::net::IpAddr;
use std::sync::Arc;

use pollux_abi::command::{CommandError, Direction};
use pollux_abi::{Checkpoint, Command, DropReason, Event, SaIndex, WorkerId};
use pollux_packet::{Burst, Class, Flow};
use thiserror::Error;

use crate::counters::{EngineCounters, SaCounterTable};
use crate::event::EventQueue;
use crate::explain::{Explanation, Outcome};
use crate::policy::CompiledPolicies;

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
    worker: WorkerId,
    counters: Arc<EngineCounters>,
    policies: Box<CompiledPolicies>,
    events: EventQueue,
}

impl Engine {
    /// An engine without SAs, whose policy drops everything.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        let max = pollux_abi::layout::SPI_INDEX_WIDTH_MAX;
        if config.spi_index_width > max {
            return Err(EngineError::IndexWidth { width: config.spi_index_width, max });
        }
        Ok(Self {
            worker: config.worker,
            counters: config.counters,
            policies: Box::default(),
            events: EventQueue::default(),
        })
    }

    /// Whose engine it is.
    pub const fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Turns the burst's ESP packets into inner packets: verdict `Forward`, `data()` and `Meta` of the inner
    /// packet. Others end as `Drop` or `HandOver`; what is not ESP stays pending.
    pub fn inbound(&mut self, _now_ns: u64, burst: &mut Burst) {
        for meta in
            burst.metas_mut().iter_mut().filter(|meta| meta.is_pending() && meta.class != Class::Plain)
        {
            meta.drop_for(DropReason::UnknownSpi);
        }
    }

    /// As [`Self::inbound`], for ESP packets that another worker handed over.
    pub fn inbound_owned(&mut self, now_ns: u64, burst: &mut Burst) {
        self.inbound(now_ns, burst);
    }

    /// Judges what is pending and came in clear from outside (RFC 4301 §5.2): `ClearForProtected`,
    /// `InPolicyDiscard` or `NotOurs`, or `Bypass` where a policy says so.
    pub fn inbound_clear(&mut self, burst: &mut Burst) {
        for meta in burst.metas_mut().iter_mut().filter(|meta| meta.is_pending()) {
            meta.drop_for(DropReason::NotOurs);
        }
    }

    /// Turns pending packets from inside into ESP with its outer IP header, no link header: verdict
    /// `Forward`, `Meta` of the outer packet. Or `Bypass`, `HandOver`, `Fragment`, `Reply`, `Drop`.
    pub fn outbound(&mut self, _now_ns: u64, burst: &mut Burst) {
        for meta in burst.metas_mut().iter_mut().filter(|meta| meta.is_pending()) {
            meta.drop_for(DropReason::NoPolicy);
        }
    }

    /// As [`Self::outbound`], for packets whose SA another worker chose and that belongs to this one.
    pub fn outbound_owned(&mut self, now_ns: u64, burst: &mut Burst) {
        self.outbound(now_ns, burst);
    }

    /// Carries out `SaAdd`, `SaReplace`, `SaRoute`, `SaDelete` or `Barrier`.
    ///
    /// # Errors
    /// Why it was refused; then nothing has changed.
    pub fn apply(&mut self, _now_ns: u64, command: Command) -> Result<u32, CommandError> {
        match command {
            Command::Barrier => Ok(0),
            _ => Err(CommandError::Kind),
        }
    }

    /// Puts other policies in force and gives back the old ones, to be dropped on another thread.
    #[must_use = "the old policies are to be freed elsewhere"]
    pub fn install_policies(&mut self, policies: Box<CompiledPolicies>) -> Box<CompiledPolicies> {
        std::mem::replace(&mut self.policies, policies)
    }

    /// The next event for control.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Sets the path MTU of an outbound SA, of the outer packet; false where no such SA is here.
    pub fn set_mtu(&mut self, _sa: SaIndex, _mtu: u16) -> bool {
        false
    }

    /// The outbound SAs that this worker owns and the outer address each sends to.
    pub fn outbound_remotes(&self) -> impl Iterator<Item = (SaIndex, IpAddr)> {
        std::iter::empty()
    }

    /// Which address ICMP errors to inside senders come from, one per family. Without one, none are sent.
    pub fn set_error_source(&mut self, _source: IpAddr) {}

    /// What would become of a packet of `flow`: which policy, SA or drop reason.
    pub fn explain(&self, _flow: &Flow, _direction: Direction) -> Explanation {
        Explanation { policy: None, sa: None, outcome: Outcome::Dropped(DropReason::NoPolicy) }
    }
}
