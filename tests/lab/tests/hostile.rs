//! Bad input from the wire: each kind has its counter, and nothing else is disturbed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::command::run;
use pollux_lab::flow::{End, Flow};
use pollux_lab::gateway::Gateway;
use pollux_lab::oracle::scapy;
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, configs};
use pollux_lab::wait::wait_for;
use pollux_lab::world::{Family, Side, World};
use serde_json::Value;

/// Kind of packet, and the reasons under which its packets must be counted; two where the cut decides.
const KINDS: &[(&str, &[&str])] = &[
    ("replayed", &["replayed"]),
    ("too_old", &["too_old"]),
    ("bad_icv", &["bad_icv"]),
    ("unknown_spi", &["unknown_spi"]),
    ("truncated", &["esp_truncated", "bad_icv"]),
    ("pad_too_long", &["bad_padding"]),
    ("pad_wrong", &["bad_padding"]),
    ("next_header", &["bad_next_header"]),
    ("selectors", &["selector_mismatch"]),
    ("version", &["inner_malformed"]),
    ("inner_length", &["inner_malformed"]),
    ("dummy", &["dummy_packet"]),
    ("noise", &["esp_truncated", "bad_icv", "replayed", "too_old", "sequence_zero"]),
];

fn hostile(world: &World, mac: &str, job: &Path, kind: &str, first: u64) -> Result<(u64, u64)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/hostile.py");
    let mut command = world.internet.command(script.to_str().context("a path in UTF-8")?);
    command.args(["b0", mac]).arg(job).args([kind, &first.to_string()]);
    let answer: Value = serde_json::from_str(&run(&mut command)?)?;
    let count = |key: &str| answer[key].as_u64().with_context(|| answer.to_string());
    Ok((count("sent")?, count("valid")?))
}

fn difference(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let value = |map: &BTreeMap<String, u64>, key: &String| map.get(key).copied().unwrap_or_default();
    let keys = after.keys().filter(|key| value(after, key) != value(before, key));
    keys.map(|key| (key.clone(), value(after, key) - value(before, key))).collect()
}

#[test]
fn every_kind_of_bad_packet_has_its_counter_and_disturbs_nothing() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("hst")?;
    // The victim of the bad packets, and a second tunnel whose flow must not notice.
    let victim = Tunnel {
        selectors: ["10.1.7.0/24".into(), "10.2.0.10/32".into()],
        ..Tunnel::new(1, Family::V4, Family::V4)?
    };
    let bystander = Tunnel {
        selectors: ["10.1.0.0/24".into(), "10.2.0.0/16".into()],
        ..Tunnel::new(2, Family::V4, Family::V4)?
    };
    let [config_a, config_b] = configs(&[victim.clone(), bystander]);
    let b = Gateway::start(&world, Side::B, &config_b)?;
    let a = Gateway::start(&world, Side::A, &config_a)?;
    let target = Side::B.host(Family::V4);
    wait_for("a ping", Duration::from_secs(10), || {
        Ok(world.caller.sh(&format!("ping -c1 -W1 {target}")).is_ok())
    })?;
    let sa = victim.sa(Side::A, ["10.1.7.10".into(), target.to_string()], [0, 0]);
    let job = scapy::job(world.folder(), &[sa])?;
    let mac = world.gateway_b.sh("cat /sys/class/net/wan0/address")?;

    let end = |side: Side| End { netns: world.host(side), address: side.host(Family::V4) };
    let flow = Flow::start(&world, end(Side::A), end(Side::B), 200, 25.0)?;
    for (round, (kind, reasons)) in (1..).zip(KINDS) {
        let before = b.drops()?;
        let (sent, valid) = hostile(&world, mac.trim(), &job, kind, round * 10_000)?;
        let counted = || -> Result<u64> { Ok(difference(&before, &b.drops()?).values().sum()) };
        wait_for("the drops to be counted", Duration::from_secs(5), || Ok(counted()? >= sent - valid))
            .with_context(|| format!("{kind}: {sent} sent; {:?}", b.drops()))?;
        let dropped = difference(&before, &b.drops()?);
        let all_named = dropped.keys().all(|reason| reasons.contains(&reason.as_str()));
        ensure!(
            all_named && dropped.values().sum::<u64>() == sent - valid,
            "{kind}: {sent} sent, {valid} valid: {dropped:?}"
        );
    }
    operator_is_told(&b)?;
    let outcome = flow.finish()?;
    ensure!(outcome.lost() == 0 && outcome.duplicates == 0, "{outcome:?} {:?}", b.drops());
    a.check_ledger()?;
    b.check_ledger()
}

/// Bursts of replays and unknown SPIs are events, few for however many packets.
fn operator_is_told(gateway: &Gateway) -> Result<()> {
    let log = gateway.json("log --lines 0")?;
    let count =
        |event: &str| log.as_array().into_iter().flatten().filter(|row| row["event"] == event).count();
    let (replays, unknown) = (count("replay-burst"), count("unknown-spi"));
    ensure!((1..=10).contains(&replays) && (1..=10).contains(&unknown), "{replays} and {unknown} in {log:#}");
    Ok(())
}
