//! Our control process, our data plane or the peer dies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::ike::{Connection, NAME};
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
    let control = pair.a.status()?["control"].clone();
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
        let status = pair.a.status()?;
        Ok(status["control"]["ike_sas"] == 0 && status["dataplane"]["sas_inbound"] == 0)
    })
    .with_context(|| pair.story())
}

#[test]
fn traffic_brings_up_a_child_that_is_trapped_and_no_other() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl");
    let connection = Connection::new(IKE, "aes128gcm16");
    let pair = Pair::start("trp", Version::Trixie, &connection)?;
    let closed_by_them = || -> Result<()> {
        pair.swan.swanctl(&format!("--terminate --ike {NAME}"))?;
        wait_for("our end to be closed", Duration::from_secs(10), || {
            Ok(pair.a.status()?["control"]["ike_sas"] == 0)
        })
    };
    // Packets alone bring it up, whenever it is down.
    pair.a.configure(&connection.pollux(Side::A, "trap"))?;
    pair.a.reload()?;
    for _ in 0..2 {
        pair.wait_up().with_context(|| pair.story())?;
        closed_by_them()?;
    }
    // Or once the peer has closed what we had brought up ourselves, where the configuration wants that.
    for (close_action, comes_back) in [("trap", true), ("none", false)] {
        let ours = format!("close_action = \"{close_action}\"\n");
        let connection = Connection { our_child: ours, ..connection.clone() };
        pair.a.configure(&connection.pollux(Side::A, "none"))?;
        pair.a.reload()?;
        let target = Side::B.host(connection.family);
        ensure!(pair.world.caller.sh(&format!("ping -c2 -W1 {target}")).is_err(), "up before its time");
        pair.initiate(Initiator::Pollux).with_context(|| pair.story())?;
        closed_by_them()?;
        if comes_back {
            pair.wait_up().with_context(|| pair.story())?;
        } else {
            ensure!(pair.world.caller.sh(&format!("ping -c3 -W1 {target}")).is_err(), "up again");
            ensure!(pair.a.status()?["control"]["ike_sas"] == 0, "{}", pair.story());
        }
    }
    Ok(())
}
