//! Packets of few vectors: all of them at once in registers, opening with GHASH between the rounds of AES.

use std::marker::PhantomData;

use super::{
    Ahead, Around, Hash, Idle, Jobs, Keys, Packet, Work, encrypt, hash_input, load, reversed, start, states,
    store,
};
use crate::burst::BURST;
use crate::kernel::isa::{Isa, Task};
use crate::key::Tables;
use crate::packet::Form;

/// Packets of `R` vectors each.
pub(crate) struct Short<'j, 'k, P: Packet<'k>, const ROUNDS: usize, const R: usize> {
    jobs: &'j mut [P],
    outs: &'j mut [P::Out],
    class: Jobs,
    /// A number for each job, by the length of its packet.
    lengths: &'j [u8; BURST],
    many_keys: bool,
    keys: PhantomData<&'k Tables>,
}

impl<'j, 'k, P: Packet<'k>, const ROUNDS: usize, const R: usize> Short<'j, 'k, P, ROUNDS, R> {
    /// Of these jobs those in `class`.
    #[inline(always)]
    pub(crate) fn new(
        jobs: &'j mut [P],
        outs: &'j mut [P::Out],
        class: Jobs,
        lengths: &'j [u8; BURST],
        many_keys: bool,
    ) -> Self {
        Self { jobs, outs, class, lengths, many_keys, keys: PhantomData }
    }
}

impl<'k, P: Packet<'k>, const ROUNDS: usize, const R: usize> Task for Short<'_, 'k, P, ROUNDS, R> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { jobs, outs, mut class, lengths, many_keys, .. } = self;
        let mut ahead = Ahead::new(jobs, &class, many_keys);
        while let Some(first) = class.first() {
            let form = jobs[first].form();
            for index in class.split_off(isa.equal(lengths, lengths[first])) {
                // Seldom: lengths that differ by much have the same number, and suites differ in more than that.
                if !jobs[index].is_of(&form) {
                    class.put(index);
                    continue;
                }
                ahead.step(jobs);
                outs[index] = one::<I, P, ROUNDS, R>(isa, &mut jobs[index], form);
            }
        }
    }
}

/// One packet. All that follows from its form is found once for the loop of the caller: the compiler moves it there. That the next one's work fills the gaps is left to the core, which looks some hundred instructions
/// ahead: two written side by side were no faster, and need twice the registers.
#[inline(always)]
fn one<'k, I: Isa, P: Packet<'k>, const ROUNDS: usize, const R: usize>(
    isa: I,
    packet: &mut P,
    form: Form,
) -> P::Out {
    let tables = packet.tables();
    let item = packet.item(form);
    let around = Around::new(&item);
    let start = start(isa, &item);
    let mut window = isa.window(item.packet, form, R);
    let data = [load::<I, true, true, R>(isa, &window, around, 0)];
    // Now, since a load behind a masked store of the same vector would wait for that to leave the core.
    let received = if P::SEALS { isa.lane(isa.zero(), 0) } else { isa.icv(&window) };
    let work = Work { keys: [Keys::read(tables)], states: [states(isa, &window, start, 0)], data: &data };
    let mut hash = Hash::<I, R>::last(isa, &tables.powers, None, reversed(isa, &data[0]));
    let ([out], [stream]) = if P::SEALS {
        encrypt::<I, Idle, ROUNDS, true, 1, R>(isa, work, &mut Idle)
    } else {
        encrypt::<I, _, ROUNDS, true, 1, R>(isa, work, &mut hash)
    };
    store::<I, true, true, R>(isa, &mut window, 0, &out);
    if P::SEALS {
        let blocks = hash_input::<I, true, true, R>(isa, &window, &out, &data[0]);
        hash = Hash::last(isa, &tables.powers, None, blocks);
        hash.all(isa);
    }
    let tag = isa.tag_beside(&window, hash.sum, stream);
    let out = P::finish(isa, &mut window, tag, received);
    if P::refused(out) {
        isa.wipe(&mut window);
    }
    out
}
