//! Frames from the wire: classification over a burst, and every header view over what it found.

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;

use std::cell::Cell;

use harness::{Random, corpus, fuzz, mutate};
use pollux_packet::esp::Trailer;
use pollux_packet::parse::{ENCAP_PORT, classify, ip};
use pollux_packet::{
    BURST_MAX, Burst, Class, Flow, FrameId, Meta, Packet, PortSlot, Role, Verdict, checksum,
};
use pollux_packet::{ipv4, ipv6, tcp::Tcp, udp::Udp};

/// Rounds of an ordinary test run, a burst each: about a second.
const ROUNDS: u64 = 4_000;

const CHUNK_LEN: usize = 2048;
const HEADROOM: u16 = 256;

/// A frame of random octets, or one of the corpus with some octets changed.
fn frame(corpus: &[(String, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    if random.once_in(8) {
        let len = random.below(200);
        let mut octets = random.octets(len);
        if let Some(kind) = octets.get_mut(12..14) {
            kind.copy_from_slice(&[[0x08, 0x00], [0x86, 0xdd]][random.below(2)]);
        }
        return octets;
    }
    let mut octets = random.pick(corpus).1.clone();
    if !random.once_in(8) {
        mutate(&mut octets, random);
    }
    octets.truncate(CHUNK_LEN - usize::from(HEADROOM));
    octets
}

/// Chunks that packets borrow for as long as the process lives, given back after each burst.
struct Chunks(Vec<&'static mut [u8]>);

impl Chunks {
    fn new() -> Self {
        Self((0..BURST_MAX).map(|_| &mut *Box::leak(vec![0; CHUNK_LEN].into_boxed_slice())).collect())
    }

    fn fill(&mut self, frames: &[Vec<u8>], role: Role) -> Burst {
        let mut burst = Burst::new();
        for (frame, index) in frames.iter().zip(0..) {
            let chunk = self.0.pop().expect("as many chunks as a burst has packets");
            let mut packet = Packet::empty(chunk, FrameId::new(index), HEADROOM);
            assert!(packet.extend(frame), "frames are cut to a chunk");
            assert!(burst.push(packet, Meta::received(PortSlot(0), role, 1)).is_ok());
        }
        burst
    }

    fn take_back(&mut self, mut burst: Burst) {
        self.0.extend(burst.drain().map(|(packet, _)| packet.into_parts().0));
    }
}

#[test]
fn fuzz_frames() {
    let corpus = corpus("frames");
    let mut chunks = Chunks::new();
    let (mut pending, mut esp) = (0, 0);
    let rounds = fuzz(ROUNDS, |random| {
        let count = random.below(BURST_MAX) + 1;
        let frames: Vec<Vec<u8>> = (0..count).map(|_| frame(&corpus, random)).collect();
        let role = *random.pick(&[Role::Wan, Role::Lan, Role::Host]);
        let mut burst = chunks.fill(&frames, role);
        classify(&mut burst, ENCAP_PORT);
        assert_eq!(burst.len(), count, "classification decides, and takes nothing out");
        for ((packet, meta), frame) in burst.iter_mut().zip(&frames) {
            assert!(packet.len() <= frame.len());
            match meta.verdict {
                Verdict::Pending => pending += 1,
                Verdict::Drop(_) => continue,
                other => panic!("{other:?} is not classification's to give"),
            }
            esp += u64::from(meta.class != Class::Plain);
            assert!(meta.class == Class::Plain || meta.role == Role::Wan);
            assert!(usize::from(meta.l4) <= packet.len());
            // A datagram of ESP may end before its IP packet does: that header is not read again.
            if meta.class != Class::EspInUdp {
                touch(packet, meta);
            }
        }
        chunks.take_back(burst);
    });
    assert!(
        rounds < ROUNDS || pending > rounds && esp > rounds / 4,
        "{pending} and {esp}: the harness is blunt"
    );
}

/// Reads and rewrites all that a later stage would.
fn touch(packet: &mut Packet, meta: &Meta) {
    let l4 = usize::from(meta.l4);
    let flow = meta.flow;
    let data = packet.data_mut();
    if let Some(transport) = data.get_mut(l4..) {
        let _ = Udp::parse(transport).map(|datagram| datagram.payload().len());
        let _ = Tcp::parse(transport).map(|segment| (segment.header_len(), segment.is_syn()));
        checksum::complete(&flow, transport);
    }
    let (mut flow_before, mut flow_after) = (Flow::default(), Flow::default());
    let before = ip(data, &mut flow_before).expect("classification has read it");
    if data[0] >> 4 == 4 {
        ipv4::set_traffic_class(data, 0xb8);
        let _ = ipv4::take_hop(data);
    } else {
        ipv6::set_traffic_class(data, 0xb8);
        let _ = ipv6::take_hop(data);
    }
    let after = ip(data, &mut flow_after).expect("a mark does not spoil a packet");
    assert_eq!((flow_after, after.total_len, after.l4), (flow_before, before.total_len, before.l4));
    assert_eq!(after.traffic_class, 0xb8);
}

#[test]
fn fuzz_esp_trailers() {
    let accepted = Cell::new(0_u64);
    let rounds = fuzz(ROUNDS * 25, |random| {
        let len = random.below(300);
        let mut plaintext = random.octets(len);
        if !random.once_in(4) {
            let padding = random.below(256);
            plaintext.extend((1..=padding).map(|octet| u8::try_from(octet).expect("below 256")));
            plaintext.extend([u8::try_from(padding).expect("below 256"), 4]);
            if random.once_in(2) {
                mutate(&mut plaintext, random);
            }
        }
        if let Some(trailer) = Trailer::parse(&plaintext) {
            accepted.set(accepted.get() + 1);
            assert!(trailer.payload_len <= plaintext.len());
        }
    });
    assert!(rounds == 1 || accepted.get() > 0, "the harness is blunt");
}

#[test]
fn every_frame_of_the_corpus_is_read_as_its_name_says() {
    for (name, octets) in corpus("frames") {
        let mut burst = Chunks::new().fill(&[octets], Role::Wan);
        classify(&mut burst, ENCAP_PORT);
        let meta = burst.metas()[0];
        let class = match name.split(['-', '.']).next() {
            Some("esp") => Class::Esp,
            Some("natt") => Class::EspInUdp,
            _ => Class::Plain,
        };
        if name.starts_with("other") {
            assert!(matches!(meta.verdict, Verdict::Drop(_)), "{name}");
        } else {
            assert_eq!((meta.verdict, meta.class), (Verdict::Pending, class), "{name}");
        }
    }
}
