//! Newtypes for every number with a meaning. None of them does arithmetic.

use core::fmt;
use core::ops::RangeInclusive;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// Where an SA lives in a worker's table: an index, below the table's capacity.
    SaIndex(u32)
}
id! {
    /// Control's own name for an SA, unique for the life of the data plane; never zero for a live SA.
    SaId(u64)
}
id! {
    /// Control's own name for a policy.
    PolicyId(u32)
}
id! {
    /// Ties policies to SAs, as `reqid` does in `ip xfrm`.
    Reqid(u32)
}
id! {
    /// A worker, from 0.
    WorkerId(u16)
}
id! {
    /// A NIC's receive and transmit queue, from 0.
    QueueId(u32)
}
id! {
    /// A CPU as the kernel numbers it.
    CoreId(u32)
}
id! {
    /// A network interface as the kernel numbers it, within one network namespace.
    IfIndex(u32)
}
id! {
    /// Given by control to a command, returned in its acknowledgement.
    Ticket(u64)
}

impl Reqid {
    /// Control gives these to the peers of connections for many, as they come up; no configuration has them.
    pub const OF_PEERS: RangeInclusive<u32> = 1_000_000..=9_999_999;

    /// Whether it was given to a peer of a connection for many.
    pub fn is_of_peer(self) -> bool {
        Self::OF_PEERS.contains(&self.0)
    }
}

/// A Security Parameters Index in host byte order (RFC 4303 §2.1).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Spi(u32);

impl Spi {
    /// Values 1 to 255 are reserved and 0 never goes on the wire (RFC 4303 §2.1).
    pub const MIN: u32 = 256;

    /// An SPI, or `None` for a reserved value.
    pub const fn new(value: u32) -> Option<Self> {
        if value >= Self::MIN { Some(Self(value)) } else { None }
    }

    /// The value in host byte order.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The four octets on the wire.
    pub const fn to_be_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// An SPI that carries its table index: the bits 11, then `width` bits of index, the rest random.
    ///
    /// `width` is at most [`crate::layout::SPI_INDEX_WIDTH_MAX`]; `None` if the index does not fit.
    /// The leading 11 sets ESP on port 4500 apart from STUN, ZRTP, DTLS, TURN and RTP (RFC 7983).
    pub const fn with_index(index: SaIndex, width: u32, random: u32) -> Option<Self> {
        if width > crate::layout::SPI_INDEX_WIDTH_MAX || index.0 >> width != 0 {
            return None;
        }
        let random_bits = 30 - width;
        let random = random & ((1 << random_bits) - 1);
        Some(Self(0b11 << 30 | index.0 << random_bits | random))
    }

    /// The table index in an SPI made by [`Self::with_index`] with the same `width`; `None` for others.
    #[inline]
    pub const fn index(self, width: u32) -> Option<SaIndex> {
        if self.0 >> 30 != 0b11 || width > crate::layout::SPI_INDEX_WIDTH_MAX {
            return None;
        }
        Some(SaIndex((self.0 & 0x3fff_ffff) >> (30 - width)))
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spi({self})")
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spi_refuses_reserved_values() {
        assert_eq!(Spi::new(0), None);
        assert_eq!(Spi::new(255), None);
        assert_eq!(Spi::new(256).map(Spi::get), Some(256));
    }

    #[test]
    fn spi_carries_its_index_at_every_width() {
        for width in 1..=crate::layout::SPI_INDEX_WIDTH_MAX {
            let last = SaIndex((1 << width) - 1);
            let spi = Spi::with_index(last, width, 0xdead_beef).expect("index fits its width");
            assert_eq!(spi.get() >> 30, 0b11);
            assert_eq!(spi.index(width), Some(last));
            assert_eq!(Spi::with_index(SaIndex(1 << width), width, 0), None);
        }
    }

    #[test]
    fn spi_of_another_origin_has_no_index() {
        assert_eq!(Spi::new(0x1000).and_then(|spi| spi.index(16)), None);
    }
}
