//! Opening: the ciphertext is there from the start, so AES and GHASH of one batch run together.

use super::seal::next;
use super::{Hash, Item, Shape, encrypt, hash_input, load, store, vectors};
use crate::kernel::isa::{Isa, Task};

/// Opens `N` packets of `R` vectors each, side by side; the tags that they ought to have.
pub(crate) struct OpenGroup<'i, 'a, const ROUNDS: usize, const N: usize, const R: usize> {
    pub(crate) items: [&'i mut Item<'a>; N],
}

impl<const ROUNDS: usize, const N: usize, const R: usize> Task for OpenGroup<'_, '_, ROUNDS, N, R> {
    type Out = [[u8; 16]; N];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [[u8; 16]; N] {
        let items = self.items;
        let shapes: [Shape; N] = std::array::from_fn(|n| Shape::new::<I>(items[n].text));
        let mut data = [[isa.zero(); R]; N];
        let mut counters = [isa.zero(); N];
        for n in 0..N {
            data[n] = load::<I, true, true, R>(isa, items[n].packet, &shapes[n], 0);
            counters[n] = items[n].counters(isa, shapes[n].pad);
        }
        let tables = std::array::from_fn(|n| items[n].tables);
        let mut hashes: [Hash<I, R, true>; N] = std::array::from_fn(|n| {
            let blocks = hash_input::<I, true, true, true, R>(isa, items[n], &shapes[n], &data[n]);
            Hash::new(isa, &items[n].tables.powers, None, blocks)
        });
        let out = encrypt::<I, _, ROUNDS, N, R>(isa, tables, counters, &data, &mut hashes);
        let mut tags = [[0; 16]; N];
        for n in 0..N {
            store::<I, true, true, R>(isa, items[n].packet, &shapes[n], 0, &out[n]);
            tags[n] = isa.tag(hashes[n].sum, isa.lane(out[n][0], shapes[n].pad));
        }
        tags
    }
}

/// Opens one packet of any length; the tag that it ought to have.
#[inline(always)]
pub(crate) fn open_one<I: Isa, const ROUNDS: usize>(isa: I, item: &mut Item<'_>) -> [u8; 16] {
    let [tag] = match vectors::<I>(item.text.end - item.text.start) {
        1 => isa.enter(OpenGroup::<ROUNDS, 1, 1> { items: [item] }),
        2 => isa.enter(OpenGroup::<ROUNDS, 1, 2> { items: [item] }),
        3 => isa.enter(OpenGroup::<ROUNDS, 1, 3> { items: [item] }),
        4 => isa.enter(OpenGroup::<ROUNDS, 1, 4> { items: [item] }),
        _ if const { I::BATCH == 8 } => [isa.enter(OpenLong::<ROUNDS, 8> { item })],
        _ => [isa.enter(OpenLong::<ROUNDS, 4> { item })],
    };
    tag
}

/// One packet of more vectors than make a group.
pub(crate) struct OpenLong<'i, 'a, const ROUNDS: usize, const B: usize> {
    pub(crate) item: &'i mut Item<'a>,
}

impl<const ROUNDS: usize, const B: usize> Task for OpenLong<'_, '_, ROUNDS, B> {
    type Out = [u8; 16];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [u8; 16] {
        open_long::<I, ROUNDS, B>(isa, self.item)
    }
}

/// Opens one packet of more vectors than make a group.
#[inline(always)]
fn open_long<I: Isa, const ROUNDS: usize, const B: usize>(isa: I, item: &mut Item<'_>) -> [u8; 16] {
    let shape = Shape::new::<I>(item.text);
    let tables = item.tables;
    let mut counters = item.counters(isa, shape.pad);
    if const { B == 8 } {
        match shape.vectors {
            5 => return isa.enter(OpenGroup::<ROUNDS, 1, 5> { items: [item] })[0],
            6 => return isa.enter(OpenGroup::<ROUNDS, 1, 6> { items: [item] })[0],
            7 => return isa.enter(OpenGroup::<ROUNDS, 1, 7> { items: [item] })[0],
            8 => return isa.enter(OpenGroup::<ROUNDS, 1, 8> { items: [item] })[0],
            _ => {}
        }
    }
    let data = load::<I, true, false, B>(isa, item.packet, &shape, 0);
    let blocks = hash_input::<I, true, false, true, B>(isa, item, &shape, &data);
    let mut hash = Hash::<I, B, false>::new(isa, &tables.powers, None, blocks);
    let [out] = encrypt::<I, _, ROUNDS, 1, B>(isa, [tables], [counters], &[data], &mut hash);
    store::<I, true, false, B>(isa, item.packet, &shape, 0, &out);
    let mask = isa.lane(out[0], shape.pad);
    let mut carry = isa.reduce(hash.sum);
    let mut v = B;
    while shape.vectors - v > B {
        counters = next::<I, B>(isa, counters);
        let data = load::<I, false, false, B>(isa, item.packet, &shape, v);
        let blocks = hash_input::<I, false, false, true, B>(isa, item, &shape, &data);
        let mut hash = Hash::<I, B, false>::new(isa, &tables.powers, Some(carry), blocks);
        let [out] = encrypt::<I, _, ROUNDS, 1, B>(isa, [tables], [counters], &[data], &mut hash);
        carry = isa.reduce(hash.sum);
        store::<I, false, false, B>(isa, item.packet, &shape, v, &out);
        v += B;
    }
    counters = next::<I, B>(isa, counters);
    let end = End { shape, v, counters, carry, mask };
    match shape.vectors - v {
        1 => last::<I, ROUNDS, 1>(isa, item, &end),
        2 => last::<I, ROUNDS, 2>(isa, item, &end),
        3 => last::<I, ROUNDS, 3>(isa, item, &end),
        _ if const { B == 4 } => last::<I, ROUNDS, 4>(isa, item, &end),
        4 => last::<I, ROUNDS, 4>(isa, item, &end),
        5 => last::<I, ROUNDS, 5>(isa, item, &end),
        6 => last::<I, ROUNDS, 6>(isa, item, &end),
        7 => last::<I, ROUNDS, 7>(isa, item, &end),
        _ => last::<I, ROUNDS, 8>(isa, item, &end),
    }
}

/// Where the last batch of a packet stands.
struct End<I: Isa> {
    shape: Shape,
    v: usize,
    counters: I::V,
    /// The hash of all before.
    carry: I::V,
    /// E(J0).
    mask: I::Block,
}

/// The last `R` vectors.
#[inline(always)]
fn last<I: Isa, const ROUNDS: usize, const R: usize>(isa: I, item: &mut Item<'_>, end: &End<I>) -> [u8; 16] {
    let data = load::<I, false, true, R>(isa, item.packet, &end.shape, end.v);
    let blocks = hash_input::<I, false, true, true, R>(isa, item, &end.shape, &data);
    let mut hash = Hash::<I, R, true>::new(isa, &item.tables.powers, Some(end.carry), blocks);
    let [out] = encrypt::<I, _, ROUNDS, 1, R>(isa, [item.tables], [end.counters], &[data], &mut hash);
    store::<I, false, true, R>(isa, item.packet, &end.shape, end.v, &out);
    isa.tag(hash.sum, end.mask)
}

/// One packet, with the number of rounds still to be looked up.
pub(crate) struct OpenOne<'i, 'a> {
    pub(crate) item: &'i mut Item<'a>,
    pub(crate) rounds: usize,
}

impl Task for OpenOne<'_, '_> {
    type Out = [u8; 16];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [u8; 16] {
        match self.rounds {
            10 => open_one::<I, 10>(isa, self.item),
            12 => open_one::<I, 12>(isa, self.item),
            _ => open_one::<I, 14>(isa, self.item),
        }
    }
}
