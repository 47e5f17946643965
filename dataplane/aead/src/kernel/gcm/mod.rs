//! AES-GCM over any [`Isa`].
//!
//! AAD, ciphertext and length block are one stream of blocks, aligned to its **end**: the length block is the last
//! lane of the last vector, and zero lanes, if any, come first. So every power of the hash key lies where an
//! aligned load finds it, head and tail of the text are one [`Part`] each, and the lane of the AAD has counter 1 by
//! itself: its AES slot computes E(J0), which the tag needs, for free.

mod burst;
mod derive;
mod open;
mod seal;

pub(crate) use burst::{OpenBurst, SealBurst};
pub(crate) use derive::{Absorb, Derive, aes_rounds};
pub(crate) use open::OpenOne;
pub(crate) use seal::SealOne;

use super::isa::{Isa, Part};
use crate::key::{POWERS, Tables};
use crate::packet::Text;

/// x¹²⁷ + x¹²⁶ + x¹²¹ of the field's polynomial, reversed: the half that reduction multiplies by. The other half
/// is 1.
pub(crate) const POLYNOMIAL_HIGH: u64 = 0xc200_0000_0000_0000;

/// One packet, or any other text, on its way through a kernel.
///
/// The halves of the two 128-bit numbers lie apart: side by side, the compiler would join two scalar stores into one
/// vector load, which no store buffer can forward.
#[repr(C)]
pub(crate) struct Item<'a> {
    /// The high half of the first counter block J0, reversed.
    pub(crate) first_high: u64,
    /// The high half of the AAD, see `aad_low`.
    pub(crate) aad_high: u64,
    /// The low half of J0.
    pub(crate) first_low: u64,
    /// The one block of AAD, reversed; where there was more, with the hash of all before added to it.
    pub(crate) aad_low: u64,
    pub(crate) aad_bits: u64,
    pub(crate) tables: &'a Tables,
    pub(crate) packet: &'a mut [u8],
    pub(crate) text: Text,
}

/// Packets that are sealed or opened together.
pub(crate) trait Packets<'k> {
    /// The key of packet `n`.
    fn tables(&self, n: usize) -> &'k Tables;

    /// Packet `n`; asked for again wherever it is needed, since inlined it costs less than being kept.
    fn item(&mut self, n: usize) -> Item<'_>;

    /// Takes the tag that packet `n` has or ought to have.
    fn finish(&mut self, n: usize, tag: [u8; 16]);
}

/// A single item, and its tag once it has one.
pub(crate) struct One<'a> {
    pub(crate) item: Item<'a>,
    pub(crate) tag: [u8; 16],
}

impl<'k> Packets<'k> for &mut One<'k> {
    #[inline(always)]
    fn tables(&self, _: usize) -> &'k Tables {
        self.item.tables
    }

    #[inline(always)]
    fn item(&mut self, _: usize) -> Item<'_> {
        let item = &mut self.item;
        Item { packet: &mut *item.packet, ..*item }
    }

    #[inline(always)]
    fn finish(&mut self, _: usize, tag: [u8; 16]) {
        self.tag = tag;
    }
}

/// Vectors of a long packet that AES and GHASH take at once; their powers are in the key's table.
const BATCH: usize = 4;

/// How a text falls into vectors.
#[derive(Clone, Copy)]
struct Shape {
    /// Vectors, of which the last has the length block.
    vectors: usize,
    /// Zero lanes before the AAD in the first.
    pad: usize,
    /// The text in the first vector, after the AAD.
    head: Part,
    /// The text in the last vector, before the length block; with one vector, the same as `head`.
    tail: Part,
    /// Where vector 1 begins in the packet.
    second: usize,
}

/// Vectors that a text of `len` octets makes with its AAD and length blocks.
#[inline(always)]
pub(crate) fn vectors<I: Isa>(len: usize) -> usize {
    (len.div_ceil(16) + 2).div_ceil(I::LANES)
}

impl Shape {
    const NONE: Self = {
        let none = Part { at: 0, len: 0, lane: 0 };
        Self { vectors: 0, pad: 0, head: none, tail: none, second: 0 }
    };

    #[inline(always)]
    fn new<I: Isa>(text: Text) -> Self {
        let len = text.end - text.start;
        let vectors = vectors::<I>(len);
        let pad = vectors * I::LANES - (len.div_ceil(16) + 2);
        let head = Part { at: text.start, len: len.min(16 * (I::LANES - 1 - pad)), lane: pad + 1 };
        let second = text.start + head.len;
        let tail = if vectors == 1 {
            head
        } else {
            let at = second + 16 * I::LANES * (vectors - 2);
            Part { at, len: text.end - at, lane: 0 }
        };
        Self { vectors, pad, head, tail, second }
    }

    /// Offset of vector `v`, which is neither the first nor the last.
    #[inline(always)]
    fn middle<I: Isa>(&self, v: usize) -> usize {
        self.second + 16 * I::LANES * (v - 1)
    }
}

impl Item<'_> {
    /// The reversed counters of the first vector: the lane of the AAD has J0.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half is the counter; there are at most 3 pad lanes"
    )]
    fn counters<I: Isa>(&self, isa: I, pad: usize) -> I::V {
        let counter = (self.first_low as u32).wrapping_sub(pad as u32);
        isa.counters(self.first_high, (self.first_low >> 32 << 32) | u64::from(counter))
    }

    /// The number of bits of text, the low half of the length block.
    #[inline(always)]
    fn text_bits(&self) -> u64 {
        8 * (self.text.end - self.text.start) as u64
    }
}

/// Work that is done between the rounds of AES, where the other execution ports idle.
trait Side<I: Isa> {
    /// The share of one round; `round` is a constant once inlined.
    fn step<const ROUNDS: usize>(&mut self, isa: I, round: usize);
}

/// No work.
struct Idle;

impl<I: Isa> Side<I> for Idle {
    #[inline(always)]
    fn step<const ROUNDS: usize>(&mut self, _: I, _: usize) {}
}

/// GHASH of `P` vectors, spread over the rounds.
#[derive(Clone, Copy)]
struct Hash<'k, I: Isa, const P: usize, const LAST: bool> {
    blocks: [I::V; P],
    powers: &'k [[u8; 16]; POWERS],
    sum: I::Sum,
}

impl<'k, I: Isa, const P: usize, const LAST: bool> Hash<'k, I, P, LAST> {
    /// Of a batch: `carry` is what the batches before come to.
    #[inline(always)]
    fn new(isa: I, powers: &'k [[u8; 16]; POWERS], carry: Option<I::V>, mut blocks: [I::V; P]) -> Self {
        if let Some(carry) = carry {
            blocks[0] = isa.xor(blocks[0], carry);
        }
        Self { blocks, powers, sum: isa.no_sum() }
    }

    #[inline(always)]
    fn add(&mut self, isa: I, j: usize) {
        let power =
            if LAST { isa.last_power(self.powers, P - j) } else { isa.stride_power(self.powers, P - j) };
        self.sum = isa.mul_add(self.sum, self.blocks[j], power);
    }

    /// All of it at once.
    #[inline(always)]
    fn all(mut self, isa: I) -> I::Sum {
        for j in 0..P {
            self.add(isa, j);
        }
        self.sum
    }
}

impl<I: Isa, const P: usize, const LAST: bool> Side<I> for Hash<'_, I, P, LAST> {
    #[inline(always)]
    fn step<const ROUNDS: usize>(&mut self, isa: I, round: usize) {
        for j in 0..P {
            if 1 + j * (ROUNDS - 1) / P == round {
                self.add(isa, j);
            }
        }
    }
}

impl<I: Isa, S: Side<I>, const N: usize> Side<I> for [S; N] {
    #[inline(always)]
    fn step<const ROUNDS: usize>(&mut self, isa: I, round: usize) {
        for side in self {
            side.step::<ROUNDS>(isa, round);
        }
    }
}

/// `R` vectors each of `N` packets in counter mode, with `side` done between the rounds.
#[inline(always)]
fn encrypt<I: Isa, S: Side<I>, const ROUNDS: usize, const N: usize, const R: usize>(
    isa: I,
    tables: [&Tables; N],
    counters: [I::V; N],
    data: &[[I::V; R]; N],
    side: &mut S,
) -> [[I::V; R]; N] {
    let mut states = [[isa.zero(); R]; N];
    for n in 0..N {
        let key = isa.broadcast(&tables[n].round_keys[0]);
        let mut counter = counters[n];
        for state in &mut states[n] {
            *state = isa.xor(isa.reverse(counter), key);
            counter = isa.add_counter(counter, LANES_U32[I::LANES]);
        }
    }
    let mut batch = Batch { tables, states };
    batch.round::<I, S, ROUNDS>(isa, 1, side);
    batch.round::<I, S, ROUNDS>(isa, 2, side);
    batch.round::<I, S, ROUNDS>(isa, 3, side);
    batch.round::<I, S, ROUNDS>(isa, 4, side);
    batch.round::<I, S, ROUNDS>(isa, 5, side);
    batch.round::<I, S, ROUNDS>(isa, 6, side);
    batch.round::<I, S, ROUNDS>(isa, 7, side);
    batch.round::<I, S, ROUNDS>(isa, 8, side);
    batch.round::<I, S, ROUNDS>(isa, 9, side);
    if ROUNDS > 10 {
        batch.round::<I, S, ROUNDS>(isa, 10, side);
        batch.round::<I, S, ROUNDS>(isa, 11, side);
    }
    if ROUNDS > 12 {
        batch.round::<I, S, ROUNDS>(isa, 12, side);
        batch.round::<I, S, ROUNDS>(isa, 13, side);
    }
    for n in 0..N {
        let key = isa.broadcast(&tables[n].round_keys[ROUNDS]);
        for (state, data) in batch.states[n].iter_mut().zip(&data[n]) {
            *state = isa.aesenclast(*state, isa.xor(key, *data));
        }
    }
    batch.states
}

/// `LANES` as the counter's type.
const LANES_U32: [u32; 5] = [0, 1, 2, 3, 4];

/// AES states on their way.
struct Batch<'k, V, const N: usize, const R: usize> {
    tables: [&'k Tables; N],
    states: [[V; R]; N],
}

impl<V, const N: usize, const R: usize> Batch<'_, V, N, R> {
    #[inline(always)]
    fn round<I: Isa<V = V>, S: Side<I>, const ROUNDS: usize>(&mut self, isa: I, round: usize, side: &mut S)
    where
        V: Copy,
    {
        for n in 0..N {
            let key = isa.broadcast(&self.tables[n].round_keys[round]);
            for state in &mut self.states[n] {
                *state = isa.aesenc(*state, key);
            }
        }
        side.step::<ROUNDS>(isa, round);
    }
}

/// Loads the `R` vectors of a batch that starts at vector `v`; `FIRST` and `LAST` say whether it has the head and
/// the tail of the text.
#[inline(always)]
fn load<I: Isa, const FIRST: bool, const LAST: bool, const R: usize>(
    isa: I,
    packet: &[u8],
    shape: &Shape,
    v: usize,
) -> [I::V; R] {
    let mut data = [isa.zero(); R];
    for (j, data) in data.iter_mut().enumerate() {
        *data = if FIRST && j == 0 {
            isa.load_part(packet, shape.head)
        } else if LAST && j == R - 1 {
            isa.load_part(packet, shape.tail)
        } else {
            isa.load(packet, shape.middle::<I>(v + j))
        };
    }
    data
}

/// Writes what [`load`] has read.
#[inline(always)]
fn store<I: Isa, const FIRST: bool, const LAST: bool, const R: usize>(
    isa: I,
    packet: &mut [u8],
    shape: &Shape,
    v: usize,
    data: &[I::V; R],
) {
    for (j, &data) in data.iter().enumerate() {
        if FIRST && j == 0 {
            isa.store_part(packet, shape.head, data);
        } else if LAST && j == R - 1 {
            isa.store_part(packet, shape.tail, data);
        } else {
            isa.store(packet, shape.middle::<I>(v + j), data);
        }
    }
}

/// What GHASH takes of a batch of ciphertext: reversed, nothing outside of the text, AAD and lengths in their lanes.
/// `CLEAN` says that the vectors are zero outside of the text already.
#[inline(always)]
fn hash_input<I: Isa, const FIRST: bool, const LAST: bool, const CLEAN: bool, const R: usize>(
    isa: I,
    item: &Item<'_>,
    shape: &Shape,
    ciphertext: &[I::V; R],
) -> [I::V; R] {
    let mut blocks = *ciphertext;
    for (j, block) in blocks.iter_mut().enumerate() {
        let first = FIRST && j == 0;
        let last = LAST && j == R - 1;
        if !CLEAN && first {
            *block = isa.keep(*block, shape.head);
        } else if !CLEAN && last {
            *block = isa.keep(*block, shape.tail);
        }
        *block = isa.reverse(*block);
        if first {
            *block = isa.insert(*block, shape.pad, item.aad_high, item.aad_low);
        }
        if last {
            *block = isa.insert(*block, I::LANES - 1, item.aad_bits, item.text_bits());
        }
    }
    blocks
}
