//! Poly1305 of four messages side by side, on AVX2's 32-bit multipliers: a message a lane.
//!
//! A number is five limbs of 26 bits. Each lane has a key and a message of its own, as in `ifma`.
#![allow(unsafe_code, reason = "intrinsics: loads by pointer, and the calls into compiled-for code")]

use std::arch::is_x86_feature_detected;

use super::chacha::Multipliers;
use super::chacha::poly1305::{Message, OneTimeKey};

/// Messages in one vector.
const LANES: usize = 4;

/// Proof that the CPU has AVX2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Asks the CPU.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

impl Multipliers<LANES> for Avx2 {
    /// Fourteen of sixteen registers are one group's.
    const GROUPS: usize = 1;

    const FEW: usize = 1;

    fn poly1305<const G: usize>(
        self,
        keys: &[[&OneTimeKey; LANES]; G],
        messages: &[[Message<'_>; LANES]; G],
    ) -> [[[u8; 16]; LANES]; G] {
        let mut tags = [[[0; 16]; LANES]; G];
        for ((tags, keys), messages) in tags.iter_mut().zip(keys).zip(messages) {
            // SAFETY: `self` is only made by `detect`, which has found the feature that `ops` is compiled for.
            *tags = unsafe { ops::poly1305(keys, messages) };
        }
        tags
    }
}

/// The operations, compiled for the instruction set.
mod ops {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_loadu_si128, _mm256_add_epi64, _mm256_and_si256, _mm256_blendv_epi8,
        _mm256_mul_epu32, _mm256_or_si256, _mm256_set_m128i, _mm256_set1_epi64x, _mm256_setr_epi64x,
        _mm256_setzero_si256, _mm256_slli_epi64, _mm256_srli_epi64, _mm256_storeu_si256,
        _mm256_unpackhi_epi64, _mm256_unpacklo_epi64,
    };

    use super::{LANES, Message, OneTimeKey};
    use crate::kernel::chacha::poly1305::{finish, padded};
    use crate::kernel::chacha::{ends, fronts, steps};

    type V = __m256i;

    const BITS_26: i64 = (1 << 26) - 1;

    /// What of the first and the second half of a key counts (RFC 8439 §2.5).
    const CLAMP: [i64; 2] = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc];

    /// The hashes of four messages and their keys.
    #[derive(Clone, Copy)]
    struct Hash {
        h: [V; 5],
        r: [V; 5],
        /// The upper limbs of the key times 5: what they multiply beyond 2¹³⁰ comes back as that.
        s: [V; 4],
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn poly1305(
        keys: &[&OneTimeKey; LANES],
        messages: &[Message<'_>; LANES],
    ) -> [[u8; 16]; LANES] {
        let [k0, k1, k2, k3] = keys;
        let mut hash = Hash::new([&k0[0], &k1[0], &k2[0], &k3[0]]);
        let mut aads = [[0; 16]; LANES];
        for (aad, message) in aads.iter_mut().zip(messages) {
            *aad = padded(message.aad);
        }
        hash.take(load(each(&aads)));
        let (shared, last) = steps(messages);
        let [t0, t1, t2, t3] = fronts(messages, shared);
        for step in 0..shared {
            hash.take(load([&t0[step], &t1[step], &t2[step], &t3[step]]));
        }
        for step in shared..last {
            let (blocks, active) = ends(messages, step);
            let before = hash.h;
            hash.take(load(each(&blocks)));
            let active = lanes_of(active);
            for (h, before) in hash.h.iter_mut().zip(before) {
                *h = _mm256_blendv_epi8(before, *h, active);
            }
        }
        let [h0, h1, h2, h3, h4] = hash.h;
        let [h0, h1, h2, h3, h4] = [store(h0), store(h1), store(h2), store(h3), store(h4)];
        let mut tags = [[0; 16]; LANES];
        for (lane, tag) in tags.iter_mut().enumerate() {
            let limb = |limbs: [u64; LANES], bits: u32| u128::from(limbs[lane]) << bits;
            let others = limb(h0, 0) + limb(h1, 26) + limb(h2, 52) + limb(h3, 78);
            *tag = finish(others, h4[lane], 104, keys[lane][1]);
        }
        tags
    }

    #[inline(always)]
    fn each(blocks: &[[u8; 16]; LANES]) -> [&[u8; 16]; LANES] {
        let [b0, b1, b2, b3] = blocks;
        [b0, b1, b2, b3]
    }

    /// Ones in the lanes whose bits are set.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn lanes_of(bits: u8) -> V {
        let lane = |n: u8| -i64::from(bits >> n & 1);
        _mm256_setr_epi64x(lane(0), lane(1), lane(2), lane(3))
    }

    /// Four blocks as their lower and their upper halves.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn load([b0, b1, b2, b3]: [&[u8; 16]; LANES]) -> [V; 2] {
        let even = _mm256_set_m128i(load_block(b2), load_block(b0));
        let odd = _mm256_set_m128i(load_block(b3), load_block(b1));
        [_mm256_unpacklo_epi64(even, odd), _mm256_unpackhi_epi64(even, odd)]
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load_block(block: &[u8; 16]) -> __m128i {
        // SAFETY: the reference covers the 16 octets that are read, and the load needs no alignment.
        unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn store(v: V) -> [u64; LANES] {
        let mut lanes = [0; LANES];
        // SAFETY: the array has the 32 octets that are written, and the store needs no alignment.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), v) };
        lanes
    }

    /// Halves of 128-bit numbers as limbs.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn limbs([low, high]: [V; 2]) -> [V; 5] {
        let mask = _mm256_set1_epi64x(BITS_26);
        let middle = _mm256_or_si256(_mm256_srli_epi64::<52>(low), _mm256_slli_epi64::<12>(high));
        [
            _mm256_and_si256(low, mask),
            _mm256_and_si256(_mm256_srli_epi64::<26>(low), mask),
            _mm256_and_si256(middle, mask),
            _mm256_and_si256(_mm256_srli_epi64::<14>(high), mask),
            _mm256_srli_epi64::<40>(high),
        ]
    }

    impl Hash {
        #[target_feature(enable = "avx2")]
        #[inline]
        fn new(keys: [&[u8; 16]; LANES]) -> Self {
            let [low, high] = load(keys);
            let low = _mm256_and_si256(low, _mm256_set1_epi64x(CLAMP[0]));
            let high = _mm256_and_si256(high, _mm256_set1_epi64x(CLAMP[1]));
            let r = limbs([low, high]);
            let s = [times_5(r[1]), times_5(r[2]), times_5(r[3]), times_5(r[4])];
            Self { h: [_mm256_setzero_si256(); 5], r, s }
        }

        /// Adds a block to each message and multiplies by its key. Limbs keep a bit or two more than 26: a sum of
        /// five products stays below 2⁶⁰.
        #[target_feature(enable = "avx2")]
        #[inline]
        fn take(&mut self, blocks: [V; 2]) {
            let add = _mm256_add_epi64;
            let [m0, m1, m2, m3, m4] = limbs(blocks);
            // Every block has a one behind its 128 bits.
            let m4 = _mm256_or_si256(m4, _mm256_set1_epi64x(1 << 24));
            let [h0, h1, h2, h3, h4] = self.h;
            let h = [add(h0, m0), add(h1, m1), add(h2, m2), add(h3, m3), add(h4, m4)];
            let ([r0, r1, r2, r3, r4], [s1, s2, s3, s4]) = (self.r, self.s);
            let d0 = dot(h, [r0, s4, s3, s2, s1]);
            let d1 = dot(h, [r1, r0, s4, s3, s2]);
            let d2 = dot(h, [r2, r1, r0, s4, s3]);
            let d3 = dot(h, [r3, r2, r1, r0, s4]);
            let d4 = dot(h, [r4, r3, r2, r1, r0]);
            // Two chains of carries side by side; what lies above 2¹³⁰ comes back times 5.
            let (d3, d4) = carry(d3, d4);
            let (d0, d1) = carry(d0, d1);
            let (d4, over) = carry(d4, _mm256_setzero_si256());
            let (d1, d2) = carry(d1, d2);
            let d0 = add(d0, times_5(over));
            let (d2, d3) = carry(d2, d3);
            let (d0, d1) = carry(d0, d1);
            let (d3, d4) = carry(d3, d4);
            self.h = [d0, d1, d2, d3, d4];
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn times_5(v: V) -> V {
        _mm256_add_epi64(v, _mm256_slli_epi64::<2>(v))
    }

    /// A limb of 26 bits, and the next one with what was above.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn carry(limb: V, next: V) -> (V, V) {
        let above = _mm256_srli_epi64::<26>(limb);
        (_mm256_and_si256(limb, _mm256_set1_epi64x(BITS_26)), _mm256_add_epi64(next, above))
    }

    /// The sum of the products.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn dot([a0, a1, a2, a3, a4]: [V; 5], [b0, b1, b2, b3, b4]: [V; 5]) -> V {
        let (add, mul) = (_mm256_add_epi64, _mm256_mul_epu32);
        add(add(add(mul(a0, b0), mul(a1, b1)), add(mul(a2, b2), mul(a3, b3))), mul(a4, b4))
    }
}
