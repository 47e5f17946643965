//! Rekeys, and what the data plane can do to them.

use std::sync::Arc;

use pollux_abi::command::{CommandError, Direction};
use pollux_ike::config::ChildConfig;

use pollux_ike::endpoint::{Command, DATA_PLANE_DEADLINE, Target};
use pollux_ike::event::{DownReason, Event};
use pollux_ike::message::NotifyType;
use pollux_ike::negotiate::Proposal;
use pollux_pair::{Pair, child, config, config_of, connection};

fn up() -> Pair {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.initiate(0);
    pair.run(2_000);
    pair
}

fn rekey(child: Option<&str>) -> Command {
    Command::Rekey(Target::Connection { connection: "peer".into(), child: child.map(Into::into) })
}

#[test]
fn a_rekeyed_child_takes_the_old_ones_place_at_both_ends() {
    for esp in ["aes128gcm16-noesn", "aes128gcm16-x25519-esn-noesn"] {
        let with = |end: &str| {
            let mut connection = connection(end);
            let proposals = vec![Proposal::parse_esp(esp).expect("a proposal")];
            connection.children = vec![Arc::new(ChildConfig { proposals, ..child(end) })];
            config_of(connection)
        };
        let mut pair = Pair::new(with("a"), with("b"));
        pair.initiate(0);
        pair.run(2_000);
        for end in [0, 1, 1, 0] {
            let old = pair.children(0)[0].spi_in;
            pair.command(end, rekey(Some("net")));
            pair.run(10_000);
            let [a, b] = [0, 1].map(|end| pair.children(end));
            assert_eq!((a.len(), b.len()), (1, 1), "{:#?}", pair.events);
            assert_ne!(a[0].spi_in, old);
            assert!(pair.keys_match());
            assert_eq!(pair.tables[0].len() + pair.tables[1].len(), 4, "the old SAs are gone");
        }
    }
}

#[test]
fn the_old_inbound_sa_decrypts_through_the_overlap() {
    let mut pair = up();
    let old = pair.children(0)[0].inbound;
    pair.command(1, rekey(Some("net")));
    pair.run(4_000);
    assert!(pair.tables[0].contains_key(&old), "what is still on the way finds it");
    pair.run(2_000);
    assert!(!pair.tables[0].contains_key(&old));
}

#[test]
fn responder_answers_a_rekey_only_when_its_inbound_sa_is_installed() {
    let mut pair = up();
    pair.data_plane[1] = false;
    let sent = pair.sent.len();
    pair.command(0, rekey(Some("net")));
    pair.run(100);
    assert_eq!(pair.sent.len(), sent + 1, "the request, and no answer yet");
    let new = *pair.tables[1].keys().last().expect("asked for");
    pair.command(1, Command::SaInstalled { sa: new });
    assert_eq!(pair.sent.len(), sent + 2);
}

#[test]
fn a_silent_data_plane_ends_in_temporary_failure_and_no_trace() {
    let mut pair = up();
    let before = pair.tables[1].len();
    pair.data_plane[1] = false;
    pair.command(0, rekey(Some("net")));
    pair.run(u64::try_from(DATA_PLANE_DEADLINE.as_millis()).expect("short") + 10);
    assert!(pair.refused_with(0, NotifyType::TemporaryFailure), "{:#?}", pair.events);
    assert_eq!(pair.tables[1].len(), before, "rolled back");
    assert_eq!((pair.children(0).len(), pair.children(1).len()), (1, 1), "the old one goes on");
    pair.data_plane[1] = true;
    pair.run(10_000);
    assert!(pair.events.iter().any(|(_, event)| matches!(event, Event::ChildRekeyed { .. })), "asked again");
}

#[test]
fn a_full_data_plane_ends_in_no_additional_sas() {
    let mut pair = up();
    pair.data_plane[1] = false;
    pair.command(0, rekey(Some("net")));
    pair.run(100);
    let new = *pair.tables[1].keys().last().expect("asked for");
    pair.command(1, Command::SaRefused { sa: new, error: CommandError::Full });
    pair.run(100);
    assert!(pair.refused_with(0, NotifyType::NoAdditionalSas), "{:#?}", pair.events);
}

#[test]
fn responder_moves_outbound_traffic_at_the_first_packet_under_the_new_sa() {
    let mut pair = up();
    // The DELETE of the old one never arrives.
    pair.network = |pair, end, transmit| (end == 1 || pair.sent.len() < 7).then_some(transmit);
    let sent = pair.sent.len();
    assert_eq!(sent, 4);
    pair.command(0, rekey(Some("net")));
    pair.run(1_000);
    let outbound =
        |pair: &Pair| pair.tables[1].values().filter(|sa| sa.direction == Direction::Outbound).count();
    assert_eq!(outbound(&pair), 1, "the peer is not known to have it");
    let status = pair.ends[1].status(pair.now);
    let new = status[0].children.iter().find(|child| !child.outbound).expect("held");
    pair.command(1, Command::FirstPacket { sa: new.sa.inbound });
    assert_eq!(outbound(&pair), 2);
}

#[test]
fn an_ike_rekey_keeps_the_child_sas_and_closes_the_old_ike_sa() {
    let mut pair = up();
    let child = pair.children(0)[0].clone();
    for end in [0, 1] {
        let old = pair.ends[0].status(pair.now)[0].spi_i;
        pair.command(end, rekey(None));
        pair.run(20_000);
        for end in 0..2 {
            let status = pair.ends[end].status(pair.now);
            assert_eq!(status.len(), 1, "{:#?}", pair.events);
            assert_ne!(status[0].spi_i, old);
        }
        assert_eq!(pair.children(0)[0].spi_in, child.spi_in);
    }
    pair.command(0, rekey(Some("net")));
    pair.run(10_000);
    assert!(pair.keys_match() && pair.children(1).len() == 1, "the new IKE SA rekeys the old child");
    assert_eq!([0, 1].map(|end| pair.state_len(end)), [1, 1]);
}

#[test]
fn simultaneous_rekeys_leave_one_sa_of_each_kind() {
    for child in [Some("net"), None] {
        let mut pair = up();
        pair.ends[0].handle_command(pair.now, rekey(child), &mut pair.rng);
        pair.command(1, rekey(child));
        pair.command(0, Command::FirstPacket { sa: pollux_abi::SaId(9_999) });
        pair.run(30_000);
        for end in 0..2 {
            assert_eq!(pair.ends[end].status(pair.now).len(), 1, "{:#?}", pair.events);
            assert_eq!(pair.children(end).len(), 1, "{:#?}", pair.events);
        }
        assert!(pair.keys_match());
        assert_eq!(pair.tables[0].len() + pair.tables[1].len(), 4);
    }
}

#[test]
fn after_its_data_plane_died_every_child_sa_is_replaced_at_once() {
    let mut pair = up();
    let old = pair.children(0)[0].spi_in;
    pair.tables[0].clear();
    pair.command(0, Command::DataPlaneDown);
    pair.command(0, Command::DataPlaneUp { live: Vec::new() });
    pair.run(100);
    assert_ne!(pair.children(0)[0].spi_in, old);
    pair.run(10_000);
    assert!(pair.keys_match() && pair.children(1).len() == 1, "{:#?}", pair.events);
}

#[test]
fn an_sa_that_lingers_when_its_data_plane_dies_leaves_nothing_behind() {
    let mut pair = up();
    pair.command(0, rekey(Some("net")));
    pair.run(1_000);
    assert_eq!(pair.tables[0].len(), 3, "the old inbound SA decrypts a little longer");
    pair.tables[0].clear();
    pair.command(0, Command::DataPlaneDown);
    pair.command(0, Command::Terminate(Target::Connection { connection: "peer".into(), child: None }));
    pair.run(20_000);
    assert_eq!([0, 1].map(|end| pair.state_len(end)), [0, 0]);
}

#[test]
fn soft_and_hard_limits_bring_a_new_child_sa() {
    for hard in [false, true] {
        let mut pair = up();
        let old = pair.children(0)[0].clone();
        pair.command(0, Command::Lifetime { sa: old.outbound, hard });
        pair.run(10_000);
        assert_eq!((pair.children(0).len(), pair.children(1).len()), (1, 1), "{:#?}", pair.events);
        assert_ne!(pair.children(0)[0].spi_in, old.spi_in);
        assert!(!pair.has_down(0, DownReason::Lifetime), "the IKE SA stays");
    }
}
