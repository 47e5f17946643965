//! Poly1305 of sixteen messages side by side, on AVX-512's 52-bit multipliers: a message a lane, eight a vector.
//!
//! A number is three limbs of 44, 44 and 42 bits. Each lane has a key and a message of its own, so that short messages
//! fill the multipliers as well as long ones do, and no powers of keys are needed.
#![allow(unsafe_code, reason = "intrinsics: loads by pointer, and the calls into compiled-for code")]

use super::chacha::poly1305::{OneTimeKey, Poly1305};
use super::chacha::{Column, Hashes, LANES_MAX, Lengths};
use super::vaes512::Vaes512;

/// Messages in one vector.
const LANES: usize = 8;

/// From so many columns on, powers of keys are worth their making.
const COLUMNS_MIN: usize = 2;

/// The hashes of two vectors of messages, and whether there are powers of their keys.
pub(crate) struct Multipliers([ops::Hash; 2], bool);

impl Hashes<Vaes512> for Multipliers {
    const FEW: usize = 4;

    #[inline(always)]
    fn new(_: Vaes512, keys: &[OneTimeKey; LANES_MAX], aads: &[[u8; 16]; LANES_MAX], columns: usize) -> Self {
        let mut firsts = [&[0; 16]; LANES_MAX];
        for (first, [key, _]) in firsts.iter_mut().zip(keys) {
            *first = key;
        }
        let [low, high] = halves(firsts);
        // SAFETY: a `Vaes512` proves that the CPU has every feature that `ops` is compiled for.
        let low = unsafe { ops::Hash::new(low) };
        // SAFETY: as above.
        let high = unsafe { ops::Hash::new(high) };
        let mut hashes = Self([low, high], columns >= COLUMNS_MIN);
        hashes.step(each(aads), u16::MAX);
        if hashes.1 {
            for hash in &mut hashes.0 {
                // SAFETY: a `Vaes512` proves that the CPU has every feature that `ops` is compiled for.
                unsafe { hash.make_powers() };
            }
        }
        hashes
    }

    /// A block of the packets of one vector at a time, in every second slot.
    #[inline(always)]
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one proof for every way")]
    fn take(&mut self, column: &Column<'_>, slot: usize) {
        let (vector, block) = (slot / 8, slot / 2 % 4);
        if slot.is_multiple_of(2) || vector > 1 {
            return;
        }
        let hash = &mut self.0[vector];
        let whole = column.active[0] == column.active[3];
        // By constants, of which the compiler makes distances and no vectors of pointers.
        // SAFETY: `self` is only made by `new`, which has had the proof that the CPU has what `ops` is compiled for.
        unsafe {
            match block {
                0 if self.1 && whole => hash.begin(column.blocks::<0>(vector)),
                1 if self.1 && whole => hash.go_on(column.blocks::<1>(vector), 1),
                2 if self.1 && whole => hash.go_on(column.blocks::<2>(vector), 2),
                3 if self.1 && whole => hash.end(column.blocks::<3>(vector), column.active::<3>(vector)),
                0 => hash.take(column.blocks::<0>(vector), column.active::<0>(vector)),
                1 => hash.take(column.blocks::<1>(vector), column.active::<1>(vector)),
                2 => hash.take(column.blocks::<2>(vector), column.active::<2>(vector)),
                _ => hash.take(column.blocks::<3>(vector), column.active::<3>(vector)),
            }
        }
    }

    #[inline(always)]
    fn one(&self, keys: &[OneTimeKey; LANES_MAX], lane: usize) -> Poly1305 {
        // SAFETY: `self` is only made by `new`, which has had the proof that the CPU has what `ops` is compiled for.
        let limbs = unsafe { self.0[lane / LANES].stored() };
        resume(keys[lane], &limbs, lane % LANES)
    }

    #[inline(always)]
    fn tags(&mut self, keys: &[OneTimeKey; LANES_MAX], lengths: &Lengths) -> [[u8; 16]; LANES_MAX] {
        self.step(each(lengths), u16::MAX);
        let mut tags = [[0; 16]; LANES_MAX];
        let lanes = tags.as_chunks_mut::<LANES>().0.iter_mut().zip(keys.as_chunks::<LANES>().0);
        for (hash, (tags, keys)) in self.0.iter().zip(lanes) {
            // SAFETY: `self` is only made by `new`, which has had the proof that the CPU has what `ops` is compiled
            // for.
            let limbs = unsafe { hash.stored() };
            for (lane, (tag, key)) in tags.iter_mut().zip(keys).enumerate() {
                *tag = resume(*key, &limbs, lane).finish();
            }
        }
        tags
    }
}

impl Column<'_> {
    /// One block of the messages of a vector.
    #[inline(always)]
    fn blocks<const BLOCK: usize>(&self, vector: usize) -> [&[u8; 16]; LANES] {
        let mut blocks = [&[0; 16]; LANES];
        for (block, text) in blocks.iter_mut().zip(&self.texts.as_chunks::<LANES>().0[vector]) {
            *block = &text.as_chunks().0[BLOCK];
        }
        blocks
    }

    /// Whose blocks those are, if they are any.
    #[inline(always)]
    fn active<const BLOCK: usize>(&self, vector: usize) -> u8 {
        self.active[BLOCK].to_le_bytes()[vector]
    }
}

impl Multipliers {
    /// Takes a block of each message.
    #[inline(always)]
    fn step(&mut self, blocks: [&[u8; 16]; LANES_MAX], active: u16) {
        let ([low, high], [active_low, active_high]) = (halves(blocks), active.to_le_bytes());
        let [a, b] = &mut self.0;
        // SAFETY: `self` is only made by `new`, which has had the proof that the CPU has what `ops` is compiled for.
        unsafe { a.take(low, active_low) };
        // SAFETY: as above.
        unsafe { b.take(high, active_high) };
    }
}

/// The hash in one lane of stored limbs.
#[inline(always)]
fn resume(key: OneTimeKey, [h0, h1, h2]: &[[u64; LANES]; 3], lane: usize) -> Poly1305 {
    let others = u128::from(h0[lane]) + (u128::from(h1[lane]) << 44);
    Poly1305::resume(key, others, h2[lane], 88)
}

#[inline(always)]
fn each(blocks: &[[u8; 16]; LANES_MAX]) -> [&[u8; 16]; LANES_MAX] {
    let mut each = [&blocks[0]; LANES_MAX];
    for (each, block) in each.iter_mut().zip(blocks) {
        *each = block;
    }
    each
}

#[inline(always)]
fn halves(blocks: [&[u8; 16]; LANES_MAX]) -> [[&[u8; 16]; LANES]; 2] {
    let [b0, b1, b2, b3, b4, b5, b6, b7, c0, c1, c2, c3, c4, c5, c6, c7] = blocks;
    [[b0, b1, b2, b3, b4, b5, b6, b7], [c0, c1, c2, c3, c4, c5, c6, c7]]
}

/// The operations, compiled for the instruction set.
mod ops {
    use std::arch::x86_64::{
        __m128i, __m512i, __mmask8, _mm_loadu_si128, _mm512_add_epi64, _mm512_and_si512,
        _mm512_castsi128_si512, _mm512_inserti32x4, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
        _mm512_mask_mov_epi64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_shrdi_epi64,
        _mm512_slli_epi64, _mm512_srli_epi64, _mm512_storeu_si512, _mm512_unpackhi_epi64,
        _mm512_unpacklo_epi64,
    };

    use super::LANES;

    type V = __m512i;

    const BITS_44: i64 = (1 << 44) - 1;
    const BITS_42: i64 = (1 << 42) - 1;

    /// What of the first and the second half of a key counts (RFC 8439 §2.5).
    const CLAMP: [i64; 2] = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc];

    /// A power of the keys of eight messages, with its upper limbs times 20: what they multiply beyond 2¹³² comes back
    /// as that.
    #[derive(Clone, Copy)]
    struct Power {
        r: [V; 3],
        s: [V; 2],
    }

    /// Products that are not yet carried: the lower 52 bits of each, and the bits above.
    #[derive(Clone, Copy)]
    struct Sum {
        low: [V; 3],
        high: [V; 3],
    }

    /// The hashes of eight messages and their keys.
    #[derive(Clone, Copy)]
    pub(super) struct Hash {
        h: [V; 3],
        /// Between the blocks of a column.
        sum: Sum,
        /// The keys and their powers up to the fourth, if they are made.
        powers: [Power; 4],
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

    /// Halves of 128-bit numbers as limbs, with a one above if `top` is 1.
    #[target_feature(enable = "avx512f,avx512vbmi2")]
    #[inline]
    fn limbs([low, high]: [V; 2], top: i64) -> [V; 3] {
        let mask = _mm512_set1_epi64(BITS_44);
        let middle = _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), mask);
        [_mm512_and_si512(low, mask), middle, _mm512_shrdi_epi64::<24>(high, _mm512_set1_epi64(top))]
    }

    /// The limbs of a block of each message, which has a one behind its 128 bits.
    #[target_feature(enable = "avx512f,avx512vbmi2")]
    #[inline]
    fn message(blocks: [&[u8; 16]; LANES]) -> [V; 3] {
        limbs(load(blocks), 1)
    }

    impl Hash {
        /// The limbs of all lanes.
        #[target_feature(enable = "avx512f")]
        #[inline]
        pub(super) fn stored(&self) -> [[u64; LANES]; 3] {
            let [h0, h1, h2] = self.h;
            [store(h0), store(h1), store(h2)]
        }

        #[target_feature(enable = "avx512f,avx512vbmi2")]
        #[inline]
        pub(super) fn new(keys: [&[u8; 16]; LANES]) -> Self {
            let [low, high] = load(keys);
            let low = _mm512_and_si512(low, _mm512_set1_epi64(CLAMP[0]));
            let high = _mm512_and_si512(high, _mm512_set1_epi64(CLAMP[1]));
            let zero = [_mm512_setzero_si512(); 3];
            Self {
                h: zero,
                sum: Sum { low: zero, high: zero },
                powers: [Power::new(limbs([low, high], 0)); 4],
            }
        }

        /// Makes the powers of the key.
        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline]
        pub(super) fn make_powers(&mut self) {
            let [first, ..] = self.powers;
            let second = Power::new(carry(first.times(first.r)));
            self.powers = [
                first,
                second,
                Power::new(carry(second.times(first.r))),
                Power::new(carry(second.times(second.r))),
            ];
        }

        /// Adds a block to each message and multiplies by its key, where the message is active.
        #[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
        #[inline]
        pub(super) fn take(&mut self, blocks: [&[u8; 16]; LANES], active: __mmask8) {
            self.set(carry(self.powers[0].times(self.plus(blocks))), active);
        }

        /// The first of four blocks.
        #[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
        #[inline]
        pub(super) fn begin(&mut self, blocks: [&[u8; 16]; LANES]) {
            self.sum = self.powers[3].times(self.plus(blocks));
        }

        /// The second or third of them.
        #[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
        #[inline]
        pub(super) fn go_on(&mut self, blocks: [&[u8; 16]; LANES], block: usize) {
            self.sum = self.powers[3 - block].add_times(&self.sum, message(blocks));
        }

        /// The fourth.
        #[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
        #[inline]
        pub(super) fn end(&mut self, blocks: [&[u8; 16]; LANES], active: __mmask8) {
            self.set(carry(self.powers[0].add_times(&self.sum, message(blocks))), active);
        }

        #[target_feature(enable = "avx512f,avx512vbmi2")]
        #[inline]
        fn plus(&self, blocks: [&[u8; 16]; LANES]) -> [V; 3] {
            let ([h0, h1, h2], [m0, m1, m2]) = (self.h, message(blocks));
            [_mm512_add_epi64(h0, m0), _mm512_add_epi64(h1, m1), _mm512_add_epi64(h2, m2)]
        }

        #[target_feature(enable = "avx512f")]
        #[inline]
        fn set(&mut self, new: [V; 3], active: __mmask8) {
            for (h, new) in self.h.iter_mut().zip(new) {
                *h = _mm512_mask_mov_epi64(*h, active, new);
            }
        }
    }

    impl Power {
        #[target_feature(enable = "avx512f")]
        #[inline]
        fn new(r: [V; 3]) -> Self {
            let times_20 = |v| _mm512_slli_epi64::<2>(_mm512_add_epi64(v, _mm512_slli_epi64::<2>(v)));
            Self { r, s: [times_20(r[1]), times_20(r[2])] }
        }

        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline]
        fn times(&self, h: [V; 3]) -> Sum {
            let zero = [_mm512_setzero_si512(); 3];
            self.add_times(&Sum { low: zero, high: zero }, h)
        }

        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline]
        fn add_times(&self, sum: &Sum, h: [V; 3]) -> Sum {
            let ([r0, r1, r2], [s1, s2]) = (self.r, self.s);
            let ([low0, low1, low2], [high0, high1, high2]) = (sum.low, sum.high);
            let (low0, high0) = dot(low0, high0, h, [r0, s2, s1]);
            let (low1, high1) = dot(low1, high1, h, [r1, r0, s2]);
            let (low2, high2) = dot(low2, high2, h, [r2, r1, r0]);
            Sum { low: [low0, low1, low2], high: [high0, high1, high2] }
        }
    }

    /// Adds the products.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn dot(low: V, high: V, [a0, a1, a2]: [V; 3], [b0, b1, b2]: [V; 3]) -> (V, V) {
        let low = _mm512_madd52lo_epu64(_mm512_madd52lo_epu64(low, a0, b0), a1, b1);
        let high = _mm512_madd52hi_epu64(_mm512_madd52hi_epu64(high, a0, b0), a1, b1);
        (_mm512_madd52lo_epu64(low, a2, b2), _mm512_madd52hi_epu64(high, a2, b2))
    }

    /// Brings a sum of up to four blocks' products back to limbs.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn carry(Sum { low: [low0, low1, low2], high: [high0, high1, high2] }: Sum) -> [V; 3] {
        let add = _mm512_add_epi64;
        let (mask_44, mask_42) = (_mm512_set1_epi64(BITS_44), _mm512_set1_epi64(BITS_42));
        // The upper halves of products begin at bit 52, eight above where the next limb does.
        let d1 = add(add(low1, _mm512_slli_epi64::<8>(high0)), _mm512_srli_epi64::<44>(low0));
        let d2 = add(add(low2, _mm512_slli_epi64::<8>(high1)), _mm512_srli_epi64::<44>(d1));
        // What lies above 2¹³⁰ comes back times 5; it has less than 49 bits.
        let over = add(_mm512_srli_epi64::<42>(d2), _mm512_slli_epi64::<10>(high2));
        let d0 = _mm512_madd52lo_epu64(_mm512_and_si512(low0, mask_44), over, _mm512_set1_epi64(5));
        let h1 = add(_mm512_and_si512(d1, mask_44), _mm512_srli_epi64::<44>(d0));
        [_mm512_and_si512(d0, mask_44), h1, _mm512_and_si512(d2, mask_42)]
    }
}
