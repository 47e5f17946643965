//! Protected traffic never leaves in clear: from five sources, in every state of the gateway.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use pollux_lab::capture::{Capture, Frame, Kind};
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::netns::{self, Netns};
use pollux_lab::process::Process;
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, configs};
use pollux_lab::wait::{sleep, wait_for};
use pollux_lab::world::{Family, Side, World};

/// A host on a third interface of gateway a, in the protected local prefix.
fn third_interface(world: &World) -> Result<Netns> {
    let host = Netns::new(&world.tag, "third")?;
    netns::veth(
        netns::End { netns: &host, device: "eth0", addresses: &["10.1.9.10/24", "fd01:0:0:9::10/64"] },
        netns::End {
            netns: &world.gateway_a,
            device: "third0",
            addresses: &["10.1.9.1/24", "fd01:0:0:9::1/64"],
        },
    )?;
    host.ip("route add default via 10.1.9.1")?;
    host.ip("route add default via fd01:0:0:9::1")?;
    Ok(host)
}

/// Packets from every source that may not leave in clear, for as long as this lives: a host on the LAN, the gateway
/// itself and a host on a third interface, over both IP versions, each whole and in fragments.
struct Sources {
    _pings: Vec<Process>,
}

impl Sources {
    /// Starts them, once each has had an answer through the tunnel: what never got out could not leak either.
    fn start(world: &World, third: &Netns) -> Result<Self> {
        let mut pings = Vec::new();
        for (name, source) in [("lan", &world.caller), ("own", &world.gateway_a), ("third", third)] {
            for family in [Family::V4, Family::V6] {
                for size in ["56", "4000"] {
                    let target = Side::B.host(family).to_string();
                    let once = format!("ping -c1 -W1 -s{size} {target}");
                    wait_for(&format!("{name}: {once}"), Duration::from_secs(10), || {
                        Ok(source.sh(&once).is_ok())
                    })?;
                    let mut command = source.command("ping");
                    command.args(["-q", "-i0.02", &format!("-s{size}"), &target]);
                    let log = world.folder().join(format!("ping-{name}-{size}-{target}.log"));
                    pings.push(Process::start("ping", &mut command, &log)?);
                }
            }
        }
        Ok(Self { _pings: pings })
    }
}

/// The frames of a protected flow that crossed the outside in clear.
fn in_clear(frames: &[Frame]) -> Vec<&Frame> {
    let far = |text: String| text.starts_with("10.2.") || text.starts_with("fd02:");
    let leaked = |frame: &&Frame| {
        frame.kind() == Kind::Clear && frame.ip().is_some_and(|ip| far(ip.destination.to_string()))
    };
    frames.iter().filter(leaked).collect()
}

fn check(frames: &[Frame], what: &str) -> Result<()> {
    let leaked = in_clear(frames);
    ensure!(leaked.is_empty(), "{what}: {} in clear outside: {:02x?}", leaked.len(), leaked[0].bytes);
    Ok(())
}

fn protected() -> Result<[Config; 2]> {
    // Wide enough for the third interface.
    let selectors = ["fd01::/48".to_owned(), "fd02::/48".to_owned()];
    let v6 = Tunnel { selectors, ..Tunnel::new(2, Family::V6, Family::V6)? };
    Ok(configs(&[Tunnel::new(1, Family::V4, Family::V4)?, v6]))
}

#[test]
fn nothing_leaks_while_the_data_plane_is_dead_restarts_reloads_or_is_taken_down() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    let world = World::new("lek")?;
    let third = third_interface(&world)?;
    let [mut config, peer] = protected()?;
    let b = Gateway::start(&world, Side::B, &peer)?;
    let mut a = Gateway::start(&world, Side::A, &config)?;
    let outside = |name: &str| Capture::start(&world.internet, "a0", world.folder(), name);
    let _sources =
        Sources::start(&world, &third).with_context(|| format!("{:?}\n{}", a.drops(), a.logs()))?;
    let esp = |frames: &[Frame]| frames.iter().filter(|frame| frame.kind() == Kind::Esp).count();

    let capture = outside("up")?;
    sleep(Duration::from_secs(1))?;
    let frames = capture.stop()?;
    check(&frames, "gateway up")?;
    ensure!(esp(&frames) > 500, "only {} packets went through the tunnel", esp(&frames));

    let capture = outside("dead")?;
    a.kill_dataplane()?;
    sleep(Duration::from_secs(1))?;
    check(&capture.stop()?, "data plane dead")?;

    let capture = outside("restart")?;
    a.start_dataplane()?;
    a.wait_installed()?;
    sleep(Duration::from_millis(500))?;
    let frames = capture.stop()?;
    check(&frames, "data plane restarted")?;
    ensure!(esp(&frames) > 100, "only {} packets went through the tunnel", esp(&frames));

    let capture = outside("reload")?;
    for round in 0..10 {
        config.table(&format!(
            "[[policy]]\nname = \"extra-{round}\"\naction = \"discard\"\nlocal_ts = \"10.1.{0}.0/24\"\nremote_ts = \"10.77.{0}.0/24\"\n",
            100 + round
        ));
        a.configure(&config)?;
        a.reload()?;
    }
    check(&capture.stop()?, "reload")?;

    taken_down(&mut a, outside("down")?)?;
    b.check_ledger()
}

/// `pollux down` opens the gateway on purpose, and at its end: before that nothing is in clear, and afterwards nothing
/// takes the tunnel any more.
fn taken_down(gateway: &mut Gateway, capture: Capture) -> Result<()> {
    sleep(Duration::from_millis(500))?;
    let asked = SystemTime::now().duration_since(UNIX_EPOCH)?;
    gateway.down()?;
    sleep(Duration::from_millis(500))?;
    let frames = capture.stop()?;
    let opened =
        in_clear(&frames).first().map(|frame| frame.time).context("`down` has not opened the gateway")?;
    let sealed = frames.iter().filter(|frame| frame.kind() == Kind::Esp).map(|frame| frame.time).max();
    let sealed = sealed.context("nothing went through the tunnel before `down`")?;
    ensure!(
        asked < opened && sealed < opened,
        "`down` was asked for at {asked:?}, the last ESP packet left at {sealed:?}, the first in clear at {opened:?}"
    );
    Ok(())
}

/// All routes but those of link-local and multicast prefixes, which the kernel adds when it has finished with a link.
fn routes(world: &World) -> Result<Vec<String>> {
    let text = world.gateway_a.ip("route show table all")?;
    let kept = text.lines().filter(|line| !line.contains("fe80::") && !line.contains("ff00::/8"));
    Ok(kept.map(str::to_owned).collect())
}

#[test]
fn down_gives_everything_back_to_the_kernel() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    let world = World::new("dwn")?;
    let links_before = world.gateway_a.ip("-br link")?.lines().count();
    let routes_before = routes(&world)?;
    let [config, _] = protected()?;
    let mut a = Gateway::start(&world, Side::A, &config)?;
    ensure!(world.gateway_a.ip("-br link")?.contains("pollux0"), "no host port");
    a.down()?;
    wait_for("the links to go", Duration::from_secs(5), || {
        Ok(world.gateway_a.ip("-br link")?.lines().count() == links_before)
    })?;
    let routes_after = routes(&world)?;
    ensure!(routes_before == routes_after, "before:\n{routes_before:#?}\nafter:\n{routes_after:#?}");
    let programs = world.gateway_a.ip("-d link show wan0")?;
    ensure!(!programs.contains("xdp"), "{programs}");
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let folder = a.folder().display().to_string();
    ensure!(!mounts.contains(&folder), "still mounted:\n{mounts}");
    Ok(())
}

#[test]
fn selectors_as_wide_as_the_world_do_not_lock_the_operator_out() -> Result<()> {
    skip_unless!("ip", "tcpdump", "ping");
    let world = World::new("lok")?;
    let everything = |number: u32, family: Family, any: &str| -> Result<Tunnel> {
        Ok(Tunnel { selectors: [any.to_owned(), any.to_owned()], ..Tunnel::new(number, family, Family::V4)? })
    };
    let [config, _] = configs(&[everything(1, Family::V4, "0.0.0.0/0")?, everything(2, Family::V6, "::/0")?]);
    let mut a = Gateway::start(&world, Side::A, &config)?;
    let still_reachable = |a: &Gateway, when: &str| -> Result<()> {
        for (what, from, target) in [
            ("from the LAN", &world.caller, Side::A.inside(Family::V4)),
            ("from the LAN", &world.caller, Side::A.inside(Family::V6)),
            ("from outside", &world.internet, Side::A.outer(Family::V4)),
            ("from outside", &world.internet, Side::A.outer(Family::V6)),
        ] {
            // ARP and ND from nothing, then an answer.
            from.ip("neigh flush all")?;
            let ping = from.sh(&format!("ping -c1 -W2 {target}"));
            ensure!(ping.is_ok(), "{when}: no ping {what} to {target}: {ping:?}\n{}", a.logs());
        }
        Ok(())
    };
    still_reachable(&a, "running")?;
    tcp_and_udp_reach_the_gateway(&world)?;
    dhcp_reaches_the_gateway(&world)?;
    a.kill_dataplane()?;
    still_reachable(&a, "data plane dead")?;
    a.start_dataplane()?;
    a.wait_installed()
}

/// A TCP connection, as SSH makes it, and a datagram to IKE's port, from both sides.
fn tcp_and_udp_reach_the_gateway(world: &World) -> Result<()> {
    let server = "import socket, threading
def tcp():
    s = socket.create_server(('0.0.0.0', 22)); s.settimeout(20)
    for _ in range(2): c, _ = s.accept(); c.sendall(b'SSH-2.0-test\\r\\n'); c.close()
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 500)); s.settimeout(20)
    for _ in range(2): d, a = s.recvfrom(100); s.sendto(d, a)
t = [threading.Thread(target=f) for f in (tcp, udp)]
[x.start() for x in t]; print('ready', flush=True); [x.join() for x in t]";
    let script = world.folder().join("server.py");
    std::fs::write(&script, server)?;
    let mut command = world.gateway_a.command("/usr/bin/python3");
    command.arg(&script);
    let log = world.folder().join("server.log");
    let mut process = Process::start("server", &mut command, &log)?;
    process.wait_for_log("ready", Duration::from_secs(10))?;
    for (netns, target) in
        [(&world.caller, Side::A.inside(Family::V4)), (&world.internet, Side::A.outer(Family::V4))]
    {
        let client = format!(
            "import socket
s = socket.create_connection(('{target}', 22), 5); assert s.recv(100).startswith(b'SSH')
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5); u.sendto(b'ike', ('{target}', 500)); assert u.recv(100) == b'ike'"
        );
        let script = world.folder().join("client.py");
        std::fs::write(&script, client)?;
        netns.sh(&format!("/usr/bin/python3 {}", script.display()))?;
    }
    process.wait(Duration::from_secs(10))?;
    Ok(())
}

/// The broadcasts of DHCP both ways: a host asks the gateway as its server, and the gateway asks a server outside.
fn dhcp_reaches_the_gateway(world: &World) -> Result<()> {
    for (server, server_device, client, client_device) in
        [(&world.gateway_a, "lan0", &world.caller, "eth0"), (&world.internet, "a0", &world.gateway_a, "wan0")]
    {
        let socket = |port: u16, device: &str| {
            format!(
                "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1); s.setsockopt(socket.SOL_SOCKET, 25, b'{device}')
s.bind(('0.0.0.0', {port})); s.settimeout(10)"
            )
        };
        let serve = format!(
            "{}\nprint('ready', flush=True); d, _ = s.recvfrom(100); s.sendto(d, ('255.255.255.255', 68))",
            socket(67, server_device)
        );
        let ask = format!(
            "{}\ns.sendto(b'ask', ('255.255.255.255', 67)); assert s.recv(9) == b'ask'",
            socket(68, client_device)
        );
        let [serving, asking] = [("dhcp-server.py", serve), ("dhcp-client.py", ask)].map(|(name, text)| {
            let script = world.folder().join(name);
            std::fs::write(&script, text).map(|()| script)
        });
        let mut command = server.command("/usr/bin/python3");
        command.arg(serving?);
        let log = world.folder().join("dhcp.log");
        let mut process = Process::start("DHCP server", &mut command, &log)?;
        process.wait_for_log("ready", Duration::from_secs(10))?;
        client.sh(&format!("/usr/bin/python3 {}", asking?.display()))?;
        process.wait(Duration::from_secs(10))?;
    }
    Ok(())
}
