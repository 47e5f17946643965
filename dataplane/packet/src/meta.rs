//! What is known of a packet while it travels through a worker.

use pollux_abi::{DropReason, SaIndex, Spi, WorkerId};

use crate::flow::Flow;

/// One of the worker's ports, by its place in the worker's list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct PortSlot(pub u8);

/// Which side of the gateway a port is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// The untrusted side: ESP arrives here.
    #[default]
    Wan,
    /// The protected side: packets arrive here in clear and are forwarded, so their TTL is decremented.
    Lan,
    /// The gateway's own stack (`pollux0`): its packets have been routed by the kernel already.
    Host,
}

/// What [`crate::parse::classify`] took the packet for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// Any IP packet that is not for the ESP engine's inbound half.
    #[default]
    Plain,
    /// ESP right above IP; [`Meta::l4`] is where the SPI begins.
    Esp,
    /// ESP in UDP; [`Meta::l4`] is where the SPI begins.
    EspInUdp,
}

/// Whether a packet is a fragment. An IPv6 atomic fragment (RFC 6946) counts as whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    /// Not a fragment.
    #[default]
    Whole,
    /// The first fragment: it carries the ports.
    First,
    /// A later fragment: its ports are unknown.
    Later,
}

/// What shall happen to a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet.
    #[default]
    Pending,
    /// Route it by [`Meta::flow`]'s destination and send it.
    Forward,
    /// A policy lets it pass in clear: route and send it.
    Bypass,
    /// Its SA belongs to this worker, which is to go on with it.
    HandOver(WorkerId),
    /// Its SPI is one of ours that has no SA yet, and may have overtaken the command that brings it: hold it
    /// for a moment and offer it again, or give it up.
    Early,
    /// For the gateway itself.
    ToHost,
    /// Too long for the path, and its sender allows fragments: cut it to this many octets of IP each and
    /// offer the pieces again.
    Fragment(u16),
    /// The packet is gone, dropped and to be counted for this reason; the frame now holds an ICMP error
    /// for its sender: route it by [`Meta::flow`]'s destination, in clear.
    Reply(DropReason),
    /// Count it and reclaim the frame.
    Drop(DropReason),
}

/// What is known of one packet. After [`crate::parse::classify`], `packet.data()` begins with the IP header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meta {
    /// The packet's own 5-tuple: of the outer packet before decapsulation and after encapsulation.
    pub flow: Flow,
    /// Monotonic nanoseconds of reception.
    pub rx_ns: u64,
    /// Whole sequence number: inferred inbound, assigned outbound.
    pub sequence: u64,
    /// What shall happen to it.
    pub verdict: Verdict,
    /// The SA, where one was found.
    pub sa: SaIndex,
    /// The SPI of that SA (a handed-over packet of an SA that is gone must not meet its index's next tenant),
    /// or the one that an early packet waits for.
    pub spi: Option<Spi>,
    /// Where the transport header (or ESP) begins in `packet.data()`.
    pub l4: u16,
    /// The port it came in by.
    pub port: PortSlot,
    /// Which side that port is on.
    pub role: Role,
    /// What classification took it for.
    pub class: Class,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// The traffic-class octet: DSCP and ECN.
    pub traffic_class: u8,
    /// Another worker has handed it over.
    pub handed_over: bool,
}

impl Meta {
    /// What is known of a packet at reception.
    pub fn received(port: PortSlot, role: Role, rx_ns: u64) -> Self {
        Self { rx_ns, port, role, ..Self::default() }
    }

    /// Whether nothing has been decided yet.
    #[inline]
    pub const fn is_pending(&self) -> bool {
        matches!(self.verdict, Verdict::Pending)
    }

    /// Decides on dropping it.
    #[inline]
    pub const fn drop_for(&mut self, reason: DropReason) {
        self.verdict = Verdict::Drop(reason);
    }
}

const _: () = assert!(size_of::<Meta>() <= 112, "a burst's metadata must stay within 112 cache lines");
