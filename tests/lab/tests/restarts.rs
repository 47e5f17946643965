//! Either process dies, or the configuration changes, under traffic.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::capture::{Capture, Frame, Kind};
use pollux_lab::flow::{End, Flow};
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, configs};
use pollux_lab::wait::{sleep, wait_for};
use pollux_lab::world::{Family, Side, World};

struct Pair {
    a: Gateway,
    b: Gateway,
    world: World,
}

fn pair(name: &str, configs: &[Config; 2]) -> Result<Pair> {
    let world = World::new(name)?;
    let b = Gateway::start(&world, Side::B, &configs[1])?;
    let a = Gateway::start(&world, Side::A, &configs[0])?;
    let target = Side::B.host(Family::V4);
    wait_for("a ping", Duration::from_secs(10), || {
        Ok(world.caller.sh(&format!("ping -c1 -W1 {target}")).is_ok())
    })?;
    Ok(Pair { a, b, world })
}

impl Pair {
    fn flow(&self, rate: u32, seconds: f64) -> Result<Flow> {
        let end = |side: Side| End { netns: self.world.host(side), address: side.host(Family::V4) };
        Flow::start(&self.world, end(Side::A), end(Side::B), rate, seconds)
    }
}

fn one_tunnel() -> Result<[Config; 2]> {
    Ok(configs(&[Tunnel::new(1, Family::V4, Family::V4)?]))
}

/// Nothing in clear, and no (SPI, IV) pair twice.
fn check_outside(frames: &[Frame]) -> Result<()> {
    let clear = frames.iter().find(|frame| frame.kind() == Kind::Clear);
    ensure!(clear.is_none(), "in clear outside: {:02x?}", clear.map(|frame| &frame.bytes));
    let mut seen = HashSet::new();
    for (spi, rest) in frames.iter().filter_map(Frame::esp) {
        let iv = rest.get(4..12).context("ESP with an IV")?;
        ensure!(seen.insert((spi, iv.to_vec())), "IV {iv:02x?} of SPI {spi:#x} is used twice");
    }
    Ok(())
}

#[test]
fn killed_data_plane_leaks_nothing_and_comes_back_within_two_seconds() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    let mut pair = pair("dpk", &one_tunnel()?)?;
    let capture = Capture::start(&pair.world.internet, "a0", pair.world.folder(), "outside")?;
    let flow = pair.flow(50_000, 6.0)?;
    sleep(Duration::from_secs(2))?;
    pair.a.kill_dataplane()?;
    pair.a.start_dataplane()?;
    let outcome = flow.finish()?;
    check_outside(&capture.stop()?)?;
    ensure!(outcome.longest_gap_ms < 2000.0, "{outcome:?}\n{}", pair.a.logs());
    ensure!(outcome.sent > 250_000 && outcome.received > outcome.sent / 4, "{outcome:?}");
    ensure!(outcome.duplicates == 0, "{outcome:?}");
    let at_peer = pair.b.drops()?;
    ensure!(!at_peer.contains_key("replayed") && !at_peer.contains_key("too_old"), "{at_peer:?}");
    pair.a.wait_installed()?;
    pair.a.check_ledger()?;
    pair.b.check_ledger()
}

#[test]
fn stopped_data_plane_discards_what_has_aged_and_counts_each() -> Result<()> {
    skip_unless!("ip", "ping");
    let pair = pair("stl", &one_tunnel()?)?;
    let flow = pair.flow(500, 4.0)?;
    sleep(Duration::from_secs(1))?;
    // More than twice as long as `stale`; what arrives meanwhile fits the rings.
    pair.a.pause_dataplane(Duration::from_millis(1_200))?;
    let outcome = flow.finish()?;
    let drops = pair.a.drops()?;
    ensure!(outcome.lost() > 300 && outcome.duplicates == 0, "{outcome:?} {drops:?}");
    ensure!(drops.get("stale") == Some(&outcome.lost()) && drops.len() == 1, "{outcome:?} {drops:?}");
    let workers = pair.a.json("workers")?;
    ensure!(workers[0]["stalls"].as_u64() >= Some(1), "{workers}");
    Ok(())
}

#[test]
fn killed_control_process_loses_no_packet() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    let mut pair = pair("ctk", &one_tunnel()?)?;
    let before = pair.a.json("sas")?;
    let flow = pair.flow(5_000, 5.0)?;
    sleep(Duration::from_secs(1))?;
    pair.a.kill_control()?;
    sleep(Duration::from_secs(1))?;
    pair.a.start_control()?;
    pair.a.wait_installed()?;
    let outcome = flow.finish()?;
    ensure!(
        outcome.lost() == 0 && outcome.duplicates == 0,
        "{outcome:?} {:?} {:?}\n{}",
        pair.a.drops(),
        pair.b.drops(),
        pair.a.logs()
    );
    let ids = |sas: &serde_json::Value| -> Vec<u64> {
        sas.as_array().into_iter().flatten().filter_map(|sa| sa["id"].as_u64()).collect()
    };
    ensure!(
        ids(&before) == ids(&pair.a.json("sas")?),
        "the new control process replaced SAs that were right"
    );
    pair.a.check_ledger()
}

#[test]
fn ten_thousand_sas_are_added_under_traffic_without_loss() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    let tunnel = Tunnel::new(1, Family::V4, Family::V4)?;
    let [mut config, other] = configs(std::slice::from_ref(&tunnel));
    config.set("sa_capacity", "16384");
    let pair = pair("tks", &[config.clone(), other])?;
    for number in 0..10_000_u32 {
        let (direction, spi) = (["in", "out"][number as usize % 2], 0x0010_0000 + number);
        let _ = writeln!(config.secrets, "bulk-{number} = \"{:040x}\"", number + 1);
        config.table(&format!(
            "[[sa]]\nname = \"bulk-{number}\"\ndirection = \"{direction}\"\nspi = {spi:#x}\nlocal = \"192.0.2.2\"\nremote = \"198.51.100.2\"\n\
             suite = \"aes128gcm16\"\nkey = \"bulk-{number}\"\nreqid = 2\nlocal_ts = \"10.1.0.0/16\"\nremote_ts = \"10.3.0.0/16\"\n"
        ));
    }
    config.table("[[policy]]\nname = \"bulk\"\naction = \"protect\"\nreqid = 2\nlocal_ts = \"10.1.0.0/16\"\nremote_ts = \"10.3.0.0/16\"\n");
    let flow = pair.flow(5_000, 8.0)?;
    sleep(Duration::from_secs(1))?;
    pair.a.configure(&config)?;
    pair.a.reload()?;
    pair.a.wait_installed()?;
    let outcome = flow.finish()?;
    ensure!(outcome.lost() == 0 && outcome.duplicates == 0, "{outcome:?}");
    let status = pair.a.status()?;
    ensure!(
        status["dataplane"]["sas_inbound"] == 5_001 && status["dataplane"]["sas_outbound"] == 5_001,
        "{status}"
    );
    let workers = pair.a.json("workers")?;
    ensure!(workers[0]["stalls"] == 0, "{workers}");
    pair.a.check_ledger()
}

#[test]
fn keys_are_swapped_by_reload_without_loss() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    let old = Tunnel::new(1, Family::V4, Family::V4)?;
    let new = Tunnel { spis: [0x2000, 0x2001], number: 2, ..Tunnel::new(1, Family::V4, Family::V4)? };
    let pair = pair("swp", &configs(std::slice::from_ref(&old)))?;
    let flow = pair.flow(2_000, 8.0)?;
    // Both gateways learn to open under the new keys; then both seal under them; then the old ones go.
    for step in 0..3 {
        sleep(Duration::from_millis(1_500))?;
        for (gateway, side) in [(&pair.a, Side::A), (&pair.b, Side::B)] {
            gateway.configure(&swap_step(&old, &new, side, step))?;
            gateway.reload()?;
            gateway.wait_installed()?;
        }
    }
    let outcome = flow.finish()?;
    ensure!(outcome.lost() == 0 && outcome.duplicates == 0, "{outcome:?} {:?}", pair.b.drops());
    let sas = pair.a.json("sas")?;
    let new_out = sas.as_array().into_iter().flatten().find(|sa| sa["spi"] == 0x2000);
    ensure!(new_out.is_some_and(|sa| sa["packets"].as_u64() > Some(100)), "{sas}");
    Ok(())
}

/// The configuration of one side in one step of the swap: the tables of the SAs that the step has, under one policy.
fn swap_step(old: &Tunnel, new: &Tunnel, side: Side, step: u32) -> Config {
    let [mut config_old, mut config_new] = [Config::default(), Config::default()];
    old.add_to(&mut config_old, side);
    Tunnel { number: 2, ..new.clone() }.add_to(&mut config_new, side);
    let tables = |config: &Config, direction: &str| -> String {
        let mark = format!("direction = \"{direction}\"");
        config.tables_where(|table| table.contains(&mark)).replace("reqid = 2\n", "reqid = 1\n")
    };
    let mut config = Config { secrets: config_old.secrets.clone(), ..Config::default() };
    config.secrets.push_str(config_new.secrets.trim_start_matches("[keys]\n"));
    if step < 2 {
        config.table(&tables(&config_old, "in"));
    }
    config.table(&tables(if step == 0 { &config_old } else { &config_new }, "out"));
    config.table(&tables(&config_new, "in"));
    config.table(&config_old.tables_where(|table| table.starts_with("policy")));
    config
}
