//! The indexes find what a walk through everything would find.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::{ConnectionIndex, rank};
use crate::config::{
    AddressRange, Connection, EndpointConfig, Limits, Ports, PreSharedKey, Retransmit, Unique,
};
use crate::identity::{Identity, IdentityPattern};
use crate::negotiate::Proposal;

const NAMES: [&str; 4] = ["a.example", "B.example", "b.Example", "c.test"];
const PATTERNS: [&str; 6] = ["a.example", "b.example", "c.test", "*.example", "*.test", "%any"];

fn address() -> impl Strategy<Value = IpAddr> {
    (0..4u8).prop_map(|host| IpAddr::from([192, 0, 2, host]))
}

fn addresses() -> impl Strategy<Value = Vec<AddressRange>> {
    let range = (address(), address())
        .prop_map(|(one, other)| AddressRange { first: one.min(other), last: one.max(other) });
    prop::collection::vec(range, 0..3)
}

fn pattern() -> impl Strategy<Value = IdentityPattern> {
    prop::sample::select(&PATTERNS[..]).prop_map(|text| IdentityPattern::parse(text).expect("a pattern"))
}

fn identity() -> impl Strategy<Value = Identity> {
    prop::sample::select(&NAMES[..]).prop_map(|text| Identity::parse(text).expect("an identity"))
}

fn connection(name: Arc<str>) -> Connection {
    Connection {
        name,
        local_addrs: Vec::new(),
        remote_addrs: Vec::new(),
        remote_port: 500,
        local_id: None,
        remote_id: IdentityPattern::Any,
        proposals: Proposal::default_ike(),
        encap: false,
        dpd_delay: Duration::ZERO,
        rekey_time: Duration::ZERO,
        over_time: Duration::ZERO,
        rand_time: Duration::ZERO,
        keyingtries: 1,
        unique: Unique::No,
        children: Vec::new(),
    }
}

fn nothing() -> EndpointConfig {
    EndpointConfig {
        connections: Vec::new(),
        secrets: Vec::new(),
        limits: Limits::default(),
        retransmit: Retransmit::default(),
        nat_keepalive: Duration::ZERO,
        ports: Ports::default(),
        log_keys: false,
    }
}

fn config() -> impl Strategy<Value = EndpointConfig> {
    let connections = prop::collection::vec((addresses(), addresses(), pattern()), 0..8);
    let secrets = prop::collection::vec(prop::collection::vec(pattern(), 0..3), 0..6);
    (connections, secrets).prop_map(|(connections, secrets)| {
        let one = |(number, (local_addrs, remote_addrs, remote_id))| {
            let name = format!("c{number}").into();
            Arc::new(Connection { local_addrs, remote_addrs, remote_id, ..connection(name) })
        };
        // Every other one is named by the connection of its number.
        let secret = |(number, owners): (u8, Vec<IdentityPattern>)| PreSharedKey {
            connection: (number % 2 == 1).then(|| format!("c{number}").into()),
            owners,
            key: Arc::new(Zeroizing::new(vec![number])),
        };
        EndpointConfig {
            connections: connections.into_iter().enumerate().map(one).collect(),
            secrets: (0..).zip(secrets).map(secret).collect(),
            ..nothing()
        }
    })
}

/// Every connection about these addresses, best first.
fn walk(config: &EndpointConfig, local: IpAddr, remote: IpAddr) -> Vec<Arc<Connection>> {
    let mut ranked: Vec<_> = config
        .connections
        .iter()
        .filter_map(|one| {
            Some(((rank(&one.remote_addrs, remote)?, rank(&one.local_addrs, local)?), one.clone()))
        })
        .collect();
    ranked.sort_by_key(|(ranks, _)| core::cmp::Reverse(*ranks));
    ranked.into_iter().map(|(_, connection)| connection).collect()
}

#[test]
fn addresses_decide_between_connections_and_the_file_between_equals() {
    let at = |name: &str, remote_addrs: Vec<AddressRange>| {
        Arc::new(Connection { remote_addrs, ..connection(name.into()) })
    };
    let range = AddressRange { first: [192, 0, 2, 0].into(), last: [192, 0, 2, 255].into() };
    let connections = vec![
        at("any", vec![]),
        at("net", vec![range]),
        at("host", vec![AddressRange::host([192, 0, 2, 1].into())]),
    ];
    let connection_index = ConnectionIndex::new(Arc::new(EndpointConfig { connections, ..nothing() }));
    let names = |remote: [u8; 4]| -> Vec<String> {
        let found = connection_index.about([192, 0, 2, 2].into(), remote.into());
        found.map(|connection| connection.name.to_string()).collect()
    };
    assert_eq!(names([192, 0, 2, 1]), ["host", "net", "any"]);
    assert_eq!(names([192, 0, 2, 7]), ["net", "any"]);
    assert_eq!(names([10, 0, 0, 1]), ["any"]);
}

proptest! {
    #[test]
    fn the_indexes_find_what_a_walk_would(
        config in config(), local in address(), remote in address(), theirs in identity(), ours in identity(),
        of in 0..8u8,
    ) {
        let connection_index = ConnectionIndex::new(Arc::new(config.clone()));
        let walked = walk(&config, local, remote);
        let found: Vec<_> = connection_index.about(local, remote).cloned().collect();
        prop_assert_eq!(&found, &walked);

        let mut of_peer: Vec<_> = walked
            .into_iter()
            .filter_map(|connection| Some((connection.remote_id.rank(&theirs)?, connection)))
            .collect();
        of_peer.sort_by_key(|(rank, _)| core::cmp::Reverse(*rank));
        let of_peer: Vec<_> = of_peer.into_iter().map(|(_, connection)| connection).collect();
        let found: Vec<_> = connection_index.about_peer(local, remote, &theirs).cloned().collect();
        prop_assert_eq!(found, of_peer);

        let name = format!("c{of}");
        let of_all = crate::exchange::psk::best(config.secrets.iter(), &name, &ours, &theirs);
        let of_some = crate::exchange::psk::find(&connection_index, &name, &ours, &theirs).ok();
        prop_assert_eq!(of_some, of_all.map(|secret| secret.key.clone()));
    }
}
