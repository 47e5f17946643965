//! A packet's text as vectors whose head and tail are loaded and stored by masks of octets (AVX-512), so that nothing
//! outside of the packet is touched.
#![allow(unsafe_code, reason = "intrinsics: loads and stores by pointer")]

use std::arch::x86_64::{
    __m128i, _bzhi_u64, _mm_mask_cmpneq_epi8_mask, _mm_mask_storeu_epi8, _mm_maskz_loadu_epi8,
};
use std::marker::PhantomData;

use super::gcm::{BEFORE, COUNTERS, TABLE};
use crate::packet::{PacketClass, Text};

/// A text as vectors of `LANES` blocks that follow each other. The first begins up to a vector before the text, the last
/// ends up to a vector after it; `head` and `tail` have a bit for each octet of them that is text, and all others
/// between are text throughout.
#[derive(Clone, Copy)]
pub(crate) struct Frame<const LANES: usize> {
    packet_len: usize,
    text: Text,
    vectors: usize,
    /// Lanes of zeros before the AAD, less than `LANES`.
    pub(super) pad: usize,
    /// From the packet's first octet to that of the first vector.
    base: isize,
    pub(super) head: u64,
    /// `head`, and the first half of the block before it.
    sent_head: u64,
    pub(super) tail: u64,
    /// A bit for each octet after the text, up to 16.
    icv_mask: u16,
    /// Whether there are 16 octets before the text, and 4 more from there on.
    sent: bool,
}

/// A packet in its frame, whose length it has.
pub(crate) struct Window<'p, const LANES: usize> {
    pub(super) frame: Frame<LANES>,
    packet: *mut u8,
    borrow: PhantomData<&'p mut [u8]>,
}

const MISFIT: &str = "a text lies inside its packet and makes as many vectors as are said";

impl<const LANES: usize> Frame<LANES> {
    /// The most vectors that the table has counters for.
    const VECTORS_MAX: usize = (TABLE - BEFORE - 1) / LANES;

    #[target_feature(enable = "bmi2")]
    #[inline]
    pub(super) fn new(form: PacketClass, vectors: usize) -> Self {
        let PacketClass { packet_len, text, .. } = form;
        let text_len = text.end.wrapping_sub(text.start);
        let pad = (LANES * vectors - 2).wrapping_sub(text_len.wrapping_add(15) / 16);
        assert!(
            text.start <= text.end && text.end <= packet_len && pad < LANES && vectors <= Self::VECTORS_MAX,
            "{MISFIT}"
        );
        let first = 16 * (pad + 1);
        let whole = ones(16 * LANES);
        let (head, tail) = if vectors == 1 {
            // In two steps: with all lanes before the text nothing is left, and a shift by 64 is none.
            let head = ones(text_len) << (first - 1) << 1;
            (head, head)
        } else {
            // Of two vectors and more, the first is full, and the last has what is left: not the lane of the lengths.
            (whole << (first - 1) << 1, ones(text_len + first - 16 * LANES * (vectors - 1)))
        };
        Self {
            packet_len,
            text,
            vectors,
            pad,
            base: text.start.cast_signed() - first.cast_signed(),
            head: head & whole,
            sent_head: head & whole | 0xff << (16 * pad),
            tail,
            icv_mask: (ones(packet_len - text.end) & 0xffff) as u16,
            sent: text.start >= 16 && packet_len - text.start >= 4,
        }
    }
}

/// That many bits; 64 and more are all.
#[target_feature(enable = "bmi2")]
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the instruction takes the low octet; texts of one vector are shorter"
)]
fn ones(len: usize) -> u64 {
    _bzhi_u64(u64::MAX, len as u32)
}

impl<'p, const LANES: usize> Window<'p, LANES> {
    #[inline(always)]
    pub(super) fn new(packet: &'p mut [u8], frame: &Frame<LANES>) -> Self {
        assert!(packet.len() == frame.packet_len, "a packet has the length of its frame");
        Self { frame: *frame, packet: packet.as_mut_ptr(), borrow: PhantomData }
    }

    /// The first vector, of which only what is in `head` may be touched.
    #[inline(always)]
    pub(super) fn first(&self) -> *mut u8 {
        self.packet.wrapping_offset(self.frame.base)
    }

    /// A vector that is text throughout.
    #[inline(always)]
    pub(super) fn middle(&self, v: usize) -> *mut u8 {
        assert!(v > 0 && v + 1 < self.frame.vectors, "a vector between the first and the last");
        self.first().wrapping_add(16 * LANES * v)
    }

    /// The last vector, of which only what is in `tail` may be touched.
    #[inline(always)]
    pub(super) fn last(&self) -> *mut u8 {
        self.first().wrapping_add(16 * LANES * self.frame.vectors).wrapping_sub(16 * LANES)
    }

    /// The octets of the first vector that are text, and the first half of the block before.
    #[inline(always)]
    pub(super) fn sent_head(&self) -> u64 {
        assert!(self.frame.sent, "{UNSENT}");
        self.frame.sent_head
    }

    /// Sixteen octets of the packet, of which the IV is the fifth to the twelfth.
    #[inline(always)]
    pub(super) fn before_iv(&self) -> *const u8 {
        assert!(self.frame.sent, "{UNSENT}");
        self.packet.wrapping_add(self.frame.text.start).wrapping_sub(12)
    }

    /// The counters of vector `v`.
    #[inline(always)]
    pub(super) fn counters(&self, v: usize) -> &'static [[u8; 16]; LANES] {
        assert!(v < self.frame.vectors, "a vector of the window");
        let first = (&raw const COUNTERS.0).cast::<[u8; 16]>();
        let blocks = first.wrapping_add(BEFORE + 1 - self.frame.pad + LANES * v);
        // SAFETY: `v` is less than `VECTORS_MAX` and the pad at most `BEFORE`, so `LANES` entries follow in the table.
        unsafe { &*blocks.cast() }
    }

    /// What comes after the text.
    #[inline(always)]
    fn behind(&self) -> *mut u8 {
        self.packet.wrapping_add(self.frame.text.end)
    }
}

const UNSENT: &str = "SPI, sequence number and IV come before the text";

#[target_feature(enable = "avx512bw,avx512vl")]
#[inline]
pub(super) fn put_icv<const LANES: usize>(window: &mut Window<'_, LANES>, tag: __m128i) {
    // SAFETY: the mask has as many bits as there are octets after the text, which the window borrows.
    unsafe { _mm_mask_storeu_epi8(window.behind().cast(), window.frame.icv_mask, tag) }
}

#[target_feature(enable = "avx512bw,avx512vl")]
#[inline]
pub(super) fn icv<const LANES: usize>(window: &Window<'_, LANES>) -> __m128i {
    // SAFETY: the mask has as many bits as there are octets after the text.
    unsafe { _mm_maskz_loadu_epi8(window.frame.icv_mask, window.behind().cast()) }
}

#[target_feature(enable = "avx512bw,avx512vl")]
#[inline]
pub(super) fn icv_matches<const LANES: usize>(
    window: &Window<'_, LANES>,
    tag: __m128i,
    received: __m128i,
) -> bool {
    _mm_mask_cmpneq_epi8_mask(window.frame.icv_mask, received, tag) == 0
}

#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn wipe<const LANES: usize>(window: &mut Window<'_, LANES>) {
    let Text { start, end } = window.frame.text;
    // SAFETY: the text's octets, which the window borrows.
    unsafe { zero_octets(window.packet.wrapping_add(start), end - start) }
}

/// Apart from its caller, which so need not have its window in memory.
///
/// # Safety
/// `len` octets from `octets` on belong to the caller.
#[cold]
#[inline(never)]
unsafe fn zero_octets(octets: *mut u8, len: usize) {
    // SAFETY: the caller's duty.
    unsafe { octets.write_bytes(0, len) }
}
