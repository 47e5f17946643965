//! VAES and VPCLMULQDQ on 256-bit vectors: two blocks a vector, for AVX2 machines.
#![allow(
    unsafe_code,
    reason = "intrinsics: loads and stores by pointer, an empty asm!, and the calls into compiled-for code"
)]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{__m128i, __m256i};

use super::chacha::Integers;
use super::isa::{Isa, Task, forward_all};
use super::window2::{Frame, Window};
use crate::key::POWERS;
use crate::packet::PacketClass;

/// Proof that the CPU has VAES, VPCLMULQDQ and AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vaes256(());

impl Vaes256 {
    /// Asks the CPU; the error names what is missing.
    pub(crate) fn detect() -> Result<Self, Vec<&'static str>> {
        let features = [
            ("avx2", is_x86_feature_detected!("avx2")),
            ("aes", is_x86_feature_detected!("aes")),
            ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
            ("vaes", is_x86_feature_detected!("vaes")),
            ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
        ];
        let missing: Vec<_> = features.iter().filter(|(_, has)| !has).map(|(name, _)| *name).collect();
        if missing.is_empty() { Ok(Self(())) } else { Err(missing) }
    }
}

/// Lane-wise 256-bit products as three 128-bit columns; the middle one is Karatsuba's, which has the others in it.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    low: __m256i,
    mid: __m256i,
    high: __m256i,
}

/// With each lane's halves added up for Karatsuba's product.
#[derive(Clone, Copy)]
pub(crate) struct Power {
    whole: __m256i,
    folded: __m256i,
}

impl Isa for Vaes256 {
    type V = __m256i;
    type Block = __m128i;
    type Sum = Sum;
    type Frame = Frame;
    type Power = Power;
    type Window<'p> = Window<'p>;
    type Narrow = Self;
    type Hashes = Integers;
    type Turns = [__m256i; 2];

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
        // SAFETY: `self` is only made by `detect`, which has found every feature that `enter` is compiled for.
        unsafe { ops::enter(self, task) }
    }

    forward_all!();
}

/// The operations, compiled for the instruction set.
pub(super) mod ops {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_set_epi64x, _mm_setzero_si128, _mm_shuffle_epi8, _mm_xor_si128,
        _mm256_add_epi32, _mm256_aesenc_epi128, _mm256_aesenclast_epi128, _mm256_blend_epi32,
        _mm256_blendv_epi8, _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_clmulepi64_epi128,
        _mm256_extracti128_si256, _mm256_inserti128_si256, _mm256_loadu_si256, _mm256_or_si256,
        _mm256_permute2x128_si256, _mm256_set_m128i, _mm256_set1_epi32, _mm256_setr_epi32,
        _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_shuffle_epi32, _mm256_slli_epi32,
        _mm256_srli_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
        _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
    };
    use std::hint::black_box;

    use super::super::blocks::{
        add_octets, load_block, load_octets, mask, nonce_block, reversal, sent_aad, sent_iv_block,
        store_octets, turn_patterns,
    };
    pub(in super::super) use super::super::blocks::{
        block_of, equal, frame, icv, icv_matches, load_block as block, octets, pad, put_icv, window, wipe,
    };
    use super::{Frame, Power, Sum, Task, Vaes256, Window};
    use crate::kernel::gcm::POLYNOMIAL_HIGH;
    use crate::kernel::isa::pin;
    use crate::key::POWERS;

    type V = __m256i;

    #[target_feature(enable = "avx2,aes,pclmulqdq,vaes,vpclmulqdq")]
    #[inline(never)]
    pub(in super::super) fn enter<T: Task>(isa: Vaes256, task: T) -> T::Out {
        task.run(isa)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn zero() -> V {
        _mm256_setzero_si256()
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn xor(a: V, b: V) -> V {
        _mm256_xor_si256(a, b)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn broadcast(block: &[u8; 16]) -> V {
        _mm256_broadcastsi128_si256(load_block(block))
    }

    #[target_feature(enable = "avx2,vaes")]
    #[inline]
    pub(in super::super) fn aesenc(state: V, key: V) -> V {
        _mm256_aesenc_epi128(state, key)
    }

    #[target_feature(enable = "avx2,vaes")]
    #[inline]
    pub(in super::super) fn aesenclast(state: V, key: V) -> V {
        _mm256_aesenclast_epi128(state, key)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn reverse(v: V) -> V {
        _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(reversal()))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn nonce(salt: u32, iv: u64) -> V {
        _mm256_broadcastsi128_si256(nonce_block(salt, iv))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn sent_start(window: &Window<'_>, round_key: V) -> V {
        let round_key = _mm256_castsi256_si128(round_key);
        _mm256_broadcastsi128_si256(_mm_xor_si128(sent_iv_block(window), round_key))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn load_sent_head(window: &Window<'_>, around: V) -> V {
        let (head, aad) = (load_head(window, around), sent_aad(window));
        if window.pad() == 0 {
            _mm256_inserti128_si256::<0>(head, aad)
        } else {
            _mm256_inserti128_si256::<1>(head, aad)
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn insert_last(v: V, block: &[u8; 16]) -> V {
        _mm256_inserti128_si256::<1>(v, load_block(block))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn counters(window: &Window<'_>, v: usize) -> V {
        load(window.counters(v))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(octets: &[u8; 32]) -> V {
        // SAFETY: the reference covers the 32 octets that are read, and the load needs no alignment.
        unsafe { _mm256_loadu_si256(octets.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn store(octets: &mut [u8; 32], v: V) {
        // SAFETY: the reference covers the 32 octets that are written, and the store needs no alignment.
        unsafe { _mm256_storeu_si256(octets.as_mut_ptr().cast(), v) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn load_head(window: &Window<'_>, around: V) -> V {
        if !window.has_head() {
            return around;
        }
        _mm256_inserti128_si256::<1>(around, load_octets(window.packet(), window.text().start, 16))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn load_middle(window: &Window<'_>, v: usize) -> V {
        load(window.middle(v))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn load_tail(window: &Window<'_>, around: V) -> V {
        let (at, len) = window.tail();
        _mm256_inserti128_si256::<0>(around, load_octets(window.packet(), at, len))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn store_head(window: &mut Window<'_>, v: V) {
        if window.has_head() {
            let start = window.text().start;
            store_octets(window.packet_mut(), start, 16, lane(v, 1));
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn store_middle(window: &mut Window<'_>, v: usize, data: V) {
        store(window.middle_mut(v), data);
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn store_tail(window: &mut Window<'_>, v: V) {
        let (at, len) = window.tail();
        store_octets(window.packet_mut(), at, len, lane(v, 0));
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn select_head(window: &Window<'_>, inside: V, around: V) -> V {
        if window.has_head() { _mm256_blend_epi32::<0xf0>(around, inside) } else { around }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn select_tail(window: &Window<'_>, inside: V, around: V) -> V {
        let (_, len) = window.tail();
        _mm256_blendv_epi8(around, inside, place(mask(len), 0))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn place(block: __m128i, lane: usize) -> V {
        if lane == 0 {
            _mm256_set_m128i(_mm_setzero_si128(), block)
        } else {
            _mm256_set_m128i(block, _mm_setzero_si128())
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn insert(v: V, lane: usize, first: u64, second: u64) -> V {
        let block = _mm_set_epi64x(second.cast_signed(), first.cast_signed());
        if lane == 0 {
            _mm256_inserti128_si256::<0>(v, block)
        } else {
            _mm256_inserti128_si256::<1>(v, block)
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn lane(v: V, lane: usize) -> __m128i {
        if lane == 0 { _mm256_castsi256_si128(v) } else { _mm256_extracti128_si256::<1>(v) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn join([a, b, ..]: [__m128i; 4]) -> V {
        _mm256_set_m128i(b, a)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn splat(word: u32) -> V {
        _mm256_set1_epi32(word.cast_signed())
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn counting() -> V {
        _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn add_words(a: V, b: V) -> V {
        _mm256_add_epi32(a, b)
    }

    /// Patterns of octets. The compiler must not see them, or it makes two shuffles of halves out of one.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn turns() -> [V; 2] {
        let [by_16, by_8] = turn_patterns();
        black_box([_mm256_broadcastsi128_si256(by_16), _mm256_broadcastsi128_si256(by_8)])
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn rotate_16([pattern, _]: [V; 2], v: V) -> V {
        _mm256_shuffle_epi8(v, pattern)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn rotate_12(v: V) -> V {
        _mm256_or_si256(_mm256_slli_epi32::<12>(v), _mm256_srli_epi32::<20>(v))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn rotate_8([_, pattern]: [V; 2], v: V) -> V {
        _mm256_shuffle_epi8(v, pattern)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn rotate_7(v: V) -> V {
        _mm256_or_si256(_mm256_slli_epi32::<7>(v), _mm256_srli_epi32::<25>(v))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn transpose(rows: [V; 4]) -> [V; 4] {
        let [a, b, c, d] = rows;
        let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        [
            _mm256_unpacklo_epi64(ab_low, cd_low),
            _mm256_unpackhi_epi64(ab_low, cd_low),
            _mm256_unpacklo_epi64(ab_high, cd_high),
            _mm256_unpackhi_epi64(ab_high, cd_high),
        ]
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn turn([a, b, c, d]: [V; 4]) -> [V; 4] {
        [
            _mm256_permute2x128_si256::<0x20>(a, b),
            _mm256_permute2x128_si256::<0x20>(c, d),
            _mm256_permute2x128_si256::<0x31>(a, b),
            _mm256_permute2x128_si256::<0x31>(c, d),
        ]
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn front(v: V) -> [[u8; 16]; 2] {
        let mut front = [[0; 16]; 2];
        store(front.as_flattened_mut().first_chunk_mut().expect("two blocks"), v);
        front
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn add_whole(text: &mut [u8], v: V) {
        let text = text.first_chunk_mut().expect("as many octets as a vector");
        store(text, xor(load(text), v));
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn add_part(text: &mut [u8], v: V) {
        add_octets(text, &front(v));
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn no_sum() -> Sum {
        Sum { low: zero(), mid: zero(), high: zero() }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn pin(v: V, sum: Sum) -> (V, Sum) {
        let (mut v, Sum { mut low, mut mid, mut high }) = (v, sum);
        pin!(ymm_reg: v, low, mid, high);
        (v, Sum { low, mid, high })
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn pin_lanes(mut v: V, mut lanes: V) -> (V, V) {
        pin!(ymm_reg: v, lanes);
        (v, lanes)
    }

    #[target_feature(enable = "avx2,vpclmulqdq")]
    #[inline]
    pub(in super::super) fn mul_add(sum: Sum, x: V, power: Power) -> Sum {
        Sum {
            low: xor(sum.low, _mm256_clmulepi64_epi128::<0x00>(x, power.whole)),
            mid: xor(sum.mid, _mm256_clmulepi64_epi128::<0x00>(folded(x), power.folded)),
            high: xor(sum.high, _mm256_clmulepi64_epi128::<0x11>(x, power.whole)),
        }
    }

    /// In each half of a lane the sum of both halves.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn folded(v: V) -> V {
        xor(v, _mm256_shuffle_epi32::<0x4e>(v))
    }

    /// Folds the low column into the middle one, and that into the high one, by the field's polynomial.
    #[target_feature(enable = "avx2,vpclmulqdq")]
    #[inline]
    pub(in super::super) fn reduce(sum: Sum) -> V {
        let polynomial = _mm256_broadcastsi128_si256(_mm_set_epi64x(POLYNOMIAL_HIGH.cast_signed(), 1));
        let folded = _mm256_clmulepi64_epi128::<0x01>(polynomial, sum.low);
        let mid = xor(sum.mid, xor(sum.low, sum.high));
        let mid = xor(xor(mid, _mm256_shuffle_epi32::<0x4e>(sum.low)), folded);
        let folded = _mm256_clmulepi64_epi128::<0x01>(polynomial, mid);
        xor(xor(sum.high, _mm256_shuffle_epi32::<0x4e>(mid)), folded)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn power(v: V) -> Power {
        Power { whole: v, folded: folded(v) }
    }

    /// Lanes are hashed apart until the last batch, so both lanes have the same power.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn stride_power(powers: &[[u8; 16]; POWERS], k: usize) -> Power {
        power(broadcast(&powers[POWERS - 2 * k]))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn last_power(powers: &[[u8; 16]; POWERS], k: usize) -> Power {
        power(load(powers.as_flattened()[16 * (POWERS - 2 * k)..].first_chunk().expect("k is 1 to 8")))
    }

    #[target_feature(enable = "avx2,vpclmulqdq")]
    #[inline]
    pub(in super::super) fn tag(lanes: V, mask: __m128i) -> __m128i {
        let digest = _mm_xor_si128(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
        _mm_xor_si128(_mm_shuffle_epi8(digest, reversal()), mask)
    }

    #[target_feature(enable = "avx2,vpclmulqdq")]
    #[inline]
    pub(in super::super) fn tag_beside(frame: &Frame, lanes: &V, stream: &V) -> __m128i {
        tag(*lanes, lane(*stream, frame.pad))
    }
}
