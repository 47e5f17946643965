//! `[[connection]]` and its children: the names are swanctl's where the meaning is.

use std::net::IpAddr;
use std::time::Duration;

use pollux_abi::command::Lifetimes;
use pollux_abi::dscp::{DfMark, DscpMark, EcnMode};
use pollux_abi::{Reqid, TrafficSelector};

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
    /// Who, as swanctl users write it; `None`: our address on our side, anyone (`%any`) on the peer's.
    pub id: Option<String>,
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

/// A child's traffic selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildSelector {
    /// This one.
    Fixed(TrafficSelector),
    /// The outer address of that side (swanctl's `dynamic`).
    Dynamic,
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

impl Connection {
    /// A child's selectors, ours and the peer's, with the outer addresses put in as far as they are known. Ours is what
    /// `local_addrs` says, and else what `source_to` says that the kernel would send from to the peer.
    pub fn selectors(
        &self,
        child: &Child,
        source_to: impl Fn(IpAddr) -> Option<IpAddr>,
    ) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
        let theirs = self
            .remote_addrs
            .iter()
            .find(|net| net.prefix_len() == net.max_prefix_len())
            .map(ipnet::IpNet::addr);
        let ours = || self.local_addrs.first().copied().or_else(|| source_to(theirs?));
        let fill = |list: &[ChildSelector], address: &dyn Fn() -> Option<IpAddr>| {
            list.iter()
                .filter_map(|selector| match selector {
                    ChildSelector::Fixed(selector) => Some(*selector),
                    ChildSelector::Dynamic => address().map(TrafficSelector::host),
                })
                .collect()
        };
        (fill(&child.local_ts, &ours), fill(&child.remote_ts, &|| theirs))
    }
}

/// `[connection.children.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// Line of its heading.
    pub line: u32,
    /// Our side's selectors.
    pub local_ts: Vec<ChildSelector>,
    /// The peer's.
    pub remote_ts: Vec<ChildSelector>,
    /// ESP proposals as swanctl spells them; empty: the default.
    pub esp_proposals: Vec<String>,
    /// Ties it to policies; `None`: control gives it one.
    pub reqid: Option<Reqid>,
    /// When it is set up.
    pub start_action: StartAction,
    /// What happens when the peer closes it.
    pub close_action: StartAction,
    /// What becomes of it when the peer is dead.
    pub dpd_action: DpdAction,
    /// ESP mode.
    pub mode: ChildMode,
    /// A new Child SA after so long; zero: never.
    pub rekey_time: Duration,
    /// The old one goes after so long; above `rekey_time`; zero: never.
    pub life_time: Duration,
    /// At most this much is taken at random from `rekey_time`.
    pub rand_time: Duration,
    /// The soft limits (`rekey_bytes`, `rekey_packets`) start a rekey, the hard ones (`life_bytes`,
    /// `life_packets`) stop the SA; 0 is no limit.
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
