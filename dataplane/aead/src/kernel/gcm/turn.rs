//! What lies side by side in one turn of the pipeline of short packets: AES of one or two packets, and GHASH of another.

use super::rounds::Keys;
use super::{Around, BATCH};
use crate::kernel::isa::Isa;
use crate::key::{POWERS, Tables};
use crate::packet::PacketClass;

/// Whether there are registers for packets in both halves of AES beside one in GHASH.
pub(super) const fn halves<I: Isa>() -> bool {
    I::REGISTERS > 16
}

/// What packets of one form share.
pub(super) struct Common<'k, I: Isa, const R: usize> {
    pub(super) form: PacketClass,
    pub(super) frame: I::Frame,
    /// What is around their texts, if it is as it is sent.
    pub(super) sent: Option<Around>,
    /// The block of lengths.
    pub(super) lengths: I::V,
    /// Their key, if they have one and the same.
    pub(super) key: Option<Held<'k, I, R>>,
}

impl<I: Isa, const R: usize> Common<'_, I, R> {
    /// Of the packet with these tables.
    #[inline(always)]
    pub(super) fn round_key(&self, isa: I, tables: &Tables, round: usize) -> I::V {
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
pub(super) struct Held<'k, I: Isa, const R: usize> {
    keys: Keys<'k, I>,
    powers: [I::Power; R],
}

impl<'k, I: Isa, const R: usize> Held<'k, I, R> {
    #[inline(always)]
    pub(super) fn new<const ROUNDS: usize>(isa: I, tables: &'k Tables) -> Self {
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
pub(super) struct Aes<'k, I: Isa, const ROUNDS: usize, const R: usize> {
    pub(super) place: usize,
    pub(super) tables: &'k Tables,
    pub(super) states: [I::V; R],
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
    pub(super) fn first_half(&mut self, isa: I, common: &Common<'k, I, R>) {
        for round in 1..=ROUNDS / 2 {
            self.round(isa, common, round);
        }
    }
}

/// What goes on side by side.
pub(super) struct Turn<'t, 'k, I: Isa, const ROUNDS: usize, const R: usize> {
    pub(super) common: &'t Common<'k, I, R>,
    pub(super) early: Option<&'t mut Aes<'k, I, ROUNDS, R>>,
    pub(super) late: &'t mut Aes<'k, I, ROUNDS, R>,
    pub(super) hashing: &'t mut Hashing<'k, I, R>,
}

impl<I: Isa, const ROUNDS: usize, const R: usize> Turn<'_, '_, I, ROUNDS, R> {
    /// Rounds that `late` has behind it.
    const BEFORE: usize = if halves::<I>() { ROUNDS / 2 } else { 0 };

    /// A round of AES, and what of the hash belongs beside it.
    #[inline(always)]
    pub(super) fn step(&mut self, isa: I, step: usize) {
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
pub(super) struct Hashing<'k, I: Isa, const R: usize> {
    place: usize,
    powers: &'k [[u8; 16]; POWERS],
    blocks: [I::V; R],
    /// The key stream of the first vector, which has E(J0).
    stream: I::V,
    sum: I::Sum,
    lanes: I::V,
}

/// A packet whose hash is done, except for the sum of its lanes.
#[derive(Clone, Copy)]
pub(super) struct Hashed<I: Isa> {
    pub(super) place: usize,
    pub(super) lanes: I::V,
    pub(super) stream: I::V,
}

impl<'k, I: Isa, const R: usize> Hashing<'k, I, R> {
    const PLAN: Plan<R> = Plan::new(halves::<I>());

    #[inline(always)]
    pub(super) fn new(
        isa: I,
        place: usize,
        powers: &'k [[u8; 16]; POWERS],
        blocks: [I::V; R],
        stream: I::V,
    ) -> Self {
        Self { place, powers, blocks, stream, sum: isa.no_sum(), lanes: isa.zero() }
    }

    /// What is in the pipeline before the first packet: a place that no job has.
    #[inline(always)]
    pub(super) fn nothing(isa: I) -> Self {
        static NOBODY: [[u8; 16]; POWERS] = Tables::EMPTY.powers;
        Self::new(isa, usize::MAX, &NOBODY, [isa.zero(); R], isa.zero())
    }

    /// Hashes with no AES beside it.
    #[inline(always)]
    pub(super) fn rest(mut self, isa: I, common: &Common<'k, I, R>) -> Hashed<I> {
        for step in 1..=Self::PLAN.end {
            self.step(isa, common, step);
        }
        self.hashed()
    }

    #[inline(always)]
    pub(super) fn hashed(&self) -> Hashed<I> {
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
