//! The indexes find what a walk through everything would find.

use core::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::super::book::{Book, rank};
use super::pair;
use crate::config::{AddressRange, Connection, EndpointConfig, PreSharedKey};
use crate::identity::{Identity, IdentityPattern};

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

fn config() -> impl Strategy<Value = EndpointConfig> {
    let connections = prop::collection::vec((addresses(), addresses(), pattern()), 0..8);
    let secrets = prop::collection::vec(prop::collection::vec(pattern(), 0..3), 0..6);
    (connections, secrets).prop_map(|(connections, secrets)| {
        let connection = |(number, (local_addrs, remote_addrs, remote_id))| {
            let name = format!("c{number}").into();
            Arc::new(Connection { name, local_addrs, remote_addrs, remote_id, ..pair::connection("b") })
        };
        let secret = |(number, owners)| PreSharedKey { owners, key: Arc::new(Zeroizing::new(vec![number])) };
        EndpointConfig {
            connections: connections.into_iter().enumerate().map(connection).collect(),
            secrets: (0..).zip(secrets).map(secret).collect(),
            ..pair::config("b")
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

proptest! {
    #[test]
    fn the_indexes_find_what_a_walk_would(
        config in config(), local in address(), remote in address(), theirs in identity(), ours in identity(),
    ) {
        let book = Book::new(Arc::new(config.clone()));
        let walked = walk(&config, local, remote);
        let found: Vec<_> = book.about(local, remote).cloned().collect();
        prop_assert_eq!(&found, &walked);

        let mut of_peer: Vec<_> = walked
            .into_iter()
            .filter_map(|connection| Some((connection.remote_id.rank(&theirs)?, connection)))
            .collect();
        of_peer.sort_by_key(|(rank, _)| core::cmp::Reverse(*rank));
        let of_peer: Vec<_> = of_peer.into_iter().map(|(_, connection)| connection).collect();
        let found: Vec<_> = book.about_peer(local, remote, &theirs).cloned().collect();
        prop_assert_eq!(found, of_peer);

        let of_all = crate::exchange::psk::best(config.secrets.iter(), &ours, &theirs);
        let of_some = crate::exchange::psk::find(&book, &ours, &theirs).ok();
        prop_assert_eq!(of_some, of_all.map(|secret| secret.key.clone()));
    }
}
