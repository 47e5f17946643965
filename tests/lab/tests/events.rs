//! What the data plane tells of its SAs reaches the operator.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::gateway::Gateway;
use pollux_lab::process::{Process, built};
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, configs};
use pollux_lab::wait::wait_for;
use pollux_lab::world::{Family, Side, World};

/// Texts of the events of one name so far, oldest first.
fn told(gateway: &Gateway, event: &str) -> Result<Vec<String>> {
    let log = gateway.json("log")?;
    let rows = log.as_array().context("a list")?;
    let texts = rows.iter().filter(|row| row["event"] == event).filter_map(|row| row["text"].as_str());
    Ok(texts.map(str::to_owned).collect())
}

fn wait_told(gateway: &Gateway, event: &str, text: &str) -> Result<()> {
    wait_for(text, Duration::from_secs(5), || Ok(told(gateway, event)?.iter().any(|told| told == text)))
        .with_context(|| format!("{:?}\n{}", told(gateway, event), gateway.logs()))
}

/// How events call the SA of this name.
fn called(gateway: &Gateway, name: &str) -> Result<String> {
    let rows = gateway.json("sas")?;
    let row = rows.as_array().into_iter().flatten().find(|row| row["name"] == name);
    let (direction, spi) = row
        .and_then(|row| Some((row["direction"].as_str()?, row["spi"].as_u64()?)))
        .context("the SA's row")?;
    Ok(format!("{name} ({direction} {spi:#010x})"))
}

#[test]
fn lifetimes_by_packets_are_told_twice_and_stop_the_sa() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("evp")?;
    let more = "soft_packets = 5\nhard_packets = 20\n".to_owned();
    let [config_a, config_b] = configs(&[Tunnel { more, ..Tunnel::new(1, Family::V4, Family::V4)? }]);
    let b = Gateway::start(&world, Side::B, &config_b)?;
    let a = Gateway::start(&world, Side::A, &config_a)?;
    // As a listener hears it, while it happens.
    let mut command = Command::new(built("pollux")?);
    command.arg("--config").arg(a.config_file()).args(["events", "--json"]);
    let mut listener = Process::start("listener", &mut command, &world.folder().join("events.log"))?;
    world.caller.script(&format!("ping -q -c40 -i0.02 -W0.2 {} || true", Side::B.host(Family::V4)))?;
    for gateway in [&a, &b] {
        for sa in ["a-to-b-1", "b-to-a-1"] {
            wait_told(
                gateway,
                "lifetime",
                &format!("sa {} has reached its packets limit: it needs new keys soon", called(gateway, sa)?),
            )?;
            wait_told(
                gateway,
                "lifetime",
                &format!("sa {} has reached its packets limit: it has stopped", called(gateway, sa)?),
            )?;
        }
        ensure!(told(gateway, "lifetime")?.len() == 4, "each is told once: {:?}", told(gateway, "lifetime"));
    }
    listener.wait_for_log("it has stopped", Duration::from_secs(5))?;
    let sas = a.json("sas")?;
    let packets = |sa: &serde_json::Value| sa["packets"].as_u64();
    ensure!(sas.as_array().into_iter().flatten().all(|sa| packets(sa) == Some(20)), "{sas}");
    ensure!(a.dropped("out_sa_expired")? == 20, "{:?}", a.drops());
    Ok(())
}

#[test]
fn sas_end_by_age_also_without_control_and_stay_at_their_end_over_restarts() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("evt")?;
    let more = "soft_time = 1\nhard_time = 3\n".to_owned();
    let [config_a, _] = configs(&[Tunnel { more, ..Tunnel::new(1, Family::V4, Family::V4)? }]);
    let mut a = Gateway::start(&world, Side::A, &config_a)?;
    for sa in ["a-to-b-1", "b-to-a-1"] {
        let text = format!("sa {} has reached its age limit: it needs new keys soon", called(&a, sa)?);
        wait_told(&a, "lifetime", &text)?;
    }
    a.kill_control()?;
    let far = Side::B.host(Family::V4);
    let stopped = |a: &Gateway| {
        wait_for("the SA to stop", Duration::from_secs(10), || {
            world.caller.script(&format!("ping -q -c1 -W0.1 {far} || true"))?;
            Ok(a.dropped("out_sa_expired")? > 0)
        })
    };
    stopped(&a)?;
    // Neither a new control process nor a new data plane makes the keys younger.
    a.start_control()?;
    a.wait_installed()?;
    a.reload()?;
    let before = a.dropped("out_sa_expired")?;
    world.caller.script(&format!("ping -q -c5 -i0.02 -W0.2 {far} || true"))?;
    ensure!(a.dropped("out_sa_expired")? == before + 5, "{:?}", a.drops());
    a.kill_dataplane()?;
    a.start_dataplane()?;
    a.wait_installed()?;
    let rows = a.json("sas")?;
    ensure!(rows[0]["age_s"].as_u64().is_some_and(|age| age >= 3), "{rows}");
    stopped(&a)?;
    let text = format!("sa {} has reached its age limit: it has stopped", called(&a, "a-to-b-1")?);
    wait_told(&a, "lifetime", &text)
}
