use super::*;
use crate::buf::FrameId;
use crate::meta::{PortSlot, Verdict};
use crate::{ipv4, ipv6};
use proptest::prelude::*;

fn burst(role: Role, frames: &[Vec<u8>]) -> Burst {
    let mut burst = Burst::new();
    for (index, frame) in (0..).zip(frames) {
        let chunk = Box::leak(vec![0; 2048].into_boxed_slice());
        let mut packet = Packet::empty(chunk, FrameId::new(index), 64);
        assert!(packet.extend(frame));
        assert!(burst.push(packet, Meta::received(PortSlot(0), role, 5)).is_ok());
    }
    burst
}

fn ether(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&ethernet::header(ethernet::Mac([1; 6]), ethernet::Mac([2; 6]), ethertype)[..], payload].concat()
}

fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv4::Header {
        source: [10, 0, 0, 1],
        destination: [10, 0, 0, 2],
        protocol,
        traffic_class: 0xb8,
        ttl: 64,
        total_len: u16::try_from(20 + payload.len()).expect("short"),
        ..ipv4::Header::default()
    };
    ether(ethernet::IPV4, &[&header.to_bytes()[..], payload].concat())
}

fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv6::Header {
        source: [1; 16],
        destination: [2; 16],
        next_header,
        hop_limit: 64,
        payload_len: u16::try_from(payload.len()).expect("short"),
        ..ipv6::Header::default()
    };
    ether(ethernet::IPV6, &[&header.to_bytes()[..], payload].concat())
}

fn udp(destination: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("short");
    [&udp::header(5060, destination, len)[..], payload].concat()
}

fn one(role: Role, frame: Vec<u8>) -> (Meta, Vec<u8>) {
    let mut burst = burst(role, &[frame]);
    classify(&mut burst, ENCAP_PORT);
    (burst.metas()[0], burst.packets()[0].data().to_vec())
}

#[test]
fn plain_packets_get_flow_and_lose_link_header_and_padding() {
    let mut frame = v4(17, &udp(5061, b"hello"));
    frame.extend([0; 9]);
    let (meta, data) = one(Role::Lan, frame);
    assert_eq!(
        (meta.verdict, meta.class, meta.l4, meta.traffic_class),
        (Verdict::Pending, Class::Plain, 20, 0xb8)
    );
    assert_eq!(meta.flow.to_string(), "10.0.0.1:5060 -> 10.0.0.2:5061 protocol 17");
    assert_eq!(data.len(), 33);
    let (meta, _) = one(Role::Lan, v4(flow::ICMP, &[8, 1, 0, 0, 0, 0, 0, 0]));
    assert_eq!((meta.flow.source_port, meta.flow.destination_port), (0x0801, 0x0801));
}

#[test]
fn esp_is_found_on_the_wan_side_alone() {
    let esp = [0xc0, 0, 0, 1, 0, 0, 0, 1];
    let behind_options = [&[flow::ESP, 0, 0, 0, 0, 0, 0, 0], &esp[..]].concat();
    for (frame, class, l4, what) in [
        (v4(flow::ESP, &esp), Class::Esp, 20, "over IPv4"),
        (v6(flow::ESP, &esp), Class::Esp, 40, "over IPv6"),
        (v6(60, &behind_options), Class::Esp, 48, "behind destination options"),
        (v4(17, &udp(4500, &esp)), Class::EspInUdp, 28, "in UDP over IPv4"),
        (v6(17, &udp(4500, &esp)), Class::EspInUdp, 48, "in UDP over IPv6"),
        (v4(17, &udp(4500, &[0; 8])), Class::Plain, 20, "IKE"),
        (v4(17, &udp(4500, &[0xff])), Class::Plain, 20, "a keepalive"),
        (v4(17, &udp(4501, &esp)), Class::Plain, 20, "to another port"),
    ] {
        let (meta, _) = one(Role::Wan, frame.clone());
        assert_eq!((meta.class, meta.l4, meta.verdict), (class, l4, Verdict::Pending), "{what}");
        assert_eq!(one(Role::Lan, frame).0.class, Class::Plain, "{what} from the LAN");
    }
}

#[test]
fn octets_behind_a_datagram_are_no_part_of_its_esp() {
    let mut payload = udp(4500, &[0xc0, 0, 0, 1, 0, 0, 0, 1]);
    payload.extend(b"junk");
    let (meta, data) = one(Role::Wan, v4(17, &payload));
    assert_eq!((meta.class, data.len()), (Class::EspInUdp, 36));
}

#[test]
fn fragments_are_told_apart_and_never_taken_for_esp() {
    let mut first = v4(flow::ESP, &[0xc0; 16]);
    ipv4::set_fragment(&mut first[14..], 36, 0, true);
    let (meta, _) = one(Role::Wan, first.clone());
    assert_eq!((meta.class, meta.fragment), (Class::Plain, Fragment::First));
    let mut later = v4(17, &udp(5060, b""));
    ipv4::set_fragment(&mut later[14..], 28, 1480, false);
    let (meta, _) = one(Role::Lan, later);
    assert_eq!((meta.fragment, meta.flow.has_ports, meta.flow.source_port), (Fragment::Later, false, 0));
    let atomic = [&[17, 0, 0, 0, 0, 0, 0, 1], &udp(5060, b"")[..]].concat();
    let (meta, _) = one(Role::Lan, v6(44, &atomic));
    assert_eq!((meta.fragment, meta.flow.has_ports, meta.l4), (Fragment::Whole, true, 48));
}

#[test]
fn what_is_not_ip_or_tagged_is_not_ours() {
    let mut tagged = v4(17, &udp(5060, b""));
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    for (frame, reason, what) in [
        (ether(ethernet::ARP, &[0; 28]), DropReason::NotOurs, "ARP"),
        (tagged, DropReason::NotOurs, "a tagged frame"),
        (vec![0; 13], DropReason::Malformed, "half a link header"),
        (ether(ethernet::IPV4, &[]), DropReason::Malformed, "no IP header"),
        (ether(ethernet::IPV4, &[0x50; 40]), DropReason::Malformed, "IP version 5"),
        (v4(17, &[1, 2, 3]), DropReason::Malformed, "UDP without its ports"),
        (v6(0, &[]), DropReason::Malformed, "options announced and absent"),
    ] {
        assert_eq!(one(Role::Wan, frame).0.verdict, Verdict::Drop(reason), "{what}");
    }
}

#[test]
fn a_priority_tag_is_no_vlan() {
    let untagged = v4(17, &udp(5060, b""));
    let mut tagged = untagged.clone();
    tagged.splice(12..12, [0x81, 0, 0xe0, 0]);
    let [(meta, packet), (expected, untagged)] = [tagged, untagged].map(|frame| one(Role::Wan, frame));
    assert_eq!((meta.verdict, meta.flow), (expected.verdict, expected.flow));
    assert_eq!(packet, untagged, "the tag is off");
}

#[test]
fn every_truncation_is_dropped_or_whole() {
    for frame in [v4(17, &udp(4500, &[0xc0; 8])), v6(60, &[flow::ESP, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4])] {
        for len in 0..frame.len() {
            let verdict = one(Role::Wan, frame[..len].to_vec()).0.verdict;
            assert_eq!(verdict, Verdict::Drop(DropReason::Malformed), "{len} octets");
        }
    }
}

proptest! {
    #[test]
    fn random_frames_never_panic(kind in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()], mut octets in proptest::collection::vec(any::<u8>(), 0..120), wan in any::<bool>()) {
        if let Some(first) = octets.first_mut() {
            *first = kind;
        }
        let ethertype = if kind == 0x60 { ethernet::IPV6 } else { ethernet::IPV4 };
        let role = if wan { Role::Wan } else { Role::Lan };
        let (meta, data) = one(role, ether(ethertype, &octets));
        if meta.is_pending() {
            prop_assert!(usize::from(meta.l4) <= data.len());
        }
    }
}
