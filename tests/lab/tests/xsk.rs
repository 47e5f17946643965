//! AF_XDP ports on real veth pairs, in a network namespace that lives as long as one test.
//!
//! ```text
//!   private network namespace of the test's thread, XDP program (role lan) on every end
//!   generator  g0 ═══ d0  device under test  d1 ═══ g1  sink
//!              each end: an AF_XDP socket per queue; all of them in one UMEM
//! ```
//!
//! Needs root; without it each test says `skipped`. Every test ends with the frame ledger.

#[path = "xsk/rig.rs"]
mod rig;

use pollux_packet::{Burst, Meta};
use pollux_port::{FramePool, ModeChoice, Port, PortState, Umem, UmemConfig, XskPort};

use crate::rig::{Rig, frame_of, number_of, settles, sh};

fn umem(frames: u32) -> Umem {
    Umem::new(UmemConfig { frames, frame_len: 4096, huge_pages: false }).expect("umem")
}

/// Gives each port its first frames.
fn start<const N: usize>(pool: &mut FramePool, ports: [&mut XskPort; N]) {
    for port in ports {
        assert_eq!(port.reclaim(pool), 0, "nothing has been sent yet");
    }
}

fn close<const N: usize>(pool: &mut FramePool, ports: [&mut XskPort; N]) {
    for port in ports {
        port.close(pool);
    }
}

/// Queues `count` numbered frames on `port` and kicks.
fn send(port: &mut XskPort, pool: &mut FramePool, first: u32, count: u32) -> u32 {
    let mut burst = Burst::new();
    let mut sent = 0;
    while sent < count {
        while burst.room() > 0 && sent + u32::try_from(burst.len()).expect("64") < count {
            let Some(mut packet) = pool.alloc(256) else { break };
            let number = first + sent + u32::try_from(burst.len()).expect("64");
            assert!(packet.extend(&frame_of(number, 60 + number as usize % 1400)));
            burst.push(packet, Meta::default()).expect("room");
        }
        let queued = port.tx_burst(pool, &mut burst);
        sent += u32::try_from(queued).expect("64");
        port.kick();
        port.reclaim(pool);
        if queued == 0 {
            break;
        }
    }
    burst.drain().for_each(|(packet, _)| pool.put(packet));
    sent
}

/// Moves what `from` receives to `to`; returns the numbers of the frames.
fn forward(from: &mut XskPort, to: &mut XskPort, pool: &mut FramePool) -> Vec<u32> {
    let mut burst = Burst::new();
    from.rx_burst(pool, &Meta::default(), &mut burst);
    let numbers = burst.packets().iter().filter_map(|packet| number_of(packet.data())).collect();
    to.tx_burst(pool, &mut burst);
    burst.drain().for_each(|(packet, _)| pool.put(packet));
    to.kick();
    from.reclaim(pool);
    to.reclaim(pool);
    numbers
}

/// Receives until nothing comes for a while; every frame must be as it was sent.
fn receive(port: &mut XskPort, pool: &mut FramePool) -> Vec<u32> {
    let mut numbers = Vec::new();
    let mut burst = Burst::new();
    port.reclaim(pool);
    while port.rx_burst(pool, &Meta::default(), &mut burst) != 0 {
        for (packet, _) in burst.drain() {
            if let Some(number) = number_of(packet.data()) {
                assert_eq!(packet.data(), frame_of(number, 60 + number as usize % 1400));
                assert_eq!(packet.head(), 256, "the kernel's headroom is there for encapsulation");
                numbers.push(number);
            }
            pool.put(packet);
        }
        port.reclaim(pool);
    }
    numbers
}

#[test]
fn frames_cross_two_veth_pairs_unchanged_and_in_order() {
    Rig::run(1, |rig| {
        let umem = umem(16_384);
        let mut pool = umem.pool(16_384).expect("room");
        let [mut g0, mut d0, mut d1, mut g1] =
            ["g0", "d0", "d1", "g1"].map(|device| rig.open(&umem, device, 0, ModeChoice::Auto));
        start(&mut pool, [&mut g0, &mut d0, &mut d1, &mut g1]);
        let info = d0.info();
        println!("{}\n{info}", umem.info());
        assert!(info.to_string().contains("copy (requested: auto) because zero-copy: "), "{info}");
        assert_eq!(info.napi_id, Some(0), "veth has no NAPI id to poll");
        let mut arrived = Vec::new();
        for round in 0..50 {
            assert_eq!(send(&mut g0, &mut pool, round * 200, 200), 200);
            while !forward(&mut d0, &mut d1, &mut pool).is_empty() {}
            arrived.extend(receive(&mut g1, &mut pool));
        }
        assert!(settles(|| {
            forward(&mut d0, &mut d1, &mut pool);
            arrived.extend(receive(&mut g1, &mut pool));
            arrived.len() == 10_000
        }));
        assert_eq!(arrived, (0..10_000).collect::<Vec<_>>());
        let stats = d0.stats();
        assert_eq!((stats.rx_packets, stats.rx_bad_descriptors, stats.xsk_rx_ring_full), (10_000, 0, 0));
        assert!(pool.ledger().balances(0), "{:?}", pool.ledger());
        close(&mut pool, [&mut g0, &mut d0, &mut d1, &mut g1]);
        assert_eq!((pool.ledger().free, pool.ledger().in_rings), (16_384, 0));
    });
}

#[test]
fn one_umem_serves_two_devices_with_two_queues_for_two_workers() {
    Rig::run(2, |rig| {
        let umem = umem(24_576);
        let mut pools = [umem.pool(12_288).expect("room"), umem.pool(12_288).expect("room")];
        let mut ports = Vec::new();
        for queue in 0..2 {
            ports.push(
                ["g0", "d0", "d1", "g1"].map(|device| rig.open(&umem, device, queue, ModeChoice::Copy)),
            );
        }
        let shared = ports.iter().flatten().filter(|port| port.info().shared_umem).count();
        assert_eq!(shared, 7, "all but the first share its registration");
        for (worker, pool) in ports.iter_mut().zip(&mut pools) {
            start(pool, worker.each_mut());
        }
        let mut arrived = [Vec::new(), Vec::new()];
        for round in 0..20 {
            for (k, ([g0, d0, d1, g1], pool)) in ports.iter_mut().zip(&mut pools).enumerate() {
                let first = u32::try_from(k).expect("two") * 1_000_000 + round * 100;
                assert_eq!(send(g0, pool, first, 100), 100);
                while !forward(d0, d1, pool).is_empty() {}
                arrived[k].extend(receive(g1, pool));
            }
        }
        // A frame of worker 0 goes out by worker 1's socket, and comes home.
        let [one, two] = &mut pools;
        let mut burst = Burst::new();
        let mut packet = one.alloc(256).expect("free");
        assert!(packet.extend(&frame_of(1_002_000, 60 + 1_002_000 % 1400)));
        burst.push(packet, Meta::default()).expect("room");
        assert_eq!(ports[1][1].tx_burst(two, &mut burst), 1);
        ports[1][1].kick();
        assert!(settles(|| {
            ports[1][1].reclaim(two);
            two.ledger().foreign == 1
        }));
        one.put(two.take_foreign().expect("it waits"));
        for (k, numbers) in arrived.iter().enumerate() {
            let first = u32::try_from(k).expect("two") * 1_000_000;
            assert_eq!(numbers, &(first..first + 2000).collect::<Vec<_>>(), "queue {k}");
        }
        let both = one.ledger().plus(&two.ledger());
        assert!(both.balances(0), "{both:?}");
        for (worker, pool) in ports.iter_mut().zip(&mut pools) {
            close(pool, worker.each_mut());
            assert_eq!(pool.ledger().free, 12_288);
        }
    });
}

#[test]
fn port_of_a_link_that_goes_down_and_up_works_again() {
    Rig::run(1, |rig| {
        let umem = umem(8192);
        let mut pool = umem.pool(8192).expect("room");
        let [mut g0, mut d0] = ["g0", "d0"].map(|device| rig.open(&umem, device, 0, ModeChoice::Copy));
        start(&mut pool, [&mut g0, &mut d0]);
        assert_eq!(send(&mut g0, &mut pool, 0, 10), 10);
        assert_eq!(receive(&mut d0, &mut pool).len(), 10);
        sh("ip link set g0 down");
        send(&mut g0, &mut pool, 10, 10);
        assert_eq!(g0.state(), PortState::Down);
        assert!(pool.ledger().balances(0), "{:?}", pool.ledger());
        sh("ip link set g0 up");
        assert!(settles(|| {
            g0.kick();
            g0.reclaim(&mut pool);
            g0.state() == PortState::Up
        }));
        send(&mut g0, &mut pool, 20, 10);
        let mut arrived = Vec::new();
        assert!(settles(|| {
            arrived.extend(receive(&mut d0, &mut pool));
            arrived.contains(&29)
        }));
        close(&mut pool, [&mut g0, &mut d0]);
        assert_eq!(pool.ledger().free, 8192);
    });
}

#[test]
fn dead_device_gives_its_frames_back_and_its_successor_works() {
    Rig::run(1, |rig| {
        let umem = umem(8192);
        let mut pool = umem.pool(8192).expect("room");
        let [mut g0, mut d0] = ["g0", "d0"].map(|device| rig.open(&umem, device, 0, ModeChoice::Copy));
        start(&mut pool, [&mut g0, &mut d0]);
        for life in 0..3 {
            assert_eq!(send(&mut g0, &mut pool, 0, 500), 500);
            assert_eq!(receive(&mut d0, &mut pool).len(), 500);
            // Some are received and not fetched, some queued and never sent, when the device goes.
            send(&mut g0, &mut pool, 0, 100);
            sh("ip link del d0");
            send(&mut g0, &mut pool, 0, 100);
            assert_eq!(g0.state(), PortState::Down, "life {life}");
            assert!(pool.ledger().balances(0), "{:?}", pool.ledger());
            close(&mut pool, [&mut g0, &mut d0]);
            assert_eq!(pool.ledger().free, 8192, "{:?}", pool.ledger());
            assert!(rig.try_open(&umem, "g0", 0, ModeChoice::Copy).is_err_and(|e| e.contains("gone")));
            rig.pair(0);
            g0 = rig.open(&umem, "g0", 0, ModeChoice::Copy);
            d0 = rig.open(&umem, "d0", 0, ModeChoice::Copy);
            start(&mut pool, [&mut g0, &mut d0]);
        }
        assert_eq!(send(&mut g0, &mut pool, 0, 500), 500);
        assert_eq!(receive(&mut d0, &mut pool).len(), 500);
        close(&mut pool, [&mut g0, &mut d0]);
        assert!(pool.ledger().balances(0));
    });
}

#[test]
fn queue_is_free_again_once_its_port_is_dropped_and_not_before() {
    Rig::run(1, |rig| {
        let umem = umem(1024);
        let mut pool = umem.pool(1024).expect("room");
        let mut first = rig.open(&umem, "d0", 0, ModeChoice::Copy);
        first.reclaim(&mut pool);
        let busy = rig.try_open(&umem, "d0", 0, ModeChoice::Copy).expect_err("the queue is taken");
        assert!(busy.contains("another AF_XDP socket has this queue"), "{busy}");
        first.close(&mut pool);
        assert_eq!(pool.ledger().free, 1024);
        let second = rig.open(&umem, "d0", 0, ModeChoice::Auto);
        assert_eq!(second.state(), PortState::Up);
        let wrong = rig.try_open(&umem, "d0", 7, ModeChoice::Auto).expect_err("there is one queue");
        assert!(wrong.contains("queue 7") && wrong.contains("ethtool -l"), "{wrong}");
        let zero = rig.try_open(&umem, "d1", 0, ModeChoice::ZeroCopy).expect_err("veth copies");
        assert!(zero.contains("ask for \"auto\" or \"copy\""), "{zero}");
    });
}

#[test]
fn stalled_worker_shows_in_the_statistics_of_its_socket() {
    Rig::run(1, |rig| {
        let umem = umem(8192);
        let mut pool = umem.pool(8192).expect("room");
        let [mut g0, mut d0] = ["g0", "d0"].map(|device| rig.open(&umem, device, 0, ModeChoice::Copy));
        start(&mut pool, [&mut g0, &mut d0]);
        // The fill ring holds 2,048 frames; nobody fetches what has come.
        for round in 0..10 {
            send(&mut g0, &mut pool, round * 300, 300);
        }
        let stats = d0.stats();
        let lost = stats.xsk_rx_fill_ring_empty + stats.xsk_rx_ring_full + stats.xsk_rx_dropped;
        assert!(lost >= 900, "{stats:?}");
        assert_eq!(receive(&mut d0, &mut pool).len(), 2048);
        assert_eq!(send(&mut g0, &mut pool, 0, 100), 100);
        assert_eq!(receive(&mut d0, &mut pool).len(), 100, "it works again at once");
        close(&mut pool, [&mut g0, &mut d0]);
        assert!(pool.ledger().balances(0));
    });
}
