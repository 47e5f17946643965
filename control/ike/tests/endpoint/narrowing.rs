//! Traffic selectors that the peer narrows: at a rekey, and for good (RFC 7296 §2.9).

use pollux_ike::config::{Action, ChildConfig};
use pollux_ike::endpoint::{Command, Target};
use pollux_ike::error::IkeError;
use pollux_ike::event::{DownReason, Event};
use pollux_ike::message::{
    ExchangeType, Notify, NotifyType, ProposalSpec, Protocol, Transform, TransformType, Writer,
};
use pollux_pair::{Pair, child, config, config_of, connection};
use std::sync::Arc;

use super::protected::{answer, ask, ike_sas, nets, notifies, up};

fn rekey() -> Command {
    Command::Rekey(Target::Connection { connection: "peer".into(), child: Some("net".into()) })
}

/// SA, nonce and the selectors of an answer to CREATE_CHILD_SA.
fn write_child(writer: &mut Writer, ts_i: &[&str], ts_r: &[&str]) {
    let transforms = [
        Transform::with_key_bits(TransformType::Encryption, 20, 256),
        Transform::new(TransformType::SequenceNumbers, 0),
    ];
    let spec =
        ProposalSpec { number: 1, protocol: Protocol::Esp, spi: &[0xc0, 0, 0, 9], transforms: &transforms };
    writer.sa(&[spec]).nonce(&[7; 32]).ts_i(&nets(ts_i)).ts_r(&nets(ts_r));
}

#[test]
fn a_responder_makes_no_rekeyed_child_sa_that_is_narrower() {
    let mut pair = up();
    let before = pair.children(1);
    let old_spi = before[0].spi_out.to_be_bytes();
    let rows: [(&[&str], &[&str], Option<NotifyType>); 5] = [
        (&["10.1.0.0/17"], &["10.2.0.0/16"], Some(NotifyType::TsUnacceptable)),
        (&["10.1.0.0/16"], &["10.2.4.0/24"], Some(NotifyType::TsUnacceptable)),
        (&["10.1.0.0/17", "10.1.192.0/18"], &["10.2.0.0/16"], Some(NotifyType::TsUnacceptable)),
        (&["10.1.0.0/17", "10.1.128.0/17"], &["10.2.0.0/16"], None),
        (&["0.0.0.0/0"], &["10.2.0.0/16"], None),
    ];
    let mut id = 2;
    for (ts_i, ts_r, refused) in rows {
        let spi = pair.children(1)[0].spi_out.to_be_bytes();
        let answers = ask(&mut pair, 0, ExchangeType::CreateChildSa, id, |writer| {
            writer.notify(Notify::about_esp(NotifyType::RekeySa, &spi));
            write_child(writer, ts_i, ts_r);
        });
        id += 1;
        assert_eq!(notifies(&answers[0]), refused.into_iter().collect::<Vec<_>>(), "{ts_i:?} {ts_r:?}");
        if refused.is_some() {
            assert_eq!(spi, old_spi);
            assert_eq!(pair.children(1), before, "the old one stays");
            continue;
        }
        let new = pair.children(1).pop().expect("a new Child SA");
        assert!(new.spi_in != before[0].spi_in && new.local_ts == before[0].local_ts);
        let delete = ask(&mut pair, 0, ExchangeType::Informational, id, |writer| {
            writer.delete_esp(&[pollux_abi::Spi::new(u32::from_be_bytes(spi)).expect("not reserved")]);
        });
        assert_eq!(delete.len(), 1);
        id += 1;
    }
}

#[test]
fn an_initiator_takes_no_rekeyed_child_sa_that_is_narrower() {
    for end in 0..2 {
        let mut pair = up();
        let before = pair.children(end);
        pair.network = |_, _, _| None;
        pair.command(end, rekey());
        let (local, remote) =
            if end == 0 { ("10.1.0.0/16", "10.2.4.0/24") } else { ("10.2.0.0/16", "10.1.4.0/24") };
        answer(&mut pair, 1 - end, |writer| write_child(writer, &[local], &[remote]));
        assert_eq!(pair.children(end), before, "the old one stays");
        let told = pair.events.iter().any(|(at, event)| match event {
            Event::Refused { error: error @ IkeError::TsUnacceptable { .. }, .. } => {
                *at == end && error.to_string().contains("narrower")
            }
            _ => false,
        });
        assert!(told, "{:#?}", pair.events);
        let (_, last) = pair.sent.last().expect("a DELETE of what the peer has made");
        let sent = pollux_ike::message::Header::parse(&last.bytes).expect("a header");
        assert_eq!(sent.exchange, ExchangeType::Informational);
        assert_eq!(pair.tables[end].len(), 2, "nothing of the new one is left");
        // The next attempt may do better, and comes by itself.
        answer(&mut pair, 1 - end, |_| {});
        pair.idle = Some(core::time::Duration::from_secs(1));
        pair.run(40_000);
        let (_, last) = pair.sent.last().expect("the next attempt");
        let again = pollux_ike::message::Header::parse(&last.bytes).expect("a header");
        assert_eq!(again.exchange, ExchangeType::CreateChildSa);
        assert_eq!(pair.children(end), before);
    }
}

#[test]
fn close_action_counts_also_while_our_rekey_is_out() {
    let refusals = [NotifyType::ChildSaNotFound, NotifyType::TemporaryFailure, NotifyType::NoProposalChosen];
    for (notify, end) in refusals.into_iter().flat_map(|notify| [(notify, 0), (notify, 1)]) {
        for (action, after) in [(Action::Start, 1), (Action::None, 0)] {
            let with = |end: &str| {
                let mut connection = connection(end);
                connection.children = vec![Arc::new(ChildConfig { close_action: action, ..child(end) })];
                config_of(connection)
            };
            let mut pair = Pair::gullible(with("a"), with("b"));
            pair.initiate(0);
            pair.run(2_000);
            let spi = pair.children(end)[0].spi_out;
            pair.network = |_, _, _| None;
            pair.command(end, rekey());
            let id = if end == 1 { 2 } else { 0 };
            ask(&mut pair, 1 - end, ExchangeType::Informational, id, |writer| {
                writer.delete_esp(&[spi]);
            });
            assert_eq!(pair.children(end).len(), 0);
            // The rekey is the last request of that end; its DELETE's answer came after it.
            let at = pair.sent.iter().rposition(|(from, sent)| {
                let header = pollux_ike::message::Header::parse(&sent.bytes).expect("a header");
                *from == end && !header.flags.response
            });
            let request = pair.sent[at.expect("the rekey")].clone();
            pair.sent.push(request);
            let from = pair.sent.len();
            answer(&mut pair, 1 - end, |writer| {
                writer.notify(Notify::new(notify, &[]));
            });
            pair.run(7_000);
            let asked = pair.sent[from..].iter().filter(|(sender, sent)| {
                let header = pollux_ike::message::Header::parse(&sent.bytes).expect("a header");
                *sender == end && header.exchange == ExchangeType::CreateChildSa && !header.flags.response
            });
            assert_eq!(asked.count().min(1), after, "{notify} to end {end}, {action:?}: {:#?}", pair.events);
            assert_eq!(ike_sas(&pair, end), 1);
        }
    }
}

#[test]
fn a_rekey_that_goes_through_after_the_peer_deleted_the_old_child_needs_no_close_action() {
    let start = |end: &str| {
        let mut connection = connection(end);
        connection.children = vec![Arc::new(ChildConfig { close_action: Action::Start, ..child(end) })];
        config_of(connection)
    };
    let mut pair = Pair::gullible(start("a"), config("b"));
    pair.initiate(0);
    pair.run(2_000);
    let spi = pair.children(0)[0].spi_out;
    pair.network = |_, _, _| None;
    pair.command(0, rekey());
    let request = pair.sent.last().expect("the rekey").clone();
    ask(&mut pair, 1, ExchangeType::Informational, 0, |writer| {
        writer.delete_esp(&[spi]);
    });
    pair.sent.push(request);
    answer(&mut pair, 1, |writer| write_child(writer, &["10.1.0.0/16"], &["10.2.0.0/16"]));
    pair.run(1_000);
    assert_eq!(pair.children(0).len(), 1, "{:#?}", pair.events);
    assert!(!pair.has_down(0, DownReason::Failed));
}
