//! `[[connection]]` and its children: the names are swanctl's where the meaning is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pollux_abi::TrafficSelector;
use pollux_abi::command::{EncapPorts, Lifetimes};
use pollux_abi::dscp::{DfMark, DscpMark, EcnMode};

/// An IKE identity (RFC 7296 §3.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IkeId {
    /// Any identity: a responder for many clients.
    Any,
    /// ID_IPV4_ADDR.
    Ipv4(Ipv4Addr),
    /// ID_IPV6_ADDR.
    Ipv6(Ipv6Addr),
    /// ID_FQDN.
    Fqdn(String),
    /// ID_RFC822_ADDR.
    Email(String),
    /// ID_KEY_ID.
    KeyId(Vec<u8>),
}

impl fmt::Display for IkeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("%any"),
            Self::Ipv4(address) => write!(f, "{address}"),
            Self::Ipv6(address) => write!(f, "{address}"),
            Self::Fqdn(name) | Self::Email(name) => f.write_str(name),
            Self::KeyId(octets) => {
                f.write_str("keyid:")?;
                octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}

/// How one side proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// Pre-shared key (RFC 7296 §2.15).
    Psk,
}

/// `[connection.local]` and `[connection.remote]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// How.
    pub method: AuthMethod,
    /// Who.
    pub id: IkeId,
}

/// What a second IKE SA of the same identities means (swanctl's `unique`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UniquePolicy {
    /// Older ones stay, unless the peer says INITIAL_CONTACT.
    No,
    /// Older ones stay, whatever the peer says.
    Never,
    /// Older ones are deleted.
    Replace,
    /// The new one is refused.
    Keep,
}

/// When a child is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAction {
    /// When the peer or the operator asks; its traffic is dropped until then.
    None,
    /// When its traffic first wants it.
    Trap,
    /// At once.
    Start,
}

/// What becomes of a child whose peer is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DpdAction {
    /// It goes.
    Clear,
    /// It comes back when traffic wants it.
    Trap,
    /// It is set up again at once.
    Restart,
}

/// ESP mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildMode {
    /// Whole packets (RFC 4303 §3.1.2).
    Tunnel,
}

/// `[[connection]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// Line of its heading.
    pub line: u32,
    /// Our addresses; empty: any of ours.
    pub local_addrs: Vec<IpAddr>,
    /// The peer's addresses or prefixes; empty: any peer (responder only).
    pub remote_addrs: Vec<ipnet::IpNet>,
    /// The peer's IKE port, 500 as a rule.
    pub remote_port: u16,
    /// Our side's authentication.
    pub local: Auth,
    /// The peer's.
    pub remote: Auth,
    /// Name of the pre-shared key in the secrets file; `None`: found by identity.
    pub psk: Option<String>,
    /// IKE proposals as swanctl spells them; empty: the default.
    pub proposals: Vec<String>,
    /// A new IKE SA after so long.
    pub rekey_time: Duration,
    /// Hard limit beyond `rekey_time`.
    pub over_time: Duration,
    /// At most this much is taken at random from `rekey_time`.
    pub rand_time: Duration,
    /// Liveness probes after so much silence; zero: none.
    pub dpd_delay: Duration,
    /// UDP encapsulation even without a NAT.
    pub encap: bool,
    /// What a duplicate means.
    pub unique: UniquePolicy,
    /// Attempts to set the IKE SA up before giving up; 0: for ever.
    pub keyingtries: u32,
    /// Its Child SAs, in the order of the file.
    pub children: Vec<Child>,
}

/// `[connection.children.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// Line of its heading.
    pub line: u32,
    /// Our side's selectors.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's.
    pub remote_ts: Vec<TrafficSelector>,
    /// Whether `remote_ts` is the peer's outer address (swanctl's `dynamic`).
    pub remote_dynamic: bool,
    /// ESP proposals as swanctl spells them; empty: the default.
    pub esp_proposals: Vec<String>,
    /// When it is set up.
    pub start_action: StartAction,
    /// What becomes of it when the peer is dead.
    pub dpd_action: DpdAction,
    /// ESP mode.
    pub mode: ChildMode,
    /// A new Child SA after so long; zero: never.
    pub rekey_time: Duration,
    /// The old one goes after so long; above `rekey_time`.
    pub life_time: Duration,
    /// At most this much is taken at random from `rekey_time`.
    pub rand_time: Duration,
    /// Soft limits start a rekey, hard limits stop the SA.
    pub lifetimes: Lifetimes,
    /// Replay window.
    pub window_packets: u32,
    /// Outer DSCP.
    pub dscp: DscpMark,
    /// ECN across the tunnel.
    pub ecn: EcnMode,
    /// Outer DF.
    pub df: DfMark,
}

/// The ports of ESP-in-UDP where the file says `encap = true`.
pub const ENCAP_DEFAULT: EncapPorts = EncapPorts { local: 4500, remote: 4500 };
