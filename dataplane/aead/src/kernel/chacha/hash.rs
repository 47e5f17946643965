//! The hashes of a group of packets, which are computed beside the cipher.

use super::poly1305::{OneTimeKey, Poly1305};
use crate::kernel::isa::Isa;

/// The most packets in a group.
pub(crate) const LANES_MAX: usize = 16;

/// The rounds of ChaCha20 that work may be put between.
pub(crate) const SLOTS: usize = 20;

/// Up to four blocks of each packet of a group.
pub(crate) struct Column<'a> {
    pub(crate) texts: [&'a [u8; 64]; LANES_MAX],
    /// A bit for each packet that has so many blocks and one more.
    pub(crate) active: [u16; 4],
}

impl Column<'_> {
    pub(crate) const NONE: Self = Self { texts: [&[0; 64]; LANES_MAX], active: [0; 4] };
}

/// The last blocks of the messages of a group.
pub(crate) type Lengths = [[u8; 16]; LANES_MAX];

/// The Poly1305 hashes of a group of packets.
pub(crate) trait Hashes<I> {
    /// Fewer packets are quicker one by one.
    const FEW: usize;

    /// Hashes of nothing but AAD, which comes padded to a block; `columns` will follow.
    fn new(isa: I, keys: &[OneTimeKey; LANES_MAX], aads: &[[u8; 16]; LANES_MAX], columns: usize) -> Self;

    /// A part of the work of taking a column, of which there are [`SLOTS`].
    fn take(&mut self, column: &Column<'_>, slot: usize);

    /// The hash of one packet.
    fn one(&self, keys: &[OneTimeKey; LANES_MAX], lane: usize) -> Poly1305;

    /// The tags, after the last blocks.
    fn tags(&mut self, keys: &[OneTimeKey; LANES_MAX], lengths: &Lengths) -> [[u8; 16]; LANES_MAX];
}

/// Eight hashes in the core's integer registers, which vectors leave free.
pub(crate) struct Integers([Poly1305; 8]);

impl<I: Isa> Hashes<I> for Integers {
    const FEW: usize = LANES_MAX;

    #[inline(always)]
    fn new(_: I, keys: &[OneTimeKey; LANES_MAX], aads: &[[u8; 16]; LANES_MAX], _: usize) -> Self {
        let mut hashes = [Poly1305::default(); 8];
        for ((hash, key), aad) in hashes.iter_mut().zip(keys).zip(aads) {
            *hash = Poly1305::new(*key);
            hash.block(*aad);
        }
        Self(hashes)
    }

    /// Two blocks of a packet at a time.
    #[inline(always)]
    fn take(&mut self, column: &Column<'_>, slot: usize) {
        let (lane, first) = (slot / 2, slot % 2 * 2);
        let Some(hash) = self.0.get_mut(lane) else { return };
        let blocks = column.texts[lane].as_chunks().0;
        for (block, active) in blocks.iter().zip(column.active).skip(first).take(2) {
            if active >> lane & 1 != 0 {
                hash.block(*block);
            }
        }
    }

    #[inline(always)]
    fn one(&self, _: &[OneTimeKey; LANES_MAX], lane: usize) -> Poly1305 {
        self.0[lane]
    }

    #[inline(always)]
    fn tags(&mut self, _: &[OneTimeKey; LANES_MAX], lengths: &Lengths) -> [[u8; 16]; LANES_MAX] {
        let mut tags = [[0; 16]; LANES_MAX];
        for ((tag, hash), lengths) in tags.iter_mut().zip(&mut self.0).zip(lengths) {
            hash.block(*lengths);
            *tag = hash.finish();
        }
        tags
    }
}
