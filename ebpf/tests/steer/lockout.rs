//! With everything protected on both sides, the gateway still answers, and nobody else's packets pass.

use pollux_ebpf::Role::{Lan, Wan};
use pollux_ebpf::{XdpVerdict, is_inside};

use crate::frame::*;
use crate::rig::{ALL_PAIRS, OUR_SPI, Rig, SITE_PAIRS, addresses, prefixes};

const ADMIN: &str = "192.0.2.200";
const WAN: &str = "203.0.113.1";
const HOST: &str = "10.1.7.7";
const INSIDE: &str = "10.1.0.1";
const ADMIN6: &str = "2001:db8:aaaa::1";
const WAN6: &str = "2001:db8:f::1";

#[test]
fn selectors_of_everything_leave_the_gateway_reachable() {
    let Some(mut rig) = Rig::new(ALL_PAIRS) else { return };
    rig.check(&[
        ("SSH from outside", Wan, ip(ADMIN, WAN, TCP, &tcp(40_000, 22)), XdpVerdict::PassLocal),
        ("SSH over IPv6", Wan, ip(ADMIN6, WAN6, TCP, &tcp(40_000, 22)), XdpVerdict::PassLocal),
        ("SSH from the lan", Lan, ip(HOST, INSIDE, TCP, &tcp(40_000, 22)), XdpVerdict::PassLocal),
        (
            "SSH from the lan to the wan address",
            Lan,
            ip(HOST, WAN, TCP, &tcp(40_000, 22)),
            XdpVerdict::PassLocal,
        ),
        (
            "answers to the gateway's DNS",
            Wan,
            ip("192.0.2.53", WAN, UDP, &udp(53, 40_000, &[0; 30])),
            XdpVerdict::PassLocal,
        ),
        (
            "a fragment of them",
            Wan,
            ip_with("192.0.2.53", WAN, Header { frag: 0x2000, ..Header::of(UDP) }, &[0; 30]),
            XdpVerdict::PassFragment,
        ),
        ("IKE", Wan, ip(ADMIN, WAN, UDP, &udp(500, 500, &[1; 28])), XdpVerdict::PassIke),
        ("IKE behind a NAT", Wan, ip(ADMIN, WAN, UDP, &udp(1024, 4500, &[0; 32])), XdpVerdict::PassIke),
        ("IKE over IPv6", Wan, ip(ADMIN6, WAN6, UDP, &udp(4500, 4500, &[0; 32])), XdpVerdict::PassIke),
        ("IKE from the lan", Lan, ip(HOST, INSIDE, UDP, &udp(500, 500, &[1; 28])), XdpVerdict::PassLocal),
        (
            "ICMP error about our ESP",
            Wan,
            ip("192.0.2.9", WAN, ICMP, &[3, 4, 0, 0, 0, 0, 5, 0]),
            XdpVerdict::PassLocal,
        ),
        ("ARP", Wan, ether(ARP, &[0; 28]), XdpVerdict::PassNonIp),
        ("ARP on the lan", Lan, ether(ARP, &[0; 28]), XdpVerdict::PassNonIp),
    ]);
}

#[test]
fn selectors_of_everything_leave_discovery_and_dhcp_working() {
    let Some(mut rig) = Rig::new(ALL_PAIRS) else { return };
    let nd = |kind| [&[kind, 0, 0, 0][..], &[0; 20]].concat();
    let nd_to =
        |from, to, kind, hop_limit| ip_with(from, to, Header { hop_limit, ..Header::of(ICMPV6) }, &nd(kind));
    let discover = udp(68, 67, &[1; 240]);
    rig.check(&[
        (
            "solicitation, multicast",
            Wan,
            ip(ADMIN6, "ff02::1:ff00:1", ICMPV6, &nd(135)),
            XdpVerdict::PassScope,
        ),
        (
            "duplicate address detection",
            Wan,
            ip("::", "ff02::1:ff00:1", ICMPV6, &nd(135)),
            XdpVerdict::PassScope,
        ),
        ("router advertisement", Wan, ip("fe80::1", "ff02::1", ICMPV6, &nd(134)), XdpVerdict::PassScope),
        ("link-local to link-local", Lan, ip("fe80::1", "fe80::2", ICMPV6, &nd(136)), XdpVerdict::PassScope),
        ("link-local to our address", Wan, ip("fe80::1", WAN6, ICMPV6, &nd(136)), XdpVerdict::PassScope),
        ("solicitation, unicast", Wan, nd_to(ADMIN6, WAN6, 135, 255), XdpVerdict::PassNd),
        ("advertisement, unicast", Wan, nd_to(ADMIN6, WAN6, 136, 255), XdpVerdict::PassNd),
        ("DHCP discover", Lan, ip("0.0.0.0", "255.255.255.255", UDP, &discover), XdpVerdict::PassScope),
        ("DHCP request, unicast", Lan, ip(HOST, INSIDE, UDP, &discover), XdpVerdict::PassLocal),
        (
            "DHCP answer, broadcast",
            Wan,
            ip("203.0.113.254", "255.255.255.255", UDP, &udp(67, 68, &[2; 240])),
            XdpVerdict::PassScope,
        ),
        (
            "DHCP answer to our address",
            Wan,
            ip("203.0.113.254", WAN, UDP, &udp(67, 68, &[2; 240])),
            XdpVerdict::PassDhcp,
        ),
        ("DHCPv6", Wan, ip("fe80::1", "fe80::2", UDP, &udp(547, 546, &[2; 40])), XdpVerdict::PassScope),
        ("OSPF", Wan, ip("203.0.113.2", "224.0.0.5", 89, &[0; 40]), XdpVerdict::PassScope),
        ("VRRP", Lan, ip("10.1.0.2", "224.0.0.18", 112, &[0; 40]), XdpVerdict::PassScope),
    ]);
}

#[test]
fn selectors_of_everything_let_no_other_hosts_packets_pass() {
    let Some(mut rig) = Rig::new(ALL_PAIRS) else { return };
    let nd = |from, to, hop_limit| ip_with(from, to, Header { hop_limit, ..Header::of(ICMPV6) }, &[135; 24]);
    rig.check(&[
        ("LAN host to the world", Lan, ip(HOST, "192.0.2.1", TCP, &tcp(1, 443)), XdpVerdict::XskProtected),
        (
            "LAN host's IKE",
            Lan,
            ip(HOST, "192.0.2.1", UDP, &udp(500, 500, &[1; 28])),
            XdpVerdict::XskProtected,
        ),
        (
            "LAN host's DHCP",
            Lan,
            ip(HOST, "192.0.2.1", UDP, &udp(68, 67, &[1; 28])),
            XdpVerdict::XskProtected,
        ),
        ("LAN host to itself", Lan, ip("127.0.0.1", "127.0.0.1", UDP, &[0; 8]), XdpVerdict::XskProtected),
        (
            "link-local source, which Linux forwards",
            Lan,
            ip("169.254.1.1", "192.0.2.1", UDP, &[0; 8]),
            XdpVerdict::XskProtected,
        ),
        (
            "link-local destination, which Linux forwards",
            Lan,
            ip("169.254.1.1", "169.254.1.2", UDP, &[0; 8]),
            XdpVerdict::XskProtected,
        ),
        ("world to a LAN host", Wan, ip(ADMIN, HOST, TCP, &tcp(1, 22)), XdpVerdict::XskClear),
        ("IKE to a LAN host", Wan, ip(ADMIN, HOST, UDP, &udp(500, 500, &[1; 28])), XdpVerdict::XskClear),
        ("ESP to a LAN host", Wan, ip(ADMIN, HOST, ESP, &esp(OUR_SPI)), XdpVerdict::XskClear),
        ("ND to a LAN host", Wan, nd(ADMIN6, "fd00:1::7", 255), XdpVerdict::XskClear),
        (
            "DHCP in a fragment",
            Wan,
            ip_with(
                "203.0.113.254",
                "203.0.113.50",
                Header { frag: 0x2000, ..Header::of(UDP) },
                &udp(67, 68, &[2; 40]),
            ),
            XdpVerdict::XskClear,
        ),
    ]);
}

#[test]
fn a_dhcp_offer_to_an_address_not_yet_ours_becomes_a_link_broadcast() {
    let Some(mut rig) = Rig::new(ALL_PAIRS) else { return };
    let offer = ip("203.0.113.254", "203.0.113.50", UDP, &udp(67, 68, &[2; 240]));
    let (verdict, run) = rig.judge(Wan, &offer);
    assert_eq!(verdict, XdpVerdict::PassDhcp);
    // The kernel delivers it to packet sockets and forwards no broadcast.
    assert_eq!(run.frame[..6], [0xff; 6]);
    assert_eq!(run.frame[6..], offer[6..]);
    assert_eq!(rig.judge(Lan, &offer).0, XdpVerdict::XskProtected);
    let request = ip("203.0.113.254", "203.0.113.50", UDP, &udp(68, 67, &[1; 240]));
    assert_eq!(rig.judge(Wan, &request).0, XdpVerdict::XskClear);
    rig.steering.set_protected(&prefixes(SITE_PAIRS)).expect("pairs");
    let (verdict, run) = rig.judge(Wan, &offer);
    assert_eq!((verdict, run.frame), (XdpVerdict::PassOther, offer), "outside the selectors nothing changes");
}

#[test]
fn a_host_to_host_tunnel_keeps_ike_and_discovery_and_protects_the_rest() {
    let pairs = [("203.0.113.1/32", "203.0.113.2/32"), ("2001:db8:f::1/128", "2001:db8:f::2/128")];
    let Some(mut rig) = Rig::new(&pairs) else { return };
    let (peer, peer6) = ("203.0.113.2", "2001:db8:f::2");
    let nd = |kind, hop_limit| ip_with(peer6, WAN6, Header { hop_limit, ..Header::of(ICMPV6) }, &[kind; 24]);
    rig.check(&[
        ("IKE", Wan, ip(peer, WAN, UDP, &udp(500, 500, &[1; 28])), XdpVerdict::PassIke),
        ("IKE over IPv6", Wan, ip(peer6, WAN6, UDP, &udp(500, 500, &[1; 28])), XdpVerdict::PassIke),
        ("ESP", Wan, ip(peer, WAN, ESP, &esp(OUR_SPI)), XdpVerdict::XskEsp),
        ("ESP in UDP", Wan, ip(peer, WAN, UDP, &udp(4500, 4500, &esp(OUR_SPI))), XdpVerdict::XskEspUdp),
        ("keepalive", Wan, ip(peer, WAN, UDP, &udp(4500, 4500, &[0xff])), XdpVerdict::DropKeepalive),
        ("solicitation", Wan, nd(135, 255), XdpVerdict::PassNd),
        ("redirect", Wan, nd(137, 255), XdpVerdict::PassNd),
        ("solicitation from afar", Wan, nd(135, 254), XdpVerdict::XskClear),
        ("echo request", Wan, nd(128, 255), XdpVerdict::XskClear),
        ("clear SSH", Wan, ip(peer, WAN, TCP, &tcp(1, 22)), XdpVerdict::XskClear),
        (
            "clear STUN on 4500",
            Wan,
            ip(peer, WAN, UDP, &udp(4500, 4500, &[0, 1, 0, 0])),
            XdpVerdict::XskClear,
        ),
        (
            "clear fragment",
            Wan,
            ip_with(peer, WAN, Header { frag: 0x2000, ..Header::of(UDP) }, &[0; 16]),
            XdpVerdict::XskClear,
        ),
        ("SSH from elsewhere", Wan, ip(ADMIN, WAN, TCP, &tcp(1, 22)), XdpVerdict::PassLocal),
        (
            "STUN from elsewhere",
            Wan,
            ip(ADMIN, WAN, UDP, &udp(4500, 4500, &[0, 1, 0, 0])),
            XdpVerdict::PassNatt,
        ),
    ]);
}

#[test]
fn inside_follows_addresses_and_pairs_in_either_order() {
    let Some(mut rig) = Rig::new(&[]) else { return };
    let clear = ip("10.2.8.8", "10.1.0.9", TCP, &tcp(1, 22));
    assert_eq!(rig.judge(Wan, &clear).0, XdpVerdict::PassOther);
    rig.steering.set_protected(&prefixes(SITE_PAIRS)).expect("pairs");
    assert_eq!(rig.judge(Wan, &clear).0, XdpVerdict::XskClear, "another host");
    rig.steering.set_local_addrs(&addresses(&["10.1.0.9"])).expect("addresses");
    assert_eq!(rig.judge(Wan, &clear).0, XdpVerdict::XskClear, "ours now, inside the selector");
    rig.steering.set_protected(&prefixes(ALL_PAIRS)).expect("pairs");
    assert_eq!(rig.judge(Wan, &clear).0, XdpVerdict::PassLocal, "named by no selector any more");
    rig.steering.set_local_addrs(&[]).expect("addresses");
    assert_eq!(rig.judge(Wan, &clear).0, XdpVerdict::XskClear, "another host again");
}

#[test]
fn only_prefixes_of_one_owner_make_an_address_inside() {
    let rows = [
        ("10.1.0.1", "10.0.0.0/8", true),
        ("10.1.0.1", "10.0.0.0/7", false),
        ("10.1.0.1", "0.0.0.0/0", false),
        ("203.0.113.1", "128.0.0.0/1", false),
        ("fd00::1", "fc00::/7", true),
        ("fd00::1", "fc00::/6", false),
        ("2001:db8::1", "2000::/3", false),
        ("2001:db8::1", "2001:db8::/32", true),
        ("10.1.0.1", "fc00::/7", false),
    ];
    for (address, prefix, expected) in rows {
        let address = address.parse().expect("the table's address");
        let prefix = prefix.parse().expect("the table's prefix");
        assert_eq!(is_inside(address, [&prefix]), expected, "{address} in {prefix}");
    }
}
