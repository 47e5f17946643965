//! Nobody can lock a peer out, and a cookie's request is never overtaken by its copy without one (RFC 7296 §2.6).

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use pollux_ike::config::{Connection, EndpointConfig};
use pollux_ike::endpoint::Transmit;
use pollux_ike::message::{Message, NotifyType};
use pollux_ike::{Identity, IdentityPattern};
use pollux_pair::{Pair, config, connection};

fn anyone(end: &str) -> EndpointConfig {
    let any = Connection {
        remote_addrs: Vec::new(),
        remote_id: IdentityPattern::Any,
        children: Vec::new(),
        ..connection(end)
    };
    EndpointConfig { connections: vec![Arc::new(any)], ..config(end) }
}

/// IKE_SA_INIT of `pair`'s end 0, which never arrives by itself.
fn held_back(pair: &mut Pair) -> Transmit {
    pair.network = |_, _, _| None;
    pair.initiate(0);
    pair.sent[0].1.clone()
}

fn with_spi(request: &Transmit, n: u32) -> Transmit {
    let mut forged = request.clone();
    forged.bytes[0..4].copy_from_slice(&(n | 1 << 31).to_be_bytes());
    forged
}

fn is_cookie(transmit: &Transmit) -> bool {
    Message::parse(&transmit.bytes).is_ok_and(|message| message.payloads.has_notify(NotifyType::Cookie))
}

#[test]
fn forged_requests_from_a_peers_address_do_not_keep_the_peer_out() {
    let mut pair = Pair::new(config("a"), config("b"));
    let request = held_back(&mut pair);
    for n in 0..5_000 {
        pair.deliver(1, &with_spi(&request, n));
    }
    assert!(pair.state_len(1) <= 3, "{} half-open", pair.state_len(1));
    pair.network = |_, _, transmit| Some(transmit);
    pair.run(5_000);
    assert_eq!(pair.children(0).len(), 1, "{:#?}", pair.events);
}

#[test]
fn a_peer_that_fails_to_authenticate_many_times_may_try_again_at_once() {
    let mut wrong = config("a");
    wrong.secrets = vec![pollux_pair::shared_key(b"not the key")];
    let mut pair = Pair::new(wrong, config("b"));
    for _ in 0..40 {
        pair.initiate(0);
        pair.run(100);
    }
    assert!(pair.children(1).is_empty());
    let over = pair.state_len(1);
    assert!(over >= 40, "the last answers are kept for a while: {over}");
    let requests = pair.sent.len();
    pair.initiate(0);
    pair.run(100);
    let answered = pair.sent[requests..].iter().filter(|(end, sent)| *end == 1 && !is_cookie(sent)).count();
    assert_eq!(answered, 2, "IKE_SA_INIT and IKE_AUTH are answered, without a cookie");
}

#[test]
fn phones_behind_one_nat_all_get_in_at_once() {
    const PHONES: usize = 256;
    let phone = |n: usize| {
        Arc::new(Connection {
            name: format!("phone-{n}").into(),
            local_id: Identity::parse(&format!("phone-{n}.example")),
            children: Vec::new(),
            ..connection("a")
        })
    };
    let phones = EndpointConfig { connections: (0..PHONES).map(phone).collect(), ..config("a") };
    let mut pair = Pair::new(phones, anyone("b"));
    for n in 0..PHONES {
        pair.command(
            0,
            pollux_ike::endpoint::Command::Initiate { connection: format!("phone-{n}").into(), child: None },
        );
    }
    pair.run(10_000);
    let up = pair.ends[1].status(pair.now).iter().filter(|ike| ike.state == "ESTABLISHED").count();
    assert_eq!(up, PHONES, "{} IKE SAs", pair.state_len(1));
}

#[test]
fn a_late_copy_without_a_cookie_does_not_overtake_the_request_with_it() {
    let mut pair = Pair::new(config("a"), config("b"));
    let without = held_back(&mut pair);
    for n in 0..2 {
        pair.deliver(1, &with_spi(&without, n));
    }
    pair.deliver(1, &without);
    let (_, answer) = pair.sent.last().expect("an answer").clone();
    assert!(is_cookie(&answer), "the third of a source");
    pair.deliver(0, &answer);
    let (_, with) = pair.sent.last().expect("the request with its cookie").clone();
    assert!(is_cookie(&with));
    // What made the cookie necessary is over, and then the copy comes.
    pair.now = pair.now + Duration::from_secs(40);
    pair.ends[1].handle_timeout(pair.now, &mut pollux_pair::Seeded::new(9));
    assert_eq!(pair.state_len(1), 0);
    pair.deliver(1, &without);
    assert_eq!(pair.state_len(1), 0, "it needs a cookie still");
    pair.network = |_, _, transmit| Some(transmit);
    pair.deliver(1, &with);
    pair.run(5_000);
    assert_eq!(pair.children(0).len(), 1, "{:#?}", pair.events);
}

#[test]
fn another_nonce_from_the_same_address_port_and_spi_is_another_request() {
    let mut pair = Pair::new(config("a"), config("b"));
    let request = held_back(&mut pair);
    pair.deliver(1, &request);
    let mut other = request.clone();
    // The nonce's payload stands before the two notifies of NAT detection, of 28 octets each.
    let at = other.bytes.len() - 2 * 28 - 1;
    other.bytes[at] ^= 1;
    pair.deliver(1, &other);
    assert_eq!(pair.state_len(1), 2);
    let answers = pair.sent.len();
    pair.deliver(1, &request);
    pair.deliver(1, &other);
    assert_eq!((pair.state_len(1), pair.sent.len()), (2, answers + 2), "each is repeated to its own");
    let elsewhere = Transmit { local: SocketAddr::new(request.local.ip(), 501), ..request };
    pair.deliver(1, &elsewhere);
    assert!(is_cookie(&pair.sent.last().expect("an answer").1), "another port is another request");
}
