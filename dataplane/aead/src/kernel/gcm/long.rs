//! Packets of more vectors than run side by side, a batch of vectors at a time. Sealing has GHASH a batch behind AES,
//! since it needs the ciphertext; opening has the ciphertext from the start and hashes the batch that it decrypts.

use std::marker::PhantomData;

use super::hash::{Hash, Idle};
use super::rounds::{Keys, Work, encrypt};
use super::{Ahead, Around, BATCH, Jobs, Packet, hash_input, load, reversed, start, states, store, vectors};
use crate::kernel::isa::{Isa, Task};
use crate::key::Tables;

/// Packets of more than [`BATCH`] vectors, one after the other.
pub(crate) struct Long<'j, 'k, P: Packet<'k>, const ROUNDS: usize> {
    jobs: &'j mut [P],
    outs: &'j mut [P::Out],
    class: Jobs,
    many_keys: bool,
    keys: PhantomData<&'k Tables>,
}

impl<'j, 'k, P: Packet<'k>, const ROUNDS: usize> Long<'j, 'k, P, ROUNDS> {
    /// Of these jobs those in `class`.
    #[inline(always)]
    pub(crate) fn new(jobs: &'j mut [P], outs: &'j mut [P::Out], class: Jobs, many_keys: bool) -> Self {
        Self { jobs, outs, class, many_keys, keys: PhantomData }
    }
}

impl<'k, P: Packet<'k>, const ROUNDS: usize> Task for Long<'_, 'k, P, ROUNDS> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { jobs, outs, class, many_keys, .. } = self;
        let mut ahead = Ahead::new::<P, ROUNDS>(jobs, &class, many_keys);
        for index in class {
            ahead.step::<P, ROUNDS>(jobs);
            outs[index] = one::<I, P, ROUNDS>(isa, &mut jobs[index]);
        }
    }
}

#[inline(always)]
fn one<'k, I: Isa, P: Packet<'k>, const ROUNDS: usize>(isa: I, packet: &mut P) -> P::Out {
    let tables = packet.tables();
    let form = packet.form();
    let item = packet.item(form);
    let around = Around::new(&item);
    let vectors = vectors::<I>(form.text.end - form.text.start);
    let mut window = isa.window(item.packet, &isa.frame(form, vectors));
    let start = start(isa, &window, around.beside, isa.broadcast(&tables.round_keys[0]));
    let received = isa.icv(&window);
    let mut powers = [isa.stride_power(&tables.powers, 1); BATCH];
    for (j, power) in powers.iter_mut().enumerate() {
        *power = isa.stride_power(&tables.powers, BATCH - j);
    }
    let keys = Keys::hold::<ROUNDS>(isa, tables);
    let text = Pass { tables, keys, around, start, vectors, powers };
    let tag = if P::SEALS {
        seal::<I, ROUNDS>(isa, &mut window, &text)
    } else {
        open::<I, ROUNDS>(isa, &mut window, &text)
    };
    let out = P::finish(isa, &mut window, tag, received);
    if P::refused(out) {
        isa.wipe(&mut window);
    }
    out
}

/// What stays the same over a packet.
struct Pass<'k, I: Isa> {
    tables: &'k Tables,
    keys: Keys<'k, I>,
    around: Around,
    start: I::V,
    vectors: usize,
    /// Those of a batch that others follow.
    powers: [I::Power; BATCH],
}

impl<'k, I: Isa> Pass<'k, I> {
    /// AES's work on the `R` vectors from `v` on.
    #[inline(always)]
    fn work<'d, const R: usize>(
        &self,
        isa: I,
        window: &I::Window<'_>,
        v: usize,
        data: &'d [I::V; R],
    ) -> Work<'k, 'd, I, R> {
        Work { keys: self.keys, states: states(isa, window, self.start, v), data }
    }

    /// GHASH of a batch that others follow.
    #[inline(always)]
    fn hash(&self, isa: I, carry: Option<I::V>, blocks: [I::V; BATCH]) -> Hash<I, BATCH> {
        Hash::new(isa, self.powers, carry, blocks)
    }
}

#[inline(always)]
fn seal<I: Isa, const ROUNDS: usize>(isa: I, window: &mut I::Window<'_>, pass: &Pass<'_, I>) -> I::Block {
    let data = load::<I, true, false, BATCH>(isa, window, pass.around, isa.zero(), 0);
    let work = pass.work(isa, window, 0, &data);
    let (out, stream) = encrypt::<I, Idle, ROUNDS, true, BATCH>(isa, work, &mut Idle);
    store::<I, true, false, BATCH>(isa, window, 0, &out);
    let mask = isa.lane(stream, isa.pad(window));
    let mut pending = hash_input::<I, true, false, BATCH>(isa, window, &out, &data);
    let mut carry = None;
    let mut v = BATCH;
    while pass.vectors - v > BATCH {
        let mut hash = pass.hash(isa, carry, pending);
        let data = load::<I, false, false, BATCH>(isa, window, pass.around, isa.zero(), v);
        let work = pass.work(isa, window, v, &data);
        let (out, _) = encrypt::<I, _, ROUNDS, false, BATCH>(isa, work, &mut hash);
        carry = Some(isa.reduce(hash.sum));
        store::<I, false, false, BATCH>(isa, window, v, &out);
        pending = hash_input::<I, false, false, BATCH>(isa, window, &out, &data);
        v += BATCH;
    }
    let hash = pass.hash(isa, carry, pending);
    let sum = match pass.vectors - v {
        1 => seal_last::<I, ROUNDS, 1>(isa, window, pass, v, hash),
        2 => seal_last::<I, ROUNDS, 2>(isa, window, pass, v, hash),
        3 => seal_last::<I, ROUNDS, 3>(isa, window, pass, v, hash),
        _ => seal_last::<I, ROUNDS, 4>(isa, window, pass, v, hash),
    };
    isa.tag(isa.reduce(sum), mask)
}

/// The last `R` vectors, with the batch before them still to be hashed.
#[inline(always)]
fn seal_last<I: Isa, const ROUNDS: usize, const R: usize>(
    isa: I,
    window: &mut I::Window<'_>,
    pass: &Pass<'_, I>,
    v: usize,
    mut hash: Hash<I, BATCH>,
) -> I::Sum {
    let data = load::<I, false, true, R>(isa, window, pass.around, pass.around.lengths(isa), v);
    let work = pass.work(isa, window, v, &data);
    let (out, _) = encrypt::<I, _, ROUNDS, false, R>(isa, work, &mut hash);
    store::<I, false, true, R>(isa, window, v, &out);
    let carry = isa.reduce(hash.sum);
    let blocks = hash_input::<I, false, true, R>(isa, window, &out, &data);
    let mut hash = Hash::last(isa, &pass.tables.powers, Some(carry), blocks);
    hash.all(isa);
    hash.sum
}

#[inline(always)]
fn open<I: Isa, const ROUNDS: usize>(isa: I, window: &mut I::Window<'_>, pass: &Pass<'_, I>) -> I::Block {
    let data = load::<I, true, false, BATCH>(isa, window, pass.around, isa.zero(), 0);
    let mut hash = pass.hash(isa, None, reversed(isa, &data));
    let work = pass.work(isa, window, 0, &data);
    let (out, stream) = encrypt::<I, _, ROUNDS, true, BATCH>(isa, work, &mut hash);
    store::<I, true, false, BATCH>(isa, window, 0, &out);
    let mask = isa.lane(stream, isa.pad(window));
    let mut carry = isa.reduce(hash.sum);
    let mut v = BATCH;
    while pass.vectors - v > BATCH {
        let data = load::<I, false, false, BATCH>(isa, window, pass.around, isa.zero(), v);
        let mut hash = pass.hash(isa, Some(carry), reversed(isa, &data));
        let work = pass.work(isa, window, v, &data);
        let (out, _) = encrypt::<I, _, ROUNDS, false, BATCH>(isa, work, &mut hash);
        carry = isa.reduce(hash.sum);
        store::<I, false, false, BATCH>(isa, window, v, &out);
        v += BATCH;
    }
    let sum = match pass.vectors - v {
        1 => open_last::<I, ROUNDS, 1>(isa, window, pass, v, carry),
        2 => open_last::<I, ROUNDS, 2>(isa, window, pass, v, carry),
        3 => open_last::<I, ROUNDS, 3>(isa, window, pass, v, carry),
        _ => open_last::<I, ROUNDS, 4>(isa, window, pass, v, carry),
    };
    isa.tag(isa.reduce(sum), mask)
}

/// The last `R` vectors.
#[inline(always)]
fn open_last<I: Isa, const ROUNDS: usize, const R: usize>(
    isa: I,
    window: &mut I::Window<'_>,
    pass: &Pass<'_, I>,
    v: usize,
    carry: I::V,
) -> I::Sum {
    let data = load::<I, false, true, R>(isa, window, pass.around, pass.around.lengths(isa), v);
    let mut hash = Hash::last(isa, &pass.tables.powers, Some(carry), reversed(isa, &data));
    let work = pass.work(isa, window, v, &data);
    let (out, _) = encrypt::<I, _, ROUNDS, false, R>(isa, work, &mut hash);
    store::<I, false, true, R>(isa, window, v, &out);
    hash.sum
}
