//! Engines, SAs and packets for the tests of this crate.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::net::IpAddr;
use std::sync::Arc;

use pollux_abi::command::{Direction, EncapPorts, Lifetimes, PolicyAction, PolicySpec, SaSpec};
use pollux_abi::dscp::{DfMark, DscpMark, EcnMode};
use pollux_abi::selector::{PortRange, SelectorPair, Selectors, TrafficSelector};
use pollux_abi::{
    Checkpoint, Command, CommandError, DropReason, EspSuite, Event, KeyMaterial, PolicyId, Reqid, SaId,
    SaIndex, Spi, WorkerId,
};
use pollux_aead::{Engine as Aead, EngineChoice};
use pollux_esp::{CompiledPolicies, Engine, EngineConfig, EngineCounters, SaCounterTable};
use pollux_packet::parse::{ENCAP_PORT, classify_ip};
use pollux_packet::{Burst, FrameId, Meta, Packet, PortSlot, Role, Verdict, ipv4, ipv6, udp};

pub(crate) const WIDTH: u32 = 10;
pub(crate) const CAPACITY: u32 = 64;
pub(crate) const REQID: Reqid = Reqid(7);
pub(crate) const NOW: u64 = 1_000_000_000_000;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn net(text: &str) -> TrafficSelector {
    let (address, len) = text.split_once('/').expect("a prefix");
    TrafficSelector::prefix(ip(address), len.parse().expect("a length")).expect("a prefix")
}

/// Writes the checksum that fits an IPv4 header without options.
pub(crate) fn renew_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let checksum = pollux_packet::checksum::Sum::new().octets(&packet[..ipv4::HEADER_LEN]).checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// An engine with what it counts.
pub(crate) struct Gateway {
    pub(crate) engine: Engine,
    pub(crate) sa_counters: Arc<SaCounterTable>,
    pub(crate) counters: Arc<EngineCounters>,
}

pub(crate) fn checkpoints() -> &'static [Checkpoint] {
    Box::leak((0..4).map(|_| Checkpoint::default()).collect::<Box<[Checkpoint]>>())
}

pub(crate) fn gateway_of(worker: u16, checkpoints: &'static [Checkpoint]) -> Gateway {
    let sa_counters = Arc::new(SaCounterTable::new(CAPACITY));
    let counters = Arc::new(EngineCounters::default());
    let engine = Engine::new(EngineConfig {
        worker: WorkerId(worker),
        workers: 2,
        spi_index_width: WIDTH,
        sa_capacity: CAPACITY,
        window_packets_total: 1 << 20,
        aead: Aead::select(EngineChoice::Auto).expect("auto never fails"),
        sa_counters: Arc::clone(&sa_counters),
        counters: Arc::clone(&counters),
        checkpoints,
    })
    .expect("the sizes fit");
    Gateway { engine, sa_counters, counters }
}

pub(crate) fn gateway() -> Gateway {
    gateway_of(0, checkpoints())
}

pub(crate) fn any() -> Selectors {
    Selectors::new(&[TrafficSelector::any_v4(), TrafficSelector::any_v6()]).expect("two fit")
}

pub(crate) fn spec(direction: Direction, id: u64, index: u32) -> SaSpec {
    let (local, remote) = match direction {
        Direction::Outbound => (ip("192.0.2.1"), ip("192.0.2.2")),
        Direction::Inbound => (ip("192.0.2.2"), ip("192.0.2.1")),
    };
    SaSpec {
        id: SaId(id),
        direction,
        index: SaIndex(index),
        spi: Spi::with_index(SaIndex(index), WIDTH, 0x5eed).expect("it fits"),
        suite: EspSuite::Aes128Gcm16,
        esn: false,
        window_packets: 1_024,
        local,
        remote,
        encap: None,
        reqid: REQID,
        owner: WorkerId(0),
        dscp: DscpMark::Copy,
        ecn: EcnMode::Normal,
        df: DfMark::Copy,
        lifetimes: Lifetimes::default(),
        seq_start: u64::from(direction == Direction::Outbound),
        iv_start: 1,
        checkpoint: None,
        local_ts: any(),
        remote_ts: any(),
    }
}

pub(crate) fn outbound(id: u64, index: u32) -> SaSpec {
    spec(Direction::Outbound, id, index)
}

pub(crate) fn inbound(id: u64, index: u32) -> SaSpec {
    spec(Direction::Inbound, id, index)
}

pub(crate) fn keys(suite: EspSuite) -> KeyMaterial {
    let octets: Vec<u8> = (1..=u8::MAX).take(suite.material_len()).collect();
    KeyMaterial::new(&octets).expect("it fits")
}

pub(crate) fn policy(
    id: u32,
    direction: Direction,
    local: &str,
    remote: &str,
    action: PolicyAction,
) -> PolicySpec {
    let selectors = SelectorPair { local: net(local), remote: net(remote) };
    PolicySpec { id: PolicyId(id), direction, selectors, action }
}

pub(crate) fn protect_all() -> Vec<PolicySpec> {
    let protect = PolicyAction::Protect(REQID);
    vec![
        policy(1, Direction::Outbound, "0.0.0.0/0", "0.0.0.0/0", protect),
        policy(2, Direction::Outbound, "::/0", "::/0", protect),
    ]
}

impl Gateway {
    pub(crate) fn add(&mut self, spec: SaSpec) -> Result<u32, CommandError> {
        let keys = keys(spec.suite);
        self.engine.apply(NOW, Command::SaAdd(spec, keys))
    }

    pub(crate) fn replace(&mut self, spec: SaSpec) -> Result<u32, CommandError> {
        let keys = keys(spec.suite);
        self.engine.apply(NOW, Command::SaReplace(spec, Some(keys)))
    }

    pub(crate) fn replace_without_keys(&mut self, spec: SaSpec) -> Result<u32, CommandError> {
        self.engine.apply(NOW, Command::SaReplace(spec, None))
    }

    pub(crate) fn delete(&mut self, id: u64) -> Result<u32, CommandError> {
        self.engine.apply(NOW, Command::SaDelete(SaId(id)))
    }

    pub(crate) fn policies(&mut self, specs: &[PolicySpec]) {
        let compiled = CompiledPolicies::compile(specs).expect("a sound list");
        drop(self.engine.install_policies(Box::new(compiled)));
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.engine.poll_event()).collect()
    }

    /// Sends packets from inside.
    pub(crate) fn send(&mut self, role: Role, packets: &[Vec<u8>]) -> Burst {
        let mut burst = burst(role, packets);
        self.engine.outbound(NOW, &mut burst);
        burst
    }

    /// Receives packets from outside.
    pub(crate) fn receive(&mut self, packets: &[Vec<u8>]) -> Burst {
        let mut burst = burst(Role::Wan, packets);
        self.engine.inbound(NOW, &mut burst);
        self.engine.inbound_clear(&mut burst);
        burst
    }

    /// Encrypts one packet, which must succeed.
    pub(crate) fn encrypt(&mut self, packet: &[u8]) -> Vec<u8> {
        let burst = self.send(Role::Host, &[packet.to_vec()]);
        assert_eq!(burst.metas()[0].verdict, Verdict::Forward);
        burst.packets()[0].data().to_vec()
    }

    /// What becomes of one packet from outside.
    pub(crate) fn verdict_in(&mut self, packet: &[u8]) -> Verdict {
        self.receive(&[packet.to_vec()]).metas()[0].verdict
    }

    /// What becomes of one packet from inside.
    pub(crate) fn verdict_out(&mut self, packet: &[u8]) -> Verdict {
        self.send(Role::Lan, &[packet.to_vec()]).metas()[0].verdict
    }
}

/// A sender and a receiver that share one SA.
pub(crate) fn pair(change: impl Fn(&mut SaSpec)) -> (Gateway, Gateway) {
    let (mut sender, mut receiver) = (gateway(), gateway());
    let (mut out, mut into) = (outbound(1, 3), inbound(2, 3));
    change(&mut out);
    change(&mut into);
    into.spi = out.spi;
    sender.policies(&protect_all());
    assert_eq!(sender.add(out), Ok(0));
    assert_eq!(receiver.add(into), Ok(0));
    (sender, receiver)
}

pub(crate) fn over_v6(spec: &mut SaSpec) {
    let (a, b) = (ip("2001:db8::1"), ip("2001:db8::2"));
    (spec.local, spec.remote) = if spec.direction == Direction::Outbound { (a, b) } else { (b, a) };
}

pub(crate) fn in_udp(spec: &mut SaSpec) {
    spec.encap = Some(EncapPorts { local: 4500, remote: 4500 });
}

pub(crate) fn packet(octets: &[u8], frame: u32) -> Packet {
    let mut packet = Packet::empty(Box::leak(vec![0; 4096].into_boxed_slice()), FrameId::new(frame), 256);
    assert!(packet.extend(octets));
    packet
}

pub(crate) fn burst(role: Role, packets: &[Vec<u8>]) -> Burst {
    let mut burst = Burst::new();
    for (frame, octets) in (0..).zip(packets) {
        let meta = Meta::received(PortSlot(0), role, NOW);
        assert!(burst.push(packet(octets, frame), meta).is_ok(), "at most a burst");
    }
    classify_ip(&mut burst, ENCAP_PORT);
    burst
}

pub(crate) fn dropped(reason: DropReason) -> Verdict {
    Verdict::Drop(reason)
}

/// An IPv4 packet with UDP: 28 octets of headers.
pub(crate) fn v4(payload: &[u8]) -> Vec<u8> {
    v4_with(|_| {}, payload)
}

pub(crate) fn v4_with(change: impl Fn(&mut ipv4::Header), payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("short");
    let mut header = ipv4::Header {
        source: [10, 1, 0, 5],
        destination: [10, 2, 0, 6],
        protocol: 17,
        traffic_class: 46 << 2,
        ttl: 17,
        identification: 4,
        dont_fragment: true,
        total_len: 28 + len,
    };
    change(&mut header);
    [&header.to_bytes()[..], &udp::header(5_060, 5_062, len), payload].concat()
}

/// An IPv6 packet with UDP: 48 octets of headers.
pub(crate) fn v6(payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("short");
    let header = ipv6::Header {
        source: [0xfd; 16],
        destination: [0xfc; 16],
        next_header: 17,
        traffic_class: 46 << 2,
        flow_label: 5,
        hop_limit: 17,
        payload_len: 8 + len,
    };
    [&header.to_bytes()[..], &udp::header(5_060, 5_062, len), payload].concat()
}

pub(crate) fn port(selectors: &mut Selectors, first: u16, last: u16) {
    let mut selector = TrafficSelector::any_v4();
    selector.ports = PortRange { first, last };
    *selectors = Selectors::new(&[selector]).expect("one fits");
}

/// A packet under an SA's keys whose plaintext is given whole: payload, padding, pad length, next header.
pub(crate) fn sealed(spec: &SaSpec, sequence: u64, plaintext: &[u8]) -> Vec<u8> {
    let suite = spec.suite.name().parse().expect("one name for both crates");
    let material = keys(spec.suite);
    let (enc, salt, auth) =
        (material.encryption(spec.suite), material.salt(spec.suite), material.integrity(spec.suite));
    let aead = Aead::portable();
    let key = pollux_aead::Key::new(aead, suite, spec.esn, enc, salt, auth).expect("the lengths fit");
    let mut esp = spec.spi.to_be_bytes().to_vec();
    esp.extend(&sequence.to_be_bytes()[4..]);
    esp.extend(std::iter::repeat_n(0, spec.suite.iv_len()));
    esp.extend(plaintext);
    esp.extend(std::iter::repeat_n(0, spec.suite.icv_len()));
    let seq_high = u32::try_from(sequence >> 32).expect("half of it");
    aead.seal_burst(&mut [pollux_aead::SealJob { key: &key, packet: &mut esp, seq_high, iv: sequence }]);
    outer(spec, &esp)
}

/// The outer IPv4 header of an inbound SA's packets before `esp`.
pub(crate) fn outer(spec: &SaSpec, esp: &[u8]) -> Vec<u8> {
    let octets = |address| match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(_) => panic!("tests of plaintexts are over IPv4"),
    };
    let header = ipv4::Header {
        source: octets(spec.remote),
        destination: octets(spec.local),
        protocol: 50,
        ttl: 64,
        total_len: u16::try_from(20 + esp.len()).expect("short"),
        ..ipv4::Header::default()
    };
    [&header.to_bytes()[..], esp].concat()
}

/// A plaintext around `payload`: padded to four octets.
pub(crate) fn plaintext(payload: &[u8], next_header: u8) -> Vec<u8> {
    let mut text = payload.to_vec();
    let padding = pollux_packet::esp::Trailer::padding(payload.len(), 4);
    text.resize(payload.len() + padding + 2, 0);
    pollux_packet::esp::Trailer::write(&mut text[payload.len()..], next_header);
    text
}
