//! Bad input, each with its own reason, and nothing else disturbed by it.

mod support;

use pollux_abi::command::{Direction, PolicyAction};
use pollux_abi::selector::Selectors;
use pollux_abi::{DropReason, EspSuite, Event, SaCounters, SaIndex};
use pollux_packet::{Role, Verdict, ipv4};
use support::*;

fn row(gateway: &Gateway) -> &SaCounters {
    gateway.sa_counters.row(Direction::Inbound, SaIndex(3)).expect("a row")
}

/// A receiver, and the SA whose packets the test makes by hand.
fn receiver() -> (Gateway, pollux_abi::command::SaSpec) {
    let spec = inbound(2, 3);
    let mut receiver = gateway();
    assert_eq!(receiver.add(spec.clone()), Ok(0));
    (receiver, spec)
}

#[test]
fn replayed_and_too_old_packets_die_also_inside_a_burst() {
    let (mut sender, mut receiver) = pair(|spec| spec.window_packets = 64);
    let packets: Vec<Vec<u8>> = (0..200).map(|_| sender.encrypt(&v4(b"once"))).collect();
    let twice = receiver.receive(&[packets[150].clone(), packets[150].clone()]);
    let verdicts: Vec<Verdict> = twice.metas().iter().map(|meta| meta.verdict).collect();
    assert_eq!(verdicts, [Verdict::Forward, dropped(DropReason::Replayed)]);
    assert_eq!(receiver.verdict_in(&packets[150]), dropped(DropReason::Replayed));
    assert_eq!(receiver.verdict_in(&packets[150 - 64]), dropped(DropReason::TooOld));
    assert_eq!(receiver.verdict_in(&packets[150 - 63]), Verdict::Forward);
    assert_eq!(row(&receiver).replay_errors.value(), 3);
    assert_eq!(row(&receiver).packets.value(), 2);
}

#[test]
fn wrong_icv_neither_moves_the_window_nor_counts_as_traffic() {
    let (mut sender, mut receiver) = pair(|_| {});
    let good = sender.encrypt(&v4(b"voice"));
    for at in [24, 30, 40, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(receiver.verdict_in(&bad), dropped(DropReason::BadIcv), "octet {at}");
    }
    let mut far = good.clone();
    far[24] = 0xff;
    assert_eq!(receiver.verdict_in(&far), dropped(DropReason::BadIcv));
    assert_eq!((row(&receiver).icv_errors.value(), row(&receiver).packets.value()), (5, 0));
    assert_eq!(receiver.verdict_in(&good), Verdict::Forward);
}

#[test]
fn unknown_spi_and_wrong_destination_are_nobodys() {
    let (mut sender, mut receiver) = pair(|_| {});
    let good = sender.encrypt(&v4(b"voice"));
    let [.., ours] = *good[20..24].first_chunk::<4>().expect("an SPI");
    let busy = u32::from_be_bytes([good[20], good[21], good[22], !ours]);
    for (spi, why) in [
        (0xffff_ffffu32, "an index beyond the table"),
        (0x0000_0005, "a reserved value"),
        (0x1234_5678, "a manual one"),
        (busy, "our index with other random bits"),
    ] {
        let mut other = good.clone();
        other[20..24].copy_from_slice(&spi.to_be_bytes());
        assert_eq!(receiver.verdict_in(&other), dropped(DropReason::UnknownSpi), "{why}");
    }
    let mut elsewhere = good.clone();
    elsewhere[19] = 77;
    renew_checksum(&mut elsewhere);
    assert_eq!(receiver.verdict_in(&elsewhere), dropped(DropReason::UnknownSpi), "another destination");
    assert_eq!(receiver.verdict_in(&good), Verdict::Forward);
}

#[test]
fn both_forms_of_esp_are_taken_whatever_the_sa_sends() {
    let (mut plain, mut plain_receiver) = pair(|_| {});
    let (mut udp, mut udp_receiver) = pair(in_udp);
    let (in_plain, in_udp) = (plain.encrypt(&v4(b"a")), udp.encrypt(&v4(b"a")));
    let (next_plain, next_udp) = (plain.encrypt(&v4(b"b")), udp.encrypt(&v4(b"b")));
    assert_eq!(plain_receiver.verdict_in(&in_udp), Verdict::Forward, "in UDP to an SA without");
    assert_eq!(udp_receiver.verdict_in(&in_plain), Verdict::Forward, "plain to an SA in UDP");
    assert_eq!(plain_receiver.verdict_in(&next_plain), Verdict::Forward);
    assert_eq!(udp_receiver.verdict_in(&next_udp), Verdict::Forward);
    // The form alone is no move of the peer.
    for receiver in [&mut plain_receiver, &mut udp_receiver] {
        let moved = receiver.events().into_iter().any(|event| matches!(event, Event::PeerMoved { .. }));
        assert!(!moved);
    }
}

#[test]
fn wrong_ipv4_header_checksums_are_refused_outside_inside_and_within() {
    let (mut sender, mut peer) = pair(|_| {});
    let clean = v4(b"voice");
    for at in [1, 8, 10, 15, 19] {
        let mut bad = clean.clone();
        bad[at] ^= 0x40;
        assert_eq!(sender.verdict_out(&bad), dropped(DropReason::HeaderChecksum), "from inside, octet {at}");
        let mut bad = sender.encrypt(&clean);
        bad[at] ^= 0x40;
        assert_eq!(peer.verdict_in(&bad), dropped(DropReason::HeaderChecksum), "from outside, octet {at}");
    }
    let (mut receiver, spec) = receiver();
    let mut bad = clean.clone();
    bad[8] ^= 0x40;
    let packet = sealed(&spec, 1, &plaintext(&bad, 4));
    assert_eq!(receiver.verdict_in(&packet), dropped(DropReason::InnerMalformed), "within");
    assert_eq!(receiver.verdict_in(&sealed(&spec, 2, &plaintext(&clean, 4))), Verdict::Forward);
}

#[test]
fn sequence_zero_is_refused_with_and_without_esn() {
    for esn in [false, true] {
        let mut spec = inbound(2, 3);
        spec.esn = esn;
        let mut receiver = gateway();
        assert_eq!(receiver.add(spec.clone()), Ok(0));
        let zero = sealed(&spec, 0, &plaintext(&v4(b""), 4));
        assert_eq!(receiver.verdict_in(&zero), dropped(DropReason::SequenceZero), "esn {esn}");
    }
    // The low half alone may be zero.
    let mut spec = inbound(2, 3);
    spec.esn = true;
    spec.seq_start = (1 << 32) - 1;
    let mut receiver = gateway();
    assert_eq!(receiver.add(spec.clone()), Ok(0));
    assert_eq!(receiver.verdict_in(&sealed(&spec, 1 << 32, &plaintext(&v4(b""), 4))), Verdict::Forward);
}

#[test]
fn truncated_at_every_length() {
    for suite in
        [EspSuite::Aes128Gcm16, EspSuite::Aes256CbcSha256, EspSuite::NullSha512, EspSuite::Aes128GcmIiv]
    {
        let (mut sender, mut receiver) = pair(|spec| spec.suite = suite);
        let good = sender.encrypt(&v4(b"voice"));
        for len in 0..good.len() - 20 {
            let cut = outer(&inbound(2, 3), &good[20..20 + len]);
            let verdict = receiver.verdict_in(&cut);
            if len < 8 {
                assert_eq!(verdict, dropped(DropReason::Malformed), "{suite}: {len} octets of ESP");
            } else {
                let reasons = [dropped(DropReason::EspTruncated), dropped(DropReason::BadIcv)];
                assert!(reasons.contains(&verdict), "{suite}: {len} octets of ESP: {verdict:?}");
            }
        }
        // An outer header that promises more than there is.
        assert_eq!(receiver.verdict_in(&good[..good.len() - 1]), dropped(DropReason::Malformed));
        assert_eq!(receiver.verdict_in(&good), Verdict::Forward);
    }
}

#[test]
fn plaintexts_that_no_sender_should_make() {
    let inner = v4(b"voice");
    let inner_v6 = v6(b"voice");
    let cut = &inner[..inner.len() - 1];
    let long_padding = [&[0; 20][..], &[23, 4]].concat();
    let wrong_padding = [&inner[..], &[1, 2, 4, 3, 4]].concat();
    let mut bad_version = inner.clone();
    bad_version[0] = 0x55;
    for (text, reason, what) in [
        (long_padding, DropReason::BadPadding, "padding longer than the packet"),
        (wrong_padding, DropReason::BadPadding, "padding 1, 2, 4"),
        (plaintext(&inner, 6), DropReason::BadNextHeader, "transport mode's TCP"),
        (plaintext(&inner, 0), DropReason::BadNextHeader, "next header 0"),
        (plaintext(&inner, 59), DropReason::DummyPacket, "a dummy"),
        (plaintext(&[], 59), DropReason::DummyPacket, "an empty dummy"),
        (plaintext(&inner, 41), DropReason::InnerMalformed, "IPv4 said to be IPv6"),
        (plaintext(&inner_v6, 4), DropReason::InnerMalformed, "IPv6 said to be IPv4"),
        (plaintext(&bad_version, 4), DropReason::InnerMalformed, "IP version 5"),
        (plaintext(cut, 4), DropReason::InnerMalformed, "total length beyond the payload"),
        (plaintext(&inner[..19], 4), DropReason::InnerMalformed, "half a header"),
        (plaintext(&[], 4), DropReason::InnerMalformed, "nothing at all"),
    ] {
        let (mut receiver, spec) = receiver();
        let text = realign(&text);
        assert_eq!(receiver.verdict_in(&sealed(&spec, 1, &text)), dropped(reason), "{what}");
        assert_eq!(row(&receiver).packets.value(), 1, "{what}: it was authentic");
        assert_eq!(receiver.verdict_in(&sealed(&spec, 2, &plaintext(&inner, 4))), Verdict::Forward);
    }
}

/// Octets in front, so that the text ends as it did and fills whole words.
fn realign(text: &[u8]) -> Vec<u8> {
    let missing = text.len().wrapping_neg() % 4;
    [&vec![0; missing], text].concat()
}

#[test]
fn inner_packets_outside_the_selectors_are_refused() {
    let mut spec = inbound(2, 3);
    spec.local_ts = Selectors::new(&[net("10.2.0.0/16")]).expect("one fits");
    spec.remote_ts = Selectors::new(&[net("10.1.0.0/16")]).expect("one fits");
    let mut receiver = gateway();
    assert_eq!(receiver.add(spec.clone()), Ok(0));
    let elsewhere = v4_with(|header| header.destination = [10, 3, 0, 1], b"");
    let spoofed = v4_with(|header| header.source = [10, 2, 0, 1], b"");
    for (sequence, inner) in [(1, &elsewhere), (2, &spoofed), (3, &v6(b""))] {
        let next = if inner[0] >> 4 == 4 { 4 } else { 41 };
        let packet = sealed(&spec, sequence, &plaintext(inner, next));
        assert_eq!(receiver.verdict_in(&packet), dropped(DropReason::SelectorMismatch));
    }
    assert_eq!(row(&receiver).selector_errors.value(), 3);
    assert_eq!(receiver.verdict_in(&sealed(&spec, 4, &plaintext(&v4(b""), 4))), Verdict::Forward);
}

#[test]
fn later_fragment_without_ports_is_outside_selectors_with_ports() {
    let mut spec = inbound(2, 3);
    port(&mut spec.local_ts, 5_062, 5_062);
    let mut receiver = gateway();
    assert_eq!(receiver.add(spec.clone()), Ok(0));
    let mut later = v4(b"0123456789");
    let len = u16::try_from(later.len()).expect("short");
    ipv4::set_fragment(&mut later, len, 64, false);
    let verdict = receiver.verdict_in(&sealed(&spec, 1, &plaintext(&later, 4)));
    assert_eq!(verdict, dropped(DropReason::SelectorMismatch));
    assert_eq!(receiver.verdict_in(&sealed(&spec, 2, &plaintext(&v4(b""), 4))), Verdict::Forward);
}

#[test]
fn inbound_policy_discards_what_a_tunnel_brought() {
    let (mut sender, mut receiver) = pair(|_| {});
    receiver.policies(&[policy(9, Direction::Inbound, "10.2.0.6/32", "0.0.0.0/0", PolicyAction::Discard)]);
    let outer = sender.encrypt(&v4(b""));
    assert_eq!(receiver.verdict_in(&outer), dropped(DropReason::InPolicyDiscard));
}

#[test]
fn clear_packets_are_judged_by_both_directions_of_policy() {
    let mut gateway = gateway();
    let protect = PolicyAction::Protect(REQID);
    gateway.policies(&[
        policy(1, Direction::Inbound, "10.2.0.6/32", "10.1.0.9/32", PolicyAction::Bypass),
        policy(2, Direction::Inbound, "10.2.0.6/32", "10.1.0.8/32", PolicyAction::Discard),
        policy(3, Direction::Outbound, "10.2.0.0/16", "10.1.0.7/32", PolicyAction::Bypass),
        policy(4, Direction::Outbound, "10.2.0.0/16", "10.1.0.0/16", protect),
    ]);
    let from = |last: u8| v4_with(|header| header.source = [10, 1, 0, last], b"");
    let elsewhere = v4_with(|header| header.source = [172, 16, 0, 1], b"");
    let verdicts: Vec<Verdict> = gateway
        .receive(&[from(9), from(8), from(7), from(5), elsewhere])
        .metas()
        .iter()
        .map(|meta| meta.verdict)
        .collect();
    let expected = [
        Verdict::Bypass,
        dropped(DropReason::InPolicyDiscard),
        Verdict::Bypass,
        dropped(DropReason::ClearForProtected),
        dropped(DropReason::NotOurs),
    ];
    assert_eq!(verdicts, expected);
}

#[test]
fn outbound_policy_decides_before_any_sa() {
    let mut gateway = gateway();
    let mut sip = policy(3, Direction::Outbound, "10.1.0.0/16", "10.2.0.0/16", PolicyAction::Protect(REQID));
    sip.selectors.remote.ports = pollux_abi::PortRange::single(5_062);
    sip.selectors.remote.protocol = Some(17);
    gateway.policies(&[
        policy(1, Direction::Outbound, "10.1.0.0/16", "10.2.0.7/32", PolicyAction::Discard),
        policy(2, Direction::Outbound, "10.1.0.0/16", "10.2.0.8/32", PolicyAction::Bypass),
        sip,
    ]);
    let to = |last: u8| v4_with(|header| header.destination = [10, 2, 0, last], b"x");
    let mut later = to(6);
    ipv4::set_fragment(&mut later, 29, 64, false);
    let elsewhere = v4_with(|header| header.destination = [10, 9, 0, 1], b"");
    for (packet, verdict, what) in [
        (to(7), dropped(DropReason::OutPolicyDiscard), "discard"),
        (to(8), Verdict::Bypass, "bypass"),
        (to(6), dropped(DropReason::NoSa), "protect without an SA"),
        (later, dropped(DropReason::FragmentPorts), "a fragment whose ports are asked for"),
        (elsewhere, dropped(DropReason::NoPolicy), "no policy"),
    ] {
        assert_eq!(gateway.verdict_out(&packet), verdict, "{what}");
    }
    assert_eq!(gateway.counters.bypassed.value(), 1);
}

#[test]
fn frame_without_room_is_not_encapsulated() {
    let (mut sender, _) = pair(|_| {});
    let mut burst = pollux_packet::Burst::new();
    for (head, chunk) in [(10u16, 4096usize), (256, 256 + 29)] {
        let octets = Box::leak(vec![0; chunk].into_boxed_slice());
        let mut packet = pollux_packet::Packet::empty(octets, pollux_packet::FrameId::new(0), head);
        assert!(packet.extend(&v4(b"x")));
        let meta = pollux_packet::Meta::received(pollux_packet::PortSlot(0), Role::Lan, NOW);
        assert!(burst.push(packet, meta).is_ok());
    }
    pollux_packet::parse::classify_ip(&mut burst, 4500);
    sender.engine.outbound(NOW, &mut burst);
    for meta in burst.metas() {
        assert_eq!(meta.verdict, dropped(DropReason::NoHeadroom));
    }
    let row = sender.sa_counters.row(Direction::Outbound, SaIndex(3)).expect("a row");
    assert_eq!(row.highest_seq.value(), 0, "no number was spent");
}
