//! One harness for frames from anywhere: over a corpus, mutations of it, and seeded random octets.
//!
//! In `cargo test` it runs for a million frames. `POLLUX_FUZZ_SECONDS=3600` makes it run so long instead,
//! `POLLUX_FUZZ_SEED=…` begins elsewhere; a failure prints the seed of its round.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use pollux_abi::{DropCounters, DropReason, EspSuite};
use pollux_packet::parse::{self, ENCAP_PORT, classify};
use pollux_packet::{Burst, Meta, Packet, PortSlot, Role, Verdict, ethernet};
use support::*;

/// Frames in a test run without a time of its own.
const FRAMES: u64 = 1_000_000;

/// SplitMix64: as much randomness as mutations need, the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("below a usize")
    }

    #[expect(clippy::cast_possible_truncation, reason = "an octet is asked for")]
    fn octet(&mut self) -> u8 {
        self.next() as u8
    }
}

/// What is under test, with the tally of what became of every frame.
struct Harness {
    gateway: Gateway,
    drops: DropCounters,
    passed: u64,
}

impl Harness {
    /// Sends a burst through all that a frame from outside, or from inside, can meet.
    fn run(&mut self, role: Role, burst: &mut Burst) {
        classify(burst, ENCAP_PORT);
        match role {
            Role::Wan => {
                self.gateway.engine.inbound(NOW, burst);
                self.gateway.engine.inbound_clear(burst);
            }
            Role::Lan | Role::Host => self.gateway.engine.outbound(NOW, burst),
        }
        for (packet, meta) in burst.iter() {
            match meta.verdict {
                Verdict::Drop(reason) => self.drops.add(reason, 1),
                Verdict::Forward | Verdict::Bypass | Verdict::Reply(_) => {
                    let parsed = parse::ip(packet.data()).expect("what goes on is an IP packet");
                    assert_eq!(parsed.total_len, packet.len());
                    assert_eq!(parsed.flow.destination(), meta.flow.destination());
                    self.passed += 1;
                }
                Verdict::Fragment(mtu) => assert!(packet.len() > usize::from(mtu)),
                Verdict::HandOver(_) => {}
                Verdict::Pending | Verdict::ToHost => panic!("no verdict: {meta:?}"),
            }
        }
        while self.gateway.engine.poll_event().is_some() {}
    }
}

fn harness() -> Harness {
    let mut gateway = gateway();
    gateway.policies(&protect_all());
    gateway.engine.set_error_source(ip("10.1.0.1"));
    gateway.engine.set_error_source(ip("fd00::1"));
    for (index, suite) in
        (0u32..).zip([EspSuite::Aes128Gcm16, EspSuite::Aes128CbcSha256, EspSuite::NullSha256])
    {
        let mut spec = inbound(u64::from(index) + 1, index);
        spec.suite = suite;
        spec.esn = index == 1;
        assert_eq!(gateway.add(spec), Ok(0));
    }
    assert_eq!(gateway.add(outbound(9, 9)), Ok(0));
    Harness { gateway, drops: DropCounters::default(), passed: 0 }
}

/// Frames that are nearly right: sealed packets, plain ones, and what `tests/corpus/frames` holds.
fn corpus() -> Vec<Vec<u8>> {
    let mut packets = vec![v4(b"sip"), v6(b"sip"), v4(&[1; 1_460]), v4_with(|header| header.ttl = 1, b"")];
    for (index, suite) in
        (0u32..).zip([EspSuite::Aes128Gcm16, EspSuite::Aes128CbcSha256, EspSuite::NullSha256])
    {
        let mut spec = inbound(u64::from(index) + 1, index);
        spec.suite = suite;
        spec.esn = index == 1;
        let block = suite.block_len();
        for inner in [v4(b"voice"), v6(b"voice"), vec![0x45; 40]] {
            for sequence in [1, 2, 1_000_000] {
                let mut text = inner.clone();
                let padding = pollux_packet::esp::Trailer::padding(inner.len(), block);
                text.resize(inner.len() + padding + 2, 0);
                pollux_packet::esp::Trailer::write(&mut text[inner.len()..], 4);
                packets.push(sealed(&spec, sequence, &text));
            }
        }
    }
    let mut frames: Vec<Vec<u8>> = packets.iter().map(|packet| frame(packet)).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/frames");
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        frames.extend(std::fs::read(entry.path()));
    }
    frames
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let ethertype = if v6 { ethernet::IPV6 } else { ethernet::IPV4 };
    [&ethernet::header(ethernet::Mac([2; 6]), ethernet::Mac([4; 6]), ethertype)[..], packet].concat()
}

/// One frame of a round: random octets, or a frame of the corpus with a few things changed.
fn make(random: &mut Random, corpus: &[Vec<u8>], octets: &mut Vec<u8>) {
    octets.clear();
    if random.below(4) == 0 {
        let len = random.below(120);
        octets.extend((0..len).map(|_| random.octet()));
        let starts: [&[u8]; 4] = [&[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[0x81, 0, 0], &[8, 0, 0x4f]];
        let start = starts[random.below(starts.len())];
        if let Some(room) = octets.get_mut(12..12 + start.len()) {
            room.copy_from_slice(start);
        }
        return;
    }
    octets.extend(&corpus[random.below(corpus.len())]);
    for _ in 0..random.below(5) {
        let at = random.below(octets.len().min(90));
        match random.below(5) {
            0 => octets.truncate(at),
            1 if at < octets.len() => drop(octets.remove(at)),
            2 => octets.insert(at, random.octet()),
            3 if at < octets.len() => octets[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            _ if at < octets.len() => octets[at] ^= 1 << random.below(8),
            _ => {}
        }
    }
}

fn fill(burst: &mut Burst, role: Role, mut make: impl FnMut(&mut Vec<u8>), octets: &mut Vec<u8>) {
    for (packet, meta) in burst.iter_mut() {
        make(octets);
        packet.reset(256);
        octets.truncate(3_000);
        assert!(packet.extend(octets));
        *meta = Meta::received(PortSlot(0), role, NOW);
    }
}

fn empty_burst() -> Burst {
    let mut burst = Burst::new();
    for frame in 0..64 {
        let packet: Packet = packet(&[], frame);
        assert!(burst.push(packet, Meta::default()).is_ok());
    }
    burst
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_million_frames_from_anywhere_end_in_verdicts() {
    let seed = number("POLLUX_FUZZ_SEED").unwrap_or(1);
    let end = number("POLLUX_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let corpus = corpus();
    let (mut harness, mut burst, mut octets) = (harness(), empty_burst(), Vec::new());
    let mut frames = 0;
    for round in seed.. {
        let mut random = Random(round);
        let role = [Role::Wan, Role::Wan, Role::Lan, Role::Host][random.below(4)];
        fill(&mut burst, role, |octets| make(&mut random, &corpus, octets), &mut octets);
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| harness.run(role, &mut burst)));
        assert!(outcome.is_ok(), "POLLUX_FUZZ_SEED={round} makes it panic");
        frames += burst.len() as u64;
        match end {
            Some(end) if Instant::now() < end => {}
            None if frames < FRAMES => {}
            _ => break,
        }
    }
    assert!(harness.passed > 0, "some mutations are harmless");
    let reached = [
        DropReason::Malformed,
        DropReason::NotOurs,
        DropReason::UnknownSpi,
        DropReason::Replayed,
        DropReason::BadIcv,
        DropReason::EspTruncated,
        DropReason::InnerMalformed,
        DropReason::ClearForProtected,
    ];
    for reason in reached {
        assert!(harness.drops.value(reason) > 0, "{reason} was never reached");
    }
}

#[test]
fn the_corpus_itself_ends_in_verdicts() {
    let corpus = corpus();
    for role in [Role::Wan, Role::Lan, Role::Host] {
        let (mut harness, mut burst, mut octets) = (harness(), empty_burst(), Vec::new());
        for frames in corpus.chunks(64) {
            let mut list = frames.iter().cycle();
            let next =
                |octets: &mut Vec<u8>| list.next().into_iter().for_each(|frame| frame.clone_into(octets));
            fill(&mut burst, role, next, &mut octets);
            harness.run(role, &mut burst);
        }
    }
}
