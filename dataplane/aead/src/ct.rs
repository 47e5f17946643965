//! Comparison of ICVs in constant time.

use subtle::ConstantTimeEq;

/// Whether the first octets of `computed` are `received`, in a time that tells nothing of where they differ.
#[inline]
pub(crate) fn icv_matches(computed: &[u8], received: &[u8]) -> bool {
    debug_assert!(received.len() <= computed.len());
    computed.iter().zip(received).fold(0, |diff, (a, b)| diff | (a ^ b)).ct_eq(&0).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_flipped_bit_anywhere_is_a_mismatch() {
        let tag = [0xa5; 16];
        for len in [8, 12, 16] {
            assert!(icv_matches(&tag, &tag[..len]));
            for bit in 0..len * 8 {
                let mut received = tag;
                received[bit / 8] ^= 1 << (bit % 8);
                assert!(!icv_matches(&tag, &received[..len]), "bit {bit} of {len} octets");
            }
        }
    }
}
