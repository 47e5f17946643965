//! Reqids that control gives are small, and stay with their child whatever is restarted or added.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::flow::{End, Flow};
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::ike::{Connection, NAME};
use pollux_lab::skip_unless;
use pollux_lab::wait::{sleep, wait_for};
use pollux_lab::world::{Family, Side, World};
use serde_json::Value;

/// The configuration with a connection before the one that the peer has; `reqid` is a line of its child.
fn with_early(config: &Config, reqid: &str) -> Config {
    let early = format!(
        "[[connection]]\nname = \"early\"\nremote_addrs = \"203.0.113.77\"\npsk = \"{NAME}\"\n\
         [connection.children.early]\nlocal_ts = \"10.1.0.0/16\"\nremote_ts = \"10.77.0.0/16\"\n{reqid}\n"
    );
    Config { tables: format!("{early}\n{}", config.tables), ..config.clone() }
}

fn rows(a: &Gateway) -> Result<Vec<Value>> {
    Ok(a.json("sas")?.as_array().cloned().unwrap_or_default())
}

fn reqid_of(a: &Gateway, connection: &str) -> Result<u64> {
    let list = a.json("list-conns")?;
    let row = list.as_array().into_iter().flatten().find(|row| row["name"] == connection);
    row.and_then(|row| row["children"][0]["reqid"].as_u64()).context("the child's reqid")
}

fn up(a: &Gateway, world: &World) -> Result<()> {
    a.cli(&format!("initiate --child {NAME}"))?;
    let target = Side::B.host(Family::V4);
    wait_for("a ping", Duration::from_secs(10), || {
        Ok(world.caller.sh(&format!("ping -c1 -W1 {target}")).is_ok())
    })
    .with_context(|| a.logs())
}

#[test]
fn children_keep_their_small_reqids_over_restarts_and_reloads_of_others() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("rqd")?;
    let connection = Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16");
    let config = connection.pollux(Side::A, "none");
    let _b = Gateway::start(&world, Side::B, &connection.pollux(Side::B, "none"))?;
    let mut a = Gateway::start(&world, Side::A, &config)?;
    up(&a, &world)?;
    ensure!(reqid_of(&a, NAME)? == 1, "{}", a.cli("list-conns")?);
    let key = |row: &Value| (row["spi"].as_u64(), row["reqid"].as_u64(), row["name"].clone());
    let before: Vec<_> = rows(&a)?.iter().map(key).collect();
    ensure!(before.len() == 2 && before.iter().all(|(_, reqid, _)| *reqid == Some(1)), "{before:?}");

    // Control dies, the file changes before its child, and the SAs go on.
    let end = |side: Side| End { netns: world.host(side), address: side.host(Family::V4) };
    let flow = Flow::start(&world, end(Side::A), end(Side::B), 2_000, 5.0)?;
    a.kill_control()?;
    a.configure(&with_early(&config, ""))?;
    a.start_control()?;
    a.wait_installed()?;
    sleep(Duration::from_secs(1))?;
    ensure!((reqid_of(&a, NAME)?, reqid_of(&a, "early")?) == (1, 2), "{}", a.cli("list-conns")?);
    let after: Vec<_> = rows(&a)?.iter().map(key).collect();
    ensure!(before == after, "{before:?} {after:?}");
    let outcome = flow.finish()?;
    ensure!(outcome.lost() == 0 && outcome.duplicates == 0, "{outcome:?} {:?}\n{}", a.drops(), a.logs());

    // The data plane dies, and new SAs have the same number.
    a.kill_dataplane()?;
    a.start_dataplane()?;
    a.wait_installed()?;
    up(&a, &world)?;
    ensure!(rows(&a)?.iter().all(|row| row["reqid"] == 1), "{:?}", rows(&a)?);

    // The file gives the number to another: its SAs go at once, and are found by nobody else's policy.
    a.configure(&with_early(&config, "reqid = 1"))?;
    a.reload()?;
    wait_for("the SAs to be gone", Duration::from_secs(5), || Ok(rows(&a)?.is_empty()))?;
    ensure!(a.cli("log")?.contains("its reqid 1 is another's now"), "{}", a.cli("log")?);
    up(&a, &world)?;
    ensure!((reqid_of(&a, NAME)?, reqid_of(&a, "early")?) == (3, 1), "{}", a.cli("list-conns")?);
    ensure!(rows(&a)?.iter().all(|row| row["reqid"] == 3), "{:?}", rows(&a)?);
    a.check_ledger()
}

#[test]
fn without_its_table_control_takes_no_sa_of_an_earlier_life_for_a_childs() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("rql")?;
    let connection = Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16");
    let config = connection.pollux(Side::A, "none");
    let _b = Gateway::start(&world, Side::B, &connection.pollux(Side::B, "none"))?;
    let mut a = Gateway::start(&world, Side::A, &config)?;
    up(&a, &world)?;
    a.kill_control()?;
    std::fs::write(a.folder().join("run/control/reqids"), "[{\"connection\":")?;
    a.start_control()?;
    wait_for("the SAs to be gone", Duration::from_secs(5), || Ok(rows(&a)?.is_empty()))
        .with_context(|| a.logs())?;
    up(&a, &world)?;
    a.check_ledger()
}
