//! pcap files: as a port, and as the record that [`crate::Tee`] writes.
//!
//! Reads the classic format in both byte orders, with microseconds or nanoseconds, link type Ethernet.
//! Writes nanoseconds, in the byte order of the machine. Offline work: reading loads the whole file first,
//! writing goes through a buffer.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use pollux_packet::{Burst, Meta};
use thiserror::Error;

use crate::port::{Port, PortInfo, PortState, PortStats};
use crate::xsk::frames::FramePool;
use crate::xsk::socket::take_front;

/// Why a pcap file cannot be used.
#[derive(Debug, Error)]
pub enum PcapError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// With what.
        #[source]
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{path}: {what}; it must be a pcap file (not pcapng) of Ethernet frames")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// The frames of a pcap file, in order.
#[derive(Debug)]
pub struct PcapReader {
    octets: Vec<u8>,
    at: usize,
    swapped: bool,
    /// Nanoseconds in the unit of the sub-second field.
    unit_ns: u64,
}

impl PcapReader {
    /// Loads the file.
    pub fn open(path: &Path) -> Result<Self, PcapError> {
        let octets =
            std::fs::read(path).map_err(|source| PcapError::File { path: path.to_owned(), source })?;
        Self::parse(octets).map_err(|what| PcapError::Format { path: path.to_owned(), what })
    }

    fn parse(octets: Vec<u8>) -> Result<Self, &'static str> {
        let magic = word(&octets, 0, false).ok_or("it is too short for a header")?;
        let (swapped, unit_ns) = match (magic, magic.swap_bytes()) {
            (MAGIC_US, _) => (false, 1000),
            (MAGIC_NS, _) => (false, 1),
            (_, MAGIC_US) => (true, 1000),
            (_, MAGIC_NS) => (true, 1),
            _ => return Err("it does not begin as a pcap file does"),
        };
        match word(&octets, 20, swapped) {
            Some(link) if link & 0xffff == ETHERNET => {}
            Some(_) => return Err("its link type is not Ethernet"),
            None => return Err("it is too short for a header"),
        }
        Ok(Self { octets, at: HEADER_LEN, swapped, unit_ns })
    }

    /// The next frame and when it was captured, in nanoseconds; `None` at the end, or where the file is cut.
    pub fn frame(&mut self) -> Option<(u64, &[u8])> {
        let field = |k| word(&self.octets, self.at.checked_add(k)?, self.swapped);
        let (seconds, fraction, len) = (field(0)?, field(4)?, field(8)?);
        let begin = self.at + RECORD_LEN;
        let end = begin.checked_add(usize::try_from(len).ok()?)?;
        let frame = self.octets.get(begin..end)?;
        self.at = end;
        let ns =
            u64::from(seconds).wrapping_mul(1_000_000_000).wrapping_add(u64::from(fraction) * self.unit_ns);
        Some((ns, frame))
    }
}

/// Writes frames to a pcap file. Errors are kept for [`Self::finish`]; nothing is written after one.
#[derive(Debug)]
pub struct PcapWriter {
    out: BufWriter<File>,
    path: PathBuf,
    error: Option<std::io::Error>,
}

impl PcapWriter {
    /// Makes or replaces the file.
    pub fn create(path: &Path) -> Result<Self, PcapError> {
        let failed = |source| PcapError::File { path: path.to_owned(), source };
        let mut out = BufWriter::with_capacity(1 << 16, File::create(path).map_err(failed)?);
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(&MAGIC_NS.to_ne_bytes());
        header[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        header[6..8].copy_from_slice(&4_u16.to_ne_bytes());
        header[16..20].copy_from_slice(&u32::from(u16::MAX).to_ne_bytes());
        header[20..].copy_from_slice(&ETHERNET.to_ne_bytes());
        out.write_all(&header).map_err(failed)?;
        Ok(Self { out, path: path.to_owned(), error: None })
    }

    /// Appends a frame.
    pub fn write(&mut self, ns: u64, frame: &[u8]) {
        if self.error.is_some() {
            return;
        }
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        // Seconds wrap in 2106, fractions of them fit.
        let seconds = u32::try_from(ns / 1_000_000_000).unwrap_or(u32::MAX);
        let fraction = u32::try_from(ns % 1_000_000_000).unwrap_or(0);
        let mut record = [0; RECORD_LEN];
        for (place, value) in record.as_chunks_mut::<4>().0.iter_mut().zip([seconds, fraction, len, len]) {
            *place = value.to_ne_bytes();
        }
        self.error = self.out.write_all(&record).and_then(|()| self.out.write_all(frame)).err();
    }

    /// Writes out what is buffered; the first error there was.
    pub fn finish(&mut self) -> Result<(), PcapError> {
        let flushed = self.out.flush();
        match self.error.take().map_or(flushed, Err) {
            Ok(()) => Ok(()),
            Err(source) => Err(PcapError::File { path: self.path.clone(), source }),
        }
    }
}

/// A port that receives the frames of one file and sends into another.
#[derive(Debug)]
pub struct PcapPort {
    input: Option<PcapReader>,
    output: Option<PcapWriter>,
    stats: PortStats,
    name: String,
    closed: bool,
}

impl PcapPort {
    /// Octets before each frame, as an AF_XDP socket leaves them.
    pub const HEADROOM: u16 = 256;

    /// A port over either file or both. Without an output, what is sent is counted and dropped.
    pub fn open(input: Option<&Path>, output: Option<&Path>) -> Result<Self, PcapError> {
        let name = [input, output].into_iter().flatten().map(|path| path.display().to_string());
        Ok(Self {
            name: name.collect::<Vec<_>>().join(" → "),
            input: input.map(PcapReader::open).transpose()?,
            output: output.map(PcapWriter::create).transpose()?,
            stats: PortStats::default(),
            closed: false,
        })
    }

    /// Writes out what is buffered.
    pub fn finish(&mut self) -> Result<(), PcapError> {
        self.output.as_mut().map_or(Ok(()), PcapWriter::finish)
    }
}

impl Port for PcapPort {
    /// Gives the file's frames, each with its time of capture for [`Meta::rx_ns`]. A frame that fits no
    /// UMEM frame is counted as a bad descriptor.
    fn rx_burst(&mut self, pool: &mut FramePool, meta: &Meta, burst: &mut Burst) -> usize {
        let Some(input) = self.input.as_mut().filter(|_| !self.closed) else { return 0 };
        let mut received = 0;
        while burst.room() > 0 {
            let Some(mut packet) = pool.alloc(Self::HEADROOM) else { break };
            let Some((rx_ns, frame)) = input.frame() else {
                pool.put(packet);
                break;
            };
            if !packet.extend(frame) {
                self.stats.rx_bad_descriptors += 1;
                pool.put(packet);
                continue;
            }
            self.stats.rx_bytes += packet.len() as u64;
            received += 1;
            if let Err(packet) = burst.push(packet, Meta { rx_ns, ..*meta }) {
                pool.put(packet);
            }
        }
        self.stats.rx_packets += received as u64;
        received
    }

    fn tx_burst(&mut self, pool: &mut FramePool, burst: &mut Burst) -> usize {
        if self.closed {
            return 0;
        }
        let count = burst.len();
        if let Some(output) = &mut self.output {
            burst.iter().for_each(|(packet, meta)| output.write(meta.rx_ns, packet.data()));
        }
        take_front(burst, count, |packet| {
            self.stats.tx_bytes += packet.len() as u64;
            pool.put(packet);
        });
        self.stats.tx_packets += count as u64;
        count
    }

    fn reclaim(&mut self, _pool: &mut FramePool) -> usize {
        0
    }

    fn kick(&mut self) {}

    fn state(&self) -> PortState {
        if self.closed { PortState::Dead } else { PortState::Up }
    }

    fn info(&self) -> PortInfo {
        PortInfo::plain(self.name.clone(), "pcap")
    }

    fn stats(&self) -> PortStats {
        self.stats
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn close(&mut self, _pool: &mut FramePool) {
        self.closed = true;
        let _ = self.finish();
    }
}

fn word(octets: &[u8], at: usize, swapped: bool) -> Option<u32> {
    let value = u32::from_ne_bytes(*octets.get(at..)?.first_chunk()?);
    Some(if swapped { value.swap_bytes() } else { value })
}

const MAGIC_US: u32 = 0xa1b2_c3d4;
const MAGIC_NS: u32 = 0xa1b2_3c4d;
const ETHERNET: u32 = 1;
const HEADER_LEN: usize = 24;
const RECORD_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Umem, UmemConfig};

    struct Name(PathBuf);

    impl Name {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("pollux-{}-{name}.pcap", std::process::id())))
        }
    }

    impl Drop for Name {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn frames_go_from_file_to_file_with_their_times() {
        let (one, two) = (Name::new("in"), Name::new("out"));
        let mut writer = PcapWriter::create(&one.0).expect("file");
        for k in 0..100_u8 {
            writer.write(u64::from(k) * 1_500_000_000, &vec![k; 60 + usize::from(k)]);
        }
        writer.write(0, &[0; 3000]);
        writer.finish().expect("written");
        let umem = Umem::new(UmemConfig { frames: 64, frame_len: 2048, huge_pages: false }).expect("umem");
        let mut pool = umem.pool(64).expect("room");
        let mut port = PcapPort::open(Some(&one.0), Some(&two.0)).expect("files");
        let mut burst = Burst::new();
        while port.rx_burst(&mut pool, &Meta::default(), &mut burst) != 0 {
            port.tx_burst(&mut pool, &mut burst);
        }
        assert_eq!((port.stats().rx_packets, port.stats().tx_packets), (100, 100));
        assert_eq!(port.stats().rx_bad_descriptors, 1, "3,000 octets fit no frame of 2,048");
        port.close(&mut pool);
        assert!(pool.ledger().balances(0));
        let mut reader = PcapReader::open(&two.0).expect("file");
        for k in 0..100_u8 {
            let (ns, frame) = reader.frame().expect("100 frames");
            assert_eq!((ns, frame), (u64::from(k) * 1_500_000_000, &vec![k; 60 + usize::from(k)][..]));
        }
        assert!(reader.frame().is_none());
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        let refuse = |octets: &[u8]| PcapReader::parse(octets.to_vec()).expect_err("refused");
        assert!(refuse(b"").contains("too short"));
        assert!(refuse(b"\x0a\x0d\x0d\x0apcapng is something else").contains("begin"));
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(&MAGIC_US.to_ne_bytes());
        assert!(refuse(&header[..23]).contains("too short"));
        assert!(refuse(&header).contains("link type"));
        let missing = PcapReader::open(Path::new("/nonexistent/file")).expect_err("refused");
        assert!(missing.to_string().starts_with("/nonexistent/file: "));
    }

    #[test]
    fn both_byte_orders_and_both_units_are_read() {
        for (magic, ns) in [(MAGIC_US, 2_000_003_000), (MAGIC_NS, 2_000_000_003)] {
            for swapped in [false, true] {
                let put = |value: u32| if swapped { value.swap_bytes() } else { value }.to_ne_bytes();
                let words = [magic, 0, 0, 0, 65535, ETHERNET, 2, 3, 4, 4].map(put);
                let mut octets = words.concat();
                octets.extend(b"abcd");
                let mut reader = PcapReader::parse(octets).expect("pcap");
                assert_eq!(reader.frame(), Some((ns, &b"abcd"[..])));
            }
        }
    }

    proptest! {
        #[test]
        fn random_octets_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200), swap: bool) {
            let mut octets = [MAGIC_NS, 0, 0, 0, 0, ETHERNET].map(|word| if swap { word.swap_bytes() } else { word }.to_ne_bytes()).concat();
            octets.extend(tail);
            let mut reader = PcapReader::parse(octets).expect("its header is good");
            while reader.frame().is_some() {}
        }
    }
}
