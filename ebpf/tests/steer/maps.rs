//! Pinned maps across restarts of the loader.

use std::os::fd::AsFd;

use pollux_abi::{IfIndex, QueueId, Spi};
use pollux_ebpf::Role::{Lan, Wan};
use pollux_ebpf::{Capacity, PORT_SLOTS, QUEUES_PER_PORT, SteerError, Steering, XdpAction, XdpVerdict};

use crate::frame::*;
use crate::rig::{LO, OUR_SPI, Rig, SITE_PAIRS, addresses, prefixes, xdp_socket};
use crate::run_dir::RunDir;

#[test]
fn a_second_loader_finds_what_the_first_one_wrote() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    let esp_for_us = ip("198.51.100.2", "203.0.113.1", ESP, &esp(OUR_SPI));
    rig.check(&[("ESP", Wan, esp_for_us.clone(), XdpVerdict::XskEsp)]);
    let mut second = Steering::open(&rig.run.pins, Capacity::default()).expect("the same maps");
    let count = |steering: &Steering| {
        let counts = steering.verdicts().expect("counters");
        counts
            .iter()
            .find(|count| count.verdict == XdpVerdict::XskEsp && count.role == Some(Wan))
            .map(|c| c.frames)
    };
    assert_eq!(count(&second), Some(1));
    assert_eq!(second.test_run(&esp_for_us).expect("a frame").action, XdpAction::Redirect);
    assert_eq!(count(&rig.steering), Some(2));
    assert_eq!(second.ports().expect("ports").len(), 1);
    assert_eq!(second.spis().expect("SPIs").len(), 1);
}

#[test]
fn a_restart_with_the_same_pairs_changes_no_map() {
    let Some(rig) = Rig::new(SITE_PAIRS) else { return };
    let mut second = Steering::open(&rig.run.pins, Capacity::default()).expect("the same maps");
    let ids = || aya::maps::MapInfo::from_pin(rig.run.pins.join("v2/pairs")).expect("the pin").id();
    let before = ids();
    second.set_protected(&prefixes(SITE_PAIRS)).expect("pairs");
    second.set_local_addrs(&addresses(crate::rig::GATEWAY)).expect("addresses");
    assert_eq!(ids(), before);
}

#[test]
fn maps_of_another_size_are_made_anew() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    let protected = ip("10.1.7.7", "10.2.8.8", UDP, &[0; 8]);
    rig.check(&[("protected", Lan, protected.clone(), XdpVerdict::XskProtected)]);
    let wider = Capacity { prefixes: 100_000, spis: 7, ..Capacity::default() };
    let mut second = Steering::open(&rig.run.pins, wider).expect("loads");
    assert_eq!(second.spis().expect("SPIs"), []);
    assert_eq!(second.test_run(&protected).expect("a frame").action, XdpAction::Pass, "empty pairs");
    second.set_protected(&prefixes(SITE_PAIRS)).expect("pairs");
    assert_eq!(second.test_run(&protected).expect("a frame").action, XdpAction::Redirect, "the ports fitted");
    // The first program keeps the maps that it was loaded with.
    rig.check(&[("protected by the old maps", Lan, protected, XdpVerdict::XskProtected)]);
    let info = aya::maps::MapInfo::from_pin(rig.run.pins.join("v2/local_prefixes4")).expect("the pin");
    assert_eq!(info.max_entries(), 100_000);
}

#[test]
fn a_directory_that_is_no_bpffs_is_refused() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: BPF needs root");
        return;
    }
    let refused = Steering::open(&std::env::temp_dir(), Capacity::default());
    assert!(matches!(refused, Err(SteerError::NotBpffs { .. })));
}

#[test]
fn ports_and_queues_beyond_the_map_are_refused() {
    let Some(mut rig) = Rig::new(&[]) else { return };
    let socket = xdp_socket();
    let unknown = rig.steering.set_xsk(IfIndex(77), QueueId(0), socket.as_fd());
    assert!(matches!(unknown, Err(SteerError::UnknownPort { .. })));
    let beyond = rig.steering.set_xsk(LO, QueueId(QUEUES_PER_PORT), socket.as_fd());
    assert!(matches!(beyond, Err(SteerError::QueueOutOfRange { .. })));
    for ifindex in 2..=PORT_SLOTS {
        rig.steering.add_port(IfIndex(ifindex), Lan).expect("a slot");
    }
    let full = rig.steering.add_port(IfIndex(99), Lan);
    assert!(matches!(full, Err(SteerError::TooManyPorts { .. })));
    rig.steering.detach(IfIndex(5)).expect("a port that was never attached");
    rig.steering.add_port(IfIndex(99), Lan).expect("the slot of the port that left");
}

#[test]
fn ten_thousand_pairs_are_protected_and_replaced() {
    let Some(run) = RunDir::new() else { return };
    let mut steering = Steering::open(&run.pins, Capacity::default()).expect("loads");
    steering.add_port(LO, Lan).expect("a slot");
    let pairs = |remote: u32| -> Vec<_> {
        (0..10_000_u32)
            .map(|n| {
                let local = std::net::Ipv4Addr::from_bits(10 << 24 | n << 8);
                let remote = std::net::Ipv4Addr::from_bits(remote << 24 | n << 8);
                (format!("{local}/24"), format!("{remote}/24"))
            })
            .collect()
    };
    for remote in [11, 12] {
        let list = pairs(remote);
        let list: Vec<(&str, &str)> = list.iter().map(|(l, r)| (l.as_str(), r.as_str())).collect();
        steering.set_protected(&prefixes(&list)).expect("ten thousand fit");
        let own = ip("10.38.15.5", &format!("{remote}.38.15.5"), UDP, &[0; 8]);
        assert_eq!(steering.test_run(&own).expect("a frame").action, XdpAction::Drop, "no socket");
        let crossed = ip("10.38.15.5", &format!("{remote}.38.14.5"), UDP, &[0; 8]);
        assert_eq!(
            steering.test_run(&crossed).expect("a frame").action,
            XdpAction::Pass,
            "another tunnel's pair"
        );
    }
    let gone = ip("10.38.15.5", "11.38.15.5", UDP, &[0; 8]);
    assert_eq!(steering.test_run(&gone).expect("a frame").action, XdpAction::Pass);
    let reserved = Spi::new(0xc000_0001).expect("no reserved SPI");
    steering.add_spi(reserved).expect("needs no entry");
    assert_eq!(steering.spis().expect("SPIs"), []);
}
