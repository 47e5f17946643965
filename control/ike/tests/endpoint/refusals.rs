//! Every refusal has its notify on the wire and its line in the log, at both ends.

use std::sync::Arc;

use pollux_ike::endpoint::{Command, Target};

use pollux_ike::config::{AddressRange, ChildConfig, EndpointConfig, SelectorConfig};
use pollux_ike::error::IkeError;
use pollux_ike::event::Event;
use pollux_ike::identity::{Identity, IdentityPattern};
use pollux_ike::message::NotifyType;
use pollux_ike::negotiate::Proposal;
use pollux_pair::{Pair, child, config, config_of, connection, shared_key};

/// What the responder says, what the initiator says, and what the responder's log has to contain.
fn refused(responder: EndpointConfig, notify: NotifyType, log: &[&str]) -> Pair {
    refused_by(config("a"), responder, notify, log)
}

fn refused_by(
    initiator: EndpointConfig,
    responder: EndpointConfig,
    notify: NotifyType,
    log: &[&str],
) -> Pair {
    let mut pair = Pair::new(initiator, responder);
    pair.initiate(0);
    pair.run(5_000);
    assert!(pair.refused_with(0, notify), "{notify} is told: {:#?}", pair.events);
    let lines: Vec<String> = pair
        .events
        .iter()
        .filter_map(|(end, event)| match event {
            Event::Refused { error, .. } if *end == 1 => Some(error.to_string()),
            _ => None,
        })
        .collect();
    assert!(lines.iter().any(|line| log.iter().all(|part| line.contains(part))), "{log:?} in {lines:#?}");
    assert!(pair.children(0).is_empty() && pair.children(1).is_empty());
    assert!(pair.tables.iter().all(std::collections::BTreeMap::is_empty), "nothing stays in a data plane");
    pair
}

#[test]
fn ike_proposals_that_do_not_meet() {
    let mut other = connection("b");
    other.proposals = vec![Proposal::parse_ike("aes128-sha512-modp2048").expect("a proposal")];
    let log = ["no proposal chosen", "aes128-prfsha512-sha512", "connection.peer.proposals"];
    let mut modern = connection("a");
    modern.proposals = vec![Proposal::parse_ike("aes256gcm16-prfsha384-x25519").expect("a proposal")];
    refused_by(config_of(modern), config_of(other), NotifyType::NoProposalChosen, &log);
}

#[test]
fn esp_proposals_that_do_not_meet_leave_the_ike_sa_up() {
    let mut other = connection("b");
    let proposals = vec![Proposal::parse_esp("chacha20poly1305").expect("a proposal")];
    other.children = vec![Arc::new(ChildConfig { proposals, ..child("b") })];
    let log = ["no proposal chosen", "chacha20poly1305", "connection.peer.children.net.esp_proposals"];
    let pair = refused(config_of(other), NotifyType::NoProposalChosen, &log);
    assert_eq!(pair.ends[1].status(pair.now).len(), 1);
}

#[test]
fn selectors_that_do_not_meet_leave_the_ike_sa_up() {
    let mut other = connection("b");
    let elsewhere = pollux_abi::TrafficSelector::prefix([172, 16, 0, 0].into(), 12).expect("a prefix");
    other.children =
        vec![Arc::new(ChildConfig { remote_ts: vec![SelectorConfig::Fixed(elsewhere)], ..child("b") })];
    let log = ["10.1.0.0/16", "172.16.0.0/12", "connection.peer.children"];
    let pair = refused(config_of(other), NotifyType::TsUnacceptable, &log);
    assert_eq!(pair.ends[0].status(pair.now).len(), 1);
}

#[test]
fn a_wrong_key_is_no_key() {
    let mut other = config("b");
    other.secrets = vec![shared_key(b"another")];
    let log = ["authentication failed", "a.example", "connection.peer.psk"];
    let pair = refused(other, NotifyType::AuthenticationFailed, &log);
    assert!(pair.ends[0].status(pair.now).is_empty());
}

#[test]
fn a_peer_without_key_is_refused() {
    let mut other = config("b");
    other.secrets[0].owners = vec![IdentityPattern::parse("c.example").expect("a pattern")];
    other.secrets.push(other.secrets[0].clone());
    other.secrets[1].owners.push(IdentityPattern::parse("d.example").expect("a pattern"));
    refused(
        other,
        NotifyType::AuthenticationFailed,
        &["no pre-shared key", "a.example", "connection.peer.psk"],
    );
}

#[test]
fn an_unknown_identity_is_refused() {
    let mut other = connection("b");
    other.remote_id = IdentityPattern::parse("c.example").expect("a pattern");
    refused(
        config_of(other),
        NotifyType::AuthenticationFailed,
        &["no connection", "a.example", "c.example", "remote.id"],
    );
}

#[test]
fn an_unknown_address_is_refused() {
    let mut other = connection("b");
    other.remote_addrs = vec![AddressRange::host([10, 0, 0, 1].into())];
    refused(
        config_of(other),
        NotifyType::NoProposalChosen,
        &["no connection", "192.0.2.1", "10.0.0.1", "remote_addrs"],
    );
}

/// Texts may be equal where identities are not: the line shows the type.
#[test]
fn an_identity_of_another_type_is_refused_by_a_line_that_shows_it() {
    for (ours, accepted, log) in [
        ("@203.0.113.9", "203.0.113.9", ["to be fqdn:203.0.113.9 at", "(203.0.113.9 at"]),
        ("x@y.example", "*.example", ["to be x@y.example at", "(*.example at"]),
        ("fqdn:x@y.example", "*@y.example", ["to be fqdn:x@y.example at", "(*@y.example at"]),
    ] {
        let (mut initiator, mut other) = (connection("a"), connection("b"));
        initiator.local_id = Identity::parse(ours);
        other.remote_id = IdentityPattern::parse(accepted).expect("a pattern");
        refused_by(config_of(initiator), config_of(other), NotifyType::AuthenticationFailed, &log);
    }
}

#[test]
fn a_responder_with_another_name_is_told_so_and_forgotten() {
    let mut other = connection("b");
    other.local_id = Identity::parse("x.example");
    let mut wildcard = connection("a");
    wildcard.remote_id = IdentityPattern::parse("*.elsewhere").expect("a pattern");
    let mut pair = Pair::new(config_of(wildcard), config_of(other));
    pair.initiate(0);
    pair.run(20_000);
    let told = pair.events.iter().any(|(end, event)| match event {
        Event::Refused { error: IkeError::PeerRefused { notify, .. }, .. } => {
            *end == 1 && *notify == NotifyType::AuthenticationFailed
        }
        _ => false,
    });
    assert!(told, "{:#?}", pair.events);
    assert!(pair.tables.iter().all(std::collections::BTreeMap::is_empty));
    assert_eq!([0, 1].map(|end| pair.state_len(end)), [0, 0]);
}

#[test]
fn a_pfs_group_that_the_responder_does_not_want_is_changed() {
    let with = |end: &str, esp: &str| {
        let mut connection = connection(end);
        let proposals = vec![Proposal::parse_esp(esp).expect("a proposal")];
        connection.children = vec![Arc::new(ChildConfig { proposals, ..child(end) })];
        config_of(connection)
    };
    let mut pair =
        Pair::new(with("a", "aes128gcm16-ecp256-x25519-noesn"), with("b", "aes128gcm16-x25519-noesn"));
    pair.initiate(0);
    pair.run(2_000);
    let target = Target::Connection { connection: "peer".into(), child: Some("net".into()) };
    pair.command(0, Command::Rekey(target));
    pair.run(10_000);
    assert!(
        pair.events.iter().any(|(_, event)| matches!(event, Event::ChildRekeyed { .. })),
        "{:#?}",
        pair.events
    );
    assert!(pair.keys_match());
}
