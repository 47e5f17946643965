//! What the caller tells the core besides datagrams and time.

use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pollux_abi::command::{CommandError, Direction, EncapPorts};
use pollux_abi::event::SaStats;
use pollux_abi::{Reqid, SaId, Spi};

use crate::config::EndpointConfig;
use crate::sa::IkeSaId;

/// One command of the operator, or one answer or event of the data plane.
#[derive(Debug)]
pub enum Command {
    /// Brings up a connection with all its children, or one child of it.
    Initiate {
        /// The connection's name.
        connection: Arc<str>,
        /// The child's name; `None` for all.
        child: Option<Arc<str>>,
    },
    /// Closes IKE SAs or Child SAs.
    Terminate(Target),
    /// Rekeys IKE SAs or Child SAs now.
    Rekey(Target),
    /// A policy protects a packet and there is no SA for it (`start_action = trap`).
    Acquire {
        /// The policy's reqid.
        reqid: Reqid,
        /// Inner source of the packet.
        source: IpAddr,
        /// Inner destination of the packet.
        destination: IpAddr,
    },
    /// A new configuration. Connections that did not change keep their SAs; others are closed.
    Reload(Arc<EndpointConfig>),
    /// The data plane installed an SA.
    SaInstalled {
        /// The SA.
        sa: SaId,
    },
    /// The data plane refused an SA.
    SaRefused {
        /// The SA.
        sa: SaId,
        /// Why.
        error: CommandError,
    },
    /// Answer to [`super::SaCommand::Query`].
    SaStats {
        /// The SA.
        sa: SaId,
        /// Its counters.
        stats: SaStats,
    },
    /// The first packet was authenticated under an inbound SA.
    FirstPacket {
        /// The SA.
        sa: SaId,
    },
    /// An SA reached its soft limit, or its hard one and stopped.
    Lifetime {
        /// The SA.
        sa: SaId,
        /// Whether it has stopped.
        hard: bool,
    },
    /// Authenticated ESP came from another address than the SA's.
    PeerMoved {
        /// The inbound SA.
        sa: SaId,
        /// Where it came from.
        remote: SocketAddr,
    },
    /// The data plane is there and holds these SAs, which the core does not know or knew before.
    DataPlaneUp {
        /// SAs that an earlier control process installed, newest traffic first. Of another life of this
        /// core's own SAs nothing is listed: their keys died with the data plane.
        live: Vec<LiveSa>,
    },
    /// The data plane died, and its negotiated keys with it.
    DataPlaneDown,
}

/// What a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every IKE SA of the connection, or every Child SA of one of its children.
    Connection {
        /// The connection's name.
        connection: Arc<str>,
        /// The child's name; `None` for the IKE SAs.
        child: Option<Arc<str>>,
    },
    /// One IKE SA.
    Ike(IkeSaId),
    /// The Child SA that this SA belongs to.
    Child(SaId),
}

/// An SA of an earlier life of the control process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSa {
    /// Its id.
    pub id: SaId,
    /// Which way it works.
    pub direction: Direction,
    /// SPI.
    pub spi: Spi,
    /// Ties it to policies.
    pub reqid: Reqid,
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// UDP encapsulation.
    pub encap: Option<EncapPorts>,
    /// Nanoseconds since its last packet; `u64::MAX` where there was none.
    pub idle_ns: u64,
}
