//! IKE where the kernel does not send and the data plane does not answer: what is told, and what becomes of it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::ike::{Connection, NAME};
use pollux_lab::skip_unless;
use pollux_lab::wait::{sleep, wait_for};
use pollux_lab::world::{Family, Side, World};
use serde_json::Value;

struct Pair {
    a: Gateway,
    _b: Gateway,
    world: World,
    connection: Connection,
}

/// Two gateways with a Child SA between them.
fn pair(name: &str) -> Result<Pair> {
    let world = World::new(name)?;
    let connection = Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16");
    let b = Gateway::start(&world, Side::B, &connection.pollux(Side::B, "none"))?;
    let a = Gateway::start(&world, Side::A, &ours(&connection))?;
    a.cli(&format!("initiate --child {NAME}"))?;
    let pair = Pair { a, _b: b, world, connection };
    pair.ping()?;
    Ok(pair)
}

fn ours(connection: &Connection) -> Config {
    let mut config = connection.pollux(Side::A, "none");
    config.set_control("retransmit_timeout", "\"100ms\"").set_control("retransmit_tries", "8");
    config
}

impl Pair {
    fn ping(&self) -> Result<()> {
        let target = Side::B.host(Family::V4);
        wait_for("a ping", Duration::from_secs(10), || {
            Ok(self.world.caller.sh(&format!("ping -c1 -W1 {target}")).is_ok())
        })
        .with_context(|| self.a.logs())
    }

    fn told(&self, event: &str) -> Result<Vec<Value>> {
        let log = self.a.json("log")?;
        Ok(log.as_array().into_iter().flatten().filter(|row| row["event"] == event).cloned().collect())
    }

    fn spis(&self) -> Result<BTreeSet<u64>> {
        let rows = self.a.json("sas")?;
        Ok(rows.as_array().into_iter().flatten().filter_map(|row| row["spi"].as_u64()).collect())
    }
}

#[test]
fn a_message_that_cannot_be_sent_is_told_once_until_one_is_sent_again() -> Result<()> {
    skip_unless!("ip", "ping");
    let pair = pair("ens")?;
    let peer = Side::B.outer(Family::V4);
    for times in 1..=2 {
        let retransmitted = pair.told("ike-retransmit")?.len();
        pair.world.gateway(Side::A).ip(&format!("route add unreachable {peer}/32"))?;
        pair.a.cli(&format!("rekey --child {NAME}"))?;
        wait_for("three retransmissions", Duration::from_secs(10), || {
            Ok(pair.told("ike-retransmit")?.len() >= retransmitted + 3)
        })?;
        pair.world.gateway(Side::A).ip(&format!("route del unreachable {peer}/32"))?;
        let told = pair.told("ike-not-sent")?;
        ensure!(told.len() == times && told.iter().all(|row| row["level"] == "warn"), "{told:#?}");
        wait_for("the rekey", Duration::from_secs(10), || Ok(pair.told("child-rekeyed")?.len() == times))
            .with_context(|| pair.a.logs())?;
        pair.ping()?;
    }
    Ok(())
}

#[test]
fn an_sa_that_the_data_plane_does_not_change_in_time_is_rekeyed() -> Result<()> {
    skip_unless!("ip", "ping");
    let pair = pair("snc")?;
    let before = pair.spis()?;
    // Other marks are a replacement of the SA, as other addresses are.
    let marked = Connection { our_child: "copy_ecn = \"off\"\n".to_owned(), ..pair.connection.clone() };
    pair.a.configure(&ours(&marked))?;
    std::thread::scope(|scope| -> Result<()> {
        let pause = scope.spawn(|| pair.a.pause_dataplane(Duration::from_millis(1_500)));
        sleep(Duration::from_millis(300))?;
        pair.a.reload()?;
        pause.join().map_err(|_| anyhow::anyhow!("the pause panicked"))?
    })?;
    let told = pair.told("sa-not-changed")?;
    ensure!(
        told.len() == 2 && told.iter().all(|row| row["level"] == "error"),
        "{told:#?}\n{}",
        pair.a.logs()
    );
    wait_for("new SAs alone", Duration::from_secs(20), || {
        let now = pair.spis()?;
        Ok(now.len() == 2 && now.is_disjoint(&before))
    })
    .with_context(|| pair.a.logs())?;
    pair.ping()?;
    let rows = pair.a.json("sas")?;
    let marked = |row: &Value| row["ecn"] == "off" && row["name"] == format!("{NAME}/{NAME}");
    ensure!(rows.as_array().into_iter().flatten().all(marked), "{rows}");
    pair.a.check_ledger()
}
