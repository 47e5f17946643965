//! Our control process, our data plane or the peer dies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::ike::Connection;
use pollux_lab::peer::strongswan::Version;
use pollux_lab::skip_unless;
use pollux_lab::wait::{sleep, wait_for};
use pollux_lab::world::Side;

use super::{Initiator, Pair};

const IKE: &str = "aes128gcm16-prfsha256-x25519";

fn control_restart(name: &str, unique: &str) -> Result<()> {
    let connection = Connection { theirs: unique.to_owned(), ..Connection::new(IKE, "aes128gcm16") };
    let pair = Pair::start(name, Version::Trixie, &connection)?;
    pair.a.configure(&connection.pollux(Side::A, "start"))?;
    pair.a.reload()?;
    pair.wait_up().with_context(|| pair.story())?;
    let mut pair = pair;
    let flows = [pair.flow(Side::A, 8.0)?, pair.flow(Side::B, 8.0)?];
    sleep(Duration::from_secs(2))?;
    pair.a.kill_control()?;
    sleep(Duration::from_secs(1))?;
    pair.a.start_control()?;
    // As the responder of IKE_AUTH, strongSwan sends under the new SA together with its answer: what arrives
    // before the SA is installed waits for it.
    for (outcome, from) in flows.map(pollux_lab::flow::Flow::finish).into_iter().zip(["us", "the peer"]) {
        pair.whole(outcome?).with_context(|| format!("the flow from {from}"))?;
    }
    let control = pair.a.json("status")?["control"].clone();
    ensure!(control["child_sas"] == 1, "{control}\n{}", pair.story());
    pair.check_traffic()
}

#[test]
fn killed_control_process_re_establishes_without_loss() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    control_restart("rsn", "unique = no")?;
    control_restart("rsd", "")
}

#[test]
fn killed_data_plane_gets_new_child_sas_at_once() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    let connection = Connection::new(IKE, "aes128gcm16");
    let mut pair = Pair::up("rsp", Version::Trixie, &connection, Initiator::Pollux)?;
    pair.a.kill_dataplane()?;
    pair.a.start_dataplane()?;
    pair.wait_up().with_context(|| pair.story())?;
    pair.check_traffic()
}

#[test]
fn dead_peer_is_found_and_its_sas_removed() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    let ours = "dpd_delay = \"1s\"\n".to_owned();
    let connection = Connection { ours, ..Connection::new(IKE, "aes128gcm16") };
    let mut pair = Pair::start("dpd", Version::Trixie, &connection)?;
    let mut config = connection.pollux(Side::A, "none");
    config.set_control("retransmit_timeout", "\"200ms\"").set_control("retransmit_tries", "3");
    pair.a.configure(&config)?;
    pair.a.reload()?;
    pair.initiate(Initiator::Pollux).with_context(|| pair.story())?;
    pair.swan.kill()?;
    wait_for("dead-peer detection", Duration::from_secs(20), || {
        let status = pair.a.json("status")?;
        Ok(status["control"]["ike_sas"] == 0 && status["dataplane"]["sas_inbound"] == 0)
    })
    .with_context(|| pair.story())
}
