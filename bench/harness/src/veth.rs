//! Traffic over veth pairs for forwarders on AF_XDP sockets, in a network namespace of the thread's own.
//!
//! ```text
//!   CPU 1: generator ── AF_XDP TX ──► g0 ═ d0 ──► forwarder, CPU 0 ──► d1 ═ g1 ──► the kernel drops and counts
//!                                     XDP program on d0 (driver mode) and on d1; none on g1
//! ```
//!
//! Each contender has a path of its own (four devices), so that all sockets stay open while they take turns.
//! A veth pair runs the receiver's NAPI, XDP program and copy into the socket on the *sender's* CPU unless it
//! is threaded: so the generator pays for the forwarder's reception, and the forwarder for the sink's.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::Pid;
use pollux_abi::{EspSuite, IfIndex, QueueId};
use pollux_ebpf::{Capacity, ModeChoice as XdpChoice, Role, Steering, bpffs};
use pollux_esp::Engine;
use pollux_packet::ethernet::{self, Mac};
use pollux_packet::parse::ENCAP_PORT;
use pollux_packet::{Burst, Meta, classify};
use pollux_port::{FramePool, ModeChoice, Port, Umem, UmemConfig, XskConfig, XskPort};
use pollux_worker::housekeeping::BoxedPort;
use pollux_worker::monotonic_ns;

use crate::gateway::{self, Gateway, Side, outside};

/// Where NAPI runs here; it belongs beside every figure.
pub const NAPI: &str = "inline, on the sending CPU (veth, not threaded)";

/// Somebody who takes packets from one port and puts them out by another.
pub trait Forwarder {
    /// What the row is called.
    fn name(&self) -> &str;

    /// One round over its ports, without blocking.
    fn round(&mut self);

    /// Whether all frames are accounted for, with none in flight.
    fn balances(&self) -> bool;
}

/// The forwarder's side of a path.
pub struct Ends {
    /// Where the generator's packets come in, `d<k>a`.
    pub input: XskPort,
    /// Where they leave, `d<k>b`.
    pub output: XskPort,
    /// Frames for both.
    pub pool: FramePool,
}

/// A thread's own network namespace with the program's pins. Everything in it goes when it is dropped.
pub struct Testbed {
    steering: Option<Steering>,
    dir: PathBuf,
    pins: PathBuf,
    paths: u32,
    generator_cpu: usize,
}

/// What a path's generator sends, which decides the side of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// The protected side's packets.
    Clear,
    /// The same packets as ESP, each sealed anew with its own number, from outside.
    Sealed(pollux_aead::Engine),
}

/// One way from a generator to a sink.
pub struct Path {
    generator: Generator,
    sink: String,
}

impl Testbed {
    /// Moves the calling thread into a new network namespace, for good, and onto the first CPU.
    pub fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("pollux-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let pins = bpffs::mount_own(&dir).context("AF_XDP over veth needs root and BPF")?;
        // Counted before pinning, which leaves the thread one.
        let generator_cpu = std::thread::available_parallelism()?.get() - 1;
        let mut testbed = Self { steering: None, dir, pins, paths: 0, generator_cpu };
        ensure!(generator_cpu > 0, "the generator needs a CPU beside the forwarder's");
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
        pin(0)?;
        let mut steering = Steering::open(&testbed.pins, Capacity::default())?;
        steering.set_protected(&[("10.1.0.0/16".parse()?, "10.2.0.0/16".parse()?)])?;
        steering.set_local_addrs(&[outside(TUNNEL)])?;
        testbed.steering = Some(steering);
        Ok(testbed)
    }

    /// A new path with its generator idle, and the forwarder's ends of it.
    pub fn path(&mut self, traffic: Traffic) -> Result<(Path, Ends)> {
        let k = self.paths;
        self.paths += 1;
        let [g0, d0, d1, g1] = ["ga", "da", "db", "gb"].map(|end| format!("{}{k}{}", &end[..1], &end[1..]));
        for (ours, theirs) in [(&d0, &g0), (&d1, &g1)] {
            sh(&format!("ip link add {ours} type veth peer name {theirs}"))?;
            for device in [ours, theirs] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "1")
                    .with_context(|| format!("switching IPv6 off on {device}"))?;
                sh(&format!("ip link set {device} address {} up", address_of(device)))?;
            }
        }
        let umem = Umem::new(UmemConfig { frames: 16_384, frame_len: 4096, huge_pages: true })?;
        let side = match traffic {
            Traffic::Clear => Role::Lan,
            Traffic::Sealed(_) => Role::Wan,
        };
        let input = self.port(&umem, &d0, side)?;
        let output = self.port(&umem, &d1, Role::Lan)?;
        let ends = Ends { input, output, pool: umem.pool(8192)? };
        let source = Source::new(traffic)?;
        let port = self.port(&umem, &g0, Role::Lan)?;
        let generator = Generator::start(port, umem.pool(8192)?, source, self.generator_cpu)?;
        Ok((Path { generator, sink: g1 }, ends))
    }

    /// A port on a device, with the program attached and leading to it.
    fn port(&mut self, umem: &Umem, device: &str, role: Role) -> Result<XskPort> {
        let steering = self.steering.as_mut().context("the program is loaded when the testbed is made")?;
        let ifindex = IfIndex(if_nametoindex(device)?);
        let attached = steering.attach(ifindex, device, role, XdpChoice::Driver)?;
        ensure!(attached.reason.is_none(), "{device}: no driver mode: {:?}", attached.reason);
        let config = XskConfig { mode: ModeChoice::Copy, ..XskConfig::new(device, ifindex, QueueId(0)) };
        let port = XskPort::open(umem, config)?;
        let socket = port.socket().context("an open socket")?;
        steering.set_xsk(ifindex, QueueId(0), socket)?;
        Ok(port)
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        self.steering = None;
        for outcome in [Steering::remove_all(&self.pins), bpffs::unmount(&self.dir)] {
            if let Err(error) = outcome {
                eprintln!("{error}");
            }
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// What one slice showed.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Millions of packets a second that reached the sink.
    pub mpps: f64,
    /// Millions of packets a second that the generator put onto the wire.
    pub offered_mpps: f64,
}

impl Path {
    /// Lets the generator send frames of `len` octets as fast as it can, and `forwarder` forward them.
    pub fn run(&self, forwarder: &mut dyn Forwarder, len: usize, time: Duration) -> Result<Slice> {
        self.generator.send(len);
        run_for(forwarder, WARM_UP);
        let (before, offered_before) = (self.arrived()?, self.generator.sent());
        let start = Instant::now();
        run_for(forwarder, time);
        let elapsed = start.elapsed();
        let (after, offered) = (self.arrived()?, self.generator.sent() - offered_before);
        self.generator.stop();
        run_for(forwarder, WARM_UP);
        ensure!(forwarder.balances(), "{}: the frame ledger does not balance", forwarder.name());
        let micros = elapsed.as_secs_f64() * 1e6;
        #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
        let rate = |count: u64| count as f64 / micros;
        Ok(Slice { mpps: rate(after - before), offered_mpps: rate(offered) })
    }

    /// Packets that the sink's device has received.
    fn arrived(&self) -> Result<u64> {
        let table = std::fs::read_to_string("/proc/thread-self/net/dev")?;
        let row =
            table.lines().find_map(|line| line.trim().strip_prefix(self.sink.as_str())?.strip_prefix(':'));
        let packets = row.and_then(|row| row.split_whitespace().nth(1));
        packets.context("the sink has gone")?.parse().context("packets received")
    }
}

fn run_for(forwarder: &mut dyn Forwarder, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        for _ in 0..16 {
            forwarder.round();
        }
    }
}

/// A thread on the last CPU that sends when told to.
struct Generator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Octets in a frame; 0 is silence.
    len: AtomicU64,
    sent: AtomicU64,
    end: AtomicBool,
}

impl Generator {
    fn start(port: XskPort, pool: FramePool, source: Source, cpu: usize) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("generator".into()).spawn(move || {
            if let Err(error) = pin(cpu) {
                eprintln!("{error}");
            }
            generate(port, pool, source, &seen);
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    fn send(&self, len: usize) {
        self.shared.len.store(len as u64, Ordering::Relaxed);
        self.wake();
    }

    fn stop(&self) {
        self.shared.len.store(0, Ordering::Relaxed);
    }

    fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn generate(mut port: XskPort, mut pool: FramePool, mut source: Source, shared: &Shared) {
    let mut burst = Burst::new();
    while !shared.end.load(Ordering::Relaxed) {
        let len = usize::try_from(shared.len.load(Ordering::Relaxed)).unwrap_or(0);
        if len == 0 {
            port.reclaim(&mut pool);
            std::thread::park_timeout(Duration::from_millis(20));
            continue;
        }
        // What the full ring left is sent first: a number is never sent twice.
        if burst.is_empty() {
            source.fill(&mut pool, &mut burst, len);
        }
        let sent = port.tx_burst(&mut pool, &mut burst);
        port.kick();
        port.reclaim(&mut pool);
        shared.sent.fetch_add(sent as u64, Ordering::Relaxed);
    }
    burst.drain().for_each(|(packet, _)| pool.put(packet));
    port.close(&mut pool);
}

/// What a generator's packets are made of.
struct Source {
    frame: Vec<u8>,
    sealer: Option<Engine>,
}

impl Source {
    fn new(traffic: Traffic) -> Result<Self> {
        let sealer = match traffic {
            Traffic::Clear => None,
            Traffic::Sealed(aead) => Some(gateway::engine(Side::Sealer, aead, SUITE, TUNNEL..TUNNEL + 1)?),
        };
        Ok(Self { frame: Vec::new(), sealer })
    }

    /// Fills a burst with frames that carry `len` octets in clear, link header included.
    fn fill(&mut self, pool: &mut FramePool, burst: &mut Burst, len: usize) {
        if self.frame.len() != len.max(MIN_LEN) {
            self.frame = frame_of(len);
        }
        while burst.room() > 0 {
            let Some(mut packet) = pool.alloc(256) else { break };
            if !packet.extend(&self.frame) || burst.push(packet, Meta::default()).is_err() {
                break;
            }
        }
        let Some(sealer) = &mut self.sealer else { return };
        for meta in burst.metas_mut() {
            meta.role = pollux_packet::Role::Host;
        }
        classify(burst, ENCAP_PORT);
        sealer.outbound(0, burst);
        for (packet, _) in burst.iter_mut() {
            if let Some(header) = packet.push_front(ethernet::HEADER_LEN) {
                header.copy_from_slice(&ethernet::header(INPUT, SOURCE, ethernet::IPV4));
            }
        }
    }
}

/// Pollux: the worker of a gateway, without the daemon around it.
pub struct PolluxWorker {
    name: &'static str,
    gateway: Gateway,
}

impl PolluxWorker {
    /// A gateway that seals what comes in.
    pub fn sealing(aead: pollux_aead::Engine, ends: Ends) -> Result<Self> {
        let Ends { input, output, pool } = ends;
        let ports: [(BoxedPort, Mac); 2] = [(Box::new(output), OUTPUT), (Box::new(input), INPUT)];
        Self::new("pollux encrypt", Side::Sealer, aead, ports, pool)
    }

    /// A gateway that opens what comes in.
    pub fn opening(aead: pollux_aead::Engine, ends: Ends) -> Result<Self> {
        let Ends { input, output, pool } = ends;
        let ports: [(BoxedPort, Mac); 2] = [(Box::new(input), INPUT), (Box::new(output), OUTPUT)];
        Self::new("pollux decrypt", Side::Opener, aead, ports, pool)
    }

    fn new(
        name: &'static str,
        side: Side,
        aead: pollux_aead::Engine,
        ports: [(BoxedPort, Mac); 2],
        pool: FramePool,
    ) -> Result<Self> {
        let engine = gateway::engine(side, aead, SUITE, TUNNEL..TUNNEL + 1)?;
        Ok(Self { name, gateway: Gateway::new(side, engine, pool, ports, SINK)? })
    }
}

impl Forwarder for PolluxWorker {
    fn name(&self) -> &str {
        self.name
    }

    fn round(&mut self) {
        self.gateway.worker.round(monotonic_ns());
    }

    fn balances(&self) -> bool {
        let ledger = self.gateway.worker.ledger();
        usize::try_from(ledger.held).is_ok_and(|held| ledger.pool.balances(held))
    }
}

/// The baseline: what comes in goes out, with the link-layer addresses of the next link.
pub struct L2Forward {
    ends: Ends,
    burst: Burst,
}

impl L2Forward {
    /// Over the ends of a path.
    pub fn new(ends: Ends) -> Self {
        Self { ends, burst: Burst::new() }
    }
}

impl Forwarder for L2Forward {
    fn name(&self) -> &'static str {
        "l2fwd"
    }

    fn round(&mut self) {
        let Ends { input, output, pool } = &mut self.ends;
        input.rx_burst(pool, &Meta::default(), &mut self.burst);
        for (packet, _) in self.burst.iter_mut() {
            if let Some(addresses) = packet.data_mut().get_mut(..12) {
                addresses.copy_from_slice(&NEXT_LINK);
            }
        }
        output.tx_burst(pool, &mut self.burst);
        // What the full ring leaves is dropped, as a gateway does.
        self.burst.drain().for_each(|(packet, _)| pool.put(packet));
        output.kick();
        input.reclaim(pool);
        output.reclaim(pool);
    }

    fn balances(&self) -> bool {
        self.ends.pool.ledger().balances(0)
    }
}

/// A UDP packet from the protected side, 10.1.0.5 to 10.2.0.9, as a frame of `len` octets.
fn frame_of(len: usize) -> Vec<u8> {
    let len = len.max(MIN_LEN);
    let ip_len = u16::try_from(len - 14).unwrap_or(u16::MAX).to_be_bytes();
    let udp_len = u16::try_from(len - 34).unwrap_or(u16::MAX).to_be_bytes();
    let mut frame = ethernet::header(INPUT, SOURCE, ethernet::IPV4).to_vec();
    frame.extend([0x45, 0, ip_len[0], ip_len[1], 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend([10, 1, 0, 5, 10, 2, 0, 9]);
    frame.extend([0x27, 0x10, 0x27, 0x11, udp_len[0], udp_len[1], 0, 0]);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.resize(len, 0x5a);
    frame
}

/// RFC 1071, over an even number of octets.
fn checksum(header: &[u8]) -> u16 {
    let words = header.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

fn address_of(device: &str) -> &'static str {
    match (device.starts_with('d'), device.ends_with('a')) {
        (true, true) => "02:00:00:00:00:0a",
        (true, false) => "02:00:00:00:00:0b",
        (false, true) => "02:00:00:00:00:01",
        (false, false) => "02:00:00:00:00:02",
    }
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("pinning to CPU {cpu}"))
}

fn sh(line: &str) -> Result<()> {
    let status = Command::new("sh").args(["-ec", line]).status()?;
    ensure!(status.success(), "`{line}` failed");
    Ok(())
}

const INPUT: Mac = Mac([2, 0, 0, 0, 0, 0x0a]);
const OUTPUT: Mac = Mac([2, 0, 0, 0, 0, 0x0b]);
const SOURCE: Mac = Mac([2, 0, 0, 0, 0, 1]);
const SINK: Mac = Mac([2, 0, 0, 0, 0, 2]);
/// To the sink, from the output.
const NEXT_LINK: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0x0b];
/// Ethernet, IPv4 and UDP headers and a little to carry.
const MIN_LEN: usize = 60;
/// The tunnel whose inner destination the generator's packets have, 10.2.0.9.
const TUNNEL: u32 = 9;
const SUITE: EspSuite = EspSuite::Aes128Gcm16;
const WARM_UP: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_is_a_valid_packet_of_the_protected_pair() {
        for len in [64, 1400] {
            let frame = frame_of(len);
            assert_eq!(frame.len(), len);
            assert_eq!(checksum(&frame[14..34]), 0, "its own checksum makes the sum zero");
            assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), len - 14);
        }
    }
}
