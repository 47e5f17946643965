//! Packets go through the tunnel and come out as they went in.

mod support;

use pollux_abi::command::Direction;
use pollux_abi::dscp::{DfMark, DscpMark, EcnMode};
use pollux_abi::{DropReason, Dscp, EspSuite, Event, SaId, SaIndex};
use pollux_esp::fragment;
use pollux_packet::ipv4::Ipv4;
use pollux_packet::ipv6::Ipv6;
use pollux_packet::{Role, Verdict, checksum, ipv4, udp};
use support::*;

/// What the receiver hands on.
fn through(sender: &mut Gateway, receiver: &mut Gateway, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let sent = sender.send(Role::Host, packets);
    let outer: Vec<Vec<u8>> = sent
        .iter()
        .map(|(packet, meta)| {
            assert_eq!(meta.verdict, Verdict::Forward);
            packet.data().to_vec()
        })
        .collect();
    let received = receiver.receive(&outer);
    received
        .iter()
        .map(|(packet, meta)| {
            assert_eq!(meta.verdict, Verdict::Forward);
            packet.data().to_vec()
        })
        .collect()
}

#[test]
fn every_suite_carries_both_versions_in_both_with_and_without_udp_and_esn() {
    let payload: Vec<u8> = (0..=255).collect();
    let packets: Vec<Vec<u8>> =
        (0..40).flat_map(|len| [v4(&payload[..len * 5]), v6(&payload[..len])]).take(64).collect();
    for &suite in EspSuite::ALL {
        for variant in 0..8 {
            let (esn, encap, outer_v6) = (variant & 1 != 0, variant & 2 != 0, variant & 4 != 0);
            let (mut sender, mut receiver) = pair(|spec| {
                spec.suite = suite;
                spec.esn = esn;
                if encap {
                    in_udp(spec);
                }
                if outer_v6 {
                    over_v6(spec);
                }
            });
            let came = through(&mut sender, &mut receiver, &packets);
            assert_eq!(came, packets, "{suite} esn {esn} udp {encap} outer v6 {outer_v6}");
            let row = receiver.sa_counters.row(Direction::Inbound, SaIndex(3)).expect("a row");
            let octets: usize = packets.iter().map(Vec::len).sum();
            assert_eq!((row.packets.value(), row.bytes.value()), (64, octets as u64));
            assert_eq!(row.highest_seq.value(), 64);
        }
    }
}

#[test]
fn every_length_arrives_whole() {
    let payload: Vec<u8> = (0..=255).cycle().take(1_400).collect();
    let (mut sender, mut receiver) = pair(|_| {});
    for lengths in (0..=1_400usize).collect::<Vec<_>>().chunks(64) {
        let packets: Vec<Vec<u8>> = lengths.iter().map(|len| v4(&payload[..*len])).collect();
        assert_eq!(through(&mut sender, &mut receiver, &packets), packets);
    }
}

#[test]
fn esn_goes_on_past_32_bits() {
    let start = (1u64 << 32) - 5;
    let (mut sender, mut receiver) = pair(|spec| {
        spec.esn = true;
        spec.seq_start = start - u64::from(spec.direction == Direction::Inbound);
    });
    let packets = vec![v4(b"across"); 10];
    assert_eq!(through(&mut sender, &mut receiver, &packets), packets);
    let row = receiver.sa_counters.row(Direction::Inbound, SaIndex(3)).expect("a row");
    assert_eq!(row.highest_seq.value(), start + 9);
}

#[test]
fn outer_v4_header_carries_the_marks() {
    let (mut sender, _) = pair(|_| {});
    let outer = sender.encrypt(&v4_with(|header| header.traffic_class = 46 << 2 | 1, b"rtp"));
    let view = Ipv4::parse(&outer).expect("whole");
    assert!(view.checksum_holds() && view.dont_fragment());
    assert_eq!((view.traffic_class(), view.ttl(), view.protocol()), (46 << 2 | 1, 64, 50));
    assert_eq!(outer[4..6], [0, 0], "DF needs no identification");
    let outer = sender.encrypt(&v4_with(|header| header.dont_fragment = false, b"rtp"));
    assert!(!Ipv4::parse(&outer).expect("whole").dont_fragment(), "DF is copied");
    assert!(
        Ipv4::parse(&sender.encrypt(&v6(b"rtp"))).expect("whole").dont_fragment(),
        "IPv6 never fragments"
    );
    let (mut sender, _) = pair(|spec| {
        spec.dscp = DscpMark::Fixed(Dscp::BE);
        spec.ecn = EcnMode::Off;
        spec.df = DfMark::Clear;
    });
    let outer = sender.encrypt(&v4_with(|header| header.traffic_class = 46 << 2 | 1, b"rtp"));
    let view = Ipv4::parse(&outer).expect("whole");
    assert_eq!((view.traffic_class(), view.dont_fragment()), (0, false));
    let first = u16::from_be_bytes([outer[4], outer[5]]);
    let next = sender.encrypt(&v4(b"rtp"));
    assert_eq!(u16::from_be_bytes([next[4], next[5]]), first.wrapping_add(1));
}

#[test]
fn outer_v6_header_carries_marks_label_and_udp_checksum() {
    let (mut sender, _) = pair(|spec| {
        over_v6(spec);
        in_udp(spec);
    });
    let outer = sender.encrypt(&v4(b"rtp"));
    let again = sender.encrypt(&v4(b"rtp, another"));
    let view = Ipv6::parse(&outer).expect("whole");
    assert_eq!((view.traffic_class(), view.hop_limit()), (46 << 2, 64));
    assert_eq!(view.flow_label(), Ipv6::parse(&again).expect("whole").flow_label());
    assert_ne!(view.flow_label(), 0);
    let flow = view.flow(17);
    let pseudo = checksum::pseudo_header(&flow, 17, outer.len() - 40);
    assert_eq!(pseudo.octets(&outer[40..]).fold(), u16::MAX, "the UDP checksum holds");
    let (mut sender, _) = pair(in_udp);
    let outer = sender.encrypt(&v4(b"rtp"));
    let datagram = udp::Udp::parse(&outer[20..]).expect("whole");
    assert_eq!((datagram.checksum(), datagram.source_port(), datagram.destination_port()), (0, 4500, 4500));
    assert!(datagram.holds_esp());
}

#[test]
fn padding_counts_up_and_next_header_names_the_version() {
    let (mut sender, _) = pair(|spec| spec.suite = EspSuite::NullSha256);
    for (packet, next) in [(v4(b"12345"), 4), (v6(b"12345"), 41)] {
        let outer = sender.encrypt(&packet);
        let text = &outer[28..outer.len() - 16];
        assert_eq!(text[..packet.len()], packet);
        let trailer = &text[packet.len()..];
        let padding = u8::try_from(trailer.len() - 2).expect("short");
        assert_eq!(trailer[trailer.len() - 2..], [padding, next]);
        assert!(trailer[..trailer.len() - 2].iter().copied().eq(1..=padding));
    }
}

#[test]
fn hop_is_taken_from_what_is_forwarded_alone() {
    let (mut sender, mut receiver) = pair(|_| {});
    for (role, ttl) in [(Role::Lan, 16), (Role::Host, 17)] {
        let sent = sender.send(role, &[v4(b""), v6(b"")]);
        let outer: Vec<Vec<u8>> = sent.packets().iter().map(|packet| packet.data().to_vec()).collect();
        let came = receiver.receive(&outer);
        let v4 = came.packets()[0].data();
        assert_eq!(v4[8], ttl);
        assert!(Ipv4::parse(v4).expect("whole").checksum_holds());
        assert_eq!(came.packets()[1].data()[7], ttl);
    }
}

#[test]
fn ecn_is_combined_on_the_way_in() {
    // `ecn = "off"` is about outer packets of ours; what the network has marked counts all the same (RFC 6040 §4.2).
    for ecn in [EcnMode::Normal, EcnMode::Off] {
        let (mut sender, mut receiver) = pair(|spec| spec.ecn = ecn);
        let with_outer_ce = |sender: &mut Gateway, ecn: u8| {
            let mut outer = sender.encrypt(&v4_with(|header| header.traffic_class = 46 << 2 | ecn, b""));
            ipv4::set_traffic_class(&mut outer, 46 << 2 | 3);
            outer
        };
        let outer = with_outer_ce(&mut sender, 2);
        let came = receiver.receive(&[outer]);
        let inner = Ipv4::parse(came.packets()[0].data()).expect("whole");
        assert_eq!(inner.traffic_class(), 46 << 2 | 3);
        assert!(inner.checksum_holds());
        assert_eq!(receiver.counters.ecn_ce.value(), 1);
        let outer = with_outer_ce(&mut sender, 0);
        assert_eq!(receiver.verdict_in(&outer), dropped(DropReason::EcnForbidden));
    }
}

#[test]
fn half_made_checksum_is_completed_before_encryption() {
    let (mut sender, mut receiver) = pair(|_| {});
    let mut packet = v4(b"INVITE sip:");
    let flow = Ipv4::parse(&packet).expect("whole").flow();
    let half = checksum::pseudo_header(&flow, 17, packet.len() - 20).fold();
    packet[26..28].copy_from_slice(&half.to_be_bytes());
    let came = through(&mut sender, &mut receiver, &[packet.clone()]);
    let sum = checksum::pseudo_header(&flow, 17, packet.len() - 20).octets(&came[0][20..]);
    assert_eq!(sum.fold(), u16::MAX);
    assert_eq!(sender.counters.csum_completed.value(), 1);
    // A first fragment's checksum covers what is not there.
    let len = u16::try_from(packet.len()).expect("short");
    ipv4::set_fragment(&mut packet, len, 0, true);
    assert_eq!(through(&mut sender, &mut receiver, &[packet.clone()]), [packet]);
    assert_eq!(sender.counters.csum_completed.value(), 1);
}

#[test]
fn longest_packet_fills_the_path_and_one_more_octet_is_answered() {
    for (outer_v6, encap, room) in
        [(false, false, 1446), (false, true, 1438), (true, false, 1426), (true, true, 1418)]
    {
        let (mut sender, _) = pair(|spec| {
            if outer_v6 {
                over_v6(spec);
            }
            if encap {
                in_udp(spec);
            }
        });
        sender.engine.set_error_source(ip("10.1.0.1"));
        sender.engine.set_error_source(ip("fd00::1"));
        let outer = sender.encrypt(&v4(&vec![1; room - 28]));
        assert!(outer.len() <= 1500 && outer.len() > 1496, "{} octets", outer.len());
        let too_big = v4(&vec![1; room - 27]);
        let burst = sender.send(Role::Lan, &[too_big.clone(), v6(&vec![1; room - 47])]);
        let reply = burst.packets()[0].data();
        assert_eq!(burst.metas()[0].verdict, Verdict::Reply(DropReason::TooBig));
        assert_eq!(burst.metas()[0].flow.destination(), ip("10.1.0.5"));
        let view = Ipv4::parse(reply).expect("whole");
        assert!(view.checksum_holds() && reply.len() <= 576);
        assert_eq!(view.flow().source(), ip("10.1.0.1"));
        assert_eq!(reply[20..22], [3, 4], "fragmentation needed");
        assert_eq!(reply[26..28], u16::try_from(room).expect("short").to_be_bytes());
        assert_eq!(checksum::Sum::new().octets(&reply[20..]).fold(), u16::MAX);
        assert_eq!(reply[28..], too_big[..reply.len() - 28], "the packet as it came");
        let reply = burst.packets()[1].data();
        assert_eq!(burst.metas()[1].verdict, Verdict::Reply(DropReason::TooBig));
        let view = Ipv6::parse(reply).expect("whole");
        assert!(reply.len() <= 1280);
        assert_eq!(reply[40..42], [2, 0]);
        assert_eq!(reply[46..48], u16::try_from(room).expect("short").to_be_bytes());
        let pseudo = checksum::pseudo_header(&view.flow(58), 58, reply.len() - 40);
        assert_eq!(pseudo.octets(&reply[40..]).fold(), u16::MAX);
    }
}

#[test]
fn every_suite_names_the_length_that_just_fits() {
    for (&suite, variant) in
        EspSuite::ALL.iter().flat_map(|suite| (0..4).map(move |variant| (suite, variant)))
    {
        let (mut sender, mut receiver) = pair(|spec| {
            spec.suite = suite;
            if variant & 1 != 0 {
                over_v6(spec);
            }
            if variant & 2 != 0 {
                in_udp(spec);
            }
        });
        sender.engine.set_error_source(ip("10.1.0.1"));
        let burst = sender.send(Role::Lan, &[v4(&[1; 1472])]);
        assert_eq!(burst.metas()[0].verdict, Verdict::Reply(DropReason::TooBig), "{suite} {variant}");
        let reply = burst.packets()[0].data();
        let told = usize::from(u16::from_be_bytes([reply[26], reply[27]]));
        let fits = v4(&vec![1; told - 28]);
        let outer = sender.encrypt(&fits);
        assert!(outer.len() <= 1500, "{suite} {variant}: {} octets outside", outer.len());
        assert_eq!(receiver.receive(&[outer]).packets()[0].data(), fits, "{suite} {variant}");
        let verdict = sender.send(Role::Lan, &[v4(&vec![1; told - 27])]).metas()[0].verdict;
        assert_eq!(verdict, Verdict::Reply(DropReason::TooBig), "{suite} {variant}: {told} and one more");
    }
}

#[test]
fn path_mtu_follows_its_setter_and_v6_is_never_told_less_than_1280() {
    let (mut sender, _) = pair(|_| {});
    sender.engine.set_error_source(ip("fd00::1"));
    let remotes: Vec<_> = sender.engine.outbound_remotes().collect();
    assert_eq!(remotes, [(SaIndex(3), ip("192.0.2.2"))]);
    assert!(sender.engine.set_mtu(SaIndex(3), 1_000));
    assert!(!sender.engine.set_mtu(SaIndex(4), 1_000));
    assert_eq!(sender.verdict_out(&v4(&[0; 918])), Verdict::Forward);
    assert_eq!(sender.verdict_out(&v4(&[0; 919])), dropped(DropReason::TooBig), "no IPv4 source for errors");
    let burst = sender.send(Role::Lan, &[v6(&[0; 1_000])]);
    assert_eq!(burst.packets()[0].data()[46..48], 1280u16.to_be_bytes());
}

#[test]
fn packet_without_df_is_fragmented_before_encryption() {
    let (mut sender, mut receiver) = pair(|_| {});
    let payload: Vec<u8> = (0..=255).cycle().take(3_000).collect();
    let mut whole = v4_with(|header| header.dont_fragment = false, &payload);
    let flow = Ipv4::parse(&whole).expect("whole").flow();
    let pseudo = checksum::pseudo_header(&flow, 17, whole.len() - 20);
    whole[26..28].copy_from_slice(&pseudo.fold().to_be_bytes());
    let mut sent = sender.send(Role::Lan, std::slice::from_ref(&whole));
    assert_eq!(sent.metas()[0].verdict, Verdict::Fragment(1446));
    let (original, meta) = sent.swap_remove(0).expect("one packet");
    let frame = || Some(packet(&[], 9));
    let split = fragment::split(&original, meta, 1446, frame, |fragment, meta| {
        assert!(sent.push(fragment, meta).is_ok());
    });
    assert_eq!((split, sent.len()), (Ok(()), 3));
    sender.engine.outbound(NOW, &mut sent);
    let outer: Vec<Vec<u8>> = sent.packets().iter().map(|packet| packet.data().to_vec()).collect();
    let came = receiver.receive(&outer);
    let mut joined: Vec<u8> = Vec::new();
    for (packet, meta) in came.iter() {
        assert_eq!(meta.verdict, Verdict::Forward);
        let view = Ipv4::parse(packet.data()).expect("whole");
        assert_eq!((view.fragment_offset(), view.ttl()), (joined.len(), 16), "one hop, not two");
        joined.extend(view.payload());
    }
    assert_eq!(joined[8..], whole[28..]);
    assert_eq!(pseudo.octets(&joined).fold(), u16::MAX, "the checksum was completed before the cut");
    // Later fragments show no ports, and these selectors want some.
    let (mut picky, _) = pair(|spec| port(&mut spec.remote_ts, 5_062, 5_062));
    assert_eq!(picky.verdict_out(&whole), dropped(DropReason::TooBig));
}

#[test]
fn last_hop_is_answered_but_not_for_errors_fragments_and_multicast() {
    let (mut sender, _) = pair(|_| {});
    sender.engine.set_error_source(ip("10.1.0.1"));
    let expired = v4_with(|header| header.ttl = 1, b"traceroute");
    let burst = sender.send(Role::Lan, std::slice::from_ref(&expired));
    assert_eq!(burst.metas()[0].verdict, Verdict::Reply(DropReason::TtlExpired));
    assert_eq!(burst.packets()[0].data()[20..22], [11, 0]);
    assert_eq!(sender.send(Role::Host, std::slice::from_ref(&expired)).metas()[0].verdict, Verdict::Forward);
    let mut error = v4_with(|header| (header.ttl, header.protocol) = (1, 1), b"");
    error[20] = 3;
    let mut later = expired.clone();
    ipv4::set_fragment(&mut later, u16::try_from(expired.len()).expect("short"), 80, false);
    let multicast = v4_with(|header| (header.ttl, header.destination) = (1, [239, 0, 0, 1]), b"");
    let nowhere = v4_with(|header| (header.ttl, header.source) = (1, [0; 4]), b"");
    for (packet, why) in
        [(error, "an error"), (later, "a later fragment"), (multicast, "multicast"), (nowhere, "no source")]
    {
        assert_eq!(sender.verdict_out(&packet), dropped(DropReason::TtlExpired), "{why}");
    }
    let answered = (0..500).filter(|_| matches!(sender.verdict_out(&expired), Verdict::Reply(_))).count();
    assert!(answered < 150, "errors are rate-limited: {answered}");
}

#[test]
fn padding_for_flow_confidentiality_is_cut_off() {
    let spec = inbound(2, 3);
    let mut receiver = gateway();
    assert_eq!(receiver.add(spec.clone()), Ok(0));
    let inner = v4(b"voice");
    let padded = [&inner[..], &[0xaa; 300]].concat();
    let burst = receiver.receive(&[sealed(&spec, 1, &plaintext(&padded, 4))]);
    assert_eq!(burst.metas()[0].verdict, Verdict::Forward);
    assert_eq!(burst.packets()[0].data(), inner);
    assert_eq!(burst.metas()[0].flow.destination_port, 5_062);
    let events = receiver.events();
    assert_eq!(events, [Event::FirstPacket { sa: SaId(2) }]);
}
