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
use pollux_abi::{IfIndex, QueueId};
use pollux_ebpf::{Capacity, ModeChoice as XdpChoice, Role, Steering, bpffs};
use pollux_packet::{Burst, Meta};
use pollux_port::{FramePool, ModeChoice, Port, Umem, UmemConfig, XskConfig, XskPort};

/// Where NAPI runs here; it belongs beside every figure.
pub const NAPI: &str = "inline, on the sending CPU (veth, not threaded)";

/// Somebody who takes packets from one port and puts them out by another.
///
/// The seam for a whole gateway: build a worker over the [`Ends`] of a path and call its round here.
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
pub struct Bed {
    steering: Option<Steering>,
    dir: PathBuf,
    pins: PathBuf,
    paths: u32,
    generator_cpu: usize,
}

/// One way from a generator to a sink.
pub struct Path {
    generator: Generator,
    sink: String,
}

impl Bed {
    /// Moves the calling thread into a new network namespace, for good, and onto the first CPU.
    pub fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("pollux-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let pins = bpffs::mount_own(&dir).context("AF_XDP over veth needs root and BPF")?;
        // Counted before pinning, which leaves the thread one.
        let generator_cpu = std::thread::available_parallelism()?.get() - 1;
        let mut bed = Self { steering: None, dir, pins, paths: 0, generator_cpu };
        ensure!(generator_cpu > 0, "the generator needs a CPU beside the forwarder's");
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
        pin(0)?;
        let mut steering = Steering::open(&bed.pins, Capacity::default())?;
        steering.set_protected(&[("10.1.0.0/16".parse()?, "10.2.0.0/16".parse()?)])?;
        bed.steering = Some(steering);
        Ok(bed)
    }

    /// A new path with its generator idle, and the forwarder's ends of it.
    pub fn path(&mut self) -> Result<(Path, Ends)> {
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
        let input = self.port(&umem, &d0)?;
        let output = self.port(&umem, &d1)?;
        let ends = Ends { input, output, pool: umem.pool(8192)? };
        let generator = Generator::start(self.port(&umem, &g0)?, umem.pool(8192)?, self.generator_cpu)?;
        Ok((Path { generator, sink: g1 }, ends))
    }

    /// A port on a device, with the program attached and leading to it.
    fn port(&mut self, umem: &Umem, device: &str) -> Result<XskPort> {
        let steering = self.steering.as_mut().context("the program is loaded when the bed is made")?;
        let ifindex = IfIndex(if_nametoindex(device)?);
        let attached = steering.attach(ifindex, device, Role::Lan, XdpChoice::Driver)?;
        ensure!(attached.reason.is_none(), "{device}: no driver mode: {:?}", attached.reason);
        let config = XskConfig { mode: ModeChoice::Copy, ..XskConfig::new(device, ifindex, QueueId(0)) };
        let port = XskPort::open(umem, config)?;
        let socket = port.socket().context("an open socket")?;
        steering.set_xsk(ifindex, QueueId(0), socket)?;
        Ok(port)
    }
}

impl Drop for Bed {
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
    fn start(port: XskPort, pool: FramePool, cpu: usize) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("generator".into()).spawn(move || {
            if let Err(error) = pin(cpu) {
                eprintln!("{error}");
            }
            generate(port, pool, &seen);
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

fn generate(mut port: XskPort, mut pool: FramePool, shared: &Shared) {
    let mut burst = Burst::new();
    let mut frame = Vec::new();
    while !shared.end.load(Ordering::Relaxed) {
        let len = usize::try_from(shared.len.load(Ordering::Relaxed)).unwrap_or(0);
        if len == 0 {
            port.reclaim(&mut pool);
            std::thread::park_timeout(Duration::from_millis(20));
            continue;
        }
        if frame.len() != len {
            frame = frame_of(len);
        }
        while burst.room() > 0 {
            let Some(mut packet) = pool.alloc(256) else { break };
            if !packet.extend(&frame) || burst.push(packet, Meta::default()).is_err() {
                return;
            }
        }
        let sent = port.tx_burst(&mut pool, &mut burst);
        port.kick();
        port.reclaim(&mut pool);
        shared.sent.fetch_add(sent as u64, Ordering::Relaxed);
    }
    burst.drain().for_each(|(packet, _)| pool.put(packet));
    port.close(&mut pool);
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
    let mut frame = [INPUT, SOURCE].concat();
    frame.extend([8, 0, 0x45, 0, ip_len[0], ip_len[1], 0, 0, 0, 0, 64, 17, 0, 0]);
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

const INPUT: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// To the sink, from the output.
const NEXT_LINK: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0x0b];
/// Ethernet, IPv4 and UDP headers and a little to carry.
const MIN_LEN: usize = 60;
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
