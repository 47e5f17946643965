//! Packets of few vectors: all vectors of a packet in registers at once.
//!
//! A short packet is one long chain of instructions that wait for each other; cores look ahead far enough for one such
//! chain and a half, so chains that have nothing to do with each other must lie side by side in the program. Packets
//! therefore go through a pipeline: a turn of it has AES of one packet, GHASH of the one before, and the tag of the one
//! before that. Where there are registers for it, AES takes two turns.

use std::marker::PhantomData;

use super::rounds::{Keys, key_stream};
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
        let mut ahead = Ahead::new::<P, ROUNDS>(self.jobs, &self.class, self.many_keys);
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
            // Where there are registers for the key, one that all packets have is read but once.
            if const { P::ESP && I::REGISTERS > 16 }
                && !self.many_keys
            {
                self.run_form_sent_or_not::<I, true>(isa, form, same, &mut ahead);
            } else {
                self.run_form_sent_or_not::<I, false>(isa, form, same, &mut ahead);
            }
        }
    }
}

impl<'k, P: Packet<'k>, const ROUNDS: usize, const R: usize> Short<'_, 'k, P, ROUNDS, R> {
    #[inline(always)]
    fn run_form_sent_or_not<I: Isa, const ONE_KEY: bool>(
        &mut self,
        isa: I,
        form: Form,
        same: Jobs,
        ahead: &mut Ahead,
    ) {
        if const { P::ESP } && form.is_sent() {
            self.run_form::<I, true, ONE_KEY>(isa, form, same, ahead);
        } else {
            self.run_form::<I, false, ONE_KEY>(isa, form, same, ahead);
        }
    }

    /// Jobs of this form; `SENT` is [`Form::is_sent`], and `ONE_KEY` says that all have the same. All that follows from
    /// form and key is found before the loop, whose every instruction counts.
    #[inline(always)]
    fn run_form<I: Isa, const SENT: bool, const ONE_KEY: bool>(
        &mut self,
        isa: I,
        form: Form,
        places: Jobs,
        ahead: &mut Ahead,
    ) {
        let Some(first) = places.first() else { return };
        let (sent, lengths) = if SENT {
            let around = Around::sent(form);
            (Some(around), around.lengths(isa))
        } else {
            (None, Around::new(&self.jobs[first].item(form)).lengths(isa))
        };
        let key = ONE_KEY.then(|| Held::new::<ROUNDS>(isa, self.jobs[first].tables()));
        let common = Common { form, frame: isa.frame(form, R), sent, lengths, key };
        if const { halves::<I>() } {
            self.pipeline_in_halves(isa, &common, places, ahead);
        } else {
            self.pipeline(isa, &common, places, ahead);
        }
    }

    #[inline(always)]
    fn pipeline<I: Isa>(&mut self, isa: I, common: &Common<'k, I, R>, places: Jobs, ahead: &mut Ahead) {
        let mut hashing = Hashing::nothing(isa);
        let mut hashed = hashing.hashed();
        for place in places {
            ahead.step::<P, ROUNDS>(self.jobs);
            let mut aes = self.begin(isa, place, common);
            let next = self.turn(isa, common, None, &mut aes, &mut hashing);
            self.finish(isa, common, &hashed);
            hashed = hashing.hashed();
            hashing = next;
        }
        self.finish(isa, common, &hashed);
        self.finish(isa, common, &hashing.rest(isa, common));
    }

    #[inline(always)]
    fn pipeline_in_halves<I: Isa>(
        &mut self,
        isa: I,
        common: &Common<'k, I, R>,
        mut places: Jobs,
        ahead: &mut Ahead,
    ) {
        let Some(first) = places.next() else { return };
        ahead.step::<P, ROUNDS>(self.jobs);
        let mut late = self.begin(isa, first, common);
        late.first_half(isa, common);
        let mut hashing = Hashing::nothing(isa);
        let mut hashed = hashing.hashed();
        for place in places {
            ahead.step::<P, ROUNDS>(self.jobs);
            let mut early = self.begin(isa, place, common);
            let next = self.turn(isa, common, Some(&mut early), &mut late, &mut hashing);
            self.finish(isa, common, &hashed);
            hashed = hashing.hashed();
            hashing = next;
            late = early;
        }
        let last = self.turn(isa, common, None, &mut late, &mut hashing);
        self.finish(isa, common, &hashed);
        self.finish(isa, common, &hashing.hashed());
        self.finish(isa, common, &last.rest(isa, common));
    }

    /// Reads what AES starts from.
    #[inline(always)]
    fn begin<I: Isa>(&mut self, isa: I, place: usize, common: &Common<'k, I, R>) -> Aes<'k, I, ROUNDS, R> {
        let packet = &mut self.jobs[place];
        let tables = packet.tables();
        let (beside, packet) = if let Some(sent) = common.sent {
            (sent.beside, packet.packet())
        } else {
            let item = packet.item(common.form);
            (item.beside, item.packet)
        };
        let window = isa.window(packet, &common.frame);
        let key = common.round_key(isa, tables, 0);
        Aes { place, tables, states: states(isa, &window, start(isa, &window, beside, key), 0) }
    }

    /// One turn of the pipeline: `late` comes out of AES, with `early`, if any, in the first half of its rounds, and
    /// `hashing` beside them.
    #[inline(always)]
    fn turn<I: Isa>(
        &mut self,
        isa: I,
        common: &Common<'k, I, R>,
        early: Option<&mut Aes<'k, I, ROUNDS, R>>,
        late: &mut Aes<'k, I, ROUNDS, R>,
        hashing: &mut Hashing<'k, I, R>,
    ) -> Hashing<'k, I, R> {
        let packet = &mut self.jobs[late.place];
        let (around, packet) = if let Some(sent) = common.sent {
            (sent, packet.packet())
        } else {
            let item = packet.item(common.form);
            (Around::new(&item), item.packet)
        };
        let mut window = isa.window(packet, &common.frame);
        let data = load::<I, true, true, R>(isa, &window, around, common.lengths, 0);
        let mut turn = Turn { common, early, late, hashing };
        turn.step(isa, 1);
        turn.step(isa, 2);
        turn.step(isa, 3);
        turn.step(isa, 4);
        turn.step(isa, 5);
        if const { halves::<I>() } {
            if const { ROUNDS > 10 } {
                turn.step(isa, 6);
            }
            if const { ROUNDS > 12 } {
                turn.step(isa, 7);
            }
        } else {
            turn.step(isa, 6);
            turn.step(isa, 7);
            turn.step(isa, 8);
            turn.step(isa, 9);
            if const { ROUNDS > 10 } {
                turn.step(isa, 10);
                turn.step(isa, 11);
            }
            if const { ROUNDS > 12 } {
                turn.step(isa, 12);
                turn.step(isa, 13);
            }
        }
        let key = common.round_key(isa, late.tables, ROUNDS);
        let (out, stream) = key_stream::<I, true, R>(isa, late.states, key, &data);
        store::<I, true, true, R>(isa, &mut window, 0, &out);
        let blocks = if P::SEALS {
            hash_input::<I, true, true, R>(isa, &window, &out, &data)
        } else {
            reversed(isa, &data)
        };
        Hashing::new(isa, late.place, &late.tables.powers, blocks, stream)
    }

    /// Gives a packet its tag, or compares that.
    #[inline(always)]
    fn finish<I: Isa>(&mut self, isa: I, common: &Common<'k, I, R>, done: &Hashed<I>) {
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

/// Whether there are registers for packets in both halves of AES beside one in GHASH.
const fn halves<I: Isa>() -> bool {
    I::REGISTERS > 16
}

/// What packets of one form share.
struct Common<'k, I: Isa, const R: usize> {
    form: Form,
    frame: I::Frame,
    /// What is around their texts, if it is as it is sent.
    sent: Option<Around>,
    /// The block of lengths.
    lengths: I::V,
    /// Their key, if they have one and the same.
    key: Option<Held<'k, I, R>>,
}

impl<I: Isa, const R: usize> Common<'_, I, R> {
    /// Of the packet with these tables.
    #[inline(always)]
    fn round_key(&self, isa: I, tables: &Tables, round: usize) -> I::V {
        match &self.key {
            Some(held) => held.keys.get(isa, round),
            None => isa.broadcast(&tables.round_keys[round]),
        }
    }

    /// What vector `j` of the packet with these powers is multiplied by.
    #[inline(always)]
    fn power(&self, isa: I, powers: &[[u8; 16]; POWERS], j: usize) -> I::Power {
        match &self.key {
            Some(held) => held.powers[j],
            None => power::<I, R>(isa, powers, j),
        }
    }
}

/// A key as vectors.
struct Held<'k, I: Isa, const R: usize> {
    keys: Keys<'k, I>,
    powers: [I::Power; R],
}

impl<'k, I: Isa, const R: usize> Held<'k, I, R> {
    #[inline(always)]
    fn new<const ROUNDS: usize>(isa: I, tables: &'k Tables) -> Self {
        let mut powers = [isa.last_power(&tables.powers, 1); R];
        for (j, held) in powers.iter_mut().enumerate() {
            *held = power::<I, R>(isa, &tables.powers, j);
        }
        Self { keys: Keys::hold::<ROUNDS>(isa, tables), powers }
    }
}

/// Vectors that are reduced before the rest, since there are powers for a batch only.
const fn reduced_first(vectors: usize) -> usize {
    vectors.saturating_sub(BATCH)
}

/// What vector `j` of `R` is multiplied by.
#[inline(always)]
fn power<I: Isa, const R: usize>(isa: I, powers: &[[u8; 16]; POWERS], j: usize) -> I::Power {
    let first = reduced_first(R);
    if j < first { isa.stride_power(powers, first - j) } else { isa.last_power(powers, R - j) }
}

/// A packet in AES.
struct Aes<'k, I: Isa, const ROUNDS: usize, const R: usize> {
    place: usize,
    tables: &'k Tables,
    states: [I::V; R],
}

impl<'k, I: Isa, const ROUNDS: usize, const R: usize> Aes<'k, I, ROUNDS, R> {
    #[inline(always)]
    fn round(&mut self, isa: I, common: &Common<'k, I, R>, round: usize) {
        let key = common.round_key(isa, self.tables, round);
        for state in &mut self.states {
            *state = isa.aesenc(*state, key);
        }
    }

    #[inline(always)]
    fn first_half(&mut self, isa: I, common: &Common<'k, I, R>) {
        for round in 1..=ROUNDS / 2 {
            self.round(isa, common, round);
        }
    }
}

/// What goes on side by side.
struct Turn<'t, 'k, I: Isa, const ROUNDS: usize, const R: usize> {
    common: &'t Common<'k, I, R>,
    early: Option<&'t mut Aes<'k, I, ROUNDS, R>>,
    late: &'t mut Aes<'k, I, ROUNDS, R>,
    hashing: &'t mut Hashing<'k, I, R>,
}

impl<I: Isa, const ROUNDS: usize, const R: usize> Turn<'_, '_, I, ROUNDS, R> {
    /// Rounds that `late` has behind it.
    const BEFORE: usize = if halves::<I>() { ROUNDS / 2 } else { 0 };

    /// A round of AES, and what of the hash belongs beside it.
    #[inline(always)]
    fn step(&mut self, isa: I, step: usize) {
        if let Some(early) = &mut self.early
            && step <= ROUNDS / 2
        {
            early.round(isa, self.common, step);
        }
        let round = step + Self::BEFORE;
        if round < ROUNDS {
            self.late.round(isa, self.common, round);
        }
        self.hashing.step(isa, self.common, step);
        if let Some(early) = &mut self.early
            && step <= ROUNDS / 2
        {
            self.hashing.pin(isa, step, &mut early.states);
        }
        if round < ROUNDS {
            self.hashing.pin(isa, step, &mut self.late.states);
        }
    }
}

/// At which steps of a turn the hash has what.
struct Plan<const R: usize> {
    /// Each vector's product.
    products: [usize; R],
    /// What is reduced first is, before other products.
    middle: usize,
    /// All is reduced.
    end: usize,
}

impl<const R: usize> Plan<R> {
    const fn new(halves: bool) -> Self {
        let first = reduced_first(R);
        let (start, middle, span, end) = match (first > 0, halves) {
            (false, true) => (1, 1, 3, 4),
            (true, true) => (1, 3, 2, 5),
            (false, false) => (1, 1, 5, 6),
            (true, false) => (1, 4, 3, 7),
        };
        let mut products = [0; R];
        let mut j = 0;
        while j < R {
            products[j] = if j < first { start } else { middle + (j - first) * span / (R - first) };
            j += 1;
        }
        Self { products, middle, end }
    }
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

impl<'k, I: Isa, const R: usize> Hashing<'k, I, R> {
    const PLAN: Plan<R> = Plan::new(halves::<I>());

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
    fn rest(mut self, isa: I, common: &Common<'k, I, R>) -> Hashed<I> {
        for step in 1..=Self::PLAN.end {
            self.step(isa, common, step);
        }
        self.hashed()
    }

    #[inline(always)]
    fn hashed(&self) -> Hashed<I> {
        Hashed { place: self.place, lanes: self.lanes, stream: self.stream }
    }

    /// Products first, then the reduction.
    #[inline(always)]
    fn step(&mut self, isa: I, common: &Common<'k, I, R>, step: usize) {
        let first = const { reduced_first(R) };
        if first > 0 && step == Self::PLAN.middle {
            self.blocks[first] = isa.xor(self.blocks[first], isa.reduce(self.sum));
            self.sum = isa.no_sum();
        }
        for j in 0..R {
            if Self::PLAN.products[j] == step {
                self.sum = isa.mul_add(self.sum, self.blocks[j], common.power(isa, self.powers, j));
            }
        }
        if step == Self::PLAN.end {
            self.lanes = isa.reduce(self.sum);
        }
    }

    /// Keeps the products of this step and the rounds beside it where they are in the program.
    #[inline(always)]
    fn pin(&mut self, isa: I, step: usize, states: &mut [I::V]) {
        for state in states {
            if step < Self::PLAN.end {
                (*state, self.sum) = isa.pin(*state, self.sum);
            } else {
                (*state, self.lanes) = isa.pin_lanes(*state, self.lanes);
            }
        }
    }
}
