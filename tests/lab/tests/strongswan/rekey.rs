//! Rekeys by either side, ten in a row, while a flow goes both ways: no packet lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::ike::{Connection, NAME};
use pollux_lab::peer::strongswan::Version;
use pollux_lab::skip_unless;
use pollux_lab::wait::sleep;
use pollux_lab::world::Side;

use super::{Initiator, Pair};

const ROUNDS: u32 = 10;

fn rekeys(name: &str, esp: &'static str, by: Initiator) -> Result<()> {
    let connection = Connection::new("aes128gcm16-prfsha256-x25519", esp);
    let pair = Pair::up(name, Version::Trixie, &connection, Initiator::Pollux)?;
    let seconds = f64::from(ROUNDS) + 2.0;
    let flows = [pair.flow(Side::A, seconds)?, pair.flow(Side::B, seconds)?];
    for round in 0..ROUNDS {
        let what = if round % 2 == 0 { "child" } else { "ike" };
        match by {
            Initiator::Pollux => pair.a.cli(&format!("rekey --{what} {NAME}")),
            Initiator::Swan => pair.swan.swanctl(&format!("--rekey --{what} {NAME}")),
        }
        .with_context(|| format!("round {round}: {what}\n{}", pair.story()))?;
        sleep(Duration::from_secs(1))?;
    }
    for flow in flows {
        pair.whole(flow.finish()?)?;
    }
    let control = pair.a.status()?["control"].clone();
    let half = u64::from(ROUNDS / 2);
    ensure!(control["child_rekeys"] == half && control["ike_rekeys"] == half, "{control}\n{}", pair.story());
    ensure!(control["child_sas"] == 1 && control["ike_sas"] == 1, "{control}\n{}", pair.story());
    ensure!(control["lost_to_rekey"] == 0, "{control}");
    pair.check_traffic()
}

#[test]
fn ten_rekeys_by_us_lose_nothing() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    rekeys("rku", "aes128gcm16", Initiator::Pollux)
}

#[test]
fn ten_rekeys_by_us_with_pfs_lose_nothing() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    rekeys("rup", "aes128gcm16-x25519", Initiator::Pollux)
}

#[test]
fn ten_rekeys_by_them_lose_nothing() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    rekeys("rkt", "aes128gcm16", Initiator::Swan)
}

#[test]
fn ten_rekeys_by_them_with_pfs_lose_nothing() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    rekeys("rtp", "aes128gcm16-x25519", Initiator::Swan)
}

#[test]
fn soft_limits_by_time_bytes_and_packets_bring_rekeys_that_lose_nothing() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    let connection = Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16");
    let pair = Pair::start("rkl", Version::Trixie, &connection)?;
    for limits in [
        "rekey_time = \"2s\"\nlife_time = \"60s\"\nrand_time = \"1s\"\n",
        "rekey_packets = 900\nlife_packets = 1500\n",
        "rekey_bytes = \"150k\"\nlife_bytes = \"250k\"\n",
    ] {
        let before = pair.a.status()?["control"]["child_rekeys"].as_u64();
        let limited = Connection { our_child: limits.to_owned(), ..connection.clone() };
        pair.a.configure(&limited.pollux(Side::A, "none"))?;
        // Another connection of the same name: the one before is closed.
        pair.a.reload()?;
        pair.initiate(Initiator::Pollux).with_context(|| pair.story())?;
        let flows = [pair.flow(Side::A, 5.0)?, pair.flow(Side::B, 5.0)?];
        for flow in flows {
            pair.whole(flow.finish()?).with_context(|| limits)?;
        }
        let control = pair.a.status()?["control"].clone();
        let rekeys = control["child_rekeys"].as_u64().zip(before).map(|(after, before)| after - before);
        ensure!(rekeys >= Some(2), "{limits}{rekeys:?} rekeys: {control}\n{}", pair.story());
        ensure!(control["lost_to_rekey"] == 0 && control["child_sas"] == 1, "{control}\n{}", pair.story());
    }
    pair.check_traffic()
}
