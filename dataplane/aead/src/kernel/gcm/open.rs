//! Opening: the ciphertext is there from the start, so AES and GHASH of one batch run together.

use std::marker::PhantomData;

use super::{Around, BATCH, Hash, One, Packet, Work, encrypt, load, reversed, start, states, store, vectors};
use crate::kernel::isa::{Isa, Task};
use crate::key::Tables;
use crate::packet::Text;

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
        let mut texts = [Text { start: 0, end: 0 }; N];
        let mut data = [[isa.zero(); R]; N];
        let mut inputs = [[isa.zero(); R]; N];
        let mut received = [isa.lane(isa.zero(), 0); N];
        let mut hashes = [Hash::<I, R, true>::new(isa, &tables[0].powers, None, data[0]); N];
        for n in 0..N {
            tables[n] = packets[n].tables();
            let item = packets[n].item();
            texts[n] = item.text;
            let around = Around::new(&item);
            let start = start(isa, tables[n], item.salt, item.iv);
            let window = isa.window(item.packet, item.text, R);
            data[n] = load::<I, true, true, R>(isa, &window, around, 0);
            inputs[n] = states(isa, &window, start, 0);
            // Now, since a load behind a masked store of the same vector would wait for that to leave the core.
            received[n] = isa.icv(&window);
            hashes[n] = Hash::new(isa, &tables[n].powers, None, reversed(isa, &data[n]));
        }
        let work = Work { tables, states: inputs, data: &data };
        let (out, streams) = encrypt::<I, _, ROUNDS, true, N, R>(isa, work, &mut hashes);
        let mut outs = [P::Out::default(); N];
        for n in 0..N {
            let mut window = isa.window(packets[n].packet(), texts[n], R);
            store::<I, true, true, R>(isa, &mut window, 0, &out[n]);
            let tag = isa.tag(hashes[n].sum, isa.lane(streams[n], isa.pad(&window)));
            outs[n] = P::finish(isa, &mut window, tag, received[n]);
        }
        outs
    }
}

/// Opens one packet of any length.
#[inline(always)]
pub(crate) fn open_one<'k, I: Isa, P: Packet<'k>, const ROUNDS: usize>(
    isa: I,
    packet: &mut P,
    len: usize,
) -> P::Out {
    let [out] = match vectors::<I>(len) {
        1 => isa.enter(OpenGroup::<_, ROUNDS, 1, 1>::new([packet])),
        2 => isa.enter(OpenGroup::<_, ROUNDS, 1, 2>::new([packet])),
        3 => isa.enter(OpenGroup::<_, ROUNDS, 1, 3>::new([packet])),
        4 => isa.enter(OpenGroup::<_, ROUNDS, 1, 4>::new([packet])),
        _ => [isa.enter(OpenLong::<_, ROUNDS> { packet, keys: PhantomData })],
    };
    out
}

/// One packet of more vectors than make a group.
pub(crate) struct OpenLong<'i, 'k, P, const ROUNDS: usize> {
    packet: &'i mut P,
    keys: PhantomData<&'k Tables>,
}

impl<'k, P: Packet<'k>, const ROUNDS: usize> Task for OpenLong<'_, 'k, P, ROUNDS> {
    type Out = P::Out;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> P::Out {
        let tables = self.packet.tables();
        let item = self.packet.item();
        let around = Around::new(&item);
        let start = start(isa, tables, item.salt, item.iv);
        let vectors = vectors::<I>(item.text.end - item.text.start);
        let mut window = isa.window(item.packet, item.text, vectors);
        let received = isa.icv(&window);
        let tag = open_long::<I, ROUNDS>(isa, &mut window, tables, start, around, vectors);
        P::finish(isa, &mut window, tag, received)
    }
}

#[inline(always)]
fn open_long<I: Isa, const ROUNDS: usize>(
    isa: I,
    window: &mut I::Window<'_>,
    tables: &Tables,
    start: I::V,
    around: Around,
    vectors: usize,
) -> I::Block {
    let data = load::<I, true, false, BATCH>(isa, window, around, 0);
    let mut hash = Hash::<I, BATCH, false>::new(isa, &tables.powers, None, reversed(isa, &data));
    let work = Work { tables: [tables], states: [states(isa, window, start, 0)], data: &[data] };
    let ([out], [stream]) = encrypt::<I, _, ROUNDS, true, 1, BATCH>(isa, work, &mut hash);
    store::<I, true, false, BATCH>(isa, window, 0, &out);
    let mask = isa.lane(stream, isa.pad(window));
    let mut carry = isa.reduce(hash.sum);
    let mut v = BATCH;
    while vectors - v > BATCH {
        let data = load::<I, false, false, BATCH>(isa, window, around, v);
        let mut hash = Hash::<I, BATCH, false>::new(isa, &tables.powers, Some(carry), reversed(isa, &data));
        let work = Work { tables: [tables], states: [states(isa, window, start, v)], data: &[data] };
        let ([out], _) = encrypt::<I, _, ROUNDS, false, 1, BATCH>(isa, work, &mut hash);
        carry = isa.reduce(hash.sum);
        store::<I, false, false, BATCH>(isa, window, v, &out);
        v += BATCH;
    }
    let end = End { tables, around, start, v, carry, mask };
    match vectors - v {
        1 => last::<I, ROUNDS, 1>(isa, window, &end),
        2 => last::<I, ROUNDS, 2>(isa, window, &end),
        3 => last::<I, ROUNDS, 3>(isa, window, &end),
        _ => last::<I, ROUNDS, 4>(isa, window, &end),
    }
}

/// Where the last batch of a packet stands.
struct End<'k, I: Isa> {
    tables: &'k Tables,
    around: Around,
    start: I::V,
    v: usize,
    /// The hash of all before.
    carry: I::V,
    /// E(J0).
    mask: I::Block,
}

/// The last `R` vectors; the tag.
#[inline(always)]
fn last<I: Isa, const ROUNDS: usize, const R: usize>(
    isa: I,
    window: &mut I::Window<'_>,
    end: &End<'_, I>,
) -> I::Block {
    let &End { tables, around, start, v, carry, mask } = end;
    let data = load::<I, false, true, R>(isa, window, around, v);
    let mut hash = Hash::<I, R, true>::new(isa, &tables.powers, Some(carry), reversed(isa, &data));
    let work = Work { tables: [tables], states: [states(isa, window, start, v)], data: &[data] };
    let ([out], _) = encrypt::<I, _, ROUNDS, false, 1, R>(isa, work, &mut hash);
    store::<I, false, true, R>(isa, window, v, &out);
    isa.tag(hash.sum, mask)
}

/// One item, with the number of rounds still to be looked up; the tag that it ought to have.
pub(crate) struct OpenOne<'i, 'a> {
    pub(crate) one: &'i mut One<'a>,
    pub(crate) rounds: usize,
}

impl Task for OpenOne<'_, '_> {
    type Out = [u8; 16];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [u8; 16] {
        let len = self.one.item.text.end - self.one.item.text.start;
        match self.rounds {
            10 => open_one::<I, _, 10>(isa, self.one, len),
            12 => open_one::<I, _, 12>(isa, self.one, len),
            _ => open_one::<I, _, 14>(isa, self.one, len),
        }
    }
}
