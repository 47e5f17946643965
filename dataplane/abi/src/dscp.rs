//! The two halves of the traffic-class octet: DSCP (RFC 2474) and ECN (RFC 3168).

/// A Differentiated Services Code Point, 0 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Dscp(u8);

impl Dscp {
    /// Best effort.
    pub const BE: Self = Self(0);
    /// Expedited forwarding, the class of voice (RFC 3246).
    pub const EF: Self = Self(46);

    /// A code point, or `None` above 63.
    pub const fn new(value: u8) -> Option<Self> {
        if value < 64 { Some(Self(value)) } else { None }
    }

    /// The upper six bits of a traffic-class octet.
    #[inline]
    pub const fn of_traffic_class(octet: u8) -> Self {
        Self(octet >> 2)
    }

    /// The value, 0 to 63.
    #[inline]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Explicit Congestion Notification bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    NotEct = 0,
    /// ECN-capable, ECT(1).
    Ect1 = 1,
    /// ECN-capable, ECT(0).
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

impl Ecn {
    /// The lower two bits of a traffic-class octet.
    #[inline]
    pub const fn of_traffic_class(octet: u8) -> Self {
        match octet & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

/// What an outbound SA writes into the outer header's DSCP field (RFC 2983, RFC 4301 §5.1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DscpMark {
    /// The inner packet's code point.
    #[default]
    Copy,
    /// Always this one.
    Fixed(Dscp),
}

/// The don't-fragment bit of an IPv4 outer header (RFC 4301 §8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DfMark {
    /// The inner packet's bit; set where the inner packet is IPv6.
    #[default]
    Copy,
    /// Always set.
    Set,
    /// Always clear.
    Clear,
}

/// How ECN crosses the tunnel (RFC 6040).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EcnMode {
    /// Copied out, and combined on the way in (RFC 6040 §4.1 normal mode, §4.2).
    #[default]
    Normal,
    /// Outer is always Not-ECT (RFC 6040 §4.1 compatibility mode).
    Off,
}
