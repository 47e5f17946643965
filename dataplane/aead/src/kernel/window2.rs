//! A packet's text as vectors of two blocks: one lane of head and tail at most is text.

use crate::kernel::gcm::{BEFORE, TABLE};
use crate::packet::{Form, Text};

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
    pub(crate) packet: &'p mut [u8],
    pub(crate) text: Text,
    vectors: usize,
    /// 0 or 1.
    pub(crate) pad: usize,
}

/// The most vectors that the table has counters for.
const VECTORS_MAX: usize = (TABLE - BEFORE - 1) / 2;

impl Frame {
    #[inline(always)]
    pub(crate) fn new(form: Form, vectors: usize) -> Self {
        let Form { packet_len, text, .. } = form;
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

    /// Offset of vector `v`, which is not the first.
    #[inline(always)]
    pub(crate) fn at(&self, v: usize) -> usize {
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

    /// Where in the table the counters of vector `v` are.
    #[inline(always)]
    pub(crate) fn counters(&self, v: usize) -> usize {
        BEFORE + 1 - self.pad + 2 * v
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
