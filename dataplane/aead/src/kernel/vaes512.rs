//! VAES and VPCLMULQDQ on 512-bit vectors: four blocks a vector, head and tail by byte mask.
#![allow(
    unsafe_code,
    reason = "intrinsics: loads and stores by pointer, and the calls into compiled-for code"
)]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{__m128i, __m512i};

use super::isa::{Isa, Part, Task, forward_all};
use crate::key::POWERS;

/// Proof that the CPU has VAES, VPCLMULQDQ, BMI2 and AVX-512 with BW, DQ and VL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vaes512(());

impl Vaes512 {
    /// Asks the CPU; the error names what is missing.
    pub(crate) fn detect() -> Result<Self, Vec<&'static str>> {
        let features = [
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512bw", is_x86_feature_detected!("avx512bw")),
            ("avx512vl", is_x86_feature_detected!("avx512vl")),
            ("avx512dq", is_x86_feature_detected!("avx512dq")),
            ("bmi2", is_x86_feature_detected!("bmi2")),
            ("aes", is_x86_feature_detected!("aes")),
            ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
            ("vaes", is_x86_feature_detected!("vaes")),
            ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
        ];
        let missing: Vec<_> = features.iter().filter(|(_, has)| !has).map(|(name, _)| *name).collect();
        if missing.is_empty() { Ok(Self(())) } else { Err(missing) }
    }
}

/// Lane-wise 256-bit products as three 128-bit columns.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    low: __m512i,
    mid: __m512i,
    high: __m512i,
}

impl Isa for Vaes512 {
    type V = __m512i;
    type Block = __m128i;
    type Sum = Sum;

    const LANES: usize = 4;
    const IN_FLIGHT: usize = 8;

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Out {
        // SAFETY: `self` is only made by `detect`, which has found every feature that `enter` is compiled for.
        unsafe { ops::enter(self, task) }
    }

    forward_all!();
}

/// The operations, compiled for the instruction set.
mod ops {
    use std::arch::x86_64::{
        __m128i, __m512i, __mmask16, __mmask64, _bzhi_u64, _mm_loadu_si128, _mm_set_epi8, _mm_set_epi64x,
        _mm_shuffle_epi8, _mm_storeu_si128, _mm_xor_si128, _mm256_castsi256_si128, _mm256_extracti128_si256,
        _mm256_xor_si256, _mm512_add_epi32, _mm512_aesenc_epi128, _mm512_aesenclast_epi128,
        _mm512_broadcast_i32x4, _mm512_castsi512_si256, _mm512_clmulepi64_epi128, _mm512_extracti64x4_epi64,
        _mm512_loadu_si512, _mm512_mask_broadcast_i32x4, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8,
        _mm512_maskz_mov_epi8, _mm512_set_epi32, _mm512_set4_epi32, _mm512_setzero_si512,
        _mm512_shuffle_epi8, _mm512_shuffle_epi32, _mm512_storeu_si512, _mm512_xor_si512,
    };

    use super::{Part, Sum, Task, Vaes512};
    use crate::kernel::gcm::POLYNOMIAL_HIGH;
    use crate::key::POWERS;

    type V = __m512i;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,bmi2,aes,pclmulqdq,vaes,vpclmulqdq")]
    #[inline(never)]
    pub(super) fn enter<T: Task>(isa: Vaes512, task: T) -> T::Out {
        task.run(isa)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn zero() -> V {
        _mm512_setzero_si512()
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn xor(a: V, b: V) -> V {
        _mm512_xor_si512(a, b)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn broadcast(block: &[u8; 16]) -> V {
        // SAFETY: the reference covers the 16 octets that are read, and the load needs no alignment.
        _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(block.as_ptr().cast()) })
    }

    #[target_feature(enable = "avx512f,vaes")]
    #[inline]
    pub(super) fn aesenc(state: V, key: V) -> V {
        _mm512_aesenc_epi128(state, key)
    }

    #[target_feature(enable = "avx512f,vaes")]
    #[inline]
    pub(super) fn aesenclast(state: V, key: V) -> V {
        _mm512_aesenclast_epi128(state, key)
    }

    #[target_feature(enable = "ssse3")]
    #[inline]
    fn reversal() -> __m128i {
        _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn reverse(v: V) -> V {
        _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(reversal()))
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn block(high: u64, low: u64) -> __m128i {
        _mm_set_epi64x(high.cast_signed(), low.cast_signed())
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn counters(first_high: u64, first_low: u64) -> V {
        let lanes = _mm512_set_epi32(0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0);
        _mm512_add_epi32(_mm512_broadcast_i32x4(block(first_high, first_low)), lanes)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn add_counter(counters: V, n: u32) -> V {
        _mm512_add_epi32(counters, _mm512_set4_epi32(0, 0, 0, n.cast_signed()))
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn load(packet: &[u8], at: usize) -> V {
        let octets = &packet[at..at + 64];
        // SAFETY: the slice covers the 64 octets that are read, and the load needs no alignment.
        unsafe { _mm512_loadu_si512(octets.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn store(packet: &mut [u8], at: usize, v: V) {
        let octets = &mut packet[at..at + 64];
        // SAFETY: the slice covers the 64 octets that are written, and the store needs no alignment.
        unsafe { _mm512_storeu_si512(octets.as_mut_ptr().cast(), v) }
    }

    /// One bit for each octet of the part; 64 is a position that `bzhi` knows.
    #[target_feature(enable = "bmi2")]
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "both positions are at most 64")]
    fn mask(part: Part) -> __mmask64 {
        let first = 16 * part.lane;
        _bzhi_u64(u64::MAX, (first + part.len) as u32) & !_bzhi_u64(u64::MAX, first as u32)
    }

    #[target_feature(enable = "avx512f,avx512bw,bmi2")]
    #[inline]
    pub(super) fn load_part(packet: &[u8], part: Part) -> V {
        let octets = &packet[part.at..part.at + part.len];
        let lane_0 = octets.as_ptr().wrapping_sub(16 * part.lane);
        let mask = mask(part);
        // SAFETY: the mask's set bits are the octets of the slice, counted from lane 0; others are not touched.
        unsafe { _mm512_maskz_loadu_epi8(mask, lane_0.cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw,bmi2")]
    #[inline]
    pub(super) fn store_part(packet: &mut [u8], part: Part, v: V) {
        let octets = &mut packet[part.at..part.at + part.len];
        let lane_0 = octets.as_mut_ptr().wrapping_sub(16 * part.lane);
        let mask = mask(part);
        // SAFETY: the mask's set bits are the octets of the slice, counted from lane 0; others are not touched.
        unsafe { _mm512_mask_storeu_epi8(lane_0.cast(), mask, v) }
    }

    #[target_feature(enable = "avx512f,avx512bw,bmi2")]
    #[inline]
    pub(super) fn keep(v: V, part: Part) -> V {
        _mm512_maskz_mov_epi8(mask(part), v)
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    pub(super) fn insert(v: V, lane: usize, high: u64, low: u64) -> V {
        let lane: __mmask16 = 0xf << (4 * lane);
        _mm512_mask_broadcast_i32x4(v, lane, block(high, low))
    }

    /// By way of memory: a store of 64 octets forwards to a load within it, and no shuffle port is used.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn lane(v: V, lane: usize) -> __m128i {
        let mut blocks = [[0_u8; 16]; 4];
        // SAFETY: the array has the 64 octets that are written, and the store needs no alignment.
        unsafe { _mm512_storeu_si512((&raw mut blocks).cast(), v) };
        let block = &blocks[lane];
        // SAFETY: the reference covers the 16 octets that are read, and the load needs no alignment.
        unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn octets(block: __m128i) -> [u8; 16] {
        let mut octets = [0; 16];
        // SAFETY: the array has the 16 octets that are written, and the store needs no alignment.
        unsafe { _mm_storeu_si128(octets.as_mut_ptr().cast(), block) };
        octets
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn no_sum() -> Sum {
        Sum { low: zero(), mid: zero(), high: zero() }
    }

    #[target_feature(enable = "avx512f,vpclmulqdq")]
    #[inline]
    pub(super) fn mul_add(sum: Sum, x: V, power: V) -> Sum {
        let cross =
            xor(_mm512_clmulepi64_epi128::<0x01>(x, power), _mm512_clmulepi64_epi128::<0x10>(x, power));
        Sum {
            low: xor(sum.low, _mm512_clmulepi64_epi128::<0x00>(x, power)),
            mid: xor(sum.mid, cross),
            high: xor(sum.high, _mm512_clmulepi64_epi128::<0x11>(x, power)),
        }
    }

    /// Folds the low column into the middle one, and that into the high one, by the field's polynomial.
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    #[inline]
    pub(super) fn reduce(sum: Sum) -> V {
        let polynomial = _mm512_broadcast_i32x4(block(POLYNOMIAL_HIGH, 1));
        let folded = _mm512_clmulepi64_epi128::<0x01>(polynomial, sum.low);
        let mid = xor(xor(sum.mid, _mm512_shuffle_epi32::<0x4e>(sum.low)), folded);
        let folded = _mm512_clmulepi64_epi128::<0x01>(polynomial, mid);
        xor(xor(sum.high, _mm512_shuffle_epi32::<0x4e>(mid)), folded)
    }

    /// Lanes are hashed apart until the last batch, so every lane has the same power.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn stride_power(powers: &[[u8; 16]; POWERS], k: usize) -> V {
        broadcast(&powers[POWERS - 4 * k])
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn last_power(powers: &[[u8; 16]; POWERS], k: usize) -> V {
        load(powers.as_flattened(), 16 * (POWERS - 4 * k))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vpclmulqdq")]
    #[inline]
    pub(super) fn tag(sum: Sum, mask: __m128i) -> [u8; 16] {
        let lanes = reduce(sum);
        let halves = _mm256_xor_si256(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64::<1>(lanes));
        let digest = _mm_xor_si128(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
        octets(_mm_xor_si128(_mm_shuffle_epi8(digest, reversal()), mask))
    }
}
