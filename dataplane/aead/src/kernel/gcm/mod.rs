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
pub(crate) const TABLE: usize = 640;

/// Lanes before the first counter in use: pad lanes have entries too.
pub(crate) const BEFORE: usize = 3;

/// Counter blocks without a nonce: entry `i` has the counter `i - BEFORE`, big-endian.
///
/// One exclusive-or with such a vector makes the input of AES, since the nonce and the first round key are joined
/// beforehand. Adding and byte-swapping instead costs three instructions a vector, on ports that are busy.
pub(crate) static COUNTERS: Aligned = {
    let mut blocks = [[0; 16]; TABLE];
    let mut i = BEFORE;
    while i < TABLE {
        let [.., high, low] = (i - BEFORE).to_be_bytes();
        blocks[i][14] = high;
        blocks[i][15] = low;
        i += 1;
    }
    Aligned(blocks)
};

/// On cache lines of its own.
#[repr(align(64))]
pub(crate) struct Aligned(pub(crate) [[u8; 16]; TABLE]);

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

    /// Takes the tag that it has or ought to have; `received` is what came with it.
    fn finish<I: Isa>(isa: I, window: &mut I::Window<'_>, tag: I::Block, received: I::Block) -> Self::Out;
}

/// A single item, of which the tag is wanted and not an ICV in its place.
pub(crate) struct One<'a> {
    pub(crate) item: Item<'a>,
}

impl<'k> Packet<'k> for One<'k> {
    type Out = [u8; 16];

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
    fn finish<I: Isa>(isa: I, _: &mut I::Window<'_>, tag: I::Block, _: I::Block) -> [u8; 16] {
        isa.octets(tag)
    }
}

/// Vectors of a long packet that AES and GHASH take at once; their powers are in the key's table.
const BATCH: usize = 4;

/// Vectors that a text of `len` octets makes with its AAD and length blocks.
#[inline(always)]
pub(crate) fn vectors<I: Isa>(len: usize) -> usize {
    (len.div_ceil(16) + 2).div_ceil(I::LANES)
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
#[derive(Clone, Copy)]
struct Work<'k, 'd, I: Isa, const N: usize, const R: usize> {
    tables: [&'k Tables; N],
    /// The inputs of the first full round.
    states: [[I::V; R]; N],
    data: &'d [[I::V; R]; N],
}

/// Nonce and first round key of a packet, joined: with a counter added, the input of AES's first full round.
#[inline(always)]
fn start<I: Isa>(isa: I, tables: &Tables, salt: u32, iv: u64) -> I::V {
    isa.xor(isa.nonce(salt, iv), isa.broadcast(&tables.round_keys[0]))
}

/// The inputs of AES for the vectors from `v` on.
#[inline(always)]
fn states<I: Isa, const R: usize>(isa: I, window: &I::Window<'_>, start: I::V, v: usize) -> [I::V; R] {
    let mut states = [start; R];
    for (j, state) in states.iter_mut().enumerate() {
        *state = isa.xor(*state, isa.counters(window, v + j));
    }
    states
}

/// Counter mode, with `side` done between the rounds. `FIRST` says that the vectors are their packets' first: then
/// the second result is the key stream of each packet's first vector, which has E(J0).
#[inline(always)]
fn encrypt<I: Isa, S: Side<I>, const ROUNDS: usize, const FIRST: bool, const N: usize, const R: usize>(
    isa: I,
    work: Work<'_, '_, I, N, R>,
    side: &mut S,
) -> ([[I::V; R]; N], [I::V; N]) {
    let Work { tables, states, data } = work;
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
    let mut streams = [isa.zero(); N];
    for (n, stream) in streams.iter_mut().enumerate() {
        let key = isa.broadcast(&tables[n].round_keys[ROUNDS]);
        for (j, (state, data)) in batch.states[n].iter_mut().zip(&data[n]).enumerate() {
            if FIRST && j == 0 {
                *stream = isa.aesenclast(*state, key);
                *state = isa.xor(*stream, *data);
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

/// What a text has around it in its vectors.
#[derive(Clone, Copy)]
struct Around {
    aad: [u64; 2],
    aad_bits: u64,
    text_bits: u64,
}

impl Around {
    #[inline(always)]
    fn new(item: &Item<'_>) -> Self {
        let text_bits = 8 * (item.text.end - item.text.start) as u64;
        Self { aad: item.aad, aad_bits: item.aad_bits, text_bits }
    }
}

/// Loads the `R` vectors of a batch that starts at vector `v`; `FIRST` and `LAST` say whether it has the head and
/// the tail of the text. AAD and lengths are put in their lanes.
#[inline(always)]
fn load<I: Isa, const FIRST: bool, const LAST: bool, const R: usize>(
    isa: I,
    window: &I::Window<'_>,
    around: Around,
    v: usize,
) -> [I::V; R] {
    let mut data = [isa.zero(); R];
    for (j, data) in data.iter_mut().enumerate() {
        let (first, last) = (FIRST && j == 0, LAST && j == R - 1);
        *data = if first {
            isa.load_head(window)
        } else if last {
            isa.load_tail(window)
        } else {
            isa.load_middle(window, v + j)
        };
        if first {
            *data = isa.insert(*data, isa.pad(window), around.aad[0], around.aad[1]);
        }
        if last {
            *data = isa.insert(*data, I::LANES - 1, around.aad_bits.to_be(), around.text_bits.to_be());
        }
    }
    data
}

/// Writes the text of what [`load`] has read.
#[inline(always)]
fn store<I: Isa, const FIRST: bool, const LAST: bool, const R: usize>(
    isa: I,
    window: &mut I::Window<'_>,
    v: usize,
    data: &[I::V; R],
) {
    for (j, &data) in data.iter().enumerate() {
        if FIRST && j == 0 {
            isa.store_head(window, data);
        } else if LAST && j == R - 1 {
            isa.store_tail(window, data);
        } else {
            isa.store_middle(window, v + j, data);
        }
    }
}

/// What GHASH takes of a batch: `text` is the ciphertext, `data` what [`load`] has read, with AAD, lengths and zeros
/// around the text.
#[inline(always)]
fn hash_input<I: Isa, const FIRST: bool, const LAST: bool, const R: usize>(
    isa: I,
    window: &I::Window<'_>,
    text: &[I::V; R],
    data: &[I::V; R],
) -> [I::V; R] {
    let mut blocks = *text;
    for (j, block) in blocks.iter_mut().enumerate() {
        if FIRST && j == 0 {
            *block = isa.select_head(window, *block, data[j]);
        } else if LAST && j == R - 1 {
            *block = isa.select_tail(window, *block, data[j]);
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
