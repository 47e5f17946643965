//! What the operator sees of the IKE SAs at one moment.

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use crate::event::ChildUp;
use crate::identity::Identity;
use crate::message::IkeSpi;
use crate::sa::IkeSaId;

/// One IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeStatus {
    /// Our name for it.
    pub ike: IkeSaId,
    /// Connection; `None` for a peer that has not said who it is.
    pub connection: Option<Arc<str>>,
    /// `CONNECTING`, `ESTABLISHED`, `REKEYED` or `DELETING`, as swanctl has it.
    pub state: &'static str,
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
    /// Our identity, once it is told.
    pub local_id: Option<Identity>,
    /// The peer's identity, once it is authenticated.
    pub remote_id: Option<Identity>,
    /// The chosen proposal, as swanctl users write it.
    pub proposal: Option<String>,
    /// Age since it was established.
    pub age: Option<Duration>,
    /// Time to its rekey.
    pub rekey_in: Option<Duration>,
    /// Child SAs.
    pub children: Vec<ChildStatus>,
}

/// One Child SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildStatus {
    /// What was agreed on.
    pub sa: ChildUp,
    /// `INSTALLING`, `INSTALLED`, `REKEYED` or `DELETING`, as swanctl has it.
    pub state: &'static str,
    /// Whether the outbound half is in use.
    pub outbound: bool,
    /// Time to its rekey.
    pub rekey_in: Option<Duration>,
    /// Time to its end.
    pub expires_in: Option<Duration>,
}
