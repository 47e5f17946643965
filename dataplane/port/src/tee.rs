//! A port that also writes what passes to a pcap file.

use std::os::fd::BorrowedFd;
use std::path::Path;

use pollux_packet::{Burst, Meta};

use crate::pcap::{PcapError, PcapWriter};
use crate::port::{Port, PortInfo, PortState, PortStats};
use crate::xsk::frames::FramePool;

/// Captures both directions of a port, up to a number of octets. For tests and the lab: it writes files.
#[derive(Debug)]
pub struct Tee<P> {
    port: P,
    writer: PcapWriter,
    octets_left: u64,
    staged: Vec<u8>,
    ends: Vec<(u64, usize)>,
}

impl<P: Port> Tee<P> {
    /// Captures what passes `port` to the file at `path`, `octets_max` octets of frames at most.
    pub fn new(port: P, path: &Path, octets_max: u64) -> Result<Self, PcapError> {
        let writer = PcapWriter::create(path)?;
        Ok(Self { port, writer, octets_left: octets_max, staged: Vec::new(), ends: Vec::new() })
    }

    /// Writes out what is buffered and returns the port.
    pub fn finish(mut self) -> Result<P, PcapError> {
        self.writer.finish()?;
        Ok(self.port)
    }

    fn record(writer: &mut PcapWriter, octets_left: &mut u64, ns: u64, frame: &[u8]) {
        if let Some(left) = octets_left.checked_sub(frame.len() as u64) {
            *octets_left = left;
            writer.write(ns, frame);
        }
    }
}

impl<P: Port> Port for Tee<P> {
    fn rx_burst(&mut self, pool: &mut FramePool, meta: &Meta, burst: &mut Burst) -> usize {
        let before = burst.len();
        let received = self.port.rx_burst(pool, meta, burst);
        for (packet, meta) in burst.iter().skip(before) {
            Self::record(&mut self.writer, &mut self.octets_left, meta.rx_ns, packet.data());
        }
        received
    }

    fn tx_burst(&mut self, pool: &mut FramePool, burst: &mut Burst) -> usize {
        // Which packets the port takes is known only once they are gone.
        self.staged.clear();
        self.ends.clear();
        for (packet, meta) in burst.iter() {
            self.staged.extend_from_slice(packet.data());
            self.ends.push((meta.rx_ns, self.staged.len()));
        }
        let sent = self.port.tx_burst(pool, burst);
        let mut begin = 0;
        for &(ns, end) in self.ends.iter().take(sent) {
            Self::record(&mut self.writer, &mut self.octets_left, ns, &self.staged[begin..end]);
            begin = end;
        }
        sent
    }

    fn reclaim(&mut self, pool: &mut FramePool) -> usize {
        self.port.reclaim(pool)
    }

    fn kick(&mut self) {
        self.port.kick();
    }

    fn state(&self) -> PortState {
        self.port.state()
    }

    fn info(&self) -> PortInfo {
        self.port.info()
    }

    fn stats(&self) -> PortStats {
        self.port.stats()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.port.fd()
    }

    fn close(&mut self, pool: &mut FramePool) {
        self.port.close(pool);
        let _ = self.writer.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcap::PcapReader;
    use crate::{MemoryPort, Umem, UmemConfig};

    #[test]
    fn capture_holds_what_passed_and_nothing_that_did_not() {
        let path = std::env::temp_dir().join(format!("pollux-tee-{}.pcap", std::process::id()));
        let umem = Umem::new(UmemConfig { frames: 64, frame_len: 2048, huge_pages: false }).expect("umem");
        let mut pool = umem.pool(64).expect("room");
        let (a, mut b) = MemoryPort::pair("wire", 4);
        let mut tee = Tee::new(a, &path, 360).expect("file");
        let mut burst = Burst::new();
        for k in 0..6_u8 {
            let mut packet = pool.alloc(64).expect("free");
            assert!(packet.extend(&[k; 60]));
            burst.push(packet, Meta { rx_ns: u64::from(k), ..Meta::default() }).expect("room");
        }
        assert_eq!(tee.tx_burst(&mut pool, &mut burst), 4, "the wire holds four");
        burst.drain().for_each(|(packet, _)| pool.put(packet));
        b.rx_burst(&mut pool, &Meta::default(), &mut burst);
        b.tx_burst(&mut pool, &mut burst);
        assert_eq!(tee.rx_burst(&mut pool, &Meta { rx_ns: 9, ..Meta::default() }, &mut burst), 4);
        burst.drain().for_each(|(packet, _)| pool.put(packet));
        assert!(tee.finish().is_ok());
        let mut reader = PcapReader::open(&path).expect("file");
        let mut seen = Vec::new();
        while let Some((ns, frame)) = reader.frame() {
            seen.push((ns, frame[0]));
        }
        // 360 octets are six frames of 60: four sent, two received.
        assert_eq!(seen, [(0, 0), (1, 1), (2, 2), (3, 3), (9, 0), (9, 1)]);
        assert!(pool.ledger().balances(0));
        std::fs::remove_file(&path).expect("it was written");
    }
}
