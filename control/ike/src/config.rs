//! What the operator wants, as plain values: connections, their children, secrets and limits.
//!
//! Names are those of `swanctl.conf` where they mean the same. The core trusts these values: ranges and
//! contradictions are checked where the configuration is read.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use pollux_abi::{Reqid, TrafficSelector};
use zeroize::Zeroizing;

use crate::identity::{Identity, IdentityPattern};
use crate::negotiate::Proposal;

/// Everything that [`crate::Endpoint`] is told of the operator's wishes.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Connections, in the order of the file: between equally good matches the first one wins.
    pub connections: Vec<Arc<Connection>>,
    /// Pre-shared keys.
    pub secrets: Vec<PreSharedKey>,
    /// Limits on what strangers may make us do.
    pub limits: Limits,
    /// Retransmission of our requests.
    pub retransmit: Retransmit,
    /// Pause after which a NAT in front of us is sent a keepalive (RFC 3948 §4); zero sends none.
    pub nat_keepalive: Duration,
    /// UDP ports that the caller's sockets have.
    pub ports: Ports,
    /// Whether [`crate::Event::Keys`] shows the keys of every SA, for tshark. Never set it in earnest.
    pub log_keys: bool,
}

/// The two UDP ports of IKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Plain IKE: 500.
    pub ike: u16,
    /// IKE and ESP in UDP: 4500. The caller strips and adds the non-ESP marker there (RFC 3948 §2.2).
    pub nat_t: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { ike: 500, nat_t: 4500 }
    }
}

/// Bounds on the work and the state that peers cause before they have authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Half-open IKE SAs beyond which a COOKIE is demanded (RFC 7296 §2.6).
    pub cookie_threshold: u32,
    /// Half-open IKE SAs in all whose requests brought a cookie; further requests are dropped, except for a few of
    /// each configured peer's address.
    pub half_open_max: u32,
    /// The same of one source: an IPv4 address or an IPv6 /64; a /48 may have twice as many.
    pub half_open_per_source: u32,
    /// How long a peer has from IKE_SA_INIT to the end of IKE_AUTH.
    pub half_open_timeout: Duration,
    /// Child SAs of one IKE SA, old ones that are being replaced included.
    pub children_max: u32,
    /// IKE SAs in all.
    pub ike_sas_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cookie_threshold: 64,
            half_open_max: 4096,
            half_open_per_source: 512,
            half_open_timeout: Duration::from_secs(30),
            children_max: 64,
            ike_sas_max: 100_000,
        }
    }
}

/// Retransmission: the n-th wait is `first * 1.8^n`, at most `cap`, plus up to `jitter_percent` (RFC 7296 §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmit {
    /// First wait.
    pub first: Duration,
    /// Longest wait.
    pub cap: Duration,
    /// Retransmissions before the peer is given up.
    pub tries: u32,
    /// Random part added to each wait, in percent of it.
    pub jitter_percent: u32,
}

impl Default for Retransmit {
    fn default() -> Self {
        Self { first: Duration::from_secs(2), cap: Duration::from_secs(42), tries: 5, jitter_percent: 20 }
    }
}

/// One pre-shared key and the identities that own it, as in swanctl's `secrets { ike-x { … } }`.
#[derive(Clone)]
pub struct PreSharedKey {
    /// The connection that names it: there it comes before all others, elsewhere it counts for nothing. `None`: it is
    /// found by its owners.
    pub connection: Option<Arc<str>>,
    /// Whose key it is: peers or ourselves. Empty: anyone's.
    pub owners: Vec<IdentityPattern>,
    /// The key's octets.
    pub key: Arc<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for PreSharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreSharedKey")
            .field("connection", &self.connection)
            .field("owners", &self.owners)
            .field("key", &"[redacted]")
            .finish()
    }
}

/// Addresses that a connection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// First address.
    pub first: IpAddr,
    /// Last address, of the same family.
    pub last: IpAddr,
}

impl AddressRange {
    /// One address.
    pub const fn host(address: IpAddr) -> Self {
        Self { first: address, last: address }
    }

    /// Whether `address` lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.first <= address && address <= self.last
    }

    /// The address, where it is only one.
    pub fn single(&self) -> Option<IpAddr> {
        (self.first == self.last).then_some(self.first)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(address) => write!(f, "{address}"),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// What happens to an IKE SA when the same peer brings up another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unique {
    /// Both stay, unless the peer says INITIAL_CONTACT.
    #[default]
    No,
    /// INITIAL_CONTACT is ignored too.
    Never,
    /// The new one replaces the old one.
    Replace,
}

/// One `connection.<name>` of the configuration: a peer, or a class of peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its name.
    pub name: Arc<str>,
    /// Our addresses; empty for any. The first single one is the source of what we initiate.
    pub local_addrs: Vec<AddressRange>,
    /// The peer's addresses; empty for any. The first single one is where we initiate to.
    pub remote_addrs: Vec<AddressRange>,
    /// The port of the peer that our first message goes to. At the NAT-T port it goes from ours, with the marker.
    pub remote_port: u16,
    /// Our identity; `None` for our address.
    pub local_id: Option<Identity>,
    /// Identities that the peer may have. As initiator, an exact one is sent as IDr.
    pub remote_id: IdentityPattern,
    /// IKE proposals, best first.
    pub proposals: Vec<Proposal>,
    /// ESP in UDP even where there is no NAT.
    pub encap: bool,
    /// Silence after which the peer is asked whether it lives; zero never asks.
    pub dpd_delay: Duration,
    /// Age at which the IKE SA is rekeyed; zero never.
    pub rekey_time: Duration,
    /// How long after `rekey_time` the IKE SA is given up if it could not be rekeyed.
    pub over_time: Duration,
    /// `rekey_time` is reached up to so much earlier, at random.
    pub rand_time: Duration,
    /// Attempts to reach the peer; zero for no limit.
    pub keyingtries: u32,
    /// Several IKE SAs with one peer.
    pub unique: Unique,
    /// Its Child SAs.
    pub children: Vec<Arc<ChildConfig>>,
}

/// When a Child SA is brought up without the operator's command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Never.
    #[default]
    None,
    /// When a packet wants it.
    Trap,
    /// At once.
    Start,
}

/// A traffic selector of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorConfig {
    /// This one.
    Fixed(TrafficSelector),
    /// The outer address of that side: `dynamic`.
    Dynamic,
}

/// One `connection.<name>.children.<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Our side; at most [`pollux_abi::layout::SELECTORS_MAX`].
    pub local_ts: Vec<SelectorConfig>,
    /// The peer's side.
    pub remote_ts: Vec<SelectorConfig>,
    /// ESP proposals, best first.
    pub proposals: Vec<Proposal>,
    /// Ties the Child SA to policies; `None` where every peer gets one of its own.
    pub reqid: Option<Reqid>,
    /// Age at which it is rekeyed; zero never.
    pub rekey_time: Duration,
    /// Age at which it is deleted; zero never.
    pub life_time: Duration,
    /// `rekey_time` is reached up to so much earlier, at random.
    pub rand_time: Duration,
    /// Octets after which it is rekeyed; zero never.
    pub rekey_bytes: u64,
    /// Octets after which it stops.
    pub life_bytes: u64,
    /// Up to so many fewer octets, at random.
    pub rand_bytes: u64,
    /// Packets after which it is rekeyed; zero never.
    pub rekey_packets: u64,
    /// Packets after which it stops.
    pub life_packets: u64,
    /// Up to so many fewer packets, at random.
    pub rand_packets: u64,
    /// How long an inbound SA still decrypts after it was deleted by a rekey.
    pub overlap: Duration,
    /// When it is brought up.
    pub start_action: Action,
    /// What happens when the peer closes it.
    pub close_action: Action,
    /// What happens when the peer is dead.
    pub dpd_action: Action,
}
