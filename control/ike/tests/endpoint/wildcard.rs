//! Peers of a connection for anybody do not take each other's traffic (RFC 4301 §4.4.3, §5.2).

use std::sync::Arc;

use pollux_abi::TrafficSelector;
use pollux_ike::config::{ChildConfig, Connection, EndpointConfig, SelectorConfig};
use pollux_ike::endpoint::{Command, Target};
use pollux_ike::error::IkeError;
use pollux_ike::event::Event;
use pollux_ike::{Identity, IdentityPattern};
use pollux_pair::{Pair, child, config, config_of, connection};

fn net(text: &str) -> TrafficSelector {
    let (address, len) = text.split_once('/').expect("a prefix");
    TrafficSelector::prefix(address.parse().expect("an address"), len.parse().expect("a length"))
        .expect("a prefix")
}

/// Two clients at one end, each under a name of its own and with selectors of its own; a server for anybody.
fn clients_and_server(selectors: [&[&str]; 2]) -> Pair {
    let clients = [("one", selectors[0]), ("two", selectors[1])].map(|(name, local_ts)| {
        let local_ts = local_ts.iter().map(|text| SelectorConfig::Fixed(net(text))).collect();
        let children = vec![Arc::new(ChildConfig { local_ts, reqid: None, ..child("a") })];
        let local_id = Identity::parse(&format!("{name}.example"));
        Arc::new(Connection { name: name.into(), local_id, children, ..connection("a") })
    });
    let mut server = connection("b");
    server.remote_addrs = Vec::new();
    server.remote_id = IdentityPattern::Any;
    let remote_ts = vec![SelectorConfig::Fixed(net("10.0.0.0/8"))];
    server.children = vec![Arc::new(ChildConfig { reqid: None, remote_ts, ..child("b") })];
    Pair::new(EndpointConfig { connections: clients.to_vec(), ..config("a") }, config_of(server))
}

fn bring_up(pair: &mut Pair, name: &str) {
    pair.command(0, Command::Initiate { connection: name.into(), child: None });
    pair.run(3_000);
}

/// What the server carries, of which its clients have told it.
fn carried(pair: &Pair) -> Vec<String> {
    let mut carried: Vec<String> =
        pair.children(1).iter().flat_map(|child| child.remote_ts.iter().map(ToString::to_string)).collect();
    carried.sort_unstable();
    carried
}

fn in_use(pair: &Pair) -> bool {
    pair.events.iter().any(|(end, event)| {
        *end == 1 && matches!(event, Event::Refused { error: IkeError::TsInUse { by, .. }, .. } if by.contains("one.example"))
    })
}

#[test]
fn selectors_in_use_by_another_identity_are_refused_until_they_are_free() {
    let mut pair = clients_and_server([&["10.8.0.0/24"], &["10.8.0.7/32"]]);
    bring_up(&mut pair, "one");
    assert_eq!(carried(&pair), ["10.8.0.0/24"], "{:#?}", pair.events);
    bring_up(&mut pair, "two");
    assert_eq!(carried(&pair), ["10.8.0.0/24"], "the other one's");
    assert!(in_use(&pair), "{:#?}", pair.events);
    let target = Target::Connection { connection: "one".into(), child: None };
    pair.command(0, Command::Terminate(target));
    pair.run(20_000);
    bring_up(&mut pair, "two");
    assert_eq!(carried(&pair), ["10.8.0.7/32"], "{:#?}", pair.events);
}

#[test]
fn of_several_selectors_those_that_are_free_are_given() {
    let mut pair = clients_and_server([&["10.8.0.7/32"], &["10.8.0.0/24", "10.9.0.0/24"]]);
    bring_up(&mut pair, "one");
    bring_up(&mut pair, "two");
    assert_eq!(carried(&pair), ["10.8.0.7/32", "10.9.0.0/24"], "{:#?}", pair.events);
}

#[test]
fn the_same_identity_has_its_selectors_again_and_keeps_them_over_a_rekey() {
    let mut pair = clients_and_server([&["10.8.0.7/32"], &["10.8.0.7/32"]]);
    bring_up(&mut pair, "one");
    // It has forgotten all of it, and the server does not know yet.
    pair.restart(0, Vec::new());
    bring_up(&mut pair, "one");
    assert!(
        carried(&pair).iter().all(|selector| selector == "10.8.0.7/32") && !in_use(&pair),
        "{:#?}",
        pair.events
    );
    assert_eq!(pair.children(0).len(), 1, "{:#?}", pair.events);
    pair.command(
        0,
        Command::Rekey(Target::Connection { connection: "one".into(), child: Some("net".into()) }),
    );
    pair.run(20_000);
    assert_eq!(pair.children(0).len(), 1, "{:#?}", pair.events);
    bring_up(&mut pair, "two");
    assert!(in_use(&pair), "the rekeyed Child SA has them too");
}
