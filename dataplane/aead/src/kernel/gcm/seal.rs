//! Sealing: GHASH runs one batch behind AES, since it needs the ciphertext.

use super::{BATCH, Hash, Idle, Item, One, Packets, Shape, encrypt, hash_input, load, store, vectors};
use crate::kernel::isa::{Isa, Task};

/// Seals `N` packets of `R` vectors each, side by side.
pub(crate) struct SealGroup<P, const ROUNDS: usize, const N: usize, const R: usize> {
    pub(crate) packets: P,
}

impl<'k, P: Packets<'k>, const ROUNDS: usize, const N: usize, const R: usize> Task
    for SealGroup<P, ROUNDS, N, R>
{
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let mut tables = [self.packets.tables(0); N];
        let mut shapes = [Shape::NONE; N];
        let mut data = [[isa.zero(); R]; N];
        let mut counters = [isa.zero(); N];
        for n in 0..N {
            tables[n] = self.packets.tables(n);
            let item = self.packets.item(n);
            shapes[n] = Shape::new::<I>(item.text);
            data[n] = load::<I, true, true, R>(isa, item.packet, &shapes[n], 0);
            counters[n] = item.counters(isa, shapes[n].pad);
        }
        let out = encrypt::<I, Idle, ROUNDS, N, R>(isa, tables, counters, &data, &mut Idle);
        for n in 0..N {
            let item = self.packets.item(n);
            store::<I, true, true, R>(isa, item.packet, &shapes[n], 0, &out[n]);
            let blocks = hash_input::<I, true, true, false, R>(isa, &item, &shapes[n], &out[n]);
            let sum = Hash::<I, R, true>::new(isa, &item.tables.powers, None, blocks).all(isa);
            let tag = isa.tag(sum, isa.lane(out[n][0], shapes[n].pad));
            self.packets.finish(n, tag);
        }
    }
}

/// Seals one packet of any length.
#[inline(always)]
pub(crate) fn seal_one<I: Isa, const ROUNDS: usize>(isa: I, one: &mut One<'_>) {
    match vectors::<I>(one.item.text.end - one.item.text.start) {
        1 => isa.enter(SealGroup::<_, ROUNDS, 1, 1> { packets: one }),
        2 => isa.enter(SealGroup::<_, ROUNDS, 1, 2> { packets: one }),
        3 => isa.enter(SealGroup::<_, ROUNDS, 1, 3> { packets: one }),
        4 => isa.enter(SealGroup::<_, ROUNDS, 1, 4> { packets: one }),
        _ => isa.enter(SealLong::<ROUNDS> { one }),
    }
}

/// One packet of more vectors than make a group.
pub(crate) struct SealLong<'i, 'a, const ROUNDS: usize> {
    one: &'i mut One<'a>,
}

impl<const ROUNDS: usize> Task for SealLong<'_, '_, ROUNDS> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.one.tag = seal_long::<I, ROUNDS>(isa, &mut self.one.item);
    }
}

#[inline(always)]
fn seal_long<I: Isa, const ROUNDS: usize>(isa: I, item: &mut Item<'_>) -> [u8; 16] {
    let shape = Shape::new::<I>(item.text);
    let tables = item.tables;
    let mut counters = item.counters(isa, shape.pad);
    let data = load::<I, true, false, BATCH>(isa, item.packet, &shape, 0);
    let [out] = encrypt::<I, Idle, ROUNDS, 1, BATCH>(isa, [tables], [counters], &[data], &mut Idle);
    store::<I, true, false, BATCH>(isa, item.packet, &shape, 0, &out);
    let mask = isa.lane(out[0], shape.pad);
    let mut pending = hash_input::<I, true, false, false, BATCH>(isa, item, &shape, &out);
    let mut carry = None;
    let mut v = BATCH;
    while shape.vectors - v > BATCH {
        counters = next::<I>(isa, counters);
        let mut hash = Hash::<I, BATCH, false>::new(isa, &tables.powers, carry, pending);
        let data = load::<I, false, false, BATCH>(isa, item.packet, &shape, v);
        let [out] = encrypt::<I, _, ROUNDS, 1, BATCH>(isa, [tables], [counters], &[data], &mut hash);
        carry = Some(isa.reduce(hash.sum));
        store::<I, false, false, BATCH>(isa, item.packet, &shape, v, &out);
        pending = hash_input::<I, false, false, false, BATCH>(isa, item, &shape, &out);
        v += BATCH;
    }
    counters = next::<I>(isa, counters);
    let hash = Hash::<I, BATCH, false>::new(isa, &tables.powers, carry, pending);
    let end = End { shape, v, counters, mask };
    match shape.vectors - v {
        1 => last::<I, ROUNDS, 1>(isa, item, &end, hash),
        2 => last::<I, ROUNDS, 2>(isa, item, &end, hash),
        3 => last::<I, ROUNDS, 3>(isa, item, &end, hash),
        _ => last::<I, ROUNDS, 4>(isa, item, &end, hash),
    }
}

/// The counters of the next batch.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most 16 blocks")]
pub(super) fn next<I: Isa>(isa: I, counters: I::V) -> I::V {
    isa.add_counter(counters, (BATCH * I::LANES) as u32)
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
fn last<I: Isa, const ROUNDS: usize, const R: usize>(
    isa: I,
    item: &mut Item<'_>,
    end: &End<I>,
    mut hash: Hash<'_, I, BATCH, false>,
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
    pub(crate) one: &'i mut One<'a>,
    pub(crate) rounds: usize,
}

impl Task for SealOne<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.rounds {
            10 => seal_one::<I, 10>(isa, self.one),
            12 => seal_one::<I, 12>(isa, self.one),
            _ => seal_one::<I, 14>(isa, self.one),
        }
    }
}
