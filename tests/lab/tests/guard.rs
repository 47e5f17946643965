//! The guard at the exit: what a protected pair sends in clear is dropped, whatever routes, rules and local users do.
//!
//! ```text
//!   caller 10.1.0.10 ─ lan0 gwa wan0 ─ internet 192.0.2.1, also 198.51.100.1 and the way to 10.2.0.0/16
//!                          │ dmz0 10.9.0.1
//!                      dmz host 10.9.0.10
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use pollux_lab::capture::{Capture, Frame, Kind};
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::netns::{self, Netns};
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, configs};
use pollux_lab::wait::{sleep, wait_for};
use pollux_lab::world::{Family, Side, World};

/// A host on a third interface of gateway a, outside the local prefix unless `address` says otherwise.
fn third_interface(world: &World, name: &str, net: &str) -> Result<Netns> {
    let host = Netns::new(&world.tag, name)?;
    let device = format!("{name}0");
    netns::veth(
        netns::End { netns: &host, device: "eth0", addresses: &[&format!("{net}.10/24")] },
        netns::End { netns: &world.gateway_a, device: &device, addresses: &[&format!("{net}.1/24")] },
    )?;
    host.ip(&format!("route add default via {net}.1"))?;
    Ok(host)
}

/// The frames to the protected remote prefixes that crossed the outside in clear.
fn in_clear(frames: &[Frame]) -> Vec<&Frame> {
    let far = |text: String| text.starts_with("10.2.") || text.starts_with("fd02:");
    let leaked = |frame: &&Frame| {
        frame.kind() == Kind::Clear && frame.ip().is_some_and(|ip| far(ip.destination.to_string()))
    };
    frames.iter().filter(leaked).collect()
}

/// Watches the outside while `action` runs, and fails on anything in clear.
fn nothing_leaks(world: &World, what: &str, action: impl FnOnce() -> Result<()>) -> Result<Vec<Frame>> {
    let capture = Capture::start(&world.internet, "a0", world.folder(), &what.replace(' ', "-"))?;
    action()?;
    sleep(Duration::from_millis(300))?;
    let frames = capture.stop()?;
    let leaked = in_clear(&frames);
    ensure!(leaked.is_empty(), "{what}: {} in clear outside: {:02x?}", leaked.len(), leaked[0].bytes);
    Ok(frames)
}

fn esp(frames: &[Frame]) -> usize {
    frames.iter().filter(|frame| frame.kind() == Kind::Esp).count()
}

/// Pings whose answer does not matter.
fn ping(netns: &Netns, arguments: &str) {
    let _ = netns.sh(&format!("ping -c3 -i0.05 -W1 {arguments}"));
}

fn policy(local: &str, remote: &str) -> Result<[Config; 2]> {
    let selectors = [local.to_owned(), remote.to_owned()];
    Ok(configs(&[Tunnel { selectors, ..Tunnel::new(1, Family::V4, Family::V4)? }]))
}

fn sites() -> Result<[Config; 2]> {
    Ok(configs(&[Tunnel::new(1, Family::V4, Family::V4)?, Tunnel::new(2, Family::V6, Family::V6)?]))
}

/// Datagrams of an unprivileged user from the gateway's inside addresses, IKE ports and forced devices among them.
const LOCAL_USER: &str = "
import os, socket
def send(family, source, port, to, device):
    s = socket.socket(family, socket.SOCK_DGRAM)
    if device: s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    s.bind((source, port))
    for _ in range(5):
        try: s.sendto(b'in clear', (to, 9))
        except OSError as error: print(source, port, device, error)
os.setuid(65534)
for device in (None, b'wan0'):
    for port in (4500, 5000):
        send(socket.AF_INET, '10.1.0.1', port, '10.2.0.10', device)
        send(socket.AF_INET6, 'fd01::1', port, 'fd02::10', device)
";

#[test]
fn a_local_user_does_not_get_past_it_with_an_ike_port_or_a_forced_device() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    let world = World::new("gdu")?;
    let [config, _] = sites()?;
    let mut a = Gateway::start(&world, Side::A, &config)?;
    let script = world.folder().join("user.py");
    std::fs::write(&script, LOCAL_USER)?;
    let send = || world.gateway_a.sh(&format!("/usr/bin/python3 {}", script.display())).map(drop);
    nothing_leaks(&world, "local user", send)?;
    ensure!(a.dropped("guard_clear")? >= 10, "{:?}", a.drops()?);
    a.kill_dataplane()?;
    nothing_leaks(&world, "local user, data plane dead", send)?;
    Ok(())
}

#[test]
fn a_full_tunnel_for_one_subnet_takes_that_subnet_and_nothing_else() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    let world = World::new("gdf")?;
    let dmz = third_interface(&world, "dmz", "10.9.0")?;
    let [config, _] = policy("10.1.0.0/16", "0.0.0.0/0")?;
    let mut a = Gateway::start(&world, Side::A, &config)?;
    let frames = nothing_leaks(&world, "full tunnel", || {
        ping(&world.gateway_a, "-I 10.1.0.1 10.2.0.10");
        Ok(())
    })?;
    ensure!(esp(&frames) == 3, "{} ESP packets of the gateway's inside address", esp(&frames));
    let unprotected = |from: &Netns, target: &str| -> Result<()> {
        let out = from.sh(&format!("ping -c1 -W2 {target}"));
        ensure!(out.is_ok(), "ping {target}: {out:?}\n{}", world.gateway_a.ip("rule")?);
        Ok(())
    };
    world.internet.ip("route add 10.9.0.0/24 via 192.0.2.2")?;
    unprotected(&world.gateway_a, "-I 192.0.2.2 198.51.100.1")?;
    unprotected(&world.gateway_a, "192.0.2.1")?;
    unprotected(&dmz, "198.51.100.1")?;
    unprotected(&world.caller, "10.1.0.1")?;
    a.kill_dataplane()?;
    nothing_leaks(&world, "full tunnel, data plane dead", || {
        ping(&world.gateway_a, "-I 10.1.0.1 10.2.0.10");
        unprotected(&world.gateway_a, "-I 192.0.2.2 198.51.100.1")
    })?;
    Ok(())
}

#[test]
fn a_reload_to_a_wider_local_selector_holds_the_third_interface() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    let world = World::new("gdw")?;
    let dmz = third_interface(&world, "dmz", "10.9.0")?;
    let [narrow, _] = policy("10.1.0.0/16", "0.0.0.0/0")?;
    let [wide, _] = policy("0.0.0.0/0", "0.0.0.0/0")?;
    let a = Gateway::start(&world, Side::A, &narrow)?;
    for (what, config) in [("wider", &wide), ("narrower", &narrow), ("wider again", &wide)] {
        a.configure(config)?;
        a.reload()?;
        a.wait_installed()?;
        if what != "narrower" {
            let frames = nothing_leaks(&world, what, || {
                ping(&dmz, "10.2.0.10");
                Ok(())
            })?;
            ensure!(
                esp(&frames) == 3,
                "{what}: {} ESP packets of the third interface\n{}",
                esp(&frames),
                world.gateway_a.ip("rule")?
            );
        }
        let out = world.gateway_a.sh("ping -c1 -W2 192.0.2.1");
        ensure!(out.is_ok(), "{what}: the gateway itself is locked out: {out:?}");
    }
    Ok(())
}

#[test]
fn rules_and_routes_that_others_remove_come_back_and_nothing_leaks_meanwhile() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    let world = World::new("gdr")?;
    let third = third_interface(&world, "third", "10.1.9")?;
    let [config, _] = sites()?;
    let mut a = Gateway::start(&world, Side::A, &config)?;
    let state = || -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for family in ["-4", "-6"] {
            for what in ["rule", "route show table all proto 80"] {
                lines.extend(world.gateway_a.ip(&format!("{family} {what}"))?.lines().map(str::to_owned));
            }
        }
        Ok(lines)
    };
    let senders = || {
        ping(&world.gateway_a, "-I 10.1.0.1 10.2.0.10");
        ping(&third, "10.2.0.10");
    };
    let before = state()?;
    for removal in [
        "for f in -4 -6; do ip $f rule del pref 5200; ip $f rule del pref 5202; ip $f rule del pref 5210; done",
        "ip route flush table 20562; ip -6 route flush table 20564",
    ] {
        let script = || world.gateway_a.script(removal).map(drop);
        nothing_leaks(&world, "removed", || {
            script()?;
            senders();
            wait_for("what was removed", Duration::from_secs(1), || Ok(state()? == before))
        })?;
        let events = a.cli("log --json")?;
        ensure!(events.contains("restored"), "no event: {events}");
        a.kill_dataplane()?;
        nothing_leaks(&world, "removed, data plane dead", || {
            script()?;
            senders();
            Ok(())
        })?;
        a.start_dataplane()?;
        a.wait_installed()?;
        wait_for("everything to be back", Duration::from_secs(2), || Ok(state()? == before))?;
    }
    Ok(())
}

#[test]
fn the_prefixes_of_the_configuration_are_closed_before_control_has_said_anything() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    let world = World::new("gdb")?;
    let third = third_interface(&world, "third", "10.1.9")?;
    let [config, _] = sites()?;
    let mut a = Gateway::start(&world, Side::A, &config)?;
    a.down()?;
    world.internet.ip("route add 10.2.0.0/16 via 198.51.100.2")?;
    // `pollux guard`, before there is any process.
    a.cli(&format!("guard {}", a.config_file().display()))?;
    nothing_leaks(&world, "guard alone", || {
        ping(&world.caller, "10.2.0.10");
        ping(&third, "10.2.0.10");
        ping(&world.gateway_a, "-I 10.1.0.1 10.2.0.10");
        let out = world.gateway_a.sh("ping -c1 -W2 192.0.2.1");
        ensure!(out.is_ok(), "locked out: {out:?}");
        Ok(())
    })?;
    a.start_dataplane()?;
    nothing_leaks(&world, "without control", || {
        ping(&world.caller, "10.2.0.10");
        ping(&third, "10.2.0.10");
        ping(&world.gateway_a, "-I 10.1.0.1 10.2.0.10");
        Ok(())
    })?;
    a.start_control()?;
    a.wait_installed()
}
