//! AES-GCM over any [`Isa`].
//!
//! AAD, ciphertext and length block are one stream of blocks, aligned to its **end**: the length block is the last
//! lane of the last vector, and zero lanes, if any, come first. So every power of the hash key lies where an
//! aligned load finds it, head and tail of the text are one mask each, and the lane of the AAD has counter 1 by
//! itself: its AES slot computes E(J0), which the tag needs, for free.

mod burst;
mod derive;
mod hash;
mod huge;
mod long;
mod rounds;
mod short;
mod turn;

pub(crate) use burst::{Detached, OpenBurst, SealBurst};
pub(crate) use derive::{Absorb, Derive, aes_rounds};
pub(crate) use huge::Huge;

use super::isa::Isa;
use crate::key::Tables;
use crate::packet::{PacketClass, Text};

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

/// The block of lengths of short texts, by octets of text: with 8 octets of AAD and with 12.
///
/// One masked load puts it in its lane, where two numbers would take four instructions on a busy port.
static LENGTHS: [[[u8; 16]; 2]; SHORT_TEXT_MAX + 1] = {
    let mut blocks = [[[0; 16]; 2]; SHORT_TEXT_MAX + 1];
    let mut len = 0;
    while len <= SHORT_TEXT_MAX {
        let [.., high, low] = (8 * len).to_be_bytes();
        blocks[len][0][7] = 64;
        blocks[len][1][7] = 96;
        blocks[len][0][14] = high;
        blocks[len][0][15] = low;
        blocks[len][1][14] = high;
        blocks[len][1][15] = low;
        len += 1;
    }
    blocks
};

/// The longest text of six 512-bit vectors.
const SHORT_TEXT_MAX: usize = 6 * 64 - 32;

/// One packet, or any other text, on its way through a kernel.
pub(crate) struct PacketText<'a> {
    pub(crate) beside: NonceAad,
    /// The block of lengths, if it is in a table.
    pub(crate) lengths: Option<&'static [u8; 16]>,
    pub(crate) tables: &'a Tables,
    pub(crate) packet: &'a mut [u8],
    pub(crate) text: Text,
}

/// What AES-GCM takes besides key and text. Numbers are as they lie in memory.
#[derive(Clone, Copy)]
pub(crate) enum NonceAad {
    /// The 16 octets before the text are SPI, sequence number and IV, and the first 8 of them are the AAD.
    Sent,
    /// The IV, too, lies in the 8 octets before the text, but the AAD is 12 octets and not as it was sent.
    Extended { aad: [u64; 2] },
    /// Anything.
    SplitNonceAad(SplitNonceAad),
}

/// Nonce and AAD.
#[derive(Clone, Copy)]
pub(crate) struct SplitNonceAad {
    pub(crate) iv: u64,
    /// Added to the salt that is in the first round key.
    pub(crate) salt: u32,
    /// The one block of AAD, in halves; where there was more, with the hash of all before added to it.
    pub(crate) aad: [u64; 2],
    pub(crate) aad_bits: u64,
}

impl NonceAad {
    /// Bits of AAD.
    #[inline(always)]
    fn aad_bits(self) -> u64 {
        match self {
            Self::Sent => 64,
            Self::Extended { .. } => 96,
            Self::SplitNonceAad(apart) => apart.aad_bits,
        }
    }
}

/// A packet that is sealed or opened.
pub(crate) trait Packet<'k> {
    /// What comes of it.
    type Out: Copy + Default;

    /// Whether the text becomes ciphertext; else it is that.
    const SEALS: bool;

    /// Whether it is an ESP packet, which may have all that belongs to it as it is sent.
    const ESP: bool;

    /// What it has in common with others.
    fn form(&self) -> PacketClass;

    /// Whether it has this form.
    fn is_of(&self, form: &PacketClass) -> bool;

    /// The kernel's view of it, by its form.
    fn item(&mut self, form: PacketClass) -> PacketText<'_>;

    /// All of it.
    fn packet(&mut self) -> &mut [u8];

    /// Its key.
    fn tables(&self) -> &'k Tables;

    /// Asks the CPU for what of the key the order of the burst has not touched.
    fn prefetch<const ROUNDS: usize>(&self) {}

    /// Takes the tag that it has or ought to have; `received` is what came with it, where it is opened.
    fn finish<I: Isa>(isa: I, window: &mut I::Window<'_>, tag: I::Block, received: I::Block) -> Self::Out;

    /// Whether nobody may see the text.
    fn refused(out: Self::Out) -> bool;
}

/// A single item, of which the tag is wanted and not an ICV in its place.
pub(crate) struct One<'a, const SEALS: bool> {
    pub(crate) item: PacketText<'a>,
    pub(crate) form: PacketClass,
}

impl<'k, const SEALS: bool> Packet<'k> for One<'k, SEALS> {
    type Out = [u8; 16];

    const SEALS: bool = SEALS;

    const ESP: bool = false;

    #[inline(always)]
    fn form(&self) -> PacketClass {
        self.form
    }

    /// There is no other.
    #[inline(always)]
    fn is_of(&self, _: &PacketClass) -> bool {
        true
    }

    #[inline(always)]
    fn item(&mut self, _: PacketClass) -> PacketText<'_> {
        let item = &mut self.item;
        PacketText { packet: &mut *item.packet, ..*item }
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

    /// The caller has the tag and knows what to do.
    #[inline(always)]
    fn refused(_: [u8; 16]) -> bool {
        false
    }
}

/// Jobs of a burst, a bit for each.
#[derive(Clone)]
pub(crate) struct Jobs(u64);

impl Jobs {
    /// The first of them.
    #[inline(always)]
    fn first(&self) -> Option<usize> {
        self.clone().next()
    }

    /// Takes out what is in `bits`, too.
    #[inline(always)]
    fn split_off(&mut self, bits: u64) -> Self {
        let taken = Self(self.0 & bits);
        self.0 &= !bits;
        taken
    }

    /// Takes one out.
    #[inline(always)]
    fn remove(&mut self, index: usize) {
        self.0 &= !(1 << index);
    }

    /// Puts one back.
    #[inline(always)]
    fn put(&mut self, index: usize) {
        self.0 |= 1 << index;
    }
}

/// The keys of a class, asked for a few packets ahead of their use.
///
/// All at once would be more than the 16 lines that a core waits for at a time, and it would wait for those.
struct Ahead {
    /// Whose keys nobody has asked for.
    later: Jobs,
}

impl Ahead {
    /// Asks for the keys of the first packets. Where all keys of the burst are one, nothing is to be asked for.
    #[inline(always)]
    fn new<'k, P: Packet<'k>, const ROUNDS: usize>(jobs: &[P], class: &Jobs, many_keys: bool) -> Self {
        let mut ahead = Self { later: if many_keys { class.clone() } else { Jobs(0) } };
        for _ in 0..AHEAD {
            ahead.step::<P, ROUNDS>(jobs);
        }
        ahead
    }

    /// Asks for the key of one more packet.
    #[inline(always)]
    fn step<'k, P: Packet<'k>, const ROUNDS: usize>(&mut self, jobs: &[P]) {
        if let Some(index) = self.later.next() {
            jobs[index].prefetch::<ROUNDS>();
        }
    }
}

/// Packets from asking for a key to its use: a line comes from L3 in the time of four to five short packets.
const AHEAD: usize = 6;

impl Iterator for Jobs {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let index = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(index)
    }
}

/// Vectors of a long packet that AES and GHASH take at once; their powers are in the key's table.
const BATCH: usize = 4;

/// Vectors that a text of `len` octets makes with its AAD and length blocks.
#[inline(always)]
pub(crate) fn vectors<I: Isa>(len: usize) -> usize {
    // A shift: `div_ceil` minds an overflow that cannot be.
    (len + 32 + 16 * I::LANES - 1) >> (16 * I::LANES).ilog2()
}

/// Nonce and first round key of a packet, joined: with a counter added, the input of AES's first full round.
#[inline(always)]
fn start<I: Isa>(isa: I, window: &I::Window<'_>, beside: NonceAad, round_key: I::V) -> I::V {
    match beside {
        NonceAad::Sent | NonceAad::Extended { .. } => isa.sent_start(window, round_key),
        NonceAad::SplitNonceAad(SplitNonceAad { iv, salt, .. }) => isa.xor(isa.nonce(salt, iv), round_key),
    }
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

/// What a text has around it in its vectors.
#[derive(Clone, Copy)]
struct Around {
    beside: NonceAad,
    text_len: usize,
    lengths: Option<&'static [u8; 16]>,
}

impl Around {
    #[inline(always)]
    fn new(item: &PacketText<'_>) -> Self {
        Self { beside: item.beside, text_len: item.text.end - item.text.start, lengths: item.lengths }
    }

    /// What all packets of a form have whose text is short.
    #[inline(always)]
    fn sent(form: PacketClass) -> Self {
        let text_len = form.text.end - form.text.start;
        Self { beside: NonceAad::Sent, text_len, lengths: Some(&LENGTHS[text_len][0]) }
    }

    /// The first vector, with the AAD in its lane; `around` is what it has besides.
    #[inline(always)]
    fn load_head<I: Isa>(self, isa: I, window: &I::Window<'_>, around: I::V) -> I::V {
        match self.beside {
            NonceAad::Sent => isa.load_sent_head(window, around),
            NonceAad::Extended { aad } | NonceAad::SplitNonceAad(SplitNonceAad { aad, .. }) => {
                isa.insert(isa.load_head(window, around), isa.pad(window), aad[0], aad[1])
            }
        }
    }

    /// The block of lengths in the last lane.
    #[inline(always)]
    fn lengths<I: Isa>(self, isa: I) -> I::V {
        if let Some(lengths) = self.lengths {
            return isa.insert_last(isa.zero(), lengths);
        }
        let text_bits = 8 * self.text_len as u64;
        isa.insert(isa.zero(), I::LANES - 1, self.beside.aad_bits().to_be(), text_bits.to_be())
    }
}

/// Loads the `R` vectors of a batch that starts at vector `v`; `FIRST` and `LAST` say whether it has the head and
/// the tail of the text. AAD and lengths are put in their lanes.
#[inline(always)]
fn load<I: Isa, const FIRST: bool, const LAST: bool, const R: usize>(
    isa: I,
    window: &I::Window<'_>,
    around: Around,
    lengths: I::V,
    v: usize,
) -> [I::V; R] {
    let mut data = [isa.zero(); R];
    for (j, data) in data.iter_mut().enumerate() {
        let (first, last) = (FIRST && j == 0, LAST && j == R - 1);
        let lengths = if last { lengths } else { isa.zero() };
        *data = if first {
            around.load_head(isa, window, lengths)
        } else if last {
            isa.load_tail(window, lengths)
        } else {
            isa.load_middle(window, v + j)
        };
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
