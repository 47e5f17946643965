//! Opening: the ciphertext is there from the start, so AES and GHASH of one batch run together.

use std::marker::PhantomData;

use super::{BATCH, Hash, Item, One, Packet, Shape, Work, encrypt, load, reversed, start, store, vectors};
use crate::kernel::isa::{Isa, Task};
use crate::key::Tables;

/// Opens `N` packets of `R` vectors each, side by side.
pub(crate) struct OpenGroup<'p, 'k, P, const ROUNDS: usize, const N: usize, const R: usize> {
    packets: [&'p mut P; N],
    keys: PhantomData<&'k Tables>,
}

impl<'p, 'k, P: Packet<'k>, const ROUNDS: usize, const N: usize, const R: usize>
    OpenGroup<'p, 'k, P, ROUNDS, N, R>
{
    /// Of these.
    #[inline(always)]
    pub(crate) fn new(packets: [&'p mut P; N]) -> Self {
        Self { packets, keys: PhantomData }
    }
}

impl<'k, P: Packet<'k>, const ROUNDS: usize, const N: usize, const R: usize> Task
    for OpenGroup<'_, 'k, P, ROUNDS, N, R>
{
    type Out = [P::Out; N];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [P::Out; N] {
        let packets = self.packets;
        let mut tables = [packets[0].tables(); N];
        let mut shapes = [Shape::none(isa); N];
        let mut data = [[isa.zero(); R]; N];
        let mut starts = [isa.zero(); N];
        let mut counters = [0; N];
        let mut hashes = [Hash::<I, R, true>::new(isa, &tables[0].powers, None, data[0]); N];
        for n in 0..N {
            let item = packets[n].item();
            let shape = Shape::new(isa, item.text, R);
            data[n] = load::<I, true, true, R>(isa, &item, &shape, 0);
            starts[n] = start(isa, &item);
            counters[n] = shape.counters(0);
            shapes[n] = shape;
            tables[n] = packets[n].tables();
            hashes[n] = Hash::new(isa, &tables[n].powers, None, reversed(isa, &data[n]));
        }
        let work = Work { tables, start: starts, counters, data: &data };
        let (out, streams) = encrypt::<I, _, ROUNDS, true, N, R>(isa, &work, &mut hashes);
        let mut outs = [P::Out::default(); N];
        for n in 0..N {
            store::<I, true, true, R>(isa, packets[n].packet(), &shapes[n], 0, &out[n]);
            outs[n] = packets[n].finish(isa.tag(hashes[n].sum, isa.lane(streams[n], shapes[n].pad)));
        }
        outs
    }
}

/// Opens one packet of any length.
#[inline(always)]
pub(crate) fn open_one<I: Isa, const ROUNDS: usize>(isa: I, one: &mut One<'_>) {
    match vectors::<I>(one.item.text.end - one.item.text.start) {
        1 => _ = isa.enter(OpenGroup::<_, ROUNDS, 1, 1>::new([one])),
        2 => _ = isa.enter(OpenGroup::<_, ROUNDS, 1, 2>::new([one])),
        3 => _ = isa.enter(OpenGroup::<_, ROUNDS, 1, 3>::new([one])),
        4 => _ = isa.enter(OpenGroup::<_, ROUNDS, 1, 4>::new([one])),
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
    let tables = item.tables;
    let shape = Shape::new(isa, item.text, vectors::<I>(item.text.end - item.text.start));
    let start = start(isa, item);
    let data = load::<I, true, false, BATCH>(isa, item, &shape, 0);
    let mut hash = Hash::<I, BATCH, false>::new(isa, &tables.powers, None, reversed(isa, &data));
    let work = Work { tables: [tables], start: [start], counters: [shape.counters(0)], data: &[data] };
    let ([out], [stream]) = encrypt::<I, _, ROUNDS, true, 1, BATCH>(isa, &work, &mut hash);
    store::<I, true, false, BATCH>(isa, item.packet, &shape, 0, &out);
    let mask = isa.lane(stream, shape.pad);
    let mut carry = isa.reduce(hash.sum);
    let mut v = BATCH;
    while shape.vectors - v > BATCH {
        let data = load::<I, false, false, BATCH>(isa, item, &shape, v);
        let mut hash = Hash::<I, BATCH, false>::new(isa, &tables.powers, Some(carry), reversed(isa, &data));
        let work = Work { tables: [tables], start: [start], counters: [shape.counters(v)], data: &[data] };
        let ([out], _) = encrypt::<I, _, ROUNDS, false, 1, BATCH>(isa, &work, &mut hash);
        carry = isa.reduce(hash.sum);
        store::<I, false, false, BATCH>(isa, item.packet, &shape, v, &out);
        v += BATCH;
    }
    let end = End { shape, v, start, carry, mask };
    match shape.vectors - v {
        1 => last::<I, ROUNDS, 1>(isa, item, &end),
        2 => last::<I, ROUNDS, 2>(isa, item, &end),
        3 => last::<I, ROUNDS, 3>(isa, item, &end),
        _ => last::<I, ROUNDS, 4>(isa, item, &end),
    }
}

/// Where the last batch of a packet stands.
struct End<I: Isa> {
    shape: Shape<I>,
    v: usize,
    start: I::V,
    /// The hash of all before.
    carry: I::V,
    /// E(J0).
    mask: I::Block,
}

/// The last `R` vectors.
#[inline(always)]
fn last<I: Isa, const ROUNDS: usize, const R: usize>(isa: I, item: &mut Item<'_>, end: &End<I>) -> [u8; 16] {
    let End { shape, v, .. } = end;
    let data = load::<I, false, true, R>(isa, item, shape, *v);
    let mut hash = Hash::<I, R, true>::new(isa, &item.tables.powers, Some(end.carry), reversed(isa, &data));
    let work =
        Work { tables: [item.tables], start: [end.start], counters: [shape.counters(*v)], data: &[data] };
    let ([out], _) = encrypt::<I, _, ROUNDS, false, 1, R>(isa, &work, &mut hash);
    store::<I, false, true, R>(isa, item.packet, shape, *v, &out);
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
