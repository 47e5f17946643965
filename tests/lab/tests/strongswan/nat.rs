//! A NAT in front of either initiator, and two clients behind one NAPT.

use anyhow::{Context, Result, ensure};
use pollux_lab::capture::{Capture, Kind};
use pollux_lab::ike::Connection;
use pollux_lab::netns::Netns;
use pollux_lab::peer::strongswan::Version;
use pollux_lab::skip_unless;

use super::{Initiator, Pair};

/// Everything that leaves by `device` gets the router's address and another port.
fn masquerade(router: &Netns, device: &str) -> Result<()> {
    router.nft(&format!(
        "table ip nat {{
  chain post {{
    type nat hook postrouting priority 100;
    oifname \"{device}\" udp sport {{ 500, 4500 }} masquerade to :20000-30000
    oifname \"{device}\" masquerade
  }}
}}"
    ))
}

#[test]
fn we_come_up_from_behind_a_nat() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl", "nft", "tcpdump");
    let ours = Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16");
    let pair = Pair::start("nau", Version::Trixie, &Connection { any_remote: true, ..ours.clone() });
    let pair = pair
        .and_then(|pair| pair.a.configure(&ours.pollux(pollux_lab::world::Side::A, "none")).map(|()| pair))?;
    pair.a.reload()?;
    masquerade(&pair.world.internet, "b0")?;
    let capture = Capture::start(&pair.world.internet, "b0", pair.world.folder(), "beyond")?;
    pair.initiate(Initiator::Pollux).with_context(|| pair.story())?;
    pair.check_traffic()?;
    let frames = capture.stop()?;
    ensure!(frames.iter().any(|frame| frame.kind() == Kind::EspInUdp), "no ESP in UDP beyond the NAT");
    ensure!(!frames.iter().any(|frame| frame.kind() == Kind::Esp), "raw ESP beyond the NAT");
    Ok(())
}

#[test]
fn they_come_up_from_behind_a_nat() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl", "nft");
    let connection = Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16");
    let pair = Pair::start("nat", Version::Trixie, &connection)?;
    let any = Connection { any_remote: true, ..connection };
    pair.a.configure(&any.pollux(pollux_lab::world::Side::A, "none"))?;
    pair.a.reload()?;
    masquerade(&pair.world.internet, "a0")?;
    pair.initiate(Initiator::Swan).with_context(|| pair.story())?;
    pair.check_traffic()
}
