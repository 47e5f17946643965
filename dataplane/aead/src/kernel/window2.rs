//! A packet's text as vectors of two blocks: one lane of head and tail at most is text.
#![allow(
    unsafe_code,
    reason = "vectors of the text without a check each: what there is, is settled when a window is made"
)]

use crate::kernel::gcm::{BEFORE, COUNTERS, TABLE};
use crate::packet::{PacketClass, Text};

/// Which octets of a packet are in which vector.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    packet_len: usize,
    text: Text,
    vectors: usize,
    /// 0 or 1.
    pub(crate) pad: usize,
}

/// A packet in its frame, whose length it has.
pub(crate) struct Window<'p> {
    packet: &'p mut [u8],
    text: Text,
    vectors: usize,
    /// 0 or 1.
    pad: usize,
}

/// The most vectors that the table has counters for.
const VECTORS_MAX: usize = (TABLE - BEFORE - 1) / 2;

impl Frame {
    #[inline(always)]
    pub(crate) fn new(form: PacketClass, vectors: usize) -> Self {
        let PacketClass { packet_len, text, .. } = form;
        let pad = (2 * vectors - 2).wrapping_sub((text.end - text.start + 15) >> 4);
        assert!(
            text.end <= packet_len && pad < 2 && vectors <= VECTORS_MAX,
            "the text makes so many vectors"
        );
        Self { packet_len, text, vectors, pad }
    }
}

impl<'p> Window<'p> {
    #[inline(always)]
    pub(crate) fn new(packet: &'p mut [u8], frame: &Frame) -> Self {
        let &Frame { packet_len, text, vectors, pad } = frame;
        assert!(packet.len() == packet_len, "a packet has the length of its frame");
        // The length of all packets of the frame, which so is found once for them.
        Self { packet: &mut packet[..packet_len], text, vectors, pad }
    }

    /// Whether the second lane of the first vector is text; the last of a single vector has the lengths.
    #[inline(always)]
    pub(crate) fn has_head(&self) -> bool {
        self.pad == 0 && self.vectors > 1
    }

    /// The packet, up to its last octet.
    #[inline(always)]
    pub(crate) fn packet(&self) -> &[u8] {
        self.packet
    }

    #[inline(always)]
    pub(crate) fn packet_mut(&mut self) -> &mut [u8] {
        self.packet
    }

    #[inline(always)]
    pub(crate) fn text(&self) -> Text {
        self.text
    }

    #[inline(always)]
    pub(crate) fn pad(&self) -> usize {
        self.pad
    }

    /// Vector `v`, which is text throughout.
    #[inline(always)]
    pub(crate) fn middle(&self, v: usize) -> &[u8; 32] {
        assert!(v > 0 && v + 1 < self.vectors, "a vector between the first and the last");
        let octets = self.packet.as_ptr().wrapping_add(self.at(v));
        // SAFETY: the first `2 * vectors - 3 - pad` blocks of the text are whole, and those of all vectors between the
        // first and the last are among them. The text lies in the packet, which is borrowed for as long.
        unsafe { &*octets.cast() }
    }

    /// Vector `v`, which is text throughout.
    #[inline(always)]
    pub(crate) fn middle_mut(&mut self, v: usize) -> &mut [u8; 32] {
        assert!(v > 0 && v + 1 < self.vectors, "a vector between the first and the last");
        let octets = self.packet.as_mut_ptr().wrapping_add(self.at(v));
        // SAFETY: as above, and the packet is borrowed for this window alone.
        unsafe { &mut *octets.cast() }
    }

    /// Offset of vector `v`, which is not the first.
    #[inline(always)]
    fn at(&self, v: usize) -> usize {
        self.text.start + 16 * (1 - self.pad) + 32 * (v - 1)
    }

    /// Offset and length of the text in the first lane of the last vector.
    #[inline(always)]
    pub(crate) fn tail(&self) -> (usize, usize) {
        if self.vectors == 1 {
            return (self.text.start, 0);
        }
        let at = self.at(self.vectors - 1);
        (at, self.text.end - at)
    }

    /// The counters of vector `v`.
    #[inline(always)]
    pub(crate) fn counters(&self, v: usize) -> &'static [u8; 32] {
        assert!(v < self.vectors, "a vector of the window");
        let blocks = COUNTERS.0.as_ptr().wrapping_add(BEFORE + 1 - self.pad + 2 * v);
        // SAFETY: `v` is less than `VECTORS_MAX` and the pad at most `BEFORE`, so two entries follow in the table.
        unsafe { &*blocks.cast() }
    }

    /// Octets of ICV.
    #[inline(always)]
    pub(crate) fn icv_len(&self) -> usize {
        (self.packet.len() - self.text.end).min(16)
    }

    #[inline(always)]
    pub(crate) fn wipe(&mut self) {
        zero(&mut self.packet[self.text.start..self.text.end]);
    }
}

/// Apart from its caller, which so need not have its window in memory.
#[cold]
#[inline(never)]
fn zero(text: &mut [u8]) {
    text.fill(0);
}
