//! Protected pairs as the XDP program sees them: classes of prefixes, and the closed set of class pairs.
//!
//! The program looks each address up once, in a trie that answers with the *longest* prefix. A pair
//! (10.0.0.0/8, 0.0.0.0/0) therefore has to be found also through 10.1.0.0/16, if any pair brought that
//! prefix into the trie. [`closure`] spells this out: for each pair, every prefix below its local side with
//! every prefix below its remote side. Everything here is a pure function.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::SteerError;

/// Bound of the closed set: a hash entry takes about 64 octets, so 64 MB of kernel memory.
pub const CLASS_PAIRS_MAX: usize = 1 << 20;

/// Shortest IPv4 prefix that names one owner: the /8 of the old class A.
const NARROW_V4: u8 = 8;
/// Shortest IPv6 prefix that names one owner: fc00::/7 of RFC 4193; 2000::/3 is a way to write "everything".
const NARROW_V6: u8 = 7;

/// A local and a remote prefix, without host bits.
pub(crate) type Pair = (IpNet, IpNet);

/// Whether `address`, one of the gateway's own, lies inside local selectors that mean it.
///
/// Clear packets to such an address are judged by the protected pairs; to any other address of the gateway
/// they pass. Prefixes shorter than /8 (IPv4) or /7 (IPv6) name nobody and do not count, so that selectors
/// of `0.0.0.0/0` and `::/0` lock nobody out.
pub fn is_inside<'a>(address: IpAddr, local_prefixes: impl IntoIterator<Item = &'a IpNet>) -> bool {
    local_prefixes.into_iter().any(|prefix| is_narrow(prefix) && prefix.contains(&address))
}

/// Whether a prefix is long enough to name its owner: /8 (IPv4) or /7 (IPv6) at least.
pub fn is_narrow(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(prefix) => prefix.prefix_len() >= NARROW_V4,
        IpNet::V6(prefix) => prefix.prefix_len() >= NARROW_V6,
    }
}

/// The pairs without host bits and duplicates.
pub(crate) fn canonical(pairs: &[Pair]) -> Result<HashSet<Pair>, SteerError> {
    pairs
        .iter()
        .map(|(local, remote)| match (local, remote) {
            (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_)) => {
                Ok((local.trunc(), remote.trunc()))
            }
            _ => Err(SteerError::MixedFamilies { local: *local, remote: *remote }),
        })
        .collect()
}

/// Every (local, remote) of the prefixes in the tries that some pair covers.
pub(crate) fn closure(
    pairs: &HashSet<Pair>,
    locals: &BTreeSet<IpNet>,
    remotes: &BTreeSet<IpNet>,
) -> Result<HashSet<Pair>, SteerError> {
    let mut closed = HashSet::with_capacity(pairs.len());
    for pair in pairs {
        if is_redundant(pair, pairs, locals, remotes) {
            continue;
        }
        for below_local in below(&pair.0, locals) {
            for below_remote in below(&pair.1, remotes) {
                closed.insert((*below_local, *below_remote));
            }
            if closed.len() > CLASS_PAIRS_MAX {
                return Err(SteerError::TooManyPairs);
            }
        }
    }
    Ok(closed)
}

/// Whether another pair covers this one on both sides. Without this, a pair of wide prefixes over many
/// narrow ones would be spelled out again for each of them.
fn is_redundant(
    pair: &Pair,
    pairs: &HashSet<Pair>,
    locals: &BTreeSet<IpNet>,
    remotes: &BTreeSet<IpNet>,
) -> bool {
    let above_remotes: Vec<IpNet> = upwards(pair.1, remotes).collect();
    upwards(pair.0, locals).any(|local| {
        above_remotes.iter().any(|remote| (local, *remote) != *pair && pairs.contains(&(local, *remote)))
    })
}

/// The members of `prefixes` that cover `prefix`, itself included.
fn upwards(prefix: IpNet, prefixes: &BTreeSet<IpNet>) -> impl Iterator<Item = IpNet> {
    std::iter::successors(Some(prefix), IpNet::supernet).filter(|prefix| prefixes.contains(prefix))
}

/// The members of `prefixes` that `prefix` covers, itself included.
fn below<'a>(prefix: &IpNet, prefixes: &'a BTreeSet<IpNet>) -> impl Iterator<Item = &'a IpNet> {
    // Ordered by address, then length: what lies below follows without a gap.
    let prefix = *prefix;
    prefixes.range(prefix..).take_while(move |candidate| prefix.contains(*candidate))
}

#[cfg(test)]
mod tests;
