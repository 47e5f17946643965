//! A gateway of one worker on ports of any kind, with SAs, policies and routes of its own: what the daemon
//! runs, without the daemon.
//!
//! ```text
//!   10.1.0.0/16 ── sealer 192.0.2.1 ══ tunnel k ══ 203.0.0.1 + k opener ── 10.2.0.0 + k
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
use pollux_packet::ethernet::Mac;
use pollux_packet::{PortSlot, Role};
use pollux_port::FramePool;
use pollux_worker::forward::fib::{Fib, NextHop, Route};
use pollux_worker::forward::neighbour::NeighbourKey;
use pollux_worker::handover::Handover;
use pollux_worker::housekeeping::{BoxedPort, HousekeeperLink, PortFacts, ToWorker, Waker, channel, waker};
use pollux_worker::stats::WorkerCounters;
use pollux_worker::{PortEntry, Worker, WorkerParts};

/// SAs of each direction that fit.
pub const CAPACITY: u32 = 1 << 14;

const WAN: PortSlot = PortSlot(0);
const LAN: PortSlot = PortSlot(1);

/// Which end of the tunnels a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sends through them: 10.1.0.0/16 is behind it.
    Sealer,
    /// Receives from them: 10.2.0.0/16 is behind it.
    Opener,
}

/// One worker, and the housekeeper's end of its queues.
pub struct Gateway {
    /// The worker.
    pub worker: Worker,
    house: HousekeeperLink,
    _waker: Waker,
}

impl Gateway {
    /// A gateway with these tunnels on two ports; `neighbour` is the router on both links.
    pub fn new(
        side: Side,
        engine: Engine,
        pool: FramePool,
        ports: [(BoxedPort, Mac); 2],
        neighbour: Mac,
    ) -> Result<Self> {
        let entry = |(port, mac), role| {
            PortEntry::new(Some(port), role, PortFacts { mac, peer: None, mtu: 1500, up: true })
        };
        let (sleeper, waker) = waker()?;
        let (house, end) = channel(waker.try_clone()?);
        let [wan, lan] = ports;
        let worker = Worker::new(WorkerParts {
            engine,
            pool,
            ports: vec![entry(wan, Role::Wan), entry(lan, Role::Lan)],
            handover: Handover::alone(),
            housekeeper: end,
            sleeper,
            counters: Arc::new(WorkerCounters::default()),
            stale_ns: u64::MAX,
            sa_capacity: CAPACITY,
        });
        let mut gateway = Self { worker, house, _waker: waker };
        gateway.route(side, neighbour)?;
        Ok(gateway)
    }

    fn route(&mut self, side: Side, neighbour: Mac) -> Result<()> {
        let router: IpAddr = Ipv4Addr::new(198, 51, 100, 1).into();
        let inside = match side {
            Side::Sealer => Ipv4Addr::new(10, 1, 0, 0),
            Side::Opener => Ipv4Addr::new(10, 2, 0, 0),
        };
        let routes = [
            Route::new(Ipv4Addr::UNSPECIFIED.into(), 0, NextHop::Via(WAN, router)),
            Route::new(inside.into(), 16, NextHop::Via(LAN, router)),
        ];
        for message in [
            ToWorker::Fib(Box::new(Fib::compile(&routes))),
            ToWorker::Neighbour(NeighbourKey { port: WAN, address: router }, neighbour),
            ToWorker::Neighbour(NeighbourKey { port: LAN, address: router }, neighbour),
        ] {
            ensure!(self.house.to_worker.push(message).is_ok(), "the worker's queue is full");
        }
        Ok(())
    }
}

/// The ESP engine of a side of tunnels `first..first + count`, with SAs and policies.
pub fn engine(
    side: Side,
    aead: pollux_aead::Engine,
    suite: EspSuite,
    tunnels: std::ops::Range<u32>,
) -> Result<Engine> {
    ensure!(tunnels.end <= CAPACITY, "tunnels {tunnels:?} are more than {CAPACITY}");
    let mut engine = Engine::new(EngineConfig {
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
    let direction = match side {
        Side::Sealer => Direction::Outbound,
        Side::Opener => Direction::Inbound,
    };
    for k in tunnels.clone() {
        let spec = spec(direction, suite, k);
        let octets: Vec<u8> = (0..suite.material_len()).map(|at| at.to_le_bytes()[0]).collect();
        let keys = KeyMaterial::new(&octets).context("a key")?;
        engine.apply(1, Command::SaAdd(spec, keys))?;
    }
    if side == Side::Sealer {
        let policies: Vec<PolicySpec> = tunnels.map(policy).collect();
        drop(engine.install_policies(Box::new(CompiledPolicies::compile(&policies)?)));
    }
    Ok(engine)
}

/// The inner destination of a tunnel.
pub fn inside(k: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 2, 0, 0).to_bits() + k)
}

/// The outer address of a tunnel's far end.
pub fn outside(k: u32) -> IpAddr {
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
