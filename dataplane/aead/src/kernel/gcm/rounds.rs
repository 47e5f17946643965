//! AES in counter mode, with other work between the rounds.

use super::hash::Side;
use crate::kernel::isa::Isa;
use crate::key::{ROUND_KEYS_MAX, Tables};

/// The round keys of a packet, held as vectors or read anew where they are used.
#[derive(Clone, Copy)]
pub(super) struct Keys<'k, I: Isa> {
    tables: &'k Tables,
    held: Option<[I::V; ROUND_KEYS_MAX]>,
}

impl<'k, I: Isa> Keys<'k, I> {
    /// Vectors where those have four blocks: for many vectors of text, or many packets.
    #[inline(always)]
    pub(super) fn hold<const ROUNDS: usize>(isa: I, tables: &'k Tables) -> Self {
        if I::LANES < 4 {
            // Nothing would be gained, as an operand in memory is as good.
            return Self { tables, held: None };
        }
        let mut held = [isa.zero(); ROUND_KEYS_MAX];
        for (held, key) in held.iter_mut().zip(&tables.round_keys[..=ROUNDS]) {
            *held = isa.broadcast(key);
        }
        Self { tables, held: Some(held) }
    }

    #[inline(always)]
    pub(super) fn get(&self, isa: I, round: usize) -> I::V {
        match &self.held {
            Some(held) => held[round],
            None => isa.broadcast(&self.tables.round_keys[round]),
        }
    }
}

/// What AES is to work on: `R` vectors of a packet.
#[derive(Clone, Copy)]
pub(super) struct Work<'k, 'd, I: Isa, const R: usize> {
    pub(super) keys: Keys<'k, I>,
    /// The inputs of the first full round.
    pub(super) states: [I::V; R],
    pub(super) data: &'d [I::V; R],
}

/// Counter mode, with `side` done between the rounds. `FIRST` says that the vectors are the packet's first: then the
/// second result is the key stream of the first of them, which has E(J0).
#[inline(always)]
pub(super) fn encrypt<I: Isa, S: Side<I>, const ROUNDS: usize, const FIRST: bool, const R: usize>(
    isa: I,
    work: Work<'_, '_, I, R>,
    side: &mut S,
) -> ([I::V; R], I::V) {
    let Work { keys, states, data } = work;
    let mut batch = Batch { keys, states };
    batch.round::<S, ROUNDS>(isa, 1, side);
    batch.round::<S, ROUNDS>(isa, 2, side);
    batch.round::<S, ROUNDS>(isa, 3, side);
    batch.round::<S, ROUNDS>(isa, 4, side);
    batch.round::<S, ROUNDS>(isa, 5, side);
    batch.round::<S, ROUNDS>(isa, 6, side);
    batch.round::<S, ROUNDS>(isa, 7, side);
    batch.round::<S, ROUNDS>(isa, 8, side);
    batch.round::<S, ROUNDS>(isa, 9, side);
    if ROUNDS > 10 {
        batch.round::<S, ROUNDS>(isa, 10, side);
        batch.round::<S, ROUNDS>(isa, 11, side);
    }
    if ROUNDS > 12 {
        batch.round::<S, ROUNDS>(isa, 12, side);
        batch.round::<S, ROUNDS>(isa, 13, side);
    }
    key_stream::<I, FIRST, R>(isa, batch.states, keys.get(isa, ROUNDS), data)
}

/// The last round, with the data added: [`encrypt`]'s results.
#[inline(always)]
pub(super) fn key_stream<I: Isa, const FIRST: bool, const R: usize>(
    isa: I,
    mut states: [I::V; R],
    key: I::V,
    data: &[I::V; R],
) -> ([I::V; R], I::V) {
    let mut stream = isa.zero();
    for (j, (state, data)) in states.iter_mut().zip(data).enumerate() {
        if FIRST && j == 0 {
            stream = isa.aesenclast(*state, key);
            *state = isa.xor(stream, *data);
        } else {
            // Joined with the key, the data is not on the path of the state.
            *state = isa.aesenclast(*state, isa.xor(key, *data));
        }
    }
    (states, stream)
}

/// AES states on their way.
struct Batch<'k, I: Isa, const R: usize> {
    keys: Keys<'k, I>,
    states: [I::V; R],
}

impl<I: Isa, const R: usize> Batch<'_, I, R> {
    #[inline(always)]
    fn round<S: Side<I>, const ROUNDS: usize>(&mut self, isa: I, round: usize, side: &mut S) {
        let key = self.keys.get(isa, round);
        for state in &mut self.states {
            *state = isa.aesenc(*state, key);
        }
        side.step::<ROUNDS>(isa, round, &mut self.states);
    }
}
