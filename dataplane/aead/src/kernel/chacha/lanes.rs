//! Which packets are hashed side by side: those of about the same length.

use arrayvec::ArrayVec;

use super::poly1305::{Message, OneTimeKey};
use super::{AnyAad, BURST, View};
use crate::kernel::ifma::{Ifma, LANES};

/// Fewer packets are quicker one by one.
const FEW: usize = 4;

/// Packets in two vectors, of which one works while the other waits for its products.
const PAIR: usize = 2 * LANES;

/// Writes the tags of all packets but some, which come back.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a burst has 64 packets at most")]
pub(super) fn tags(
    ifma: Ifma,
    views: &[View<'_>],
    keys: &[OneTimeKey; BURST],
    tags: &mut [[u8; 16]; BURST],
) -> ArrayVec<u8, BURST> {
    let (mut order, mut left): (ArrayVec<u8, BURST>, ArrayVec<u8, BURST>) = Default::default();
    for (v, view) in views.iter().enumerate() {
        // AAD of several blocks is no packet's.
        let of = if matches!(view.aad, AnyAad::Esp(_)) { &mut order } else { &mut left };
        of.push(v as u8);
    }
    order.sort_unstable_by_key(|&v| views[usize::from(v)].text.len());
    let mut rest = &order[..];
    while rest.len() > FEW {
        let count = rest.len().min(PAIR);
        let (group, others) = rest.split_at(count);
        if count > LANES {
            hash::<2>(ifma, views, keys, tags, group);
        } else {
            hash::<1>(ifma, views, keys, tags, group);
        }
        rest = others;
    }
    left.extend(rest.iter().copied());
    left
}

/// Hashes a group of up to eight times `G` packets; lanes without one do the work of the first again.
fn hash<const G: usize>(
    ifma: Ifma,
    views: &[View<'_>],
    keys: &[OneTimeKey; BURST],
    tags: &mut [[u8; 16]; BURST],
    group: &[u8],
) {
    let first = usize::from(group[0]);
    let mut messages: [[Message<'_>; LANES]; G] = [[views[first].message(); LANES]; G];
    let mut lane_keys = [[&keys[first]; LANES]; G];
    let places = messages.as_flattened_mut().iter_mut().zip(lane_keys.as_flattened_mut());
    for ((message, key), &v) in places.zip(group) {
        *message = views[usize::from(v)].message();
        *key = &keys[usize::from(v)];
    }
    let computed = ifma.poly1305(&lane_keys, &messages);
    for (&v, tag) in group.iter().zip(computed.as_flattened()) {
        tags[usize::from(v)] = *tag;
    }
}
