//! Liveness is about the path in use (RFC 7296 §2.4, §2.23).

use core::net::SocketAddr;
use core::time::Duration;

use pollux_abi::command::Direction;
use pollux_ike::endpoint::{Command, Target, Transmit};
use pollux_ike::event::{DownReason, Event};
use pollux_ike::message::{ExchangeType, Flags, Header, Message, Notify, NotifyType, Writer};
use pollux_pair::{Pair, config, config_of, connection};

fn elsewhere() -> SocketAddr {
    SocketAddr::new([198, 51, 100, 77].into(), 40_001)
}

/// A pair that is up, whose data planes say that ESP has just come.
fn up() -> Pair {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.initiate(0);
    pair.run(5_000);
    assert_eq!(pair.children(0).len(), 1, "{:#?}", pair.events);
    pair.idle = Some(Duration::ZERO);
    pair.sent.clear();
    pair.events.clear();
    pair
}

fn esp_from_elsewhere(pair: &mut Pair, end: usize) {
    let inbound = pair.tables[end].values().find(|sa| sa.direction == Direction::Inbound).expect("an SA").id;
    pair.command(end, Command::PeerMoved { sa: inbound, remote: elsewhere() });
}

fn probes(pair: &Pair, end: usize) -> usize {
    let is_request = |transmit: &Transmit| {
        let header = Header::parse(&transmit.bytes).expect("a header");
        header.exchange == ExchangeType::Informational && !header.flags.response
    };
    pair.sent.iter().filter(|(from, transmit)| *from == end && is_request(transmit)).count()
}

fn died(pair: &Pair, end: usize) -> bool {
    let dead = |event: &Event| matches!(event, Event::IkeDown { reason: DownReason::PeerDead, .. });
    pair.events.iter().any(|(at, event)| *at == end && dead(event))
}

#[test]
fn esp_from_elsewhere_makes_us_ask_at_the_old_place_and_an_answer_keeps_the_sa() {
    let mut pair = up();
    let old = pair.tables[0].values().next().expect("an SA").remote;
    esp_from_elsewhere(&mut pair, 0);
    pair.run(100);
    assert_eq!(probes(&pair, 0), 1, "at once");
    assert!(pair.sent.iter().all(|(end, sent)| *end != 0 || sent.remote.ip() == old), "at the old place");
    esp_from_elsewhere(&mut pair, 0);
    pair.run(100);
    assert_eq!(
        probes(&pair, 0),
        1,
        "word after word of the data plane asks no more often than liveness does"
    );
    pair.run(200_000);
    assert!(!died(&pair, 0), "{:#?}", pair.events);
    let asked = probes(&pair, 0);
    assert!((5..=10).contains(&asked), "every dpd_delay of 30 s, although ESP comes: {asked}");
}

#[test]
fn esp_from_elsewhere_does_not_keep_a_dead_path_alive() {
    let mut pair = up();
    esp_from_elsewhere(&mut pair, 0);
    pair.run(1_000);
    assert!(!died(&pair, 0));
    // From now on nothing reaches the old place, while ESP still comes from the other one.
    pair.network = |_, end, transmit| (end == 1).then_some(transmit);
    pair.run(400_000);
    assert!(died(&pair, 0), "{:#?}", pair.events);
}

#[test]
fn ike_from_elsewhere_is_answered_there_and_does_not_keep_a_dead_path_alive() {
    let mut pair = up();
    // The peer goes on from another address, without a NAT: what it sends arrives from there.
    pair.network = |_, end, mut transmit| {
        if end == 1 {
            transmit.local = elsewhere();
            return Some(transmit);
        }
        (transmit.remote == elsewhere()).then_some(transmit)
    };
    pair.idle = Some(Duration::from_mins(2));
    pair.run(60_000);
    assert!(probes(&pair, 1) > 0, "the peer asks too");
    let answered = pair.sent.iter().any(|(end, sent)| *end == 0 && sent.remote == elsewhere());
    assert!(answered, "where the request came from (RFC 7296 §2.11)");
    pair.run(400_000);
    assert!(died(&pair, 0), "{:#?}", pair.events);
}

#[test]
fn a_message_from_port_500_moves_nothing_back_from_4500() {
    // A forged source hash: a finds a NAT in front of b, and follows what it hears from there.
    let mut fake = connection("b");
    fake.encap = true;
    fake.dpd_delay = Duration::from_secs(10);
    let mut pair = Pair::new(config("a"), config_of(fake));
    pair.initiate(1);
    pair.run(5_000);
    let before: Vec<_> = pair.tables[0].values().map(|sa| (sa.id, sa.remote, sa.encap)).collect();
    assert!(before.iter().all(|(_, _, encap)| encap.is_some()), "{:#?}", pair.events);
    pair.sent.clear();
    pair.network = |_, end, mut transmit| {
        if end == 1 {
            transmit.local.set_port(500);
            transmit.remote.set_port(500);
        }
        Some(transmit)
    };
    pair.idle = Some(Duration::from_mins(2));
    pair.run(40_000);
    assert!(probes(&pair, 1) > 0, "the peer has asked from port 500");
    let answers: Vec<u16> =
        pair.sent.iter().filter(|(end, _)| *end == 0).map(|(_, sent)| sent.remote.port()).collect();
    assert!(answers.contains(&500), "answered where it came from: {answers:?}");
    let after: Vec<_> = pair.tables[0].values().map(|sa| (sa.id, sa.remote, sa.encap)).collect();
    assert_eq!(before, after, "ESP stays where it was (RFC 7296 §2.23)");
    let moved = pair.events.iter().any(|(_, event)| matches!(event, Event::PeerMoved { .. }));
    assert!(!moved, "{:#?}", pair.events);
}

/// Notifies in clear of this kind that an end has sent.
fn in_clear(pair: &Pair, end: usize, kind: NotifyType) -> Vec<usize> {
    let has = |transmit: &Transmit| {
        let message = Message::parse(&transmit.bytes).ok()?;
        message.payloads.notifies().any(|notify| notify.kind == kind).then_some(transmit.bytes.len())
    };
    pair.sent.iter().filter(|(from, _)| *from == end).filter_map(|(_, transmit)| has(transmit)).collect()
}

#[test]
fn a_configured_peer_is_told_that_there_is_no_such_ike_sa_and_nobody_else() {
    let mut pair = up();
    pair.restart(1, Vec::new());
    pair.sent.clear();
    pair.command(0, Command::Rekey(Target::Connection { connection: "peer".into(), child: None }));
    let request = pair.sent.iter().rfind(|(from, _)| *from == 0).expect("a request").1.clone();
    pair.run(200);
    let told = in_clear(&pair, 1, NotifyType::InvalidIkeSpi);
    assert!(told.len() == 1 && told[0] <= request.bytes.len(), "{told:?}");
    // The same again within the second, from elsewhere, and as an answer: nothing.
    pair.sent.clear();
    for (remote, byte) in [(request.local, None), (elsewhere(), None), (request.local, Some(0x20))] {
        let mut bytes = request.bytes.clone();
        if let Some(flag) = byte {
            bytes[19] |= flag;
        }
        pair.deliver(1, &Transmit { bytes, local: remote, ..request.clone() });
    }
    assert_eq!(in_clear(&pair, 1, NotifyType::InvalidIkeSpi), [] as [usize; 0]);
    // A second later the peer may be told again; as an answer still nothing.
    pair.run(1_500);
    pair.sent.clear();
    let mut answer = request.bytes.clone();
    answer[19] |= 0x20;
    pair.deliver(1, &Transmit { bytes: answer, ..request.clone() });
    pair.deliver(1, &Transmit { local: elsewhere(), ..request.clone() });
    assert_eq!(in_clear(&pair, 1, NotifyType::InvalidIkeSpi), [] as [usize; 0]);
    pair.deliver(1, &request);
    assert_eq!(in_clear(&pair, 1, NotifyType::InvalidIkeSpi).len(), 1);
}

#[test]
fn a_forged_word_about_an_spi_makes_us_ask_now_and_then_and_nothing_more() {
    let mut pair = up();
    pair.command(
        1,
        Command::Rekey(Target::Connection { connection: "peer".into(), child: Some("net".into()) }),
    );
    pair.run(100);
    let ours = pair.sent.iter().find(|(from, _)| *from == 1).expect("a message").1.clone();
    let header = Header::parse(&ours.bytes).expect("a header");
    // As the peer would say it in clear, in answer to a request of ours.
    let flags = Flags { initiator: !header.flags.initiator, higher_version: false, response: true };
    let mut writer = Writer::new(&Header::new(header.spi_i, header.spi_r, header.exchange, flags, header.id));
    writer.notify(Notify::new(NotifyType::InvalidIkeSpi, &[]));
    let bytes = writer.finish().expect("short");
    let forged = Transmit { bytes, local: ours.remote, remote: ours.local, keepalive: false };
    let hint = |pair: &mut Pair| {
        pair.sent.clear();
        for _ in 0..100 {
            pair.deliver(1, &forged);
        }
        pair.run(500);
        probes(pair, 1)
    };
    assert_eq!(hint(&mut pair), 0, "the peer has just been heard");
    pair.run(11_000);
    assert_eq!(hint(&mut pair), 1, "once");
    assert_eq!(hint(&mut pair), 0, "it has answered");
    assert_eq!(pair.children(1).len(), 1, "{:#?}", pair.events);
}
