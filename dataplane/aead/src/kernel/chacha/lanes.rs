//! Which packets are hashed side by side: those of about the same length; and how they come to an end.

use arrayvec::ArrayVec;

use super::poly1305::{Message, OneTimeKey, padded};
use super::{AnyAad, BURST, View};
use crate::kernel::avx2::Avx2;
use crate::kernel::ifma::Ifma;

/// What an instruction set has for that.
pub(crate) enum Lanes {
    Eight(Ifma),
    Four(Avx2),
    None,
}

/// Multipliers with a message in each of `L` lanes.
pub(crate) trait Multipliers<const L: usize>: Copy {
    /// Packets in groups that are hashed in step, so that one works while another waits for its products: 1 or 2.
    const GROUPS: usize;

    /// Fewer packets are quicker one by one.
    const FEW: usize;

    /// The tags of `G` groups of messages, each with an AAD of up to one block.
    fn poly1305<const G: usize>(
        self,
        keys: &[[&OneTimeKey; L]; G],
        messages: &[[Message<'_>; L]; G],
    ) -> [[[u8; 16]; L]; G];
}

/// Writes the tags of all packets but some, which come back.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a burst has 64 packets at most")]
pub(super) fn tags<const L: usize, M: Multipliers<L>>(
    multipliers: M,
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
    while rest.len() > M::FEW {
        let count = rest.len().min(M::GROUPS * L);
        let (group, others) = rest.split_at(count);
        if count > L {
            hash::<L, 2, M>(multipliers, views, keys, tags, group);
        } else {
            hash::<L, 1, M>(multipliers, views, keys, tags, group);
        }
        rest = others;
    }
    left.extend(rest.iter().copied());
    left
}

/// Hashes up to `G` groups of packets; lanes without one do the work of the first again.
fn hash<const L: usize, const G: usize, M: Multipliers<L>>(
    multipliers: M,
    views: &[View<'_>],
    keys: &[OneTimeKey; BURST],
    tags: &mut [[u8; 16]; BURST],
    group: &[u8],
) {
    let first = usize::from(group[0]);
    let mut messages: [[Message<'_>; L]; G] = [[views[first].message(); L]; G];
    let mut lane_keys = [[&keys[first]; L]; G];
    let places = messages.as_flattened_mut().iter_mut().zip(lane_keys.as_flattened_mut());
    for ((message, key), &v) in places.zip(group) {
        *message = views[usize::from(v)].message();
        *key = &keys[usize::from(v)];
    }
    let computed = multipliers.poly1305(&lane_keys, &messages);
    for (&v, tag) in group.iter().zip(computed.as_flattened()) {
        tags[usize::from(v)] = *tag;
    }
}

/// How many whole blocks all of these messages' texts have, and the steps of the longest after its AAD.
#[inline(always)]
pub(crate) fn steps<const L: usize>(messages: &[Message<'_>; L]) -> (usize, usize) {
    let (mut shared, mut steps) = (usize::MAX, 0);
    for message in messages {
        shared = shared.min(message.text.len() / 16);
        steps = steps.max(message.text.len().div_ceil(16) + 1);
    }
    (shared, steps)
}

/// Block `step` of each message after its AAD, and a bit for each message that has one.
#[inline(always)]
pub(crate) fn ends<const L: usize>(messages: &[Message<'_>; L], step: usize) -> ([[u8; 16]; L], u8) {
    let mut blocks = [[0; 16]; L];
    let mut active = 0;
    for (lane, (block, message)) in blocks.iter_mut().zip(messages).enumerate() {
        let text_blocks = message.text.len().div_ceil(16);
        if step < text_blocks {
            let rest = &message.text[16 * step..];
            *block = rest.first_chunk().copied().unwrap_or_else(|| padded(rest));
        } else if step == text_blocks {
            *block = message.lengths();
        }
        active |= u8::from(step <= text_blocks) << lane;
    }
    (blocks, active)
}

/// The whole blocks of each text, as far as all have them.
#[inline(always)]
pub(crate) fn fronts<'a, const L: usize>(messages: &[Message<'a>; L], shared: usize) -> [&'a [[u8; 16]]; L] {
    let mut fronts = [&[][..]; L];
    for (front, message) in fronts.iter_mut().zip(messages) {
        *front = &message.text.as_chunks().0[..shared];
    }
    fronts
}
