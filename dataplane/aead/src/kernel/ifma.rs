//! Poly1305 of eight messages side by side, on AVX-512's 52-bit multipliers: a message a lane.
//!
//! A number is three limbs of 44, 44 and 42 bits. Each lane has a key and a message of its own, so that short messages
//! fill the multipliers as well as long ones do, and no powers of keys are needed.
#![allow(unsafe_code, reason = "intrinsics: loads by pointer, and the calls into compiled-for code")]

use std::arch::is_x86_feature_detected;

use super::chacha::Multipliers;
use super::chacha::poly1305::{Message, OneTimeKey};

/// Messages in one vector.
const LANES: usize = 8;

/// Proof that the CPU has AVX-512 with IFMA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ifma(());

impl Ifma {
    /// Asks the CPU.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma")).then_some(Self(()))
    }
}

impl Multipliers<LANES> for Ifma {
    const GROUPS: usize = 2;

    const FEW: usize = 4;

    fn poly1305<const G: usize>(
        self,
        keys: &[[&OneTimeKey; LANES]; G],
        messages: &[[Message<'_>; LANES]; G],
    ) -> [[[u8; 16]; LANES]; G] {
        // SAFETY: `self` is only made by `detect`, which has found every feature that `ops` is compiled for.
        unsafe { ops::poly1305(keys, messages) }
    }
}

/// The operations, compiled for the instruction set.
mod ops {
    use std::arch::x86_64::{
        __m128i, __m512i, __mmask8, _mm_loadu_si128, _mm512_add_epi64, _mm512_and_si512,
        _mm512_castsi128_si512, _mm512_inserti32x4, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
        _mm512_mask_mov_epi64, _mm512_or_si512, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_slli_epi64,
        _mm512_srli_epi64, _mm512_storeu_si512, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
    };

    use super::{LANES, Message, OneTimeKey};
    use crate::kernel::chacha::poly1305::{finish, padded};
    use crate::kernel::chacha::{ends, fronts, steps};

    type V = __m512i;

    const BITS_44: i64 = (1 << 44) - 1;
    const BITS_42: i64 = (1 << 42) - 1;

    /// What of the first and the second half of a key counts (RFC 8439 §2.5).
    const CLAMP: [i64; 2] = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc];

    /// The hashes of eight messages and their keys.
    #[derive(Clone, Copy)]
    struct Hash {
        h: [V; 3],
        r: [V; 3],
        /// The upper limbs of the key times 20: what they multiply beyond 2¹³² comes back as that.
        s: [V; 2],
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn poly1305<const G: usize>(
        keys: &[[&OneTimeKey; LANES]; G],
        messages: &[[Message<'_>; LANES]; G],
    ) -> [[[u8; 16]; LANES]; G] {
        let mut hashes = [Hash::new([&[0; 16]; LANES]); G];
        let (mut shared, mut last) = (usize::MAX, 0);
        for g in 0..G {
            let mut multipliers = [&keys[g][0][0]; LANES];
            let mut aads = [[0; 16]; LANES];
            for (lane, message) in messages[g].iter().enumerate() {
                multipliers[lane] = &keys[g][lane][0];
                aads[lane] = padded(message.aad);
            }
            let (whole, all) = steps(&messages[g]);
            (shared, last) = (shared.min(whole), last.max(all));
            hashes[g] = Hash::new(multipliers);
            hashes[g].take(load(each(&aads)), __mmask8::MAX);
        }
        // Without a loop over the groups, which would keep the hashes in memory.
        let mut texts = [[&[][..]; LANES]; G];
        for (texts, messages) in texts.iter_mut().zip(messages) {
            *texts = fronts(messages, shared);
        }
        if G == 1 {
            let mut a = hashes[0];
            for step in 0..shared {
                a.take(load(at(&texts[0], step)), __mmask8::MAX);
            }
            hashes[0] = a;
        } else {
            let (mut a, mut b) = (hashes[0], hashes[1]);
            for step in 0..shared {
                a.take(load(at(&texts[0], step)), __mmask8::MAX);
                b.take(load(at(&texts[1], step)), __mmask8::MAX);
            }
            (hashes[0], hashes[1]) = (a, b);
        }
        for step in shared..last {
            for (hash, messages) in hashes.iter_mut().zip(messages) {
                let (blocks, active) = ends(messages, step);
                hash.take(load(each(&blocks)), active);
            }
        }
        let mut tags = [[[0; 16]; LANES]; G];
        for (g, tags) in tags.iter_mut().enumerate() {
            let [h0, h1, h2] = hashes[g].h;
            let [h0, h1, h2] = [store(h0), store(h1), store(h2)];
            for (lane, tag) in tags.iter_mut().enumerate() {
                let others = u128::from(h0[lane]) + (u128::from(h1[lane]) << 44);
                *tag = finish(others, h2[lane], 88, keys[g][lane][1]);
            }
        }
        tags
    }

    #[inline(always)]
    fn at<'a>(texts: &[&'a [[u8; 16]]; LANES], step: usize) -> [&'a [u8; 16]; LANES] {
        let [t0, t1, t2, t3, t4, t5, t6, t7] = texts;
        [&t0[step], &t1[step], &t2[step], &t3[step], &t4[step], &t5[step], &t6[step], &t7[step]]
    }

    #[inline(always)]
    fn each(blocks: &[[u8; 16]; LANES]) -> [&[u8; 16]; LANES] {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = blocks;
        [b0, b1, b2, b3, b4, b5, b6, b7]
    }

    /// Eight blocks as their lower and their upper halves.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(blocks: [&[u8; 16]; LANES]) -> [V; 2] {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = blocks;
        let (even, odd) = (quad([b0, b2, b4, b6]), quad([b1, b3, b5, b7]));
        [_mm512_unpacklo_epi64(even, odd), _mm512_unpackhi_epi64(even, odd)]
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn quad([b0, b1, b2, b3]: [&[u8; 16]; 4]) -> V {
        let v = _mm512_castsi128_si512(load_block(b0));
        let v = _mm512_inserti32x4::<1>(v, load_block(b1));
        let v = _mm512_inserti32x4::<2>(v, load_block(b2));
        _mm512_inserti32x4::<3>(v, load_block(b3))
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load_block(block: &[u8; 16]) -> __m128i {
        // SAFETY: the reference covers the 16 octets that are read, and the load needs no alignment.
        unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn store(v: V) -> [u64; LANES] {
        let mut lanes = [0; LANES];
        // SAFETY: the array has the 64 octets that are written, and the store needs no alignment.
        unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), v) };
        lanes
    }

    /// Halves of 128-bit numbers as limbs.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn limbs([low, high]: [V; 2]) -> [V; 3] {
        let mask = _mm512_set1_epi64(BITS_44);
        let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
        [_mm512_and_si512(low, mask), _mm512_and_si512(middle, mask), _mm512_srli_epi64::<24>(high)]
    }

    impl Hash {
        #[target_feature(enable = "avx512f")]
        #[inline]
        fn new(keys: [&[u8; 16]; LANES]) -> Self {
            let [low, high] = load(keys);
            let low = _mm512_and_si512(low, _mm512_set1_epi64(CLAMP[0]));
            let high = _mm512_and_si512(high, _mm512_set1_epi64(CLAMP[1]));
            let r = limbs([low, high]);
            let times_20 = |v| _mm512_slli_epi64::<2>(times_5(v));
            Self { h: [_mm512_setzero_si512(); 3], r, s: [times_20(r[1]), times_20(r[2])] }
        }

        /// Adds a block to each message and multiplies by its key, where the message is active.
        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline]
        fn take(&mut self, blocks: [V; 2], active: __mmask8) {
            let add = _mm512_add_epi64;
            let [m0, m1, m2] = limbs(blocks);
            // Every block has a one behind its 128 bits.
            let m2 = _mm512_or_si512(m2, _mm512_set1_epi64(1 << 40));
            let h = [add(self.h[0], m0), add(self.h[1], m1), add(self.h[2], m2)];
            let ([r0, r1, r2], [s1, s2]) = (self.r, self.s);
            let [low0, high0] = dot(h, [r0, s2, s1]);
            let [low1, high1] = dot(h, [r1, r0, s2]);
            let [low2, high2] = dot(h, [r2, r1, r0]);
            let (mask_44, mask_42) = (_mm512_set1_epi64(BITS_44), _mm512_set1_epi64(BITS_42));
            // The upper halves of products begin at bit 52, eight above where the next limb does.
            let d1 = add(add(low1, _mm512_slli_epi64::<8>(high0)), _mm512_srli_epi64::<44>(low0));
            let d2 = add(add(low2, _mm512_slli_epi64::<8>(high1)), _mm512_srli_epi64::<44>(d1));
            // What lies above 2¹³⁰ comes back times 5.
            let over = add(_mm512_srli_epi64::<42>(d2), _mm512_slli_epi64::<10>(high2));
            let d0 = add(_mm512_and_si512(low0, mask_44), times_5(over));
            let h1 = add(_mm512_and_si512(d1, mask_44), _mm512_srli_epi64::<44>(d0));
            let new = [_mm512_and_si512(d0, mask_44), h1, _mm512_and_si512(d2, mask_42)];
            for (h, new) in self.h.iter_mut().zip(new) {
                *h = _mm512_mask_mov_epi64(*h, active, new);
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn times_5(v: V) -> V {
        _mm512_add_epi64(v, _mm512_slli_epi64::<2>(v))
    }

    /// The lower 52 bits of the products, added up, and the bits above.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn dot(a: [V; 3], b: [V; 3]) -> [V; 2] {
        let mut sum = [_mm512_setzero_si512(); 2];
        for (a, b) in a.into_iter().zip(b) {
            sum = [_mm512_madd52lo_epu64(sum[0], a, b), _mm512_madd52hi_epu64(sum[1], a, b)];
        }
        sum
    }
}
