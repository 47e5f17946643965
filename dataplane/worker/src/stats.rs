//! What a worker counts for others to read.

use std::array;

use pollux_abi::{Counter, DropCounters};
use pollux_port::{Ledger, PortStats};

/// Ports of one worker at most: the interfaces of `wan` and `lan`, and the host port.
pub const PORTS_MAX: usize = 16;

/// What a worker is doing, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Activity {
    /// Not started, or ended.
    Stopped = 0,
    /// In its loop.
    Running = 1,
    /// Blocked, as an adaptive worker without work is.
    Blocked = 2,
}

impl Activity {
    /// What a number in [`WorkerCounters::activity`] means.
    pub const fn from_number(number: u64) -> Self {
        match number {
            1 => Self::Running,
            2 => Self::Blocked,
            _ => Self::Stopped,
        }
    }
}

/// A port's counters at the last publication.
#[derive(Debug, Default)]
pub struct PortCounters([Counter; 14]);

macro_rules! port_fields {
    ($($at:literal $field:ident;)*) => {
        impl PortCounters {
            pub(crate) fn publish(&self, stats: &PortStats) {
                $(self.0[$at].set(stats.$field);)*
            }

            /// The counters.
            pub fn stats(&self) -> PortStats {
                PortStats { $($field: self.0[$at].value(),)* }
            }
        }
    };
}

port_fields! {
    0 rx_packets; 1 rx_bytes; 2 tx_packets; 3 tx_bytes; 4 tx_full; 5 rx_bad_descriptors; 6 kicks;
    7 kick_errors; 8 xsk_rx_dropped; 9 xsk_rx_invalid_descs; 10 xsk_rx_ring_full;
    11 xsk_rx_fill_ring_empty; 12 xsk_tx_invalid_descs; 13 xsk_tx_ring_empty;
}

/// Counters of one worker: it alone writes them.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct WorkerCounters {
    /// Monotonic nanoseconds of the last round's beginning: the watchdog's stamp.
    pub heartbeat_ns: Counter,
    /// An [`Activity`].
    pub activity: Counter,
    /// Thread id, for CPU time.
    pub thread_id: Counter,
    /// Rounds of the loop.
    pub rounds: Counter,
    /// Rounds without a packet.
    pub idle_rounds: Counter,
    /// Packets received from ports.
    pub rx_packets: Counter,
    /// Packets given to ports.
    pub tx_packets: Counter,
    /// Packets taken over from other workers.
    pub taken_over: Counter,
    /// Packets sent to the host stack.
    pub to_host: Counter,
    /// Packets that came before the outbound policies once more: fragments, and what came out of a tunnel
    /// and would leave to the wan.
    pub decided_again: Counter,
    /// Packets that had to wait for a neighbour.
    pub waited: Counter,
    /// ESP packets that came before their SA and were held.
    pub held_early: Counter,
    /// Commands carried out or refused.
    pub commands: Counter,
    /// Events that control's ring had no room for.
    pub events_lost: Counter,
    /// Times that the worker found itself to have stood still.
    pub stalls: Counter,
    /// Neighbours that the table had no room for.
    pub neighbours_refused: Counter,
    /// Drops by reason.
    pub drops: DropCounters,
    /// How long rounds that found packets took.
    pub round_ns: Histogram,
    /// The ports, by slot.
    pub ports: [PortCounters; PORTS_MAX],
    ledger: [Counter; 7],
}

/// The frame ledger of one worker at the last publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerLedger {
    /// Where the pool's frames are.
    pub pool: Ledger,
    /// Packets that the worker holds outside of ports: they wait for a neighbour, for their SA, or in its
    /// queues.
    pub held: u64,
}

impl WorkerCounters {
    pub(crate) fn publish_ledger(&self, ledger: &WorkerLedger) {
        let pool = &ledger.pool;
        #[expect(clippy::cast_sign_loss, reason = "read back as it was written")]
        let values = [
            u64::from(pool.home),
            u64::from(pool.free),
            pool.in_rings as u64,
            pool.in_hand as u64,
            u64::from(pool.foreign),
            pool.misplaced,
            ledger.held,
        ];
        for (counter, value) in self.ledger.iter().zip(values) {
            counter.set(value);
        }
    }

    /// The frame ledger at the last publication.
    pub fn ledger(&self) -> WorkerLedger {
        let [home, free, in_rings, in_hand, foreign, misplaced, held] =
            array::from_fn(|at| self.ledger[at].value());
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        #[expect(clippy::cast_possible_wrap, reason = "written from a signed number")]
        let signed = |value: u64| value as i64;
        WorkerLedger {
            pool: Ledger {
                home: narrow(home),
                free: narrow(free),
                in_rings: signed(in_rings),
                in_hand: signed(in_hand),
                foreign: narrow(foreign),
                misplaced,
            },
            held,
        }
    }
}

/// Bits of a value that tell its bucket within a power of two: eight buckets, an error of at most 1/8.
const FINE_BITS: u32 = 3;
const BUCKETS: usize = 64 << FINE_BITS;

/// A histogram with logarithmic buckets, written by one thread and read by any.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    max: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: array::from_fn(|_| Counter::default()), max: Counter::default() }
    }
}

impl Histogram {
    /// Notes a value.
    #[inline]
    pub fn note(&self, value: u64) {
        self.buckets[bucket(value)].add(1);
        if value > self.max.value() {
            self.max.set(value);
        }
    }

    /// The value that `permille` of a thousand lie at or below, to within an eighth; 0 when empty.
    pub fn quantile(&self, permille: u64) -> u64 {
        let counts: [u64; BUCKETS] = array::from_fn(|at| self.buckets[at].value());
        let total: u64 = counts.iter().sum();
        let rank = (total * permille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (at, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= rank && total > 0 {
                return upper_edge(at).min(self.max.value());
            }
        }
        0
    }

    /// The largest value.
    pub fn max(&self) -> u64 {
        self.max.value()
    }
}

fn bucket(value: u64) -> usize {
    if value < 1 << FINE_BITS {
        return usize::try_from(value).unwrap_or(0);
    }
    let power = value.ilog2();
    let fine = value >> (power - FINE_BITS) & ((1 << FINE_BITS) - 1);
    let index = (u64::from(power - FINE_BITS + 1) << FINE_BITS) + fine;
    usize::try_from(index).unwrap_or(0)
}

fn upper_edge(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let power = bucket >> FINE_BITS;
    let fine = bucket & ((1 << FINE_BITS) - 1);
    if power == 0 {
        return fine;
    }
    let width = power - 1;
    (((1 << FINE_BITS) + fine + 1) << width).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_an_eighth() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), 0);
        for value in 1..=10_000 {
            histogram.note(value);
        }
        for (permille, exact) in [(500, 5_000), (990, 9_900), (999, 9_990)] {
            let found = histogram.quantile(permille);
            assert!(found >= exact && found <= exact + exact / 8, "{permille}: {found}");
        }
        assert_eq!(histogram.max(), 10_000);
    }

    #[test]
    fn every_value_lies_at_or_below_its_buckets_edge() {
        for value in (0..70).chain((0..64).flat_map(|power| [(1u64 << power) - 1, 1 << power, u64::MAX])) {
            let at = bucket(value);
            assert!(at < BUCKETS, "{value}");
            assert!(upper_edge(at) >= value, "{value} in {at}");
            assert!(at == 0 || upper_edge(at - 1) < value, "{value} in {at}");
        }
    }

    #[test]
    fn negative_counts_of_a_ledger_survive() {
        let counters = WorkerCounters::default();
        let pool = Ledger { home: 8, free: 9, in_rings: 0, in_hand: -1, foreign: 0, misplaced: 0 };
        let ledger = WorkerLedger { pool, held: 3 };
        counters.publish_ledger(&ledger);
        assert_eq!(counters.ledger(), ledger);
    }
}
