//! ChaCha20-Poly1305 over any [`Isa`]: a vector lane is a block, of whichever packet and key is next.
//!
//! ChaCha20 works on sixteen 32-bit words a block. With word `w` of many blocks in one vector there is not a shuffle
//! in the twenty rounds, and lanes know nothing of each other. Packets of about one length form groups with a packet a
//! lane: block after block of all of them is a column, whose inputs differ in the counter only, and the first column
//! gives the Poly1305 keys. The rounds leave room in the core, which the hash of a column of ciphertext fills: of the
//! column before when sealing, of the one that is decrypted when opening. What is left, since packets are few or longer
//! than the others of their group, is dealt to lanes block by block.

mod cipher;
mod hash;
pub(crate) mod poly1305;

pub(crate) use hash::Hashes;
#[cfg(target_arch = "x86_64")]
pub(crate) use hash::{Column, Integers, LANES_MAX, Lengths};

use arrayvec::ArrayVec;
use cipher::Group;

use super::isa::{Isa, Task};
use crate::ct::icv_matches;
use crate::packet::Aad;
use crate::verdict::OpenVerdict;

/// AAD as ESP has it, or any other.
pub(crate) enum AnyAad<'a> {
    Esp(Aad),
    Other(&'a [u8]),
}

/// One packet, cut into its parts.
pub(crate) struct View<'a> {
    /// The 32 octets of key, in the first two round keys of the key's tables.
    pub(crate) key: &'a [[u8; 16]; 2],
    /// The first word of the nonce and the other two, as they lie in memory.
    pub(crate) nonce: (u32, u64),
    pub(crate) aad: AnyAad<'a>,
    pub(crate) text: &'a mut [u8],
    /// Written when sealing, compared when opening.
    pub(crate) icv: &'a mut [u8],
    pub(crate) verdict: OpenVerdict,
}

/// Seals or opens packets.
pub(crate) struct ChaChaBurst<'v, 'a> {
    pub(crate) views: &'v mut [View<'a>],
    pub(crate) seal: bool,
}

impl Task for ChaChaBurst<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { views, seal } = self;
        for views in views.chunks_mut(BURST) {
            let order = by_length(views);
            for members in order.chunks(4 * I::LANES) {
                let mut group = Group::new(isa, views, members);
                group.columns(isa, views, seal);
                if seal {
                    group.crypt_rest(isa, views);
                    group.put_tags(views);
                } else {
                    group.check_tags(views);
                    group.crypt_rest(isa, views);
                }
            }
            if !seal {
                for view in views.iter_mut().filter(|view| view.verdict != OpenVerdict::Authentic) {
                    view.text.fill(0);
                }
            }
        }
    }
}

/// Packets that are worked on at once.
const BURST: usize = 64;

/// The packets in order of their texts' lengths.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a burst has 64 packets at most")]
fn by_length(views: &[View<'_>]) -> ArrayVec<u8, BURST> {
    let mut order: ArrayVec<u8, BURST> = (0..views.len() as u8).collect();
    order.sort_unstable_by_key(|&v| views[usize::from(v)].text.len());
    order
}

impl<I: Isa> Group<'_, I> {
    /// Writes the ICVs of what is ciphertext by now.
    #[inline(always)]
    fn put_tags(&mut self, views: &mut [View<'_>]) {
        let tags = self.tags(views);
        for (&v, tag) in self.members.iter().zip(&tags) {
            let icv = &mut *views[usize::from(v)].icv;
            if let Some(icv) = icv.as_mut_array() {
                *icv = *tag;
            } else {
                icv.copy_from_slice(&tag[..icv.len()]);
            }
        }
    }

    /// Compares the ICVs of what is ciphertext still, or was hashed before it was decrypted.
    #[inline(always)]
    fn check_tags(&mut self, views: &mut [View<'_>]) {
        let tags = self.tags(views);
        for (&v, tag) in self.members.iter().zip(&tags) {
            let view = &mut views[usize::from(v)];
            view.verdict =
                if icv_matches(tag, view.icv) { OpenVerdict::Authentic } else { OpenVerdict::BadIcv };
        }
    }
}

impl View<'_> {
    #[inline(always)]
    fn aad(&self) -> &[u8] {
        match &self.aad {
            AnyAad::Esp(aad) => aad.as_slice(),
            AnyAad::Other(aad) => aad,
        }
    }

    /// The last block of what is hashed.
    #[inline(always)]
    fn lengths(&self) -> [u8; 16] {
        (self.aad().len() as u128 | (self.text.len() as u128) << 64).to_le_bytes()
    }
}
