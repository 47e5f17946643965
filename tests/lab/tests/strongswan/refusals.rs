//! Every refusal ends with the notify that the RFC gives for it, and with one line in our log.

use anyhow::{Context, Result, ensure};
use pollux_lab::command::run;
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::ike::{Connection, NAME};
use pollux_lab::peer::strongswan::Version;
use pollux_lab::skip_unless;
use pollux_lab::world::{Family, Side, World};

use super::{Initiator, Pair, Wire};

const IKE: &str = "aes128gcm16-prfsha256-x25519";

/// They try, we refuse: the notify is seen on the wire, and ours names the key of the configuration.
fn refused(name: &str, ours: &Connection, theirs: &Connection, notify: Notify, key: &str) -> Result<()> {
    refused_with(name, &ours.pollux(Side::A, "none"), theirs, notify, key)
}

fn refused_with(name: &str, ours: &Config, theirs: &Connection, notify: Notify, key: &str) -> Result<()> {
    let pair = Pair::start(name, Version::Trixie, theirs)?;
    let wire = Wire::tap(&pair, ours)?;
    pair.swan.try_swanctl(&format!("--initiate --child {NAME} --timeout 6"))?;
    let notifies = wire.notifies(Side::A.outer(Family::V4))?;
    let sent = notifies.contains(&notify.number.to_string());
    ensure!(sent, "{notify:?} is not among {notifies:?}\n{}", pair.story());
    ensure!(pair.swan.log().contains(notify.name), "they did not read {notify:?}\n{}", pair.story());
    let log = pair.a.cli("log")?;
    ensure!(log.lines().any(|line| line.contains(key)), "no line names {key}:\n{log}\n{}", pair.story());
    Ok(())
}

/// A notify that refuses something.
#[derive(Clone, Copy, Debug)]
struct Notify {
    /// RFC 7296 §3.10.1.
    number: u16,
    /// As strongSwan's log abbreviates it.
    name: &'static str,
}

const NO_PROPOSAL_CHOSEN: Notify = Notify { number: 14, name: "NO_PROP" };
const AUTHENTICATION_FAILED: Notify = Notify { number: 24, name: "AUTH_FAILED" };
const TS_UNACCEPTABLE: Notify = Notify { number: 38, name: "TS_UNACCEPT" };
const INVALID_KE_PAYLOAD: Notify = Notify { number: 17, name: "INVAL_KE" };

#[test]
fn unknown_proposal_is_refused_by_no_proposal_chosen() -> Result<()> {
    skip_unless!("ip", "swanctl", "tcpdump", "tshark");
    let theirs = Connection::new("aes256-sha512-ecp384", "aes128gcm16");
    refused("rfp", &Connection::new(IKE, "aes128gcm16"), &theirs, NO_PROPOSAL_CHOSEN, "proposals")
}

#[test]
fn unknown_child_proposal_is_refused_by_no_proposal_chosen() -> Result<()> {
    skip_unless!("ip", "swanctl", "tcpdump", "tshark");
    refused(
        "rfc",
        &Connection::new(IKE, "aes256gcm16"),
        &Connection::new(IKE, "aes128gcm16"),
        NO_PROPOSAL_CHOSEN,
        "esp_proposals",
    )
}

#[test]
fn foreign_selectors_are_refused_by_ts_unacceptable() -> Result<()> {
    skip_unless!("ip", "swanctl", "tcpdump", "tshark");
    let ours = Connection::new(IKE, "aes128gcm16");
    let theirs =
        Connection { selectors: ["10.8.0.0/16".to_owned(), "10.9.0.0/16".to_owned()], ..ours.clone() };
    refused("rft", &ours, &theirs, TS_UNACCEPTABLE, "local_ts")
}

#[test]
fn wrong_secret_is_refused_by_authentication_failed() -> Result<()> {
    skip_unless!("ip", "swanctl", "tcpdump", "tshark");
    let connection = Connection::new(IKE, "aes128gcm16");
    let mut ours = connection.pollux(Side::A, "none");
    ours.secrets = format!("[psk]\n{NAME} = \"not the secret that the peer has, nor one like it\"\n");
    refused_with("rfa", &ours, &connection, AUTHENTICATION_FAILED, "connection.media.psk")
}

#[test]
fn other_group_is_asked_for_by_invalid_ke_payload_in_both_roles() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl", "tcpdump", "tshark");
    let both = "aes128gcm16-prfsha256-ecp256,aes128gcm16-prfsha256-x25519";
    let single = Connection::new(IKE, "aes128gcm16");
    let choice = Connection::new(both, "aes128gcm16");
    // Whoever begins guesses its first group, which the other does not have.
    for (name, by, refusing) in [("ike", Initiator::Pollux, Side::B), ("ikr", Initiator::Swan, Side::A)] {
        let [ours, theirs] = if by == Initiator::Pollux { [&choice, &single] } else { [&single, &choice] };
        let pair = Pair::start(name, Version::Trixie, theirs)?;
        let wire = Wire::tap(&pair, &ours.pollux(Side::A, "none"))?;
        pair.initiate(by).with_context(|| pair.story())?;
        let notifies = wire.notifies(refusing.outer(Family::V4))?;
        let asked = notifies.contains(&INVALID_KE_PAYLOAD.number.to_string());
        ensure!(asked && pair.swan.log().contains(INVALID_KE_PAYLOAD.name), "{notifies:?}\n{}", pair.story());
    }
    Ok(())
}

#[test]
fn what_is_no_ikev2_is_refused_by_the_notify_for_it() -> Result<()> {
    skip_unless!("ip", "tcpdump");
    let world = World::new("rfv")?;
    let gateway =
        Gateway::start(&world, Side::A, &Connection::new(IKE, "aes128gcm16").pollux(Side::A, "none"))?;
    // An IKE_SA_INIT request with nothing in it but what is wrong, and the notify that answers it.
    for (what, version, payload, body, number) in [
        ("another major version", 0x30, 0, "", 5_u16),
        ("an unknown critical payload", 0x20, 200, "00800004", 1),
        ("a payload that is longer than its message", 0x20, 40, "00000040", 7),
        ("no SA payload", 0x20, 40, "00000014000102030405060708090a0b0c0d0e0f", 7),
    ] {
        let length = 28 + body.len() / 2;
        let request =
            format!("a1b2c3d4e5f60718{:016x}{payload:02x}{version:02x}220800000000{length:08x}{body}", 0);
        let reply = ask(&world, &request)?;
        let story = || format!("{what}: {request} is answered by `{reply}`\n{}", gateway.logs());
        // A notify without protocol and SPI is the answer's first payload: header, generic header, two zeros.
        ensure!(reply.get(..16) == request.get(..16), "another initiator SPI; {}", story());
        ensure!(reply.get(32..34) == Some("29"), "no notify; {}", story());
        ensure!(reply.get(68..72) == Some(&format!("{number:04x}")), "not {number}; {}", story());
    }
    let log = gateway.cli("log")?;
    ensure!(log.contains("198.51.100.2"), "no line about it:\n{log}");
    Ok(())
}

/// Sends a datagram from gateway b to port 500 of gateway a; the answer. Both in hexadecimal.
fn ask(world: &World, request: &str) -> Result<String> {
    let [from, to] = [Side::B, Side::A].map(|side| side.outer(Family::V4));
    let script = format!(
        "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('{from}',500)); s.settimeout(3)\n\
         s.sendto(bytes.fromhex('{request}'),('{to}',500)); print(s.recv(4096).hex())"
    );
    let text = run(world.gateway_b.command("/usr/bin/python3").args(["-c", &script]))?;
    Ok(text.trim().to_owned())
}

#[test]
fn wider_selectors_are_narrowed_in_both_roles() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    for initiator in [Initiator::Pollux, Initiator::Swan] {
        let narrow = Connection::new(IKE, "aes128gcm16");
        let wide =
            Connection { selectors: ["10.0.0.0/8".to_owned(), "10.0.0.0/8".to_owned()], ..narrow.clone() };
        let pair = Pair::start("nrw", Version::Trixie, &wide)?;
        pair.a.configure(&narrow.pollux(Side::A, "none"))?;
        pair.a.reload()?;
        pair.initiate(initiator).with_context(|| pair.story())?;
        let sas = pair.swan.swanctl("--list-sas")?;
        ensure!(sas.contains("10.1.0.0/16") && sas.contains("10.2.0.0/16"), "not narrowed: {sas}");
    }
    Ok(())
}

#[test]
fn several_selectors_of_both_versions_and_ports_are_narrowed_in_both_roles() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    let with = |ports: &str| {
        let of =
            |side: Side| format!("{}[udp/{ports}], {}", side.prefix(Family::V4), side.prefix(Family::V6));
        Connection { selectors: [Side::A, Side::B].map(of), ..Connection::new(IKE, "aes128gcm16") }
    };
    for initiator in [Initiator::Pollux, Initiator::Swan] {
        let pair = Pair::start("nrs", Version::Trixie, &with("16384-24000"))?;
        pair.a.configure(&with("20000-32767").pollux(Side::A, "none"))?;
        pair.a.reload()?;
        match initiator {
            Initiator::Pollux => pair.a.cli(&format!("initiate --child {NAME}")),
            Initiator::Swan => pair.swan.swanctl(&format!("--initiate --child {NAME} --timeout 15")),
        }
        .with_context(|| pair.story())?;
        let child = pair.a.json("list-sas")?[0]["children"][0].clone();
        ensure!(
            child["local_ts"] == serde_json::json!(["10.1.0.0/16[17/20000-24000]", "fd01::/64"]),
            "{child}"
        );
        ensure!(
            child["remote_ts"] == serde_json::json!(["10.2.0.0/16[17/20000-24000]", "fd02::/64"]),
            "{child}"
        );
        // UDP from and to ports that both want, and anything at all in IPv6.
        for from in [Side::A, Side::B] {
            pair.whole(pair.flow(from, 1.0)?.finish()?)?;
        }
        pair.world
            .caller
            .sh(&format!("ping -c3 -i0.2 -W2 {}", Side::B.host(Family::V6)))
            .with_context(|| pair.story())?;
        let target = Side::B.host(Family::V4);
        ensure!(pair.world.caller.sh(&format!("ping -c1 -W1 {target}")).is_err(), "ICMP has no selector");
    }
    Ok(())
}
