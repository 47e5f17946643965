//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the errors that a gateway sends.

use crate::checksum::{self, Sum};
use crate::flow::{Flow, ICMPV6};

/// Octets of an error's header: type, code, checksum and one word.
pub const HEADER_LEN: usize = 8;

/// An error that a gateway tells a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The packet is longer than this MTU (RFC 1191 §4, RFC 4443 §3.2).
    TooBig {
        /// What would fit.
        mtu: u16,
    },
    /// TTL or hop limit ran out (RFC 792, RFC 4443 §3.3).
    TimeExceeded,
}

impl Error {
    /// The ICMP header, its checksum not yet made.
    pub const fn header_v4(self) -> [u8; HEADER_LEN] {
        match self {
            Self::TooBig { mtu } => {
                let [high, low] = mtu.to_be_bytes();
                [3, 4, 0, 0, 0, 0, high, low]
            }
            Self::TimeExceeded => [11, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    /// The ICMPv6 header, its checksum not yet made.
    pub const fn header_v6(self) -> [u8; HEADER_LEN] {
        match self {
            Self::TooBig { mtu } => {
                let [high, low] = mtu.to_be_bytes();
                [2, 0, 0, 0, 0, 0, high, low]
            }
            Self::TimeExceeded => [3, 0, 0, 0, 0, 0, 0, 0],
        }
    }
}

/// Whether an ICMP message of this type is an error, which is never answered by an error (RFC 1122 §3.2.2).
pub const fn is_error_v4(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

/// Whether an ICMPv6 message of this type is an error or a redirect (RFC 4443 §2.4).
pub const fn is_error_v6(kind: u8) -> bool {
    kind < 128 || kind == 137
}

/// Writes the checksum of a whole ICMP message.
pub fn write_checksum_v4(message: &mut [u8]) {
    write(message, Sum::new());
}

/// Writes the checksum of a whole ICMPv6 message between the addresses of `flow`.
pub fn write_checksum_v6(flow: &Flow, message: &mut [u8]) {
    let pseudo = checksum::pseudo_header(flow, ICMPV6, message.len());
    write(message, pseudo);
}

fn write(message: &mut [u8], pseudo: Sum) {
    checksum::write(message, 2, pseudo, ICMPV6);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_verifies_after_writing() {
        let mut message = [&Error::TooBig { mtu: 1422 }.header_v4()[..], b"the packet"].concat();
        write_checksum_v4(&mut message);
        assert_eq!(Sum::new().octets(&message).fold(), u16::MAX);
        assert_eq!(message[6..8], 1422u16.to_be_bytes());
    }

    #[test]
    fn errors_are_told_from_queries() {
        assert!(is_error_v4(3) && is_error_v4(11) && !is_error_v4(8) && !is_error_v4(0));
        assert!(
            is_error_v6(1) && is_error_v6(127) && is_error_v6(137) && !is_error_v6(128) && !is_error_v6(135)
        );
    }
}
