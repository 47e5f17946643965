//! The two ends, their network and their data planes.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pollux_abi::command::Direction;
use pollux_abi::event::SaStats;
use pollux_abi::{Reqid, SaId, SaIndex, Spi, TrafficSelector};
use zeroize::Zeroizing;

use super::super::{Command, Endpoint, LiveSa, Output, SaAllocator, SaCommand, SaInstall, Transmit};
use crate::config::{
    AddressRange, ChildConfig, Connection, EndpointConfig, Limits, Ports, PreSharedKey, Retransmit,
    SelectorConfig, Unique,
};
use crate::crypto::{
    CryptoError, Encryption, Integrity, Iv, KeMethod, KeyExchange, Prf, Provider, Rng, Secret, SkCipher,
};
use crate::error::IkeError;
use crate::event::{ChildUp, DownReason, Event};
use crate::identity::{Identity, IdentityPattern};
use crate::message::NotifyType;
use crate::negotiate::Proposal;
use crate::time::Instant;

/// Arithmetic in place of cryptography: enough to tell one key from another, and no more.
#[derive(Debug)]
pub(super) struct Toy {
    /// Takes every message for authentic, so that mangled ones reach the exchanges.
    gullible: bool,
}

fn mix(parts: &[&[u8]]) -> u64 {
    parts.iter().flat_map(|part| part.iter()).fold(0xcbf2_9ce4_8422_2325, |hash: u64, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5)
    })
}

fn stretch(mut seed: u64, out: &mut [u8]) {
    for octet in out {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *octet = seed.to_be_bytes()[0];
    }
}

impl Provider for Toy {
    fn prf(&self, _: Prf, key: &[u8], parts: &[&[u8]], out: &mut [u8]) -> Result<(), CryptoError> {
        stretch(mix(&[&[key], parts].concat()), out);
        Ok(())
    }

    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20] {
        let mut out = [0; 20];
        stretch(mix(parts), &mut out);
        out
    }

    fn start_ke(&self, method: KeMethod, rng: &mut dyn Rng) -> Result<Box<dyn KeyExchange>, CryptoError> {
        let mut public = vec![0; method.public_len()];
        rng.fill(&mut public);
        Ok(Box::new(ToyKe { method, public }))
    }

    fn sk_cipher(
        &self,
        _: Encryption,
        key: &[u8],
        integrity: Option<(Integrity, &[u8])>,
    ) -> Result<Box<dyn SkCipher>, CryptoError> {
        let key = mix(&[key, integrity.map_or(&[], |(_, key)| key)]);
        Ok(Box::new(ToyCipher { key, gullible: self.gullible }))
    }
}

#[derive(Debug)]
struct ToyKe {
    method: KeMethod,
    public: Vec<u8>,
}

impl KeyExchange for ToyKe {
    fn method(&self) -> KeMethod {
        self.method
    }

    fn public(&self) -> &[u8] {
        &self.public
    }

    fn finish(self: Box<Self>, peer_public: &[u8]) -> Result<Secret, CryptoError> {
        if peer_public.len() != self.public.len() {
            return Err(CryptoError::PublicValue(self.method));
        }
        Ok(Secret::new(self.public.iter().zip(peer_public).map(|(a, b)| a ^ b).collect()))
    }
}

#[derive(Debug)]
struct ToyCipher {
    key: u64,
    gullible: bool,
}

impl SkCipher for ToyCipher {
    fn iv_len(&self) -> usize {
        8
    }

    fn icv_len(&self) -> usize {
        8
    }

    fn block_len(&self) -> usize {
        1
    }

    fn seal(&self, iv: &Iv, message: &mut [u8], content: usize) -> Result<(), CryptoError> {
        message[content..content + 8].copy_from_slice(&iv.as_bytes()[..8]);
        let (body, icv) = message.split_at_mut(message.len() - 8);
        icv.copy_from_slice(&mix(&[&self.key.to_be_bytes(), body]).to_be_bytes());
        Ok(())
    }

    fn open<'m>(&self, message: &'m mut [u8], content: usize) -> Result<&'m mut [u8], CryptoError> {
        if message.len() < content + 16 {
            return Err(CryptoError::Authentication);
        }
        let (body, icv) = message.split_at_mut(message.len() - 8);
        if !self.gullible && *icv != mix(&[&self.key.to_be_bytes(), body]).to_be_bytes() {
            return Err(CryptoError::Authentication);
        }
        Ok(&mut body[content + 8..])
    }
}

/// A seed.
pub(super) struct Seeded(pub(super) u64);

impl Rng for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for octet in out {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *octet = self.0.to_be_bytes()[3];
        }
    }
}

/// Indices that are never given twice.
struct Counting(u32, u64);

impl SaAllocator for Counting {
    fn inbound_spi(&mut self, random: u32) -> Option<Spi> {
        self.0 += 1;
        Spi::with_index(SaIndex(self.0), 16, random)
    }

    fn release(&mut self, _: Spi) {}

    fn sa_id(&mut self) -> SaId {
        self.1 += 1;
        SaId(self.1)
    }
}

fn address(end: &str) -> IpAddr {
    if end == "a" { [192, 0, 2, 1].into() } else { [192, 0, 2, 2].into() }
}

fn net(end: &str) -> SelectorConfig {
    let net = if end == "a" { [10, 1, 0, 0] } else { [10, 2, 0, 0] };
    SelectorConfig::Fixed(TrafficSelector::prefix(net.into(), 16).expect("a prefix"))
}

/// A child of the gateway `end`.
pub(super) fn child(end: &str) -> ChildConfig {
    let other = if end == "a" { "b" } else { "a" };
    ChildConfig {
        name: "net".into(),
        local_ts: vec![net(end)],
        remote_ts: vec![net(other)],
        proposals: Proposal::default_esp(),
        reqid: Some(Reqid(1)),
        rekey_time: Duration::from_hours(1),
        life_time: Duration::from_mins(66),
        rand_time: Duration::from_mins(6),
        rekey_bytes: 0,
        life_bytes: 0,
        rand_bytes: 0,
        rekey_packets: 0,
        life_packets: 0,
        rand_packets: 0,
        overlap: Duration::from_secs(5),
        start_action: crate::config::Action::None,
        close_action: crate::config::Action::None,
        dpd_action: crate::config::Action::None,
    }
}

/// A connection of the gateway `end`.
pub(super) fn connection(end: &str) -> Connection {
    let other = if end == "a" { "b" } else { "a" };
    Connection {
        name: "peer".into(),
        local_addrs: vec![AddressRange::host(address(end))],
        remote_addrs: vec![AddressRange::host(address(other))],
        local_id: Identity::parse(&format!("{end}.example")),
        remote_id: IdentityPattern::parse(&format!("{other}.example")).expect("a pattern"),
        proposals: Proposal::default_ike(),
        encap: false,
        dpd_delay: Duration::from_secs(30),
        rekey_time: Duration::from_hours(4),
        over_time: Duration::from_mins(24),
        rand_time: Duration::from_mins(24),
        keyingtries: 1,
        unique: Unique::No,
        children: vec![Arc::new(child(end))],
    }
}

/// The configuration of a gateway with one connection.
pub(super) fn config_of(connection: Connection) -> EndpointConfig {
    EndpointConfig {
        connections: vec![Arc::new(connection)],
        secrets: vec![PreSharedKey { owners: vec![], key: Arc::new(Zeroizing::new(b"secret".to_vec())) }],
        limits: Limits::default(),
        retransmit: Retransmit::default(),
        nat_keepalive: Duration::from_secs(20),
        ports: Ports::default(),
        log_keys: false,
    }
}

/// The configuration of the gateway `end`.
pub(super) fn config(end: &str) -> EndpointConfig {
    config_of(connection(end))
}

/// What a data plane holds.
pub(super) type Table = BTreeMap<SaId, Box<SaInstall>>;

/// Both gateways.
pub(super) struct Pair {
    pub(super) ends: [Endpoint; 2],
    pub(super) now: Instant,
    pub(super) events: Vec<(usize, Event)>,
    pub(super) tables: [Table; 2],
    pub(super) rng: Seeded,
    /// What becomes of datagrams: `None` drops them.
    pub(super) network: fn(&mut Self, usize, Transmit) -> Option<Transmit>,
    /// Whether a data plane answers.
    pub(super) data_plane: [bool; 2],
    pub(super) sent: Vec<(usize, Transmit)>,
    /// What the data planes say of the age of the last packet.
    pub(super) idle: Option<Duration>,
    configs: [Arc<EndpointConfig>; 2],
    in_flight: VecDeque<(usize, Transmit)>,
}

impl Pair {
    pub(super) fn new(a: EndpointConfig, b: EndpointConfig) -> Self {
        Self::with(a, b, false)
    }

    /// Both ends take every message for authentic.
    pub(super) fn gullible(a: EndpointConfig, b: EndpointConfig) -> Self {
        Self::with(a, b, true)
    }

    fn with(a: EndpointConfig, b: EndpointConfig, gullible: bool) -> Self {
        let configs = [Arc::new(a), Arc::new(b)];
        let end = |config: &Arc<EndpointConfig>| {
            Endpoint::new(config.clone(), Arc::new(Toy { gullible }), Box::new(Counting(0, 0)))
        };
        let mut pair = Self {
            ends: [end(&configs[0]), end(&configs[1])],
            now: Instant::from_nanos(1_000_000_000),
            events: Vec::new(),
            tables: [Table::new(), Table::new()],
            rng: Seeded(0x9e37_79b9_7f4a_7c15),
            network: |_, _, transmit| Some(transmit),
            data_plane: [true; 2],
            sent: Vec::new(),
            idle: None,
            configs,
            in_flight: VecDeque::new(),
        };
        for end in 0..2 {
            pair.command(end, Command::DataPlaneUp { live: Vec::new() });
        }
        pair
    }

    pub(super) fn command(&mut self, end: usize, command: Command) {
        self.ends[end].handle_command(self.now, command, &mut self.rng);
        self.drain(end);
    }

    pub(super) fn initiate(&mut self, end: usize) {
        self.command(end, Command::Initiate { connection: "peer".into(), child: None });
    }

    pub(super) fn deliver(&mut self, end: usize, transmit: &Transmit) {
        self.ends[end].handle_datagram(
            self.now,
            transmit.remote,
            transmit.local,
            &transmit.bytes,
            &mut self.rng,
        );
        self.drain(end);
    }

    fn drain(&mut self, end: usize) {
        while let Some(output) = self.ends[end].poll_output() {
            match output {
                Output::Transmit(transmit) => {
                    self.sent.push((end, transmit.clone()));
                    let network = self.network;
                    if let Some(transmit) = network(self, end, transmit) {
                        self.in_flight.push_back((1 - end, transmit));
                    }
                }
                Output::Event(event) => self.events.push((end, event)),
                Output::Sa(SaCommand::Install(install)) => {
                    let sa = install.id;
                    self.tables[end].insert(sa, install);
                    if self.data_plane[end] {
                        self.ends[end].handle_command(self.now, Command::SaInstalled { sa }, &mut self.rng);
                    }
                }
                Output::Sa(SaCommand::Remove { id, .. }) => {
                    self.tables[end].remove(&id);
                }
                Output::Sa(SaCommand::Query { id }) => {
                    if let Some(idle) = self.idle {
                        let idle_ns = u64::try_from(idle.as_nanos()).expect("a short time");
                        let stats = SaStats { idle_ns, ..SaStats::default() };
                        let answer = Command::SaStats { sa: id, stats };
                        self.ends[end].handle_command(self.now, answer, &mut self.rng);
                    }
                }
                Output::Sa(SaCommand::Move { .. }) => {}
            }
        }
    }

    /// Drops what is on its way.
    pub(super) fn clear_network(&mut self) {
        self.in_flight.clear();
    }

    /// Lets so many milliseconds pass.
    pub(super) fn run(&mut self, ms: u64) {
        let end_at = self.now + Duration::from_millis(ms);
        loop {
            while let Some((end, transmit)) = self.in_flight.pop_front() {
                self.deliver(end, &transmit);
            }
            let next = (0..2).filter_map(|end| Some((self.ends[end].next_deadline()?, end))).min();
            match next {
                Some((at, end)) if at <= end_at => {
                    self.now = at.max(self.now);
                    self.ends[end].handle_timeout(self.now, &mut self.rng);
                    assert!(
                        self.ends[end].next_deadline().is_none_or(|next| next > at),
                        "a deadline that was served comes back"
                    );
                    self.drain(end);
                }
                _ => break,
            }
        }
        self.now = end_at;
    }

    /// Child SAs that carry traffic.
    pub(super) fn children(&self, end: usize) -> Vec<ChildUp> {
        let status = self.ends[end].status(self.now);
        let children = status.iter().flat_map(|ike| &ike.children);
        children.filter(|child| child.state == "INSTALLED").map(|child| child.sa.clone()).collect()
    }

    /// Whether every outbound SA finds an inbound one with its keys at the other end.
    pub(super) fn keys_match(&self) -> bool {
        [0, 1].into_iter().all(|end| {
            let outbound = self.tables[end].values().filter(|sa| sa.direction == Direction::Outbound);
            outbound.into_iter().all(|ours| {
                self.tables[1 - end].values().any(|theirs| {
                    theirs.direction == Direction::Inbound
                        && theirs.spi == ours.spi
                        && theirs.keys.as_bytes() == ours.keys.as_bytes()
                        && theirs.suite == ours.suite
                        && theirs.esn == ours.esn
                })
            })
        })
    }

    /// The control process of `end` begins anew and finds `live` in the data plane.
    pub(super) fn restart(&mut self, end: usize, live: Vec<LiveSa>) {
        if live.is_empty() {
            self.tables[end].clear();
        }
        let allocator = Box::new(Counting(1_000, 1_000));
        self.ends[end] =
            Endpoint::new(self.configs[end].clone(), Arc::new(Toy { gullible: false }), allocator);
        self.command(end, Command::DataPlaneUp { live });
    }

    /// What a new control process finds.
    pub(super) fn live(&self, end: usize) -> Vec<LiveSa> {
        let live = self.tables[end].values().map(|sa| LiveSa {
            id: sa.id,
            direction: sa.direction,
            spi: sa.spi,
            reqid: sa.reqid,
            local: sa.local,
            remote: sa.remote,
            encap: sa.encap,
            idle_ns: 1,
        });
        live.collect()
    }

    /// Whether `end` told that an IKE SA is gone for this reason.
    pub(super) fn has_down(&self, end: usize, why: DownReason) -> bool {
        self.events.iter().any(|(at, event)| match event {
            Event::IkeDown { reason, .. } => *at == end && *reason == why,
            _ => false,
        })
    }

    /// Whether `end` told that the peer refused with this notify.
    pub(super) fn refused_with(&self, end: usize, with: NotifyType) -> bool {
        self.events.iter().any(|(at, event)| match event {
            Event::Refused { error: IkeError::PeerRefused { notify, .. }, .. } => {
                *at == end && *notify == with
            }
            _ => false,
        })
    }
}
