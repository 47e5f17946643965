//! Two gateways with manual keys carry traffic, and only ESP is seen between them.

use std::time::Duration;

use anyhow::{Result, ensure};
use pollux_lab::capture::{Capture, Kind};
use pollux_lab::command::run;
use pollux_lab::flow::{End, Flow};
use pollux_lab::gateway::Gateway;
use pollux_lab::process::Process;
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, configs};
use pollux_lab::wait::wait_for;
use pollux_lab::world::{Family, Side, World};

/// Pings and a flow each way for every tunnel; nothing lost, nothing in clear outside.
fn carries(name: &str, pairs: &[(Family, Family)], encap: bool) -> Result<()> {
    let world = World::new(name)?;
    let mut tunnels = Vec::new();
    for (number, (inner, outer)) in (1..).zip(pairs) {
        tunnels.push(Tunnel { encap, ..Tunnel::new(number, *inner, *outer)? });
    }
    let [config_a, config_b] = configs(&tunnels);
    let b = Gateway::start(&world, Side::B, &config_b)?;
    let a = Gateway::start(&world, Side::A, &config_a)?;
    let capture = Capture::start(&world.internet, "a0", world.folder(), "outside")?;
    for (inner, _) in pairs {
        let target = Side::B.host(*inner);
        wait_for("a ping", Duration::from_secs(10), || {
            Ok(world.caller.sh(&format!("ping -c1 -W1 {target}")).is_ok())
        })
        .map_err(|error| {
            error.context(format!("{:?} {:?}\n{}\n{}", a.drops(), b.drops(), a.logs(), b.logs()))
        })?;
        for (from, to) in [(Side::A, Side::B), (Side::B, Side::A)] {
            let end = |side: Side| End { netns: world.host(side), address: side.host(*inner) };
            let outcome = Flow::start(&world, end(from), end(to), 500, 1.0)?.finish()?;
            ensure!(outcome.lost() == 0 && outcome.duplicates == 0 && outcome.received >= 400, "{outcome:?}");
        }
    }
    let frames = capture.stop()?;
    let want = if encap { Kind::EspInUdp } else { Kind::Esp };
    let esp = frames.iter().filter(|frame| frame.kind() == want).count();
    let clear: Vec<_> = frames.iter().filter(|frame| frame.kind() == Kind::Clear).collect();
    ensure!(esp >= 800 * pairs.len(), "only {esp} packets of {want:?} outside");
    ensure!(clear.is_empty(), "in clear outside: {:02x?}", clear[0].bytes);
    a.check_ledger()?;
    b.check_ledger()
}

#[test]
fn ipv4_in_ipv4_and_ipv6_in_ipv6_cross_raw() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    carries("raw", &[(Family::V4, Family::V4), (Family::V6, Family::V6)], false)
}

#[test]
fn mixed_families_cross_raw() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    carries("mix", &[(Family::V4, Family::V6), (Family::V6, Family::V4)], false)
}

#[test]
fn ipv4_in_ipv4_and_ipv6_in_ipv6_cross_in_udp() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    carries("udp", &[(Family::V4, Family::V4), (Family::V6, Family::V6)], true)
}

#[test]
fn mixed_families_cross_in_udp() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    carries("mxu", &[(Family::V4, Family::V6), (Family::V6, Family::V4)], true)
}

#[test]
fn gateways_own_addresses_are_reached_through_the_tunnel_and_reach_out_through_it() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    let world = World::new("own")?;
    let tunnels = [Tunnel::new(1, Family::V4, Family::V4)?, Tunnel::new(2, Family::V6, Family::V4)?];
    let [config_a, config_b] = configs(&tunnels);
    let b = Gateway::start(&world, Side::B, &config_b)?;
    let a = Gateway::start(&world, Side::A, &config_a)?;
    let capture = Capture::start(&world.internet, "a0", world.folder(), "outside")?;
    for family in [Family::V4, Family::V6] {
        let [own, far] = [Side::A.inside(family), Side::B.host(family)];
        for (from, line) in [
            (&world.callee, format!("ping -c1 -W1 {own}")),
            (&world.gateway_a, format!("ping -c1 -W1 -I {own} {far}")),
        ] {
            wait_for(&line, Duration::from_secs(10), || Ok(from.sh(&line).is_ok())).map_err(|error| {
                error.context(format!("{:?} {:?}\n{}\n{}", a.drops(), b.drops(), a.logs(), b.logs()))
            })?;
        }
        // TCP needs its checksums right on both ways through the host port.
        let server = format!(
            "import socket; s = socket.create_server(('{own}', 5061), family=socket.AF_INET{}); s.settimeout(10)
print('ready', flush=True); c, _ = s.accept(); c.sendall(c.recv(100)); c.close()",
            if family == Family::V6 { "6" } else { "" }
        );
        let client = format!(
            "import socket; s = socket.create_connection(('{own}', 5061), 5); s.sendall(b'OPTIONS'); assert s.recv(100) == b'OPTIONS'"
        );
        let mut command = world.gateway_a.command("/usr/bin/python3");
        command.args(["-c", &server]);
        let mut process = Process::start("server", &mut command, &world.folder().join("server.log"))?;
        process.wait_for_log("ready", Duration::from_secs(10))?;
        let mut command = world.callee.command("/usr/bin/python3");
        run(command.args(["-c", &client]))?;
        process.wait(Duration::from_secs(10))?;
    }
    let frames = capture.stop()?;
    ensure!(frames.iter().any(|frame| frame.kind() == Kind::Esp), "nothing outside");
    let clear = frames.iter().find(|frame| frame.kind() == Kind::Clear);
    ensure!(clear.is_none(), "in clear outside: {:02x?}", clear.map(|frame| &frame.bytes));
    a.check_ledger()?;
    b.check_ledger()
}

#[test]
fn senders_hear_of_hops_that_run_out_and_of_packets_too_big_beyond_the_tunnel() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("icm")?;
    let tunnels = [Tunnel::new(1, Family::V4, Family::V4)?, Tunnel::new(2, Family::V6, Family::V4)?];
    let [config_a, config_b] = configs(&tunnels);
    let b = Gateway::start(&world, Side::B, &config_b)?;
    let a = Gateway::start(&world, Side::A, &config_a)?;
    world.gateway_b.ip("link set lan0 mtu 1300")?;
    for family in [Family::V4, Family::V6] {
        let (near, far) = (Side::A.inside(family), Side::B.inside(family));
        let target = Side::B.host(family);
        for (what, options, want) in [
            ("the first hop", "-t1", [format!("From {near}"), "xceeded".to_owned()]),
            ("the hop beyond the tunnel", "-t2", [format!("From {far}"), "xceeded".to_owned()]),
            ("the link beyond the tunnel", "-Mdo -s1300", [format!("From {far}"), "mtu=1300".to_owned()]),
        ] {
            let mut said = String::new();
            wait_for(what, Duration::from_secs(10), || {
                // The answer is an error, to ping as well.
                said = world.caller.script(&format!("ping -c1 -W1 {options} {target} 2>&1 || true"))?;
                said = said.replace("mtu = ", "mtu=");
                Ok(want.iter().all(|text| said.contains(text)))
            })
            .map_err(|error| {
                error.context(format!("{said}\n{:?} {:?}\n{}", a.drops(), b.drops(), b.logs()))
            })?;
        }
    }
    a.check_ledger()?;
    b.check_ledger()
}
