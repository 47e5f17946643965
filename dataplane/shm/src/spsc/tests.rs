use pollux_abi::{Command, CommandError, Event, SaId, Ticket};
use proptest::prelude::*;

use std::os::fd::AsFd;

use super::*;

fn both() -> (Vec<DataplaneRing>, Vec<ControlRing>, Doorbell) {
    let SharedRings { rings, memfd, mut fds } = SharedRings::create(1).expect("rings");
    let doorbell = Doorbell::from_peer(fds.remove(0));
    let memory = memfd.as_fd().try_clone_to_owned().expect("dup");
    (rings, SharedRings::open(1, memory, fds).expect("control side"), doorbell)
}

fn ticket_of(slot: &CommandSlot) -> u64 {
    Command::decode(slot).0.0
}

#[test]
fn commands_and_events_cross_in_order_on_every_ring() {
    let (mut dataplane, mut control, _bell) = both();
    assert_eq!((dataplane.len(), control.len()), (2, 2));
    for k in 0..2_usize {
        let (d, c) = (&mut dataplane[k], &mut control[k]);
        for n in 0..3000 {
            c.commands.write(&Command::SaDelete(SaId(n + 1)).encode(Ticket(n))).expect("room");
            let slot = d.commands.read().expect("honest").expect("one waits");
            assert_eq!(ticket_of(&slot), n);
            d.events.write(&Event::FirstPacket { sa: SaId(n + 1) }.encode()).expect("room");
            let event = c.events.read().expect("honest").expect("one waits");
            assert_eq!(Event::decode(&event), Some(Event::FirstPacket { sa: SaId(n + 1) }));
        }
        assert!(d.commands.read().expect("honest").is_none());
    }
}

#[test]
fn full_ring_refuses_and_recovers() {
    let (mut dataplane, mut control, _bell) = both();
    let slot = Command::Barrier.encode(Ticket(1));
    for _ in 0..RING_SLOTS {
        control[0].commands.write(&slot).expect("room");
    }
    assert_eq!(control[0].commands.write(&slot), Err(RingError::Full));
    assert_eq!(control[0].commands.room(), Ok(0));
    dataplane[0].commands.read().expect("honest").expect("one waits");
    assert_eq!(control[0].commands.write(&slot), Ok(()));
}

#[test]
fn slot_is_wiped_once_read() {
    let (mut dataplane, mut control, _bell) = both();
    control[0].commands.write(&Command::SaDelete(SaId(u64::MAX)).encode(Ticket(u64::MAX))).expect("room");
    let ring = &control[0].commands.ring;
    assert!(ring.slot(0).iter().any(|word| word.load(Ordering::Relaxed) != 0));
    dataplane[0].commands.read().expect("honest").expect("one waits");
    assert!(ring.slot(0).iter().all(|word| word.load(Ordering::Relaxed) == 0));
}

#[test]
fn sleeper_is_woken_and_a_waking_reader_costs_no_call() {
    let (mut dataplane, mut control, control_bell) = both();
    let slot = Command::Barrier.encode(Ticket(1));
    control[0].commands.write(&slot).expect("room");
    control[0].commands.wake();
    assert_eq!(dataplane[0].doorbell.quiet(), 0, "nobody sleeps, nobody is woken");
    assert!(!dataplane[0].commands.prepare_sleep(), "a slot waits");
    dataplane[0].commands.read().expect("honest").expect("one waits");
    assert!(dataplane[0].commands.prepare_sleep());
    control[0].commands.write(&slot).expect("room");
    control[0].commands.wake();
    assert_eq!(dataplane[0].doorbell.quiet(), 1);
    dataplane[0].commands.awake();
    control[0].commands.wake();
    assert_eq!(dataplane[0].doorbell.quiet(), 0);
    assert!(control[1].events.prepare_sleep());
    dataplane[1].events.write(&Event::FirstPacket { sa: SaId(1) }.encode()).expect("room");
    dataplane[1].events.wake();
    assert_eq!(control_bell.quiet(), 1);
}

#[test]
fn wakeups_are_never_lost_between_threads() {
    let (mut dataplane, mut control, _bell) = both();
    let mut d = dataplane.remove(0);
    let mut c = control.remove(0);
    let reader = std::thread::spawn(move || {
        let mut seen = 0_u64;
        while seen < 20_000 {
            while let Some(slot) = d.commands.read().expect("honest") {
                assert_eq!(ticket_of(&slot), seen);
                seen += 1;
            }
            if seen < 20_000 && d.commands.prepare_sleep() {
                let mut set = [rustix::event::PollFd::new(&d.doorbell, rustix::event::PollFlags::IN)];
                let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
                let ready = rustix::event::poll(&mut set, Some(&limit)).expect("poll");
                assert_eq!(ready, 1, "a wake-up was lost after {seen} slots");
                d.commands.awake();
                d.doorbell.quiet();
            }
        }
    });
    for n in 0..20_000 {
        let slot = Command::Barrier.encode(Ticket(n));
        while c.commands.write(&slot) == Err(RingError::Full) {
            std::thread::yield_now();
        }
        c.commands.wake();
    }
    reader.join().expect("reader");
}

#[test]
fn impossible_index_breaks_its_own_ring_alone() {
    let (mut dataplane, mut control, _bell) = both();
    control[0].commands.ring.word(PRODUCER_AT).store(0x8000_0000, Ordering::Relaxed);
    assert_eq!(dataplane[0].commands.read().err(), Some(RingBroken));
    control[0].commands.ring.word(PRODUCER_AT).store(0, Ordering::Relaxed);
    assert_eq!(dataplane[0].commands.read().err(), Some(RingBroken), "a broken ring stays so");
    assert!(dataplane[0].commands.prepare_sleep(), "and holds nobody up");
    control[0].events.ring.word(CONSUMER_AT).store(77, Ordering::Relaxed);
    let event = Event::FirstPacket { sa: SaId(1) }.encode();
    dataplane[0].events.write(&event).expect("a ring that was empty a moment ago has room");
    assert_eq!(dataplane[0].events.write(&event), Err(RingError::Broken(RingBroken)));
    control[1].commands.write(&Command::Barrier.encode(Ticket(5))).expect("the other ring works");
    assert!(dataplane[1].commands.read().expect("honest").is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn random_slots_and_indices_never_panic_the_reader(seed in any::<u64>(), rounds in 1..40_u32) {
        let (mut dataplane, control, _bell) = both();
        let ring = &control[0].commands.ring;
        let mut state = seed | 1;
        let mut random = || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; u32::try_from(state >> 32).expect("32 bits") };
        let mut published = 0_u32;
        for _ in 0..rounds {
            for slot in 0..RING_SLOTS.min(8) {
                ring.slot(slot).iter().for_each(|word| word.store(u64::from(random()) << 32 | u64::from(random()), Ordering::Relaxed));
            }
            // Mostly honest steps, so that slots are read too; now and then a wild one.
            published = if random().is_multiple_of(16) { random() } else { published.wrapping_add(3) };
            ring.word(PRODUCER_AT).store(published, Ordering::Relaxed);
            ring.word(CONSUMER_AT).store(random(), Ordering::Relaxed);
            let mut read = 0;
            while let Ok(Some(slot)) = dataplane[0].commands.read() {
                read += 1;
                prop_assert!(read <= RING_SLOTS);
                if let (_, Err(error)) = Command::decode(&slot) {
                    prop_assert!(CommandError::from_code(error.code()).is_some());
                }
            }
        }
    }
}

#[test]
fn control_refuses_memory_that_is_not_what_was_agreed() {
    let made = SharedRings::create(2).expect("rings");
    let memory = made.memfd.as_fd().try_clone_to_owned().expect("dup");
    assert!(matches!(SharedRings::open(2, memory, Vec::new()), Err(SetupError::Header)));
    let SharedRings { rings: _, memfd, mut fds } = SharedRings::create(2).expect("rings");
    fds.remove(0);
    fds.pop();
    let memory = memfd.as_fd().try_clone_to_owned().expect("dup");
    assert!(matches!(SharedRings::open(1, memory, fds), Err(SetupError::Header)), "one ring too many");
    assert!(matches!(SharedRings::create(0), Err(SetupError::Rings { .. })));
    assert!(matches!(SharedRings::create(WORKERS_MAX + 1), Err(SetupError::Rings { .. })));
}

#[test]
fn hostile_control_process_spoils_its_own_rings_and_nothing_else() {
    const CHILD: &str = "POLLUX_TEST_ATTACH_SOCKET";
    if let Some(path) = std::env::var_os(CHILD) {
        scribble(std::path::Path::new(&path));
    }
    let path = std::env::temp_dir().join(format!("pollux-hostile-{}.sock", std::process::id()));
    let listener = crate::Listener::bind(&path, None).expect("listener");
    let attach_reply =
        crate::AttachReply { workers: 2, spi_index_width: 8, sa_capacity: 256, fingerprint_key: [0; 32] };
    let mut child = std::process::Command::new(std::env::current_exe().expect("own binary"))
        .args(["--exact", "spsc::tests::hostile_control_process_spoils_its_own_rings_and_nothing_else"])
        .env(CHILD, &path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("child");
    let mut set = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut set, Some(&limit)), Ok(1), "the child never connected");
    let (attachment, mut rings) =
        listener.accept(&attach_reply, None).expect("attached").expect("somebody waits");
    let event = Event::FirstPacket { sa: SaId(1) }.encode();
    let (mut slots, mut events) = (0_u64, 0_u64);
    // Reads and writes as a worker would, until the child has killed itself.
    while attachment.is_alive() {
        for ring in &mut rings {
            for _ in 0..RING_SLOTS {
                let Ok(Some(slot)) = ring.commands.read() else { break };
                let _ = Command::decode(&slot);
                slots += 1;
            }
            if ring.commands.prepare_sleep() {
                ring.commands.awake();
            }
            ring.doorbell.quiet();
            events += u64::from(ring.events.write(&event).is_ok());
            ring.events.wake();
        }
    }
    child.wait().expect("it killed itself");
    println!("{slots} slots read, {events} events written while it scribbled");
    assert!(slots > 0 && events > 0);
    assert!(rings.iter_mut().any(|ring| ring.commands.read().is_err()), "no ring was given up");
    // Its successor gets memory that it never had.
    let thread = std::thread::spawn({
        let path = path.clone();
        move || crate::Session::attach(&path)
    });
    assert_eq!(rustix::event::poll(&mut set, Some(&limit)), Ok(1));
    let (_second, mut fresh) =
        listener.accept(&attach_reply, Some(&attachment)).expect("attached").expect("waits");
    let mut session = thread.join().expect("thread").expect("attached");
    session.rings[0].commands.write(&Command::Barrier.encode(Ticket(1))).expect("room");
    assert_eq!(fresh[0].commands.read().expect("honest").map(|slot| ticket_of(&slot)), Some(1));
}

/// The hostile process: attaches, then writes noise over all memory that it was given, and dies by kill -9.
fn scribble(path: &std::path::Path) -> ! {
    let session = crate::Session::attach(path).expect("the parent listens");
    let ring = &session.rings[0].commands.ring;
    let words = ring.map.words(0, ring.map.len_bytes() / 8).expect("all of it");
    let end = std::time::Instant::now() + std::time::Duration::from_millis(400);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    while std::time::Instant::now() < end {
        for ring in &session.rings {
            ring.commands.wake();
            // As an honest writer would, so that noise is read as slots; now and then a wild one.
            let (at, read) = (ring.commands.ring.word(PRODUCER_AT), ring.commands.ring.word(CONSUMER_AT));
            let waiting = at.load(Ordering::Relaxed).wrapping_sub(read.load(Ordering::Relaxed));
            let wild = random().is_multiple_of(4096);
            let step = if wild { random() >> 32 } else { u64::from(waiting < RING_SLOTS / 2) };
            at.fetch_add(u32::try_from(step).expect("32 bits"), Ordering::Release);
        }
        for _ in 0..100 {
            let at = usize::try_from(random() % words.len() as u64).expect("an index");
            // Not the indices themselves: they are moved above.
            if words[at].load(Ordering::Relaxed) == 0 {
                words[at].store(random(), Ordering::Relaxed);
            }
        }
    }
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).expect("kill");
    unreachable!("killed");
}
