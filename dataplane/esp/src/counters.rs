//! Counters that a worker writes and the housekeeping thread reads.

use pollux_abi::command::Direction;
use pollux_abi::{Counter, SaCounters, SaIndex};

/// The counters of every SA, both directions, one table for the whole data plane: an SA's owner writes its
/// row, anyone reads it.
#[derive(Debug)]
pub struct SaCounterTable {
    inbound: Box<[SaCounters]>,
    outbound: Box<[SaCounters]>,
}

impl SaCounterTable {
    /// Rows for `capacity` SAs in each direction.
    pub fn new(capacity: u32) -> Self {
        let rows = || (0..capacity).map(|_| SaCounters::default()).collect();
        Self { inbound: rows(), outbound: rows() }
    }

    /// The row of an SA; `None` beyond the table.
    #[inline]
    pub fn row(&self, direction: Direction, index: SaIndex) -> Option<&SaCounters> {
        match direction {
            Direction::Inbound => self.inbound.get(index.0 as usize),
            Direction::Outbound => self.outbound.get(index.0 as usize),
        }
    }

    /// SAs in each direction.
    pub const fn capacity(&self) -> usize {
        self.inbound.len()
    }
}

/// What one engine counts beside drops and SAs.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct EngineCounters {
    /// Packets decrypted, authenticated and passed on.
    pub decapsulated: Counter,
    /// Packets encrypted and passed on.
    pub encapsulated: Counter,
    /// Packets that a bypass policy let pass in clear.
    pub bypassed: Counter,
    /// Packets left to another worker, the owner of their SA.
    pub handed_over: Counter,
    /// Half-made UDP and TCP checksums that were completed.
    pub csum_completed: Counter,
    /// Packets given back to be fragmented before encryption.
    pub fragmented: Counter,
    /// ICMP errors built.
    pub icmp_errors: Counter,
    /// Inner packets whose ECN field became CE on the way in (RFC 6040 §4.2).
    pub ecn_ce: Counter,
    /// Outer and inner ECN fields that should never meet (RFC 6040 §4.2).
    pub ecn_unexpected: Counter,
    /// Events that found the event queue full.
    pub events_lost: Counter,
}
