//! What the core tells the operator, as facts.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use pollux_abi::{EspSuite, Reqid, SaId, Spi, TrafficSelector};

use crate::crypto::{Encryption, Integrity};
use crate::error::IkeError;
use crate::identity::Identity;
use crate::message::IkeSpi;
use crate::sa::IkeSaId;

/// One event. `Display` of the error inside is the one line for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An IKE SA is established.
    IkeUp(IkeUp),
    /// An IKE SA was replaced by a new one with the same children.
    IkeRekeyed {
        /// The old one.
        old: IkeSaId,
        /// The new one.
        new: IkeUp,
    },
    /// An IKE SA is gone, and its Child SAs with it.
    IkeDown {
        /// The IKE SA.
        ike: IkeSaId,
        /// Its connection; `None` where it never got so far.
        connection: Option<Arc<str>>,
        /// The peer's address.
        remote: SocketAddr,
        /// Why.
        reason: DownReason,
    },
    /// A Child SA is up: inbound installed, and outbound installed or about to be.
    ChildUp(ChildUp),
    /// A Child SA took another one's place.
    ChildRekeyed {
        /// Inbound SA of the old one.
        old: SaId,
        /// The new one.
        new: ChildUp,
        /// Whether we began it.
        initiator: bool,
    },
    /// A Child SA is gone; an inbound half may decrypt a little longer.
    ChildDown {
        /// The IKE SA.
        ike: IkeSaId,
        /// Connection.
        connection: Arc<str>,
        /// Child.
        child: Arc<str>,
        /// Its inbound SA.
        inbound: SaId,
        /// Our SPI.
        spi_in: Spi,
        /// The peer's SPI.
        spi_out: Spi,
        /// Its reqid.
        reqid: Reqid,
        /// Why.
        reason: DownReason,
        /// Whether another Child SA carries its traffic.
        replaced: bool,
    },
    /// A Child SA carries less than the end that asked for it wanted.
    ChildNarrowed {
        /// Connection.
        connection: Arc<str>,
        /// Child.
        child: Arc<str>,
        /// Its reqid.
        reqid: Reqid,
        /// What was asked for, `ours === theirs`.
        wanted: String,
        /// What it carries.
        carried: String,
        /// Who or what took the rest away.
        by: NarrowedBy,
    },
    /// Something was refused, by us or by the peer.
    Refused {
        /// The IKE SA; `None` before there is one.
        ike: Option<IkeSaId>,
        /// Connection, where it is known.
        connection: Option<Arc<str>>,
        /// The peer's address.
        remote: SocketAddr,
        /// What, by whom, and which key of the configuration decides.
        error: IkeError,
        /// Whether the message that said so was authenticated; what was not has changed nothing.
        authenticated: bool,
    },
    /// A request was sent again.
    Retransmit {
        /// The IKE SA.
        ike: IkeSaId,
        /// The peer's address.
        remote: SocketAddr,
        /// Message id.
        message_id: u32,
        /// Which retransmission, from 1.
        attempt: u32,
    },
    /// A peer was asked whether it lives.
    LivenessProbe {
        /// The IKE SA.
        ike: IkeSaId,
        /// Silence so far.
        idle: Duration,
    },
    /// The peer's address or port changed.
    PeerMoved {
        /// The IKE SA.
        ike: IkeSaId,
        /// From.
        old: SocketAddr,
        /// To.
        new: SocketAddr,
    },
    /// A connection will be tried again.
    Retry {
        /// Connection.
        connection: Arc<str>,
        /// After this.
        wait: Duration,
    },
    /// Requests were dropped, because too many handshakes are half open. Rate-limited.
    Overload {
        /// Half-open IKE SAs now.
        half_open: u32,
        /// Requests dropped since the last such event.
        dropped: u64,
    },
    /// Keys of an SA, where the configuration asks for them. For tshark, never in earnest.
    Keys(KeyLog),
}

/// An IKE SA as the operator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeUp {
    /// Our name for it.
    pub ike: IkeSaId,
    /// Connection.
    pub connection: Arc<str>,
    /// Whether we began it.
    pub initiator: bool,
    /// Initiator's SPI.
    pub spi_i: IkeSpi,
    /// Responder's SPI.
    pub spi_r: IkeSpi,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our identity.
    pub local_id: Identity,
    /// The peer's authenticated identity.
    pub remote_id: Identity,
    /// The chosen proposal as swanctl users write it.
    pub proposal: String,
    /// NAT in front of us.
    pub nat_local: bool,
    /// NAT in front of the peer.
    pub nat_remote: bool,
}

/// A Child SA as the operator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildUp {
    /// The IKE SA.
    pub ike: IkeSaId,
    /// Connection.
    pub connection: Arc<str>,
    /// Child.
    pub child: Arc<str>,
    /// Inbound SA.
    pub inbound: SaId,
    /// Outbound SA.
    pub outbound: SaId,
    /// Our SPI.
    pub spi_in: Spi,
    /// The peer's SPI.
    pub spi_out: Spi,
    /// Ties it to policies.
    pub reqid: Reqid,
    /// Cipher.
    pub suite: EspSuite,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Whether ESP is in UDP.
    pub encap: bool,
    /// Our side of the traffic, narrowed.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's side of the traffic, narrowed.
    pub remote_ts: Vec<TrafficSelector>,
}

/// Why a Child SA carries less than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NarrowedBy {
    /// The peer's policy (RFC 7296 §2.9). Traffic that is left out asks for further Child SAs.
    Peer,
    /// The peer asked for more selectors than [`pollux_abi::layout::SELECTORS_MAX`] a side.
    Limit,
}

/// Why an SA is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// The operator, or a change of the configuration, asked for it.
    Operator,
    /// The peer deleted it.
    Peer,
    /// The peer does not answer.
    PeerDead,
    /// The handshake failed; the reason was told before.
    Failed,
    /// Its time, bytes or packets were used up.
    Lifetime,
    /// A newer one took its place.
    Replaced,
    /// The peer began anew (INITIAL_CONTACT).
    InitialContact,
    /// The data plane did not install it.
    DataPlane,
}

/// Keys for tshark's `ikev2_decryption_table` and `esp_sa`.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyLog {
    /// Keys of an IKE SA.
    Ike {
        /// Initiator's SPI.
        spi_i: IkeSpi,
        /// Responder's SPI.
        spi_r: IkeSpi,
        /// SK_ei, salt included.
        sk_ei: Vec<u8>,
        /// SK_er.
        sk_er: Vec<u8>,
        /// SK_ai; empty for AEAD.
        sk_ai: Vec<u8>,
        /// SK_ar.
        sk_ar: Vec<u8>,
        /// Encryption.
        encryption: Encryption,
        /// Integrity; `None` for combined modes.
        integrity: Option<Integrity>,
    },
    /// Keys of one ESP SA.
    Esp {
        /// SPI.
        spi: Spi,
        /// Outer source.
        source: IpAddr,
        /// Outer destination.
        destination: IpAddr,
        /// Cipher.
        suite: EspSuite,
        /// Encryption key, salt and integrity key in the order of KEYMAT.
        material: Vec<u8>,
    },
}

impl core::fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Ike { spi_i, spi_r, .. } => write!(f, "Ike({spi_i} {spi_r} [redacted])"),
            Self::Esp { spi, .. } => write!(f, "Esp({spi} [redacted])"),
        }
    }
}
