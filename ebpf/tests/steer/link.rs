//! What the link layer says about a frame: whose MAC address it went to, priority tags, multicast.

use pollux_ebpf::Role::{Host, Lan, Wan};
use pollux_ebpf::XdpVerdict;

use crate::frame::*;
use crate::rig::{ALL_PAIRS, LO, OUR_SPI, Rig, SITE_PAIRS};

const PEER: &str = "198.51.100.2";
const WAN: &str = "203.0.113.1";
const INSIDE: &str = "10.1.0.1";
const INSIDE6: &str = "fd00:1::1";
const HOST: &str = "10.1.7.7";
const HOST6: &str = "fd00:1::7";
const REMOTE: &str = "10.2.8.8";
const REMOTE6: &str = "fd00:2::8";

const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const BROADCAST_MAC: [u8; 6] = [0xff; 6];
const MULTICAST_MAC: [u8; 6] = [1, 0, 0x5e, 1, 2, 3];

#[test]
fn frames_to_another_hosts_mac_address_are_not_ours() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    let out = ip(HOST, REMOTE, UDP, &udp(1, 2, &[0; 8]));
    let back = ip(REMOTE, HOST, UDP, &udp(1, 2, &[0; 8]));
    let ours = ip(PEER, WAN, ESP, &esp(OUR_SPI));
    rig.check(&[
        ("protected, to us", Lan, out.clone(), XdpVerdict::XskProtected),
        ("protected, flooded", Lan, to_mac(OTHER_MAC, &out), XdpVerdict::PassOtherHost),
        ("clear from the wan, flooded", Wan, to_mac(OTHER_MAC, &back), XdpVerdict::PassOtherHost),
        ("ESP, flooded", Wan, to_mac(OTHER_MAC, &ours), XdpVerdict::PassOtherHost),
        ("one bit away", Lan, to_mac([2, 0, 0, 0, 0, 0], &out), XdpVerdict::PassOtherHost),
        ("first octet away", Lan, to_mac([6, 0, 0, 0, 0, 1], &out), XdpVerdict::PassOtherHost),
        ("in a VLAN, flooded", Lan, to_mac(OTHER_MAC, &tag(&out, &[VLAN])), XdpVerdict::PassOtherHost),
        ("tags too deep, flooded", Lan, to_mac(OTHER_MAC, &tag(&out, &[VLAN; 5])), XdpVerdict::PassOtherHost),
        ("the kernel's end writes any address", Host, to_mac(OTHER_MAC, &out), XdpVerdict::XskProtected),
    ]);
    rig.steering.set_mac(LO, OTHER_MAC).expect("the port is there");
    rig.check(&[
        ("after a change of the address", Lan, to_mac(OTHER_MAC, &out), XdpVerdict::XskProtected),
        ("the former address", Lan, out.clone(), XdpVerdict::PassOtherHost),
    ]);
    rig.steering.set_mac(LO, [0; 6]).expect("the port is there");
    rig.check(&[("no address known", Lan, out, XdpVerdict::XskProtected)]);
}

#[test]
fn unicast_in_a_frame_to_a_group_address_is_judged_by_its_pair() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    let out = ip(HOST, REMOTE, UDP, &udp(1, 2, &[0; 8]));
    let back = ip(REMOTE, INSIDE, UDP, &udp(1, 2, &[0; 8]));
    let other = ip(HOST, "192.0.2.9", UDP, &udp(1, 2, &[0; 8]));
    let to_us = ip(HOST, INSIDE, UDP, &udp(1, 2, &[0; 8]));
    rig.check(&[
        ("protected, broadcast", Lan, to_mac(BROADCAST_MAC, &out), XdpVerdict::DropGroupMac),
        ("protected, multicast", Lan, to_mac(MULTICAST_MAC, &out), XdpVerdict::DropGroupMac),
        ("clear to us from the wan", Wan, to_mac(BROADCAST_MAC, &back), XdpVerdict::XskClear),
        ("not protected", Lan, to_mac(BROADCAST_MAC, &other), XdpVerdict::PassOther),
        ("for the gateway", Lan, to_mac(BROADCAST_MAC, &to_us), XdpVerdict::PassLocal),
        (
            "limited broadcast",
            Lan,
            to_mac(BROADCAST_MAC, &ip(HOST, "255.255.255.255", UDP, &udp(68, 67, &[0; 8]))),
            XdpVerdict::PassScope,
        ),
    ]);
}

#[test]
fn a_priority_tag_puts_a_frame_in_no_vlan() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    let out = ip(HOST, REMOTE, UDP, &udp(1, 2, &[0; 8]));
    let ours = ip(PEER, WAN, ESP, &esp(OUR_SPI));
    rig.check(&[
        ("EF's priority, VID 0", Lan, tag_with(&out, &[VLAN], 0xa000), XdpVerdict::XskProtected),
        ("drop eligible, VID 0", Lan, tag_with(&out, &[VLAN], 0x1000), XdpVerdict::XskProtected),
        ("ESP", Wan, tag_with(&ours, &[VLAN], 0xa000), XdpVerdict::XskEsp),
        ("VID 1", Lan, tag_with(&out, &[VLAN], 1), XdpVerdict::DropTagged),
        ("VID 2048", Lan, tag_with(&out, &[VLAN], 0x0800), XdpVerdict::DropTagged),
        ("a VLAN behind it", Lan, tag_with(&tag(&out, &[VLAN]), &[VLAN], 0xa000), XdpVerdict::DropTagged),
    ]);
}

#[test]
fn routed_multicast_inside_a_protected_pair_is_dropped() {
    let group = |hop_limit, source, destination| {
        ip_with(source, destination, Header { hop_limit, ..Header::of(UDP) }, &udp(5004, 5004, &[0; 8]))
    };
    let Some(mut rig) = Rig::new(&[("10.1.0.0/16", "239.1.0.0/16"), ("fd00:1::/32", "ff05::/16")]) else {
        return;
    };
    rig.check(&[
        ("named group", Lan, group(8, HOST, "239.1.2.3"), XdpVerdict::DropMulticast),
        ("from the gateway", Host, group(8, INSIDE, "239.1.2.3"), XdpVerdict::DropMulticast),
        (
            "as it comes on the wire",
            Lan,
            to_mac(MULTICAST_MAC, &group(8, HOST, "239.1.2.3")),
            XdpVerdict::DropMulticast,
        ),
        ("site scope", Lan, group(8, HOST6, "ff05::1:3"), XdpVerdict::DropMulticast),
        ("another group", Lan, group(8, HOST, "239.2.2.3"), XdpVerdict::PassScope),
        ("another source", Lan, group(8, "10.9.0.1", "239.1.2.3"), XdpVerdict::PassScope),
        ("hops used up, as IGMP", Lan, group(1, HOST, "239.1.2.3"), XdpVerdict::PassScope),
    ]);
    drop(rig);
    let Some(mut rig) = Rig::new(ALL_PAIRS) else { return };
    rig.check(&[
        ("everything protected", Lan, group(2, HOST, "239.1.2.3"), XdpVerdict::DropMulticast),
        ("from outside", Wan, group(8, REMOTE, "239.1.2.3"), XdpVerdict::DropMulticast),
        ("from outside, IPv6", Wan, group(8, REMOTE6, "ff0e::1"), XdpVerdict::DropMulticast),
        ("local network control", Lan, group(255, HOST, "224.0.0.251"), XdpVerdict::PassScope),
        ("beyond local network control", Lan, group(255, HOST, "224.0.1.1"), XdpVerdict::DropMulticast),
        ("link scope", Lan, group(255, HOST6, "ff02::fb"), XdpVerdict::PassScope),
        ("link scope, transient", Lan, group(255, HOST6, "ff12::fb"), XdpVerdict::PassScope),
        ("realm scope", Lan, group(255, HOST6, "ff03::fb"), XdpVerdict::DropMulticast),
    ]);
}

#[test]
fn fragmented_ike_reaches_the_kernel_at_inside_addresses_too() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    let piece = |frag, protocol, payload: &[u8]| {
        ip_with(REMOTE, INSIDE, Header { frag, ..Header::of(protocol) }, payload)
    };
    let piece6 = |offset: u16, payload: &[u8]| {
        let header = [&[UDP, 0][..], &offset.to_be_bytes(), &[0, 0, 0, 7], payload].concat();
        ip(REMOTE6, INSIDE6, FRAGMENT, &header)
    };
    let ike = udp(500, 500, &[1; 1400]);
    let natt = udp(4500, 4500, &[&[0; 4][..], &[1; 1400]].concat());
    let esp_udp = udp(4500, 4500, &esp(OUR_SPI));
    rig.check(&[
        ("first of IKE", Wan, piece(0x2000, UDP, &ike), XdpVerdict::PassFragment),
        ("first of IKE on 4500", Wan, piece(0x2000, UDP, &natt), XdpVerdict::PassFragment),
        ("later", Wan, piece(0x00b9, UDP, &[1; 600]), XdpVerdict::PassFragment),
        ("first of IKE, IPv6", Wan, piece6(1, &ike), XdpVerdict::PassFragment),
        ("later, IPv6", Wan, piece6(0x05c8, &[1; 600]), XdpVerdict::PassFragment),
        ("first of ESP in UDP", Wan, piece(0x2000, UDP, &esp_udp), XdpVerdict::XskClear),
        ("first of SIP", Wan, piece(0x2000, UDP, &udp(5060, 5060, &[1; 1400])), XdpVerdict::XskClear),
        ("first of SIP, IPv6", Wan, piece6(1, &udp(5060, 5060, &[1; 64])), XdpVerdict::XskClear),
        ("first, ports cut off", Wan, piece(0x2000, UDP, &[1, 0xf4]), XdpVerdict::XskClear),
        ("first of TCP", Wan, piece(0x2000, TCP, &tcp(500, 500)), XdpVerdict::XskClear),
        ("later of TCP", Wan, piece(0x00b9, TCP, &[1; 600]), XdpVerdict::XskClear),
        (
            "for another host",
            Wan,
            ip_with(REMOTE, HOST, Header { frag: 0x2000, ..Header::of(UDP) }, &ike),
            XdpVerdict::XskClear,
        ),
    ]);
}
