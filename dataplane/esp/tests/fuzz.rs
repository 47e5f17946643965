//! Frames and commands from anywhere, through the whole engine.

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;
mod support;

use harness::{Random, fuzz, mutate};
use pollux_abi::command::{Command, Direction, SaRoute, SaSpec};
use pollux_abi::{DropCounters, DropReason, EspSuite, Reqid, SaId, SaIndex, Spi, WorkerId};
use pollux_packet::parse::{self, ENCAP_PORT, classify};
use pollux_packet::{Burst, Flow, Meta, PortSlot, Role, Verdict, ethernet};
use support::*;

/// Rounds of an ordinary run, a burst of 64 frames each: a million frames.
const ROUNDS: u64 = 1_000_000 / 64;

/// Suites of each shape: combined, block cipher, integrity alone.
const SUITES: [EspSuite; 3] = [EspSuite::Aes128Gcm16, EspSuite::Aes128CbcSha256, EspSuite::NullSha256];

/// The inbound SA of a suite.
fn sa(index: u32) -> SaSpec {
    let mut spec = inbound(u64::from(index) + 1, index);
    spec.suite = SUITES[index as usize % SUITES.len()];
    spec.esn = index == 1;
    spec
}

/// What is under test.
fn fresh() -> Gateway {
    let mut gateway = gateway();
    gateway.policies(&protect_all());
    gateway.engine.set_error_source(ip("10.1.0.1"));
    gateway.engine.set_error_source(ip("fd00::1"));
    for index in 0..3 {
        assert_eq!(gateway.add(sa(index)), Ok(0));
    }
    assert_eq!(gateway.add(outbound(9, 9)), Ok(0));
    gateway
}

/// Frames that are nearly right: plain ones, sealed ones, and the corpus of real ones.
fn seeds() -> Vec<Vec<u8>> {
    let mut packets = vec![v4(b"sip"), v6(b"sip"), v4(&[1; 1_460]), v4_with(|header| header.ttl = 1, b"")];
    for spec in (0..3).map(sa) {
        for inner in [v4(b"voice"), v6(b"voice"), vec![0x45; 40]] {
            for sequence in [1, 2, 1_000_000] {
                packets.push(sealed(&spec, sequence, &padded(&inner, spec.suite)));
            }
        }
    }
    let corpus = ["frames", "esp"].into_iter().flat_map(harness::corpus).map(|(_, octets)| octets);
    packets.iter().map(|packet| frame(packet)).chain(corpus).collect()
}

fn padded(inner: &[u8], suite: EspSuite) -> Vec<u8> {
    let padding = pollux_packet::esp::Trailer::padding(inner.len(), suite.block_len());
    let mut text = inner.to_vec();
    text.resize(inner.len() + padding + 2, 0);
    pollux_packet::esp::Trailer::write(&mut text[inner.len()..], 4);
    text
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let ethertype = if v6 { ethernet::IPV6 } else { ethernet::IPV4 };
    [&ethernet::header(ethernet::Mac([2; 6]), ethernet::Mac([4; 6]), ethertype)[..], packet].concat()
}

/// Random octets behind a likely start, or a seed with a few things changed.
fn make(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    if random.once_in(4) {
        let len = random.below(120);
        let mut octets = random.octets(len);
        let starts: [&[u8]; 4] = [&[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[0x81, 0, 0], &[8, 0, 0x4f]];
        let start = *random.pick(&starts);
        if let Some(room) = octets.get_mut(12..12 + start.len()) {
            room.copy_from_slice(start);
        }
        return octets;
    }
    let mut octets = random.pick(seeds).clone();
    if !random.once_in(8) {
        mutate(&mut octets, random);
    }
    octets
}

/// Sends a burst through all that a frame of that side can meet, and looks at what came of each.
fn run(gateway: &mut Gateway, role: Role, burst: &mut Burst, drops: &DropCounters) -> u64 {
    classify(burst, ENCAP_PORT);
    match role {
        Role::Wan => {
            gateway.engine.inbound(NOW, burst);
            gateway.engine.inbound_clear(burst);
        }
        Role::Lan | Role::Host => gateway.engine.outbound(NOW, burst),
    }
    let mut passed = 0;
    for (packet, meta) in burst.iter() {
        match meta.verdict {
            Verdict::Drop(reason) => drops.add(reason, 1),
            Verdict::Forward | Verdict::Bypass | Verdict::Reply(_) => {
                let mut flow = Flow::default();
                let parsed = parse::ip(packet.data(), &mut flow).expect("what goes on is an IP packet");
                assert_eq!(parsed.total_len, packet.len());
                assert_eq!(flow.destination(), meta.flow.destination());
                passed += 1;
            }
            Verdict::Fragment(mtu) => assert!(packet.len() > usize::from(mtu)),
            Verdict::HandOver(_) | Verdict::Early => {}
            Verdict::Pending | Verdict::ToHost => panic!("no verdict: {meta:?}"),
        }
    }
    while gateway.engine.poll_event().is_some() {}
    passed
}

/// Puts `frames` into the burst's own frames.
fn fill(burst: &mut Burst, role: Role, mut frames: impl FnMut() -> Vec<u8>) {
    for (packet, meta) in burst.iter_mut() {
        let mut octets = frames();
        octets.truncate(3_000);
        packet.reset(256);
        assert!(packet.extend(&octets));
        *meta = Meta::received(PortSlot(0), role, NOW);
    }
}

fn frames() -> Burst {
    let mut burst = Burst::new();
    for frame in 0..64 {
        assert!(burst.push(packet(&[], frame), Meta::default()).is_ok());
    }
    burst
}

#[test]
fn fuzz_frames_through_the_engine() {
    let (seeds, mut burst) = (seeds(), frames());
    let drops = DropCounters::default();
    let mut passed = 0;
    let rounds = fuzz(ROUNDS, |random| {
        let mut gateway = fresh();
        let role = *random.pick(&[Role::Wan, Role::Wan, Role::Lan, Role::Host]);
        fill(&mut burst, role, || make(random, &seeds));
        passed += run(&mut gateway, role, &mut burst, &drops);
    });
    if rounds < ROUNDS {
        return;
    }
    assert!(passed > 0, "some mutations are harmless");
    for reason in [
        DropReason::Malformed,
        DropReason::NotOurs,
        DropReason::UnknownSpi,
        DropReason::Replayed,
        DropReason::BadIcv,
        DropReason::EspTruncated,
        DropReason::InnerMalformed,
        DropReason::ClearForProtected,
    ] {
        assert!(drops.value(reason) > 0, "{reason} was never reached");
    }
}

/// A command whose fields are small and often meet those of others.
fn command(random: &mut Random) -> Command {
    let direction = *random.pick(&[Direction::Inbound, Direction::Outbound]);
    let index = u32::try_from(random.below(CAPACITY as usize + 1)).expect("small");
    let mut spec = spec(direction, random.below(12) as u64, index % 6);
    spec.suite = *random.pick(&SUITES);
    spec.esn = random.once_in(2);
    spec.reqid = Reqid(*random.pick(&[7, 7, 8, 0]));
    spec.window_packets = *random.pick(&[64, 100, 1_024, 65_536]);
    spec.checkpoint = *random.pick(&[None, Some(0), Some(1), Some(9)]);
    spec.owner = WorkerId(*random.pick(&[0, 0, 0, 1, 7]));
    if random.once_in(4) {
        spec.index = SaIndex(index);
        spec.spi = Spi::new(*random.pick(&[256, 0x1234_5678, u32::MAX])).expect("not reserved");
    }
    let material = keys(spec.suite);
    match random.below(8) {
        0..3 => Command::SaAdd(spec, material),
        3 => Command::SaReplace(spec, random.once_in(2).then_some(material)),
        4 => Command::SaRoute(SaRoute {
            id: spec.id,
            direction,
            index: spec.index,
            spi: spec.spi,
            reqid: spec.reqid,
            owner: spec.owner,
            local_ts: spec.local_ts,
            remote_ts: spec.remote_ts,
        }),
        5..7 => Command::SaDelete(SaId(random.below(12) as u64)),
        _ => Command::Barrier,
    }
}

#[test]
fn fuzz_commands_between_bursts() {
    let (seeds, mut burst) = (seeds(), frames());
    let drops = DropCounters::default();
    fuzz(ROUNDS / 64, |random| {
        let mut gateway = gateway();
        gateway.policies(&protect_all());
        for _ in 0..12 {
            for _ in 0..random.below(6) {
                let _ = gateway.engine.apply(NOW, command(random));
            }
            if random.once_in(6) {
                gateway.policies(&protect_all());
            }
            let role = *random.pick(&[Role::Wan, Role::Lan]);
            fill(&mut burst, role, || make(random, &seeds));
            run(&mut gateway, role, &mut burst, &drops);
        }
        // Everything goes, and what was taken is there again: the largest windows fit.
        for id in 0..12 {
            let _ = gateway.delete(id);
        }
        for index in 0..16 {
            let mut spec = inbound(u64::from(index) + 100, index);
            spec.window_packets = 65_536;
            assert_eq!(gateway.add(spec), Ok(0));
        }
        assert_eq!(gateway.verdict_out(&v4(b"")), Verdict::Drop(DropReason::NoSa));
    });
}
