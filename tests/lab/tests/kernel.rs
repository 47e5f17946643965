//! ESP that Linux wrote: the kernel of a VM as the peer, with manual keys; one boot for all cases, and for every AEAD
//! engine that this CPU runs.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_abi::EspSuite;
use pollux_aead::Engine;
use pollux_lab::command::echoes;
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::peer::vm::Vm;
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, random_hex};
use pollux_lab::wait::wait_for;
use pollux_lab::world::{Family, Side, World};

const GUEST: &str = "203.0.113.2";

/// A socket with UDP_ENCAP, as an IKE daemon would hold it.
const ENCAP_SOCKET: &str = "setsid python3 -c '
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"\", 4500)); s.setsockopt(socket.IPPROTO_UDP, 100, 2)
time.sleep(600)' >/dev/null 2>&1 </dev/null &";

/// AES-128-GCM raw and in UDP, with 32-bit and extended sequence numbers; each has a host of its own in the guest.
fn cases() -> Result<Vec<Tunnel>> {
    let mut tunnels = Vec::new();
    for (number, (encap, esn)) in (1..).zip([(false, false), (false, true), (true, false), (true, true)]) {
        let selectors = ["10.1.0.10/32".to_owned(), format!("10.3.{number}.1/32")];
        tunnels.push(Tunnel { encap, esn, selectors, ..Tunnel::new(number, Family::V4, Family::V4)? });
    }
    Ok(tunnels)
}

/// Every suite that Linux has too: all but those with an implicit IV.
fn suites() -> Result<Vec<Tunnel>> {
    let mut tunnels = Vec::new();
    for (number, suite) in (10..).zip(EspSuite::ALL.iter().filter(|suite| !suite.has_implicit_iv())) {
        let selectors = ["10.1.0.10/32".to_owned(), format!("10.3.{number}.1/32")];
        let keys = [random_hex(suite.material_len())?, random_hex(suite.material_len())?];
        let tunnel = Tunnel::new(number, Family::V4, Family::V4)?;
        tunnels.push(Tunnel { suite: suite.name(), keys, esn: number % 2 == 0, selectors, ..tunnel });
    }
    Ok(tunnels)
}

/// The algorithms and keys of one SA, as `ip xfrm` says them.
fn algorithms(suite: EspSuite, key: &str) -> String {
    let (cipher, auth) = key.split_at(2 * suite.key_len());
    let bits = 8 * suite.icv_len();
    let aead = |name: &str| format!("aead '{name}' 0x{key} {bits}");
    let hash = match suite.integrity_id() {
        12 => "hmac(sha256)",
        13 => "hmac(sha384)",
        _ => "hmac(sha512)",
    };
    match suite.encryption_id() {
        11 => format!("enc 'ecb(cipher_null)' '' auth-trunc '{hash}' 0x{auth} {bits}"),
        12 => format!("enc 'cbc(aes)' 0x{cipher} auth-trunc '{hash}' 0x{auth} {bits}"),
        21 => aead("rfc4543(gcm(aes))"),
        28 => aead("rfc7539esp(chacha20,poly1305)"),
        _ => aead("rfc4106(gcm(aes))"),
    }
}

/// The guest's end of a tunnel, as `ip xfrm` says it.
fn xfrm(tunnel: &Tunnel) -> Result<String> {
    let suite = EspSuite::from_name(tunnel.suite).context("a suite")?;
    let esn = if tunnel.esn { "flag esn" } else { "" };
    let encap = if tunnel.encap { "encap espinudp 4500 4500 0.0.0.0" } else { "" };
    let us = Side::A.outer(Family::V4);
    let [ours, theirs] = &tunnel.selectors;
    let mut script = String::new();
    for (from, to, index) in [(us.to_string(), GUEST.to_owned(), 0), (GUEST.to_owned(), us.to_string(), 1)] {
        let _ = writeln!(
            script,
            "ip xfrm state add src {from} dst {to} proto esp spi {:#x} mode tunnel reqid {} replay-window 64 {esn} \
             {} {encap}",
            tunnel.spis[index],
            tunnel.number,
            algorithms(suite, &tunnel.keys[index])
        );
    }
    let template = |from: &str, to: &str| {
        format!("tmpl src {from} dst {to} proto esp reqid {} mode tunnel", tunnel.number)
    };
    let (inward, outward) = (template(&us.to_string(), GUEST), template(GUEST, &us.to_string()));
    let _ = writeln!(script, "ip xfrm policy add src {ours} dst {theirs} dir in {inward}");
    let _ = writeln!(script, "ip xfrm policy add src {theirs} dst {ours} dir out {outward}");
    let _ = writeln!(script, "ip addr add {theirs} dev lo");
    Ok(script)
}

#[test]
fn linux_accepts_what_we_send_and_we_accept_what_linux_sends() -> Result<()> {
    skip_unless!("ip", "ping", "qemu-system-x86_64");
    let world = World::new("krn")?;
    let vm = Vm::start(&world.internet, "t0", world.folder())?;
    world.internet.ip("addr add 203.0.113.1/24 dev t0")?;
    vm.sh(&format!("ip addr add {GUEST}/24 dev eth0; ip route add default via 203.0.113.1"))?;
    vm.sh(ENCAP_SOCKET)?;
    let (cases, suites) = (cases()?, suites()?);
    let mut config = Config::default();
    for tunnel in cases.iter().chain(&suites) {
        tunnel.add_to(&mut config, Side::A);
        vm.sh(&xfrm(tunnel)?)?;
    }
    config.tables = config.tables.replace("198.51.100.2", GUEST);
    for engine in Engine::available() {
        config.set("aead", &format!("\"{}\"", engine.kind()));
        // A test machine that stalls must not cost a packet.
        config.set("stale", "\"10s\"");
        let a = Gateway::start(&world, Side::A, &config)?;
        let story = || format!("engine {}", engine.kind());
        carries(&world, &vm, &a, &cases, 20).with_context(story)?;
        carries(&world, &vm, &a, &suites, 3).with_context(story)?;
        let drops = a.drops()?;
        ensure!(drops.keys().all(|reason| reason == "no_neighbour"), "{}: {drops:?}", story());
        a.check_ledger()?;
    }
    let errors = vm.sh("grep -v '[[:space:]]0$' /proc/net/xfrm_stat || true")?;
    ensure!(errors.trim().is_empty(), "Linux counts errors: {errors}");
    Ok(())
}

/// So many pings of several sizes through every tunnel, all answered.
fn carries(world: &World, vm: &Vm, a: &Gateway, tunnels: &[Tunnel], count: u64) -> Result<()> {
    for tunnel in tunnels {
        let target = tunnel.selectors[1].trim_end_matches("/32").to_owned();
        let story =
            || format!("{tunnel:?}\n{:?}\n{:?}\n{}", a.drops(), vm.sh("cat /proc/net/xfrm_stat"), a.logs());
        wait_for("a ping through Linux", Duration::from_secs(10), || {
            Ok(world.caller.sh(&format!("ping -c1 -W1 {target}")).is_ok())
        })
        .with_context(story)?;
        for size in [0, 1, 56, 700, 1300] {
            let text = world
                .caller
                .sh(&format!("ping -c{count} -i0.02 -w10 -s{size} {target}"))
                .with_context(story)?;
            ensure!(echoes(&text) >= count, "{text}\n{}", story());
        }
        let sas = a.json("sas")?;
        let name = format!("b-to-a-{}", tunnel.number);
        let inbound = sas.as_array().into_iter().flatten().find(|sa| sa["name"] == name.as_str());
        let sa = inbound.with_context(|| format!("no {name} in {sas}"))?;
        ensure!(sa["highest_seq"].as_u64() >= Some(5 * count), "{sa}");
        ensure!(sa["replay_errors"] == 0 && sa["icv_errors"] == 0, "{sa}");
    }
    Ok(())
}
