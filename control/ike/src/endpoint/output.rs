//! What the core wants done.

use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pollux_abi::command::{Direction, EncapPorts, Lifetimes};
use pollux_abi::{EspSuite, KeyMaterial, Reqid, SaId, Spi, TrafficSelector};

use crate::event::Event;

/// One thing to do. Drain them in order after every verb.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram.
    Transmit(Transmit),
    /// Tell the data plane.
    Sa(SaCommand),
    /// Tell the operator.
    Event(Event),
}

/// One UDP datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Our address and port; the port says which socket.
    pub local: SocketAddr,
    /// Where to.
    pub remote: SocketAddr,
    /// The IKE message without a non-ESP marker, which the NAT-T socket adds; or, with
    /// [`Self::keepalive`], the one octet of a NAT keepalive, which goes without a marker.
    pub bytes: Vec<u8>,
    /// Whether it is a NAT keepalive (RFC 3948 §2.3).
    pub keepalive: bool,
}

/// One command for the data plane.
///
/// `Install` is answered by [`super::Command::SaInstalled`] or [`super::Command::SaRefused`] within
/// [`super::DATA_PLANE_DEADLINE`]; a later answer is ignored, as a `Remove` is on its way by then.
#[derive(Debug)]
pub enum SaCommand {
    /// Install one SA.
    Install(Box<SaInstall>),
    /// Remove one SA. It may never have been installed, and it may have stopped by itself.
    Remove {
        /// The SA.
        id: SaId,
        /// The SPI, to be given free where the SA was inbound.
        spi: Spi,
        /// Which way it worked.
        direction: Direction,
    },
    /// Ask for an SA's counters.
    Query {
        /// The SA.
        id: SaId,
    },
    /// The peer's or our own address changed.
    Move {
        /// The SA.
        id: SaId,
        /// Our outer address.
        local: IpAddr,
        /// The peer's outer address.
        remote: IpAddr,
        /// UDP encapsulation.
        encap: Option<EncapPorts>,
    },
}

/// One SA to install. Inbound and outbound are installed one by one, so that each is known to work
/// before the peer is told, and outbound moves only to what the peer has.
#[derive(Debug)]
pub struct SaInstall {
    /// Name of the SA, from [`super::SaAllocator::sa_id`].
    pub id: SaId,
    /// Which way it works.
    pub direction: Direction,
    /// SPI: from [`super::SaAllocator::inbound_spi`] inbound, the peer's outbound.
    pub spi: Spi,
    /// Cipher.
    pub suite: EspSuite,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Keys.
    pub keys: Box<KeyMaterial>,
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// UDP encapsulation.
    pub encap: Option<EncapPorts>,
    /// Ties the SA to policies. The newest outbound SA of a reqid is the one that is used.
    pub reqid: Reqid,
    /// Limits by bytes and packets, jitter included, and the age at which the data plane stops it whatever becomes of us.
    pub lifetimes: Lifetimes,
    /// Our side of the traffic.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's side of the traffic.
    pub remote_ts: Vec<TrafficSelector>,
    /// Connection, where marks, window and owner are configured.
    pub connection: Arc<str>,
    /// Child.
    pub child: Arc<str>,
}

/// The kernel's routes, as far as IKE asks for them.
pub trait Routes {
    /// The address of ours that a packet to `remote` would carry now; `None` without a route. The NAT
    /// detection payloads hash it (RFC 7296 §2.23), so that it has to be known before the first message.
    fn source(&self, remote: IpAddr) -> Option<IpAddr>;
}

impl<F: Fn(IpAddr) -> Option<IpAddr>> Routes for F {
    fn source(&self, remote: IpAddr) -> Option<IpAddr> {
        self(remote)
    }
}

/// Where SPIs and SA names come from: the caller keeps the data plane's table.
pub trait SaAllocator {
    /// A free inbound SPI that carries its table index and uses `random`; `None` where the table is full.
    fn inbound_spi(&mut self, random: u32) -> Option<Spi>;

    /// Gives back an SPI that no `Install` was emitted for.
    fn release(&mut self, spi: Spi);

    /// A name that no SA of this data plane has had.
    fn sa_id(&mut self) -> SaId;
}
