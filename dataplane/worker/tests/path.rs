//! Packets through whole workers: from a memory port in to a memory port out.
#![forbid(unsafe_code)]

mod support;

use pollux_abi::command::PolicyAction;
use pollux_abi::{DropReason, WorkerId};
use pollux_packet::ethernet::Mac;
use pollux_worker::housekeeping::{FromWorker, PortFacts, ToWorker};
use support::{HOST, LAN, Lab, STALE_NS, WAN, key, pair, policy, protect, udp, udp_with};

/// The packet as a router hands it on: one hop less, checksum to match.
fn forwarded(octets: &[u8], hops: usize) -> Vec<u8> {
    let mut octets = octets.to_vec();
    for _ in 0..hops {
        assert!(pollux_esp::take_hop(&mut octets, pollux_packet::IpVersion::V4));
    }
    octets
}

#[test]
fn every_length_crosses_two_gateways_byte_exact() {
    let mut lab = pair();
    for len in 0..=1400 {
        let sent = udp("10.1.0.2", "10.2.0.2", len);
        lab.send(0, LAN, &sent);
        lab.round();
        let outside = lab.rigs[0].counters.tx_packets.value();
        assert_eq!(outside, len as u64 + 1, "one ESP packet each");
        assert_eq!(lab.carry(0, 1), 1);
        lab.round();
        assert_eq!(lab.receive_octets(1, LAN), [forwarded(&sent, 2)], "{len} octets");
    }
    lab.assert_ledger();
}

#[test]
fn outer_header_and_link_header_are_the_peers() {
    let mut lab = pair();
    let sent = udp("10.1.0.2", "10.2.0.2", 100);
    lab.send(0, LAN, &sent);
    lab.round();
    let frames = lab.receive(0, WAN);
    let [frame] = frames.as_slice() else { panic!("one frame, not {}", frames.len()) };
    assert_eq!(frame.data()[..14], [[0x12; 6].as_slice(), &[1; 6], &[8, 0]].concat());
    assert_eq!(frame.data()[14 + 9], 50, "ESP");
    assert_eq!(frame.data()[14 + 16..14 + 20], [192, 0, 2, 2]);
    let inside = sent.windows(40).next_back().expect("long enough");
    assert!(!frame.data().windows(40).any(|window| window == inside), "nothing in clear");
    for packet in frames {
        lab.pool.put(packet);
    }
    lab.assert_ledger();
}

#[test]
fn packets_for_the_gateway_and_for_its_other_networks_go_to_the_host() {
    let mut lab = pair();
    lab.rigs[1].policies(&[protect("0.0.0.0/0", "10.1.0.0/16")]);
    let own = udp("10.1.0.2", "10.2.0.1", 10);
    lab.send(0, LAN, &own);
    lab.round();
    lab.carry(0, 1);
    lab.round();
    // The host's stack takes the last hop itself.
    assert_eq!(lab.receive_octets(1, HOST), [forwarded(&own, 1)]);
    assert_eq!(lab.rigs[1].counters.to_host.value(), 1);
    // And what the host sends needs no hop.
    lab.send(1, HOST, &udp("10.2.0.1", "10.1.0.2", 10));
    lab.round();
    lab.carry(1, 0);
    lab.round();
    assert_eq!(lab.receive_octets(0, LAN), [forwarded(&udp("10.2.0.1", "10.1.0.2", 10), 1)]);
    lab.assert_ledger();
}

#[test]
fn an_sa_of_another_worker_is_served_by_its_owner() {
    // Two gateways of two workers; worker 1 owns the SAs, and worker 0 gets the packets.
    let gateway = |side| {
        let mut lab = Lab::new(2, 2);
        for rig in &mut lab.rigs {
            rig.configure(side);
            rig.install_pair(side, 1);
        }
        lab.round();
        lab
    };
    let (mut near, mut far) = (gateway(1), gateway(2));
    let sent = udp("10.1.0.2", "10.2.0.2", 200);
    for _ in 0..10 {
        near.send(0, LAN, &sent);
    }
    near.round();
    near.round();
    assert_eq!(near.rigs[1].counters.taken_over.value(), 10);
    assert!(near.receive(0, WAN).is_empty(), "the worker that got them has sent nothing");
    for octets in near.receive_octets(1, WAN) {
        far.send(0, WAN, &octets);
    }
    far.round();
    far.round();
    assert_eq!(far.rigs[1].counters.taken_over.value(), 10);
    assert_eq!(far.receive_octets(1, LAN), vec![forwarded(&sent, 2); 10]);
    assert_eq!(far.rigs[1].worker.engine_mut().worker(), WorkerId(1));
    near.assert_ledger();
    far.assert_ledger();
}

#[test]
fn a_full_queue_to_the_owner_drops_and_counts() {
    let mut lab = Lab::with_wire(2, 2, 1024);
    for rig in &mut lab.rigs {
        rig.configure(1);
        rig.install_pair(1, 1);
    }
    lab.round();
    for _ in 0..600 {
        lab.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", 20));
    }
    // Only worker 0 runs: nobody takes anything off.
    for _ in 0..12 {
        lab.now_ns += 1_000;
        let now_ns = lab.now_ns;
        lab.rigs[0].worker.round(now_ns);
    }
    assert_eq!(lab.drops(0, DropReason::HandoverFull), 600 - 512);
    lab.assert_ledger();
    for _ in 0..10 {
        lab.round();
    }
    assert_eq!(lab.receive_octets(1, WAN).len(), 512, "the queue was full of them");
    lab.assert_ledger();
}

#[test]
fn packets_that_waited_too_long_for_the_owner_are_stale() {
    let mut lab = Lab::new(2, 2);
    for rig in &mut lab.rigs {
        rig.configure(1);
        rig.install_pair(1, 1);
    }
    lab.round();
    lab.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", 20));
    lab.now_ns += 1;
    let now_ns = lab.now_ns;
    lab.rigs[0].worker.round(now_ns);
    lab.now_ns += STALE_NS / 2;
    let now_ns = lab.now_ns;
    lab.rigs[1].worker.round(now_ns - STALE_NS / 2);
    lab.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", 20));
    lab.rigs[0].worker.round(now_ns);
    lab.now_ns = now_ns + STALE_NS + 1;
    let late_ns = lab.now_ns;
    lab.rigs[1].worker.round(late_ns);
    assert_eq!(lab.drops(1, DropReason::Stale), 1);
    lab.assert_ledger();
}

#[test]
fn a_worker_that_wakes_from_a_stall_discards_what_has_aged() {
    let mut lab = pair();
    for _ in 0..200 {
        lab.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", 20));
    }
    lab.now_ns += STALE_NS + 1_000;
    lab.round();
    assert_eq!(lab.drops(0, DropReason::Stale), 200);
    assert_eq!(lab.rigs[0].counters.stalls.value(), 1);
    assert!(lab.receive(0, WAN).is_empty());
    lab.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", 20));
    lab.round();
    assert_eq!(lab.receive_octets(0, WAN).len(), 1, "what comes afterwards is fresh");
    lab.assert_ledger();
}

#[test]
fn packets_wait_for_their_neighbour_and_follow_in_order() {
    let mut lab = pair();
    let lost = key(WAN, "192.0.2.2");
    lab.rigs[0].tell(ToWorker::NeighbourGone { key: lost, failed: false });
    lab.round();
    for len in 0..10 {
        lab.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", len * 40));
    }
    lab.now_ns += 1_000;
    let now_ns = lab.now_ns;
    lab.rigs[0].worker.round(now_ns);
    assert!(lab.receive(0, WAN).is_empty());
    assert_eq!(lab.drops(0, DropReason::NeighbourQueueFull), 2, "eight may wait");
    let asked = lab.rigs[0].heard();
    assert!(asked.iter().any(|message| matches!(message, FromWorker::Use(key) if *key == lost)));
    lab.assert_ledger();
    lab.rigs[0].tell(ToWorker::Neighbour(lost, Mac([7; 6])));
    lab.round();
    let sent = lab.receive(0, WAN);
    assert_eq!(sent.len(), 8);
    assert!(sent.is_sorted_by_key(pollux_packet::Packet::len), "in the order they came");
    assert_eq!(sent[0].data()[..6], [7; 6]);
    for packet in sent {
        lab.pool.put(packet);
    }
    lab.assert_ledger();
}

#[test]
fn a_neighbour_that_fails_or_stays_silent_loses_its_packets() {
    let mut lab = pair();
    let lost = key(WAN, "192.0.2.2");
    lab.rigs[0].tell(ToWorker::NeighbourGone { key: lost, failed: false });
    lab.round();
    lab.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", 20));
    lab.round();
    lab.rigs[0].tell(ToWorker::NeighbourGone { key: lost, failed: true });
    lab.round();
    assert_eq!(lab.drops(0, DropReason::NoNeighbour), 1);
    lab.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", 20));
    lab.round();
    for _ in 0..12 {
        lab.now_ns += STALE_NS / 2;
        lab.round();
    }
    assert_eq!(lab.drops(0, DropReason::NoNeighbour), 2);
    lab.assert_ledger();
}

#[test]
fn each_way_to_nowhere_has_its_reason() {
    let mut lab = pair();
    let bypass = policy("10.1.0.0/16", "198.18.0.0/15", PolicyAction::Bypass);
    lab.rigs[0].policies(&[bypass, protect("10.1.0.0/16", "10.2.0.0/16")]);
    lab.send(0, LAN, &udp("10.1.0.2", "198.18.0.1", 20));
    lab.round();
    assert_eq!(lab.drops(0, DropReason::Bypassed), 1);

    let nowhere = pollux_worker::forward::fib::Fib::compile(&[]);
    lab.rigs[1].tell(ToWorker::Fib(Box::new(nowhere)));
    lab.send(1, LAN, &udp("10.2.0.2", "10.1.0.2", 20));
    lab.round();
    assert_eq!(lab.drops(1, DropReason::NoRoute), 1, "the peer cannot be reached");

    let down = PortFacts { mac: Mac([1; 6]), peer: None, mtu: 1500, up: false };
    lab.rigs[0].tell(ToWorker::Facts(WAN, down));
    lab.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", 20));
    lab.round();
    assert_eq!(lab.drops(0, DropReason::PortDown), 1);

    lab.rigs[0].tell(ToWorker::Facts(WAN, PortFacts { up: true, ..down }));
    lab.rigs[0].tell(ToWorker::PortGone(WAN));
    lab.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", 20));
    lab.round();
    assert_eq!(lab.drops(0, DropReason::PortDown), 2);
    lab.assert_ledger();
}

#[test]
fn a_full_wire_drops_and_counts() {
    let mut lab = Lab::with_wire(1, 1, 64);
    lab.rigs[0].install_pair(1, 0);
    lab.rigs[0].configure(1);
    lab.round();
    for _ in 0..2 {
        for _ in 0..64 {
            lab.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", 20));
        }
        lab.round();
    }
    assert_eq!(lab.drops(0, DropReason::TxRingFull), 64);
    lab.assert_ledger();
}

/// The way to the host stack, and the lack of one.
fn host_port(up: bool) -> PortFacts {
    PortFacts { mac: Mac([3; 6]), peer: Some(Mac([4; 6])), mtu: 1500, up }
}

#[test]
fn hops_run_out_at_the_gateway() {
    let mut lab = pair();
    lab.send(0, LAN, &udp_with("10.1.0.2", "10.2.0.2", 20, 1, false));
    lab.round();
    assert_eq!(lab.drops(0, DropReason::TtlExpired), 1);
    let answers = lab.receive_octets(0, LAN);
    assert_eq!((answers.len(), answers[0][9], answers[0][20]), (1, 1, 11), "time exceeded, to the sender");
    // Two hops: the second gateway has none left. Its host stack answers, where there is a way to it.
    for host_stack in [true, false] {
        lab.rigs[1].tell(ToWorker::Facts(HOST, host_port(host_stack)));
        lab.send(0, LAN, &udp_with("10.1.0.2", "10.2.0.2", 20, 2, false));
        lab.round();
        lab.carry(0, 1);
        lab.round();
        assert_eq!(lab.drops(1, DropReason::TtlExpired), u64::from(!host_stack));
        assert_eq!(lab.receive_octets(1, HOST).len(), usize::from(host_stack));
        assert!(lab.receive(1, LAN).is_empty());
    }
    lab.assert_ledger();
}

#[test]
fn what_is_too_long_is_answered_or_cut() {
    let mut lab = pair();
    lab.send(0, LAN, &udp_with("10.1.0.2", "10.2.0.2", 1460, 64, true));
    lab.round();
    assert_eq!(lab.drops(0, DropReason::TooBig), 1);
    let answers = lab.receive_octets(0, LAN);
    assert_eq!((answers.len(), answers[0][20], answers[0][21]), (1, 3, 4), "fragmentation needed");

    for _ in 0..40 {
        lab.send(0, LAN, &udp_with("10.1.0.2", "10.2.0.2", 1460, 64, false));
    }
    lab.round();
    assert_eq!(lab.carry(0, 1), 80, "two pieces each");
    for _ in 0..2 {
        lab.round();
    }
    let pieces = lab.receive_octets(1, LAN);
    assert_eq!(pieces.iter().map(|piece| piece.len() - 20).sum::<usize>(), 40 * 1468);
    assert_eq!(lab.drops(0, DropReason::TooBig), 1);

    // A decrypted packet too long for the LAN.
    let narrow = PortFacts { mac: Mac([2; 6]), peer: None, mtu: 600, up: true };
    lab.rigs[1].tell(ToWorker::Facts(LAN, narrow));
    for host_stack in [true, false] {
        lab.rigs[1].tell(ToWorker::Facts(HOST, host_port(host_stack)));
        lab.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", 1000));
        lab.round();
        lab.carry(0, 1);
        lab.round();
        assert_eq!(lab.drops(1, DropReason::TooBig), u64::from(!host_stack));
        assert_eq!(
            lab.receive_octets(1, HOST).len(),
            usize::from(host_stack),
            "the host stack cuts or answers"
        );
    }
    lab.assert_ledger();
}

#[test]
fn what_comes_out_of_a_tunnel_leaves_to_the_wan_by_policy_alone() {
    let mut lab = pair();
    // Gateway 1 means more by the tunnel than gateway 2 has routes for: 10.2.9.9 lies behind its wan.
    let router = pollux_worker::forward::fib::NextHop::Via(WAN, support::ip("192.0.2.1"));
    let routes = [pollux_worker::forward::fib::Route::new(support::ip("0.0.0.0"), 0, router)];
    let fib = pollux_worker::forward::fib::Fib::compile(&routes);
    lab.rigs[1].tell(ToWorker::Fib(Box::new(fib)));
    let send = |lab: &mut Lab| {
        lab.send(0, LAN, &udp("10.1.0.2", "10.2.9.9", 20));
        lab.round();
        lab.carry(0, 1);
        lab.round();
    };
    send(&mut lab);
    assert_eq!(lab.drops(1, DropReason::NoPolicy), 1, "no policy, no clear packet");
    assert!(lab.receive(1, WAN).is_empty());
    lab.rigs[1].policies(&[policy("10.1.0.0/16", "10.2.9.0/24", PolicyAction::Bypass)]);
    send(&mut lab);
    assert_eq!(lab.receive_octets(1, WAN), [forwarded(&udp("10.1.0.2", "10.2.9.9", 20), 2)]);
    lab.assert_ledger();
}

#[test]
fn a_bypassed_packet_that_cannot_go_on_is_answered_by_the_host_stack() {
    let mut lab = pair();
    let router = pollux_worker::forward::fib::NextHop::Via(WAN, support::ip("192.0.2.1"));
    let routes = [pollux_worker::forward::fib::Route::new(support::ip("0.0.0.0"), 0, router)];
    lab.rigs[1].tell(ToWorker::Fib(Box::new(pollux_worker::forward::fib::Fib::compile(&routes))));
    lab.rigs[1].policies(&[policy("10.2.0.0/16", "198.18.0.0/15", PolicyAction::Bypass)]);
    let narrow = PortFacts { mac: Mac([1; 6]), peer: Some(Mac([5; 6])), mtu: 600, up: true };
    lab.rigs[1].tell(ToWorker::Facts(WAN, narrow));
    let expired = udp_with("10.2.0.2", "198.18.0.1", 20, 1, false);
    let too_big = udp("10.2.0.2", "198.18.0.1", 1000);
    for host_stack in [true, false] {
        lab.rigs[1].tell(ToWorker::Facts(HOST, host_port(host_stack)));
        for packet in [&expired, &too_big] {
            lab.send(1, LAN, packet);
        }
        lab.round();
        let answered: &[Vec<u8>] = if host_stack { &[expired.clone(), too_big.clone()] } else { &[] };
        assert_eq!(lab.receive_octets(1, HOST), answered, "as they were: the host stack takes the hop");
    }
    assert_eq!(lab.drops(1, DropReason::TtlExpired), 1, "without a host port");
    assert_eq!(lab.drops(1, DropReason::TooBig), 1, "without a host port");
    assert!(lab.receive(1, WAN).is_empty());
    lab.assert_ledger();
}

#[test]
fn clear_packets_from_outside_and_strangers_die_with_their_reasons() {
    let mut lab = pair();
    lab.send(1, WAN, &udp("10.1.0.2", "10.2.0.2", 20));
    lab.send(1, WAN, &udp("8.8.8.8", "10.2.0.2", 20));
    lab.send(1, LAN, &udp("10.2.0.2", "8.8.8.8", 20));
    lab.send(1, LAN, &[0x45, 0, 0]);
    lab.round();
    assert_eq!(lab.drops(1, DropReason::ClearForProtected), 1);
    assert_eq!(lab.drops(1, DropReason::NotOurs), 1);
    assert_eq!(lab.drops(1, DropReason::NoPolicy), 1);
    assert_eq!(lab.drops(1, DropReason::Malformed), 1);
    lab.assert_ledger();
}

#[test]
fn a_scan_of_a_subnet_does_not_stop_the_resolution_of_a_neighbour() {
    let mut lab = pair();
    // A host behind the peer goes through addresses of the LAN that nobody has: one packet each.
    for n in 0..400u32 {
        let target = format!("10.1.{}.{}", 10 + n / 200, 1 + n % 200);
        lab.send(1, LAN, &udp("10.2.0.2", &target, 20));
        lab.round();
        lab.carry(1, 0);
        lab.round();
    }
    let now_ns = lab.now_ns;
    lab.send(1, LAN, &udp("10.2.0.2", "10.1.0.77", 20));
    lab.round();
    lab.carry(1, 0);
    lab.rigs[0].worker.round(now_ns + 10_000);
    let wanted = key(LAN, "10.1.0.77");
    let asked = lab.rigs[0].heard();
    assert!(asked.iter().any(|message| matches!(message, FromWorker::Use(key) if *key == wanted)));
    lab.rigs[0].tell(ToWorker::Neighbour(wanted, Mac([7; 6])));
    lab.round();
    let sent = lab.receive_octets(0, LAN);
    assert_eq!(sent, [forwarded(&udp("10.2.0.2", "10.1.0.77", 20), 2)], "its packet has waited");
    assert!(lab.drops(0, DropReason::NeighbourQueueFull) > 200, "the oldest of the scan made room");
    lab.assert_ledger();
}

#[test]
fn what_leaves_one_tunnel_too_long_for_the_next_goes_on_without_another_packet() {
    let mut lab = pair();
    // Gateway 2 sends what comes out of the tunnel from gateway 1 back into a tunnel, whose path is narrower.
    let router = pollux_worker::forward::fib::NextHop::Via(WAN, support::ip("192.0.2.1"));
    let routes = [pollux_worker::forward::fib::Route::new(support::ip("0.0.0.0"), 0, router)];
    let fib = pollux_worker::forward::fib::Fib::compile(&routes);
    lab.rigs[1].tell(ToWorker::Fib(Box::new(fib)));
    lab.rigs[1].policies(&[protect("10.1.0.0/16", "10.2.9.0/24"), protect("10.2.0.0/16", "10.1.0.0/16")]);
    let mut back = support::sa(pollux_abi::command::Direction::Outbound, 2, 2, 0);
    back.id = pollux_abi::SaId(99);
    back.index = pollux_abi::SaIndex(9);
    back.spi = pollux_abi::Spi::new(0x1009).expect("not reserved");
    back.local_ts = pollux_abi::Selectors::new(&[support::net("10.1.0.0/16")]).expect("one");
    back.remote_ts = pollux_abi::Selectors::new(&[support::net("10.2.9.0/24")]).expect("one");
    lab.rigs[1].install(back);
    lab.round();
    for _ in 0..40 {
        lab.send(0, LAN, &udp("10.1.0.2", "10.2.9.9", 1400));
    }
    lab.round();
    lab.carry(0, 1);
    let narrow = PortFacts { mac: Mac([1; 6]), peer: None, mtu: 600, up: true };
    lab.rigs[1].tell(ToWorker::Facts(WAN, narrow));
    // One packet arrives; from then on nothing does.
    for _ in 0..4 {
        lab.round();
    }
    let found = lab.rigs[1].worker.round(lab.now_ns + 5_000);
    assert_eq!(found, 0, "nothing is left lying");
    let sent = lab.receive_octets(1, WAN);
    assert_eq!(sent.len(), 40 * 3, "each in three pieces: {}", sent.len());
    assert!(sent.iter().all(|packet| packet.len() <= 600));
    lab.assert_ledger();
}
