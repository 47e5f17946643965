//! Two queues, two workers: what arrives on a queue that does not own the SA is handed over, and nothing is lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use pollux_lab::flow::{End, Flow};
use pollux_lab::gateway::Gateway;
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, configs};
use pollux_lab::wait::wait_for;
use pollux_lab::world::{Family, Side, World};

#[test]
fn packets_on_a_foreign_queue_reach_their_owner() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::with_queues("que", 2)?;
    let tunnels = [Tunnel::new(1, Family::V4, Family::V4)?, Tunnel::new(2, Family::V6, Family::V6)?];
    let [mut config_a, mut config_b] = configs(&tunnels);
    for config in [&mut config_a, &mut config_b] {
        config.set("queues", "2");
    }
    let b = Gateway::start(&world, Side::B, &config_b)?;
    let a = Gateway::start(&world, Side::A, &config_a)?;
    let mut flows = Vec::new();
    for family in [Family::V4, Family::V6] {
        let target = Side::B.host(family);
        wait_for("a ping", Duration::from_secs(10), || {
            Ok(world.caller.sh(&format!("ping -c1 -W1 {target}")).is_ok())
        })?;
        // The kernel spreads flows over queues by their ports: with eight, both queues are hit as good as always.
        for flow in 0..8 {
            let (from, to) = if flow % 2 == 0 { (Side::A, Side::B) } else { (Side::B, Side::A) };
            let end = |side: Side| End { netns: world.host(side), address: side.host(family) };
            flows.push(Flow::start(&world, end(from), end(to), 200, 3.0)?);
        }
    }
    for flow in flows {
        let outcome = flow.finish()?;
        ensure!(
            outcome.lost() == 0 && outcome.duplicates == 0,
            "{outcome:?} {:?} {:?}",
            a.drops(),
            b.drops()
        );
    }
    let workers = a.json("workers")?;
    let sum = |key: &str| -> u64 {
        workers.as_array().into_iter().flatten().filter_map(|worker| worker[key].as_u64()).sum()
    };
    ensure!(workers.as_array().is_some_and(|workers| workers.len() == 2), "{workers}");
    ensure!(sum("handed_over") > 0 && sum("handed_over") == sum("taken_over"), "{workers}");
    a.check_ledger()?;
    b.check_ledger()
}
