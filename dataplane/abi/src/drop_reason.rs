//! The one list of reasons for which a packet is dropped. Each has one counter.

use core::fmt;

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $xfrm:expr, $text:literal;)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $text] $(#[$doc])* $variant,)* }

        impl DropReason {
            /// Every reason, in the order of its counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The counter's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The counter of `/proc/net/xfrm_stat` that means the same, where there is one.
            pub const fn xfrm_name(self) -> Option<&'static str> {
                match self { $(Self::$variant => $xfrm,)* }
            }

            /// One sentence for the operator.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

drop_reasons! {
    Malformed, "malformed", Some("XfrmInHdrError"), "A header is cut short or contradicts itself";
    HeaderChecksum, "header_checksum", None, "The checksum of the IPv4 header is wrong (RFC 1812 §5.2.2)";
    UnknownSpi, "unknown_spi", Some("XfrmInNoStates"), "No inbound SA has this SPI and destination, nor got one while the packet was held";
    SaExpired, "sa_expired", Some("XfrmInStateExpired"), "The SA reached a hard lifetime";
    SequenceZero, "sequence_zero", Some("XfrmInStateSeqError"), "Sequence number zero without ESN";
    Replayed, "replayed", Some("XfrmInStateSeqError"), "The sequence number was seen before";
    TooOld, "too_old", Some("XfrmInStateSeqError"), "The sequence number lies left of the replay window";
    BadIcv, "bad_icv", Some("XfrmInStateProtoError"), "The integrity check failed";
    EspTruncated, "esp_truncated", Some("XfrmInHdrError"), "Too short for its SA's IV, trailer and ICV, or not a whole number of blocks";
    BadPadding, "bad_padding", Some("XfrmInStateProtoError"), "Padding longer than the packet, or not 1, 2, 3 …";
    BadNextHeader, "bad_next_header", Some("XfrmInStateModeError"), "The ESP next header is none that the SA's mode carries";
    DummyPacket, "dummy_packet", None, "A dummy packet (next header 59) of traffic flow confidentiality";
    InnerMalformed, "inner_malformed", Some("XfrmInHdrError"), "The decrypted packet's IP header is wrong, or not of the version that next header says";
    SelectorMismatch, "selector_mismatch", Some("XfrmInTmplMismatch"), "The decrypted packet is outside its SA's selectors, or policy gives it to another SA or none";
    InPolicyDiscard, "in_policy_discard", Some("XfrmInPolBlock"), "An inbound policy discards the packet";
    ClearForProtected, "clear_for_protected", Some("XfrmInNoPols"), "Arrived in clear though a policy protects it";
    EcnForbidden, "ecn_forbidden", None, "Outer CE on an inner packet that is not ECN-capable (RFC 6040 §4.2)";
    NoPolicy, "no_policy", Some("XfrmOutPolError"), "No outbound policy matches";
    OutPolicyDiscard, "out_policy_discard", Some("XfrmOutPolBlock"), "An outbound policy discards the packet";
    NoSa, "no_sa", Some("XfrmOutNoStates"), "The policy protects, but no outbound SA exists";
    SequenceExhausted, "sequence_exhausted", Some("XfrmOutStateSeqError"), "The outbound sequence numbers are used up";
    OutSaExpired, "out_sa_expired", Some("XfrmOutStateExpired"), "The outbound SA reached a hard lifetime";
    TooBig, "too_big", Some("XfrmOutBundleCheckError"), "Does not fit the path MTU and may not be fragmented";
    FragmentPorts, "fragment_ports", None, "A fragment whose policy needs the ports it does not carry";
    TtlExpired, "ttl_expired", None, "TTL or hop limit ran out at the gateway";
    NoHeadroom, "no_headroom", Some("XfrmOutBundleGenError"), "The frame has no room for the encapsulation";
    NoRoute, "no_route", None, "The kernel's routes do not lead to the destination";
    NoNeighbour, "no_neighbour", None, "The next hop's link-layer address did not resolve in time";
    NeighbourQueueFull, "neighbour_queue_full", None, "Too many packets wait for an unresolved next hop";
    PortDown, "port_down", None, "The outgoing port is down or gone";
    NotOurs, "not_ours", None, "Steered to a worker though nothing here wants it";
    TxRingFull, "tx_ring_full", None, "The transmit ring stayed full";
    HandoverFull, "handover_full", None, "The queue to the SA's owner was full";
    HandoverLoop, "handover_loop", None, "Handed over twice: the SA's owner changed in between";
    Stale, "stale", None, "Waited in a ring while the worker stalled for longer than the media are worth";
    Bypassed, "bypass_unreachable", None, "A bypass policy matched, but the packet can't be sent in clear from here";
}

impl DropReason {
    /// The reason's place among the counters.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason at a place among the counters.
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_name_and_place() {
        for (index, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert_eq!(DropReason::from_index(index), Some(reason));
            assert_eq!(DropReason::ALL.iter().filter(|other| other.name() == reason.name()).count(), 1);
        }
        assert_eq!(DropReason::from_index(DropReason::COUNT), None);
    }
}
