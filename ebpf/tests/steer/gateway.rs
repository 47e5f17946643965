//! What is addressed to the gateway on the wan, and what must not be taken for it.

use pollux_ebpf::Role::{Host, Lan, Wan};
use pollux_ebpf::Verdict;

use crate::frame::*;
use crate::rig::{FOREIGN_SPI, MANUAL_SPI, OUR_SPI, Rig, SITE_PAIRS};

const PEER: &str = "198.51.100.2";
const WAN: &str = "203.0.113.1";
const PEER6: &str = "2001:db8:e::2";
const WAN6: &str = "2001:db8:f::1";
const OTHER: &str = "203.0.113.99";

#[test]
fn esp_for_the_gateway_goes_to_the_worker_and_transit_does_not() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    let long_header = |ihl| ip_with(PEER, WAN, Header { ihl, ..Header::of(ESP) }, &esp(OUR_SPI));
    rig.check(&[
        ("ESP over IPv4", Wan, ip(PEER, WAN, ESP, &esp(OUR_SPI)), Verdict::XskEsp),
        ("ESP with an unknown SPI", Wan, ip(PEER, WAN, ESP, &esp(FOREIGN_SPI)), Verdict::XskEsp),
        ("ESP to the inside address", Wan, ip(PEER, "10.1.0.1", ESP, &esp(OUR_SPI)), Verdict::XskEsp),
        ("ESP over IPv6", Wan, ip(PEER6, WAN6, ESP, &esp(OUR_SPI)), Verdict::XskEsp),
        ("IHL 6", Wan, long_header(6), Verdict::XskEsp),
        ("IHL 7", Wan, long_header(7), Verdict::XskEsp),
        ("IHL 15", Wan, long_header(15), Verdict::XskEsp),
        ("IHL 4", Wan, long_header(4), Verdict::PassMalformed),
        ("IHL 0", Wan, long_header(0), Verdict::PassMalformed),
        ("ESP of other hosts", Wan, ip(PEER, OTHER, ESP, &esp(OUR_SPI)), Verdict::PassOther),
        ("ESP of other IPv6 hosts", Wan, ip(PEER6, "2001:db8:f::99", ESP, &esp(OUR_SPI)), Verdict::PassOther),
        ("ESP that came in on the lan", Lan, ip(PEER, WAN, ESP, &esp(OUR_SPI)), Verdict::PassLocal),
        ("transit ESP on the lan", Lan, ip("10.1.9.9", PEER, ESP, &esp(OUR_SPI)), Verdict::PassOther),
        ("tagged ESP", Wan, tag(&ip(PEER, WAN, ESP, &esp(OUR_SPI)), &[VLAN]), Verdict::PassLocal),
        ("AH", Wan, ip(PEER, WAN, AH, &[0; 24]), Verdict::PassLocal),
        ("IP version 5", Wan, mend(ip(PEER, WAN, ESP, &esp(OUR_SPI)), 14, 0x55), Verdict::PassMalformed),
        ("IPv6 type, version 4", Wan, mend(ip(PEER6, WAN6, ESP, &[0; 8]), 14, 0x40), Verdict::PassMalformed),
    ]);
}

#[test]
fn esp_is_found_behind_ipv6_extension_headers() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    let esp_behind = |chain: &[(u8, usize)]| ip6_extended(PEER6, WAN6, chain, ESP, &esp(OUR_SPI));
    let natt = udp(4500, 4500, &esp(OUR_SPI));
    let eight = [(DEST_OPTIONS, 8); 8];
    let nine = [(DEST_OPTIONS, 8); 9];
    rig.check(&[
        ("hop-by-hop", Wan, esp_behind(&[(HOP_BY_HOP, 8)]), Verdict::XskEsp),
        ("long hop-by-hop", Wan, esp_behind(&[(HOP_BY_HOP, 256)]), Verdict::XskEsp),
        ("destination options", Wan, esp_behind(&[(DEST_OPTIONS, 24)]), Verdict::XskEsp),
        ("routing", Wan, esp_behind(&[(ROUTING, 40)]), Verdict::XskEsp),
        (
            "all three",
            Wan,
            esp_behind(&[(HOP_BY_HOP, 8), (DEST_OPTIONS, 16), (ROUTING, 24), (DEST_OPTIONS, 8)]),
            Verdict::XskEsp,
        ),
        ("eight headers", Wan, esp_behind(&eight), Verdict::XskEsp),
        ("nine headers", Wan, esp_behind(&nine), Verdict::PassLocal),
        ("AH before ESP", Wan, esp_behind(&[(AH, 24)]), Verdict::PassLocal),
        ("mobility header", Wan, esp_behind(&[(135, 8)]), Verdict::PassLocal),
        ("no next header", Wan, ip(PEER6, WAN6, NO_NEXT, &[0; 8]), Verdict::PassLocal),
        ("fragment", Wan, esp_behind(&[(FRAGMENT, 8)]), Verdict::PassFragment),
        ("options, then fragment", Wan, esp_behind(&[(HOP_BY_HOP, 8), (FRAGMENT, 8)]), Verdict::PassFragment),
        (
            "UDP 4500 behind options",
            Wan,
            ip6_extended(PEER6, WAN6, &[(DEST_OPTIONS, 8)], UDP, &natt),
            Verdict::XskEspUdp,
        ),
        (
            "an option longer than the packet",
            Wan,
            mend(esp_behind(&[(HOP_BY_HOP, 8)]), 14 + 40 + 1, 255),
            Verdict::PassLocal,
        ),
    ]);
}

#[test]
fn udp_4500_is_told_apart_by_its_first_word() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    let natt = |payload: &[u8]| ip(PEER, WAN, UDP, &udp(4500, 4500, payload));
    let rebound = |source| ip(PEER, WAN, UDP, &udp(source, 4500, &esp(OUR_SPI)));
    let stun = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    let mut lying = natt(&[0xff, 0, 0, 0]);
    lying[14 + 20 + 5] = 9;
    rig.check(&[
        ("ESP with our SPI", Wan, natt(&esp(OUR_SPI)), Verdict::XskEspUdp),
        ("lowest of our SPIs", Wan, natt(&esp(0xc000_0000)), Verdict::XskEspUdp),
        ("highest of our SPIs", Wan, natt(&esp(0xffff_ffff)), Verdict::XskEspUdp),
        ("just below our SPIs", Wan, natt(&esp(0xbfff_ffff)), Verdict::PassNatt),
        ("ESP of a manual SA", Wan, natt(&esp(MANUAL_SPI)), Verdict::XskEspUdp),
        ("an SPI of nobody", Wan, natt(&esp(FOREIGN_SPI)), Verdict::PassNatt),
        ("behind a NAT", Wan, rebound(61_234), Verdict::XskEspUdp),
        ("from source port 0", Wan, rebound(0), Verdict::XskEspUdp),
        ("over IPv6", Wan, ip(PEER6, WAN6, UDP, &udp(4500, 4500, &esp(OUR_SPI))), Verdict::XskEspUdp),
        ("IKE, zero marker", Wan, natt(&[0; 32]), Verdict::PassIke),
        ("IKE on port 500", Wan, ip(PEER, WAN, UDP, &udp(500, 500, &[1; 32])), Verdict::PassIke),
        ("IKE over IPv6", Wan, ip(PEER6, WAN6, UDP, &udp(500, 500, &[1; 32])), Verdict::PassIke),
        (
            "IKE to the inside address",
            Wan,
            ip(PEER, "10.1.0.1", UDP, &udp(500, 500, &[1; 32])),
            Verdict::PassIke,
        ),
        ("keepalive", Wan, natt(&[0xff]), Verdict::DropKeepalive),
        ("keepalive, padded to 60 octets", Wan, padded(natt(&[0xff]), 60), Verdict::DropKeepalive),
        ("keepalive by UDP length alone", Wan, lying, Verdict::DropKeepalive),
        ("one octet, no keepalive", Wan, natt(&[0]), Verdict::PassNatt),
        ("two octets", Wan, natt(&[0xff, 0xff]), Verdict::PassNatt),
        ("three octets", Wan, natt(&[0xff; 3]), Verdict::PassNatt),
        ("four octets", Wan, natt(&[0xff; 4]), Verdict::XskEspUdp),
        ("nothing, padded", Wan, padded(natt(&[]), 60), Verdict::PassNatt),
        ("STUN", Wan, natt(&stun), Verdict::PassNatt),
        ("ZRTP", Wan, natt(&[16; 24]), Verdict::PassNatt),
        ("DTLS", Wan, natt(&[22, 254, 253, 0, 0, 0, 0, 0]), Verdict::PassNatt),
        ("TURN channel", Wan, natt(&[0x40, 0x00, 0, 4, 1, 2, 3, 4]), Verdict::PassNatt),
        ("RTP", Wan, natt(&[0x80, 0, 0, 1, 0, 0, 0, 160]), Verdict::PassNatt),
        ("RTCP", Wan, natt(&[0xbf, 200, 0, 6, 0, 0, 0, 1]), Verdict::PassNatt),
        ("for another host", Wan, ip(PEER, OTHER, UDP, &udp(4500, 4500, &esp(OUR_SPI))), Verdict::PassOther),
        (
            "keepalive for another host",
            Wan,
            ip(PEER, OTHER, UDP, &udp(4500, 4500, &[0xff])),
            Verdict::PassOther,
        ),
        (
            "from port 4500 to another",
            Wan,
            ip(PEER, WAN, UDP, &udp(4500, 5000, &esp(OUR_SPI))),
            Verdict::PassLocal,
        ),
        ("on the lan", Lan, natt(&esp(OUR_SPI)), Verdict::PassLocal),
        ("on our end of pollux0", Host, natt(&esp(OUR_SPI)), Verdict::PassLocal),
    ]);
    rig.steering
        .remove_spi(pollux_abi::Spi::new(MANUAL_SPI).expect("no reserved SPI"))
        .expect("it was there");
    rig.check(&[("ESP of a deleted manual SA", Wan, natt(&esp(MANUAL_SPI)), Verdict::PassNatt)]);
}

#[test]
fn other_traffic_is_left_to_the_kernel() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    let to_us = |protocol, payload: &[u8]| ip(PEER, WAN, protocol, payload);
    let through = |payload: &[u8]| ip(PEER, "192.0.2.7", UDP, payload);
    let wireguard = udp(51_820, 51_820, &[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let sip = udp(5060, 5060, b"INVITE sip:a@b SIP/2.0\r\n");
    let rtp = udp(6000, 6000, &[0x80, 8, 0, 1, 0, 0, 0, 160, 0, 0, 0, 1]);
    let fragment = |frag| ip_with(PEER, WAN, Header { frag, ..Header::of(ESP) }, &esp(OUR_SPI));
    rig.check(&[
        ("SSH", Wan, to_us(TCP, &tcp(40_000, 22)), Verdict::PassLocal),
        ("ping", Wan, to_us(ICMP, &[8, 0, 0, 0, 0, 0, 0, 0]), Verdict::PassLocal),
        ("WireGuard for us", Wan, to_us(UDP, &wireguard), Verdict::PassLocal),
        ("SIP for us", Wan, to_us(UDP, &sip), Verdict::PassLocal),
        ("RTP for us", Wan, to_us(UDP, &rtp), Verdict::PassLocal),
        ("UDP cut to its ports", Wan, to_us(UDP, &[0x11, 0x94, 0x11, 0x94]), Verdict::PassLocal),
        ("WireGuard in transit", Wan, through(&wireguard), Verdict::PassOther),
        ("SIP in transit", Wan, through(&sip), Verdict::PassOther),
        ("RTP in transit", Wan, through(&rtp), Verdict::PassOther),
        ("first fragment of ESP", Wan, fragment(0x2000), Verdict::PassFragment),
        ("middle fragment of ESP", Wan, fragment(0x20b9), Verdict::PassFragment),
        ("last fragment of ESP", Wan, fragment(0x00b9), Verdict::PassFragment),
        ("reserved flag alone is no fragment", Wan, fragment(0x8000), Verdict::XskEsp),
        ("ARP", Wan, ether(ARP, &[0; 28]), Verdict::PassNonIp),
        ("LLDP", Lan, ether(0x88cc, &[0; 40]), Verdict::PassNonIp),
        ("MPLS", Wan, ether(0x8847, &[0x45; 40]), Verdict::PassNonIp),
        ("802.3 length", Wan, ether(0x0026, &[0x42; 38]), Verdict::PassNonIp),
    ]);
}

#[test]
fn a_frame_on_an_interface_without_role_is_not_ours() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    rig.steering.detach(crate::rig::LO).expect("forgets the port");
    let run = rig.steering.test_run(&ip(PEER, WAN, ESP, &esp(OUR_SPI))).expect("a frame");
    assert_eq!(run.action, pollux_ebpf::XdpAction::Pass);
    let counts = rig.steering.verdicts().expect("counters");
    let moved: Vec<_> = counts.iter().filter(|count| count.frames > 0).collect();
    assert_eq!(moved.len(), 1);
    assert_eq!((moved[0].role, moved[0].verdict, moved[0].frames), (None, Verdict::PassNoRole, 1));
}

/// The frame with one octet changed.
fn mend(mut frame: Vec<u8>, at: usize, octet: u8) -> Vec<u8> {
    frame[at] = octet;
    frame
}

/// The frame with Ethernet padding.
fn padded(mut frame: Vec<u8>, len: usize) -> Vec<u8> {
    frame.resize(len, 0);
    frame
}
