//! Sealing: GHASH runs one batch behind AES, since it needs the ciphertext.

use super::{Hash, Idle, Item, Shape, encrypt, hash_input, load, store, vectors};
use crate::kernel::isa::{Isa, Task};

/// Seals `N` packets of `R` vectors each, side by side; the tags.
pub(crate) struct SealGroup<'i, 'a, const ROUNDS: usize, const N: usize, const R: usize> {
    pub(crate) items: [&'i mut Item<'a>; N],
}

impl<const ROUNDS: usize, const N: usize, const R: usize> Task for SealGroup<'_, '_, ROUNDS, N, R> {
    type Out = [[u8; 16]; N];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [[u8; 16]; N] {
        let items = self.items;
        let mut data = [[isa.zero(); R]; N];
        let mut counters = [isa.zero(); N];
        for n in 0..N {
            let shape = Shape::new::<I>(items[n].text);
            data[n] = load::<I, true, true, R>(isa, items[n].packet, &shape, 0);
            counters[n] = items[n].counters(isa, shape.pad);
        }
        let tables = std::array::from_fn(|n| items[n].tables);
        let out = encrypt::<I, Idle, ROUNDS, N, R>(isa, tables, counters, &data, &mut Idle);
        let mut tags = [[0; 16]; N];
        for n in 0..N {
            let item = &mut *items[n];
            let shape = Shape::new::<I>(item.text);
            store::<I, true, true, R>(isa, item.packet, &shape, 0, &out[n]);
            let blocks = hash_input::<I, true, true, false, R>(isa, item, &shape, &out[n]);
            let sum = Hash::<I, R, true>::new(isa, &item.tables.powers, None, blocks).all(isa);
            tags[n] = isa.tag(sum, isa.lane(out[n][0], shape.pad));
        }
        tags
    }
}

/// Seals one packet of any length; the tag.
#[inline(always)]
pub(crate) fn seal_one<I: Isa, const ROUNDS: usize>(isa: I, item: &mut Item<'_>) -> [u8; 16] {
    let [tag] = match vectors::<I>(item.text.end - item.text.start) {
        1 => isa.enter(SealGroup::<ROUNDS, 1, 1> { items: [item] }),
        2 => isa.enter(SealGroup::<ROUNDS, 1, 2> { items: [item] }),
        3 => isa.enter(SealGroup::<ROUNDS, 1, 3> { items: [item] }),
        4 => isa.enter(SealGroup::<ROUNDS, 1, 4> { items: [item] }),
        _ if const { I::BATCH == 8 } => [isa.enter(SealLong::<ROUNDS, 8> { item })],
        _ => [isa.enter(SealLong::<ROUNDS, 4> { item })],
    };
    tag
}

/// One packet of more vectors than make a group.
pub(crate) struct SealLong<'i, 'a, const ROUNDS: usize, const B: usize> {
    pub(crate) item: &'i mut Item<'a>,
}

impl<const ROUNDS: usize, const B: usize> Task for SealLong<'_, '_, ROUNDS, B> {
    type Out = [u8; 16];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [u8; 16] {
        seal_long::<I, ROUNDS, B>(isa, self.item)
    }
}

/// Seals one packet of more than `B` vectors, or of any number that [`last`] knows.
#[inline(always)]
fn seal_long<I: Isa, const ROUNDS: usize, const B: usize>(isa: I, item: &mut Item<'_>) -> [u8; 16] {
    let shape = Shape::new::<I>(item.text);
    let tables = item.tables;
    let mut counters = item.counters(isa, shape.pad);
    if const { B == 8 } {
        // A packet of 5 to 8 vectors is a batch of its own.
        match shape.vectors {
            5 => return isa.enter(SealGroup::<ROUNDS, 1, 5> { items: [item] })[0],
            6 => return isa.enter(SealGroup::<ROUNDS, 1, 6> { items: [item] })[0],
            7 => return isa.enter(SealGroup::<ROUNDS, 1, 7> { items: [item] })[0],
            8 => return isa.enter(SealGroup::<ROUNDS, 1, 8> { items: [item] })[0],
            _ => {}
        }
    }
    let data = load::<I, true, false, B>(isa, item.packet, &shape, 0);
    let [out] = encrypt::<I, Idle, ROUNDS, 1, B>(isa, [tables], [counters], &[data], &mut Idle);
    store::<I, true, false, B>(isa, item.packet, &shape, 0, &out);
    let mask = isa.lane(out[0], shape.pad);
    let mut pending = hash_input::<I, true, false, false, B>(isa, item, &shape, &out);
    let mut carry = None;
    let mut v = B;
    while shape.vectors - v > B {
        counters = next::<I, B>(isa, counters);
        let mut hash = Hash::<I, B, false>::new(isa, &tables.powers, carry, pending);
        let data = load::<I, false, false, B>(isa, item.packet, &shape, v);
        let [out] = encrypt::<I, _, ROUNDS, 1, B>(isa, [tables], [counters], &[data], &mut hash);
        carry = Some(isa.reduce(hash.sum));
        store::<I, false, false, B>(isa, item.packet, &shape, v, &out);
        pending = hash_input::<I, false, false, false, B>(isa, item, &shape, &out);
        v += B;
    }
    counters = next::<I, B>(isa, counters);
    let hash = Hash::<I, B, false>::new(isa, &tables.powers, carry, pending);
    let end = End { shape, v, counters, mask };
    match shape.vectors - v {
        1 => last::<I, ROUNDS, B, 1>(isa, item, &end, hash),
        2 => last::<I, ROUNDS, B, 2>(isa, item, &end, hash),
        3 => last::<I, ROUNDS, B, 3>(isa, item, &end, hash),
        _ if const { B == 4 } => last::<I, ROUNDS, B, 4>(isa, item, &end, hash),
        4 => last::<I, ROUNDS, B, 4>(isa, item, &end, hash),
        5 => last::<I, ROUNDS, B, 5>(isa, item, &end, hash),
        6 => last::<I, ROUNDS, B, 6>(isa, item, &end, hash),
        7 => last::<I, ROUNDS, B, 7>(isa, item, &end, hash),
        _ => last::<I, ROUNDS, B, 8>(isa, item, &end, hash),
    }
}

/// The counters of the next batch.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most 16 blocks")]
pub(super) fn next<I: Isa, const B: usize>(isa: I, counters: I::V) -> I::V {
    isa.add_counter(counters, (B * I::LANES) as u32)
}

/// Where the last batch of a packet stands.
struct End<I: Isa> {
    shape: Shape,
    v: usize,
    counters: I::V,
    /// E(J0).
    mask: I::Block,
}

/// The last `R` vectors, with the batch before them still to be hashed.
#[inline(always)]
fn last<I: Isa, const ROUNDS: usize, const B: usize, const R: usize>(
    isa: I,
    item: &mut Item<'_>,
    end: &End<I>,
    mut hash: Hash<'_, I, B, false>,
) -> [u8; 16] {
    let data = load::<I, false, true, R>(isa, item.packet, &end.shape, end.v);
    let [out] = encrypt::<I, _, ROUNDS, 1, R>(isa, [item.tables], [end.counters], &[data], &mut hash);
    store::<I, false, true, R>(isa, item.packet, &end.shape, end.v, &out);
    let carry = isa.reduce(hash.sum);
    let blocks = hash_input::<I, false, true, false, R>(isa, item, &end.shape, &out);
    let sum = Hash::<I, R, true>::new(isa, &item.tables.powers, Some(carry), blocks).all(isa);
    isa.tag(sum, end.mask)
}

/// One packet, with the number of rounds still to be looked up.
pub(crate) struct SealOne<'i, 'a> {
    pub(crate) item: &'i mut Item<'a>,
    pub(crate) rounds: usize,
}

impl Task for SealOne<'_, '_> {
    type Out = [u8; 16];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [u8; 16] {
        match self.rounds {
            10 => seal_one::<I, 10>(isa, self.item),
            12 => seal_one::<I, 12>(isa, self.item),
            _ => seal_one::<I, 14>(isa, self.item),
        }
    }
}
