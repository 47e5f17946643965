//! Narrowing of traffic selectors (RFC 7296 §2.9).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pollux_abi::layout::SELECTORS_MAX;
use pollux_abi::{PortRange, TrafficSelector};

/// The part of `theirs` that `ours` allows, at most [`SELECTORS_MAX`] selectors; empty: TS_UNACCEPTABLE.
///
/// The peer's first selector, which may be the very packet that wants the SA, is looked at first, so what
/// it shares with our policy is in the answer even where the answer has to be cut short.
pub fn narrow(
    ours: &[TrafficSelector],
    theirs: impl IntoIterator<Item = TrafficSelector>,
) -> Vec<TrafficSelector> {
    let mut narrowed: Vec<TrafficSelector> = Vec::with_capacity(SELECTORS_MAX);
    for theirs in theirs {
        for shared in ours.iter().filter_map(|ours| ours.intersection(&theirs)) {
            if narrowed.iter().any(|have| have.covers(&shared)) {
                continue;
            }
            narrowed.retain(|have| !shared.covers(have));
            if narrowed.len() < SELECTORS_MAX {
                narrowed.push(shared);
            }
        }
    }
    narrowed
}

/// Whether each selector of `answer` lies inside one of `offered`: a responder may narrow, never widen.
pub fn is_narrowed(offered: &[TrafficSelector], answer: impl IntoIterator<Item = TrafficSelector>) -> bool {
    answer.into_iter().all(|answer| offered.iter().any(|offered| offered.covers(&answer)))
}

/// Whether all that `narrower` matches is matched by `wider` too, by one selector or by several together.
pub fn covers_all(wider: &[TrafficSelector], narrower: &[TrafficSelector]) -> bool {
    let mut left = narrower.to_vec();
    for selector in wider {
        left = left.into_iter().flat_map(|part| without(part, selector)).flatten().collect();
    }
    left.is_empty()
}

/// What `taken` leaves of `part`: addresses below and above, and ports below and above.
fn without(part: TrafficSelector, taken: &TrafficSelector) -> [Option<TrafficSelector>; 4] {
    if taken.covers(&part) {
        return [None; 4];
    }
    let shared = taken.intersection(&part);
    // A part of any protocol is not cut by protocols: what is left of it would have no selector.
    let Some(shared) = shared.filter(|shared| shared.protocol == part.protocol) else {
        return [Some(part), None, None, None];
    };
    let addresses = |first: Option<IpAddr>, last: Option<IpAddr>| {
        TrafficSelector::new(first?, last?, part.protocol, part.ports)
    };
    let ports = |first: Option<u16>, last: Option<u16>| {
        let ports = PortRange { first: first?, last: last? };
        let proper = ports.first <= ports.last;
        TrafficSelector::new(shared.first(), shared.last(), part.protocol, ports).filter(|_| proper)
    };
    [
        addresses(Some(part.first()), before(shared.first())),
        addresses(after(shared.last()), Some(part.last())),
        ports(Some(part.ports.first), shared.ports.first.checked_sub(1)),
        ports(shared.ports.last.checked_add(1), Some(part.ports.last)),
    ]
}

fn before(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().checked_sub(1)?).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits().checked_sub(1)?).into(),
    })
}

fn after(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().checked_add(1)?).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits().checked_add(1)?).into(),
    })
}

/// What a successor must carry of a Child SA in use (RFC 7296 §2.9.2): all that the policy still allows.
pub fn in_use(of_child: &[TrafficSelector], policy: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let parts = of_child.iter().flat_map(|old| policy.iter().filter_map(|ours| ours.intersection(old)));
    parts.collect()
}

/// Our side of a rekey: what is in use comes first, then the rest of the policy, at most [`SELECTORS_MAX`]. So even a
/// responder that takes the first selector alone makes no narrower Child SA.
pub fn for_rekey(in_use: &[TrafficSelector], policy: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let rest = policy.iter().filter(|ours| !in_use.iter().any(|old| old.covers(ours)));
    in_use.iter().chain(rest).copied().take(SELECTORS_MAX).collect()
}

/// Selectors as one piece of text for the log.
pub fn describe(selectors: impl IntoIterator<Item = TrafficSelector>) -> String {
    /// A line stays readable, whatever a peer sends.
    const SHOWN_MAX: usize = 16;
    let mut selectors = selectors.into_iter();
    let mut text = String::new();
    for selector in selectors.by_ref().take(SHOWN_MAX) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&selector.to_string());
    }
    if selectors.next().is_some() {
        text.push_str(", …");
    }
    if text.is_empty() { "nothing".to_owned() } else { text }
}

#[cfg(test)]
mod tests;
