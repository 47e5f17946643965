//! Opening: the ciphertext is there from the start, so AES and GHASH of one batch run together.

use super::seal::next;
use super::{BATCH, Hash, Item, One, Packets, Shape, encrypt, hash_input, load, store, vectors};
use crate::kernel::isa::{Isa, Task};

/// Opens `N` packets of `R` vectors each, side by side.
pub(crate) struct OpenGroup<P, const ROUNDS: usize, const N: usize, const R: usize> {
    pub(crate) packets: P,
}

impl<'k, P: Packets<'k>, const ROUNDS: usize, const N: usize, const R: usize> Task
    for OpenGroup<P, ROUNDS, N, R>
{
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let mut tables = [self.packets.tables(0); N];
        let mut shapes = [Shape::NONE; N];
        let mut data = [[isa.zero(); R]; N];
        let mut counters = [isa.zero(); N];
        let mut hashes = [Hash::<I, R, true>::new(isa, &tables[0].powers, None, data[0]); N];
        for n in 0..N {
            tables[n] = self.packets.tables(n);
            let item = self.packets.item(n);
            shapes[n] = Shape::new::<I>(item.text);
            data[n] = load::<I, true, true, R>(isa, item.packet, &shapes[n], 0);
            counters[n] = item.counters(isa, shapes[n].pad);
            let blocks = hash_input::<I, true, true, true, R>(isa, &item, &shapes[n], &data[n]);
            hashes[n] = Hash::new(isa, &tables[n].powers, None, blocks);
        }
        let out = encrypt::<I, _, ROUNDS, N, R>(isa, tables, counters, &data, &mut hashes);
        for n in 0..N {
            let item = self.packets.item(n);
            store::<I, true, true, R>(isa, item.packet, &shapes[n], 0, &out[n]);
            let tag = isa.tag(hashes[n].sum, isa.lane(out[n][0], shapes[n].pad));
            self.packets.finish(n, tag);
        }
    }
}

/// Opens one packet of any length.
#[inline(always)]
pub(crate) fn open_one<I: Isa, const ROUNDS: usize>(isa: I, one: &mut One<'_>) {
    match vectors::<I>(one.item.text.end - one.item.text.start) {
        1 => isa.enter(OpenGroup::<_, ROUNDS, 1, 1> { packets: one }),
        2 => isa.enter(OpenGroup::<_, ROUNDS, 1, 2> { packets: one }),
        3 => isa.enter(OpenGroup::<_, ROUNDS, 1, 3> { packets: one }),
        4 => isa.enter(OpenGroup::<_, ROUNDS, 1, 4> { packets: one }),
        _ => isa.enter(OpenLong::<ROUNDS> { one }),
    }
}

/// One packet of more vectors than make a group.
pub(crate) struct OpenLong<'i, 'a, const ROUNDS: usize> {
    one: &'i mut One<'a>,
}

impl<const ROUNDS: usize> Task for OpenLong<'_, '_, ROUNDS> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.one.tag = open_long::<I, ROUNDS>(isa, &mut self.one.item);
    }
}

#[inline(always)]
fn open_long<I: Isa, const ROUNDS: usize>(isa: I, item: &mut Item<'_>) -> [u8; 16] {
    let shape = Shape::new::<I>(item.text);
    let tables = item.tables;
    let mut counters = item.counters(isa, shape.pad);
    let data = load::<I, true, false, BATCH>(isa, item.packet, &shape, 0);
    let blocks = hash_input::<I, true, false, true, BATCH>(isa, item, &shape, &data);
    let mut hash = Hash::<I, BATCH, false>::new(isa, &tables.powers, None, blocks);
    let [out] = encrypt::<I, _, ROUNDS, 1, BATCH>(isa, [tables], [counters], &[data], &mut hash);
    store::<I, true, false, BATCH>(isa, item.packet, &shape, 0, &out);
    let mask = isa.lane(out[0], shape.pad);
    let mut carry = isa.reduce(hash.sum);
    let mut v = BATCH;
    while shape.vectors - v > BATCH {
        counters = next::<I>(isa, counters);
        let data = load::<I, false, false, BATCH>(isa, item.packet, &shape, v);
        let blocks = hash_input::<I, false, false, true, BATCH>(isa, item, &shape, &data);
        let mut hash = Hash::<I, BATCH, false>::new(isa, &tables.powers, Some(carry), blocks);
        let [out] = encrypt::<I, _, ROUNDS, 1, BATCH>(isa, [tables], [counters], &[data], &mut hash);
        carry = isa.reduce(hash.sum);
        store::<I, false, false, BATCH>(isa, item.packet, &shape, v, &out);
        v += BATCH;
    }
    counters = next::<I>(isa, counters);
    let end = End { shape, v, counters, carry, mask };
    match shape.vectors - v {
        1 => last::<I, ROUNDS, 1>(isa, item, &end),
        2 => last::<I, ROUNDS, 2>(isa, item, &end),
        3 => last::<I, ROUNDS, 3>(isa, item, &end),
        _ => last::<I, ROUNDS, 4>(isa, item, &end),
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
    pub(crate) one: &'i mut One<'a>,
    pub(crate) rounds: usize,
}

impl Task for OpenOne<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.rounds {
            10 => open_one::<I, 10>(isa, self.one),
            12 => open_one::<I, 12>(isa, self.one),
            _ => open_one::<I, 14>(isa, self.one),
        }
    }
}
