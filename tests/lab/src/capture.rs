//! What goes over a link: a capture by tcpdump, read back and sorted by kind.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::netns::Netns;
use crate::process::Process;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
    /// How many octets of the file [`Self::read_on`] has read.
    read: u64,
}

/// What a captured frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// ESP as an IP protocol.
    Esp,
    /// ESP in UDP.
    EspInUdp,
    /// UDP port 500, or 4500 with a zero marker.
    Ike,
    /// NAT keepalive: one octet 0xff on port 4500.
    Keepalive,
    /// ARP, neighbour discovery, MLD.
    Neighbour,
    /// Any other IP packet: in clear.
    Clear,
    /// Not IP.
    Other,
}

/// One captured frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Time since the epoch.
    pub time: Duration,
    /// All octets from the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// The parts of a captured IP packet.
#[derive(Clone, Copy, Debug)]
pub struct Ip<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Traffic class octet.
    pub traffic_class: u8,
    /// Protocol, after extension headers were not skipped.
    pub protocol: u8,
    /// What follows the IP header.
    pub payload: &'a [u8],
}

/// Room for a few seconds at full rate, should the disk or the other core be busy.
const BUFFER_KIB: &str = "262144";

impl Capture {
    /// Starts to capture on `device` in `netns` into `folder/<name>.pcap`.
    ///
    /// # Errors
    /// If tcpdump does not start.
    pub fn start(netns: &Netns, device: &str, folder: &Path, name: &str) -> Result<Self> {
        let file = folder.join(format!("{name}.pcap"));
        let mut command = netns.command("tcpdump");
        command
            .args(["-i", device, "-n", "-U", "-B", BUFFER_KIB, "--immediate-mode", "-Z", "root", "-w"])
            .arg(&file);
        let log = folder.join(format!("{name}.tcpdump.log"));
        let mut process = Process::start("tcpdump", &mut command, &log)?;
        process.wait_for_log("listening on", Duration::from_secs(10))?;
        Ok(Self { process, file, read: 0 })
    }

    /// Ends the capture and reads it.
    ///
    /// # Errors
    /// If tcpdump lost packets or the file can't be read.
    pub fn stop(mut self) -> Result<Vec<Frame>> {
        // What the kernel still holds for the socket is written before SIGINT is handled.
        std::thread::sleep(Duration::from_millis(300));
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(Duration::from_secs(10))?;
        let log = self.process.log();
        if !log.contains("0 packets dropped by kernel") {
            bail!("the capture is not whole:\n{log}");
        }
        read_pcap(&self.file)
    }

    /// The frames that were captured since the last call, while the capture goes on.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn read_on(&mut self) -> Result<Vec<Frame>> {
        let mut file = File::open(&self.file).with_context(|| format!("{}", self.file.display()))?;
        let mut bytes = Vec::new();
        file.by_ref().take(FILE_HEADER_LEN).read_to_end(&mut bytes)?;
        let Some(nanos_per_tick) = nanos_per_tick(&bytes) else { return Ok(Vec::new()) };
        self.read = self.read.max(FILE_HEADER_LEN);
        file.seek(SeekFrom::Start(self.read))?;
        bytes.clear();
        file.read_to_end(&mut bytes)?;
        let (frames, read) = records(&bytes, nanos_per_tick);
        self.read += read as u64;
        Ok(frames)
    }

    /// The file that tcpdump writes.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// Octets of a pcap file before its first record.
const FILE_HEADER_LEN: u64 = 24;

/// Reads a pcap file with microsecond or nanosecond stamps in host order.
///
/// # Errors
/// If it is not such a file.
pub fn read_pcap(path: &Path) -> Result<Vec<Frame>> {
    let bytes = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
    let Some(nanos_per_tick) = nanos_per_tick(&bytes) else { bail!("{}: not a pcap file", path.display()) };
    let records_from = bytes.get(24..).unwrap_or_default();
    Ok(records(records_from, nanos_per_tick).0)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The unit of the stamps, out of a file's header.
fn nanos_per_tick(header: &[u8]) -> Option<u32> {
    match word(header, 0) {
        Some(0xa1b2_c3d4) => Some(1000),
        Some(0xa1b2_3c4d) => Some(1),
        _ => None,
    }
}

/// The frames of whole records, and how many octets those take.
fn records(bytes: &[u8], nanos_per_tick: u32) -> (Vec<Frame>, usize) {
    let mut frames = Vec::new();
    let mut at = 0;
    while let (Some(seconds), Some(ticks), Some(len)) =
        (word(bytes, at), word(bytes, at + 4), word(bytes, at + 8))
    {
        let end = at + 16 + len as usize;
        let Some(octets) = bytes.get(at + 16..end) else { break };
        let time = Duration::new(u64::from(seconds), ticks * nanos_per_tick);
        frames.push(Frame { time, bytes: octets.to_vec() });
        at = end;
    }
    (frames, at)
}

impl Frame {
    /// The IP packet in the frame.
    pub fn ip(&self) -> Option<Ip<'_>> {
        let packet = self.bytes.get(14..)?;
        match self.bytes.get(12..14)? {
            [0x08, 0x00] => ipv4(packet),
            [0x86, 0xdd] => ipv6(packet),
            _ => None,
        }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        if self.bytes.get(12..14) == Some(&[0x08, 0x06]) {
            return Kind::Neighbour;
        }
        let Some(ip) = self.ip() else { return Kind::Other };
        match ip.protocol {
            50 => Kind::Esp,
            58 if ip.payload.first().is_some_and(|kind| (130..=143).contains(kind)) => Kind::Neighbour,
            0 if ip.destination.is_multicast() => Kind::Neighbour,
            17 => udp_kind(ip.payload),
            _ => Kind::Clear,
        }
    }

    /// SPI and the octets that follow it, for ESP of either form.
    pub fn esp(&self) -> Option<(u32, &[u8])> {
        let ip = self.ip()?;
        let esp = match self.kind() {
            Kind::Esp => ip.payload,
            Kind::EspInUdp => ip.payload.get(8..)?,
            _ => return None,
        };
        Some((u32::from_be_bytes(*esp.first_chunk()?), esp.get(4..)?))
    }
}

fn ipv4(packet: &[u8]) -> Option<Ip<'_>> {
    let header_len = usize::from(packet.first()? & 15) * 4;
    let total_len = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    Some(Ip {
        source: Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?).into(),
        destination: Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?).into(),
        traffic_class: *packet.get(1)?,
        protocol: *packet.get(9)?,
        payload: packet.get(header_len..total_len)?,
    })
}

fn ipv6(packet: &[u8]) -> Option<Ip<'_>> {
    Some(Ip {
        source: Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?).into(),
        destination: Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?).into(),
        traffic_class: packet.first()? << 4 | packet.get(1)? >> 4,
        protocol: *packet.get(6)?,
        payload: packet.get(40..)?,
    })
}

fn udp_kind(datagram: &[u8]) -> Kind {
    let port =
        |at: usize| datagram.get(at..).and_then(|rest| rest.first_chunk()).map(|p| u16::from_be_bytes(*p));
    let ports = [port(0), port(2)];
    let payload = datagram.get(8..).unwrap_or_default();
    if ports.contains(&Some(500)) {
        return Kind::Ike;
    }
    if !ports.contains(&Some(4500)) {
        return Kind::Clear;
    }
    match payload {
        [0xff] => Kind::Keepalive,
        [0, 0, 0, 0, ..] => Kind::Ike,
        [first, _, _, _, ..] if first >> 6 == 3 || payload.len() >= 32 => Kind::EspInUdp,
        _ => Kind::Clear,
    }
}
