//! tshark opens IKE and ESP with the keys that we log, and has nothing to open them with unless we are told to.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use pollux_lab::capture::{Capture, Kind};
use pollux_lab::ike::Connection;
use pollux_lab::oracle::tshark::{self, Keys};
use pollux_lab::peer::strongswan::Version;
use pollux_lab::skip_unless;
use pollux_lab::world::{Family, Side};

use super::{Initiator, Pair, Wire};

/// Payloads of the two messages of IKE_AUTH, by their numbers in RFC 7296 §3.2: IDi or IDr, AUTH, SA, TSi, TSr.
const REQUEST: [&str; 5] = ["35", "39", "33", "44", "45"];
const RESPONSE: [&str; 5] = ["36", "39", "33", "44", "45"];

const PINGS: usize = 5;

fn opens(name: &str, ike: &'static str, esp: &'static str, encap: bool, by: Initiator) -> Result<()> {
    let connection = Connection { encap, ..Connection::new(ike, esp) };
    let pair = Pair::start(name, Version::Trixie, &connection)?;
    let wire = Wire::tap(&pair, &connection.pollux(Side::A, "none"))?;
    pair.initiate(by).with_context(|| pair.story())?;
    let target = Side::B.host(Family::V4);
    let pings = pair.world.caller.sh(&format!("ping -c{PINGS} -i0.1 -w5 -s 200 {target}"))?;
    ensure!(pings.contains(" 0% packet loss"), "{pings}\n{}", pair.story());
    let (capture, keys) = wire.finish()?;
    let warned = pair.a.cli("log")?.contains("every negotiated key is written to");
    ensure!(warned, "no word of it in the log\n{}", pair.story());
    both_messages_of_ike_auth(&capture, &keys).with_context(|| pair.story())?;
    echoes(&capture, &keys).with_context(|| pair.story())
}

/// Every IKE_AUTH message shows what is inside, and the identities are those of the configuration.
fn both_messages_of_ike_auth(capture: &Path, keys: &Keys) -> Result<()> {
    let names = ["isakmp.flag_r", "isakmp.typepayload", "isakmp.id.data.fqdn", "isakmp.enc.icd"];
    let rows = tshark::fields(capture, keys, &[], "isakmp.exchangetype == 35", &names)?;
    for (response, want) in [(false, REQUEST), (true, RESPONSE)] {
        let of_kind = rows.iter().filter(|row| matches!(row[0].as_str(), "1" | "True") == response);
        let mut seen = 0;
        for row in of_kind {
            let payloads: Vec<&str> = row[1].split(',').collect();
            ensure!(want.iter().all(|payload| payloads.contains(payload)), "{row:?} of {rows:?}");
            ensure!(row[2].contains("gateway-"), "no identity in {row:?}");
            seen += 1;
        }
        ensure!(seen > 0, "no IKE_AUTH message (response: {response}) in {rows:?}");
    }
    Ok(())
}

/// Every ESP packet opens, its ICV holds, and the echoes of both directions are inside.
fn echoes(capture: &Path, keys: &Keys) -> Result<()> {
    let rows = tshark::fields(capture, keys, &[], "esp", &["esp.icv_good", "frame.protocols", "icmp.type"])?;
    let good = rows.iter().filter(|row| matches!(row[0].as_str(), "1" | "True") && row[1].contains("icmp"));
    ensure!(good.count() == rows.len(), "not all of it opens: {rows:?}");
    for kind in ["8", "0"] {
        let count = rows.iter().filter(|row| row[2] == kind).count();
        ensure!(count >= PINGS, "{count} echoes of type {kind} in {rows:?}");
    }
    Ok(())
}

#[test]
fn tshark_opens_ike_auth_and_esp_with_the_keys_that_we_log() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl", "tcpdump", "tshark");
    opens("kyg", "aes128gcm16-prfsha256-x25519", "aes256gcm16", false, Initiator::Pollux)?;
    opens("kyu", "aes256gcm16-prfsha384-ecp256", "aes128gcm16", true, Initiator::Swan)?;
    opens("kyc", "aes256-sha256-modp2048", "aes256-sha256", false, Initiator::Swan)
}

#[test]
fn no_key_leaves_us_unless_the_configuration_names_a_file() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl", "tcpdump", "tshark");
    let connection = Connection::new("aes128gcm16-prfsha256-x25519", "aes256gcm16");
    let pair = Pair::start("kyn", Version::Trixie, &connection)?;
    let capture = Capture::start(&pair.world.internet, "a0", pair.world.folder(), "wire")?;
    pair.initiate(Initiator::Pollux).with_context(|| pair.story())?;
    let file = capture.file().to_owned();
    let frames = capture.stop()?;
    ensure!(frames.iter().any(|frame| frame.kind() == Kind::Esp), "no ESP");
    let esp = tshark::fields(&file, &Keys::default(), &[], "esp", &["esp.icv_good", "icmp.type"])?;
    ensure!(esp.iter().all(|row| row.iter().all(String::is_empty)), "{esp:?}");
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(pair.a.folder())? {
        let path = entry?.path();
        let text = std::fs::read(&path).unwrap_or_default();
        let tables: [&[u8]; 2] = [b"ikev2_decryption_table", b"esp_sa"];
        if tables.iter().any(|table| text.windows(table.len()).any(|octets| octets == *table)) {
            logs.push(path);
        }
    }
    ensure!(logs.is_empty(), "keys in {logs:?}");
    Ok(())
}
