//! Finding the first entry that matches a flow.

use pollux_abi::PolicyId;
use pollux_abi::command::PolicyAction;
use pollux_abi::selector::PortRange;
use pollux_packet::{Flow, IpVersion};

/// One policy, without its addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Its place in the list.
    pub(crate) order: u32,
    /// Control's name for it.
    pub(crate) id: PolicyId,
    /// What it says.
    pub(crate) action: PolicyAction,
    /// Where a protecting policy's reqid stands among the bundles.
    pub(crate) bundle: u32,
    pub(crate) local_ports: PortRange,
    pub(crate) remote_ports: PortRange,
    pub(crate) local_protocol: Option<u8>,
    pub(crate) remote_protocol: Option<u8>,
    /// It can't be told of a packet without ports whether the entry matches.
    pub(crate) needs_ports: bool,
}

/// The entries of one pair of prefixes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    local: u128,
    remote: u128,
    start: u32,
    len: u32,
}

impl Bucket {
    pub(crate) const EMPTY: Self = Self { local: 0, remote: 0, start: 0, len: 0 };

    pub(crate) fn new(local: u128, remote: u128, start: usize, len: usize) -> Self {
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        Self { local, remote, start, len: u32::try_from(len).unwrap_or(0) }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A multiplicative hash; who configures policies has no reason to attack it.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a hash is what is left after cutting")]
    pub(crate) const fn hash(local: u128, remote: u128) -> usize {
        let local = (local as u64) ^ ((local >> 64) as u64).rotate_left(29);
        let remote = (remote as u64) ^ ((remote >> 64) as u64).rotate_left(29);
        let mixed = (local.rotate_left(32) ^ remote).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 32)) as usize
    }
}

/// All entries whose two prefixes have these lengths.
#[derive(Debug)]
pub(crate) struct PrefixLengths {
    pub(crate) local_mask: u128,
    pub(crate) remote_mask: u128,
    pub(crate) version: IpVersion,
    /// The earliest entry of the lengths.
    pub(crate) first_order: u32,
    /// Open addressing, a power of two, at most half full.
    pub(crate) buckets: Box<[Bucket]>,
}

/// Both sides' address ranges, their IP version, and the entry.
pub(crate) type RangeEntry = ((u128, u128), (u128, u128), IpVersion, Entry);

/// All entries of one direction.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// By their earliest entry.
    pub(crate) prefix_lengths: Box<[PrefixLengths]>,
    pub(crate) entries: Box<[Entry]>,
    /// Pairs of ranges that are no prefixes, in order.
    pub(crate) ranges: Box<[RangeEntry]>,
    pub(crate) policies: usize,
}

/// What the policies say of a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Match<'a> {
    /// The first entry that matches.
    Entry(&'a Entry),
    /// A protecting or discarding entry may match: its ports can't be seen in this fragment.
    Undecided(&'a Entry),
    /// None.
    None,
}

/// A packet as one direction's policies see it.
#[derive(Clone, Copy, Debug)]
struct Query {
    local: u128,
    remote: u128,
    local_port: u16,
    remote_port: u16,
    protocol: u8,
    version: IpVersion,
    has_ports: bool,
    /// The protocol has ports, though this fragment does not show them.
    hides_ports: bool,
}

impl Table {
    /// What the policies say of a packet that leaves: its source is local.
    #[inline]
    pub(crate) fn leaving(&self, flow: &Flow) -> Match<'_> {
        self.find(Query {
            local: flow.source_bits(),
            remote: flow.destination_bits(),
            local_port: flow.source_port,
            remote_port: flow.destination_port,
            protocol: flow.protocol,
            version: flow.version,
            has_ports: flow.has_ports,
            hides_ports: !flow.has_ports && Flow::protocol_has_ports(flow.protocol),
        })
    }

    /// What the policies say of a packet that arrives: its destination is local.
    #[inline]
    pub(crate) fn arriving(&self, flow: &Flow) -> Match<'_> {
        self.leaving(&flow.reversed())
    }

    #[inline]
    fn find(&self, query: Query) -> Match<'_> {
        let mut best: Option<&Entry> = None;
        for lengths in &self.prefix_lengths {
            if best.is_some_and(|best| best.order < lengths.first_order) {
                break;
            }
            if lengths.version != query.version {
                continue;
            }
            for entry in self.pair(lengths, &query) {
                if best.is_some_and(|best| best.order <= entry.order) {
                    break;
                }
                if entry.stops(&query) {
                    best = Some(entry);
                    break;
                }
            }
        }
        for (local, remote, version, entry) in &self.ranges {
            if best.is_some_and(|best| best.order <= entry.order) {
                break;
            }
            let inside = |range: &(u128, u128), address| range.0 <= address && address <= range.1;
            if *version == query.version
                && inside(local, query.local)
                && inside(remote, query.remote)
                && entry.stops(&query)
            {
                best = Some(entry);
            }
        }
        match best {
            None => Match::None,
            Some(entry) if entry.needs_ports && query.hides_ports => Match::Undecided(entry),
            Some(entry) => Match::Entry(entry),
        }
    }

    /// The entries of the pair of prefixes that the packet falls into.
    #[inline]
    fn pair(&self, lengths: &PrefixLengths, query: &Query) -> &[Entry] {
        let (local, remote) = (query.local & lengths.local_mask, query.remote & lengths.remote_mask);
        let last = lengths.buckets.len().wrapping_sub(1);
        let mut at = Bucket::hash(local, remote) & last;
        // At most half of the slots are taken, so that an empty one ends the probe.
        while let Some(bucket) = lengths.buckets.get(at).filter(|bucket| !bucket.is_empty()) {
            if bucket.local == local && bucket.remote == remote {
                let (start, len) = (bucket.start as usize, bucket.len as usize);
                return self.entries.get(start..start + len).unwrap_or_default();
            }
            at = (at + 1) & last;
        }
        &[]
    }
}

impl Entry {
    /// Whether the search ends here: the entry matches, or (in a fragment that hides its ports) may match
    /// and would not let the packet pass in clear. A bypass is never taken on suspicion.
    #[inline]
    fn stops(&self, query: &Query) -> bool {
        if self.local_protocol.is_some_and(|want| want != query.protocol)
            || self.remote_protocol.is_some_and(|want| want != query.protocol)
        {
            return false;
        }
        let port = |range: PortRange, port: u16| {
            range == PortRange::ANY
                || (query.has_ports && range.contains(port))
                || (!query.has_ports && range == PortRange::OPAQUE)
        };
        if port(self.local_ports, query.local_port) && port(self.remote_ports, query.remote_port) {
            return true;
        }
        self.needs_ports && query.hides_ports && self.action != PolicyAction::Bypass
    }
}
