//! `pollux up` and `pollux status`: up means up, and what fails leaves nothing behind.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pollux_lab::command::output;
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::ike::Connection;
use pollux_lab::process::{Process, built};
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, configs};
use pollux_lab::wait::wait_for;
use pollux_lab::world::{Family, Side, World};

fn tunnel() -> Result<Config> {
    let [config, _] = configs(&[Tunnel::new(1, Family::V4, Family::V4)?]);
    Ok(config)
}

/// `pollux up`, without waiting for it.
fn begin_up(a: &Gateway, name: &str) -> Result<Process> {
    let mut command = Command::new(built("pollux")?);
    command.arg("up").arg("--config").arg(a.config_file());
    Process::start(name, &mut command, &a.folder().join(format!("{name}.log")))
}

/// Processes of ours with this configuration.
fn daemons(a: &Gateway) -> Result<usize> {
    let output = output(
        Command::new("pgrep")
            .args(["-fc", &format!("pollux-(dataplane|control) --config {}", a.config_file().display())]),
    )?;
    String::from_utf8_lossy(&output.stdout).trim().parse().context("a number")
}

#[test]
fn five_at_once_end_in_one_gateway() -> Result<()> {
    skip_unless!("ip", "pgrep");
    let world = World::new("upf")?;
    let mut a = Gateway::start(&world, Side::A, &tunnel()?)?;
    a.down()?;
    let ups: Vec<Process> = (0..5).map(|n| begin_up(&a, &format!("up-{n}"))).collect::<Result<_>>()?;
    for mut up in ups {
        ensure!(up.wait(Duration::from_mins(1))?.success(), "{}", up.tail());
        ensure!(up.log().contains("2 of 2 installed; 2 of 2 policies in force"), "{}", up.log());
    }
    ensure!(daemons(&a)? == 2, "{} daemons", daemons(&a)?);
    Ok(())
}

#[test]
fn what_does_not_come_up_leaves_nothing_behind() -> Result<()> {
    skip_unless!("ip", "pgrep");
    let world = World::new("upl")?;
    let mut a = Gateway::start(&world, Side::A, &tunnel()?)?;
    a.down()?;
    // Somebody else has IKE's port: control cannot start.
    let mut command = world.gateway_a.command("/usr/bin/python3");
    command.args(["-c", "import socket, time\nfor f, a in ((socket.AF_INET6, '::'), (socket.AF_INET, '0.0.0.0')):\n  s = socket.socket(f, socket.SOCK_DGRAM)\n  if f == socket.AF_INET6: s.setsockopt(41, 26, 1)\n  s.bind((a, 500)); globals()[str(f)] = s\nprint('bound', flush=True); time.sleep(60)"]);
    let mut other = Process::start("python3", &mut command, &world.folder().join("port.log"))?;
    other.wait_for_log("bound", Duration::from_secs(10))?;
    let config = Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16").pollux(Side::A, "none");
    a.configure(&config)?;
    let mut up = begin_up(&a, "up")?;
    ensure!(!up.wait(Duration::from_mins(1))?.success(), "it came up: {}", up.log());
    ensure!(up.log().contains("500"), "the reason: {}", up.log());
    ensure!(daemons(&a)? == 0, "{} daemons are left", daemons(&a)?);
    let links = world.gateway_a.ip("link show")?;
    ensure!(!links.contains("pollux0") && !links.contains("xdp"), "left behind:\n{links}");
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    ensure!(!mounts.contains(&a.folder().display().to_string()), "a mount is left behind");
    // What was closed before stays closed.
    a.cli(&format!("guard {}", a.config_file().display()))?;
    let mut up = begin_up(&a, "up-closed")?;
    ensure!(!up.wait(Duration::from_mins(1))?.success(), "it came up: {}", up.log());
    let out = world.gateway_a.sh("ping -c1 -W1 -I 10.1.0.1 10.2.0.10");
    ensure!(out.is_err() && a.folder().join("run/bpf/v2").exists(), "the guard is gone");
    a.cli("down").map(drop)
}

#[test]
fn a_daemon_that_does_not_answer_is_named_and_not_started_twice() -> Result<()> {
    skip_unless!("ip", "pgrep");
    let world = World::new("ups")?;
    let a = Gateway::start(&world, Side::A, &tunnel()?)?;
    let pid = Pid::from_raw(i32::try_from(a.dataplane_pid()?)?);
    kill(pid, Signal::SIGSTOP)?;
    let mut up = begin_up(&a, "up")?;
    let ended = up.wait(Duration::from_secs(20));
    kill(pid, Signal::SIGCONT)?;
    ensure!(!ended?.success() && up.log().contains("pollux-dataplane is stopped or hangs"), "{}", up.log());
    ensure!(daemons(&a)? == 2, "{} daemons", daemons(&a)?);
    wait_for("the data plane to answer again", Duration::from_secs(10), || Ok(a.cli("status").is_ok()))
}

#[test]
fn down_and_a_removed_connection_tell_the_peer() -> Result<()> {
    skip_unless!("ip");
    let world = World::new("upp")?;
    let connection = Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16");
    let b = Gateway::start(&world, Side::B, &connection.pollux(Side::B, "none"))?;
    let config = connection.pollux(Side::A, "start");
    let mut a = Gateway::start(&world, Side::A, &config)?;
    let has_sas = |expected: bool| {
        wait_for("the peer's IKE SAs to come or go", Duration::from_secs(5), || {
            let status = b.status()?;
            let count = status["control"]["ike_sas"].as_u64().unwrap_or_default()
                + status["dataplane"]["sas_inbound"].as_u64().unwrap_or_default();
            Ok((count > 0) == expected)
        })
        .with_context(|| format!("{:?}", b.cli("log")))
    };
    has_sas(true)?;
    // A connection that a reload takes away.
    a.configure(&Config { tables: String::new(), ..config.clone() })?;
    a.reload()?;
    has_sas(false)?;
    a.configure(&config)?;
    a.reload()?;
    has_sas(true)?;
    a.down()?;
    has_sas(false)?;
    // A peer that does not answer holds nobody up for long.
    a.start_dataplane()?;
    a.start_control()?;
    has_sas(true)?;
    world.internet.ip("link set b0 down")?;
    let asked = std::time::Instant::now();
    a.down()?;
    ensure!(asked.elapsed() < Duration::from_secs(8), "it took {:?}", asked.elapsed());
    Ok(())
}

#[test]
fn status_fails_where_a_daemon_is_dead_and_counts_every_drop() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("upx")?;
    let mut a = Gateway::start(&world, Side::A, &tunnel()?)?;
    // There is no peer's gateway; the answers to nobody die at the guard, which counts them.
    let _ = world.gateway_a.sh("ping -c3 -i0.05 -W1 -I wan0 10.2.0.10");
    let all: u64 = a.drops()?.values().sum();
    let status = a.status()?;
    ensure!(status["dataplane"]["drops"].as_u64().is_some_and(|drops| drops >= all), "{all}: {status}");
    a.kill_control()?;
    let failed = a.cli("status").err().context("a dead control went unnoticed")?.to_string();
    ensure!(failed.contains("control is not running") && failed.contains("data plane"), "{failed}");
    a.start_control()?;
    a.wait_installed()?;
    a.kill_dataplane()?;
    let failed = a.cli("status").err().context("a dead data plane went unnoticed")?.to_string();
    ensure!(failed.contains("the data plane is not running"), "{failed}");
    Ok(())
}
