//! Poly1305 (RFC 8439 §2.5) in 64-bit arithmetic, several messages in step: one message is a chain of
//! multiplications that waits for itself, and two of them fit the registers.

/// Messages in step.
pub(super) const IN_STEP: usize = 2;

/// What is multiplied by, not yet clamped, and what is added in the end.
pub(crate) type OneTimeKey = [[u8; 16]; 2];

/// The hash of one message so far, and its key.
#[derive(Clone, Copy, Default)]
pub(super) struct Poly1305 {
    h: [u64; 3],
    r: [u64; 2],
    s: u128,
}

impl Poly1305 {
    /// From the one-time key, of which the first half is clamped.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    pub(super) fn new([r, s]: OneTimeKey) -> Self {
        let r = u128::from_le_bytes(r) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
        Self { h: [0; 3], r: [r as u64, (r >> 64) as u64], s: u128::from_le_bytes(s) }
    }

    /// Takes one block of 16 octets.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "low halves of products; the rest is carried")]
    pub(super) fn block(&mut self, block: [u8; 16]) {
        let block = u128::from_le_bytes(block);
        let ([h0, h1, h2], [r0, r1]) = (self.h, self.r);
        let (sum, carry) = (u128::from(h0) | u128::from(h1) << 64).overflowing_add(block);
        let (h0, h1) = (u128::from(sum as u64), sum >> 64);
        let h2 = h2 + u64::from(carry) + 1;
        // r1 is a multiple of 4, so r1 · 2^130 / 4 is r1 · 5 / 4.
        let (r0, s1) = (u128::from(r0), u128::from(r1 + (r1 >> 2)));
        let low = h0 * r0 + h1 * s1;
        let mid = h0 * u128::from(r1) + h1 * r0 + u128::from(h2) * s1 + (low >> 64);
        let high = (u128::from(h2) * r0 + (mid >> 64)) as u64;
        // What lies above 2^130 comes back times 5.
        let folded = (high & !3) + (high >> 2);
        let joined = u128::from(low as u64) | u128::from(mid as u64) << 64;
        let (joined, carry) = joined.overflowing_add(u128::from(folded));
        self.h = [joined as u64, (joined >> 64) as u64, (high & 3) + u64::from(carry)];
    }

    /// The tag.
    #[inline(always)]
    pub(super) fn finish(&self) -> [u8; 16] {
        let [h0, h1, h2] = self.h;
        let h = u128::from(h0) | u128::from(h1) << 64;
        // h - (2^130 - 5), if that is not negative.
        let (reduced, carry) = h.overflowing_add(5);
        let over = (h2 + u64::from(carry)) >> 2;
        let take = 0_u128.wrapping_sub(u128::from(over));
        ((reduced & take) | (h & !take)).wrapping_add(self.s).to_le_bytes()
    }
}

/// The tag from a hash whose upper limb `top`, of some 130 - `bits` bits, is to be added to the others at `bits`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
pub(crate) fn finish(others: u128, top: u64, bits: u32, s: [u8; 16]) -> [u8; 16] {
    let (low, carry) = others.overflowing_add(u128::from(top) << bits);
    let h = [low as u64, (low >> 64) as u64, (top >> (128 - bits)) + u64::from(carry)];
    Poly1305 { h, r: [0; 2], s: u128::from_le_bytes(s) }.finish()
}

/// What one message is made of: AAD, text and lengths, each padded to blocks (RFC 8439 §2.8).
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) aad: &'a [u8],
    pub(crate) text: &'a [u8],
}

impl Message<'_> {
    /// The last block.
    #[inline(always)]
    pub(crate) fn lengths(&self) -> [u8; 16] {
        (self.aad.len() as u128 | (self.text.len() as u128) << 64).to_le_bytes()
    }
}

/// Hashes `N` messages in step.
#[inline(always)]
pub(super) fn hash<const N: usize>(hashes: &mut [Poly1305; N], messages: [Message<'_>; N]) {
    for (hash, message) in hashes.iter_mut().zip(&messages) {
        for block in message.aad.chunks(16) {
            hash.block(padded(block));
        }
    }
    let whole = messages.map(|message| message.text.as_chunks::<16>().0);
    let shared = whole.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
    let fronts = whole.map(|blocks| &blocks[..shared]);
    for i in 0..shared {
        for (hash, front) in hashes.iter_mut().zip(&fronts) {
            hash.block(front[i]);
        }
    }
    for n in 0..N {
        for block in &whole[n][shared..] {
            hashes[n].block(*block);
        }
        let rest = messages[n].text.as_chunks::<16>().1;
        if !rest.is_empty() {
            hashes[n].block(padded(rest));
        }
        hashes[n].block(messages[n].lengths());
    }
}

/// A block and zeros behind it.
#[inline(always)]
pub(crate) fn padded(octets: &[u8]) -> [u8; 16] {
    let mut block = [0; 16];
    block[..octets.len()].copy_from_slice(octets);
    block
}
