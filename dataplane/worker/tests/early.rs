//! ESP that comes before its SA waits for it, and not for long.
#![forbid(unsafe_code)]

mod support;

use pollux_abi::command::{Direction, SaSpec};
use pollux_abi::{DropReason, SaId, SaIndex, Spi};
use pollux_worker::housekeeping::ToWorker;
use pollux_worker::{Idle, monotonic_ns};
use support::{LAN, Lab, WAN, sa, udp};

/// Longer than a packet is held.
const TOO_LONG_NS: u64 = 60_000_000;
/// Packets that one worker holds.
const HELD_MAX: usize = 64;

/// The SA from gateway 1 to gateway 2, with an SPI of gateway 2's own making.
fn negotiated(direction: Direction, side: u8, owner: u16) -> SaSpec {
    SaSpec { spi: spi(7), index: SaIndex(7), id: SaId(70), ..sa(direction, 1, side, owner) }
}

fn spi(index: u32) -> Spi {
    Spi::with_index(SaIndex(index), 14, 0x5eed).expect("it fits")
}

/// Gateway 1 has its outbound SA, gateway 2 (`workers` of them) has nothing yet.
fn half_keyed(workers: u16) -> (Lab, Lab) {
    let mut near = Lab::new(1, 1);
    near.rigs[0].install(negotiated(Direction::Outbound, 1, 0));
    near.rigs[0].configure(1);
    let mut far = Lab::new(workers, workers);
    far.rigs.iter_mut().for_each(|rig| rig.configure(2));
    near.round();
    far.round();
    (near, far)
}

/// So many packets from gateway 1, as they leave its wan.
fn sealed(near: &mut Lab, count: usize) -> Vec<Vec<u8>> {
    for len in 0..count {
        near.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", len));
    }
    while near.round() != 0 {}
    let all = near.receive_octets(0, WAN);
    assert_eq!(all.len(), count);
    all
}

fn arrive(far: &mut Lab, rig: usize, packets: &[Vec<u8>]) {
    for octets in packets {
        far.send(rig, WAN, octets);
    }
    while far.round() != 0 {}
}

fn held(lab: &Lab, rig: usize) -> u64 {
    lab.rigs[rig].worker.ledger().held
}

#[test]
fn packets_that_overtake_their_sa_are_opened_in_order_once_it_is_there() {
    let (mut near, mut far) = half_keyed(1);
    let packets = sealed(&mut near, 11);
    arrive(&mut far, 0, &packets[..10]);
    assert!(far.receive(0, LAN).is_empty());
    assert_eq!((held(&far, 0), far.rigs[0].counters.held_early.value()), (10, 10));
    far.assert_ledger();
    // Another SA changes nothing for them.
    far.rigs[0].install(SaSpec {
        spi: spi(8),
        index: SaIndex(8),
        id: SaId(80),
        ..negotiated(Direction::Inbound, 2, 0)
    });
    far.round();
    assert_eq!(held(&far, 0), 10);
    far.rigs[0].install(negotiated(Direction::Inbound, 2, 0));
    // What comes in the same round follows them.
    arrive(&mut far, 0, &packets[10..]);
    let lens: Vec<usize> = far.receive_octets(0, LAN).iter().map(|octets| octets.len() - 28).collect();
    assert_eq!(lens, (0..11).collect::<Vec<_>>());
    assert_eq!(far.drops(0, DropReason::UnknownSpi), 0);
    far.assert_ledger();
}

#[test]
fn packets_whose_sa_comes_to_another_worker_are_handed_over() {
    let (mut near, mut far) = half_keyed(2);
    let packets = sealed(&mut near, 3);
    arrive(&mut far, 0, &packets);
    for rig in &mut far.rigs {
        rig.install(negotiated(Direction::Inbound, 2, 1));
    }
    far.round();
    far.round();
    assert_eq!((far.rigs[1].counters.taken_over.value(), far.receive_octets(1, LAN).len()), (3, 3));
    far.assert_ledger();
}

#[test]
fn packets_handed_over_before_their_owner_knows_the_sa_wait_there() {
    let (mut near, mut far) = half_keyed(2);
    let packets = sealed(&mut near, 3);
    far.rigs[0].install(negotiated(Direction::Inbound, 2, 1));
    arrive(&mut far, 0, &packets);
    far.round();
    assert_eq!((held(&far, 0), held(&far, 1)), (0, 3));
    far.rigs[1].install(negotiated(Direction::Inbound, 2, 1));
    far.round();
    assert_eq!(far.receive_octets(1, LAN).len(), 3);
    far.assert_ledger();
}

#[test]
fn packets_that_wait_in_vain_die_of_their_unknown_spi() {
    let (mut near, mut far) = half_keyed(1);
    let packets = sealed(&mut near, 2);
    arrive(&mut far, 0, &packets[..1]);
    far.now_ns += TOO_LONG_NS / 2;
    arrive(&mut far, 0, &packets[1..]);
    assert_eq!((held(&far, 0), far.drops(0, DropReason::UnknownSpi)), (2, 0));
    far.now_ns += TOO_LONG_NS / 2;
    far.round();
    assert_eq!((held(&far, 0), far.drops(0, DropReason::UnknownSpi)), (1, 1), "the older one only");
    far.now_ns += TOO_LONG_NS / 2;
    far.round();
    assert_eq!((held(&far, 0), far.drops(0, DropReason::UnknownSpi)), (0, 2));
    far.rigs[0].install(negotiated(Direction::Inbound, 2, 0));
    far.round();
    assert!(far.receive(0, LAN).is_empty(), "what is dead stays dead");
    far.assert_ledger();
}

#[test]
fn a_flood_of_made_up_spis_costs_one_queue_and_disturbs_nothing() {
    let (mut near, mut far) = half_keyed(1);
    far.rigs[0].install(negotiated(Direction::Inbound, 2, 0));
    for round in 0..100u32 {
        let mut packets = sealed(&mut near, 10);
        for (at, made_up) in (0u32..).zip(sealed(&mut near, 90)) {
            let mut made_up = made_up;
            // Free indices, an index in use with other random bits, and ones beyond the table.
            let value = 0b11 << 30 | (round * 90 + at).wrapping_mul(0x9e37_79b9) >> 2;
            made_up[20..24].copy_from_slice(&value.to_be_bytes());
            packets.insert(usize::try_from(at).expect("small") % packets.len(), made_up);
        }
        arrive(&mut far, 0, &packets);
        assert_eq!(far.receive_octets(0, LAN).len(), 10, "the tunnel's own packets, each time");
        assert!(held(&far, 0) <= HELD_MAX as u64);
    }
    assert_eq!(held(&far, 0), HELD_MAX as u64);
    assert_eq!(far.drops(0, DropReason::UnknownSpi), 9_000 - HELD_MAX as u64);
    far.assert_ledger();
    far.now_ns += TOO_LONG_NS;
    far.round();
    assert_eq!(far.drops(0, DropReason::UnknownSpi), 9_000);
    far.assert_ledger();
}

#[test]
fn spis_that_no_command_can_bring_are_not_waited_for() {
    let (mut near, mut far) = half_keyed(1);
    far.rigs[0].install(negotiated(Direction::Inbound, 2, 0));
    let packet = sealed(&mut near, 1).remove(0);
    let busy = Spi::with_index(SaIndex(7), 14, 0xbad).expect("it fits").get();
    for (at, value) in (1..).zip([0x1234_5678, 77, busy]) {
        let mut other = packet.clone();
        other[20..24].copy_from_slice(&u32::to_be_bytes(value));
        arrive(&mut far, 0, &[other]);
        assert_eq!((held(&far, 0), far.drops(0, DropReason::UnknownSpi)), (0, at), "{value:#x}");
    }
}

#[test]
fn packets_that_wait_are_in_the_ledger_of_a_worker_that_stops() {
    let (mut near, mut far) = half_keyed(1);
    let packets = sealed(&mut near, 5);
    // The loop takes the time itself.
    far.now_ns = monotonic_ns();
    far.round();
    arrive(&mut far, 0, &packets);
    far.rigs[0].tell(ToWorker::Stop);
    far.rigs[0].worker.run(Idle::Spin);
    let published = far.rigs[0].counters.ledger();
    assert_eq!(published, far.rigs[0].worker.ledger());
    assert_eq!(published.held, 5, "{published:?}");
    far.assert_ledger();
}
