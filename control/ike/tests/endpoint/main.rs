//! Two endpoints that talk to each other over a perfect network and a data plane that never hesitates.

mod admission;
mod hostile;
mod liveness;
mod narrowing;
mod protected;
mod refusals;
mod rekeys;
mod wildcard;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use pollux_abi::command::Direction;
use pollux_abi::event::SaStats;
use pollux_abi::{Reqid, SaId, Spi};

use pollux_ike::IdentityPattern;
use pollux_ike::config::{
    Action, AddressRange, ChildConfig, Connection, EndpointConfig, Limits, PreSharedKey, SelectorConfig,
    Unique,
};
use pollux_ike::endpoint::{Command, LiveSa, Transmit};
use pollux_ike::event::{DownReason, Event, KeyLog};
use pollux_ike::message::{ExchangeType, Header};
use pollux_ike::negotiate::Proposal;
use pollux_pair::{Pair, Seeded, child, config, config_of, connection, shared_key};

#[test]
fn both_ends_reach_one_child_sa_with_mirrored_spis() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.initiate(0);
    pair.run(5_000);
    let [a, b] = [0, 1].map(|end| pair.children(end));
    assert_eq!((a.len(), b.len()), (1, 1), "{:#?}", pair.events);
    assert_eq!((a[0].spi_in, a[0].spi_out), (b[0].spi_out, b[0].spi_in));
    assert_eq!(a[0].local_ts, b[0].remote_ts);
    assert!(pair.keys_match(), "what one end seals the other opens");
    assert!(pair.events.iter().any(|(end, event)| *end == 0 && matches!(event, Event::ChildUp(_))));
}

#[test]
fn every_child_of_the_connection_comes_up() {
    let with_two = |end: &str| {
        let mut connection = connection(end);
        let mut voice = child(end);
        voice.name = "voice".into();
        voice.reqid = None;
        connection.children.push(Arc::new(voice));
        config_of(connection)
    };
    let mut pair = Pair::new(with_two("a"), with_two("b"));
    pair.initiate(0);
    pair.run(5_000);
    assert_eq!((pair.children(0).len(), pair.children(1).len()), (2, 2), "{:#?}", pair.events);
    assert!(pair.keys_match());
    let reqids: Vec<_> = pair.children(0).iter().map(|child| child.reqid).collect();
    assert_ne!(reqids[0], reqids[1], "a child without reqid gets one of its own");
}

#[test]
fn a_wildcard_responder_serves_a_client_it_has_never_heard_of() {
    let mut server = connection("b");
    server.remote_addrs = Vec::new();
    server.remote_id = IdentityPattern::Any;
    server.children = vec![Arc::new(ChildConfig { reqid: None, ..child("b") })];
    let mut pair = Pair::new(config("a"), config_of(server));
    pair.initiate(0);
    pair.run(5_000);
    assert_eq!((pair.children(0).len(), pair.children(1).len()), (1, 1), "{:#?}", pair.events);
    assert!(pair.children(1)[0].reqid.is_of_peer());
}

#[test]
fn responder_narrows_and_dynamic_selectors_are_the_outer_addresses() {
    let mut client = connection("a");
    client.children = vec![Arc::new(ChildConfig { local_ts: vec![SelectorConfig::Dynamic], ..child("a") })];
    let mut server = connection("b");
    let any = pollux_abi::TrafficSelector::any_v4();
    server.children =
        vec![Arc::new(ChildConfig { remote_ts: vec![SelectorConfig::Fixed(any)], ..child("b") })];
    let mut pair = Pair::new(config_of(client), config_of(server));
    pair.initiate(0);
    pair.run(5_000);
    let server = pair.children(1);
    assert_eq!(server[0].remote_ts[0].to_string(), "192.0.2.1/32");
    assert_eq!(pair.children(0)[0].local_ts, server[0].remote_ts);
}

#[test]
fn lost_datagrams_are_repeated_and_cost_nothing_but_time() {
    let mut pair = Pair::new(config("a"), config("b"));
    // Every third datagram is lost.
    pair.network = |pair, _, transmit| (pair.sent.len() % 3 != 1).then_some(transmit);
    pair.initiate(0);
    pair.run(60_000);
    assert_eq!((pair.children(0).len(), pair.children(1).len()), (1, 1), "{:#?}", pair.events);
    assert_eq!(pair.tables[1].len(), 2, "a repeated request made nothing twice");
}

#[test]
fn repeated_requests_wait_longer_each_time_and_not_all_alike() {
    let mut firsts = std::collections::BTreeSet::new();
    for seed in 1..=4 {
        let mut pair = Pair::new(config("a"), config("b"));
        pair.rng = Seeded::new(seed);
        pair.network = |_, _, _| None;
        pair.initiate(0);
        let (mut sent_at, mut waits) = (pair.now, Vec::new());
        while waits.len() < 4 {
            let before = pair.sent.len();
            pair.run(10);
            if pair.sent.len() > before {
                waits.push(pair.now.since(sent_at).as_millis());
                sent_at = pair.now;
            }
        }
        // Two seconds, then 1.8 times as long each time, and up to a fifth more at random.
        for (wait, base) in waits.iter().zip([2_000, 3_600, 6_480, 11_664]) {
            assert!((base..=base + base / 5 + 20).contains(wait), "{waits:?}");
        }
        firsts.insert(waits[0]);
    }
    assert!(firsts.len() > 1, "two gateways that lose a datagram at once do not repeat it at once");
}

#[test]
fn each_connection_has_the_key_that_it_names() {
    let mut server = config("b");
    let mut other = connection("b");
    other.name = "other".into();
    other.remote_addrs = vec![AddressRange::host([10, 0, 0, 9].into())];
    let mut peer = connection("b");
    // Neither says who its peer is: the address alone tells them apart.
    (other.remote_id, peer.remote_id) = (IdentityPattern::Any, IdentityPattern::Any);
    server.connections = vec![Arc::new(other), Arc::new(peer)];
    let named = |connection: &str, key: &[u8]| PreSharedKey {
        connection: Some(connection.into()),
        ..shared_key(key)
    };
    server.secrets = vec![named("other", b"of the other"), named("peer", b"secret")];
    let mut pair = Pair::new(config("a"), server);
    pair.initiate(0);
    pair.run(5_000);
    assert_eq!((pair.children(0).len(), pair.children(1).len()), (1, 1), "{:#?}", pair.events);
}

#[test]
fn the_first_message_goes_to_the_port_that_the_connection_names() {
    for (remote_port, local_port) in [(500, 500), (1500, 500), (4500, 4500)] {
        let mut pair = Pair::new(config_of(Connection { remote_port, ..connection("a") }), config("b"));
        pair.initiate(0);
        let first = &pair.sent[0].1;
        assert_eq!((first.local.port(), first.remote.port()), (local_port, remote_port));
        pair.run(2_000);
        assert_eq!(pair.children(0).len(), 1, "{:#?}", pair.events);
    }
}

#[test]
fn a_dead_peer_is_given_up_and_its_sas_leave_the_data_plane() {
    let mut start = connection("a");
    start.children = vec![Arc::new(ChildConfig { dpd_action: Action::Start, ..child("a") })];
    let mut pair = Pair::new(config_of(start), config("b"));
    pair.initiate(0);
    pair.run(5_000);
    pair.network = |_, _, _| None;
    pair.run(200_000);
    assert!(pair.tables[0].is_empty() && pair.tables[1].is_empty(), "{:#?}", pair.tables[0].keys());
    let dead =
        |(_, event): &(usize, Event)| matches!(event, Event::IkeDown { reason: DownReason::PeerDead, .. });
    assert!(pair.events.iter().filter(|event| dead(event)).count() >= 2);
    assert!(pair.events.iter().any(|(end, event)| *end == 0 && matches!(event, Event::Retry { .. })));
    assert_eq!(pair.state_len(1), 0, "nothing is left of the peer");
}

#[test]
fn no_probe_while_esp_arrives() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.initiate(0);
    pair.run(1_000);
    pair.idle = Some(Duration::from_secs(3));
    let before = pair.sent.len();
    pair.run(300_000);
    assert_eq!(pair.sent.len(), before, "the counters say that the peer lives");
    pair.idle = Some(Duration::from_mins(1));
    pair.run(60_000);
    let probes = pair.events.iter().filter(|(_, event)| matches!(event, Event::LivenessProbe { .. })).count();
    assert!(probes > 0 && pair.sent.len() > before);
    assert_eq!(pair.children(0).len(), 1, "and it answers");
}

#[test]
fn a_nat_moves_both_ends_to_port_4500() {
    let mut server = connection("b");
    server.remote_addrs = Vec::new();
    let mut pair = Pair::new(config("a"), config_of(server));
    pair.network = |_, end, transmit| Some(masquerade(end, transmit));
    pair.initiate(0);
    pair.run(5_000);
    assert_eq!((pair.children(0).len(), pair.children(1).len()), (1, 1), "{:#?}", pair.events);
    assert!(pair.children(0)[0].encap && pair.children(1)[0].encap);
    let outbound = pair.tables[1].values().find(|sa| sa.direction == Direction::Outbound).expect("an SA");
    let ports = outbound.encap.expect("in UDP");
    assert_eq!((ports.local, ports.remote, outbound.remote), (4500, 34_500, NAT.into()));
    let keepalives = |pair: &Pair| pair.sent.iter().filter(|(end, sent)| *end == 0 && sent.keepalive).count();
    pair.run(61_000);
    assert_eq!(keepalives(&pair), 3, "one each 20 seconds, from behind the NAT alone");
    assert!(pair.sent.iter().all(|(end, sent)| *end == 0 || !sent.keepalive));
}

const NAT: [u8; 4] = [203, 0, 113, 9];

/// A NAT in front of end 0 that adds 30,000 to the ports.
fn masquerade(end: usize, mut transmit: Transmit) -> Transmit {
    if end == 0 {
        transmit.local = SocketAddr::new(NAT.into(), transmit.local.port() + 30_000);
    } else if transmit.remote.ip() == IpAddr::from(NAT) {
        transmit.remote = SocketAddr::new([192, 0, 2, 1].into(), transmit.remote.port() - 30_000);
    }
    transmit
}

#[test]
fn the_source_address_of_the_route_is_what_nat_detection_hashes() {
    let unspecified = |end: &str| config_of(Connection { local_addrs: Vec::new(), ..connection(end) });
    for initiator in 0..2 {
        let mut pair = Pair::new(unspecified("a"), unspecified("b"));
        pair.initiate(initiator);
        pair.run(5_000);
        for end in 0..2 {
            let children = pair.children(end);
            assert_eq!(children.len(), 1, "{:#?}", pair.events);
            assert!(!children[0].encap, "no NAT, and yet ESP in UDP: {:#?}", pair.events);
        }
        let outbound = pair.tables[initiator].values().next().expect("an SA");
        assert!(!outbound.local.is_unspecified(), "{outbound:?}");
    }
}

#[test]
fn without_a_route_an_attempt_fails_with_its_reason_and_is_made_again() {
    let v6: IpAddr = "2001:db8::2".parse().expect("an address");
    let far = Connection {
        local_addrs: Vec::new(),
        remote_addrs: vec![AddressRange::host(v6)],
        keyingtries: 0,
        ..connection("a")
    };
    // The pair's routes are of IPv4 alone.
    let mut pair = Pair::new(config_of(far), config("b"));
    pair.initiate(0);
    pair.run(60_000);
    let no_route = |(_, event): &&(usize, Event)| matches!(event, Event::Refused { error: pollux_ike::IkeError::NoRoute { remote, .. }, .. } if *remote == v6);
    let told = pair.events.iter().filter(no_route).count();
    assert!((2..30).contains(&told), "{told} attempts in a minute: {:#?}", pair.events);
    assert!(pair.sent.is_empty(), "nothing leaves without an address of ours");
}

#[test]
fn forced_encapsulation_puts_esp_in_udp_without_a_nat() {
    let mut forced = connection("a");
    forced.encap = true;
    let mut pair = Pair::new(config_of(forced), config("b"));
    pair.initiate(0);
    pair.run(5_000);
    assert!(pair.children(0)[0].encap && pair.children(1)[0].encap, "{:#?}", pair.events);
    let auth = pair.sent.iter().find(|(_, sent)| exchange(sent) == ExchangeType::IkeAuth).expect("sent");
    assert_eq!((auth.1.local.port(), auth.1.remote.port()), (4500, 4500));
}

fn exchange(transmit: &Transmit) -> ExchangeType {
    Header::parse(&transmit.bytes).expect("a header").exchange
}

#[test]
fn a_cookie_is_demanded_under_load_and_brought() {
    let mut busy = config("b");
    busy.limits = Limits { cookie_threshold: 0, ..Limits::default() };
    let mut pair = Pair::new(config("a"), busy);
    pair.initiate(0);
    pair.run(5_000);
    assert_eq!(pair.children(1).len(), 1, "{:#?}", pair.events);
    let init = pair.sent.iter().filter(|(_, sent)| exchange(sent) == ExchangeType::IkeSaInit).count();
    assert_eq!(init, 4, "request, cookie, request with it, answer");
}

#[test]
fn another_group_is_taken_when_the_responder_asks_for_it() {
    let propose = |end: &str, text: &str| {
        let mut connection = connection(end);
        connection.proposals = vec![Proposal::parse_ike(text).expect("a proposal")];
        config_of(connection)
    };
    let mut pair = Pair::new(
        propose("a", "aes128gcm16-prfsha256-ecp256-x25519"),
        propose("b", "aes128gcm16-prfsha256-x25519"),
    );
    pair.initiate(0);
    pair.run(5_000);
    assert_eq!((pair.children(0).len(), pair.children(1).len()), (1, 1), "{:#?}", pair.events);
}

#[test]
fn initial_contact_clears_what_the_peer_has_forgotten() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.initiate(0);
    pair.run(5_000);
    pair.restart(0, Vec::new());
    pair.initiate(0);
    pair.run(5_000);
    assert_eq!(pair.children(1).len(), 1);
    assert!(pair.has_down(1, DownReason::InitialContact), "{:#?}", pair.events);
    assert_eq!(pair.tables[1].len(), 2, "the old SAs have left the data plane");
}

#[test]
fn no_initial_contact_while_the_data_plane_holds_sas_of_the_peer() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.initiate(0);
    pair.run(5_000);
    let live = pair.live(0);
    pair.restart(0, live);
    pair.initiate(0);
    pair.run(2_000);
    assert!(!pair.has_down(1, DownReason::InitialContact), "{:#?}", pair.events);
    let inbound =
        |pair: &Pair| pair.tables[0].values().filter(|sa| sa.direction == Direction::Inbound).count();
    assert_eq!(inbound(&pair), 2, "the old inbound SA still decrypts");
    pair.idle = Some(Duration::from_secs(40));
    pair.run(15_000);
    assert_eq!(inbound(&pair), 1, "until it is silent");
}

#[test]
fn after_a_restart_the_peers_with_the_newest_traffic_come_first() {
    let peers: [[u8; 4]; 4] = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3], [10, 0, 0, 4]];
    let connections = peers.map(|peer| {
        let children = vec![Arc::new(ChildConfig { start_action: Action::Start, reqid: None, ..child("a") })];
        let remote_addrs = vec![AddressRange::host(peer.into())];
        let name = format!("to {}", peer[3]).into();
        Arc::new(Connection { name, remote_addrs, children, ..connection("a") })
    });
    let mut pair =
        Pair::new(EndpointConfig { connections: connections.to_vec(), ..config("a") }, config("b"));
    pair.network = |_, _, _| None;
    // What the data plane has of an earlier life; of the second peer it has nothing.
    let idle = |n: u64, peer: usize, idle_ns: u64| LiveSa {
        id: SaId(100 + n),
        direction: Direction::Inbound,
        spi: Spi::new(0x1000 + u32::try_from(n).expect("small")).expect("not reserved"),
        reqid: Reqid(7),
        local: [192, 0, 2, 1].into(),
        remote: peers[peer].into(),
        encap: None,
        idle_ns,
    };
    pair.restart(0, vec![idle(0, 0, 5_000), idle(1, 2, 20), idle(2, 3, u64::MAX), idle(3, 0, 900)]);
    let order: Vec<IpAddr> =
        pair.sent[pair.sent.len() - 4..].iter().map(|(_, sent)| sent.remote.ip()).collect();
    assert_eq!(order, [2, 0, 3, 1].map(|peer| IpAddr::from(peers[peer])));
}

#[test]
fn many_connections_that_start_by_themselves_are_begun_at_a_pace() {
    let connections: Vec<Arc<Connection>> = (0..300_u16)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            let children =
                vec![Arc::new(ChildConfig { start_action: Action::Start, reqid: None, ..child("a") })];
            let remote_addrs = vec![AddressRange::host([10, 0, high, low].into())];
            Arc::new(Connection { name: format!("to {n}").into(), remote_addrs, children, ..connection("a") })
        })
        .collect();
    let mut pair = Pair::new(EndpointConfig { connections, ..config("a") }, config("b"));
    pair.network = |_, _, _| None;
    pair.restart(0, Vec::new());
    let peers = |pair: &Pair| {
        let ours = pair.sent.iter().filter(|(from, _)| *from == 0);
        ours.map(|(_, sent)| sent.remote).collect::<std::collections::HashSet<_>>().len()
    };
    assert_eq!(peers(&pair), 64, "at once");
    pair.run(150);
    assert_eq!(peers(&pair), 128, "after a tenth of a second");
    pair.run(1_000);
    assert_eq!(peers(&pair), 300, "and then all of them");
}

#[test]
fn a_replaced_ike_sa_goes_where_only_one_may_be() {
    let unique = |end: &str| {
        let mut connection = connection(end);
        connection.unique = Unique::Replace;
        config_of(connection)
    };
    let mut pair = Pair::new(unique("a"), unique("b"));
    // Both begin at once.
    pair.initiate(0);
    pair.initiate(1);
    pair.run(10_000);
    for end in 0..2 {
        assert_eq!(pair.ends[end].status(pair.now).len(), 1, "{:#?}", pair.events);
        assert_eq!(pair.children(end).len(), 1);
    }
    assert!(pair.keys_match());
}

#[test]
fn termination_and_a_changed_configuration_close_both_ends() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.initiate(0);
    pair.run(2_000);
    let mut changed = connection("a");
    changed.dpd_delay = Duration::from_secs(7);
    pair.command(0, Command::Reload(Arc::new(config("a"))));
    pair.run(2_000);
    assert_eq!(pair.children(0).len(), 1, "the same configuration touches nothing");
    pair.command(0, Command::Reload(Arc::new(config_of(changed))));
    pair.run(20_000);
    assert!(pair.tables.iter().all(std::collections::BTreeMap::is_empty), "{:#?}", pair.events);
    assert!(pair.has_down(0, DownReason::Operator) && pair.has_down(1, DownReason::Peer));
    assert_eq!([0, 1].map(|end| pair.state_len(end)), [0, 0]);
}

#[test]
fn keys_are_told_only_where_the_configuration_asks() {
    for (log_keys, told) in [(false, 0), (true, 3)] {
        let mut logging = config("a");
        logging.log_keys = log_keys;
        let mut pair = Pair::new(logging, config("b"));
        pair.initiate(0);
        pair.run(2_000);
        let keys = pair.events.iter().filter(|(_, event)| matches!(event, Event::Keys(_)));
        assert_eq!(keys.count(), told);
        let printed = format!("{:?}", pair.events);
        let material = pair.events.iter().find_map(|(_, event)| match event {
            Event::Keys(KeyLog::Esp { material, .. }) => Some(format!("{material:?}")),
            _ => None,
        });
        assert!(material.is_none_or(|material| !printed.contains(&material)), "keys are never printed");
    }
}

#[test]
fn an_answer_for_an_sa_that_nobody_has_changes_nothing() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.initiate(0);
    pair.run(2_000);
    let (events, sent) = (pair.events.len(), pair.sent.len());
    let sa = SaId(9_999);
    pair.command(0, Command::SaInstalled { sa });
    pair.command(0, Command::FirstPacket { sa });
    pair.command(0, Command::Lifetime { sa, hard: true });
    pair.command(0, Command::SaStats { sa, stats: SaStats::default() });
    assert_eq!((pair.events.len(), pair.sent.len()), (events, sent));
}
