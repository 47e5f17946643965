//! The IKE header (RFC 7296 §3.1).

use core::fmt;

use super::{ExchangeType, Malformed, PayloadType};

/// One side's Security Parameters Index of an IKE SA; zero where the responder has not given its own yet.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSpi(u64);

impl IkeSpi {
    /// "Not given yet", in the first message of an IKE SA.
    pub const ZERO: Self = Self(0);

    /// The SPI with these octets.
    pub const fn from_be_bytes(octets: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(octets))
    }

    /// The octets on the wire.
    pub const fn to_be_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Whether no SPI is given.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IkeSpi({self})")
    }
}

impl fmt::Display for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The number of an exchange within one direction of an IKE SA (RFC 7296 §2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u32);

impl MessageId {
    /// The next number; `None` when the IKE SA has used them all and must be closed.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The header's flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The sender is the original initiator of the IKE SA.
    pub initiator: bool,
    /// The sender speaks a higher major version too.
    pub higher_version: bool,
    /// The message answers a request with the same message id.
    pub response: bool,
}

impl Flags {
    const INITIATOR: u8 = 0x08;
    const HIGHER_VERSION: u8 = 0x10;
    const RESPONSE: u8 = 0x20;

    /// Reserved bits are ignored on receipt (RFC 7296 §3.1).
    pub const fn from_wire(octet: u8) -> Self {
        Self {
            initiator: octet & Self::INITIATOR != 0,
            higher_version: octet & Self::HIGHER_VERSION != 0,
            response: octet & Self::RESPONSE != 0,
        }
    }

    /// The octet on the wire.
    pub const fn to_wire(self) -> u8 {
        (if self.initiator { Self::INITIATOR } else { 0 })
            | (if self.higher_version { Self::HIGHER_VERSION } else { 0 })
            | (if self.response { Self::RESPONSE } else { 0 })
    }
}

/// The 28 octets that every IKE message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The original initiator's SPI; never zero in a correct message.
    pub spi_i: IkeSpi,
    /// The original responder's SPI.
    pub spi_r: IkeSpi,
    /// Type of the first payload.
    pub first: PayloadType,
    /// Major version: 2.
    pub major: u8,
    /// Minor version: sent as 0, ignored on receipt.
    pub minor: u8,
    /// Exchange type.
    pub exchange: ExchangeType,
    /// Flags.
    pub flags: Flags,
    /// Message id.
    pub id: MessageId,
    /// Octets of the whole message, header included.
    pub length: u32,
}

impl Header {
    /// Octets of a header.
    pub const LEN: usize = 28;
    /// The major version that we speak.
    pub const MAJOR: u8 = 2;

    /// A header for [`super::Writer`], which fills in `first` and `length`.
    pub const fn new(
        spi_i: IkeSpi,
        spi_r: IkeSpi,
        exchange: ExchangeType,
        flags: Flags,
        id: MessageId,
    ) -> Self {
        Self {
            spi_i,
            spi_r,
            first: PayloadType::None,
            major: Self::MAJOR,
            minor: 0,
            exchange,
            flags,
            id,
            length: 0,
        }
    }

    /// Reads the fields; judges nothing but that there are enough octets.
    ///
    /// A caller that gets another major version still needs the SPIs and the message id for its answer.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let octets: &[u8; Self::LEN] =
            datagram.first_chunk().ok_or(Malformed::Header { len: datagram.len() })?;
        let [i0, i1, i2, i3, i4, i5, i6, i7, r0, r1, r2, r3, r4, r5, r6, r7, tail @ ..] = *octets;
        let [first, version, exchange, flags, m0, m1, m2, m3, l0, l1, l2, l3] = tail;
        Ok(Self {
            spi_i: IkeSpi::from_be_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
            spi_r: IkeSpi::from_be_bytes([r0, r1, r2, r3, r4, r5, r6, r7]),
            first: PayloadType::from_wire(first),
            major: version >> 4,
            minor: version & 0x0f,
            exchange: ExchangeType::from_wire(exchange),
            flags: Flags::from_wire(flags),
            id: MessageId(u32::from_be_bytes([m0, m1, m2, m3])),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }

    /// Appends the header.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.spi_i.to_be_bytes());
        out.extend_from_slice(&self.spi_r.to_be_bytes());
        out.push(self.first.to_wire());
        out.push(self.major << 4 | (self.minor & 0x0f));
        out.push(self.exchange.to_wire());
        out.push(self.flags.to_wire());
        out.extend_from_slice(&self.id.0.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn header_is_read_as_it_was_written(octets in any::<[u8; Header::LEN]>()) {
            let header = Header::parse(&octets).expect("28 octets");
            let mut written = Vec::new();
            header.write(&mut written);
            let mut expected = octets;
            // Reserved flags are not kept.
            expected[19] &= 0x38;
            prop_assert_eq!(written, expected);
        }
    }

    #[test]
    fn header_needs_all_its_octets() {
        for len in 0..Header::LEN {
            assert_eq!(Header::parse(&vec![0; len]), Err(Malformed::Header { len }));
        }
    }

    #[test]
    fn message_ids_end() {
        assert_eq!(MessageId(7).next(), Some(MessageId(8)));
        assert_eq!(MessageId(u32::MAX).next(), None);
    }
}
