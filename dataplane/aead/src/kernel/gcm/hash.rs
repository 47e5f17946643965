//! GHASH, of a batch by itself or between the rounds of AES.

use crate::kernel::isa::Isa;
use crate::key::POWERS;

/// Work that is done between the rounds of AES, where the other execution ports idle.
pub(super) trait Side<I: Isa> {
    /// The share of one round, after which `states` are ready for the next; `round` is a constant once inlined.
    fn step<const ROUNDS: usize>(&mut self, isa: I, round: usize, states: &mut [I::V]);
}

/// No work.
pub(super) struct Idle;

impl<I: Isa> Side<I> for Idle {
    #[inline(always)]
    fn step<const ROUNDS: usize>(&mut self, _: I, _: usize, _: &mut [I::V]) {}
}

/// GHASH of `P` vectors, spread over the rounds.
#[derive(Clone, Copy)]
pub(super) struct Hash<I: Isa, const P: usize> {
    blocks: [I::V; P],
    powers: [I::Power; P],
    pub(super) sum: I::Sum,
}

impl<I: Isa, const P: usize> Hash<I, P> {
    /// Of a batch: `carry` is what the batches before come to.
    #[inline(always)]
    pub(super) fn new(isa: I, powers: [I::Power; P], carry: Option<I::V>, mut blocks: [I::V; P]) -> Self {
        if let Some(carry) = carry {
            blocks[0] = isa.xor(blocks[0], carry);
        }
        Self { blocks, powers, sum: isa.no_sum() }
    }

    /// Of the last vectors of a packet.
    #[inline(always)]
    pub(super) fn last(isa: I, powers: &[[u8; 16]; POWERS], carry: Option<I::V>, blocks: [I::V; P]) -> Self {
        let mut last = [isa.last_power(powers, 1); P];
        for (j, power) in last.iter_mut().enumerate() {
            *power = isa.last_power(powers, P - j);
        }
        Self::new(isa, last, carry, blocks)
    }

    #[inline(always)]
    fn add(&mut self, isa: I, j: usize) {
        self.sum = isa.mul_add(self.sum, self.blocks[j], self.powers[j]);
    }

    /// All of it at once.
    #[inline(always)]
    pub(super) fn all(&mut self, isa: I) {
        for j in 0..P {
            self.add(isa, j);
        }
    }
}

impl<I: Isa, const P: usize> Side<I> for Hash<I, P> {
    #[inline(always)]
    fn step<const ROUNDS: usize>(&mut self, isa: I, round: usize, states: &mut [I::V]) {
        for j in 0..P {
            if 1 + j * (ROUNDS - 1) / P == round {
                self.add(isa, j);
                for state in &mut *states {
                    (*state, self.sum) = isa.pin(*state, self.sum);
                }
            }
        }
    }
}
