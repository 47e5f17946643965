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

/// Whether the data plane of A starts; what it says where it does not.
fn starts(world: &World, queues: &str) -> Result<Result<(), String>> {
    let [mut config, _] = configs(&[Tunnel::new(1, Family::V4, Family::V4)?]);
    config.set("queues", queues);
    Ok(Gateway::start(world, Side::A, &config).map(drop).map_err(|error| format!("{error:#}")))
}

#[test]
fn a_nic_that_spreads_over_more_or_fewer_queues_than_there_are_workers_is_refused_with_the_command()
-> Result<()> {
    skip_unless!("ip", "ethtool");
    let world = World::with_queues("chan", 2)?;
    let said = starts(&world, "1")?.expect_err("what lands on the second queue would be lost");
    ensure!(said.contains("serves the first 1") && said.contains("ethtool -L wan0 rx 1"), "{said}");
    // What the line names is the cure, here for every port.
    for name in ["wan0", "lan0"] {
        world.gateway_a.sh(&format!("ethtool -L {name} rx 1"))?;
    }
    ensure!(starts(&world, "1")?.is_ok(), "one active queue of two that are allocated is one");
    let said = starts(&world, "2")?.expect_err("the second worker would have no queue");
    ensure!(said.contains("receives on 1 queues") && said.contains("ethtool -L wan0 rx 2"), "{said}");
    Ok(())
}
