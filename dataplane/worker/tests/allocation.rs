//! A million packets through whole workers, and not one allocation.
#![allow(unsafe_code, reason = "a counting allocator passes every call on to the system's")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use pollux_packet::{Burst, Meta};
use pollux_port::Port;
use support::{LAN, WAN, pair, udp};

struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator with the same arguments, and its answer comes back
// unchanged; counting touches no memory but its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PACKETS: u64 = 1_000_000;

#[test]
fn a_million_packets_allocate_nothing() {
    let mut lab = pair();
    // One burst circles: into gateway 1's LAN, out of its wan, into gateway 2's, out of its LAN. It begins as
    // 64 packets of the test's own, which are written anew for each turn.
    let octets = udp("10.1.0.2", "10.2.0.2", 100);
    for _ in 0..64 {
        lab.send(0, LAN, &octets);
    }
    let mut burst = Burst::new();
    let mut turn = |lab: &mut support::Lab| {
        lab.round();
        assert_eq!(lab.carry(0, 1), 64);
        lab.round();
        let wire = &mut lab.rigs[1].wires[usize::from(LAN.0)];
        assert_eq!(wire.rx_burst(&mut lab.pool, &Meta::default(), &mut burst), 64);
        for packet in burst.split_mut().0 {
            packet.data_mut()[14..].copy_from_slice(&octets);
        }
        let sent = lab.rigs[0].wires[usize::from(LAN.0)].tx_burst(&mut lab.pool, &mut burst);
        assert_eq!(sent, 64);
    };
    for _ in 0..10 {
        turn(&mut lab);
    }
    let before = CALLS.load(Ordering::Relaxed);
    // Each turn is one packet sealed and one opened, 64 times.
    for _ in 0..PACKETS.div_ceil(128) {
        turn(&mut lab);
    }
    assert_eq!(CALLS.load(Ordering::Relaxed) - before, 0, "calls of the allocator");
    assert!(lab.rigs[1].counters.tx_packets.value() >= PACKETS / 2);
    assert!(lab.receive(0, WAN).is_empty());
}
