//! Bad input: cut, changed, repeated, reflected, forged, and by the million.

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use pollux_ike::config::{Connection, Limits};
use pollux_ike::crypto::Rng;
use pollux_ike::endpoint::{Command, Target, Transmit};
use pollux_ike::event::Event;
use pollux_ike::message::{
    ExchangeType, Flags, Header, IkeSpi, Message, MessageId, Notify, NotifyType, PayloadType, Payloads,
    Writer,
};
use pollux_pair::{Pair, Seeded, config, connection};

fn up() -> Pair {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.initiate(0);
    pair.run(2_000);
    pair
}

/// What can be seen of both ends.
fn picture(pair: &Pair) -> String {
    let status: Vec<_> = pair.ends.iter().map(|end| end.status(pair.now)).collect();
    let tables: Vec<Vec<_>> = pair.tables.iter().map(|table| table.keys().copied().collect()).collect();
    format!("{status:#?}{tables:?}{:?}", [0, 1].map(|end| pair.state_len(end)))
}

/// Every datagram of a handshake, changed, to the end that it was meant for: an established IKE SA does not
/// move.
fn unmoved(change: impl Fn(&[u8]) -> Vec<Vec<u8>>) {
    let mut pair = up();
    let (before, sent) = (picture(&pair), pair.sent.clone());
    for (end, transmit) in sent {
        for bytes in change(&transmit.bytes) {
            pair.deliver(1 - end, &Transmit { bytes, ..transmit.clone() });
        }
    }
    assert_eq!(picture(&pair), before);
}

#[test]
fn messages_cut_at_every_octet_change_nothing() {
    unmoved(|bytes| (0..bytes.len()).map(|len| bytes[..len].to_vec()).collect());
}

#[test]
fn messages_with_a_changed_octet_change_nothing_that_is_established() {
    // IKE_SA_INIT may make a half-open IKE SA of its own, whatever its nonce says: not looked at here.
    unmoved(|bytes| {
        let protected = Message::parse(bytes).is_ok_and(|message| message.encrypted.is_some());
        let positions = if protected { 0..bytes.len() } else { 0..0 };
        positions
            .map(|at| {
                let mut changed = bytes.to_vec();
                changed[at] ^= 1 << (at % 8);
                changed
            })
            .collect()
    });
}

#[test]
fn wrong_spis_ids_and_flags_change_nothing() {
    unmoved(|bytes| {
        let header = Header::parse(bytes).expect("a header");
        let with = |header: Header| {
            let mut changed = Vec::new();
            header.write(&mut changed);
            changed.extend_from_slice(&bytes[Header::LEN..]);
            changed
        };
        let other = IkeSpi::from_be_bytes([7; 8]);
        let flipped = Flags { initiator: !header.flags.initiator, ..header.flags };
        let turned = Flags { response: !header.flags.response, ..header.flags };
        let mut changed = vec![
            with(Header { spi_r: other, ..header }),
            with(Header { flags: flipped, ..header }),
            with(Header { flags: turned, ..header }),
            with(Header { length: header.length + 1, ..header }),
            with(Header { exchange: ExchangeType::Unknown(99), ..header }),
        ];
        for id in [header.id.0 + 1, header.id.0 + 2, u32::MAX] {
            changed.push(with(Header { id: MessageId(id), ..header }));
        }
        changed
    });
}

#[test]
fn replayed_requests_get_the_same_answer_and_reflected_ones_none() {
    let mut pair = up();
    let (before, sent) = (picture(&pair), pair.sent.clone());
    // IKE_SA_INIT from another time is a new handshake; what follows it is not.
    let protected = |transmit: &Transmit| {
        Header::parse(&transmit.bytes).is_ok_and(|header| header.exchange != ExchangeType::IkeSaInit)
    };
    for (end, transmit) in sent.iter().filter(|(_, transmit)| protected(transmit)) {
        let at = pair.sent.len();
        pair.deliver(1 - end, transmit);
        if *end == 0 {
            let answer = sent.last().expect("the answer to IKE_AUTH");
            assert_eq!(pair.sent[at..], *core::slice::from_ref(answer), "octet for octet");
        } else {
            assert_eq!(pair.sent.len(), at, "a response is answered by nothing");
        }
        let at = pair.sent.len();
        let back = Transmit { local: transmit.remote, remote: transmit.local, ..transmit.clone() };
        pair.deliver(*end, &back);
        assert_eq!(pair.sent.len(), at, "what comes back to its sender is not for it");
    }
    assert_eq!(picture(&pair), before);
}

#[test]
fn unauthenticated_notifies_change_nothing() {
    let forged = |header: &Header, kind: NotifyType| {
        let mut writer = Writer::new(header);
        writer.notify(Notify::new(kind, &[])).delete_ike();
        writer.finish().expect("short")
    };
    for kind in [
        NotifyType::NoProposalChosen,
        NotifyType::InvalidSyntax,
        NotifyType::AuthenticationFailed,
        NotifyType::InvalidMajorVersion,
        NotifyType::InvalidIkeSpi,
        NotifyType::InvalidKePayload,
        NotifyType::Cookie,
    ] {
        // While IKE_SA_INIT is on its way.
        let mut pair = Pair::new(config("a"), config("b"));
        pair.network = |pair, end, transmit| (end == 1 || pair.sent.len() > 1).then_some(transmit);
        pair.initiate(0);
        let request = pair.sent[0].1.clone();
        let asked = Header::parse(&request.bytes).expect("a header");
        let flags = Flags { response: true, ..Flags::default() };
        let header = Header::new(asked.spi_i, IkeSpi::ZERO, ExchangeType::IkeSaInit, flags, asked.id);
        let back = Transmit { local: request.remote, remote: request.local, ..request };
        pair.deliver(0, &Transmit { bytes: forged(&header, kind), ..back });
        pair.run(10_000);
        assert_eq!((pair.children(0).len(), pair.children(1).len()), (1, 1), "{kind}: {:#?}", pair.events);

        // When all is up.
        let before = picture(&pair);
        let status = pair.ends[0].status(pair.now);
        let header = Header::new(
            status[0].spi_i,
            status[0].spi_r,
            ExchangeType::Informational,
            Flags::default(),
            MessageId(0),
        );
        let stranger = Transmit {
            local: SocketAddr::new([192, 0, 2, 2].into(), 500),
            remote: SocketAddr::new([192, 0, 2, 1].into(), 500),
            bytes: forged(&header, kind),
            keepalive: false,
        };
        pair.deliver(0, &stranger);
        assert_eq!(picture(&pair), before, "{kind}");
    }
}

#[test]
fn unknown_critical_payloads_and_versions_are_named() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.network = |_, _, _| None;
    pair.initiate(0);
    let request = pair.sent[0].1.clone();
    let notify_of = |pair: &Pair| {
        let answer = pair.sent.last().expect("an answer");
        let message = Message::parse(&answer.1.bytes).expect("well-formed");
        let notify = message.payloads.notifies().next().expect("a notify");
        (notify.kind, notify.data.to_vec())
    };
    // An unknown critical payload in front of the others.
    let mut bytes = request.bytes.clone();
    let first = core::mem::replace(&mut bytes[16], 200);
    bytes.splice(Header::LEN..Header::LEN, [first, 0x80, 0, 4]);
    let len = u32::try_from(bytes.len()).expect("short");
    bytes[24..28].copy_from_slice(&len.to_be_bytes());
    pair.deliver(1, &Transmit { bytes, ..request.clone() });
    assert_eq!(notify_of(&pair), (NotifyType::UnsupportedCriticalPayload, vec![200]));
    // The next major version.
    let mut bytes = request.bytes.clone();
    bytes[17] = 0x30;
    pair.deliver(1, &Transmit { bytes, ..request.clone() });
    assert_eq!(notify_of(&pair).0, NotifyType::InvalidMajorVersion);
    // Every payload twice.
    let mut bytes = request.bytes.clone();
    let chain = bytes[Header::LEN..].to_vec();
    let last = last_next_payload(&bytes);
    bytes[last] = bytes[16];
    bytes.extend_from_slice(&chain);
    let len = u32::try_from(bytes.len()).expect("short");
    bytes[24..28].copy_from_slice(&len.to_be_bytes());
    pair.deliver(1, &Transmit { bytes, ..request });
    assert_eq!(notify_of(&pair).0, NotifyType::InvalidSyntax);
    assert_eq!(pair.state_len(1), 0);
}

#[test]
fn ikev1_is_told_to_the_operator_and_not_answered() {
    let mut pair = Pair::new(config("a"), config("b"));
    // Main mode: initiator cookie, next payload SA, version 1.0, exchange type 2 (RFC 2408 §3.1).
    let mut bytes = vec![0; Header::LEN + 12];
    bytes[..8].copy_from_slice(&[0x5a; 8]);
    bytes[16..20].copy_from_slice(&[1, 0x10, 2, 0]);
    bytes[27] = 40;
    bytes[Header::LEN + 3] = 12;
    pair.network = |_, _, _| None;
    pair.initiate(0);
    let ikev2 = pair.sent[0].1.clone();
    pair.deliver(1, &Transmit { bytes, ..ikev2 });
    assert_eq!(pair.sent.len(), 1, "no answer");
    let told = pair.events.iter().any(|(end, event)| {
        *end == 1
            && matches!(event, Event::Refused { authenticated: false, error, .. } if error.to_string().contains("major version 1"))
    });
    assert!(told, "{:?}", pair.events);
    assert_eq!(pair.state_len(1), 0);
}

/// Where the last payload says that none follows.
fn last_next_payload(bytes: &[u8]) -> usize {
    let mut at = Header::LEN;
    loop {
        if bytes[at] == PayloadType::None.to_wire() {
            return at;
        }
        at += usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
    }
}

#[test]
fn a_flood_of_strangers_stays_within_its_limits_and_passes() {
    let mut limited = config("b");
    limited.connections = vec![Arc::new(Connection { remote_addrs: Vec::new(), ..connection("b") })];
    limited.limits = Limits { cookie_threshold: 1_000, ike_sas_max: 200, ..Limits::default() };
    let mut pair = Pair::new(config("a"), limited);
    pair.network = |_, _, _| None;
    pair.initiate(0);
    let request = pair.sent[0].1.clone();
    for n in 0..5_000u32 {
        let mut flood = request.clone();
        flood.bytes[0..4].copy_from_slice(&(n | 1 << 31).to_be_bytes());
        let source = if n < 100 { 7 } else { n };
        flood.local = SocketAddr::new(core::net::Ipv4Addr::from_bits(0x0a00_0000 | source).into(), 500);
        pair.deliver(1, &flood);
        if n == 99 {
            assert_eq!(pair.state_len(1), 2, "one source has its share");
        }
    }
    assert_eq!(pair.state_len(1), 200);
    assert!(pair.events.iter().any(|(_, event)| matches!(event, Event::Overload { .. })));
    pair.now = pair.now + Duration::from_mins(1);
    pair.run(1_000);
    assert_eq!(pair.state_len(1), 0, "half-open IKE SAs do not outlive their time");
}

/// A protected message of a [gullible](Pair::gullible) pair with an unknown critical payload of type 200 in front of
/// what it had inside.
fn with_a_critical_payload(message: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    let first = core::mem::replace(&mut bytes[Header::LEN], 200);
    let inside = Header::LEN + 4 + IV_LEN;
    bytes.splice(inside..inside, [first, 0x80, 0, 4]);
    let len = bytes.len();
    bytes[24..28].copy_from_slice(&u32::try_from(len).expect("short").to_be_bytes());
    let of_sk = u16::try_from(len - Header::LEN).expect("short");
    bytes[Header::LEN + 2..Header::LEN + 4].copy_from_slice(&of_sk.to_be_bytes());
    bytes
}

/// The notifies inside a protected message of such a pair.
fn notifies_inside(message: &[u8]) -> Vec<(NotifyType, Vec<u8>)> {
    let encrypted = Message::parse(message).expect("well-formed").encrypted.expect("protected");
    // Behind the payloads stand the length of the padding, which is none, and the ICV.
    let inside = &message[encrypted.content + IV_LEN..message.len() - ICV_LEN - 1];
    let payloads = Payloads::parse(encrypted.first, inside).expect("well-formed");
    payloads.notifies().map(|notify| (notify.kind, notify.data.to_vec())).collect()
}

const IV_LEN: usize = 8;
const ICV_LEN: usize = 8;

#[test]
fn an_unknown_critical_payload_inside_sk_is_named_and_refuses_its_exchange_alone() {
    let named = vec![(NotifyType::UnsupportedCriticalPayload, vec![200])];
    let mut pair = Pair::gullible(config("a"), config("b"));
    pair.network = |_, _, transmit| {
        let header = Header::parse(&transmit.bytes).expect("a header");
        (header.exchange == ExchangeType::IkeSaInit).then_some(transmit)
    };
    pair.initiate(0);
    pair.exchange();
    // IKE_AUTH: without it there is no IKE SA.
    let (_, request) = pair.sent.last().expect("IKE_AUTH").clone();
    pair.deliver(1, &Transmit { bytes: with_a_critical_payload(&request.bytes), ..request });
    let (end, answer) = pair.sent.last().expect("an answer").clone();
    assert_eq!((end, notifies_inside(&answer.bytes)), (1, named.clone()));
    assert!(pair.tables[1].is_empty() && pair.children(1).is_empty());

    // What comes later costs its own exchange and no more.
    let mut pair = Pair::gullible(config("a"), config("b"));
    pair.initiate(0);
    pair.run(2_000);
    for child in [Some("net"), None] {
        pair.network = |_, _, _| None;
        let target = Target::Connection { connection: "peer".into(), child: child.map(Into::into) };
        pair.command(0, Command::Rekey(target));
        let (_, request) = pair.sent.last().expect("CREATE_CHILD_SA").clone();
        pair.network = |_, _, transmit| Some(transmit);
        pair.deliver(1, &Transmit { bytes: with_a_critical_payload(&request.bytes), ..request });
        let (end, answer) = pair.sent.last().expect("an answer").clone();
        assert_eq!((end, notifies_inside(&answer.bytes)), (1, named.clone()));
        pair.run(30_000);
        assert_eq!((pair.state_len(1), pair.children(1).len()), (1, 1), "{:#?}", pair.events);
    }
}

#[test]
fn authentic_but_mangled_messages_do_no_harm() {
    // What gets here has passed the integrity check of a gullible provider: the exchanges see it all.
    let rounds = if cfg!(debug_assertions) { 150 } else { 5_000 };
    for round in 0..rounds {
        let mut pair = Pair::gullible(config("a"), config("b"));
        pair.rng = Seeded::new(round);
        pair.network = |pair, _, mut transmit| {
            let mut chance = [0; 8];
            pair.rng.fill(&mut chance);
            if chance[0] % 3 == 0 && transmit.bytes.len() > Header::LEN {
                for at in &chance[1..2 + usize::from(chance[1] % 4)] {
                    let octets = transmit.bytes.len() - Header::LEN;
                    let place = Header::LEN + usize::from(*at) * 7 % octets;
                    transmit.bytes[place] ^= chance[6] >> (chance[7] % 8);
                }
            }
            Some(transmit)
        };
        pair.initiate(0);
        pair.run(3_000);
        for child in [Some("net"), None, Some("net")] {
            for end in 0..2 {
                let child = child.map(Into::into);
                let target = Target::Connection { connection: "peer".into(), child };
                pair.command(end, Command::Rekey(target));
            }
            pair.run(10_000);
        }
        for end in 0..2 {
            assert!(pair.state_len(end) < 20);
        }
        // All calm again: both ends let go of everything.
        pair.network = |_, _, transmit| Some(transmit);
        for end in 0..2 {
            let target = Target::Connection { connection: "peer".into(), child: None };
            pair.command(end, Command::Terminate(target));
        }
        pair.run(400_000);
        for end in 0..2 {
            assert_eq!(pair.state_len(end), 0, "round {round}: {:#?}", pair.ends[end].status(pair.now));
            assert!(pair.tables[end].is_empty(), "round {round}");
        }
    }
}
