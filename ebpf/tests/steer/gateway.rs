//! What is addressed to the gateway on the wan, and what must not be taken for it.

use pollux_ebpf::Role::{Host, Lan, Wan};
use pollux_ebpf::XdpVerdict;

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
        ("ESP over IPv4", Wan, ip(PEER, WAN, ESP, &esp(OUR_SPI)), XdpVerdict::XskEsp),
        ("ESP with an unknown SPI", Wan, ip(PEER, WAN, ESP, &esp(FOREIGN_SPI)), XdpVerdict::XskEsp),
        ("ESP to the inside address", Wan, ip(PEER, "10.1.0.1", ESP, &esp(OUR_SPI)), XdpVerdict::XskEsp),
        ("ESP over IPv6", Wan, ip(PEER6, WAN6, ESP, &esp(OUR_SPI)), XdpVerdict::XskEsp),
        ("IHL 6", Wan, long_header(6), XdpVerdict::XskEsp),
        ("IHL 7", Wan, long_header(7), XdpVerdict::XskEsp),
        ("IHL 15", Wan, long_header(15), XdpVerdict::XskEsp),
        ("IHL 4", Wan, long_header(4), XdpVerdict::PassMalformed),
        ("IHL 0", Wan, long_header(0), XdpVerdict::PassMalformed),
        ("ESP of other hosts", Wan, ip(PEER, OTHER, ESP, &esp(OUR_SPI)), XdpVerdict::PassOther),
        (
            "ESP of other IPv6 hosts",
            Wan,
            ip(PEER6, "2001:db8:f::99", ESP, &esp(OUR_SPI)),
            XdpVerdict::PassOther,
        ),
        ("ESP that came in on the lan", Lan, ip(PEER, WAN, ESP, &esp(OUR_SPI)), XdpVerdict::PassLocal),
        ("transit ESP on the lan", Lan, ip("10.1.9.9", PEER, ESP, &esp(OUR_SPI)), XdpVerdict::PassOther),
        ("tagged ESP", Wan, tag(&ip(PEER, WAN, ESP, &esp(OUR_SPI)), &[VLAN]), XdpVerdict::PassLocal),
        ("AH", Wan, ip(PEER, WAN, AH, &[0; 24]), XdpVerdict::PassLocal),
        ("IP version 5", Wan, fix(ip(PEER, WAN, ESP, &esp(OUR_SPI)), 14, 0x55), XdpVerdict::PassMalformed),
        (
            "IPv6 type, version 4",
            Wan,
            fix(ip(PEER6, WAN6, ESP, &[0; 8]), 14, 0x40),
            XdpVerdict::PassMalformed,
        ),
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
        ("hop-by-hop", Wan, esp_behind(&[(HOP_BY_HOP, 8)]), XdpVerdict::XskEsp),
        ("long hop-by-hop", Wan, esp_behind(&[(HOP_BY_HOP, 256)]), XdpVerdict::XskEsp),
        ("destination options", Wan, esp_behind(&[(DEST_OPTIONS, 24)]), XdpVerdict::XskEsp),
        ("routing", Wan, esp_behind(&[(ROUTING, 40)]), XdpVerdict::XskEsp),
        (
            "all three",
            Wan,
            esp_behind(&[(HOP_BY_HOP, 8), (DEST_OPTIONS, 16), (ROUTING, 24), (DEST_OPTIONS, 8)]),
            XdpVerdict::XskEsp,
        ),
        ("eight headers", Wan, esp_behind(&eight), XdpVerdict::XskEsp),
        ("nine headers", Wan, esp_behind(&nine), XdpVerdict::PassLocal),
        ("AH before ESP", Wan, esp_behind(&[(AH, 24)]), XdpVerdict::PassLocal),
        ("mobility header", Wan, esp_behind(&[(135, 8)]), XdpVerdict::PassLocal),
        ("no next header", Wan, ip(PEER6, WAN6, NO_NEXT, &[0; 8]), XdpVerdict::PassLocal),
        ("fragment", Wan, esp_behind(&[(FRAGMENT, 8)]), XdpVerdict::PassFragment),
        (
            "options, then fragment",
            Wan,
            esp_behind(&[(HOP_BY_HOP, 8), (FRAGMENT, 8)]),
            XdpVerdict::PassFragment,
        ),
        (
            "UDP 4500 behind options",
            Wan,
            ip6_extended(PEER6, WAN6, &[(DEST_OPTIONS, 8)], UDP, &natt),
            XdpVerdict::XskEspUdp,
        ),
        (
            "an option longer than the packet",
            Wan,
            fix(esp_behind(&[(HOP_BY_HOP, 8)]), 14 + 40 + 1, 255),
            XdpVerdict::PassLocal,
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
        ("ESP with our SPI", Wan, natt(&esp(OUR_SPI)), XdpVerdict::XskEspUdp),
        ("lowest of our SPIs", Wan, natt(&esp(0xc000_0000)), XdpVerdict::XskEspUdp),
        ("highest of our SPIs", Wan, natt(&esp(0xffff_ffff)), XdpVerdict::XskEspUdp),
        ("just below our SPIs", Wan, natt(&esp(0xbfff_ffff)), XdpVerdict::PassNatt),
        ("ESP of a manual SA", Wan, natt(&esp(MANUAL_SPI)), XdpVerdict::XskEspUdp),
        ("an SPI of nobody", Wan, natt(&esp(FOREIGN_SPI)), XdpVerdict::PassNatt),
        ("behind a NAT", Wan, rebound(61_234), XdpVerdict::XskEspUdp),
        ("from source port 0", Wan, rebound(0), XdpVerdict::XskEspUdp),
        ("over IPv6", Wan, ip(PEER6, WAN6, UDP, &udp(4500, 4500, &esp(OUR_SPI))), XdpVerdict::XskEspUdp),
        ("IKE, zero marker", Wan, natt(&[0; 32]), XdpVerdict::PassIke),
        ("IKE on port 500", Wan, ip(PEER, WAN, UDP, &udp(500, 500, &[1; 32])), XdpVerdict::PassIke),
        ("IKE over IPv6", Wan, ip(PEER6, WAN6, UDP, &udp(500, 500, &[1; 32])), XdpVerdict::PassIke),
        (
            "IKE to the inside address",
            Wan,
            ip(PEER, "10.1.0.1", UDP, &udp(500, 500, &[1; 32])),
            XdpVerdict::PassIke,
        ),
        ("keepalive", Wan, natt(&[0xff]), XdpVerdict::DropKeepalive),
        ("keepalive, padded to 60 octets", Wan, padded(natt(&[0xff]), 60), XdpVerdict::DropKeepalive),
        ("keepalive by UDP length alone", Wan, lying, XdpVerdict::DropKeepalive),
        ("one octet, no keepalive", Wan, natt(&[0]), XdpVerdict::PassNatt),
        ("two octets", Wan, natt(&[0xff, 0xff]), XdpVerdict::PassNatt),
        ("three octets", Wan, natt(&[0xff; 3]), XdpVerdict::PassNatt),
        ("four octets", Wan, natt(&[0xff; 4]), XdpVerdict::XskEspUdp),
        ("nothing, padded", Wan, padded(natt(&[]), 60), XdpVerdict::PassNatt),
        ("STUN", Wan, natt(&stun), XdpVerdict::PassNatt),
        ("ZRTP", Wan, natt(&[16; 24]), XdpVerdict::PassNatt),
        ("DTLS", Wan, natt(&[22, 254, 253, 0, 0, 0, 0, 0]), XdpVerdict::PassNatt),
        ("TURN channel", Wan, natt(&[0x40, 0x00, 0, 4, 1, 2, 3, 4]), XdpVerdict::PassNatt),
        ("RTP", Wan, natt(&[0x80, 0, 0, 1, 0, 0, 0, 160]), XdpVerdict::PassNatt),
        ("RTCP", Wan, natt(&[0xbf, 200, 0, 6, 0, 0, 0, 1]), XdpVerdict::PassNatt),
        (
            "for another host",
            Wan,
            ip(PEER, OTHER, UDP, &udp(4500, 4500, &esp(OUR_SPI))),
            XdpVerdict::PassOther,
        ),
        (
            "keepalive for another host",
            Wan,
            ip(PEER, OTHER, UDP, &udp(4500, 4500, &[0xff])),
            XdpVerdict::PassOther,
        ),
        (
            "from port 4500 to another",
            Wan,
            ip(PEER, WAN, UDP, &udp(4500, 5000, &esp(OUR_SPI))),
            XdpVerdict::PassLocal,
        ),
        ("on the lan", Lan, natt(&esp(OUR_SPI)), XdpVerdict::PassLocal),
        ("on our end of pollux0", Host, natt(&esp(OUR_SPI)), XdpVerdict::PassLocal),
    ]);
    rig.steering
        .remove_spi(pollux_abi::Spi::new(MANUAL_SPI).expect("no reserved SPI"))
        .expect("it was there");
    rig.check(&[("ESP of a deleted manual SA", Wan, natt(&esp(MANUAL_SPI)), XdpVerdict::PassNatt)]);
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
        ("SSH", Wan, to_us(TCP, &tcp(40_000, 22)), XdpVerdict::PassLocal),
        ("ping", Wan, to_us(ICMP, &[8, 0, 0, 0, 0, 0, 0, 0]), XdpVerdict::PassLocal),
        ("WireGuard for us", Wan, to_us(UDP, &wireguard), XdpVerdict::PassLocal),
        ("SIP for us", Wan, to_us(UDP, &sip), XdpVerdict::PassLocal),
        ("RTP for us", Wan, to_us(UDP, &rtp), XdpVerdict::PassLocal),
        ("UDP cut to its ports", Wan, to_us(UDP, &[0x11, 0x94, 0x11, 0x94]), XdpVerdict::PassLocal),
        ("WireGuard in transit", Wan, through(&wireguard), XdpVerdict::PassOther),
        ("SIP in transit", Wan, through(&sip), XdpVerdict::PassOther),
        ("RTP in transit", Wan, through(&rtp), XdpVerdict::PassOther),
        ("first fragment of ESP", Wan, fragment(0x2000), XdpVerdict::PassFragment),
        ("middle fragment of ESP", Wan, fragment(0x20b9), XdpVerdict::PassFragment),
        ("last fragment of ESP", Wan, fragment(0x00b9), XdpVerdict::PassFragment),
        ("reserved flag alone is no fragment", Wan, fragment(0x8000), XdpVerdict::XskEsp),
        ("ARP", Wan, ether(ARP, &[0; 28]), XdpVerdict::PassNonIp),
        ("LLDP", Lan, ether(0x88cc, &[0; 40]), XdpVerdict::PassNonIp),
        ("MPLS", Wan, ether(0x8847, &[0x45; 40]), XdpVerdict::PassNonIp),
        ("802.3 length", Wan, ether(0x0026, &[0x42; 38]), XdpVerdict::PassNonIp),
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
    assert_eq!((moved[0].role, moved[0].verdict, moved[0].frames), (None, XdpVerdict::PassNoRole, 1));
}

/// The frame with one octet changed.
fn fix(mut frame: Vec<u8>, at: usize, octet: u8) -> Vec<u8> {
    frame[at] = octet;
    frame
}

/// The frame with Ethernet padding.
fn padded(mut frame: Vec<u8>, len: usize) -> Vec<u8> {
    frame.resize(len, 0);
    frame
}
