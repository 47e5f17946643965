//! From the path MTU of the outer packet to the longest inner packet.

use pollux_packet::esp::TRAILER_LEN;

/// The MTU of a path that nothing is known of: Ethernet's.
pub(crate) const DEFAULT: u16 = 1500;

/// The least MTU of an IPv6 link (RFC 8200 §5); no ICMPv6 error says less.
pub(crate) const IPV6_LEAST: u16 = 1280;

/// The longest inner packet that fits `mtu`, with `front` octets of outer headers, SPI, sequence number and
/// IV before it, and padding, trailer and `icv` octets of ICV behind it. `block` is a power of two.
pub(crate) fn inner(mtu: u16, template: usize, icv: usize, block: usize) -> u16 {
    let text = usize::from(mtu).saturating_sub(template + icv) & !(block - 1);
    u16::try_from(text.saturating_sub(TRAILER_LEN)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_packet::esp::Trailer;
    use proptest::prelude::*;

    #[test]
    fn known_tunnels_leave_known_room() {
        // AES-GCM with 16 octets of ICV: 20 + 8 + 8 before, 16 behind; 1448 is a multiple of 4.
        assert_eq!(inner(1500, 36, 16, 4), 1446);
        assert_eq!(inner(1500, 44, 16, 4), 1438, "in UDP");
        assert_eq!(inner(1500, 56, 16, 4), 1426, "over IPv6");
        assert_eq!(inner(1500, 44, 16, 16), 1438, "AES-CBC with HMAC-SHA2-256");
        assert_eq!(inner(40, 36, 16, 4), 0);
    }

    proptest! {
        #[test]
        fn one_octet_more_would_not_fit(mtu in 200u16..9_000, template in 28usize..72, icv in 8usize..=32, wide in any::<bool>()) {
            let block = if wide { 16 } else { 4 };
            let outer = |inner: usize| template + inner + Trailer::padding(inner, block) + TRAILER_LEN + icv;
            let longest = usize::from(inner(mtu, template, icv, block));
            prop_assert!(outer(longest) <= usize::from(mtu));
            prop_assert!(outer(longest + 1) > usize::from(mtu));
        }
    }
}
