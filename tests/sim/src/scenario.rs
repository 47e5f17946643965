//! What a seed means: the profile of the world, its configuration, and what happens in it.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use pollux_abi::{Reqid, TrafficSelector};
use pollux_ike::config::{
    Action, AddressRange, ChildConfig, Connection, EndpointConfig, Limits, Ports, Retransmit, SelectorConfig,
    Unique,
};
use pollux_ike::identity::{Identity, IdentityPattern};
use pollux_ike::negotiate::Proposal;
use pollux_pair::{Seeded, shared_key};

use crate::network::{NAT, addresses};

/// Which provider the gateways have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cryptography {
    /// [`NullCrypto`](pollux_pair::NullCrypto): fast, and no security.
    Null,
    /// The gateway's own.
    Real,
}

/// How much goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultProfile {
    /// Nothing: rekeys at random times, and not one ESP packet may be lost.
    Calm,
    /// A lossy network and a lazy data plane; rekeys must still not lose a packet.
    Lossy,
    /// Everything: cuts, restarts, terminations, a data plane that dies.
    Chaos,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// The only source of chance.
    pub seed: u64,
    /// Which provider.
    pub cryptography: Cryptography,
    /// Whether the run is told on standard error.
    pub trace: bool,
}

/// What both gateways agree on.
#[derive(Clone, Copy, Debug)]
struct Suite {
    /// Encryption, integrity and PRF of the IKE SA.
    ike: &'static str,
    /// Key exchange of both protocols.
    ke: &'static str,
    /// The Child SAs' cipher.
    esp: &'static str,
}

/// Every group, every cipher of IKE with every PRF, and ESP of each kind.
const SUITES: [Suite; 7] = [
    Suite { ike: "aes256gcm16-prfsha384", ke: "x25519", esp: "aes128gcm16" },
    Suite { ike: "aes128gcm16-prfsha256", ke: "ecp256", esp: "aes256gcm16" },
    Suite { ike: "aes192gcm16-prfsha512", ke: "ecp384", esp: "aes192gcm16" },
    Suite { ike: "aes256gcm16-prfsha512", ke: "ecp521", esp: "chacha20poly1305" },
    Suite { ike: "aes256-sha256", ke: "modp2048", esp: "aes256-sha256" },
    Suite { ike: "aes192-sha384", ke: "modp3072", esp: "aes192-sha384" },
    Suite { ike: "aes128-sha512", ke: "modp4096", esp: "aes128-sha512" },
];

/// Names of the children.
pub(crate) const CHILDREN: [&str; 2] = ["net", "voice"];
/// When a Child SA is rekeyed, at the latest.
pub(crate) const CHILD_REKEY_TIME: Duration = Duration::from_secs(50);
/// When an IKE SA is rekeyed, at the latest.
pub(crate) const IKE_REKEY_TIME: Duration = Duration::from_secs(150);

/// How the selectors of the two configurations differ. What both allow is the same subnet or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selectors {
    /// Not at all.
    Same,
    /// Gateway 1 allows all of 10.1.0.0/16.
    WiderThere,
    /// Gateway 0 allows all of 10.2.0.0/16.
    WiderHere,
    /// Gateway 1 allows the lower half of gateway 0's subnet.
    NarrowerThere,
    /// Gateway 0 has a second subnet, of which gateway 1 knows nothing.
    OneOfTwo,
}

const SELECTORS: [Selectors; 8] = [
    Selectors::Same,
    Selectors::Same,
    Selectors::Same,
    Selectors::Same,
    Selectors::WiderThere,
    Selectors::WiderHere,
    Selectors::NarrowerThere,
    Selectors::OneOfTwo,
];

/// What a reload has changed, until the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Revision {
    /// Nothing: the file as it was at the start, which is read anew all the same.
    #[default]
    First,
    /// Another `dpd_delay`, so another connection.
    Changed,
    /// The last child is gone, if there are two.
    ChildLess,
}

/// What a seed draws before the world begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScenarioParams {
    pub(crate) profile: FaultProfile,
    pub(crate) nat: bool,
    /// `local_addrs` is left out: the routes say which address is ours.
    unspecified: bool,
    pub(crate) v6: bool,
    encap: bool,
    /// Jitter of rekey times; without it both ends rekey at once.
    rand_time: Duration,
    pub(crate) children: usize,
    pfs: bool,
    suite: Suite,
    pub(crate) unique: Unique,
    /// Gateway 1 knows neither the peer's address nor its name, and gives it reqids of its own.
    wildcard: bool,
    selectors: Selectors,
    cookies: bool,
    other_group: bool,
    /// Whether gateway 1 brings the connection up by itself too.
    both_start: bool,
    pub(crate) chaos: Duration,
}

impl ScenarioParams {
    pub(crate) fn new(rng: &mut Seeded) -> Self {
        let profile = match rng.below(4) {
            0 => FaultProfile::Calm,
            1 => FaultProfile::Lossy,
            _ => FaultProfile::Chaos,
        };
        let rand_time = Duration::from_secs([0, 0, 2, 15][usize::try_from(rng.below(4)).unwrap_or(0)]);
        let nat = rng.per_mille(250);
        let unspecified = rng.per_mille(400);
        Self {
            profile,
            nat,
            unspecified,
            v6: !nat && rng.per_mille(300),
            encap: rng.per_mille(150),
            rand_time,
            children: if rng.per_mille(500) { 1 } else { 2 },
            pfs: rng.per_mille(500),
            suite: SUITES[usize::try_from(rng.below(SUITES.len() as u64)).unwrap_or(0)],
            unique: if rng.per_mille(400) { Unique::Replace } else { Unique::No },
            wildcard: rng.per_mille(250),
            selectors: SELECTORS[usize::try_from(rng.below(SELECTORS.len() as u64)).unwrap_or(0)],
            cookies: rng.per_mille(200),
            other_group: rng.per_mille(200),
            both_start: profile == FaultProfile::Chaos && rng.per_mille(300),
            chaos: Duration::from_secs(rng.between(60, 400)),
        }
    }

    /// Whether ESP goes in UDP: because of a NAT, or forced (RFC 7296 §2.23).
    pub(crate) const fn in_udp(&self) -> bool {
        self.nat || self.encap
    }

    /// Whether a gateway knows where its peer is: behind a NAT or with a wildcard connection only gateway 0 can begin.
    pub(crate) const fn initiates(&self, end: usize) -> bool {
        end == 0 || !(self.nat || self.wildcard)
    }

    /// The addresses of a packet from `end`, of a child: every configuration protects it.
    pub(crate) fn packet(end: usize, nth: usize) -> (IpAddr, IpAddr) {
        let host = |end: usize| IpAddr::from([10, octet(end) + 1, octet(nth), 10]);
        (host(end), host(1 - end))
    }

    /// Selectors of `side`'s subnets in the configuration of gateway `end`.
    fn subnets(&self, end: usize, side: usize, nth: usize) -> Vec<TrafficSelector> {
        let own = |net: u8, len: u8| TrafficSelector::prefix([10, net, octet(nth), 0].into(), len);
        let all = |net: u8| TrafficSelector::prefix([10, net, 0, 0].into(), 16);
        let net = octet(side) + 1;
        let list = match (self.selectors, end, side) {
            (Selectors::WiderThere, 1, 0) | (Selectors::WiderHere, 0, 1) => vec![all(net)],
            (Selectors::NarrowerThere, 1, 0) => vec![own(net, 25)],
            (Selectors::OneOfTwo, 0, 0) => vec![own(net, 24), own(net + 2, 24)],
            _ => vec![own(net, 24)],
        };
        list.into_iter().flatten().collect()
    }

    /// What the Child SAs of a child carry: our side and the peer's, as both ends allow it.
    pub(crate) fn carried(&self, end: usize, nth: usize) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
        let both = |side: usize| {
            let [here, there] = [0, 1].map(|end| self.subnets(end, side, nth));
            let there = &there;
            here.iter().flat_map(|here| there.iter().filter_map(|there| here.intersection(there))).collect()
        };
        (both(end), both(1 - end))
    }

    /// The configuration of one gateway.
    pub(crate) fn config(&self, end: usize, revision: Revision) -> EndpointConfig {
        let names = ["a.example", "b.example"];
        let tries = if self.profile == FaultProfile::Lossy { 12 } else { 5 };
        let remote = if end == 1 && self.nat { NAT } else { addresses(self.v6)[1 - end] };
        let initiates = self.initiates(end);
        let children = if revision == Revision::ChildLess { 1 } else { self.children };
        let start = if end == 0 || self.both_start && initiates { Action::Start } else { Action::None };
        let connection = Connection {
            name: "peer".into(),
            local_addrs: if self.unspecified {
                Vec::new()
            } else {
                vec![AddressRange::host(addresses(self.v6)[end])]
            },
            remote_addrs: if initiates { vec![AddressRange::host(remote)] } else { Vec::new() },
            remote_port: Ports::default().ike,
            local_id: Identity::parse(names[end]),
            remote_id: if end == 1 && self.wildcard {
                IdentityPattern::parse("*.example").unwrap_or(IdentityPattern::Any)
            } else {
                Identity::parse(names[1 - end]).map_or(IdentityPattern::Any, IdentityPattern::Exactly)
            },
            proposals: self.ike_proposals(end),
            encap: self.encap,
            dpd_delay: Duration::from_secs(if revision == Revision::Changed { 11 } else { 10 }),
            rekey_time: IKE_REKEY_TIME,
            over_time: Duration::from_mins(1),
            rand_time: self.rand_time,
            keyingtries: 0,
            unique: self.unique,
            children: (0..children).map(|nth| Arc::new(self.child(end, nth, start))).collect(),
        };
        EndpointConfig {
            connections: vec![Arc::new(connection)],
            secrets: vec![shared_key(b"a secret of the simulation")],
            limits: Limits {
                cookie_threshold: if self.cookies { 0 } else { 64 },
                children_max: 16,
                ..Limits::default()
            },
            retransmit: Retransmit {
                first: Duration::from_millis(500),
                cap: Duration::from_secs(4),
                tries,
                jitter_percent: 20,
            },
            nat_keepalive: Duration::from_secs(20),
            ports: Ports::default(),
            log_keys: false,
        }
    }

    fn ike_proposals(&self, end: usize) -> Vec<Proposal> {
        let Suite { ike, ke, .. } = self.suite;
        // The initiator's first guess is a group that the responder does not have.
        let guess = match (self.other_group, end, ke) {
            (true, 0, "ecp256") => "-x25519",
            (true, 0, _) => "-ecp256",
            _ => "",
        };
        Proposal::parse_ike(&format!("{ike}{guess}-{ke}")).into_iter().collect()
    }

    fn child(&self, end: usize, nth: usize, start: Action) -> ChildConfig {
        let net = |side: usize| self.subnets(end, side, nth).into_iter().map(SelectorConfig::Fixed).collect();
        let reqid = Reqid(u32::from(octet(nth)) + 1);
        let Suite { esp, ke, .. } = self.suite;
        let esp = if self.pfs { format!("{esp}-{ke}-esn-noesn") } else { format!("{esp}-esn-noesn") };
        ChildConfig {
            name: CHILDREN[nth].into(),
            local_ts: net(end),
            remote_ts: net(1 - end),
            proposals: Proposal::parse_esp(&esp).into_iter().collect(),
            reqid: (end == 0 || !self.wildcard).then_some(reqid),
            rekey_time: CHILD_REKEY_TIME,
            life_time: Duration::from_mins(4),
            rand_time: self.rand_time,
            rekey_bytes: 0,
            life_bytes: 0,
            rand_bytes: 0,
            rekey_packets: 0,
            life_packets: 0,
            rand_packets: 0,
            overlap: Duration::from_secs(2),
            start_action: start,
            close_action: start,
            dpd_action: start,
        }
    }
}

/// A small number as a part of an address.
fn octet(n: usize) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}
