//! The ring is a trust boundary: whatever stands in it, only its own commands fail.
#![forbid(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicU32, Ordering};

use pollux_abi::command::Command;
use pollux_abi::{CommandError, CommandSlot, Event, SaId, Ticket};
use pollux_shm::{AttachReply, ControlRing, Listener, Session};
use pollux_worker::housekeeping::ToWorker;
use proptest::prelude::*;
use support::{LAN, Lab, WAN, pair, udp};
use zerocopy::FromBytes;

/// Attaches to worker 0 of a lab as a control process does.
fn attach(lab: &mut Lab) -> ControlRing {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("pollux-ring-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let uid = rustix::process::geteuid().as_raw();
    let listener = Listener::bind(&path, Some(uid)).expect("a socket");
    let there = path.clone();
    let control = std::thread::spawn(move || Session::attach(&there).expect("attached"));
    let attach_reply =
        AttachReply { workers: 1, spi_index_width: 14, sa_capacity: 1 << 14, fingerprint_key: [0; 32] };
    let (_attachment, rings) = loop {
        if let Some(accepted) = listener.accept(&attach_reply, None).expect("a good peer") {
            break accepted;
        }
        std::thread::yield_now();
    };
    let ring = rings.into_iter().next().expect("worker 0's");
    lab.rigs[0].tell(ToWorker::Ring(Box::new(ring)));
    lab.round();
    control.join().expect("no panic").rings.remove(0)
}

fn answers(ring: &mut ControlRing) -> Vec<Event> {
    std::iter::from_fn(|| ring.events.read().expect("a sound ring"))
        .map(|slot| Event::decode(&slot).expect("an event"))
        .collect()
}

#[test]
fn every_command_is_acknowledged_in_order() {
    let mut lab = pair();
    let mut ring = attach(&mut lab);
    for ticket in 1..=1000 {
        let command = if ticket % 3 == 0 { Command::SaDelete(SaId(999)) } else { Command::Barrier };
        ring.commands.write(&command.encode(Ticket(ticket))).expect("room");
    }
    let mut heard = Vec::new();
    for _ in 0..200 {
        lab.round();
        heard.extend(answers(&mut ring));
    }
    assert_eq!(heard.len(), 1000);
    for (event, ticket) in heard.iter().zip(1..) {
        let result = if ticket % 3 == 0 { Err(CommandError::Unknown) } else { Ok(0) };
        assert_eq!(*event, Event::Ack { ticket: Ticket(ticket), result });
    }
    assert_eq!(lab.rigs[0].counters.commands.value(), 1000);
}

#[test]
fn a_reader_that_never_reads_holds_up_its_own_commands_alone() {
    let mut lab = pair();
    let mut ring = attach(&mut lab);
    let mut written = 0;
    for ticket in 1..=3000 {
        written += u64::from(ring.commands.write(&Command::Barrier.encode(Ticket(ticket))).is_ok());
        lab.round();
    }
    assert!(written < 3000, "the command ring fills up behind the event ring");
    lab.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", 20));
    lab.round();
    assert_eq!(lab.receive_octets(0, WAN).len(), 1, "packets go on");
    assert!(lab.rigs[0].worker.oldest_pending().is_some());
    lab.assert_ledger();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_slots_disturb_nothing(seed in proptest::collection::vec(any::<u8>(), 1024), kinds in proptest::collection::vec(any::<u8>(), 1..40)) {
        let mut lab = pair();
        let mut ring = attach(&mut lab);
        for (kind, at) in kinds.iter().zip(0u8..) {
            let mut octets = seed.clone();
            octets.rotate_left(usize::from(at));
            // The kind is the first octet: also known ones, with nonsense behind.
            octets[0] = kind % 12;
            let slot = CommandSlot::read_from_bytes(&octets).expect("as long as a slot");
            ring.commands.write(&slot).expect("room");
        }
        for _ in 0..8 {
            lab.round();
        }
        prop_assert_eq!(answers(&mut ring).len(), kinds.len(), "each is answered");
        lab.send(0, LAN, &udp("10.1.0.2", "10.2.0.2", 20));
        lab.round();
        prop_assert_eq!(lab.receive_octets(0, WAN).len(), 1);
        lab.assert_ledger();
    }
}
