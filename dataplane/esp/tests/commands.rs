//! Commands, the lives of SAs, hand-over between workers, and the events that control gets.

mod support;

use pollux_abi::command::{Direction, EncapPorts, Lifetimes, PolicyAction, SaRoute};
use pollux_abi::event::LimitKind;
use pollux_abi::selector::Selectors;
use pollux_abi::{
    Checkpoint, Command, CommandError, DropReason, EspSuite, Event, KeyMaterial, PolicyId, Reqid, SaId,
    SaIndex, Spi, WorkerId,
};
use pollux_esp::{Outcome, SaCounterTable};
use pollux_packet::{Flow, Role, Verdict};
use support::*;

const OUT: Direction = Direction::Outbound;

fn wire(packet: &[u8]) -> (u32, u32) {
    let header = pollux_packet::esp::Header::parse(&packet[20..]).expect("ESP over IPv4");
    (header.spi, header.sequence)
}

fn iv(packet: &[u8]) -> u64 {
    u64::from_be_bytes(packet[28..36].try_into().expect("eight octets"))
}

#[test]
fn unsound_commands_change_nothing() {
    let mut gateway = gateway();
    gateway.policies(&protect_all());
    assert_eq!(gateway.add(inbound(2, 3)), Ok(0));
    assert_eq!(gateway.add(outbound(1, 3)), Ok(0));
    let change = |change: fn(&mut pollux_abi::command::SaSpec), direction| {
        let mut spec = spec(direction, 9, 5);
        change(&mut spec);
        spec
    };
    for (spec, error, why) in [
        (change(|s| s.index = SaIndex(3), OUT), CommandError::Index, "the index is taken"),
        (change(|s| s.index = SaIndex(CAPACITY), OUT), CommandError::Index, "the index is beyond the table"),
        (change(|s| s.id = SaId(2), OUT), CommandError::Index, "the id is taken"),
        (change(|s| s.id = SaId(0), OUT), CommandError::Field, "the id is zero"),
        (
            change(|s| s.spi = inbound(2, 3).spi, Direction::Inbound),
            CommandError::SpiInUse,
            "the SPI is taken",
        ),
        (change(|s| s.owner = WorkerId(1), OUT), CommandError::Owner, "another worker's"),
        (change(|s| s.local = ip("::1"), OUT), CommandError::Field, "mixed outer addresses"),
        (change(|s| s.window_packets = 31, Direction::Inbound), CommandError::Field, "window too small"),
        (
            change(|s| (s.window_packets, s.esn) = (0, true), Direction::Inbound),
            CommandError::Field,
            "ESN without",
        ),
        (change(|s| s.window_packets = 65_537, Direction::Inbound), CommandError::Field, "window too large"),
        (change(|s| s.seq_start = 0, OUT), CommandError::Field, "outbound from zero"),
        (change(|s| s.seq_start = 1 << 32, OUT), CommandError::Field, "33 bits without ESN"),
        (change(|s| s.checkpoint = Some(4), OUT), CommandError::Field, "no such slot"),
        (
            change(|s| (s.checkpoint, s.suite) = (Some(1), EspSuite::Aes128GcmIiv), OUT),
            CommandError::Suite,
            "a manual key whose IV is the sequence number",
        ),
    ] {
        assert_eq!(gateway.add(spec), Err(error), "{why}");
    }
    let short = KeyMaterial::new(&[1; 19]).expect("it fits");
    assert_eq!(
        gateway.engine.apply(NOW, Command::SaAdd(outbound(9, 5), short)),
        Err(CommandError::KeyLength)
    );
    assert_eq!(gateway.delete(9), Err(CommandError::Unknown));
    assert_eq!(gateway.replace(outbound(9, 5)), Err(CommandError::Unknown));
    assert_eq!(gateway.engine.apply(NOW, Command::PolicyCommit), Err(CommandError::Kind));
    assert_eq!(gateway.engine.apply(NOW, Command::SaQuery(SaId(1))), Err(CommandError::Kind));
    assert_eq!(gateway.engine.apply(NOW, Command::Barrier), Ok(0));
    assert_eq!(wire(&gateway.encrypt(&v4(b""))).1, 1, "the SA that was there works on");
}

#[test]
fn replay_memory_runs_out_before_the_table_does_and_comes_back() {
    let mut gateway = gateway();
    let mut full = 0;
    for index in 0..CAPACITY {
        let mut spec = inbound(u64::from(index) + 1, index);
        spec.window_packets = 65_536;
        match gateway.add(spec) {
            Ok(_) => full += 1,
            Err(error) => assert_eq!(error, CommandError::Full),
        }
    }
    assert_eq!(full, 16, "a million packets of window");
    assert_eq!(gateway.delete(1), Ok(0));
    let mut spec = inbound(100, 60);
    spec.window_packets = 65_536;
    assert_eq!(gateway.add(spec), Ok(0));
}

#[test]
fn engine_refuses_sizes_that_do_not_fit() {
    let small = std::sync::Arc::new(SaCounterTable::new(1));
    let config = |width, capacity| pollux_esp::EngineConfig {
        worker: WorkerId(0),
        workers: 1,
        spi_index_width: width,
        sa_capacity: capacity,
        window_packets_total: 0,
        aead: pollux_aead::Engine::portable(),
        sa_counters: std::sync::Arc::clone(&small),
        counters: std::sync::Arc::default(),
        checkpoints: &[],
    };
    for (width, capacity, sound) in [(21, 1, false), (3, 9, false), (10, 2, false), (0, 1, true)] {
        assert_eq!(pollux_esp::Engine::new(config(width, capacity)).is_ok(), sound, "{width} {capacity}");
    }
}

#[test]
fn newest_sa_of_a_reqid_is_used_and_its_end_brings_back_the_one_before() {
    let mut gateway = gateway();
    gateway.policies(&protect_all());
    for (id, index) in [(1, 1), (2, 2), (3, 3)] {
        assert_eq!(gateway.add(outbound(id, index)), Ok(0));
    }
    let spi = |index| outbound(1, index).spi.get();
    assert_eq!(wire(&gateway.encrypt(&v4(b""))).0, spi(3));
    assert_eq!(gateway.delete(2), Ok(0));
    assert_eq!(gateway.delete(3), Ok(0));
    assert_eq!(wire(&gateway.encrypt(&v4(b""))), (spi(1), 1));
    assert_eq!(gateway.add(outbound(4, 3)), Ok(0));
    assert_eq!(wire(&gateway.encrypt(&v4(b""))).0, spi(3));
    // Policies that come later find the SAs that are there.
    gateway.policies(&protect_all());
    assert_eq!(wire(&gateway.encrypt(&v4(b""))), (spi(3), 2));
    assert_eq!(gateway.delete(4), Ok(0));
    assert_eq!(gateway.delete(1), Ok(0));
    assert_eq!(gateway.verdict_out(&v4(b"")), dropped(DropReason::NoSa));
}

#[test]
fn narrowed_sas_of_one_reqid_are_told_apart_by_their_selectors() {
    let mut gateway = gateway();
    gateway.policies(&protect_all());
    for (id, index, remote) in [(1, 1, "10.2.0.6/32"), (2, 2, "10.2.0.7/32")] {
        let mut spec = outbound(id, index);
        spec.remote_ts = Selectors::new(&[net(remote)]).expect("one fits");
        assert_eq!(gateway.add(spec), Ok(0));
    }
    let to = |last: u8| v4_with(|header| header.destination = [10, 2, 0, last], b"");
    assert_eq!(wire(&gateway.encrypt(&to(6))).0, outbound(1, 1).spi.get());
    assert_eq!(wire(&gateway.encrypt(&to(7))).0, outbound(2, 2).spi.get());
    assert_eq!(gateway.verdict_out(&to(8)), dropped(DropReason::NoSa));
}

#[test]
fn manual_spis_are_found_whatever_their_bits() {
    let mut receiver = gateway();
    let manual = [0x0000_0100, 0x1234_5678, 0xffff_ffff, 0xc000_0001];
    for (at, spi) in (1u32..).zip(manual) {
        let mut spec = inbound(u64::from(at), at + 10);
        spec.spi = Spi::new(spi).expect("not reserved");
        assert_eq!(receiver.add(spec.clone()), Ok(0));
        assert_eq!(
            receiver.verdict_in(&sealed(&spec, 1, &plaintext(&v4(b""), 4))),
            Verdict::Forward,
            "{spi:#x}"
        );
    }
    assert_eq!(receiver.delete(2), Ok(0));
    let mut spec = inbound(2, 12);
    spec.spi = Spi::new(manual[1]).expect("not reserved");
    let packet = sealed(&spec, 2, &plaintext(&v4(b""), 4));
    assert_eq!(receiver.verdict_in(&packet), dropped(DropReason::UnknownSpi));
}

#[test]
fn packet_that_comes_before_its_sa_is_early_until_given_up_or_offered_again() {
    let mut receiver = gateway();
    let spec = inbound(2, 3);
    let packet = sealed(&spec, 1, &plaintext(&v4(b""), 4));
    let mut burst = receiver.receive(std::slice::from_ref(&packet));
    let meta = burst.metas()[0];
    assert_eq!((meta.verdict, meta.spi), (Verdict::Early, Some(spec.spi)));
    assert_eq!((receiver.engine.knows_spi(spec.spi), receiver.engine.poll_event()), (false, None));
    assert_eq!(receiver.engine.give_up(NOW, &meta), DropReason::UnknownSpi);
    let told = Event::UnknownSpi { spi: spec.spi.get(), source: ip("192.0.2.1"), count: 1 };
    assert_eq!(receiver.events(), [told]);
    assert_eq!(receiver.add(spec.clone()), Ok(0));
    assert!(receiver.engine.knows_spi(spec.spi));
    burst.metas_mut()[0].verdict = Verdict::Pending;
    receiver.engine.inbound(NOW, &mut burst);
    assert_eq!(burst.metas()[0].verdict, Verdict::Forward);
    assert_eq!(receiver.delete(2), Ok(0));
    assert_eq!(receiver.verdict_in(&packet), Verdict::Early, "its index is free again");
}

#[test]
fn replacing_goes_on_with_numbers_ivs_and_window() {
    let (mut sender, mut receiver) = pair(|spec| spec.iv_start = 0xdead_0000);
    let first = sender.encrypt(&v4(b""));
    assert_eq!((wire(&first).1, iv(&first)), (1, 0xdead_0000));
    assert_eq!(receiver.verdict_in(&first), Verdict::Forward);
    let mut out = outbound(1, 3);
    out.suite = EspSuite::Aes256Gcm16;
    let mut into = inbound(2, 3);
    into.suite = EspSuite::Aes256Gcm16;
    into.window_packets = 64;
    assert_eq!(sender.replace(out.clone()), Ok(0));
    assert_eq!(receiver.replace(into), Ok(0));
    let second = sender.encrypt(&v4(b""));
    assert_eq!((wire(&second).1, iv(&second)), (2, 0xdead_0001));
    assert_eq!(receiver.verdict_in(&second), Verdict::Forward);
    assert_eq!(receiver.verdict_in(&first), dropped(DropReason::Replayed));
    let row = receiver.sa_counters.row(Direction::Inbound, SaIndex(3)).expect("a row");
    assert_eq!(row.packets.value(), 2);
    let changes: [fn(&mut pollux_abi::command::SaSpec); 3] = [
        |spec| spec.spi = Spi::new(0x300).expect("not reserved"),
        |spec| spec.esn = true,
        |spec| spec.reqid = Reqid(8),
    ];
    for change in changes {
        let mut other = out.clone();
        change(&mut other);
        assert_eq!(sender.replace(other), Err(CommandError::Field));
    }
    out.index = SaIndex(4);
    assert_eq!(sender.replace(out), Err(CommandError::Index));
}

#[test]
fn manual_sa_goes_on_after_delete_and_after_a_crash_and_accepts_no_replay() {
    let file = checkpoints();
    let (mut out, mut into) = (outbound(1, 3), inbound(2, 3));
    (out.checkpoint, into.checkpoint) = (Some(1), Some(2));
    let mut gateway = gateway_of(0, file);
    gateway.policies(&protect_all());
    assert_eq!((gateway.add(out.clone()), gateway.add(into.clone())), (Ok(1), Ok(2)));
    assert_eq!(file[1].reserved(), 0, "nothing is used yet");
    let packets: Vec<Vec<u8>> = (0..5).map(|_| gateway.encrypt(&v4(b""))).collect();
    assert_eq!(wire(&packets[4]).1, 5);
    let reserved = 1 + 2 * Checkpoint::STEP;
    assert_eq!(file[1].reserved(), reserved, "a step and the next one, before the first was used");
    assert_eq!(gateway.verdict_in(&packets[3]), Verdict::Forward);
    assert_eq!(file[2].authenticated(), 4);
    // Delete and add of the same key, then another life of the process.
    assert_eq!((gateway.delete(1), gateway.add(out.clone())), (Ok(0), Ok(1)));
    assert_eq!(u64::from(wire(&gateway.encrypt(&v4(b""))).1), reserved);
    drop(gateway);
    let mut reborn = gateway_of(0, file);
    reborn.policies(&protect_all());
    assert_eq!((reborn.add(out), reborn.add(into)), (Ok(1), Ok(2)));
    assert_eq!(u64::from(wire(&reborn.encrypt(&v4(b""))).1), reserved + 2 * Checkpoint::STEP);
    assert_eq!(reborn.verdict_in(&packets[3]), dropped(DropReason::Replayed));
    assert_eq!(reborn.verdict_in(&packets[2]), dropped(DropReason::Replayed), "whatever is older, too");
    assert_eq!(reborn.verdict_in(&packets[4]), Verdict::Forward);
}

#[test]
fn keys_swapped_for_earlier_ones_go_on_where_those_were() {
    let file = checkpoints();
    file[1].reserve(9_000);
    file[3].authenticate(7_000);
    let (mut out, mut into) = (outbound(1, 3), inbound(2, 3));
    (out.checkpoint, into.checkpoint) = (Some(0), Some(2));
    let mut gateway = gateway_of(0, file);
    gateway.policies(&protect_all());
    assert_eq!((gateway.add(out.clone()), gateway.add(into.clone())), (Ok(0), Ok(2)));
    let early = gateway.encrypt(&v4(b""));
    (out.checkpoint, into.checkpoint) = (Some(1), Some(3));
    assert_eq!((gateway.replace(out), gateway.replace(into.clone())), (Ok(1), Ok(3)));
    assert_eq!(gateway.verdict_in(&early), dropped(DropReason::TooOld));
    let row = gateway.sa_counters.row(Direction::Inbound, SaIndex(3)).expect("a row");
    assert_eq!(row.lost.value(), 0, "nothing of the earlier numbers counts as lost");
    assert_eq!(
        gateway.verdict_in(&sealed(&into, 7_000, &plaintext(&v4(b""), 4))),
        dropped(DropReason::Replayed)
    );
    assert_eq!(gateway.verdict_in(&sealed(&into, 7_001, &plaintext(&v4(b""), 4))), Verdict::Forward);
    assert_eq!(wire(&gateway.encrypt(&v4(b""))).1, 9_000);
    assert_eq!(file[1].reserved(), 9_000 + 2 * Checkpoint::STEP);
}

#[test]
fn reservation_is_a_step_ahead_of_the_numbers_in_use() {
    let file = checkpoints();
    let mut out = outbound(1, 3);
    out.checkpoint = Some(0);
    file[0].begin(out.seq_start);
    let mut gateway = gateway_of(0, file);
    gateway.policies(&protect_all());
    assert_eq!(gateway.add(out), Ok(0));
    let (mut before, mut moved) = (file[0].reserved(), 0);
    assert_eq!(before, 1 + 2 * Checkpoint::STEP, "by the housekeeper, before the owner knows the SA");
    for _ in 0..=Checkpoint::STEP / 64 {
        let burst = gateway.send(Role::Host, &vec![v4(b""); 64]);
        let last = burst.metas().iter().map(|meta| meta.sequence).max().expect("a burst");
        let now = file[0].reserved();
        // What was promised a burst ago had a step's time to reach the disk.
        assert!(before > last, "{last} was used when {before} was just being promised");
        assert!(now >= last + Checkpoint::STEP - 64, "{last} is used, and only {now} is reserved");
        moved += u32::from(now != before);
        before = now;
    }
    assert_eq!((moved, before), (1, 1 + 3 * Checkpoint::STEP));
}

#[test]
fn exhausted_numbers_stop_the_sa_with_an_event() {
    let (mut sender, _) = pair(|spec| spec.seq_start = u64::from(u32::MAX) - 2);
    let burst = sender.send(Role::Host, &vec![v4(b""); 5]);
    let verdicts: Vec<Verdict> = burst.metas().iter().map(|meta| meta.verdict).collect();
    let exhausted = dropped(DropReason::SequenceExhausted);
    assert_eq!(verdicts, [Verdict::Forward, Verdict::Forward, Verdict::Forward, exhausted, exhausted]);
    assert_eq!(wire(burst.packets()[2].data()).1, u32::MAX);
    assert_eq!(sender.verdict_out(&v4(b"")), exhausted);
    let event = |hard| Event::Lifetime { sa: SaId(1), hard, limit: LimitKind::Sequence };
    assert_eq!(sender.events(), [event(false), event(true)]);
}

#[test]
fn lifetimes_raise_one_soft_and_one_hard_event_and_stop() {
    let limits = [
        (Lifetimes { soft_packets: 3, hard_packets: 5, ..Lifetimes::default() }, LimitKind::Packets),
        (Lifetimes { soft_bytes: 84, hard_bytes: 140, ..Lifetimes::default() }, LimitKind::Bytes),
    ];
    for (lifetimes, limit) in limits {
        let (mut sender, mut unlimited) = pair(|spec| {
            if spec.direction == OUT {
                spec.lifetimes = lifetimes;
            }
        });
        let burst = sender.send(Role::Host, &vec![v4(b""); 7]);
        let passed = burst.metas().iter().filter(|meta| meta.verdict == Verdict::Forward).count();
        assert_eq!(passed, 5, "{limit:?}");
        assert_eq!(burst.metas()[6].verdict, dropped(DropReason::OutSaExpired));
        let event = |sa, hard| Event::Lifetime { sa: SaId(sa), hard, limit };
        assert_eq!(sender.events(), [event(1, false), event(1, true)]);
        let (mut tireless, mut receiver) = pair(|spec| {
            if spec.direction == Direction::Inbound {
                spec.lifetimes = lifetimes;
            }
        });
        for n in 1..=7 {
            let expected = if n <= 5 { Verdict::Forward } else { dropped(DropReason::SaExpired) };
            assert_eq!(receiver.verdict_in(&tireless.encrypt(&v4(b""))), expected, "packet {n}");
        }
        let first = Event::FirstPacket { sa: SaId(2) };
        assert_eq!(receiver.events(), [first, event(2, false), event(2, true)]);
        assert_eq!(unlimited.events(), []);
    }
}

#[test]
fn limit_that_met_a_full_queue_is_told_later() {
    let (mut sender, _) = pair(|spec| spec.lifetimes.hard_packets = 1);
    // Policies without SAs fill the queue with wanted SAs, sixteen a second.
    let unwanted: Vec<_> = (10..26)
        .map(|id| {
            policy(id, OUT, "0.0.0.0/0", &format!("172.16.{id}.0/24"), PolicyAction::Protect(Reqid(99)))
        })
        .chain(protect_all())
        .collect();
    sender.policies(&unwanted);
    let packets: Vec<Vec<u8>> =
        (10..26).map(|id| v4_with(|header| header.destination = [172, 16, id, 1], b"")).collect();
    for second in 0..20 {
        let mut burst = burst(Role::Lan, &packets);
        sender.engine.outbound(NOW + second * 1_000_000_000, &mut burst);
    }
    assert!(sender.counters.events_lost.value() > 0);
    assert_eq!(sender.verdict_out(&v4(b"")), Verdict::Forward);
    let lifetime = Event::Lifetime { sa: SaId(1), hard: true, limit: LimitKind::Packets };
    assert!(!sender.events().contains(&lifetime));
    assert_eq!(sender.verdict_out(&v4(b"")), dropped(DropReason::OutSaExpired));
    assert_eq!(sender.events(), [lifetime]);
}

#[test]
fn events_about_what_outsiders_do_are_rate_limited() {
    let (mut sender, mut receiver) = pair(|_| {});
    let good = sender.encrypt(&v4(b""));
    assert_eq!(receiver.verdict_in(&good), Verdict::Forward);
    for _ in 0..500 {
        assert_eq!(receiver.verdict_in(&good), dropped(DropReason::Replayed));
        let mut unknown = good.clone();
        unknown[20] = 0x11;
        assert_eq!(receiver.verdict_in(&unknown), dropped(DropReason::UnknownSpi));
        assert_eq!(sender.engine.poll_event(), None);
    }
    let spi = u32::from_be_bytes([0x11, good[21], good[22], good[23]]);
    let expected = [
        Event::FirstPacket { sa: SaId(2) },
        Event::UnknownSpi { spi, source: ip("192.0.2.1"), count: 1 },
        Event::ReplayBurst { sa: SaId(2), count: 64 },
    ];
    assert_eq!(receiver.events(), expected);
    let mut wanting = gateway();
    wanting.policies(&protect_all());
    for _ in 0..500 {
        assert_eq!(wanting.verdict_out(&v4(b"")), dropped(DropReason::NoSa));
    }
    let wanted = Event::WantedSa {
        policy: PolicyId(1),
        source: ip("10.1.0.5"),
        destination: ip("10.2.0.6"),
        protocol: 17,
        source_port: 5_060,
        destination_port: 5_062,
    };
    assert_eq!(wanting.events(), [wanted]);
}

#[test]
fn peer_behind_another_address_is_told_after_authentication_alone() {
    let (mut sender, mut receiver) = pair(in_udp);
    let moved = |packet: &[u8], port: u16| {
        let mut packet = packet.to_vec();
        packet[15] = 99;
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        renew_checksum(&mut packet);
        packet
    };
    let (first, second, third) =
        (sender.encrypt(&v4(b"")), sender.encrypt(&v4(b"")), sender.encrypt(&v4(b"")));
    let mut forged = moved(&first, 1);
    *forged.last_mut().expect("octets") ^= 1;
    assert_eq!(receiver.verdict_in(&forged), dropped(DropReason::BadIcv));
    assert_eq!(receiver.events(), []);
    assert_eq!(receiver.verdict_in(&moved(&second, 10_001)), Verdict::Forward);
    let told = Event::PeerMoved { sa: SaId(2), source: ip("192.0.2.99"), port: 10_001 };
    assert_eq!(receiver.events(), [Event::FirstPacket { sa: SaId(2) }, told]);
    assert_eq!(receiver.verdict_in(&moved(&first, 7)), Verdict::Forward, "late, so it says nothing new");
    assert_eq!(receiver.verdict_in(&moved(&third, 10_001)), Verdict::Forward);
    assert_eq!(receiver.events(), []);
    // Control answers by replacing the outbound SA's remote.
    let mut out = outbound(1, 3);
    out.encap = Some(EncapPorts { local: 4500, remote: 10_001 });
    out.remote = ip("192.0.2.99");
    assert_eq!(sender.replace(out), Ok(0));
    let burst = sender.send(Role::Host, &[v4(b"")]);
    assert_eq!(burst.metas()[0].flow.destination(), ip("192.0.2.99"));
    assert_eq!(burst.metas()[0].flow.destination_port, 10_001);
}

fn route(direction: Direction, id: u64, index: u32) -> Command {
    let spec = spec(direction, id, index);
    Command::SaRoute(SaRoute {
        id: spec.id,
        direction,
        index: spec.index,
        spi: spec.spi,
        reqid: spec.reqid,
        owner: WorkerId(0),
        local_ts: spec.local_ts,
        remote_ts: spec.remote_ts,
    })
}

#[test]
fn packets_of_another_workers_sa_are_handed_over_and_go_on_there() {
    let (mut owner, mut other) = (gateway(), gateway_of(1, checkpoints()));
    for gateway in [&mut owner, &mut other] {
        gateway.policies(&protect_all());
    }
    assert_eq!((owner.add(outbound(1, 3)), owner.add(inbound(2, 3))), (Ok(0), Ok(0)));
    assert_eq!(other.engine.apply(NOW, route(OUT, 1, 3)), Ok(0));
    assert_eq!(other.engine.apply(NOW, route(Direction::Inbound, 2, 3)), Ok(0));
    let mut burst = other.send(Role::Host, &[v4(b"handed")]);
    assert_eq!(burst.metas()[0].verdict, Verdict::HandOver(WorkerId(0)));
    owner.engine.outbound_owned(NOW, &mut burst);
    assert_eq!(burst.metas()[0].verdict, Verdict::Forward);
    let outer = burst.packets()[0].data().to_vec();
    assert_eq!(wire(&outer).1, 1, "numbered by the owner");
    let mut burst = other.receive(&[outer]);
    assert_eq!(burst.metas()[0].verdict, Verdict::HandOver(WorkerId(0)));
    owner.engine.inbound_owned(NOW, &mut burst);
    assert_eq!(burst.metas()[0].verdict, Verdict::Forward);
    assert_eq!(burst.packets()[0].data(), v4(b"handed"));
}

#[test]
fn handed_over_packet_of_a_gone_sa_meets_neither_its_heir_nor_a_third_worker() {
    let (mut owner, mut other) = (gateway(), gateway_of(1, checkpoints()));
    other.policies(&protect_all());
    assert_eq!(owner.add(outbound(1, 3)), Ok(0));
    assert_eq!(other.engine.apply(NOW, route(OUT, 1, 3)), Ok(0));
    let mut burst = other.send(Role::Host, &[v4(b"late")]);
    assert_eq!(owner.delete(1), Ok(0));
    let mut heir = outbound(5, 3);
    heir.spi = Spi::with_index(SaIndex(3), WIDTH, 0xbeef).expect("it fits");
    assert_eq!(owner.add(heir), Ok(0));
    owner.engine.outbound_owned(NOW, &mut burst);
    assert_eq!(burst.metas()[0].verdict, dropped(DropReason::HandoverLoop));
    // Inbound: handed to a worker that knows another owner.
    let mut third = gateway_of(1, checkpoints());
    assert_eq!(third.engine.apply(NOW, route(Direction::Inbound, 2, 3)), Ok(0));
    let spec = inbound(2, 3);
    let mut burst = burst_of(&sealed(&spec, 1, &plaintext(&v4(b""), 4)));
    third.engine.inbound_owned(NOW, &mut burst);
    assert_eq!(burst.metas()[0].verdict, dropped(DropReason::HandoverLoop));
}

fn burst_of(packet: &[u8]) -> pollux_packet::Burst {
    burst(Role::Wan, &[packet.to_vec()])
}

#[test]
fn selectors_choose_among_other_workers_sas_too() {
    let mut other = gateway_of(1, checkpoints());
    other.policies(&protect_all());
    assert_eq!(other.engine.apply(NOW, route(OUT, 1, 3)), Ok(0));
    let Command::SaRoute(mut narrow) = route(OUT, 2, 4) else { panic!("a route") };
    narrow.remote_ts = Selectors::new(&[net("10.3.0.0/16")]).expect("one fits");
    assert_eq!(other.engine.apply(NOW, Command::SaRoute(narrow)), Ok(0));
    let to = |destination| v4_with(|header| header.destination = destination, b"");
    for _ in 0..2 {
        let burst = other.send(Role::Host, &[to([10, 2, 0, 6]), to([10, 3, 0, 6])]);
        let chosen: Vec<_> = burst.metas().iter().map(|meta| (meta.verdict, meta.sa)).collect();
        let given = Verdict::HandOver(WorkerId(0));
        assert_eq!(chosen, [(given, SaIndex(3)), (given, SaIndex(4))], "the newer one is too narrow");
    }
    // The owner is asked for anew once it may have changed.
    assert_eq!(other.delete(1), Ok(0));
    assert_eq!(other.verdict_out(&to([10, 2, 0, 6])), dropped(DropReason::NoSa));
}

#[test]
fn owner_checks_the_selectors_of_its_own_sa() {
    let (mut owner, mut other) = (gateway(), gateway_of(1, checkpoints()));
    other.policies(&protect_all());
    let mut narrow = outbound(1, 3);
    narrow.remote_ts = Selectors::new(&[net("10.3.0.0/16")]).expect("one fits");
    assert_eq!(owner.add(narrow), Ok(0));
    assert_eq!(other.engine.apply(NOW, route(OUT, 1, 3)), Ok(0));
    let mut burst = other.send(Role::Host, &[v4(b"")]);
    owner.engine.outbound_owned(NOW, &mut burst);
    assert_eq!(burst.metas()[0].verdict, dropped(DropReason::NoSa));
}

#[test]
fn routes_follow_the_owner_and_are_checked() {
    let mut other = gateway_of(1, checkpoints());
    assert_eq!(other.engine.apply(NOW, route(OUT, 1, 3)), Ok(0));
    assert_eq!(other.engine.apply(NOW, route(OUT, 1, 3)), Ok(0), "told twice");
    assert_eq!(other.engine.apply(NOW, route(OUT, 1, 4)), Err(CommandError::Index));
    assert_eq!(other.engine.apply(NOW, route(OUT, 8, 3)), Err(CommandError::Index));
    let mut owner = gateway();
    assert_eq!(owner.engine.apply(NOW, route(OUT, 1, 3)), Err(CommandError::Owner), "its own worker's");
    assert_eq!(other.delete(1), Ok(0));
    assert_eq!(other.delete(1), Err(CommandError::Unknown));
}

#[test]
fn explain_says_what_packets_meet() {
    let mut gateway = gateway();
    gateway.policies(&[
        policy(1, OUT, "10.1.0.0/16", "10.9.0.0/16", PolicyAction::Bypass),
        policy(2, OUT, "10.1.0.0/16", "10.8.0.0/16", PolicyAction::Discard),
        policy(3, OUT, "10.1.0.0/16", "10.0.0.0/8", PolicyAction::Protect(REQID)),
    ]);
    let flow =
        |destination: &str| Flow::new(ip("10.1.0.5"), ip(destination), 17, 5_060, 5_062).expect("a flow");
    let outcome = |gateway: &Gateway, destination| gateway.engine.explain(&flow(destination), OUT).outcome;
    assert_eq!(outcome(&gateway, "10.9.0.1"), Outcome::Bypassed);
    assert_eq!(outcome(&gateway, "10.8.0.1"), Outcome::Dropped(DropReason::OutPolicyDiscard));
    assert_eq!(outcome(&gateway, "11.0.0.1"), Outcome::Dropped(DropReason::NoPolicy));
    assert_eq!(outcome(&gateway, "10.2.0.1"), Outcome::Dropped(DropReason::NoSa));
    assert_eq!(gateway.add(outbound(1, 3)), Ok(0));
    let explanation = gateway.engine.explain(&flow("10.2.0.1"), OUT);
    assert_eq!(explanation.outcome, Outcome::Protected);
    assert_eq!(explanation.policy, Some((PolicyId(3), PolicyAction::Protect(REQID))));
    let sa = explanation.sa.expect("an SA");
    assert_eq!((sa.id, sa.index, sa.owner, sa.inner_mtu), (SaId(1), SaIndex(3), WorkerId(0), Some(1446)));
    let arriving = |gateway: &Gateway, source: &str| {
        let flow = Flow::new(ip(source), ip("10.1.0.5"), 17, 1, 2).expect("a flow");
        gateway.engine.explain(&flow, Direction::Inbound).outcome
    };
    assert_eq!(arriving(&gateway, "10.2.0.1"), Outcome::Protected);
    assert_eq!(arriving(&gateway, "10.9.0.1"), Outcome::Bypassed);
    assert_eq!(arriving(&gateway, "11.0.0.1"), Outcome::Dropped(DropReason::NotOurs));
}
