//! Configurations of two gateways, `a` and `b`, that fit each other; tests change what they are about.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use pollux_abi::{Reqid, TrafficSelector};
use pollux_ike::config::{
    Action, AddressRange, ChildConfig, Connection, EndpointConfig, Limits, Ports, PreSharedKey, Retransmit,
    SelectorConfig, Unique,
};
use pollux_ike::negotiate::Proposal;
use pollux_ike::{Identity, IdentityPattern};
use zeroize::Zeroizing;

/// The address of the gateway `end`, which is `a` or `b`.
pub fn address(end: &str) -> IpAddr {
    if end == "a" { [192, 0, 2, 1].into() } else { [192, 0, 2, 2].into() }
}

fn net(end: &str) -> SelectorConfig {
    let net = if end == "a" { [10, 1, 0, 0] } else { [10, 2, 0, 0] };
    SelectorConfig::Fixed(TrafficSelector::prefix(net.into(), 16).expect("a prefix"))
}

/// A child of the gateway `end`.
pub fn child(end: &str) -> ChildConfig {
    let other = if end == "a" { "b" } else { "a" };
    ChildConfig {
        name: "net".into(),
        local_ts: vec![net(end)],
        remote_ts: vec![net(other)],
        proposals: Proposal::default_esp(),
        reqid: Some(Reqid(1)),
        rekey_time: Duration::from_hours(1),
        life_time: Duration::from_mins(66),
        rand_time: Duration::from_mins(6),
        rekey_bytes: 0,
        life_bytes: 0,
        rand_bytes: 0,
        rekey_packets: 0,
        life_packets: 0,
        rand_packets: 0,
        overlap: Duration::from_secs(5),
        start_action: Action::None,
        close_action: Action::None,
        dpd_action: Action::None,
    }
}

/// A connection of the gateway `end`.
pub fn connection(end: &str) -> Connection {
    let other = if end == "a" { "b" } else { "a" };
    Connection {
        name: "peer".into(),
        local_addrs: vec![AddressRange::host(address(end))],
        remote_addrs: vec![AddressRange::host(address(other))],
        remote_port: Ports::default().ike,
        local_id: Identity::parse(&format!("{end}.example")),
        remote_id: IdentityPattern::parse(&format!("{other}.example")).unwrap_or(IdentityPattern::Any),
        proposals: Proposal::default_ike(),
        encap: false,
        dpd_delay: Duration::from_secs(30),
        rekey_time: Duration::from_hours(4),
        over_time: Duration::from_mins(24),
        rand_time: Duration::from_mins(24),
        keyingtries: 1,
        unique: Unique::No,
        children: vec![Arc::new(child(end))],
    }
}

/// A pre-shared key for everyone.
pub fn shared_key(key: &[u8]) -> PreSharedKey {
    PreSharedKey { connection: None, owners: Vec::new(), key: Arc::new(Zeroizing::new(key.to_vec())) }
}

/// The configuration of a gateway with one connection.
pub fn config_of(connection: Connection) -> EndpointConfig {
    EndpointConfig {
        connections: vec![Arc::new(connection)],
        secrets: vec![shared_key(b"secret")],
        limits: Limits::default(),
        retransmit: Retransmit::default(),
        nat_keepalive: Duration::from_secs(20),
        ports: Ports::default(),
        log_keys: false,
    }
}

/// The configuration of the gateway `end`.
pub fn config(end: &str) -> EndpointConfig {
    config_of(connection(end))
}
