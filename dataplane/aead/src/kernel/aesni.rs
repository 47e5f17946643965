//! AES-NI and PCLMULQDQ on 128-bit vectors, taken two at a time: the algorithms see a vector of two blocks.
#![allow(
    unsafe_code,
    reason = "intrinsics: loads and stores by pointer, and the calls into compiled-for code"
)]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::__m128i;

use super::chacha::Integers;
use super::isa::{Isa, Task, forward_all};
use super::window2::Window;
use crate::key::POWERS;
use crate::packet::Form;

/// Proof that the CPU has AES-NI, PCLMULQDQ and SSE up to 4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aesni(());

impl Aesni {
    /// Asks the CPU; the error names what is missing.
    pub(crate) fn detect() -> Result<Self, Vec<&'static str>> {
        let features = [
            ("aes", is_x86_feature_detected!("aes")),
            ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
            ("ssse3", is_x86_feature_detected!("ssse3")),
            ("sse4.1", is_x86_feature_detected!("sse4.1")),
        ];
        let missing: Vec<_> = features.iter().filter(|(_, has)| !has).map(|(name, _)| *name).collect();
        if missing.is_empty() { Ok(Self(())) } else { Err(missing) }
    }
}

/// Two blocks.
#[derive(Clone, Copy)]
pub(crate) struct Pair(__m128i, __m128i);

/// Products of all lanes together, as three 128-bit columns, of which the middle one is Karatsuba's and has the others
/// in it: with one block a register there is no gain in keeping lanes apart.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    low: __m128i,
    mid: __m128i,
    high: __m128i,
}

impl Isa for Aesni {
    type V = Pair;
    type Block = __m128i;
    type Sum = Sum;
    type Window<'p> = Window<'p>;
    type Hashes = Integers;

    type Turns = [__m128i; 2];

    const LANES: usize = 2;

    const ABREAST: usize = 2;

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Out {
        // SAFETY: `self` is only made by `detect`, which has found every feature that `enter` is compiled for.
        unsafe { ops::enter(self, task) }
    }

    forward_all!();
}

/// Single blocks and parts of them; the 256-bit kernel uses these too.
pub(super) mod blocks {
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_andnot_si128, _mm_bslli_si128, _mm_cmpeq_epi8, _mm_cvtsi32_si128,
        _mm_cvtsi64_si128, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi8, _mm_set_epi32,
        _mm_set_epi64x, _mm_set1_epi8, _mm_storeu_si128,
    };

    use super::Window;
    use crate::packet::Form;

    /// Sixteen ones, then sixteen zeros: a load at `16 - len` is the mask of the first `len` octets.
    static MASKS: [u8; 32] = {
        let mut masks = [0; 32];
        let mut i = 0;
        while i < 16 {
            masks[i] = 0xff;
            i += 1;
        }
        masks
    };

    #[target_feature(enable = "ssse3")]
    #[inline]
    pub(in super::super) fn reversal() -> __m128i {
        _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn load_block(block: &[u8; 16]) -> __m128i {
        // SAFETY: the reference covers the 16 octets that are read, and the load needs no alignment.
        unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn block_of(first: u64, second: u64) -> __m128i {
        _mm_set_epi64x(second.cast_signed(), first.cast_signed())
    }

    /// Salt, IV and a counter of zero.
    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn nonce_block(salt: u32, iv: u64) -> __m128i {
        let iv = _mm_bslli_si128::<4>(_mm_cvtsi64_si128(iv.cast_signed()));
        _mm_or_si128(iv, _mm_cvtsi32_si128(salt.cast_signed()))
    }

    /// The IV of a packet, with zeros where salt and counter are to be.
    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn sent_iv_block(front: &[u8; 20]) -> __m128i {
        let (block, _) = front[4..].split_first_chunk().expect("16 octets");
        _mm_and_si128(load_block(block), _mm_set_epi32(0, -1, -1, 0))
    }

    /// SPI and sequence number, where an IV of 8 octets follows and then the text.
    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn sent_aad(window: &Window<'_>) -> __m128i {
        let front =
            window.packet[window.text.start - 16..].first_chunk::<8>().expect("16 octets and the text");
        _mm_cvtsi64_si128(i64::from_le_bytes(*front))
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn store_block(octets: &mut [u8; 16], block: __m128i) {
        // SAFETY: the reference covers the 16 octets that are written, and the store needs no alignment.
        unsafe { _mm_storeu_si128(octets.as_mut_ptr().cast(), block) }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn octets(block: __m128i) -> [u8; 16] {
        let mut octets = [0; 16];
        store_block(&mut octets, block);
        octets
    }

    /// Ones for the first `len` octets.
    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn mask(len: usize) -> __m128i {
        let (ones_from, _) =
            MASKS[16 - len..].split_first_chunk().expect("16 octets follow any of the first 17");
        load_block(ones_from)
    }

    /// `len` octets, at most 16, and zero behind them. Where the packet goes on for long enough, as it does with
    /// an ICV of 16, the whole block is read and masked.
    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn load_octets(packet: &[u8], at: usize, len: usize) -> __m128i {
        if let Some((block, _)) = packet.get(at..).and_then(<[u8]>::split_first_chunk) {
            return _mm_and_si128(load_block(block), mask(len));
        }
        let mut block = [0; 16];
        block[..len].copy_from_slice(&packet[at..at + len]);
        load_block(&block)
    }

    /// Writes the first `len` octets of a block. Where the packet goes on for long enough, what follows is read
    /// and written back as it was.
    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn store_octets(packet: &mut [u8], at: usize, len: usize, block: __m128i) {
        if let Some((place, _)) = packet.get_mut(at..).and_then(<[u8]>::split_first_chunk_mut) {
            let mask = mask(len);
            let before = load_block(place);
            store_block(place, _mm_or_si128(_mm_and_si128(mask, block), _mm_andnot_si128(mask, before)));
        } else {
            packet[at..at + len].copy_from_slice(&octets(block)[..len]);
        }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn equal(octets: &[u8; 64], octet: u8) -> u64 {
        let octet = _mm_set1_epi8(octet.cast_signed());
        let (blocks, _) = octets.as_chunks::<16>();
        blocks.iter().rev().fold(0, |bits, block| {
            let equal = _mm_movemask_epi8(_mm_cmpeq_epi8(load_block(block), octet));
            (bits << 16) | u64::from(equal.cast_unsigned())
        })
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn window(packet: &mut [u8], form: Form, vectors: usize) -> Window<'_> {
        Window::new(packet, form, vectors)
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn pad(window: &Window<'_>) -> usize {
        window.pad
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn wipe(window: &mut Window<'_>) {
        window.wipe();
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn put_icv(window: &mut Window<'_>, tag: __m128i) {
        let len = window.icv_len();
        store_octets(window.packet, window.text.end, len, tag);
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn icv(window: &Window<'_>) -> __m128i {
        load_octets(window.packet, window.text.end, window.icv_len())
    }

    /// Where the octets of every 32-bit lane come from when it is turned left by 16 and by 8 bits.
    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn turn_patterns() -> [__m128i; 2] {
        [
            _mm_set_epi8(13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2),
            _mm_set_epi8(14, 13, 12, 15, 10, 9, 8, 11, 6, 5, 4, 7, 2, 1, 0, 3),
        ]
    }

    /// Exclusive or with the octets of a text, of which there are fewer.
    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn add_octets(text: &mut [u8], stream: &[[u8; 16]; 2]) {
        assert!(text.len() < 32, "the part of a vector");
        let (words, rest) = text.as_chunks_mut::<4>();
        let (stream, stream_rest) = stream.as_flattened().as_chunks::<4>().0.split_at(words.len());
        for (word, stream) in words.iter_mut().zip(stream) {
            *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(*stream)).to_ne_bytes();
        }
        for (octet, stream) in rest.iter_mut().zip(stream_rest.as_flattened()) {
            *octet ^= stream;
        }
    }

    /// All octets are compared before any branch.
    #[target_feature(enable = "sse2")]
    #[inline]
    pub(in super::super) fn icv_matches(window: &Window<'_>, tag: __m128i, received: __m128i) -> bool {
        let tag = _mm_and_si128(tag, mask(window.icv_len()));
        _mm_movemask_epi8(_mm_cmpeq_epi8(received, tag)) == 0xffff
    }
}

/// The operations, compiled for the instruction set.
mod ops {
    use std::hint::black_box;
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_and_si128, _mm_andnot_si128,
        _mm_clmulepi64_si128, _mm_loadu_si128, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi32,
        _mm_setr_epi32, _mm_setzero_si128, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_slli_epi32,
        _mm_srli_epi32, _mm_storeu_si128, _mm_unpackhi_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi32,
        _mm_unpacklo_epi64, _mm_xor_si128,
    };

    pub(super) use super::blocks::{
        block_of, equal, icv, icv_matches, load_block as block, octets, pad, put_icv, window, wipe,
    };
    use super::blocks::{
        add_octets, turn_patterns, load_block, load_octets, mask, nonce_block, reversal, sent_aad, sent_iv_block, store_octets,
    };
    use super::{Aesni, Pair, Sum, Task, Window};
    use crate::kernel::gcm::{COUNTERS, POLYNOMIAL_HIGH};
    use crate::key::POWERS;

    type V = Pair;

    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
    #[inline(never)]
    pub(super) fn enter<T: Task>(isa: Aesni, task: T) -> T::Out {
        task.run(isa)
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn zero() -> V {
        Pair(_mm_setzero_si128(), _mm_setzero_si128())
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn xor(a: V, b: V) -> V {
        Pair(_mm_xor_si128(a.0, b.0), _mm_xor_si128(a.1, b.1))
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn broadcast(block: &[u8; 16]) -> V {
        let block = load_block(block);
        Pair(block, block)
    }

    #[target_feature(enable = "aes")]
    #[inline]
    pub(super) fn aesenc(state: V, key: V) -> V {
        Pair(_mm_aesenc_si128(state.0, key.0), _mm_aesenc_si128(state.1, key.1))
    }

    #[target_feature(enable = "aes")]
    #[inline]
    pub(super) fn aesenclast(state: V, key: V) -> V {
        Pair(_mm_aesenclast_si128(state.0, key.0), _mm_aesenclast_si128(state.1, key.1))
    }

    #[target_feature(enable = "ssse3")]
    #[inline]
    pub(super) fn reverse(v: V) -> V {
        Pair(_mm_shuffle_epi8(v.0, reversal()), _mm_shuffle_epi8(v.1, reversal()))
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn nonce(salt: u32, iv: u64) -> V {
        let block = nonce_block(salt, iv);
        Pair(block, block)
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn sent_start(front: &[u8; 20], round_key: &[u8; 16]) -> V {
        let block = _mm_xor_si128(sent_iv_block(front), load_block(round_key));
        Pair(block, block)
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn load_sent_head(window: &Window<'_>) -> V {
        let aad = sent_aad(window);
        if window.pad == 0 { Pair(aad, load_head(window).1) } else { place(aad, 1) }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn insert_last(v: V, block: &[u8; 16]) -> V {
        Pair(v.0, load_block(block))
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn counters(window: &Window<'_>, v: usize) -> V {
        load(COUNTERS.0.as_flattened(), 16 * window.counters(v))
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn load(packet: &[u8], at: usize) -> V {
        let octets = &packet[at..at + 32];
        let second = octets[16..].as_ptr();
        // SAFETY: the slice has 32 octets, of which the first 16 are read; the load needs no alignment.
        let first = unsafe { _mm_loadu_si128(octets.as_ptr().cast()) };
        // SAFETY: the slice has 32 octets, of which the last 16 are read; the load needs no alignment.
        Pair(first, unsafe { _mm_loadu_si128(second.cast()) })
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn store(packet: &mut [u8], at: usize, v: V) {
        let (first, second) = packet[at..at + 32].split_at_mut(16);
        // SAFETY: the slice has the 16 octets that are written; the store needs no alignment.
        unsafe { _mm_storeu_si128(first.as_mut_ptr().cast(), v.0) };
        // SAFETY: the slice has the 16 octets that are written; the store needs no alignment.
        unsafe { _mm_storeu_si128(second.as_mut_ptr().cast(), v.1) };
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn load_head(window: &Window<'_>) -> V {
        if window.has_head() { place(load_octets(window.packet, window.text.start, 16), 1) } else { zero() }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn load_middle(window: &Window<'_>, v: usize) -> V {
        load(window.packet, window.at(v))
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn load_tail(window: &Window<'_>) -> V {
        let (at, len) = window.tail();
        place(load_octets(window.packet, at, len), 0)
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn store_head(window: &mut Window<'_>, v: V) {
        if window.has_head() {
            store_octets(window.packet, window.text.start, 16, lane(v, 1));
        }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn store_middle(window: &mut Window<'_>, v: usize, data: V) {
        let at = window.at(v);
        store(window.packet, at, data);
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn store_tail(window: &mut Window<'_>, v: V) {
        let (at, len) = window.tail();
        store_octets(window.packet, at, len, lane(v, 0));
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn select_head(window: &Window<'_>, inside: V, around: V) -> V {
        if window.has_head() { Pair(around.0, inside.1) } else { around }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn select_tail(window: &Window<'_>, inside: V, around: V) -> V {
        let (_, len) = window.tail();
        let mask = mask(len);
        Pair(_mm_or_si128(_mm_and_si128(mask, inside.0), _mm_andnot_si128(mask, around.0)), around.1)
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn place(block: __m128i, lane: usize) -> V {
        if lane == 0 { Pair(block, _mm_setzero_si128()) } else { Pair(_mm_setzero_si128(), block) }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn insert(v: V, lane: usize, first: u64, second: u64) -> V {
        let block = _mm_set_epi64x(second.cast_signed(), first.cast_signed());
        if lane == 0 { Pair(block, v.1) } else { Pair(v.0, block) }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn lane(v: V, lane: usize) -> __m128i {
        if lane == 0 { v.0 } else { v.1 }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn join([a, b, ..]: [__m128i; 4]) -> V {
        Pair(a, b)
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn splat(word: u32) -> V {
        let words = _mm_set1_epi32(word.cast_signed());
        Pair(words, words)
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn counting() -> V {
        Pair(_mm_setr_epi32(0, 1, 2, 3), _mm_setr_epi32(4, 5, 6, 7))
    }

    #[target_feature(enable = "ssse3")]
    #[inline]
    pub(super) fn add_words(a: V, b: V) -> V {
        Pair(_mm_add_epi32(a.0, b.0), _mm_add_epi32(a.1, b.1))
    }

    /// The compiler must not see the patterns, or it makes two shuffles of halves out of one.
    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn turns() -> [__m128i; 2] {
        black_box(turn_patterns())
    }

    #[target_feature(enable = "ssse3")]
    #[inline]
    pub(super) fn rotate_16([pattern, _]: [__m128i; 2], v: V) -> V {
        Pair(_mm_shuffle_epi8(v.0, pattern), _mm_shuffle_epi8(v.1, pattern))
    }

    #[target_feature(enable = "ssse3")]
    #[inline]
    pub(super) fn rotate_12(v: V) -> V {
        let rotate = |v| _mm_or_si128(_mm_slli_epi32::<12>(v), _mm_srli_epi32::<20>(v));
        Pair(rotate(v.0), rotate(v.1))
    }

    #[target_feature(enable = "ssse3")]
    #[inline]
    pub(super) fn rotate_8([_, pattern]: [__m128i; 2], v: V) -> V {
        Pair(_mm_shuffle_epi8(v.0, pattern), _mm_shuffle_epi8(v.1, pattern))
    }

    #[target_feature(enable = "ssse3")]
    #[inline]
    pub(super) fn rotate_7(v: V) -> V {
        let rotate = |v| _mm_or_si128(_mm_slli_epi32::<7>(v), _mm_srli_epi32::<25>(v));
        Pair(rotate(v.0), rotate(v.1))
    }

    #[target_feature(enable = "ssse3")]
    #[inline]
    pub(super) fn transpose(rows: [V; 4]) -> [V; 4] {
        let transpose = |a, b, c, d| {
            let (ab_low, ab_high) = (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
            [
                _mm_unpacklo_epi64(ab_low, cd_low),
                _mm_unpackhi_epi64(ab_low, cd_low),
                _mm_unpacklo_epi64(ab_high, cd_high),
                _mm_unpackhi_epi64(ab_high, cd_high),
            ]
        };
        let [a, b, c, d] = rows;
        let ([a0, b0, c0, d0], [a1, b1, c1, d1]) =
            (transpose(a.0, b.0, c.0, d.0), transpose(a.1, b.1, c.1, d.1));
        [Pair(a0, a1), Pair(b0, b1), Pair(c0, c1), Pair(d0, d1)]
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn turn([a, b, c, d]: [V; 4]) -> [V; 4] {
        [Pair(a.0, b.0), Pair(c.0, d.0), Pair(a.1, b.1), Pair(c.1, d.1)]
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn front(v: V) -> [[u8; 16]; 2] {
        [octets(v.0), octets(v.1)]
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn add_whole(text: &mut [u8], v: V) {
        store(text, 0, xor(load(text, 0), v));
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn add_part(text: &mut [u8], v: V) {
        add_octets(text, &front(v));
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn no_sum() -> Sum {
        Sum { low: _mm_setzero_si128(), mid: _mm_setzero_si128(), high: _mm_setzero_si128() }
    }

    #[target_feature(enable = "pclmulqdq")]
    #[inline]
    pub(super) fn mul_add(sum: Sum, x: V, power: V) -> Sum {
        mul_add_block(mul_add_block(sum, x.0, power.0), x.1, power.1)
    }

    #[target_feature(enable = "pclmulqdq")]
    #[inline]
    fn mul_add_block(sum: Sum, x: __m128i, power: __m128i) -> Sum {
        let product = _mm_clmulepi64_si128::<0x00>(folded(x), folded(power));
        Sum {
            low: _mm_xor_si128(sum.low, _mm_clmulepi64_si128::<0x00>(x, power)),
            mid: _mm_xor_si128(sum.mid, product),
            high: _mm_xor_si128(sum.high, _mm_clmulepi64_si128::<0x11>(x, power)),
        }
    }

    /// In each half the sum of both halves.
    #[target_feature(enable = "sse2")]
    #[inline]
    fn folded(block: __m128i) -> __m128i {
        _mm_xor_si128(block, _mm_shuffle_epi32::<0x4e>(block))
    }

    /// The sum has all lanes in one, so the result is the first lane, and the other is zero.
    #[target_feature(enable = "pclmulqdq")]
    #[inline]
    pub(super) fn reduce(sum: Sum) -> V {
        Pair(reduce_block(sum), _mm_setzero_si128())
    }

    /// Folds the low column into the middle one, and that into the high one, by the field's polynomial.
    #[target_feature(enable = "pclmulqdq")]
    #[inline]
    fn reduce_block(sum: Sum) -> __m128i {
        let polynomial = _mm_set_epi64x(POLYNOMIAL_HIGH.cast_signed(), 1);
        let folded = _mm_clmulepi64_si128::<0x01>(polynomial, sum.low);
        let mid = _mm_xor_si128(sum.mid, _mm_xor_si128(sum.low, sum.high));
        let mid = _mm_xor_si128(_mm_xor_si128(mid, _mm_shuffle_epi32::<0x4e>(sum.low)), folded);
        let folded = _mm_clmulepi64_si128::<0x01>(polynomial, mid);
        _mm_xor_si128(_mm_xor_si128(sum.high, _mm_shuffle_epi32::<0x4e>(mid)), folded)
    }

    /// As lanes are added up in every batch, each has its own power in every batch.
    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn stride_power(powers: &[[u8; 16]; POWERS], k: usize) -> V {
        last_power(powers, k)
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn last_power(powers: &[[u8; 16]; POWERS], k: usize) -> V {
        Pair(load_block(&powers[POWERS - 2 * k]), load_block(&powers[POWERS - 2 * k + 1]))
    }

    #[target_feature(enable = "ssse3,pclmulqdq")]
    #[inline]
    pub(super) fn tag(sum: Sum, mask: __m128i) -> __m128i {
        _mm_xor_si128(_mm_shuffle_epi8(reduce_block(sum), reversal()), mask)
    }

    #[target_feature(enable = "ssse3,pclmulqdq")]
    #[inline]
    pub(super) fn tag_beside(window: &Window<'_>, sum: Sum, stream: V) -> __m128i {
        tag(sum, lane(stream, window.pad))
    }
}
