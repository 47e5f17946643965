//! VAES and VPCLMULQDQ on 512-bit vectors: four blocks a vector, head and tail by byte mask.
#![allow(
    unsafe_code,
    reason = "intrinsics: loads and stores by pointer, and the calls into compiled-for code"
)]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{__m128i, __m512i};

use super::isa::{Isa, Task, forward_all};
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

/// Octets of a packet in a vector: one bit for each, which are `len` bits from bit `first` on.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    mask: u64,
    first: usize,
    len: usize,
}

impl Isa for Vaes512 {
    type V = __m512i;
    type Block = __m128i;
    type Sum = Sum;
    type Part = Part;

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
        __m128i, __m512i, __mmask8, _bzhi_u64, _mm_bslli_si128, _mm_cvtsi32_si128, _mm_cvtsi64_si128,
        _mm_loadu_si128, _mm_or_si128, _mm_set_epi8, _mm_set_epi64x, _mm_shuffle_epi8, _mm_storeu_si128,
        _mm_xor_si128, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_xor_si256,
        _mm512_aesenc_epi128, _mm512_aesenclast_epi128, _mm512_broadcast_i32x4, _mm512_castsi512_si256,
        _mm512_clmulepi64_epi128, _mm512_extracti64x4_epi64, _mm512_loadu_si512, _mm512_mask_mov_epi8,
        _mm512_mask_set1_epi64, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_setzero_si512,
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

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn nonce(salt: u32, iv: u64) -> V {
        let iv = _mm_bslli_si128::<4>(_mm_cvtsi64_si128(iv.cast_signed()));
        _mm512_broadcast_i32x4(_mm_or_si128(iv, _mm_cvtsi32_si128(salt.cast_signed())))
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn counters(table: &[[u8; 16]], at: usize) -> V {
        let blocks = &table[at..at + 4];
        // SAFETY: the slice covers the 64 octets that are read, and the load needs no alignment.
        unsafe { _mm512_loadu_si512(blocks.as_ptr().cast()) }
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

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn head(pad: usize) -> Part {
        let first = 16 * (pad & 3) + 16;
        // In two steps: with three pad lanes nothing is left, and a shift by 64 is none.
        Part { mask: u64::MAX << (first - 1) << 1, first, len: 64 - first }
    }

    #[target_feature(enable = "bmi2")]
    #[inline]
    pub(super) fn tail(len: usize) -> Part {
        let len = len.min(48);
        Part { mask: _bzhi_u64(u64::MAX, len as u32), first: 0, len }
    }

    #[target_feature(enable = "bmi2")]
    #[inline]
    pub(super) fn only(pad: usize, len: usize) -> Part {
        let first = 16 * (pad & 3) + 16;
        let len = len.min(64 - first);
        Part { mask: _bzhi_u64(u64::MAX, len as u32) << (first - 1) << 1, first, len }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn load_part(packet: &[u8], at: usize, part: Part) -> V {
        let octets = &packet[at..at + part.len];
        let lane_0 = octets.as_ptr().wrapping_sub(part.first);
        // SAFETY: the mask's bits are the octets of the slice, counted from lane 0; others are not touched.
        unsafe { _mm512_maskz_loadu_epi8(part.mask, lane_0.cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn store_part(packet: &mut [u8], at: usize, part: Part, v: V) {
        let octets = &mut packet[at..at + part.len];
        let lane_0 = octets.as_mut_ptr().wrapping_sub(part.first);
        // SAFETY: the mask's bits are the octets of the slice, counted from lane 0; others are not touched.
        unsafe { _mm512_mask_storeu_epi8(lane_0.cast(), part.mask, v) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn select(part: Part, inside: V, around: V) -> V {
        _mm512_mask_mov_epi8(around, part.mask, inside)
    }

    /// Two broadcasts from general registers or memory cost less than a block built for one.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn insert(v: V, lane: usize, first: u64, second: u64) -> V {
        let bit: __mmask8 = 1 << (2 * (lane & 3));
        _mm512_mask_set1_epi64(
            _mm512_mask_set1_epi64(v, bit, first.cast_signed()),
            bit << 1,
            second.cast_signed(),
        )
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
        let polynomial = _mm512_broadcast_i32x4(_mm_set_epi64x(POLYNOMIAL_HIGH.cast_signed(), 1));
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
