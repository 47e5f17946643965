//! Two data planes with manual SAs, driven over the rings by the test itself.
//!
//! Needs root; prints `skipped: …` without. `support/mod.rs` draws the topology.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "a test says why it skips")]

mod support;

use support::{Gateway, World, install, lacks_rights};

#[test]
fn pings_cross_two_gateways_under_esp() {
    if let Some(reason) = lacks_rights() {
        eprintln!("skipped: {reason}");
        return;
    }
    let world = World::new("ping", 1);
    let (a, b) = (Gateway::start(&world, "ga", ""), Gateway::start(&world, "gb", ""));
    let (mut control_a, mut control_b) = (a.attach(), b.attach());
    install(&mut control_a, "a", 0, false);
    install(&mut control_b, "b", 0, false);

    world.exec("ha", "ping -c 5 -i 0.05 -W 2 10.2.0.2");
    // The gateway's own packets take the same way, through pollux0.
    world.exec("ga", "ping -c 3 -i 0.05 -W 2 10.2.0.2");
    world.exec("ha", "ping -c 3 -i 0.05 -W 2 10.2.0.1");
    let workers = b.ask("\"workers\"");
    assert!(workers[0]["opened"].as_u64() >= Some(11), "{workers}");
    assert!(workers[0]["sealed"].as_u64() >= Some(11), "{workers}");
    for gateway in [&a, &b] {
        gateway.assert_ledger();
    }
}
