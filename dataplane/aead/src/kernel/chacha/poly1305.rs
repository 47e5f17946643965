//! Poly1305 (RFC 8439 §2.5) in 64-bit arithmetic.

/// What is multiplied by, not yet clamped, and what is added in the end.
pub(crate) type OneTimeKey = [[u8; 16]; 2];

/// The hash of one message so far, and its key.
#[derive(Clone, Copy, Default)]
pub(crate) struct Poly1305 {
    h: [u64; 3],
    r: [u64; 2],
    s: u128,
}

impl Poly1305 {
    /// From the one-time key, of which the first half is clamped.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    pub(crate) fn new([r, s]: OneTimeKey) -> Self {
        let r = u128::from_le_bytes(r) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
        Self { h: [0; 3], r: [r as u64, (r >> 64) as u64], s: u128::from_le_bytes(s) }
    }

    /// From a hash whose upper limb `top` is to be added to the others at `bits`.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    pub(crate) fn resume(key: OneTimeKey, others: u128, top: u64, bits: u32) -> Self {
        let (low, carry) = others.overflowing_add(u128::from(top) << bits);
        let h = [low as u64, (low >> 64) as u64, (top >> (128 - bits)) + u64::from(carry)];
        Self { h, ..Self::new(key) }
    }

    /// After AAD.
    #[inline(always)]
    pub(crate) fn after(key: OneTimeKey, aad: &[u8]) -> Self {
        let mut hash = Self::new(key);
        hash.octets(aad);
        hash
    }

    /// Takes one block of 16 octets.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "low halves of products; the rest is carried")]
    pub(crate) fn block(&mut self, block: [u8; 16]) {
        let block = u128::from_le_bytes(block);
        let ([h0, h1, h2], [r0, r1]) = (self.h, self.r);
        // Carries by name: from sums of 128 bits the compiler makes compares.
        let (h0, carry) = h0.carrying_add(block as u64, false);
        let (h1, carry) = h1.carrying_add((block >> 64) as u64, carry);
        let (h2, _) = h2.carrying_add(1, carry);
        // r1 is a multiple of 4, so r1 · 2^130 / 4 is r1 · 5 / 4.
        let s1 = r1 + (r1 >> 2);
        let times = |a: u64, b: u64| u128::from(a) * u128::from(b);
        // h2 has three bits, so that its products fit 64.
        let low = times(h0, r0) + times(h1, s1);
        let mid = times(h0, r1) + times(h1, r0) + u128::from(h2.wrapping_mul(s1)) + (low >> 64);
        let high = h2.wrapping_mul(r0).wrapping_add((mid >> 64) as u64);
        // What lies above 2^130 comes back times 5.
        let folded = (high & !3) + (high >> 2);
        let (h0, carry) = (low as u64).carrying_add(folded, false);
        let (h1, carry) = (mid as u64).carrying_add(0, carry);
        let (h2, _) = (high & 3).carrying_add(0, carry);
        self.h = [h0, h1, h2];
    }

    /// Takes octets, padded to blocks.
    #[inline(always)]
    pub(crate) fn octets(&mut self, octets: &[u8]) {
        let (blocks, rest) = octets.as_chunks();
        for block in blocks {
            self.block(*block);
        }
        if !rest.is_empty() {
            self.block(padded(rest));
        }
    }

    /// The tag.
    #[inline(always)]
    pub(crate) fn finish(&self) -> [u8; 16] {
        let [h0, h1, h2] = self.h;
        let h = u128::from(h0) | u128::from(h1) << 64;
        // h - (2^130 - 5), if that is not negative.
        let (reduced, carry) = h.overflowing_add(5);
        let over = (h2 + u64::from(carry)) >> 2;
        let take = 0_u128.wrapping_sub(u128::from(over));
        ((reduced & take) | (h & !take)).wrapping_add(self.s).to_le_bytes()
    }
}

/// Takes octets of two messages in step, so that one works while the other waits for its products.
#[inline(always)]
pub(crate) fn octets_of_two(hashes: &mut [Poly1305; 2], octets: [&[u8]; 2]) {
    let [a, b] = hashes;
    let shared = octets[0].len().min(octets[1].len()) / 16 * 16;
    let (front, rest) =
        (octets.map(|octets| octets[..shared].as_chunks().0), octets.map(|octets| &octets[shared..]));
    for (block_a, block_b) in front[0].iter().zip(front[1]) {
        a.block(*block_a);
        b.block(*block_b);
    }
    a.octets(rest[0]);
    b.octets(rest[1]);
}

/// A block and zeros behind it.
#[inline(always)]
pub(crate) fn padded(octets: &[u8]) -> [u8; 16] {
    let mut block = [0; 16];
    block[..octets.len()].copy_from_slice(octets);
    block
}
