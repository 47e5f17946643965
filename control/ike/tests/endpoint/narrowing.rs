//! Traffic selectors that the peer narrows: at a rekey, and for good (RFC 7296 §2.9).

use std::sync::Arc;

use pollux_abi::Reqid;
use pollux_ike::config::{Action, ChildConfig, SelectorConfig};
use pollux_ike::endpoint::{Command, Target};
use pollux_ike::error::IkeError;
use pollux_ike::event::{DownReason, Event, NarrowedBy};
use pollux_ike::message::{
    ExchangeType, Header, Notify, NotifyType, ProposalSpec, Protocol, Transform, TransformType, Writer,
};
use pollux_pair::{Pair, child, config, config_of, connection};

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
        let sent = Header::parse(&last.bytes).expect("a header");
        assert_eq!(sent.exchange, ExchangeType::Informational);
        assert_eq!(pair.tables[end].len(), 2, "nothing of the new one is left");
        // The next attempt may do better, and comes by itself.
        answer(&mut pair, 1 - end, |_| {});
        pair.idle = Some(core::time::Duration::from_secs(1));
        pair.run(40_000);
        let (_, last) = pair.sent.last().expect("the next attempt");
        let again = Header::parse(&last.bytes).expect("a header");
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
                let header = Header::parse(&sent.bytes).expect("a header");
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
                let header = Header::parse(&sent.bytes).expect("a header");
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

/// A child of `end` between these prefixes.
fn between(end: &str, name: &str, local: &[&str], remote: &[&str]) -> Arc<ChildConfig> {
    let fixed = |list: &[&str]| nets(list).into_iter().map(SelectorConfig::Fixed).collect();
    let (local_ts, remote_ts) = (fixed(local), fixed(remote));
    Arc::new(ChildConfig { name: name.into(), local_ts, remote_ts, reqid: None, ..child(end) })
}

/// End a wants two prefixes with two of end b, which takes one of each at a time: `pairs` of them.
fn one_pair_at_a_time(pairs: usize) -> Pair {
    let wide = between("a", "net", &["10.1.0.0/17", "10.1.128.0/17"], &["10.2.0.0/17", "10.2.128.0/17"]);
    let wide = Arc::new(ChildConfig { reqid: Some(Reqid(1)), ..(*wide).clone() });
    let mut a = connection("a");
    a.children = vec![wide];
    let mut b = connection("b");
    let all = [
        ("one", "10.2.0.0/17", "10.1.0.0/17"),
        ("two", "10.2.0.0/17", "10.1.128.0/17"),
        ("three", "10.2.128.0/17", "10.1.0.0/17"),
        ("four", "10.2.128.0/17", "10.1.128.0/17"),
    ];
    b.children =
        all[..pairs].iter().map(|(name, ours, theirs)| between("b", name, &[ours], &[theirs])).collect();
    let mut pair = Pair::new(config_of(a), config_of(b));
    pair.initiate(0);
    pair.run(2_000);
    pair
}

fn acquire(pair: &mut Pair, source: [u8; 4], destination: [u8; 4]) {
    let (source, destination) = (source.into(), destination.into());
    pair.command(0, Command::Acquire { reqid: Reqid(1), source, destination });
    pair.exchange();
}

fn narrowed(pair: &Pair, end: usize) -> Vec<(NarrowedBy, String, String)> {
    let told = pair.events.iter().filter_map(|(at, event)| match event {
        Event::ChildNarrowed { by, wanted, carried, .. } if *at == end => {
            Some((*by, wanted.clone(), carried.clone()))
        }
        _ => None,
    });
    told.collect()
}

#[test]
fn what_a_narrowed_child_sa_leaves_out_asks_for_further_ones() {
    let mut pair = one_pair_at_a_time(4);
    assert_eq!(pair.children(0).len(), 1, "{:#?}", pair.events);
    let told = narrowed(&pair, 0);
    assert_eq!(told.len(), 1, "once, and by name");
    assert_eq!(told[0].0, NarrowedBy::Peer);
    assert_eq!(told[0].2, "10.1.0.0/17 === 10.2.0.0/17");
    // A packet that it carries asks for nothing.
    acquire(&mut pair, [10, 1, 0, 1], [10, 2, 0, 1]);
    assert_eq!(pair.children(0).len(), 1);
    for (count, (source, destination)) in [
        ([10, 1, 200, 1], [10, 2, 0, 1]),
        ([10, 1, 0, 1], [10, 2, 200, 1]),
        ([10, 1, 200, 1], [10, 2, 200, 1]),
    ]
    .into_iter()
    .enumerate()
    {
        acquire(&mut pair, source, destination);
        assert_eq!(pair.children(0).len(), count + 2, "{:#?}", pair.events);
        // The next ones of the same burst ask for nothing more, and those of others wait a moment.
        acquire(&mut pair, source, destination);
        acquire(&mut pair, [10, 1, 200, 9], [10, 2, 200, 9]);
        assert_eq!(pair.children(0).len(), count + 2);
        pair.run(1_100);
    }
    let all = pair.children(0);
    assert!(all.iter().all(|child| child.reqid == Reqid(1)) && pair.keys_match());
    assert_eq!((all.len(), pair.children(1).len(), narrowed(&pair, 0).len()), (4, 4, 1));
    // Each keeps what it carries when it is rekeyed.
    let carried = |pair: &Pair| {
        let mut list: Vec<String> = pair
            .children(0)
            .iter()
            .map(|child| format!("{:?} {:?}", child.local_ts, child.remote_ts))
            .collect();
        list.sort();
        list
    };
    let before = carried(&pair);
    pair.command(0, rekey());
    pair.run(20_000);
    assert_eq!(carried(&pair), before, "{:#?}", pair.events);
    let rekeyed = |(end, event): &&(usize, Event)| *end == 0 && matches!(event, Event::ChildRekeyed { .. });
    assert_eq!(pair.events.iter().filter(rekeyed).count(), 4);
    assert!(pair.keys_match());
}

#[test]
fn a_peer_that_does_not_want_a_further_child_sa_is_asked_seldom() {
    let mut pair = one_pair_at_a_time(1);
    let before = pair.sent.len();
    for _ in 0..50 {
        acquire(&mut pair, [10, 1, 200, 1], [10, 2, 200, 1]);
        pair.run(1_000);
    }
    let asked = pair.sent[before..].iter().filter(|(end, sent)| {
        let header = Header::parse(&sent.bytes).expect("a header");
        *end == 0 && header.exchange == ExchangeType::CreateChildSa
    });
    assert_eq!(asked.count(), 1, "once a minute");
    assert_eq!(
        (pair.children(0).len(), pair.children(1).len()),
        (1, 1),
        "what was made for nothing is deleted"
    );
    let told = pair.events.iter().any(|(end, event)| match event {
        Event::Refused { error: error @ IkeError::TsUnacceptable { .. }, .. } => {
            *end == 0 && error.to_string().contains("10.1.200.1")
        }
        _ => false,
    });
    assert!(told, "{:#?}", pair.events);
    // What the policy is not about asks for nothing at all.
    pair.run(60_000);
    let before = pair.sent.len();
    acquire(&mut pair, [10, 9, 0, 1], [10, 2, 0, 1]);
    assert_eq!(pair.sent.len(), before);
}

#[test]
fn more_selectors_than_fit_are_cut_and_the_operator_is_told() {
    let mut pair = up();
    let many: Vec<String> = (0..12).map(|n| format!("10.1.{}.0/24", 2 * n)).collect();
    for (count, limited) in [(12, true), (8, false)] {
        let before = narrowed(&pair, 1).len();
        let ts_i: Vec<&str> = many[..count].iter().map(String::as_str).collect();
        let id = if limited { 2 } else { 3 };
        let answers = ask(&mut pair, 0, ExchangeType::CreateChildSa, id, |writer| {
            write_child(writer, &ts_i, &["10.2.0.0/16"]);
        });
        assert!(notifies(&answers[0]).is_empty());
        assert_eq!(pair.children(1).last().expect("a new one").remote_ts.len(), 8);
        let told = narrowed(&pair, 1);
        assert_eq!(told.len() - before, usize::from(limited));
        assert!(told.iter().all(|(by, ..)| *by == NarrowedBy::Limit));
    }
}

#[test]
fn a_peer_that_gives_a_child_sa_to_each_host_gets_no_more_than_the_data_plane_looks_through() {
    let mut b = connection("b");
    b.children = (0..20)
        .map(|host| {
            let theirs = format!("10.1.200.{host}/32");
            between("b", &format!("host {host}"), &["10.2.0.0/17"], &[&theirs])
        })
        .collect();
    let mut a = connection("a");
    a.children = vec![Arc::new(ChildConfig { reqid: Some(Reqid(1)), ..child("a") })];
    let mut pair = Pair::new(config_of(a), config_of(b));
    pair.initiate(0);
    pair.run(2_000);
    for host in 0..20 {
        acquire(&mut pair, [10, 1, 200, host], [10, 2, 0, 1]);
        pair.run(1_100);
    }
    assert_eq!(pair.children(0).len(), 8, "{:#?}", pair.events);
    let limit = |(end, event): &&(usize, Event)| {
        *end == 0 && matches!(event, Event::Refused { error: IkeError::Limit { .. }, .. })
    };
    assert_eq!(pair.events.iter().filter(limit).count(), 1, "told once a minute");
}
