//! From an ordered list to buckets per pair of prefix lengths.
//!
//! Entries are grouped by the two prefix lengths of their addresses (a *lengths*). Within a lengths, one hash
//! probe with the masked addresses leads to the entries of exactly that pair of prefixes. A lookup probes
//! the prefix_lengths in the order of their first entry and stops once no lengths left could hold an earlier one:
//! its cost grows with the number of prefix_lengths (a handful in any real list), not of policies. Address ranges
//! are cut into prefixes first; a pair of ranges that would need more than [`PIECES_MAX`] pairs of prefixes
//! goes to a short list that is walked.

use pollux_abi::command::{Direction, PolicyAction, PolicySpec};
use pollux_abi::selector::{PortRange, TrafficSelector};
use pollux_abi::{PolicyId, Reqid, SaIndex};
use pollux_packet::{Flow, IpVersion};
use std::collections::BTreeMap;
use std::net::IpAddr;
use thiserror::Error;

use super::lookup::{Bucket, Entry, Match, PrefixLengths, Table};

/// Policies in one list at most: the order is a number of 24 bits in the compiled form.
pub const POLICIES_MAX: usize = 1 << 20;

/// Pairs of prefixes that one policy with address ranges may become.
const PIECES_MAX: usize = 256;

/// Why a list can't be compiled.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CompileError {
    /// Too many entries.
    #[error("{count} policies are more than {POLICIES_MAX}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// One entry's sides have different IP versions.
    #[error("policy {policy} has selectors of different IP versions")]
    MixedVersions {
        /// Which.
        policy: PolicyId,
    },
}

/// The outbound SAs of one reqid as this worker sees them: the newest, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bundle {
    /// The reqid.
    pub(crate) reqid: Reqid,
    /// Its newest outbound SA.
    pub(crate) newest: Option<SaIndex>,
}

/// One worker's copy of the policies. Compiling allocates: the housekeeper does it.
#[derive(Debug, Default)]
pub struct CompiledPolicies {
    pub(crate) outbound: Table,
    pub(crate) inbound: Table,
    /// Sorted by reqid.
    pub(crate) bundles: Box<[Bundle]>,
}

impl CompiledPolicies {
    /// Compiles an ordered list; the first match wins.
    ///
    /// # Errors
    /// An entry that can't be carried out.
    pub fn compile(specs: &[PolicySpec]) -> Result<Self, CompileError> {
        if specs.len() > POLICIES_MAX {
            return Err(CompileError::TooMany { count: specs.len() });
        }
        for spec in specs {
            if spec.selectors.local.is_ipv4() != spec.selectors.remote.is_ipv4() {
                return Err(CompileError::MixedVersions { policy: spec.id });
            }
        }
        let bundles = bundles(specs);
        let table = |direction| build(specs, direction, &bundles);
        Ok(Self { outbound: table(Direction::Outbound), inbound: table(Direction::Inbound), bundles })
    }

    /// Policies in both directions.
    pub fn len(&self) -> usize {
        self.outbound.policies + self.inbound.policies
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a policy of either direction names the reqid.
    pub(crate) fn names(&self, reqid: Reqid) -> bool {
        self.bundles.binary_search_by_key(&reqid, |bundle| bundle.reqid).is_ok()
    }

    /// What the policies say of a packet that arrives. Inbound policies come first; where they are silent, the
    /// outbound ones count, read backwards.
    #[inline]
    pub(crate) fn arriving(&self, flow: &Flow) -> Match<'_> {
        match self.inbound.arriving(flow) {
            Match::None => self.outbound.arriving(flow),
            found => found,
        }
    }

    /// The bundle of a reqid, where a policy names it.
    pub(crate) fn bundle_mut(&mut self, reqid: Reqid) -> Option<&mut Bundle> {
        let at = self.bundles.binary_search_by_key(&reqid, |bundle| bundle.reqid).ok()?;
        self.bundles.get_mut(at)
    }
}

fn bundles(specs: &[PolicySpec]) -> Box<[Bundle]> {
    let mut reqids: Vec<Reqid> = specs
        .iter()
        .filter_map(|spec| match spec.action {
            PolicyAction::Protect(reqid) => Some(reqid),
            PolicyAction::Bypass | PolicyAction::Discard => None,
        })
        .collect();
    reqids.sort_unstable();
    reqids.dedup();
    reqids.into_iter().map(|reqid| Bundle { reqid, newest: None }).collect()
}

/// A prefix of either version: IPv4 lengths count from bit 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    bits: u128,
    len: u8,
}

type ShapeKey = (u8, u8, u8);
type PairKey = (u128, u128);

fn build(specs: &[PolicySpec], direction: Direction, bundles: &[Bundle]) -> Table {
    let mut prefix_lengths: BTreeMap<ShapeKey, BTreeMap<PairKey, Vec<Entry>>> = BTreeMap::new();
    let mut ranges = Vec::new();
    let mut policies = 0;
    for (order, spec) in (0u32..).zip(specs).filter(|(_, spec)| spec.direction == direction) {
        policies += 1;
        let entry = entry(order, spec, bundles);
        let (local, remote) = (prefixes(&spec.selectors.local), prefixes(&spec.selectors.remote));
        if local.len() * remote.len() > PIECES_MAX {
            ranges.push((side(&spec.selectors.local), side(&spec.selectors.remote), version(spec), entry));
            continue;
        }
        for l in &local {
            for r in &remote {
                prefix_lengths
                    .entry((version(spec) as u8, l.len, r.len))
                    .or_default()
                    .entry((l.bits, r.bits))
                    .or_default()
                    .push(entry);
            }
        }
    }
    let mut entries = Vec::new();
    let mut prefix_lengths: Vec<PrefixLengths> =
        prefix_lengths.into_iter().map(|(key, pairs)| lengths(key, pairs, &mut entries)).collect();
    prefix_lengths.sort_by_key(|lengths| lengths.first_order);
    Table { prefix_lengths: prefix_lengths.into(), entries: entries.into(), ranges: ranges.into(), policies }
}

fn lengths(key: ShapeKey, pairs: BTreeMap<PairKey, Vec<Entry>>, entries: &mut Vec<Entry>) -> PrefixLengths {
    let (version, local_len, remote_len) = key;
    let version = if version == IpVersion::V4 as u8 { IpVersion::V4 } else { IpVersion::V6 };
    // At most half full, so that a probe ends soon.
    let slots = (pairs.len() * 2).next_power_of_two();
    let mut buckets = vec![Bucket::EMPTY; slots].into_boxed_slice();
    let mut first_order = u32::MAX;
    for ((local, remote), list) in pairs {
        first_order = list.iter().fold(first_order, |first, entry| first.min(entry.order));
        let bucket = Bucket::new(local, remote, entries.len(), list.len());
        entries.extend(list);
        let mut at = Bucket::hash(local, remote) & (slots - 1);
        while !buckets[at].is_empty() {
            at = (at + 1) & (slots - 1);
        }
        buckets[at] = bucket;
    }
    PrefixLengths {
        local_mask: mask(version, local_len),
        remote_mask: mask(version, remote_len),
        version,
        first_order,
        buckets,
    }
}

fn entry(order: u32, spec: &PolicySpec, bundles: &[Bundle]) -> Entry {
    let bundle = match spec.action {
        PolicyAction::Protect(reqid) => bundles.binary_search_by_key(&reqid, |bundle| bundle.reqid).ok(),
        PolicyAction::Bypass | PolicyAction::Discard => None,
    };
    let selectors = &spec.selectors;
    Entry {
        order,
        id: spec.id,
        action: spec.action,
        bundle: bundle.and_then(|at| u32::try_from(at).ok()).unwrap_or(0),
        local_ports: selectors.local.ports,
        remote_ports: selectors.remote.ports,
        local_protocol: selectors.local.protocol,
        remote_protocol: selectors.remote.protocol,
        needs_ports: [selectors.local.ports, selectors.remote.ports]
            .into_iter()
            .any(|ports| ports != PortRange::ANY && ports != PortRange::OPAQUE),
    }
}

fn version(spec: &PolicySpec) -> IpVersion {
    if spec.selectors.local.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 }
}

fn side(selector: &TrafficSelector) -> (u128, u128) {
    (Flow::bits(selector.first()), Flow::bits(selector.last()))
}

/// The mask of a prefix length, for addresses as [`Flow`] keeps them.
fn mask(version: IpVersion, len: u8) -> u128 {
    let (all, width) = match version {
        IpVersion::V4 => (u128::from(u32::MAX), 32),
        IpVersion::V6 => (u128::MAX, 128),
    };
    let host = u32::from(width - len.min(width));
    all & u128::MAX.checked_shl(host).unwrap_or(0)
}

/// The prefixes that an address range is made of, the fewest.
fn prefixes(selector: &TrafficSelector) -> Vec<Prefix> {
    let width = if matches!(selector.first(), IpAddr::V4(_)) { 32u8 } else { 128 };
    let (mut first, last) = side(selector);
    let mut list = Vec::new();
    loop {
        // The largest aligned block that starts at `first` and does not pass `last`.
        let aligned = first.trailing_zeros().min(u32::from(width));
        let room = (last - first).checked_add(1).map_or(128, u128::ilog2);
        let host = aligned.min(room).min(u32::from(width));
        let len = width - u8::try_from(host).unwrap_or(width);
        list.push(Prefix { bits: first, len });
        let next = 1u128.checked_shl(host).and_then(|size| first.checked_add(size));
        match next {
            Some(next) if next <= last => first = next,
            _ => return list,
        }
    }
}

#[cfg(test)]
mod tests;
