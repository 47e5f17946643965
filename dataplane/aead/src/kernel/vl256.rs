//! The 256-bit half of the AVX-512 kernel: two blocks a vector, with masks, for short packets, of which half a wide vector
//! would often be padding.
#![allow(
    unsafe_code,
    reason = "intrinsics: loads and stores by pointer, and the calls into compiled-for code"
)]

use std::arch::x86_64::{__m128i, __m256i};

use super::chacha::Integers;
use super::isa::{Isa, Task, forward_all};
use super::masked::{Frame, Window};
use super::vaes256::{Power, Sum};
use super::vaes512::Vaes512;
use crate::key::POWERS;
use crate::packet::PacketClass;

/// Proof that the CPU has what [`Vaes512`] proves.
#[derive(Clone, Copy)]
pub(crate) struct Vl256(());

impl Vl256 {
    /// What the wide kernel has, this one has.
    #[inline(always)]
    pub(super) fn beside(_: Vaes512) -> Self {
        Self(())
    }
}

impl Isa for Vl256 {
    type V = __m256i;
    type Block = __m128i;
    type Sum = Sum;
    type Power = Power;
    type Frame = Frame<2>;
    type Window<'p> = Window<'p, 2>;
    type Narrow = Self;
    type Hashes = Integers;
    type Turns = [__m256i; 2];

    const LANES: usize = 2;

    const SHORT: usize = 4;

    const REGISTERS: usize = 32;

    const ABREAST: usize = 2;

    #[inline(always)]
    fn narrow(self) -> Option<Self> {
        None
    }

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Out {
        // SAFETY: a `Vaes512` is only made by `detect`, which has found every feature that `enter` is compiled for.
        unsafe { ops::enter(self, task) }
    }

    forward_all!();
}

/// The operations, compiled for the instruction set; those without a mask are those of the AVX2 kernel.
mod ops {
    use std::arch::x86_64::{
        __m128i, __m256i, __mmask32, _mm_loadu_si128, _mm_shuffle_epi8, _mm_xor_si128,
        _mm256_broadcastsi128_si256, _mm256_loadu_si256, _mm256_mask_loadu_epi8, _mm256_mask_mov_epi8,
        _mm256_mask_storeu_epi8, _mm256_set_epi32, _mm256_storeu_si256, _mm256_ternarylogic_epi64,
    };

    use super::super::blocks::reversal;
    pub(super) use super::super::masked::{icv, icv_matches, put_icv, wipe};
    pub(super) use super::super::vaes256::ops::{
        add_part, add_whole, add_words, aesenc, aesenclast, block, block_of, broadcast, counting, front,
        insert, insert_last, join, lane, last_power, mul_add, no_sum, nonce, octets, pin, pin_lanes, power,
        reduce, reverse, rotate_7, rotate_8, rotate_12, rotate_16, splat, stride_power, tag, transpose, turn,
        turns, xor, zero,
    };
    pub(super) use super::super::vaes512::ops::equal;
    use super::{Frame, PacketClass, Task, Vl256};

    type V = __m256i;

    type Window<'p> = super::Window<'p, 2>;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,bmi2,aes,pclmulqdq,vaes,vpclmulqdq")]
    #[inline(never)]
    pub(super) fn enter<T: Task>(isa: Vl256, task: T) -> T::Out {
        task.run(isa)
    }

    #[target_feature(enable = "bmi2")]
    #[inline]
    pub(super) fn frame(form: PacketClass, vectors: usize) -> Frame<2> {
        Frame::new(form, vectors)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn window<'p>(packet: &'p mut [u8], frame: &Frame<2>) -> Window<'p> {
        Window::new(packet, frame)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn pad(window: &Window<'_>) -> usize {
        window.frame.pad
    }

    #[target_feature(enable = "avx512vl")]
    #[inline]
    pub(super) fn counters(window: &Window<'_>, v: usize) -> V {
        let blocks = window.counters(v);
        // SAFETY: the reference covers the 32 octets that are read, and the load needs no alignment.
        unsafe { _mm256_loadu_si256(blocks.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512vl")]
    #[inline]
    pub(super) fn sent_start(window: &Window<'_>, round_key: V) -> V {
        let octets = window.before_iv();
        // SAFETY: the packet has 16 octets from there on.
        let block = unsafe { _mm_loadu_si128(octets.cast()) };
        // Of sequence number, IV and what follows, the two words of IV.
        let iv = _mm256_set_epi32(0, -1, -1, 0, 0, -1, -1, 0);
        _mm256_ternarylogic_epi64::<0x78>(round_key, _mm256_broadcastsi128_si256(block), iv)
    }

    /// The low half of a mask has the octets of a vector.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a vector has 32 octets")]
    fn narrow(mask: u64) -> __mmask32 {
        mask as u32
    }

    #[target_feature(enable = "avx512bw,avx512vl")]
    #[inline]
    pub(super) fn load_head(window: &Window<'_>, around: V) -> V {
        // SAFETY: the mask's bits are octets of the text; others are not touched.
        unsafe { _mm256_mask_loadu_epi8(around, narrow(window.frame.head), window.first().cast()) }
    }

    #[target_feature(enable = "avx512bw,avx512vl")]
    #[inline]
    pub(super) fn load_sent_head(window: &Window<'_>, around: V) -> V {
        let mask = narrow(window.sent_head());
        // SAFETY: the mask's bits are octets of the packet; others are not touched.
        unsafe { _mm256_mask_loadu_epi8(around, mask, window.first().cast()) }
    }

    #[target_feature(enable = "avx512vl")]
    #[inline]
    pub(super) fn load_middle(window: &Window<'_>, v: usize) -> V {
        let octets = window.middle(v);
        // SAFETY: all vectors between the first and the last are text throughout.
        unsafe { _mm256_loadu_si256(octets.cast()) }
    }

    #[target_feature(enable = "avx512bw,avx512vl")]
    #[inline]
    pub(super) fn load_tail(window: &Window<'_>, around: V) -> V {
        let octets = window.last();
        // SAFETY: the mask's bits are octets of the text; others are not touched.
        unsafe { _mm256_mask_loadu_epi8(around, narrow(window.frame.tail), octets.cast()) }
    }

    #[target_feature(enable = "avx512bw,avx512vl")]
    #[inline]
    pub(super) fn store_head(window: &mut Window<'_>, v: V) {
        // SAFETY: the mask's bits are octets of the text, which the window borrows; others are not touched.
        unsafe { _mm256_mask_storeu_epi8(window.first().cast(), narrow(window.frame.head), v) }
    }

    #[target_feature(enable = "avx512vl")]
    #[inline]
    pub(super) fn store_middle(window: &mut Window<'_>, v: usize, data: V) {
        let octets = window.middle(v);
        // SAFETY: all vectors between the first and the last are text throughout, which the window borrows.
        unsafe { _mm256_storeu_si256(octets.cast(), data) }
    }

    #[target_feature(enable = "avx512bw,avx512vl")]
    #[inline]
    pub(super) fn store_tail(window: &mut Window<'_>, v: V) {
        let octets = window.last();
        // SAFETY: the mask's bits are octets of the text, which the window borrows; others are not touched.
        unsafe { _mm256_mask_storeu_epi8(octets.cast(), narrow(window.frame.tail), v) }
    }

    #[target_feature(enable = "avx512bw,avx512vl")]
    #[inline]
    pub(super) fn select_head(window: &Window<'_>, inside: V, around: V) -> V {
        _mm256_mask_mov_epi8(around, narrow(window.frame.head), inside)
    }

    #[target_feature(enable = "avx512bw,avx512vl")]
    #[inline]
    pub(super) fn select_tail(window: &Window<'_>, inside: V, around: V) -> V {
        _mm256_mask_mov_epi8(around, narrow(window.frame.tail), inside)
    }

    /// Lanes are loads: shuffles would wait for the port of the products.
    #[target_feature(enable = "avx512vl")]
    #[inline]
    pub(super) fn tag_beside(frame: &Frame<2>, lanes: &V, stream: &V) -> __m128i {
        let lane = |v: &V, lane: usize| {
            let block = (&raw const *v).cast::<__m128i>().wrapping_add(lane & 1);
            // SAFETY: the reference covers two blocks, of which one is read.
            unsafe { _mm_loadu_si128(block) }
        };
        let digest = _mm_shuffle_epi8(_mm_xor_si128(lane(lanes, 0), lane(lanes, 1)), reversal());
        _mm_xor_si128(digest, lane(stream, frame.pad))
    }
}
