//! Which SA the packets of a flow took last: one line instead of policy, bundle, slot and selectors.
//!
//! Only the usual answers are kept, a policy that protects and an SA of this worker or of another. Whatever could
//! change an answer, a command or other policies, empties the cache.

use pollux_abi::{SaIndex, Spi, WorkerId};
use pollux_packet::{Flow, hint};

/// Flows that are remembered: 64 octets each, a megabyte in all; a core has two megabytes of L2, or a share of
/// L3 that is larger.
const LEN: usize = 1 << 14;

/// One flow, on a cache line of its own.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct FlowEntry {
    flow: Flow,
    sa: SaIndex,
    /// The SPI; 0 for none.
    spi: u32,
    epoch: u32,
    /// The other worker that has the SA.
    owner: Option<WorkerId>,
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlowAnswer {
    /// The SA that its packets take.
    pub(crate) sa: SaIndex,
    /// The SA's SPI.
    pub(crate) spi: Option<Spi>,
    /// The other worker that has the SA; `None` where it is this one.
    pub(crate) owner: Option<WorkerId>,
}

const _: () = assert!(size_of::<FlowEntry>() == 64, "one cache line for each flow");

/// A direct-mapped table.
#[derive(Debug)]
pub(crate) struct FlowCache {
    lines: Box<[FlowEntry]>,
    epoch: u32,
}

/// Where a flow is, if it is anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FlowSlot(u16);

const _: () = assert!(LEN <= 1 << u16::BITS);

impl FlowCache {
    pub(crate) fn new() -> Self {
        Self { lines: vec![FlowEntry::default(); LEN].into(), epoch: 1 }
    }

    /// Where `flow` would be; its line is on the way.
    #[inline]
    pub(crate) fn place(&self, flow: &Flow) -> FlowSlot {
        #[expect(clippy::cast_possible_truncation, reason = "both halves are folded into the hash")]
        let fold = |bits: u128| (bits as u64) ^ ((bits >> 64) as u64).rotate_left(29);
        let ports = u64::from(flow.source_port) << 16 | u64::from(flow.destination_port);
        let source = fold(flow.source_bits()).rotate_left(32);
        let mixed = (fold(flow.destination_bits()) ^ source ^ ports.rotate_left(7)).wrapping_mul(GOLDEN);
        #[expect(clippy::cast_possible_truncation, reason = "the top bits of the product, which fit")]
        let place = FlowSlot((mixed >> (u64::BITS - LEN.ilog2())) as u16);
        hint::prefetch(&self.lines[usize::from(place.0)]);
        place
    }

    /// The SA that packets of `flow` take.
    #[inline]
    pub(crate) fn find(&self, place: FlowSlot, flow: &Flow) -> Option<FlowAnswer> {
        let line = &self.lines[usize::from(place.0)];
        let FlowEntry { sa, spi, owner, .. } = *line;
        (line.epoch == self.epoch && line.flow == *flow).then_some(FlowAnswer {
            sa,
            spi: Spi::new(spi),
            owner,
        })
    }

    /// Remembers the SA of a flow.
    pub(crate) fn keep(&mut self, place: FlowSlot, flow: Flow, answer: FlowAnswer) {
        let FlowAnswer { sa, spi, owner } = answer;
        let spi = spi.map_or(0, Spi::get);
        self.lines[usize::from(place.0)] = FlowEntry { flow, sa, spi, epoch: self.epoch, owner };
    }

    /// Forgets everything.
    pub(crate) fn forget(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            // Lines of four thousand million changes ago would come back to life.
            self.lines.fill(FlowEntry::default());
            self.epoch = 1;
        }
    }
}

/// The golden ratio of 2^64: spreads neighbours evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(last: u8, port: u16) -> Flow {
        let address = |last| std::net::IpAddr::from([10, 0, 0, last]);
        Flow::new(address(1), address(last), 17, 5060, port).expect("one version")
    }

    #[test]
    fn flows_are_found_until_something_changes() {
        let mut cache = FlowCache::new();
        let (one, other) = (flow(2, 7), flow(2, 8));
        let place = cache.place(&one);
        assert_eq!(cache.find(place, &one), None);
        for owner in [None, Some(WorkerId(5))] {
            let answer = FlowAnswer { sa: SaIndex(3), spi: Spi::new(0x1000), owner };
            cache.keep(place, one, answer);
            assert_eq!(cache.find(cache.place(&one), &one), Some(answer));
        }
        assert_eq!(cache.find(place, &other), None, "wherever it lies, it is another flow");
        assert_eq!(cache.find(place, &one.without_ports()), None);
        cache.forget();
        assert_eq!(cache.find(place, &one), None);
    }

    #[test]
    fn nothing_comes_back_when_the_epochs_begin_anew() {
        let mut cache = FlowCache::new();
        let one = flow(2, 7);
        let place = cache.place(&one);
        cache.keep(place, one, FlowAnswer::default());
        cache.epoch = u32::MAX;
        cache.forget();
        assert_eq!((cache.epoch, cache.find(place, &one)), (1, None));
        assert_eq!(cache.find(FlowSlot::default(), &Flow::default()), None, "an empty line holds no flow");
    }

    #[test]
    fn neighbouring_addresses_share_few_lines() {
        let cache = FlowCache::new();
        let near = |k: u32| {
            Flow::between(pollux_packet::IpVersion::V4, 0x0a01_0002, u128::from(0x0a02_0000 + k), 17)
        };
        let mut places: Vec<u16> = (0..10_000).map(|k| cache.place(&near(k)).0).collect();
        places.sort_unstable();
        places.dedup();
        assert!(places.len() > 9_000, "{}", places.len());
    }
}
