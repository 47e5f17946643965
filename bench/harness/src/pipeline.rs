//! Two gateways in memory: what one seals the other opens, and only the workers' rounds are timed. Beside them,
//! what the memory ports alone take, which is part of every round.
//!
//! ```text
//!   generator ─► relay ─lan─► worker A ─wan─► wire ─wan─► worker B ─lan─► sink
//!         timed: ports        timed: encrypt              timed: decrypt
//! ```

use anyhow::{Context, Result, ensure};
use pollux_abi::EspSuite;
use pollux_packet::checksum::Sum;
use pollux_packet::ethernet::{self, Mac};
use pollux_packet::{BURST_MAX, Burst, Meta, Packet, hint};
use pollux_port::{FramePool, MemoryPort, Port, Umem, UmemConfig};
use pollux_worker::housekeeping::BoxedPort;

use crate::gateway::{self, Gateway, Side, inside};

/// Packets of one pass: several bursts, so that what a burst leaves in the caches is gone before it is back.
pub const PACKETS: usize = 512;

/// Two gateways and the generator between them.
pub struct Pipeline {
    sealer: End,
    opener: End,
    relay: Relay,
    pool: FramePool,
    burst: Burst,
    /// Link and IP packets of one pass, in order.
    frames: Vec<Vec<u8>>,
    sas: u32,
    passes: u32,
    spare: Vec<Packet>,
    now_ns: u64,
}

/// TSC cycles of one pass.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// The ports alone: receive and send, and nothing in between.
    pub ports: u64,
    /// All rounds of the sealing worker.
    pub encrypt: u64,
    /// All rounds of the opening worker.
    pub decrypt: u64,
}

impl Pipeline {
    /// Gateways with `sas` tunnels, and packets of these lengths (of the inner IP packet) that take the
    /// tunnels in turn. A frame has `frame_len` octets.
    pub fn new(
        aead: pollux_aead::Engine,
        suite: EspSuite,
        sas: u32,
        lens: &[usize],
        frame_len: u32,
    ) -> Result<Self> {
        let frames_each = 1024;
        let umem = Umem::new(UmemConfig { frames: 4 * frames_each, frame_len, huge_pages: true })?;
        let end = |side| End::new(side, gateway::engine(side, aead, suite, 0..sas)?, umem.pool(frames_each)?);
        let (sealer, opener) = (end(Side::Sealer)?, end(Side::Opener)?);
        let mut pipeline = Self {
            sealer,
            opener,
            relay: Relay::new(),
            pool: umem.pool(2 * frames_each)?,
            burst: Burst::new(),
            frames: (0..PACKETS).map(|at| frame(lens[at % lens.len()])).collect(),
            sas,
            passes: 0,
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
        let ports = self.time(|pipeline, _| pipeline.relay.round(&mut pipeline.pool));
        while self.relay.far_output.rx_burst(&mut self.pool, &Meta::default(), &mut self.burst) != 0 {
            self.sealer.lan.tx_burst(&mut self.pool, &mut self.burst);
        }
        let encrypt = self.time(|pipeline, now_ns| pipeline.sealer.gateway.worker.round(now_ns));
        for _ in 0..PACKETS.div_ceil(BURST_MAX) {
            self.sealer.wan.rx_burst(&mut self.pool, &Meta::default(), &mut self.burst);
            self.opener.wan.tx_burst(&mut self.pool, &mut self.burst);
        }
        let decrypt = self.time(|pipeline, now_ns| pipeline.opener.gateway.worker.round(now_ns));
        self.sink();
        ensure!(self.spare.len() == PACKETS, "{} of {PACKETS} packets arrived", self.spare.len());
        Ok(Pass { ports, encrypt, decrypt })
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
        self.sealer.gateway.worker.round(self.now_ns);
        self.opener.gateway.worker.round(self.now_ns);
    }

    fn generate(&mut self) {
        let pass = self.passes as usize;
        self.passes = self.passes.wrapping_add(1);
        for (at, octets) in self.frames.iter_mut().enumerate() {
            let Some(mut packet) = self.spare.pop() else { break };
            packet.reset(HEADROOM);
            address(octets, tunnel(pass * PACKETS + at, self.sas));
            if !packet.extend(octets) || self.burst.room() == 0 {
                self.pool.put(packet);
                continue;
            }
            if self.burst.push(packet, Meta::default()).is_ok() && self.burst.room() == 0 {
                self.relay.far_input.tx_burst(&mut self.pool, &mut self.burst);
            }
        }
    }

    fn sink(&mut self) {
        while self.opener.lan.rx_burst(&mut self.pool, &Meta::default(), &mut self.burst) != 0 {
            self.spare.extend(self.burst.drain().map(|(packet, _)| packet));
        }
    }
}

/// A pair of ports with nobody between them.
struct Relay {
    far_input: MemoryPort,
    input: MemoryPort,
    output: MemoryPort,
    far_output: MemoryPort,
    burst: Burst,
}

impl Relay {
    fn new() -> Self {
        let (input, far_input) = MemoryPort::pair("in", PACKETS);
        let (output, far_output) = MemoryPort::pair("out", PACKETS);
        Self { far_input, input, output, far_output, burst: Burst::new() }
    }

    /// What a worker's round does with its ports.
    fn round(&mut self, pool: &mut FramePool) -> usize {
        let count = self.input.rx_burst(pool, &Meta::default(), &mut self.burst);
        self.output.tx_burst(pool, &mut self.burst);
        for port in [&mut self.input, &mut self.output] {
            port.kick();
            port.reclaim(pool);
        }
        count
    }
}

/// Octets before a received packet, as the kernel leaves them.
const HEADROOM: u16 = 256;

/// The tunnel of the `at`-th packet: all of them in turn, over many passes, in an order that no cache foresees.
fn tunnel(at: usize, sas: u32) -> u32 {
    // A stride with no factor in common with the counts that are measured walks over all tunnels.
    u32::try_from(at).unwrap_or(0).wrapping_mul(7_919) % sas
}

/// A gateway and the far ends of its ports.
struct End {
    gateway: Gateway,
    wan: MemoryPort,
    lan: MemoryPort,
}

impl End {
    fn new(side: Side, engine: pollux_esp::Engine, pool: FramePool) -> Result<Self> {
        let ((wan, far_wan), (lan, far_lan)) =
            (MemoryPort::pair("wan", PACKETS), MemoryPort::pair("lan", PACKETS));
        let own = Mac([2; 6]);
        let ports: [(BoxedPort, Mac); 2] = [(Box::new(wan), own), (Box::new(lan), own)];
        let gateway = Gateway::new(side, engine, pool, ports, Mac([4; 6]))?;
        Ok(Self { gateway, wan: far_wan, lan: far_lan })
    }
}

/// A frame with an IP packet of `len` octets: UDP, as media are.
fn frame(len: usize) -> Vec<u8> {
    let total_len = u16::try_from(len).unwrap_or(u16::MAX);
    let header = pollux_packet::ipv4::Header {
        source: [10, 1, 0, 2],
        destination: inside(0).octets(),
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

/// Addresses a frame to the inside of tunnel `k`.
fn address(frame: &mut [u8], k: u32) {
    let Some(header) = frame.get_mut(ethernet::HEADER_LEN..).and_then(<[u8]>::first_chunk_mut::<20>) else {
        return;
    };
    header[10..12].fill(0);
    header[16..].copy_from_slice(&inside(k).octets());
    let checksum = Sum::new().octets(header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}
