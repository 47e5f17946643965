//! A worker whose ports are files: a capture goes in, a capture comes out.
#![forbid(unsafe_code)]

mod support;

use std::path::{Path, PathBuf};

use pollux_packet::PortSlot;
use pollux_packet::ethernet::{self, Mac};
use pollux_port::PcapPort;
use pollux_port::pcap::{PcapReader, PcapWriter};
use pollux_worker::housekeeping::ToWorker;
use support::{LAN, Lab, WAN, key, pair, udp};

const FRAMES: usize = 300;

/// A file that goes with the test.
struct Capture(PathBuf);

impl Capture {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("pollux-worker-{}-{name}.pcap", std::process::id())))
    }

    /// What follows the link headers.
    fn packets(&self) -> Vec<Vec<u8>> {
        let mut file = PcapReader::open(&self.0).expect("a capture");
        let mut packets = Vec::new();
        while let Some((_, frame)) = file.frame() {
            packets.push(frame[ethernet::HEADER_LEN..].to_vec());
        }
        packets
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Puts a file in the place of a worker's port.
fn replace(lab: &mut Lab, rig: usize, slot: PortSlot, from: Option<&Path>, to: Option<&Path>) {
    let port = PcapPort::open(from, to).expect("a file");
    lab.rigs[rig].tell(ToWorker::Port(slot, Box::new(port)));
}

/// As many as new ports and all their frames take, a burst of 64 in each.
fn rounds(lab: &mut Lab) {
    for _ in 0..2 * FRAMES / 64 + 2 {
        lab.round();
    }
}

#[test]
fn a_capture_crosses_two_gateways_by_way_of_a_capture_of_esp() {
    let [clear, sealed, opened] = ["clear", "sealed", "opened"].map(Capture::new);
    let sent: Vec<Vec<u8>> = (0..FRAMES).map(|len| udp("10.1.0.2", "10.2.0.2", len)).collect();
    let mut file = PcapWriter::create(&clear.0).expect("a file");
    for (ns, packet) in (0..).zip(&sent) {
        let header = ethernet::header(Mac([2; 6]), Mac([9; 6]), ethernet::IPV4);
        file.write(ns, &[&header[..], packet].concat());
    }
    file.finish().expect("written");

    let mut lab = pair();
    replace(&mut lab, 0, LAN, Some(&clear.0), None);
    replace(&mut lab, 0, WAN, None, Some(&sealed.0));
    // A new port knows no neighbours until it is told.
    lab.rigs[0].tell(ToWorker::Neighbour(key(WAN, "192.0.2.2"), Mac([7; 6])));
    rounds(&mut lab);
    // Closing a port writes out what is buffered.
    lab.rigs[0].tell(ToWorker::PortGone(WAN));
    lab.round();
    let esp = sealed.packets();
    assert_eq!(esp.len(), FRAMES);
    assert!(esp.iter().all(|packet| packet[9] == 50), "ESP and nothing else");

    replace(&mut lab, 1, WAN, Some(&sealed.0), None);
    replace(&mut lab, 1, LAN, None, Some(&opened.0));
    lab.rigs[1].tell(ToWorker::Neighbour(key(LAN, "10.2.0.2"), Mac([7; 6])));
    rounds(&mut lab);
    lab.rigs[1].tell(ToWorker::PortGone(LAN));
    lab.round();
    let hopped = |packet: &Vec<u8>| {
        let mut packet = packet.clone();
        for _ in 0..2 {
            assert!(pollux_esp::take_hop(&mut packet, pollux_packet::IpVersion::V4));
        }
        packet
    };
    assert_eq!(opened.packets(), sent.iter().map(hopped).collect::<Vec<_>>());
    lab.assert_ledger();
}
