//! Two gateways in memory: what one seals the other opens, and only the workers' rounds are timed.
//!
//! ```text
//!   generator ─lan─► worker A ─wan─► wire ─wan─► worker B ─lan─► sink
//!                    timed: encrypt              timed: decrypt
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use pollux_abi::command::{Command, Direction, Lifetimes, PolicyAction, PolicySpec, SaSpec};
use pollux_abi::dscp::{DfMark, DscpMark, EcnMode};
use pollux_abi::selector::{PortRange, SelectorPair};
use pollux_abi::{
    EspSuite, KeyMaterial, PolicyId, Reqid, SaId, SaIndex, Selectors, Spi, TrafficSelector, WorkerId,
};
use pollux_esp::{CompiledPolicies, Engine, EngineConfig, EngineCounters, SaCounterTable};
use pollux_packet::ethernet::{self, Mac};
use pollux_packet::{BURST_MAX, Burst, Meta, Packet, PortSlot, Role, hint};
use pollux_port::{FramePool, MemoryPort, Port, Umem, UmemConfig};
use pollux_worker::forward::fib::{Fib, NextHop, Route};
use pollux_worker::forward::neighbour::NeighbourKey;
use pollux_worker::handover::Handover;
use pollux_worker::housekeeping::{HouseEnd, PortFacts, ToWorker, Waker, channel, waker};
use pollux_worker::stats::WorkerCounters;
use pollux_worker::{PortEntry, Worker, WorkerParts};

/// Packets of one pass: several bursts, so that what a burst leaves in the caches is gone before it is back.
pub const PACKETS: usize = 512;

/// SAs of each direction that fit.
const CAPACITY: u32 = 1 << 14;

const WAN: PortSlot = PortSlot(0);
const LAN: PortSlot = PortSlot(1);

/// Two gateways and the generator between them.
pub struct Pipeline {
    sealer: Gateway,
    opener: Gateway,
    pool: FramePool,
    burst: Burst,
    /// Link and IP packets of one pass, in order.
    frames: Vec<Vec<u8>>,
    spare: Vec<Packet>,
    now_ns: u64,
}

/// TSC cycles of one pass.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// All rounds of the sealing worker.
    pub encrypt: u64,
    /// All rounds of the opening worker.
    pub decrypt: u64,
}

impl Pipeline {
    /// Gateways with `sas` tunnels, and packets of these lengths (of the inner IP packet) that take the
    /// tunnels in turn.
    pub fn new(aead: pollux_aead::Engine, suite: EspSuite, sas: u32, lens: &[usize]) -> Result<Self> {
        ensure!(sas <= CAPACITY, "{sas} SAs are more than {CAPACITY}");
        let frames_each = 1024;
        let umem = Umem::new(UmemConfig { frames: 4 * frames_each, frame_len: 4096, huge_pages: true })?;
        let mut sealer = Gateway::new(aead, umem.pool(frames_each)?)?;
        let mut opener = Gateway::new(aead, umem.pool(frames_each)?)?;
        for k in 0..sas {
            sealer.install(spec(Direction::Outbound, suite, k))?;
            opener.install(spec(Direction::Inbound, suite, k))?;
        }
        let policies: Vec<PolicySpec> = (0..sas).map(policy).collect();
        sealer.configure(&policies, "10.1.0.0")?;
        opener.configure(&[], "10.2.0.0")?;
        let mut pipeline = Self {
            sealer,
            opener,
            pool: umem.pool(2 * frames_each)?,
            burst: Burst::new(),
            frames: (0..PACKETS).map(|at| frame(lens[at % lens.len()], tunnel(at, sas))).collect(),
            spare: Vec::new(),
            now_ns: 1_000_000,
        };
        for _ in 0..PACKETS {
            pipeline.spare.push(pipeline.pool.alloc(HEADROOM).context("too few frames")?);
        }
        pipeline.round_all();
        let pass = pipeline.pass()?;
        ensure!(pass.encrypt != 0 || cfg!(not(target_arch = "x86_64")), "this CPU has no time-stamp counter");
        Ok(pipeline)
    }

    /// Sends all packets through both gateways once; an error if not all of them arrive.
    pub fn pass(&mut self) -> Result<Pass> {
        self.generate();
        let encrypt = self.time(|pipeline, now_ns| pipeline.sealer.worker.round(now_ns));
        for _ in 0..PACKETS.div_ceil(BURST_MAX) {
            self.sealer.wan.rx_burst(&mut self.pool, &Meta::default(), &mut self.burst);
            self.opener.wan.tx_burst(&mut self.pool, &mut self.burst);
        }
        let decrypt = self.time(|pipeline, now_ns| pipeline.opener.worker.round(now_ns));
        self.sink();
        ensure!(self.spare.len() == PACKETS, "{} of {PACKETS} packets arrived", self.spare.len());
        Ok(Pass { encrypt, decrypt })
    }

    fn time(&mut self, mut round: impl FnMut(&mut Self, u64) -> usize) -> u64 {
        let (mut cycles, mut found) = (0, 0);
        while found < PACKETS {
            self.now_ns += 1_000;
            let now_ns = self.now_ns;
            let start = hint::tsc();
            let count = round(self, now_ns);
            cycles += hint::tsc() - start;
            found += count;
            if count == 0 {
                break;
            }
        }
        cycles
    }

    fn round_all(&mut self) {
        self.now_ns += 1_000;
        self.sealer.worker.round(self.now_ns);
        self.opener.worker.round(self.now_ns);
    }

    fn generate(&mut self) {
        for octets in self.frames.iter().rev() {
            let Some(mut packet) = self.spare.pop() else { break };
            packet.reset(HEADROOM);
            if !packet.extend(octets) || self.burst.room() == 0 {
                self.pool.put(packet);
                continue;
            }
            if self.burst.push(packet, Meta::default()).is_ok() && self.burst.room() == 0 {
                self.sealer.lan.tx_burst(&mut self.pool, &mut self.burst);
            }
        }
    }

    fn sink(&mut self) {
        while self.opener.lan.rx_burst(&mut self.pool, &Meta::default(), &mut self.burst) != 0 {
            self.spare.extend(self.burst.drain().map(|(packet, _)| packet));
        }
    }
}

/// Octets before a received packet, as the kernel leaves them.
const HEADROOM: u16 = 256;

/// The tunnel of a pass's `at`-th packet. Neighbours in a burst never share one, if there are enough.
fn tunnel(at: usize, sas: u32) -> u32 {
    // A stride with no factor in common with the counts that are measured walks over all tunnels.
    u32::try_from(at).unwrap_or(0).wrapping_mul(7_919) % sas
}

struct Gateway {
    worker: Worker,
    house: HouseEnd,
    wan: MemoryPort,
    lan: MemoryPort,
    _waker: Waker,
}

impl Gateway {
    fn new(aead: pollux_aead::Engine, pool: FramePool) -> Result<Self> {
        let ((wan, far_wan), (lan, far_lan)) =
            (MemoryPort::pair("wan", PACKETS), MemoryPort::pair("lan", PACKETS));
        let entry = |port, role| {
            let facts = PortFacts { mac: Mac([2; 6]), peer: None, mtu: 1500, up: true };
            PortEntry::new(Some(Box::new(port)), role, facts)
        };
        let (sleeper, waker) = waker()?;
        let (house, end) = channel(waker.try_clone()?);
        let engine = Engine::new(EngineConfig {
            worker: WorkerId(0),
            workers: 1,
            spi_index_width: 14,
            sa_capacity: CAPACITY,
            window_packets_total: 1 << 25,
            aead,
            sa_counters: Arc::new(SaCounterTable::new(CAPACITY)),
            counters: Arc::new(EngineCounters::default()),
            checkpoints: &[],
        })?;
        let worker = Worker::new(WorkerParts {
            engine,
            pool,
            ports: vec![entry(wan, Role::Wan), entry(lan, Role::Lan)],
            handover: Handover::alone(),
            house: end,
            sleeper,
            counters: Arc::new(WorkerCounters::default()),
            stale_ns: u64::MAX,
            sa_capacity: CAPACITY,
        });
        Ok(Self { worker, house, wan: far_wan, lan: far_lan, _waker: waker })
    }

    fn install(&mut self, spec: SaSpec) -> Result<()> {
        let octets: Vec<u8> = (0..spec.suite.material_len()).map(|at| at.to_le_bytes()[0]).collect();
        let keys = KeyMaterial::new(&octets).context("a key")?;
        self.worker.command(1, Command::SaAdd(spec, keys))?;
        Ok(())
    }

    /// `inside` is its own /16.
    fn configure(&mut self, policies: &[PolicySpec], inside: &str) -> Result<()> {
        let router: IpAddr = Ipv4Addr::new(198, 51, 100, 1).into();
        let routes = [
            Route {
                destination: Ipv4Addr::UNSPECIFIED.into(),
                prefix_len: 0,
                next_hop: NextHop::Via(WAN, router),
            },
            Route { destination: inside.parse()?, prefix_len: 16, next_hop: NextHop::Via(LAN, router) },
        ];
        let compiled = CompiledPolicies::compile(policies)?;
        for message in [
            ToWorker::Fib(Box::new(Fib::compile(&routes))),
            ToWorker::Policies(Box::new(compiled)),
            ToWorker::Neighbour(NeighbourKey { port: WAN, address: router }, Mac([4; 6])),
            ToWorker::Neighbour(NeighbourKey { port: LAN, address: router }, Mac([4; 6])),
        ] {
            ensure!(self.house.to_worker.push(message).is_ok(), "the worker's queue is full");
        }
        Ok(())
    }
}

/// The inner destination of a tunnel.
fn inside(k: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 2, 0, 0).to_bits() + k)
}

/// The outer address of a tunnel's far end.
fn outside(k: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(203, 0, 0, 0).to_bits() + 1 + k).into()
}

fn policy(k: u32) -> PolicySpec {
    PolicySpec {
        id: PolicyId(k + 1),
        direction: Direction::Outbound,
        selectors: SelectorPair { local: lan(), remote: TrafficSelector::host(inside(k).into()) },
        action: PolicyAction::Protect(Reqid(k + 1)),
    }
}

fn lan() -> TrafficSelector {
    let ends = (Ipv4Addr::new(10, 1, 0, 0).into(), Ipv4Addr::new(10, 1, 255, 255).into());
    TrafficSelector::new(ends.0, ends.1, None, PortRange::ANY).unwrap_or_else(TrafficSelector::any_v4)
}

/// A tunnel's SA as the sender (outbound) or the receiver (inbound) has it.
fn spec(direction: Direction, suite: EspSuite, k: u32) -> SaSpec {
    let near: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
    let far = TrafficSelector::host(inside(k).into());
    let outbound = direction == Direction::Outbound;
    let ((local, remote), (local_ts, remote_ts)) =
        if outbound { ((near, outside(k)), (lan(), far)) } else { ((outside(k), near), (far, lan())) };
    SaSpec {
        id: SaId(u64::from(k) + 1),
        direction,
        index: SaIndex(k),
        spi: Spi::with_index(SaIndex(k), 14, k.wrapping_mul(0x9e37)).unwrap_or_default(),
        suite,
        esn: true,
        window_packets: 1024,
        local,
        remote,
        encap: None,
        reqid: Reqid(k + 1),
        owner: WorkerId(0),
        dscp: DscpMark::Copy,
        ecn: EcnMode::Normal,
        df: DfMark::Copy,
        lifetimes: Lifetimes::default(),
        seq_start: u64::from(outbound),
        iv_start: 1,
        checkpoint: None,
        local_ts: Selectors::new(&[local_ts]).unwrap_or_default(),
        remote_ts: Selectors::new(&[remote_ts]).unwrap_or_default(),
    }
}

/// A frame with an IP packet of `len` octets for tunnel `k`: UDP, as media are.
fn frame(len: usize, k: u32) -> Vec<u8> {
    let total_len = u16::try_from(len).unwrap_or(u16::MAX);
    let header = pollux_packet::ipv4::Header {
        source: [10, 1, 0, 2],
        destination: inside(k).octets(),
        protocol: 17,
        traffic_class: 46 << 2,
        ttl: 64,
        total_len,
        ..pollux_packet::ipv4::Header::default()
    };
    let mut octets = ethernet::header(Mac([2; 6]), Mac([4; 6]), ethernet::IPV4).to_vec();
    octets.extend(header.to_bytes());
    octets.extend([0x40, 0, 0x40, 2]);
    octets.extend(total_len.saturating_sub(20).to_be_bytes());
    octets.extend([0, 0]);
    octets.resize(ethernet::HEADER_LEN + len, 0x55);
    octets
}
