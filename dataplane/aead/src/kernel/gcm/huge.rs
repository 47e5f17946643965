//! Texts longer than any frame: a block at a time, since nobody waits for them.

use super::{Absorb, PacketText, SplitNonceAad};
use crate::kernel::isa::{Isa, Task};

/// Seals or opens a text of any length; the tag that it has or ought to have.
pub(crate) struct Huge<'a> {
    pub(crate) item: PacketText<'a>,
    pub(crate) rounds: usize,
    pub(crate) seal: bool,
}

impl Task for Huge<'_> {
    type Out = [u8; 16];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [u8; 16] {
        let Self { item, rounds, seal } = self;
        let SplitNonceAad { iv, salt, aad: aad_halves, aad_bits } = item.apart();
        let text = &mut item.packet[item.text.start..item.text.end];
        let text_bits = 8 * text.len() as u64;
        let keys = &item.tables.round_keys;
        let nonce = isa.nonce(salt, iv);
        let stream = |counter: u32| {
            let counter = isa.insert(isa.zero(), 0, 0, u64::from(counter.to_be()) << 32);
            let mut state = isa.xor(isa.xor(nonce, counter), isa.broadcast(&keys[0]));
            for key in &keys[1..rounds] {
                state = isa.aesenc(state, isa.broadcast(key));
            }
            isa.octets(isa.lane(isa.aesenclast(state, isa.broadcast(&keys[rounds])), 0))
        };
        let mut aad = [0; 16];
        aad[..8].copy_from_slice(&aad_halves[0].to_le_bytes());
        aad[8..].copy_from_slice(&aad_halves[1].to_le_bytes());
        let mut hash = Absorb { tables: item.tables, aad: [&aad, &[]] }.run(isa);
        let mut take = |block: &[u8]| {
            let carried = hash.to_be_bytes();
            hash = Absorb { tables: item.tables, aad: [&carried, block] }.run(isa);
        };
        let mut counter = 2_u32;
        for block in text.chunks_mut(16) {
            if !seal {
                take(block);
            }
            for (octet, stream) in block.iter_mut().zip(stream(counter)) {
                *octet ^= stream;
            }
            if seal {
                take(block);
            }
            counter = counter.wrapping_add(1);
        }
        take(&((u128::from(aad_bits) << 64) | u128::from(text_bits)).to_be_bytes());
        // One more multiplication, which Absorb leaves to the block after.
        take(&[0; 16]);
        let mask = u128::from_be_bytes(stream(1));
        (hash ^ mask).to_be_bytes()
    }
}
