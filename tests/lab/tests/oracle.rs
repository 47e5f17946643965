//! Scapy and tshark judge every payload length, and scapy makes the packets that we have to accept.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use pollux_aead::{Engine, EngineKind};
use pollux_lab::capture::{Capture, Frame};
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::oracle::scapy::{self, Sa};
use pollux_lab::oracle::tshark::{self, Keys};
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, configs};
use pollux_lab::world::{Family, Side, World};

/// Every UDP payload that fits TCP's usual 1,460 octets.
const LENGTHS: [u32; 2] = [0, 1460];
/// What the AEAD engines that are not the first choice are tried with: every way that their loops end.
const SHORT: [u32; 2] = [0, 200];

/// A tunnel with host addresses of its own, so that several run side by side.
struct Case {
    tunnel: Tunnel,
    hosts: [String; 2],
    lengths: [u32; 2],
}

/// Both IP versions, with and without UDP encapsulation, 32-bit and extended sequence numbers: every length.
/// Mixed families: the lengths around each padding step.
fn cases(all: [u32; 2]) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (inner, outer) in [
        (Family::V4, Family::V4),
        (Family::V6, Family::V6),
        (Family::V4, Family::V6),
        (Family::V6, Family::V4),
    ] {
        for (encap, esn) in [(false, false), (false, true), (true, false), (true, true)] {
            let number = u32::try_from(cases.len() + 1)?;
            let hosts = match inner {
                Family::V4 => [format!("10.1.{number}.10"), format!("10.2.{number}.10")],
                Family::V6 => [format!("fd01:0:0:{number:x}::10"), format!("fd02:0:0:{number:x}::10")],
            };
            let selectors = hosts.clone();
            let tunnel = Tunnel { encap, esn, selectors, ..Tunnel::new(number, inner, outer)? };
            let lengths = if inner == outer { all } else { [0, 64] };
            cases.push(Case { tunnel, hosts, lengths });
        }
    }
    Ok(cases)
}

/// Room for the largest packet: 1,460 octets in UDP in IPv6 in ESP in UDP in IPv6.
fn widen(world: &World) -> Result<()> {
    for (netns, device) in [
        (&world.gateway_a, "wan0"),
        (&world.internet, "a0"),
        (&world.internet, "b0"),
        (&world.gateway_b, "wan0"),
        (&world.caller, "eth0"),
        (&world.gateway_a, "lan0"),
        (&world.gateway_b, "lan0"),
        (&world.callee, "eth0"),
    ] {
        netns.ip(&format!("link set {device} mtu 1700"))?;
    }
    Ok(())
}

fn address(world: &World, side: Side, host: &str) -> Result<()> {
    let (len, nodad) = if host.contains(':') { (128, "nodad") } else { (32, "") };
    world.host(side).ip(&format!("addr add {host}/{len} dev eth0 {nodad}"))?;
    world.gateway(side).ip(&format!("route add {host}/{len} dev lan0"))?;
    Ok(())
}

/// The test with every AEAD engine that this CPU runs; all lengths for each with `scripts/test --long`.
fn each_engine(test: impl Fn(EngineKind, [u32; 2]) -> Result<()>) -> Result<()> {
    let long = std::env::var_os("POLLUX_LONG").is_some();
    for (place, engine) in Engine::available().enumerate() {
        let lengths = if place == 0 || long { LENGTHS } else { SHORT };
        test(engine.kind(), lengths).with_context(|| format!("AEAD engine {}", engine.kind()))?;
    }
    Ok(())
}

fn world_for(name: &str, engine: EngineKind, cases: &[Case]) -> Result<(World, [Config; 2])> {
    let world = World::new(name)?;
    widen(&world)?;
    for case in cases {
        for (side, host) in [Side::A, Side::B].into_iter().zip(&case.hosts) {
            address(&world, side, host)?;
        }
    }
    let tunnels: Vec<Tunnel> = cases.iter().map(|case| case.tunnel.clone()).collect();
    let mut configs = configs(&tunnels);
    for config in &mut configs {
        config.set("aead", &format!("\"{engine}\""));
        // A test machine that stalls must not cost a packet.
        config.set("stale", "\"10s\"");
    }
    Ok((world, configs))
}

fn sas(cases: &[Case]) -> Vec<Sa> {
    cases.iter().map(|case| case.tunnel.sa(Side::A, case.hosts.clone(), case.lengths)).collect()
}

#[test]
fn scapy_and_tshark_decrypt_what_we_send_at_every_length() -> Result<()> {
    skip_unless!("ip", "tcpdump", "tshark");
    each_engine(judge)
}

fn judge(engine: EngineKind, lengths: [u32; 2]) -> Result<()> {
    let cases = cases(lengths)?;
    let (world, [config, _]) = world_for("orc", engine, &cases)?;
    // The next hop is known before the flood; the queue for unresolved ones is short on purpose.
    for router in ["192.0.2.1", "2001:db8:a::1"] {
        world.gateway_a.sh(&format!("ping -c1 -W2 {router}"))?;
    }
    let gateway = Gateway::start(&world, Side::A, &config)?;
    let capture = Capture::start(&world.internet, "a0", world.folder(), "outside")?;
    let file = capture.file().to_owned();
    let mut sent = 0;
    for case in &cases {
        sent += scapy::pattern(&world.caller, &case.hosts[0], &case.hosts[1], case.lengths)?;
    }
    let frames = capture.stop()?;
    let esp = frames.iter().filter(|frame| frame.esp().is_some()).count() as u64;
    ensure!(esp == sent, "{sent} sent, {esp} ESP packets outside; drops {:?}", gateway.drops()?);
    scapy_agrees(&file, world.folder(), &cases)?;
    tshark_agrees(&file, &cases)?;
    gateway.check_ledger()
}

fn scapy_agrees(file: &Path, folder: &Path, cases: &[Case]) -> Result<()> {
    let sas = sas(cases);
    let verdicts = scapy::verify(file, folder, &sas)?;
    for sa in &sas {
        let verdict = &verdicts[format!("0x{:08x}", sa.spi)];
        let want = u64::from(sa.lengths[1] - sa.lengths[0] + 1);
        let all = verdict["good"] == want
            && verdict["lengths"] == want
            && verdict["distinct_sequence_numbers"] == want;
        ensure!(all, "scapy, of {sa:?}: {verdict}");
    }
    Ok(())
}

/// Every ICV holds, every packet opens, every payload is what was sent, and each length came once.
fn tshark_agrees(file: &Path, cases: &[Case]) -> Result<()> {
    let sas = sas(cases);
    let packets = tshark::esp(file, &Keys::of_sas(&sas), scapy::PORTS[1])?;
    for sa in sas.iter().filter(|sa| !sa.esn) {
        let family = |address: &str| if address.contains(':') { "ipv6" } else { "ip" };
        let encap = if sa.encap { "udp:udpencap:" } else { "" };
        let layers =
            format!("eth:ethertype:{}:{encap}esp:{}:udp", family(&sa.outer[0]), family(&sa.inner[0]));
        let (mut lengths, mut numbers) = (HashSet::new(), HashSet::new());
        for packet in packets.iter().filter(|packet| packet.spi == sa.spi) {
            ensure!(packet.authentic == Some(true), "tshark, of {sa:?}: the ICV of {packet:?}");
            let length = u32::try_from(packet.payload.len())?;
            let data = if length == 0 { "" } else { ":data" };
            ensure!(packet.layers == layers.clone() + data, "tshark, of {sa:?}: {packet:?}");
            ensure!(packet.payload == pattern(length), "tshark, of {sa:?}: the payload of {packet:?}");
            let new = lengths.insert(length) && numbers.insert(packet.sequence);
            ensure!(new, "tshark, of {sa:?}: came twice: {packet:?}");
        }
        let want: HashSet<u32> = (sa.lengths[0]..=sa.lengths[1]).collect();
        ensure!(lengths == want, "tshark, of {sa:?}: {} of {} lengths", lengths.len(), want.len());
    }
    Ok(())
}

#[test]
fn what_scapy_makes_arrives_byte_exact_at_every_length() -> Result<()> {
    skip_unless!("ip", "tcpdump");
    each_engine(receive)
}

fn receive(engine: EngineKind, lengths: [u32; 2]) -> Result<()> {
    let cases = cases(lengths)?;
    let (world, [_, config]) = world_for("mak", engine, &cases)?;
    // Next hops are known before the flood, those of the hosts' answers, that nobody listens, too: the queue for
    // unresolved ones is short on purpose.
    let hosts = cases.iter().map(|case| case.hosts[1].as_str());
    for next_hop in hosts.chain(["198.51.100.1", "2001:db8:b::1"]) {
        world.gateway_b.sh(&format!("ping -c1 -W2 {next_hop}"))?;
    }
    let gateway = Gateway::start(&world, Side::B, &config)?;
    let capture = Capture::start(&world.callee, "eth0", world.folder(), "callee")?;
    let link = world.gateway_b.sh("cat /sys/class/net/wan0/address")?;
    let sas = sas(&cases);
    let sent = scapy::send(&world.internet, "b0", link.trim(), world.folder(), &sas)?;
    let arrived = payloads(&capture.stop()?);
    for sa in &sas {
        let got =
            arrived.get(&sa.inner[0]).with_context(|| format!("nothing of {sa:?}: {:?}", gateway.drops()))?;
        for length in sa.lengths[0]..=sa.lengths[1] {
            let want = pattern(length);
            let right = got.get(&want.len()) == Some(&want);
            ensure!(right, "{sa:?}: payload of {length} octets; drops {:?}", gateway.drops());
        }
    }
    let drops = gateway.drops()?;
    ensure!(drops.is_empty(), "{sent} sent: {drops:?}");
    gateway.check_ledger()
}

/// UDP payloads by source address and length.
fn payloads(frames: &[Frame]) -> HashMap<String, HashMap<usize, Vec<u8>>> {
    let mut payloads: HashMap<String, HashMap<usize, Vec<u8>>> = HashMap::new();
    for ip in frames.iter().filter_map(Frame::ip).filter(|ip| ip.protocol == 17) {
        let payload = ip.payload.get(8..).unwrap_or_default().to_vec();
        payloads.entry(ip.source.to_string()).or_default().insert(payload.len(), payload);
    }
    payloads
}

/// The payload of this length, as the oracle makes it.
fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + length).to_le_bytes()[0]).collect()
}
