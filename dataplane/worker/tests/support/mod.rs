//! Workers on memory ports: gateways without a kernel.
//!
//! The test itself is the last member of the mesh, so that frames find their way home to its pool.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::IpAddr;
use std::sync::Arc;

use pollux_abi::command::{Command, Direction, Lifetimes, PolicyAction, PolicySpec, SaRoute, SaSpec};
use pollux_abi::dscp::{DfMark, DscpMark, EcnMode};
use pollux_abi::selector::SelectorPair;
use pollux_abi::{
    DropReason, EspSuite, KeyMaterial, PolicyId, Reqid, SaId, SaIndex, Selectors, Spi, TrafficSelector,
    WorkerId,
};
use pollux_esp::{CompiledPolicies, Engine, EngineConfig, EngineCounters, SaCounterTable};
use pollux_packet::ethernet::{self, Mac};
use pollux_packet::{Burst, Meta, Packet, PortSlot, Role};
use pollux_port::{FramePool, MemoryPort, Port, Umem, UmemConfig};
use pollux_worker::forward::fib::{Fib, NextHop, Route};
use pollux_worker::forward::neighbour::NeighbourKey;
use pollux_worker::handover::{Handover, mesh};
use pollux_worker::housekeeping::{FromWorker, HousekeeperLink, PortFacts, ToWorker, channel, waker};
use pollux_worker::stats::WorkerCounters;
use pollux_worker::{PortEntry, Worker, WorkerParts};

pub(crate) const WAN: PortSlot = PortSlot(0);
pub(crate) const LAN: PortSlot = PortSlot(1);
pub(crate) const HOST: PortSlot = PortSlot(2);

/// Frames of each worker, and of the test.
pub(crate) const FRAMES: u32 = 4096;
/// Slots of each wire.
pub(crate) const WIRE: usize = 256;
/// Nanoseconds after which media are stale.
pub(crate) const STALE_NS: u64 = 200_000_000;

/// One worker of a gateway, with the far ends of its wires.
pub(crate) struct Rig {
    pub(crate) worker: Worker,
    pub(crate) housekeeper: HousekeeperLink,
    pub(crate) counters: Arc<WorkerCounters>,
    /// By slot: wan, lan, host.
    pub(crate) wires: [MemoryPort; 3],
}

/// Some workers, one after the other gateways or workers of one, and the test's own frames.
pub(crate) struct Lab {
    pub(crate) rigs: Vec<Rig>,
    pub(crate) pool: FramePool,
    home: Handover,
    pub(crate) now_ns: u64,
}

impl Lab {
    /// `count` workers; `per_gateway` of them share a gateway (and so know each other as owners).
    pub(crate) fn new(count: u16, per_gateway: u16) -> Self {
        Self::with_wire(count, per_gateway, WIRE)
    }

    /// As [`Self::new`], with other wires.
    pub(crate) fn with_wire(count: u16, per_gateway: u16, wire: usize) -> Self {
        let members = count + 1;
        let umem =
            Umem::new(UmemConfig { frames: FRAMES * u32::from(members), frame_len: 4096, huge_pages: false })
                .expect("memory");
        let (sleepers, wakers): (Vec<_>, Vec<_>) = (0..members).map(|_| waker().expect("a doorbell")).unzip();
        let mut handovers = mesh(&wakers, FRAMES).expect("queues").into_iter();
        let mut rigs = Vec::new();
        for (id, sleeper) in (0..count).zip(sleepers) {
            let engine = Engine::new(EngineConfig {
                worker: WorkerId(id % per_gateway),
                workers: per_gateway,
                spi_index_width: 14,
                sa_capacity: 1 << 14,
                window_packets_total: 1 << 24,
                aead: pollux_aead::Engine::select(pollux_aead::EngineChoice::Auto).expect("an engine"),
                sa_counters: Arc::new(SaCounterTable::new(1 << 14)),
                counters: Arc::new(EngineCounters::default()),
                checkpoints: &[],
            })
            .expect("an engine");
            let pairs = ["wan", "lan", "host"].map(|name| MemoryPort::pair(name, wire));
            let [wan, lan, host] = pairs;
            let facts = |n: u8, peer| PortFacts { mac: Mac([n; 6]), peer, mtu: 1500, up: true };
            let ports = vec![
                PortEntry::new(Some(Box::new(wan.0)), Role::Wan, facts(1, None)),
                PortEntry::new(Some(Box::new(lan.0)), Role::Lan, facts(2, None)),
                PortEntry::new(Some(Box::new(host.0)), Role::Host, facts(3, Some(Mac([4; 6])))),
            ];
            let (housekeeper, end) = channel(wakers[usize::from(count)].try_clone().expect("a doorbell"));
            let counters = Arc::new(WorkerCounters::default());
            let worker = Worker::new(WorkerParts {
                engine,
                pool: umem.pool(FRAMES).expect("frames"),
                ports,
                handover: handovers.next().expect("one each"),
                housekeeper: end,
                sleeper,
                counters: Arc::clone(&counters),
                stale_ns: STALE_NS,
                sa_capacity: 1 << 14,
            });
            rigs.push(Rig { worker, housekeeper, counters, wires: [wan.1, lan.1, host.1] });
        }
        let home = handovers.next().expect("the test's own");
        Self { rigs, pool: umem.pool(FRAMES).expect("frames"), home, now_ns: 1_000_000_000 }
    }

    /// One round of every worker, a microsecond later.
    pub(crate) fn round(&mut self) -> usize {
        self.now_ns += 1_000;
        let found = self.rigs.iter_mut().map(|rig| rig.worker.round(self.now_ns)).sum();
        self.home.exchange_frames(&mut self.pool);
        for rig in &mut self.rigs {
            while let Ok(message) = rig.housekeeper.from_worker.pop() {
                drop(message);
            }
        }
        found
    }

    /// Sends a frame with `octets` behind its link header into a worker's port.
    pub(crate) fn send(&mut self, rig: usize, slot: PortSlot, octets: &[u8]) {
        let mut packet = self.pool.alloc(256).expect("a free frame");
        let ethertype =
            if octets.first().is_some_and(|first| first >> 4 == 6) { ethernet::IPV6 } else { ethernet::IPV4 };
        assert!(packet.extend(&ethernet::header(Mac([9; 6]), Mac([8; 6]), ethertype)));
        assert!(packet.extend(octets));
        let mut burst = Burst::new();
        burst.push(packet, Meta::default()).expect("room");
        self.rigs[rig].wires[usize::from(slot.0)].tx_burst(&mut self.pool, &mut burst);
        assert!(burst.is_empty(), "the wire is full");
    }

    /// Takes everything that a worker has sent out of a port.
    pub(crate) fn receive(&mut self, rig: usize, slot: PortSlot) -> Vec<Packet> {
        let mut all = Vec::new();
        let mut burst = Burst::new();
        let wire = &mut self.rigs[rig].wires[usize::from(slot.0)];
        while wire.rx_burst(&mut self.pool, &Meta::default(), &mut burst) != 0 {
            all.extend(burst.drain().map(|(packet, _)| packet));
        }
        all
    }

    /// The same as octets behind the link header, with that header checked.
    pub(crate) fn receive_octets(&mut self, rig: usize, slot: PortSlot) -> Vec<Vec<u8>> {
        let packets = self.receive(rig, slot);
        let octets = packets.iter().map(|packet| packet.data()[ethernet::HEADER_LEN..].to_vec()).collect();
        for packet in packets {
            self.pool.put(packet);
        }
        octets
    }

    /// Carries what one worker sent out of its wan port into another's.
    pub(crate) fn carry(&mut self, from: usize, to: usize) -> usize {
        let mut carried = 0;
        let mut burst = Burst::new();
        while self.rigs[from].wires[0].rx_burst(&mut self.pool, &Meta::default(), &mut burst) != 0 {
            carried += burst.len();
            self.rigs[to].wires[0].tx_burst(&mut self.pool, &mut burst);
            burst.drain().for_each(|(packet, _)| self.pool.put(packet));
        }
        carried
    }

    /// Packets that a worker dropped for a reason.
    pub(crate) fn drops(&self, rig: usize, reason: DropReason) -> u64 {
        self.rigs[rig].counters.drops.value(reason)
    }

    /// Every frame is in a pool, a wire or a queue.
    pub(crate) fn assert_ledger(&mut self) {
        for _ in 0..3 {
            self.round();
        }
        let mut sum = self.pool.ledger();
        let mut held = 0;
        for rig in &self.rigs {
            let ledger = rig.worker.ledger();
            sum = sum.plus(&ledger.pool);
            held += usize::try_from(ledger.held).expect("few");
        }
        assert!(sum.balances(held), "{sum:?} with {held} held");
    }
}

impl Rig {
    /// Routes, neighbours and policies as gateway `side` (1 or 2) of a pair has them.
    pub(crate) fn configure(&mut self, side: u8) {
        let other = 3 - side;
        let route = |text: &str, prefix_len, next_hop| Route::new(ip(text), prefix_len, next_hop);
        let routes = [
            route("0.0.0.0", 0, NextHop::Via(WAN, ip("192.0.2.254"))),
            route("192.0.2.0", 24, NextHop::OnLink(WAN)),
            route(&format!("192.0.2.{side}"), 32, NextHop::Local),
            route(&format!("10.{side}.0.0"), 16, NextHop::OnLink(LAN)),
            route(&format!("10.{side}.0.1"), 32, NextHop::Local),
            route("172.16.0.0", 16, NextHop::Kernel),
            route("198.18.0.0", 15, NextHop::Unreachable),
        ];
        self.tell(ToWorker::Fib(Box::new(Fib::compile(&routes))));
        self.tell(ToWorker::Neighbour(key(WAN, &format!("192.0.2.{other}")), Mac([0x10 + other; 6])));
        self.tell(ToWorker::Neighbour(key(LAN, &format!("10.{side}.0.2")), Mac([0x20; 6])));
        self.tell(ToWorker::ErrorSource(ip(&format!("10.{side}.0.1"))));
        let policies = [protect(&format!("10.{side}.0.0/16"), &format!("10.{other}.0.0/16"))];
        self.policies(&policies);
    }

    /// Puts policies in force.
    pub(crate) fn policies(&mut self, policies: &[PolicySpec]) {
        let compiled = CompiledPolicies::compile(policies).expect("they compile");
        self.tell(ToWorker::Policies(Box::new(compiled)));
    }

    /// Sends a message as the housekeeper does.
    pub(crate) fn tell(&mut self, message: ToWorker) {
        assert!(self.housekeeper.to_worker.push(message).is_ok(), "room in the queue");
    }

    /// What the worker has told the housekeeper.
    pub(crate) fn heard(&mut self) -> Vec<FromWorker> {
        std::iter::from_fn(|| self.housekeeper.from_worker.pop().ok()).collect()
    }

    /// Installs an SA, or word of it where another worker owns it.
    pub(crate) fn install(&mut self, spec: SaSpec) {
        let command = if spec.owner == self.worker.engine_mut().worker() {
            let keys = KeyMaterial::new(&[spec.spi.get().to_le_bytes()[0]; 20]).expect("a key");
            Command::SaAdd(spec, keys)
        } else {
            let SaSpec { id, direction, index, spi, reqid, owner, local_ts, remote_ts, .. } = spec;
            Command::SaRoute(SaRoute { id, direction, index, spi, reqid, owner, local_ts, remote_ts })
        };
        self.worker.command(1, command).expect("installed");
    }

    /// The pair of SAs of gateway `side`, owned by `owner`.
    pub(crate) fn install_pair(&mut self, side: u8, owner: u16) {
        let other = 3 - side;
        self.install(sa(Direction::Inbound, u32::from(other), side, owner));
        self.install(sa(Direction::Outbound, u32::from(side), side, owner));
    }
}

/// Two gateways of one worker each, ready to talk.
pub(crate) fn pair() -> Lab {
    let mut lab = Lab::new(2, 1);
    for (rig, side) in lab.rigs.iter_mut().zip([1, 2]) {
        rig.install_pair(side, 0);
        rig.configure(side);
    }
    lab.round();
    lab
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn key(port: PortSlot, address: &str) -> NeighbourKey {
    NeighbourKey { port, address: ip(address) }
}

pub(crate) fn net(text: &str) -> TrafficSelector {
    let (address, len) = text.split_once('/').expect("a prefix");
    TrafficSelector::prefix(ip(address), len.parse().expect("a length")).expect("a prefix")
}

pub(crate) fn policy(local: &str, remote: &str, action: PolicyAction) -> PolicySpec {
    PolicySpec {
        id: PolicyId(1),
        direction: Direction::Outbound,
        selectors: SelectorPair { local: net(local), remote: net(remote) },
        action,
    }
}

pub(crate) fn protect(local: &str, remote: &str) -> PolicySpec {
    policy(local, remote, PolicyAction::Protect(Reqid(1)))
}

/// The SA that gateway `sender` sends under, as gateway `side` installs it.
pub(crate) fn sa(direction: Direction, sender: u32, side: u8, owner: u16) -> SaSpec {
    let other = 3 - side;
    SaSpec {
        id: SaId(u64::from(sender) * 2 + u64::from(direction == Direction::Outbound)),
        direction,
        index: SaIndex(sender),
        spi: Spi::new(0x1000 + sender).expect("not reserved"),
        suite: EspSuite::Aes128Gcm16,
        esn: true,
        window_packets: 1024,
        local: ip(&format!("192.0.2.{side}")),
        remote: ip(&format!("192.0.2.{other}")),
        encap: None,
        reqid: Reqid(1),
        owner: WorkerId(owner),
        dscp: DscpMark::Copy,
        ecn: EcnMode::Normal,
        df: DfMark::Copy,
        lifetimes: Lifetimes::default(),
        seq_start: u64::from(direction == Direction::Outbound),
        iv_start: 77,
        checkpoint: None,
        local_ts: Selectors::new(&[net(&format!("10.{side}.0.0/16"))]).expect("one"),
        remote_ts: Selectors::new(&[net(&format!("10.{other}.0.0/16"))]).expect("one"),
    }
}

/// An IPv4 UDP packet with a finished checksum and `len` octets of payload.
pub(crate) fn udp(source: &str, destination: &str, len: usize) -> Vec<u8> {
    udp_with(source, destination, len, 64, false)
}

/// As [`udp`], with a TTL and the don't-fragment bit.
pub(crate) fn udp_with(source: &str, destination: &str, len: usize, ttl: u8, dont_fragment: bool) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (ip(source), ip(destination)) else { panic!("IPv4 only") };
    let total_len = u16::try_from(28 + len).expect("short");
    let header = pollux_packet::ipv4::Header {
        source: from.octets(),
        destination: to.octets(),
        protocol: 17,
        ttl,
        dont_fragment,
        total_len,
        ..pollux_packet::ipv4::Header::default()
    };
    let mut octets = header.to_bytes().to_vec();
    octets.extend(5060u16.to_be_bytes());
    octets.extend(5062u16.to_be_bytes());
    octets.extend((total_len - 20).to_be_bytes());
    octets.extend([0, 0]);
    octets.extend((0..len).map(|at| at.to_le_bytes()[0]));
    octets
}
