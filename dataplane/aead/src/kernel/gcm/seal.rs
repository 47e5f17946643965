//! Sealing: GHASH runs one batch behind AES, since it needs the ciphertext.

use std::marker::PhantomData;

use super::{
    Around, BATCH, Hash, Idle, One, Packet, Work, encrypt, hash_input, load, start, states, store, vectors,
};
use crate::kernel::isa::{Isa, Task};
use crate::key::Tables;
use crate::packet::Text;

/// Seals `N` packets of `R` vectors each, side by side.
pub(crate) struct SealGroup<'p, 'k, P, const ROUNDS: usize, const N: usize, const R: usize> {
    packets: [&'p mut P; N],
    keys: PhantomData<&'k Tables>,
}

impl<'p, 'k, P: Packet<'k>, const ROUNDS: usize, const N: usize, const R: usize>
    SealGroup<'p, 'k, P, ROUNDS, N, R>
{
    /// Of these.
    #[inline(always)]
    pub(crate) fn new(packets: [&'p mut P; N]) -> Self {
        Self { packets, keys: PhantomData }
    }
}

impl<'k, P: Packet<'k>, const ROUNDS: usize, const N: usize, const R: usize> Task
    for SealGroup<'_, 'k, P, ROUNDS, N, R>
{
    type Out = [P::Out; N];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [P::Out; N] {
        let packets = self.packets;
        let mut tables = [packets[0].tables(); N];
        let mut texts = [Text { start: 0, end: 0 }; N];
        let mut data = [[isa.zero(); R]; N];
        let mut inputs = [[isa.zero(); R]; N];
        for n in 0..N {
            tables[n] = packets[n].tables();
            let item = packets[n].item();
            texts[n] = item.text;
            let around = Around::new(&item);
            let start = start(isa, tables[n], item.salt, item.iv);
            let window = isa.window(item.packet, item.text, R);
            data[n] = load::<I, true, true, R>(isa, &window, around, 0);
            inputs[n] = states(isa, &window, start, 0);
        }
        let work = Work { tables, states: inputs, data: &data };
        let (out, streams) = encrypt::<I, Idle, ROUNDS, true, N, R>(isa, work, &mut Idle);
        let mut outs = [P::Out::default(); N];
        for n in 0..N {
            let mut window = isa.window(packets[n].packet(), texts[n], R);
            store::<I, true, true, R>(isa, &mut window, 0, &out[n]);
            let blocks = hash_input::<I, true, true, R>(isa, &window, &out[n], &data[n]);
            let sum = Hash::<I, R, true>::new(isa, &tables[n].powers, None, blocks).all(isa);
            let tag = isa.tag(sum, isa.lane(streams[n], isa.pad(&window)));
            outs[n] = P::finish(isa, &mut window, tag, tag);
        }
        outs
    }
}

/// Seals one packet of any length.
#[inline(always)]
pub(crate) fn seal_one<'k, I: Isa, P: Packet<'k>, const ROUNDS: usize>(
    isa: I,
    packet: &mut P,
    len: usize,
) -> P::Out {
    let [out] = match vectors::<I>(len) {
        1 => isa.enter(SealGroup::<_, ROUNDS, 1, 1>::new([packet])),
        2 => isa.enter(SealGroup::<_, ROUNDS, 1, 2>::new([packet])),
        3 => isa.enter(SealGroup::<_, ROUNDS, 1, 3>::new([packet])),
        4 => isa.enter(SealGroup::<_, ROUNDS, 1, 4>::new([packet])),
        _ => [isa.enter(SealLong::<_, ROUNDS> { packet, keys: PhantomData })],
    };
    out
}

/// One packet of more vectors than make a group.
pub(crate) struct SealLong<'i, 'k, P, const ROUNDS: usize> {
    packet: &'i mut P,
    keys: PhantomData<&'k Tables>,
}

impl<'k, P: Packet<'k>, const ROUNDS: usize> Task for SealLong<'_, 'k, P, ROUNDS> {
    type Out = P::Out;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> P::Out {
        let tables = self.packet.tables();
        let item = self.packet.item();
        let around = Around::new(&item);
        let start = start(isa, tables, item.salt, item.iv);
        let vectors = vectors::<I>(item.text.end - item.text.start);
        let mut window = isa.window(item.packet, item.text, vectors);
        let tag = seal_long::<I, ROUNDS>(isa, &mut window, tables, start, around, vectors);
        P::finish(isa, &mut window, tag, tag)
    }
}

#[inline(always)]
fn seal_long<I: Isa, const ROUNDS: usize>(
    isa: I,
    window: &mut I::Window<'_>,
    tables: &Tables,
    start: I::V,
    around: Around,
    vectors: usize,
) -> I::Block {
    let data = load::<I, true, false, BATCH>(isa, window, around, 0);
    let work = Work { tables: [tables], states: [states(isa, window, start, 0)], data: &[data] };
    let ([out], [stream]) = encrypt::<I, Idle, ROUNDS, true, 1, BATCH>(isa, work, &mut Idle);
    store::<I, true, false, BATCH>(isa, window, 0, &out);
    let mask = isa.lane(stream, isa.pad(window));
    let mut pending = hash_input::<I, true, false, BATCH>(isa, window, &out, &data);
    let mut carry = None;
    let mut v = BATCH;
    while vectors - v > BATCH {
        let mut hash = Hash::<I, BATCH, false>::new(isa, &tables.powers, carry, pending);
        let data = load::<I, false, false, BATCH>(isa, window, around, v);
        let work = Work { tables: [tables], states: [states(isa, window, start, v)], data: &[data] };
        let ([out], _) = encrypt::<I, _, ROUNDS, false, 1, BATCH>(isa, work, &mut hash);
        carry = Some(isa.reduce(hash.sum));
        store::<I, false, false, BATCH>(isa, window, v, &out);
        pending = hash_input::<I, false, false, BATCH>(isa, window, &out, &data);
        v += BATCH;
    }
    let hash = Hash::<I, BATCH, false>::new(isa, &tables.powers, carry, pending);
    let end = End { tables, around, start, v, mask };
    match vectors - v {
        1 => last::<I, ROUNDS, 1>(isa, window, &end, hash),
        2 => last::<I, ROUNDS, 2>(isa, window, &end, hash),
        3 => last::<I, ROUNDS, 3>(isa, window, &end, hash),
        _ => last::<I, ROUNDS, 4>(isa, window, &end, hash),
    }
}

/// Where the last batch of a packet stands.
struct End<'k, I: Isa> {
    tables: &'k Tables,
    around: Around,
    start: I::V,
    v: usize,
    /// E(J0).
    mask: I::Block,
}

/// The last `R` vectors, with the batch before them still to be hashed; the tag.
#[inline(always)]
fn last<I: Isa, const ROUNDS: usize, const R: usize>(
    isa: I,
    window: &mut I::Window<'_>,
    end: &End<'_, I>,
    mut hash: Hash<'_, I, BATCH, false>,
) -> I::Block {
    let &End { tables, around, start, v, mask } = end;
    let data = load::<I, false, true, R>(isa, window, around, v);
    let work = Work { tables: [tables], states: [states(isa, window, start, v)], data: &[data] };
    let ([out], _) = encrypt::<I, _, ROUNDS, false, 1, R>(isa, work, &mut hash);
    store::<I, false, true, R>(isa, window, v, &out);
    let carry = isa.reduce(hash.sum);
    let blocks = hash_input::<I, false, true, R>(isa, window, &out, &data);
    let sum = Hash::<I, R, true>::new(isa, &tables.powers, Some(carry), blocks).all(isa);
    isa.tag(sum, mask)
}

/// One item, with the number of rounds still to be looked up; its tag.
pub(crate) struct SealOne<'i, 'a> {
    pub(crate) one: &'i mut One<'a>,
    pub(crate) rounds: usize,
}

impl Task for SealOne<'_, '_> {
    type Out = [u8; 16];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [u8; 16] {
        let len = self.one.item.text.end - self.one.item.text.start;
        match self.rounds {
            10 => seal_one::<I, _, 10>(isa, self.one, len),
            12 => seal_one::<I, _, 12>(isa, self.one, len),
            _ => seal_one::<I, _, 14>(isa, self.one, len),
        }
    }
}
