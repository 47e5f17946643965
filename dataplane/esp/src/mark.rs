//! DSCP and ECN across the tunnel (RFC 2983, RFC 4301 §5.1.2, RFC 6040).

use pollux_abi::dscp::{DscpMark, Ecn, EcnMode};
use pollux_packet::{Flow, IpVersion, ipv4, ipv6};

/// The outer traffic class for an inner one.
#[inline]
pub(crate) const fn outer(inner: u8, dscp: DscpMark, ecn: EcnMode) -> u8 {
    let code_point = match dscp {
        DscpMark::Copy => inner & !3,
        DscpMark::Fixed(dscp) => dscp.get() << 2,
    };
    match ecn {
        EcnMode::Normal => code_point | (inner & 3),
        EcnMode::Off => code_point,
    }
}

/// What becomes of the inner ECN field on decapsulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decap {
    /// It stays.
    Keep,
    /// It stays, though the two fields should never meet.
    KeepUnexpected,
    /// It becomes this.
    Set(Ecn),
    /// The packet is dropped: congestion was experienced, and the sender could not be told.
    Drop,
}

/// The table of RFC 6040 §4.2, figure 4.
//= RFC 6040 §4.2
#[inline]
pub(crate) const fn decap(inner: Ecn, outer: Ecn) -> Decap {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => Decap::Drop,
        (Ecn::Ect0 | Ecn::Ect1, Ecn::Ce) => Decap::Set(Ecn::Ce),
        (Ecn::Ect0, Ecn::Ect1) => Decap::Set(Ecn::Ect1),
        (Ecn::NotEct, Ecn::Ect0 | Ecn::Ect1) | (Ecn::Ect1, Ecn::Ect0) | (Ecn::Ce, Ecn::Ect1) => {
            Decap::KeepUnexpected
        }
        _ => Decap::Keep,
    }
}

/// Writes another ECN field into an IP header known to be whole.
#[inline]
pub(crate) fn set_ecn(packet: &mut [u8], flow: &Flow, traffic_class: u8) {
    match flow.version {
        IpVersion::V4 => ipv4::set_traffic_class(packet, traffic_class),
        IpVersion::V6 => ipv6::set_traffic_class(packet, traffic_class),
    }
}

/// Takes one hop off a packet that is forwarded, once per gateway (RFC 4301 §5.1.2.1); false, and no
/// change, where none is left. The engine does so for what it encrypts; who forwards in clear calls it.
#[inline]
#[must_use = "a packet without hops left must not go on"]
pub fn take_hop(packet: &mut [u8], version: IpVersion) -> bool {
    match version {
        IpVersion::V4 => ipv4::take_hop(packet),
        IpVersion::V6 => ipv6::take_hop(packet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_abi::Dscp;

    #[test]
    fn decap_follows_the_table() {
        use Decap::{Drop, Keep, KeepUnexpected as Odd, Set};
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        let outers = [NotEct, Ect0, Ect1, Ce];
        for (inner, row) in [
            (NotEct, [Keep, Odd, Odd, Drop]),
            (Ect0, [Keep, Keep, Set(Ect1), Set(Ce)]),
            (Ect1, [Keep, Odd, Keep, Set(Ce)]),
            (Ce, [Keep, Keep, Odd, Keep]),
        ] {
            for (outer, expected) in outers.into_iter().zip(row) {
                assert_eq!(decap(inner, outer), expected, "{inner:?} in {outer:?}");
            }
        }
    }

    #[test]
    fn outer_marks_copy_or_fix() {
        let ef_ect0 = 46 << 2 | 2;
        assert_eq!(outer(ef_ect0, DscpMark::Copy, EcnMode::Normal), ef_ect0);
        assert_eq!(outer(ef_ect0, DscpMark::Copy, EcnMode::Off), 46 << 2);
        assert_eq!(outer(ef_ect0, DscpMark::Fixed(Dscp::BE), EcnMode::Normal), 2);
    }
}
