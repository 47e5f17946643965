//! Suites and groups, both roles, both versions, raw and in UDP, IPv4 and IPv6.

use anyhow::{Context, Result};
use pollux_lab::ike::Connection;
use pollux_lab::peer::strongswan::Version;
use pollux_lab::skip_unless;
use pollux_lab::world::{Family, Side};

use super::{Initiator, Pair};

/// IKE and ESP proposals that CI runs: GCM and CBC, groups 14, 19 and 31.
const SHORT: &[(&str, &str)] = &[
    ("aes128gcm16-prfsha256-x25519", "aes128gcm16"),
    ("aes256gcm16-prfsha384-ecp256", "aes256gcm16-ecp256"),
    ("aes256-sha256-modp2048", "aes256-sha256"),
];

/// What `scripts/test --long` adds.
const LONG: &[(&str, &str)] = &[
    ("aes256gcm16-prfsha512-ecp384", "aes256gcm16-ecp384"),
    ("aes256gcm16-prfsha512-ecp521", "aes192gcm16"),
    ("aes128-sha256-modp3072", "aes128-sha256-modp3072"),
    ("aes256-sha512-modp4096", "aes256-sha512"),
    ("aes192gcm16-prfsha384-x25519", "aes256gcm16-x25519"),
    ("aes256-sha384-x25519", "aes256-sha384"),
    ("chacha20poly1305-prfsha256-x25519", "chacha20poly1305"),
];

fn suites() -> Vec<(&'static str, &'static str)> {
    let long = std::env::var_os("POLLUX_LONG").is_some();
    SHORT.iter().chain(if long { LONG } else { &[] }).copied().collect()
}

fn run(name: &str, version: Version, initiator: Initiator, connection: &Connection) -> Result<()> {
    let what = format!("{version:?}, {initiator:?} initiates: {connection:?}");
    let pair = Pair::up(name, version, connection, initiator).with_context(|| what.clone())?;
    pair.check_traffic().with_context(|| what)
}

#[test]
fn every_suite_comes_up_when_we_initiate() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    for (ike, esp) in suites() {
        run("swi", Version::Trixie, Initiator::Pollux, &Connection::new(ike, esp))?;
    }
    Ok(())
}

#[test]
fn every_suite_comes_up_when_they_initiate() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    for (ike, esp) in suites() {
        run("swr", Version::Trixie, Initiator::Swan, &Connection::new(ike, esp))?;
    }
    Ok(())
}

#[test]
fn old_strongswan_comes_up_in_udp_in_both_roles() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl", "charon-systemd");
    for initiator in [Initiator::Pollux, Initiator::Swan] {
        let connection =
            Connection { encap: true, ..Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16") };
        run("swo", Version::Host, initiator, &connection)?;
    }
    Ok(())
}

#[test]
fn forced_encapsulation_puts_esp_into_udp() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    let connection =
        Connection { encap: true, ..Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16") };
    run("swe", Version::Trixie, Initiator::Pollux, &connection)
}

#[test]
fn ipv6_inside_and_outside_comes_up_in_both_roles() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    for initiator in [Initiator::Pollux, Initiator::Swan] {
        let connection = Connection {
            family: Family::V6,
            selectors: [Side::A, Side::B].map(|side| side.prefix(Family::V6).to_owned()),
            ..Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16")
        };
        run("sw6", Version::Trixie, initiator, &connection)?;
    }
    Ok(())
}
