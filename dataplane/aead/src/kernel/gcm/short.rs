//! Packets of few vectors: all vectors of a packet in registers at once.
//!
//! AES of a packet has GHASH of the one before between its rounds, and that one's tag comes another turn later. A short
//! packet is one long chain of instructions that wait for each other; cores look ahead far enough for one such chain and
//! a half, so chains that have nothing to do with each other must lie side by side in the program.

use std::marker::PhantomData;

use super::hash::Side;
use super::rounds::{Keys, Work, encrypt};
use super::{Ahead, Around, BATCH, Jobs, Packet, hash_input, load, reversed, start, states, store};
use crate::burst::BURST;
use crate::kernel::isa::{Isa, Task};
use crate::key::{POWERS, Tables};
use crate::packet::Form;

/// Packets of `R` vectors each.
pub(crate) struct Short<'j, 'k, P: Packet<'k>, const ROUNDS: usize, const R: usize> {
    jobs: &'j mut [P],
    outs: &'j mut [P::Out],
    class: Jobs,
    /// A number for each job, which tells lengths apart where all keys are of one kind.
    lengths: &'j [u8; BURST],
    many_keys: bool,
    many_kinds: bool,
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
        (many_keys, many_kinds): (bool, bool),
    ) -> Self {
        Self { jobs, outs, class, lengths, many_keys, many_kinds, keys: PhantomData }
    }
}

impl<'k, P: Packet<'k>, const ROUNDS: usize, const R: usize> Task for Short<'_, 'k, P, ROUNDS, R> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let mut ahead = Ahead::new(self.jobs, &self.class, self.many_keys);
        while let Some(first) = self.class.first() {
            let form = self.jobs[first].form();
            let mut same = self.class.split_off(isa.equal(self.lengths, self.lengths[first]));
            if self.many_kinds {
                for index in same.clone() {
                    if !self.jobs[index].is_of(&form) {
                        same.remove(index);
                        self.class.put(index);
                    }
                }
            }
            if P::ESP && form.is_sent() {
                self.run_form::<I, true>(isa, form, same, &mut ahead);
            } else {
                self.run_form::<I, false>(isa, form, same, &mut ahead);
            }
        }
    }
}

impl<'k, P: Packet<'k>, const ROUNDS: usize, const R: usize> Short<'_, 'k, P, ROUNDS, R> {
    /// Jobs of this form; `SENT` is [`Form::is_sent`]. All that follows from the form is found before the loops, whose
    /// every instruction counts.
    #[inline(always)]
    fn run_form<I: Isa, const SENT: bool>(&mut self, isa: I, form: Form, same: Jobs, ahead: &mut Ahead) {
        let (sent, lengths) = if SENT {
            let around = Around::sent(form);
            (Some(around), around.lengths(isa))
        } else {
            (None, isa.zero())
        };
        let common = Common { form, frame: isa.frame(form, R), sent, lengths };
        let mut hashing = Hashing::nothing(isa);
        let mut hashed = hashing.hashed();
        for place in same {
            ahead.step(self.jobs);
            let next = advance::<I, P, ROUNDS, R>(isa, place, &mut self.jobs[place], &common, &mut hashing);
            self.finish(isa, &common, &hashed);
            hashed = next;
        }
        self.finish(isa, &common, &hashed);
        self.finish(isa, &common, &hashing.rest(isa));
    }

    /// Gives a packet its tag, or compares that.
    #[inline(always)]
    fn finish<I: Isa>(&mut self, isa: I, common: &Common<I>, done: &Hashed<I>) {
        let Hashed { place, lanes, stream } = done;
        // At first nothing has gone through the pipeline yet.
        if let (Some(job), Some(out)) = (self.jobs.get_mut(*place), self.outs.get_mut(*place)) {
            let mut window = isa.window(job.packet(), &common.frame);
            let tag = isa.tag_beside(&common.frame, lanes, stream);
            let received = if P::SEALS { isa.lane(isa.zero(), 0) } else { isa.icv(&window) };
            *out = P::finish(isa, &mut window, tag, received);
            if P::refused(*out) {
                isa.wipe(&mut window);
            }
        }
    }
}

/// What packets of one form share.
struct Common<I: Isa> {
    form: Form,
    frame: I::Frame,
    /// What is around their texts, if it is as it is sent.
    sent: Option<Around>,
    /// The block of lengths, if so.
    lengths: I::V,
}

/// Puts a packet through AES, and the one before, whose place it takes, through GHASH.
#[inline(always)]
fn advance<'k, I: Isa, P: Packet<'k>, const ROUNDS: usize, const R: usize>(
    isa: I,
    place: usize,
    packet: &mut P,
    common: &Common<I>,
    hashing: &mut Hashing<'k, I, R>,
) -> Hashed<I> {
    let tables = packet.tables();
    let (around, lengths, packet) = if let Some(sent) = common.sent {
        (sent, common.lengths, packet.packet())
    } else {
        let item = packet.item(common.form);
        let around = Around::new(&item);
        (around, around.lengths(isa), item.packet)
    };
    let mut window = isa.window(packet, &common.frame);
    let start = start(isa, &window, around.beside, tables);
    let data = load::<I, true, true, R>(isa, &window, around, lengths, 0);
    let work = Work { keys: Keys::read(tables), states: states(isa, &window, start, 0), data: &data };
    let (out, stream) = encrypt::<I, _, ROUNDS, true, R>(isa, work, hashing);
    store::<I, true, true, R>(isa, &mut window, 0, &out);
    let blocks = if P::SEALS {
        hash_input::<I, true, true, R>(isa, &window, &out, &data)
    } else {
        reversed(isa, &data)
    };
    let hashed = hashing.hashed();
    *hashing = Hashing::new(isa, place, &tables.powers, blocks, stream);
    hashed
}

/// A packet whose text is done, and whose hash is not.
struct Hashing<'k, I: Isa, const R: usize> {
    place: usize,
    powers: &'k [[u8; 16]; POWERS],
    blocks: [I::V; R],
    /// The key stream of the first vector, which has E(J0).
    stream: I::V,
    sum: I::Sum,
    lanes: I::V,
}

/// A packet whose hash is done, but for the sum of its lanes.
#[derive(Clone, Copy)]
struct Hashed<I: Isa> {
    place: usize,
    lanes: I::V,
    stream: I::V,
}

/// Of AES-128.
const FEWEST_ROUNDS: usize = 10;

impl<'k, I: Isa, const R: usize> Hashing<'k, I, R> {
    #[inline(always)]
    fn new(isa: I, place: usize, powers: &'k [[u8; 16]; POWERS], blocks: [I::V; R], stream: I::V) -> Self {
        Self { place, powers, blocks, stream, sum: isa.no_sum(), lanes: isa.zero() }
    }

    /// What is in the pipeline before the first packet: a place that no job has.
    #[inline(always)]
    fn nothing(isa: I) -> Self {
        static NOBODY: [[u8; 16]; POWERS] = Tables::EMPTY.powers;
        Self::new(isa, usize::MAX, &NOBODY, [isa.zero(); R], isa.zero())
    }

    /// Hashes with no AES beside it.
    #[inline(always)]
    fn rest(&mut self, isa: I) -> Hashed<I> {
        for round in 1..FEWEST_ROUNDS {
            self.step::<FEWEST_ROUNDS>(isa, round, &mut []);
        }
        self.hashed()
    }

    #[inline(always)]
    fn hashed(&self) -> Hashed<I> {
        Hashed { place: self.place, lanes: self.lanes, stream: self.stream }
    }
}

impl<I: Isa, const R: usize> Side<I> for Hashing<'_, I, R> {
    /// Products first, then the reduction. What is longer than there are powers for goes in two parts.
    #[inline(always)]
    fn step<const ROUNDS: usize>(&mut self, isa: I, round: usize, states: &mut [I::V]) {
        let first = R.saturating_sub(BATCH);
        let (start, span) = if first == 0 { (1, 5) } else { (4, 3) };
        for j in 0..R {
            let at = if j < first { 1 + j * 2 / first } else { start + (j - first) * span / (R - first) };
            if at == round {
                let power = if j < first {
                    isa.stride_power(self.powers, first - j)
                } else {
                    isa.last_power(self.powers, R - j)
                };
                self.sum = isa.mul_add(self.sum, self.blocks[j], power);
            }
        }
        if first > 0 && round == 3 {
            self.blocks[first] = isa.xor(self.blocks[first], isa.reduce(self.sum));
            self.sum = isa.no_sum();
        }
        if round == start + span {
            self.lanes = isa.reduce(self.sum);
        }
        for state in states {
            if round < start + span {
                (*state, self.sum) = isa.pin(*state, self.sum);
            } else {
                (*state, self.lanes) = isa.pin_lanes(*state, self.lanes);
            }
        }
    }
}
