//! Every refusal ends with the notify that the RFC gives for it, and with one line in our log.

use anyhow::{Context, Result, ensure};
use pollux_lab::ike::{Connection, NAME};
use pollux_lab::peer::strongswan::Version;
use pollux_lab::skip_unless;
use pollux_lab::world::Side;

use super::{Initiator, Pair};

const IKE: &str = "aes128gcm16-prfsha256-x25519";

/// They try, we refuse: their log names the notify that came, ours names the key of the configuration.
fn refused(name: &str, ours: &Connection, theirs: &Connection, notify: &str, key: &str) -> Result<()> {
    let pair = Pair::start(name, Version::Trixie, theirs)?;
    pair.a.configure(&ours.pollux(Side::A, "none"))?;
    pair.a.reload()?;
    pair.swan.try_swanctl(&format!("--initiate --child {NAME} --timeout 6"))?;
    let seen = pair.swan.log().contains(notify);
    ensure!(seen, "they did not see {notify}\n{}", pair.story());
    let log = pair.a.cli("log")?;
    ensure!(log.lines().any(|line| line.contains(key)), "no line names {key}:\n{log}\n{}", pair.story());
    Ok(())
}

#[test]
fn unknown_proposal_is_refused_by_no_proposal_chosen() -> Result<()> {
    skip_unless!("ip", "swanctl");
    let theirs = Connection::new("aes256-sha512-ecp384", "aes128gcm16");
    refused("rfp", &Connection::new(IKE, "aes128gcm16"), &theirs, "NO_PROP", "proposals")
}

#[test]
fn unknown_child_proposal_is_refused_by_no_proposal_chosen() -> Result<()> {
    skip_unless!("ip", "swanctl");
    refused(
        "rfc",
        &Connection::new(IKE, "aes256gcm16"),
        &Connection::new(IKE, "aes128gcm16"),
        "NO_PROP",
        "esp_proposals",
    )
}

#[test]
fn foreign_selectors_are_refused_by_ts_unacceptable() -> Result<()> {
    skip_unless!("ip", "swanctl");
    let ours = Connection::new(IKE, "aes128gcm16");
    let theirs =
        Connection { selectors: ["10.8.0.0/16".to_owned(), "10.9.0.0/16".to_owned()], ..ours.clone() };
    refused("rft", &ours, &theirs, "TS_UNACCEPT", "local_ts")
}

#[test]
fn wrong_secret_is_refused_by_authentication_failed() -> Result<()> {
    skip_unless!("ip", "swanctl");
    let connection = Connection::new(IKE, "aes128gcm16");
    let pair = Pair::start("rfa", Version::Trixie, &connection)?;
    let mut config = connection.pollux(Side::A, "none");
    config.secrets = format!("[psk]\n{NAME} = \"not the secret that the peer has, nor one like it\"\n");
    pair.a.configure(&config)?;
    pair.a.reload()?;
    pair.swan.try_swanctl(&format!("--initiate --child {NAME} --timeout 6"))?;
    ensure!(pair.swan.log().contains("AUTH_FAILED"), "{}", pair.story());
    ensure!(pair.a.cli("log")?.contains("secrets (connections.media)"), "{}", pair.story());
    Ok(())
}

#[test]
fn other_group_is_asked_for_by_invalid_ke_payload_in_both_roles() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    let both = "aes128gcm16-prfsha256-ecp256,aes128gcm16-prfsha256-x25519";
    // Whoever begins guesses its first group, which the other does not have.
    let pair = Pair::start("ike", Version::Trixie, &Connection::new(IKE, "aes128gcm16"))?;
    pair.a.configure(&Connection::new(both, "aes128gcm16").pollux(Side::A, "none"))?;
    pair.a.reload()?;
    pair.initiate(Initiator::Pollux).with_context(|| pair.story())?;
    ensure!(pair.swan.log().contains("INVAL_KE"), "they did not ask for another group\n{}", pair.story());
    drop(pair);
    let pair = Pair::start("ikr", Version::Trixie, &Connection::new(both, "aes128gcm16"))?;
    pair.a.configure(&Connection::new(IKE, "aes128gcm16").pollux(Side::A, "none"))?;
    pair.a.reload()?;
    pair.initiate(Initiator::Swan).with_context(|| pair.story())?;
    ensure!(pair.swan.log().contains("INVAL_KE"), "we did not ask for another group\n{}", pair.story());
    Ok(())
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
