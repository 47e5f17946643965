//! AES-NI and PCLMULQDQ on 128-bit vectors, taken two at a time: the algorithms see a vector of two blocks.
#![allow(
    unsafe_code,
    reason = "intrinsics: loads and stores by pointer, an empty asm!, and the calls into compiled-for code"
)]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::__m128i;

use super::chacha::Integers;
use super::isa::{Isa, Task, forward_all};
use super::window2::{Frame, Window};
use crate::key::POWERS;
use crate::packet::PacketClass;

/// Proof that the CPU has AES-NI, PCLMULQDQ and SSE up to 4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aesni {
    /// Whether it has AVX too: then the same code is compiled with three operands an instruction, of which one may be
    /// in memory anywhere. Only small cores lack it.
    avx: bool,
}

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
        if missing.is_empty() { Ok(Self { avx: is_x86_feature_detected!("avx") }) } else { Err(missing) }
    }

    /// As on a CPU without AVX.
    pub(crate) fn detect_without_avx() -> Result<Self, Vec<&'static str>> {
        Self::detect().map(|_| Self { avx: false })
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

/// With the halves of each block added up for Karatsuba's product: those of the first block in the first half.
#[derive(Clone, Copy)]
pub(crate) struct Power {
    whole: Pair,
    folded: __m128i,
}

impl Isa for Aesni {
    type V = Pair;
    type Block = __m128i;
    type Sum = Sum;
    type Frame = Frame;
    type Power = Power;
    type Window<'p> = Window<'p>;
    type Narrow = Self;
    type Hashes = Integers;
    type Turns = [__m128i; 2];

    const LANES: usize = 2;

    const SHORT: usize = 4;

    const REGISTERS: usize = 16;

    const ABREAST: usize = 2;

    #[inline(always)]
    fn narrow(self) -> Option<Self> {
        None
    }

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Out {
        if self.avx {
            // SAFETY: `self` is only made by `detect`, which has found every feature that `enter_avx` is compiled for.
            unsafe { ops::enter_avx(self, task) }
        } else {
            // SAFETY: `self` is only made by `detect`, which has found every feature that `enter` is compiled for.
            unsafe { ops::enter(self, task) }
        }
    }

    forward_all!();
}

/// The operations, compiled for the instruction set.
mod ops {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_and_si128, _mm_andnot_si128,
        _mm_clmulepi64_si128, _mm_loadu_si128, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi32, _mm_setr_epi32,
        _mm_setzero_si128, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_slli_epi32, _mm_srli_epi32,
        _mm_storeu_si128, _mm_unpackhi_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi32, _mm_unpacklo_epi64,
        _mm_xor_si128,
    };
    use std::hint::black_box;

    use super::super::blocks::{
        add_octets, load_block, load_octets, mask, nonce_block, reversal, sent_aad, sent_iv_block,
        store_octets, turn_patterns,
    };
    pub(super) use super::super::blocks::{
        block_of, equal, frame, icv, icv_matches, load_block as block, octets, pad, put_icv, window, wipe,
    };
    use super::{Aesni, Frame, Pair, Power, Sum, Task, Window};
    use crate::kernel::gcm::POLYNOMIAL_HIGH;
    use crate::kernel::isa::pin;
    use crate::key::POWERS;

    type V = Pair;

    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
    #[inline(never)]
    pub(super) fn enter<T: Task>(isa: Aesni, task: T) -> T::Out {
        task.run(isa)
    }

    #[target_feature(enable = "avx,aes,pclmulqdq,ssse3,sse4.1")]
    #[inline(never)]
    pub(super) fn enter_avx<T: Task>(isa: Aesni, task: T) -> T::Out {
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
    pub(super) fn sent_start(window: &Window<'_>, round_key: V) -> V {
        let block = _mm_xor_si128(sent_iv_block(window), round_key.0);
        Pair(block, block)
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn load_sent_head(window: &Window<'_>, around: V) -> V {
        let (head, aad) = (load_head(window, around), sent_aad(window));
        if window.pad() == 0 { Pair(aad, head.1) } else { Pair(head.0, aad) }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn insert_last(v: V, block: &[u8; 16]) -> V {
        Pair(v.0, load_block(block))
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn counters(window: &Window<'_>, v: usize) -> V {
        load(window.counters(v))
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn load(octets: &[u8; 32]) -> V {
        // SAFETY: the reference covers 32 octets, of which the first 16 are read; the load needs no alignment.
        let first = unsafe { _mm_loadu_si128(octets.as_ptr().cast()) };
        // SAFETY: the reference covers 32 octets, of which the last 16 are read; the load needs no alignment.
        Pair(first, unsafe { _mm_loadu_si128(octets[16..].as_ptr().cast()) })
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn store(octets: &mut [u8; 32], v: V) {
        let (first, second) = octets.split_at_mut(16);
        // SAFETY: the slice has the 16 octets that are written; the store needs no alignment.
        unsafe { _mm_storeu_si128(first.as_mut_ptr().cast(), v.0) };
        // SAFETY: the slice has the 16 octets that are written; the store needs no alignment.
        unsafe { _mm_storeu_si128(second.as_mut_ptr().cast(), v.1) };
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn load_head(window: &Window<'_>, around: V) -> V {
        if !window.has_head() {
            return around;
        }
        Pair(around.0, load_octets(window.packet(), window.text().start, 16))
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn load_middle(window: &Window<'_>, v: usize) -> V {
        load(window.middle(v))
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn load_tail(window: &Window<'_>, around: V) -> V {
        let (at, len) = window.tail();
        Pair(load_octets(window.packet(), at, len), around.1)
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn store_head(window: &mut Window<'_>, v: V) {
        if window.has_head() {
            let start = window.text().start;
            store_octets(window.packet_mut(), start, 16, lane(v, 1));
        }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn store_middle(window: &mut Window<'_>, v: usize, data: V) {
        store(window.middle_mut(v), data);
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn store_tail(window: &mut Window<'_>, v: V) {
        let (at, len) = window.tail();
        store_octets(window.packet_mut(), at, len, lane(v, 0));
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
        let text = text.first_chunk_mut().expect("as many octets as a vector");
        store(text, xor(load(text), v));
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

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn pin(v: V, sum: Sum) -> (V, Sum) {
        let (Pair(mut v, mut w), Sum { mut low, mut mid, mut high }) = (v, sum);
        pin!(xmm_reg: v, w, low, mid, high);
        (Pair(v, w), Sum { low, mid, high })
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn pin_lanes(mut v: V, mut lanes: V) -> (V, V) {
        pin!(xmm_reg: v.0, lanes.0);
        (v, lanes)
    }

    #[target_feature(enable = "pclmulqdq")]
    #[inline]
    pub(super) fn mul_add(sum: Sum, x: V, power: Power) -> Sum {
        let Power { whole, folded: folded_power } = power;
        let folded = folded(x);
        let low = _mm_xor_si128(sum.low, _mm_clmulepi64_si128::<0x00>(x.0, whole.0));
        let mid = _mm_xor_si128(sum.mid, _mm_clmulepi64_si128::<0x00>(folded, folded_power));
        let high = _mm_xor_si128(sum.high, _mm_clmulepi64_si128::<0x11>(x.0, whole.0));
        Sum {
            low: _mm_xor_si128(low, _mm_clmulepi64_si128::<0x00>(x.1, whole.1)),
            mid: _mm_xor_si128(mid, _mm_clmulepi64_si128::<0x11>(folded, folded_power)),
            high: _mm_xor_si128(high, _mm_clmulepi64_si128::<0x11>(x.1, whole.1)),
        }
    }

    /// The sums of the halves of both blocks.
    #[target_feature(enable = "sse2")]
    #[inline]
    fn folded(v: V) -> __m128i {
        _mm_xor_si128(_mm_unpacklo_epi64(v.0, v.1), _mm_unpackhi_epi64(v.0, v.1))
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

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn power(v: V) -> Power {
        Power { whole: v, folded: folded(v) }
    }

    /// As lanes are added up in every batch, each has its own power in every batch.
    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn stride_power(powers: &[[u8; 16]; POWERS], k: usize) -> Power {
        last_power(powers, k)
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn last_power(powers: &[[u8; 16]; POWERS], k: usize) -> Power {
        power(Pair(load_block(&powers[POWERS - 2 * k]), load_block(&powers[POWERS - 2 * k + 1])))
    }

    #[target_feature(enable = "ssse3,pclmulqdq")]
    #[inline]
    pub(super) fn tag(lanes: V, mask: __m128i) -> __m128i {
        _mm_xor_si128(_mm_shuffle_epi8(lanes.0, reversal()), mask)
    }

    #[target_feature(enable = "ssse3,pclmulqdq")]
    #[inline]
    pub(super) fn tag_beside(frame: &Frame, lanes: &V, stream: &V) -> __m128i {
        tag(*lanes, lane(*stream, frame.pad))
    }
}
