//! Protected messages that no endpoint of ours sends: written here, and taken by the ends of a
//! [gullible](Pair::gullible) pair as if the peer had sealed them.

use core::time::Duration;
use std::sync::Arc;

use pollux_abi::TrafficSelector;
use pollux_ike::config::{Action, ChildConfig};
use pollux_ike::crypto::{CryptoError, Encryption, Iv, SkCipher};
use pollux_ike::endpoint::{Command, Target, Transmit};
use pollux_ike::error::IkeError;
use pollux_ike::event::{DownReason, Event};
use pollux_ike::message::{
    ExchangeType, Flags, Header, IdType, IkeSpi, Ke, Message, MessageId, Notify, NotifyType, PayloadType,
    Payloads, ProposalSpec, Protocol, Transform, TransformType, Writer,
};
use pollux_pair::{Pair, Seeded, child, config, config_of, connection};

/// Frames as the pair's provider does, and hides nothing.
#[derive(Debug)]
struct Plain;

const IV_LEN: usize = 8;
const ICV_LEN: usize = 8;

impl SkCipher for Plain {
    fn iv_len(&self) -> usize {
        IV_LEN
    }

    fn icv_len(&self) -> usize {
        ICV_LEN
    }

    fn block_len(&self) -> usize {
        1
    }

    fn seal(&self, _: &Iv, _: &mut [u8], _: usize) -> Result<(), CryptoError> {
        Ok(())
    }

    fn open<'m>(&self, message: &'m mut [u8], content: usize) -> Result<&'m mut [u8], CryptoError> {
        let end = message.len() - ICV_LEN;
        Ok(&mut message[content + IV_LEN..end])
    }
}

/// A pair whose end 0 has brought the connection up.
pub(super) fn up() -> Pair {
    let mut pair = Pair::gullible(config("a"), config("b"));
    pair.initiate(0);
    pair.run(2_000);
    assert_eq!((pair.children(0).len(), pair.children(1).len()), (1, 1), "{:#?}", pair.events);
    pair
}

/// The header of a message that end `from`, 0 being the original initiator, sends in the pair's first IKE SA.
pub(super) fn header(pair: &Pair, from: usize, exchange: ExchangeType, id: u32, response: bool) -> Header {
    let first = Header::parse(&pair.sent[0].1.bytes).expect("a header");
    let answer = pair.sent.iter().find(|(end, _)| *end == 1).expect("the answer to IKE_SA_INIT");
    let spi_r = Header::parse(&answer.1.bytes).expect("a header").spi_r;
    let flags = Flags { initiator: from == 0, higher_version: false, response };
    Header::new(first.spi_i, spi_r, exchange, flags, MessageId(id))
}

/// Brings `bytes` of end `from` to the other one; what that sends in return.
pub(super) fn deliver(pair: &mut Pair, from: usize, bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let (_, own) = pair.sent.iter().find(|(end, _)| *end == from).expect("it has sent something");
    let transmit = Transmit { bytes, ..own.clone() };
    let at = pair.sent.len();
    pair.deliver(1 - from, &transmit);
    let answers = pair.sent[at..].iter().filter(|(end, _)| *end == 1 - from);
    answers.map(|(_, transmit)| transmit.bytes.clone()).collect()
}

pub(super) fn sealed(header: &Header, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::encrypted(header, &Plain);
    body(&mut writer);
    writer.seal(&Plain, &Iv::new(Encryption::Aes128Gcm16, 1, &mut Seeded::new(1))).expect("all lengths fit")
}

/// A request of end `from`, and the answers to it.
pub(super) fn ask(
    pair: &mut Pair,
    from: usize,
    exchange: ExchangeType,
    id: u32,
    body: impl FnOnce(&mut Writer),
) -> Vec<Vec<u8>> {
    let bytes = sealed(&header(pair, from, exchange, id, false), body);
    deliver(pair, from, bytes)
}

/// A response of end `from` to the request that the other end has sent last.
pub(super) fn answer(pair: &mut Pair, from: usize, body: impl FnOnce(&mut Writer)) {
    let (_, request) = pair.sent.iter().rev().find(|(end, _)| *end == 1 - from).expect("a request");
    let request = Header::parse(&request.bytes).expect("a header");
    let bytes = sealed(&header(pair, from, request.exchange, request.id.0, true), body);
    deliver(pair, from, bytes);
}

/// The notifies inside a protected message.
pub(super) fn notifies(message: &[u8]) -> Vec<NotifyType> {
    let encrypted = Message::parse(message).expect("well-formed").encrypted.expect("protected");
    let inside = &message[encrypted.content + IV_LEN..message.len() - ICV_LEN - 1];
    let payloads = Payloads::parse(encrypted.first, inside).expect("well-formed");
    payloads.notifies().map(|notify| notify.kind).collect()
}

pub(super) fn ike_sas(pair: &Pair, end: usize) -> usize {
    pair.ends[end].status(pair.now).len()
}

/// Selectors of whole prefixes.
pub(super) fn nets(list: &[&str]) -> Vec<TrafficSelector> {
    let net = |text: &&str| {
        let (address, len) = text.split_once('/').expect("a prefix");
        let address = address.parse().expect("an address");
        TrafficSelector::prefix(address, len.parse().expect("a length")).expect("fits")
    };
    list.iter().map(net).collect()
}

/// Payloads of a request for a Child SA, some of which may be left out or changed.
pub(super) struct ChildRequest {
    pub(super) numbers: Vec<u8>,
    pub(super) spi: [u8; 4],
    pub(super) transforms: Vec<Transform>,
    pub(super) nonce: bool,
    pub(super) ts: bool,
}

impl ChildRequest {
    pub(super) fn good() -> Self {
        let transforms = vec![
            Transform::with_key_bits(TransformType::Encryption, 20, 256),
            Transform::new(TransformType::SequenceNumbers, 0),
        ];
        Self { numbers: vec![1], spi: [0xc0, 0, 0, 9], transforms, nonce: true, ts: true }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let spec = |&number: &u8| ProposalSpec {
            number,
            protocol: Protocol::Esp,
            spi: &self.spi,
            transforms: &self.transforms,
        };
        let specs: Vec<_> = self.numbers.iter().map(spec).collect();
        if !specs.is_empty() {
            writer.sa(&specs);
        }
        if self.nonce {
            writer.nonce(&[7; 32]);
        }
        if self.ts {
            writer.ts_i(&nets(&["10.1.0.0/16"])).ts_r(&nets(&["10.2.0.0/16"]));
        }
    }
}

#[test]
fn a_request_that_overtakes_ike_auth_or_its_answer_is_served_when_it_is_repeated() {
    let mut pair = Pair::gullible(config("a"), config("b"));
    pair.data_plane[1] = false;
    // IKE_AUTH is held back: its id is 1.
    pair.network = |_, _, transmit| {
        let exchange = Header::parse(&transmit.bytes).expect("a header").exchange;
        (exchange == ExchangeType::IkeSaInit).then_some(transmit)
    };
    pair.initiate(0);
    pair.exchange();
    let auth = pair.sent.last().expect("IKE_AUTH").1.bytes.clone();
    assert!(ask(&mut pair, 0, ExchangeType::Informational, 1, |_| {}).is_empty());
    assert!(deliver(&mut pair, 0, auth.clone()).is_empty(), "the data plane is still at work");
    let install = pair.tables[1].keys().copied().next().expect("the inbound SA of IKE_AUTH");
    // The peer cannot know yet that it may send this, but the network may bring it first.
    assert!(ask(&mut pair, 0, ExchangeType::Informational, 2, |_| {}).is_empty());
    pair.command(1, Command::SaInstalled { sa: install });
    assert_eq!(ike_sas(&pair, 1), 1, "{:#?}", pair.events);
    let again = ask(&mut pair, 0, ExchangeType::Informational, 2, |_| {});
    assert_eq!(again.len(), 1, "the same request, repeated");
    assert_eq!(deliver(&mut pair, 0, auth).len(), 0, "IKE_AUTH is history");
}

#[test]
fn an_initiator_serves_a_request_that_overtook_the_answer_to_its_ike_auth() {
    let mut pair = Pair::gullible(config("a"), config("b"));
    pair.network = |_, end, transmit| {
        let exchange = Header::parse(&transmit.bytes).expect("a header").exchange;
        (end == 0 || exchange == ExchangeType::IkeSaInit).then_some(transmit)
    };
    pair.initiate(0);
    pair.exchange();
    let reply = pair.sent.last().expect("the answer to IKE_AUTH").1.bytes.clone();
    assert!(ask(&mut pair, 1, ExchangeType::Informational, 0, |_| {}).is_empty());
    deliver(&mut pair, 1, reply);
    assert_eq!(ike_sas(&pair, 0), 1, "{:#?}", pair.events);
    assert_eq!(ask(&mut pair, 1, ExchangeType::Informational, 0, |_| {}).len(), 1);
}

#[test]
fn a_second_request_waits_until_the_first_is_answered() {
    let mut pair = up();
    pair.data_plane[1] = false;
    let known: Vec<_> = pair.tables[1].keys().copied().collect();
    let first = ask(&mut pair, 0, ExchangeType::CreateChildSa, 2, |writer| {
        ChildRequest::good().write(writer);
    });
    assert!(first.is_empty(), "the data plane is at work");
    let new = pair.tables[1].keys().copied().find(|id| !known.contains(id)).expect("an inbound SA");
    assert!(ask(&mut pair, 0, ExchangeType::Informational, 3, |_| {}).is_empty(), "the window is one");
    pair.command(1, Command::SaInstalled { sa: new });
    let answered = pair.sent.last().expect("an answer").1.bytes.clone();
    assert_eq!(Header::parse(&answered).expect("a header").id, MessageId(2));
    let second = ask(&mut pair, 0, ExchangeType::Informational, 3, |_| {});
    assert_eq!(second.len(), 1, "its id was not used up");
}

#[test]
fn invalid_syntax_ends_the_ike_sa_wherever_the_peer_says_it() {
    let says = |writer: &mut Writer| {
        writer.notify(Notify::new(NotifyType::InvalidSyntax, &[]));
    };
    let connection = || "peer".into();
    let requests = [
        Command::Rekey(Target::Connection { connection: connection(), child: Some("net".into()) }),
        Command::Rekey(Target::Connection { connection: connection(), child: None }),
        Command::Terminate(Target::Connection { connection: connection(), child: Some("net".into()) }),
    ];
    for end in 0..2 {
        let gone = |pair: &Pair, what: &str| {
            assert_eq!(ike_sas(pair, end), 0, "{what} at end {end}: {:#?}", pair.events);
            assert!(pair.tables[end].is_empty(), "{what}: its Child SAs are gone too");
            assert!(
                pair.refused_with(end, NotifyType::InvalidSyntax) && pair.has_down(end, DownReason::Failed)
            );
        };
        for request in &requests {
            let mut pair = up();
            pair.network = |_, _, _| None;
            let command = match request {
                Command::Rekey(target) => Command::Rekey(target.clone()),
                Command::Terminate(target) => Command::Terminate(target.clone()),
                _ => unreachable!("no other is in the list"),
            };
            pair.command(end, command);
            answer(&mut pair, 1 - end, says);
            gone(&pair, &format!("{request:?}"));
        }
        // A probe of the peer's life.
        let mut pair = up();
        pair.network = |_, _, _| None;
        pair.idle = Some(Duration::from_mins(5));
        pair.run(45_000);
        answer(&mut pair, 1 - end, says);
        gone(&pair, "a probe");
        // Requests of the peer: each is answered all the same, and repeated answers are the same.
        for exchange in [ExchangeType::Informational, ExchangeType::CreateChildSa] {
            let mut pair = up();
            let id = if end == 1 { 2 } else { 0 };
            let first = ask(&mut pair, 1 - end, exchange, id, says);
            assert_eq!(first.len(), 1, "{exchange}");
            gone(&pair, "a request");
            assert_eq!(ask(&mut pair, 1 - end, exchange, id, says), first, "{exchange}");
        }
    }
    // In the answer to IKE_AUTH.
    let mut pair = Pair::gullible(config("a"), config("b"));
    pair.network = |_, _, transmit| {
        let exchange = Header::parse(&transmit.bytes).expect("a header").exchange;
        (exchange == ExchangeType::IkeSaInit).then_some(transmit)
    };
    pair.initiate(0);
    pair.exchange();
    answer(&mut pair, 1, |writer| {
        writer.id_r(IdType::Fqdn, b"b.example");
        says(writer);
    });
    assert_eq!(pair.state_len(0), 0);
    assert!(pair.refused_with(0, NotifyType::InvalidSyntax));
}

#[test]
fn what_cannot_be_read_is_answered_with_invalid_syntax_and_ends_the_ike_sa_here_too() {
    type Body = fn(&mut Writer);
    let rows: [(&str, ExchangeType, Body); 5] = [
        ("no nonce", ExchangeType::CreateChildSa, |writer| {
            ChildRequest { nonce: false, ..ChildRequest::good() }.write(writer);
        }),
        ("a payload twice", ExchangeType::CreateChildSa, |writer| {
            writer.nonce(&[1; 32]).nonce(&[2; 32]);
        }),
        ("proposals from 0", ExchangeType::CreateChildSa, |writer| {
            ChildRequest { numbers: vec![0, 1], ..ChildRequest::good() }.write(writer);
        }),
        ("an exchange that there is not", ExchangeType::Unknown(99), |_| {}),
        ("an exchange that is over", ExchangeType::IkeAuth, |_| {}),
    ];
    for (what, exchange, body) in rows {
        for end in 0..2 {
            let mut pair = up();
            let id = if end == 1 { 2 } else { 0 };
            let answers = ask(&mut pair, 1 - end, exchange, id, body);
            assert_eq!(answers.len(), 1, "{what}");
            assert_eq!(notifies(&answers[0]), [NotifyType::InvalidSyntax], "{what}");
            assert_eq!(ike_sas(&pair, end), 0, "{what} at end {end}: {:#?}", pair.events);
            assert!(pair.tables[end].is_empty() && pair.has_down(end, DownReason::Failed), "{what}");
            assert_eq!(
                ask(&mut pair, 1 - end, exchange, id, body),
                answers,
                "{what}: a lost answer is repeated"
            );
        }
    }
}

#[test]
fn what_reads_well_and_cannot_be_done_has_a_notify_of_its_own_and_costs_its_exchange_alone() {
    let esn_left_out = vec![Transform::with_key_bits(TransformType::Encryption, 20, 256)];
    let rows = [
        ("no SA", ChildRequest { numbers: vec![], ..ChildRequest::good() }, NotifyType::NoProposalChosen),
        ("no selectors", ChildRequest { ts: false, ..ChildRequest::good() }, NotifyType::TsUnacceptable),
        (
            "a reserved SPI",
            ChildRequest { spi: [0, 0, 0, 255], ..ChildRequest::good() },
            NotifyType::NoProposalChosen,
        ),
        (
            "no transform of type ESN",
            ChildRequest { transforms: esn_left_out, ..ChildRequest::good() },
            NotifyType::NoProposalChosen,
        ),
    ];
    let mut pair = up();
    let mut id = 2;
    for (what, request, notify) in rows {
        let answers = ask(&mut pair, 0, ExchangeType::CreateChildSa, id, |writer| request.write(writer));
        assert_eq!(notifies(&answers[0]), [notify], "{what}");
        id += 1;
    }
    // A new IKE SA with an SPI of zero, and one without a public value.
    let transforms = [
        Transform::with_key_bits(TransformType::Encryption, 20, 256),
        Transform::new(TransformType::Prf, 5),
        Transform::new(TransformType::KeyExchange, 31),
    ];
    for (spi, ke, notify) in
        [([0; 8], true, NotifyType::NoProposalChosen), ([1; 8], false, NotifyType::InvalidKePayload)]
    {
        let answers = ask(&mut pair, 0, ExchangeType::CreateChildSa, id, |writer| {
            let spec =
                ProposalSpec { number: 1, protocol: Protocol::Ike, spi: &spi, transforms: &transforms };
            writer.sa(&[spec]).nonce(&[7; 32]);
            if ke {
                writer.ke(Ke { method: 31, public: &[9; 32] });
            }
        });
        assert_eq!(notifies(&answers[0]), [notify]);
        id += 1;
    }
    let good =
        ask(&mut pair, 0, ExchangeType::CreateChildSa, id, |writer| ChildRequest::good().write(writer));
    assert!(notifies(&good[0]).is_empty(), "and the IKE SA goes on");
    assert_eq!(pair.children(1).len(), 2, "{:#?}", pair.events);
}

#[test]
fn an_ike_sa_that_ended_by_invalid_syntax_is_begun_anew_where_the_connection_starts_by_itself() {
    let mut start = connection("a");
    start.children = vec![Arc::new(ChildConfig { start_action: Action::Start, ..child("a") })];
    let mut pair = Pair::gullible(config_of(start), config("b"));
    pair.run(2_000);
    for end in 0..2 {
        let id = if end == 1 { 2 } else { 0 };
        ask(&mut pair, 1 - end, ExchangeType::Informational, id, |writer| {
            writer.notify(Notify::new(NotifyType::InvalidSyntax, &[]));
        });
    }
    assert_eq!((ike_sas(&pair, 0), ike_sas(&pair, 1)), (0, 0), "{:#?}", pair.events);
    pair.run(5_000);
    assert_eq!(ike_sas(&pair, 0), 0, "not at once: the two would disagree again and again");
    pair.run(30_000);
    assert_eq!((pair.children(0).len(), pair.children(1).len()), (1, 1), "{:#?}", pair.events);
}

#[test]
fn a_peer_that_wants_eap_is_told_so_and_the_operator_too() {
    let mut pair = Pair::gullible(config("a"), config("b"));
    pair.network = |_, _, transmit| {
        let exchange = Header::parse(&transmit.bytes).expect("a header").exchange;
        (exchange == ExchangeType::IkeSaInit).then_some(transmit)
    };
    pair.initiate(0);
    pair.exchange();
    let answers = ask(&mut pair, 0, ExchangeType::IkeAuth, 1, |writer| {
        writer.id_i(IdType::Rfc822Addr, b"phone@a.example");
        ChildRequest { nonce: false, ..ChildRequest::good() }.write(writer);
    });
    assert_eq!(notifies(&answers[0]), [NotifyType::AuthenticationFailed]);
    let lines: Vec<String> = pair
        .events
        .iter()
        .filter_map(|(end, event)| match event {
            Event::Refused { error: error @ IkeError::EapWanted { .. }, .. } if *end == 1 => {
                Some(error.to_string())
            }
            _ => None,
        })
        .collect();
    assert_eq!(lines.len(), 1, "{:#?}", pair.events);
    for part in ["phone@a.example", "EAP", "a pre-shared key"] {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
}

#[test]
fn fragments_change_nothing_where_fragmentation_was_not_negotiated() {
    let mut pair = up();
    for total in [1u16, 2] {
        let whole = sealed(&header(&pair, 0, ExchangeType::Informational, 2, false), |writer| {
            writer.delete_ike();
        });
        let mut fragment = whole[..Header::LEN + 4].to_vec();
        fragment.extend_from_slice(&1u16.to_be_bytes());
        fragment.extend_from_slice(&total.to_be_bytes());
        fragment.extend_from_slice(&whole[Header::LEN + 4..]);
        fragment[16] = PayloadType::Skf.to_wire();
        let len = u32::try_from(fragment.len()).expect("short");
        fragment[24..28].copy_from_slice(&len.to_be_bytes());
        let of_skf = u16::try_from(fragment.len() - Header::LEN).expect("short");
        fragment[Header::LEN + 2..Header::LEN + 4].copy_from_slice(&of_skf.to_be_bytes());
        let events = pair.events.len();
        assert!(deliver(&mut pair, 0, fragment).is_empty(), "1 of {total}");
        assert_eq!((ike_sas(&pair, 1), pair.events.len()), (1, events), "1 of {total}");
    }
    let next = ask(&mut pair, 0, ExchangeType::Informational, 2, |_| {});
    assert_eq!(next.len(), 1, "no message id was used up");
}

#[test]
fn many_proposals_are_read_to_the_end_and_judged() {
    let good = [
        Transform::with_key_bits(TransformType::Encryption, 20, 256),
        Transform::new(TransformType::Prf, 5),
        Transform::new(TransformType::KeyExchange, 31),
    ];
    let weak = [good[0], good[1], Transform::new(TransformType::KeyExchange, 2)];
    for (case, (count, last)) in
        [(40u8, &good), (100, &good), (255, &good), (100, &weak)].into_iter().enumerate()
    {
        let mut pair = Pair::new(config("a"), config("b"));
        pair.network = |_, _, _| None;
        pair.initiate(0);
        let request = Message::parse(&pair.sent[0].1.bytes).expect("well-formed").header;
        let spi = IkeSpi::from_be_bytes([u8::try_from(case + 1).expect("few"); 8]);
        let mut writer = Writer::new(&Header::new(
            spi,
            IkeSpi::ZERO,
            ExchangeType::IkeSaInit,
            request.flags,
            MessageId(0),
        ));
        let spec = |number| {
            let transforms = if number == count { last } else { &weak };
            ProposalSpec { number, protocol: Protocol::Ike, spi: &[], transforms }
        };
        let specs: Vec<_> = (1..=count).map(spec).collect();
        writer.sa(&specs).ke(Ke { method: 31, public: &[9; 32] }).nonce(&[7; 32]);
        let answers = deliver(&mut pair, 0, writer.finish().expect("all lengths fit"));
        let answer = Message::parse(&answers[0]).expect("well-formed");
        if last == &good {
            let chosen = answer.payloads.sa.expect("an SA payload").proposals().next().expect("a proposal");
            assert_eq!(chosen.number, count);
        } else {
            assert!(answer.payloads.has_notify(NotifyType::NoProposalChosen));
        }
    }
}
