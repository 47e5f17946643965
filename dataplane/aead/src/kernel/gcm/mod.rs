//! AES-GCM over any [`Isa`].
//!
//! AAD, ciphertext and length block are one stream of blocks, aligned to its **end**: the length block is the last
//! lane of the last vector, and zero lanes, if any, come first. So every power of the hash key lies where an
//! aligned load finds it, head and tail of the text are one [`Part`] each, and the lane of the AAD has counter 1 by
//! itself: its AES slot computes E(J0), which the tag needs, for free.

mod burst;
mod derive;
mod huge;
mod open;
mod seal;

pub(crate) use burst::{OpenBurst, SealBurst};
pub(crate) use derive::{Absorb, Derive, aes_rounds};
pub(crate) use huge::Huge;
pub(crate) use open::OpenOne;
pub(crate) use seal::SealOne;

use super::isa::Isa;
use crate::key::{POWERS, Tables};
use crate::packet::Text;

/// x¹²⁷ + x¹²⁶ + x¹²¹ of the field's polynomial, reversed: the half that reduction multiplies by. The other half
/// is 1.
pub(crate) const POLYNOMIAL_HIGH: u64 = 0xc200_0000_0000_0000;

/// The longest text that the kernels take at once: as many blocks as [`COUNTERS`] has. It covers jumbo frames; what
/// is longer is no packet and goes a slower way.
pub(crate) const TEXT_MAX: usize = 16 * (TABLE - 8);

/// Entries of [`COUNTERS`].
const TABLE: usize = 640;

/// Lanes before the first counter in use: pad lanes have entries too.
const BEFORE: usize = 3;

/// Counter blocks without a nonce: entry `i` has the counter `i - BEFORE`, big-endian.
///
/// One exclusive-or with such a vector makes the input of AES, since the nonce and the first round key are joined
/// beforehand. Adding and byte-swapping instead costs three instructions a vector, on ports that are busy.
static COUNTERS: Aligned = {
    let mut blocks = [[0; 16]; TABLE];
    let mut i = BEFORE;
    while i < TABLE {
        let counter = i - BEFORE;
        blocks[i][14] = (counter >> 8) as u8;
        blocks[i][15] = (counter & 0xff) as u8;
        i += 1;
    }
    Aligned(blocks)
};

/// On cache lines of its own.
#[repr(align(64))]
struct Aligned([[u8; 16]; TABLE]);

/// One packet, or any other text, on its way through a kernel. Numbers are as they lie in memory.
#[repr(C)]
pub(crate) struct Item<'a> {
    pub(crate) iv: u64,
    /// The one block of AAD, in halves; where there was more, with the hash of all before added to it.
    pub(crate) aad: [u64; 2],
    pub(crate) aad_bits: u64,
    pub(crate) salt: u32,
    pub(crate) tables: &'a Tables,
    pub(crate) packet: &'a mut [u8],
    pub(crate) text: Text,
}

/// A packet that is sealed or opened beside others.
pub(crate) trait Packet<'k> {
    /// What comes of it.
    type Out: Copy + Default;

    /// The kernel's view of it.
    fn item(&mut self) -> Item<'_>;

    /// Its octets.
    fn packet(&mut self) -> &mut [u8];

    /// Its key.
    fn tables(&self) -> &'k Tables;

    /// Takes the tag that it has or ought to have.
    fn finish(&mut self, tag: [u8; 16]) -> Self::Out;
}

/// A single item, and its tag once it has one.
pub(crate) struct One<'a> {
    pub(crate) item: Item<'a>,
    pub(crate) tag: [u8; 16],
}

impl<'k> Packet<'k> for One<'k> {
    type Out = ();

    #[inline(always)]
    fn item(&mut self) -> Item<'_> {
        let item = &mut self.item;
        Item { packet: &mut *item.packet, ..*item }
    }

    #[inline(always)]
    fn packet(&mut self) -> &mut [u8] {
        self.item.packet
    }

    #[inline(always)]
    fn tables(&self) -> &'k Tables {
        self.item.tables
    }

    #[inline(always)]
    fn finish(&mut self, tag: [u8; 16]) {
        self.tag = tag;
    }
}

/// Vectors of a long packet that AES and GHASH take at once; their powers are in the key's table.
const BATCH: usize = 4;

/// How a text falls into vectors.
#[derive(Clone, Copy)]
struct Shape<I: Isa> {
    /// Vectors, of which the last has the length block.
    vectors: usize,
    /// Zero lanes before the AAD in the first.
    pad: usize,
    /// The text in the first vector, after the AAD.
    head: I::Part,
    head_at: usize,
    /// The text in the last vector, before the length block; with one vector, the same as `head`.
    tail: I::Part,
    tail_at: usize,
    /// Where vector 1 begins in the packet.
    second: usize,
}

/// Vectors that a text of `len` octets makes with its AAD and length blocks.
#[inline(always)]
pub(crate) fn vectors<I: Isa>(len: usize) -> usize {
    (len.div_ceil(16) + 2).div_ceil(I::LANES)
}

impl<I: Isa> Shape<I> {
    #[inline(always)]
    fn none(isa: I) -> Self {
        let none = isa.tail(0);
        Self { vectors: 1, pad: 0, head: none, head_at: 0, tail: none, tail_at: 0, second: 0 }
    }

    /// `vectors` is what the function of that name says for the text's length.
    #[inline(always)]
    fn new(isa: I, text: Text, vectors: usize) -> Self {
        let len = text.end - text.start;
        let pad = vectors * I::LANES - (len.div_ceil(16) + 2);
        if vectors == 1 {
            let part = isa.only(pad, len);
            let at = text.start;
            return Self { vectors, pad, head: part, head_at: at, tail: part, tail_at: at, second: at };
        }
        // Of two vectors and more, the first is full.
        let second = text.start + 16 * (I::LANES - 1 - pad);
        let tail_at = second + 16 * I::LANES * (vectors - 2);
        let (head, tail) = (isa.head(pad), isa.tail(text.end - tail_at));
        Self { vectors, pad, head, head_at: text.start, tail, tail_at, second }
    }

    /// Offset of vector `v`, which is neither the first nor the last.
    #[inline(always)]
    fn middle(&self, v: usize) -> usize {
        self.second + 16 * I::LANES * (v - 1)
    }

    /// Where the counters of vector `v` are in [`COUNTERS`]: the lane of the AAD has 1, as J0 does.
    #[inline(always)]
    fn counters(&self, v: usize) -> usize {
        BEFORE + 1 - self.pad + I::LANES * v
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

/// What AES is to work on: `R` vectors each of `N` packets.
struct Work<'k, 'd, I: Isa, const N: usize, const R: usize> {
    tables: [&'k Tables; N],
    /// Nonce and first round key, joined.
    start: [I::V; N],
    /// Where in [`COUNTERS`] each packet's counters begin.
    counters: [usize; N],
    data: &'d [[I::V; R]; N],
}

/// Nonce and first round key of a packet, joined: with a counter added, the input of AES's first full round.
#[inline(always)]
fn start<I: Isa>(isa: I, item: &Item<'_>) -> I::V {
    isa.xor(isa.nonce(item.salt, item.iv), isa.broadcast(&item.tables.round_keys[0]))
}

/// Counter mode, with `side` done between the rounds. `FIRST` says that the vectors are their packets' first: then
/// the second result is the key stream of each packet's first vector, which has E(J0).
#[inline(always)]
fn encrypt<I: Isa, S: Side<I>, const ROUNDS: usize, const FIRST: bool, const N: usize, const R: usize>(
    isa: I,
    work: &Work<'_, '_, I, N, R>,
    side: &mut S,
) -> ([[I::V; R]; N], [I::V; N]) {
    let mut states = [[isa.zero(); R]; N];
    for n in 0..N {
        for (j, state) in states[n].iter_mut().enumerate() {
            let counters = isa.counters(&COUNTERS.0, work.counters[n] + I::LANES * j);
            *state = isa.xor(work.start[n], counters);
        }
    }
    let mut batch = Batch { tables: work.tables, states };
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
    let mut streams = [isa.zero(); N];
    for n in 0..N {
        let key = isa.broadcast(&work.tables[n].round_keys[ROUNDS]);
        for (j, (state, data)) in batch.states[n].iter_mut().zip(&work.data[n]).enumerate() {
            if FIRST && j == 0 {
                streams[n] = isa.aesenclast(*state, key);
                *state = isa.xor(streams[n], *data);
            } else {
                // Joined with the key, the data is not on the path of the state.
                *state = isa.aesenclast(*state, isa.xor(key, *data));
            }
        }
    }
    (batch.states, streams)
}

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
/// the tail of the text. AAD and lengths are put in their lanes.
#[inline(always)]
fn load<I: Isa, const FIRST: bool, const LAST: bool, const R: usize>(
    isa: I,
    item: &Item<'_>,
    shape: &Shape<I>,
    v: usize,
) -> [I::V; R] {
    let mut data = [isa.zero(); R];
    for (j, data) in data.iter_mut().enumerate() {
        let (first, last) = (FIRST && j == 0, LAST && j == R - 1);
        *data = if first {
            isa.load_part(item.packet, shape.head_at, shape.head)
        } else if last {
            isa.load_part(item.packet, shape.tail_at, shape.tail)
        } else {
            isa.load(item.packet, shape.middle(v + j))
        };
        if first {
            *data = isa.insert(*data, shape.pad, item.aad[0], item.aad[1]);
        }
        if last {
            let text_bits = 8 * (item.text.end - item.text.start) as u64;
            *data = isa.insert(*data, I::LANES - 1, item.aad_bits.to_be(), text_bits.to_be());
        }
    }
    data
}

/// Writes the text of what [`load`] has read.
#[inline(always)]
fn store<I: Isa, const FIRST: bool, const LAST: bool, const R: usize>(
    isa: I,
    packet: &mut [u8],
    shape: &Shape<I>,
    v: usize,
    data: &[I::V; R],
) {
    for (j, &data) in data.iter().enumerate() {
        if FIRST && j == 0 {
            isa.store_part(packet, shape.head_at, shape.head, data);
        } else if LAST && j == R - 1 {
            isa.store_part(packet, shape.tail_at, shape.tail, data);
        } else {
            isa.store(packet, shape.middle(v + j), data);
        }
    }
}

/// What GHASH takes of a batch: `text` is the ciphertext, `data` what [`load`] has read, with AAD, lengths and zeros
/// around the text.
#[inline(always)]
fn hash_input<I: Isa, const FIRST: bool, const LAST: bool, const R: usize>(
    isa: I,
    shape: &Shape<I>,
    text: &[I::V; R],
    data: &[I::V; R],
) -> [I::V; R] {
    let mut blocks = *text;
    for (j, block) in blocks.iter_mut().enumerate() {
        if FIRST && j == 0 {
            *block = isa.select(shape.head, *block, data[j]);
        } else if LAST && j == R - 1 {
            *block = isa.select(shape.tail, *block, data[j]);
        }
        *block = isa.reverse(*block);
    }
    blocks
}

/// [`hash_input`] where the data is the ciphertext.
#[inline(always)]
fn reversed<I: Isa, const R: usize>(isa: I, data: &[I::V; R]) -> [I::V; R] {
    let mut blocks = *data;
    for block in &mut blocks {
        *block = isa.reverse(*block);
    }
    blocks
}
