//! Ring slots from a hostile process: whatever lies in a slot, decoding it neither panics nor gives a value
//! that can't be written back.

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use harness::{Random, fuzz, mutate_in_place};
use pollux_abi::command::{
    Command, CommandSlot, Direction, EncapPorts, Lifetimes, PolicyAction, PolicySpec, SaRoute, SaSpec,
};
use pollux_abi::dscp::{DfMark, EcnMode};
use pollux_abi::event::{Event, EventSlot, LimitKind, SaStats};
use pollux_abi::layout::{COMMAND_SLOT_LEN, EVENT_SLOT_LEN, SELECTORS_MAX};
use pollux_abi::{
    Dscp, DscpMark, EspSuite, KeyMaterial, PolicyId, Reqid, SaId, SaIndex, SelectorPair, Selectors, Spi,
    Ticket, TrafficSelector, WorkerId,
};
use zerocopy::{FromBytes, IntoBytes};

/// Rounds of an ordinary test run: about a second each.
const ROUNDS: u64 = 200_000;

const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn spec(direction: Direction, selectors: usize) -> SaSpec {
    let list = Selectors::new(&vec![TrafficSelector::any_v6(); selectors]).expect("as many as fit");
    SaSpec {
        id: SaId(7),
        direction,
        index: SaIndex(3),
        spi: Spi::new(0xc000_0101).expect("not reserved"),
        suite: EspSuite::Aes256Gcm16,
        esn: true,
        window_packets: 1024,
        local: V6,
        remote: V6,
        encap: Some(EncapPorts { local: 4500, remote: 61_000 }),
        reqid: Reqid(9),
        owner: WorkerId(1),
        dscp: DscpMark::Fixed(Dscp::EF),
        ecn: EcnMode::Off,
        df: DfMark::Clear,
        lifetimes: Lifetimes {
            soft_bytes: 1,
            hard_bytes: 2,
            soft_packets: 3,
            hard_packets: 4,
            soft_age: 5,
            hard_age: 6,
        },
        seq_start: 5,
        iv_start: 6,
        checkpoint: Some(8),
        local_ts: list,
        remote_ts: list,
    }
}

/// One command of each kind.
fn commands() -> Vec<Command> {
    let key = || KeyMaterial::new(&[0x5a; 36]).expect("fits");
    let route = SaRoute {
        id: SaId(7),
        direction: Direction::Inbound,
        index: SaIndex(3),
        spi: Spi::new(0xc000_0101).expect("not reserved"),
        reqid: Reqid(9),
        owner: WorkerId(1),
        local_ts: Selectors::new(&[TrafficSelector::any_v4()]).expect("one fits"),
        remote_ts: Selectors::new(&[TrafficSelector::any_v6()]).expect("one fits"),
    };
    let any = TrafficSelector::any_v6();
    let policy = |action| PolicySpec {
        id: PolicyId(3),
        direction: Direction::Outbound,
        selectors: SelectorPair { local: any, remote: any },
        action,
    };
    vec![
        Command::SaAdd(spec(Direction::Inbound, SELECTORS_MAX), key()),
        Command::SaReplace(spec(Direction::Outbound, 1), Some(key())),
        Command::SaReplace(spec(Direction::Outbound, 1), None),
        Command::SaRoute(route),
        Command::SaDelete(SaId(1)),
        Command::SaQuery(SaId(2)),
        Command::PolicyBegin,
        Command::PolicyAdd(policy(PolicyAction::Protect(Reqid(1)))),
        Command::PolicyAdd(policy(PolicyAction::Discard)),
        Command::PolicyCommit,
        Command::Barrier,
    ]
}

/// One event of each kind.
fn events() -> Vec<Event> {
    let (sa, source) = (SaId(5), IpAddr::V4(Ipv4Addr::LOCALHOST));
    vec![
        Event::Ack { ticket: Ticket(1), result: Ok(7) },
        Event::Ack { ticket: Ticket(1), result: Err(pollux_abi::command::CommandError::Full) },
        Event::SaStats { ticket: Ticket(2), stats: SaStats::default() },
        Event::Lifetime { sa, hard: true, limit: LimitKind::Packets },
        Event::FirstPacket { sa },
        Event::ReplayBurst { sa, count: 9 },
        Event::UnknownSpi { spi: 1, source, count: 2 },
        Event::WantedSa {
            policy: PolicyId(3),
            source: V6,
            destination: V6,
            protocol: 17,
            source_port: 5060,
            destination_port: 5061,
        },
        Event::PeerMoved { sa, source: V6, port: 4500 },
        Event::Restored { what: pollux_abi::event::LostThing::Routes, count: 3 },
    ]
}

/// A slot from random octets, or from a good one with some octets changed.
fn slot_octets(good: &[Vec<u8>], len: usize, random: &mut Random) -> Vec<u8> {
    if random.once_in(8) {
        return random.octets(len);
    }
    let mut octets = random.pick(good).clone();
    // Changes at the front matter most: there is the kind, and behind it the lengths.
    let end = if random.once_in(2) { len.min(64) } else { len };
    mutate_in_place(&mut octets[..end], random);
    octets
}

#[test]
fn fuzz_command_slots() {
    let good: Vec<Vec<u8>> =
        commands().iter().map(|command| command.encode(Ticket(42)).as_bytes().to_vec()).collect();
    let mut accepted = 0;
    let rounds = fuzz(ROUNDS, |random| {
        let octets = slot_octets(&good, COMMAND_SLOT_LEN, random);
        let slot = CommandSlot::read_from_bytes(&octets).expect("a slot's length");
        let (ticket, Ok(command)) = Command::decode(&slot) else { return };
        accepted += 1;
        let written = command.encode(ticket);
        let (again, decoded) = Command::decode(&written);
        assert_eq!(again, ticket);
        let decoded = decoded.expect("what was decoded can be written and read again");
        assert_eq!(decoded.encode(ticket).as_bytes(), written.as_bytes());
    });
    assert!(rounds < ROUNDS || accepted > ROUNDS / 100, "only {accepted} accepted: the harness is blunt");
}

#[test]
fn fuzz_event_slots() {
    let good: Vec<Vec<u8>> = events().iter().map(|event| event.encode().as_bytes().to_vec()).collect();
    let mut accepted = 0;
    let rounds = fuzz(ROUNDS, |random| {
        let octets = slot_octets(&good, EVENT_SLOT_LEN, random);
        let slot = EventSlot::read_from_bytes(&octets).expect("a slot's length");
        let Some(event) = Event::decode(&slot) else { return };
        accepted += 1;
        assert_eq!(Event::decode(&event.encode()), Some(event));
    });
    assert!(rounds < ROUNDS || accepted > ROUNDS / 100, "only {accepted} accepted: the harness is blunt");
}

#[test]
fn every_kind_of_slot_is_in_the_corpus_and_decodes() {
    for command in commands() {
        let (_, decoded) = Command::decode(&command.encode(Ticket(1)));
        assert!(decoded.is_ok(), "{command:?}: {decoded:?}");
    }
    for event in events() {
        assert_eq!(Event::decode(&event.encode()), Some(event));
    }
}
