//! Two IKE endpoints in memory: no sockets, no data plane but one that says yes at once.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_abi::TrafficSelector;
use pollux_crypto::{AwsLc, OsRng};
use pollux_ike::config::{AddressRange, ChildConfig, Connection, EndpointConfig, SelectorConfig, Unique};
use pollux_ike::endpoint::Command;
use pollux_ike::negotiate::Proposal;
use pollux_ike::{Identity, IdentityPattern};

/// A gateway with many connections and a gateway that takes whoever has the key.
pub struct Pair(pollux_pair::Pair<OsRng>);

impl Pair {
    /// Gateways for so many clients, which negotiate the first proposal of this swanctl string.
    pub fn new(clients: u32, ike_proposal: &str) -> Result<Self> {
        let ike = vec![Proposal::parse_ike(ike_proposal)?];
        let esp = vec![Proposal::parse_esp("aes256gcm16")?];
        let initiating =
            (0..clients).map(|client| of_client(client, &ike, &esp)).collect::<Result<Vec<_>>>()?;
        let responding = vec![Arc::new(of_responder(&ike, &esp)?)];
        let [a, b] = [initiating, responding].map(config);
        Ok(Self(pollux_pair::Pair::forgetful(a, b, Arc::new(AwsLc), OsRng::new())))
    }

    /// One IKE SA and its Child SA, up on both ends.
    pub fn set_up(&mut self, client: u32) -> Result<()> {
        let pair = &mut self.0;
        let before = pair.children_up;
        pair.now = pair.now + Duration::from_millis(10);
        pair.command(0, Command::Initiate { connection: name(client).into(), child: None });
        pair.exchange();
        let up = [0, 1].map(|end| pair.children_up[end] - before[end]);
        ensure!(up == [1, 1], "client {client}: Child SAs up on the two ends: {up:?}");
        Ok(())
    }
}

fn name(client: u32) -> String {
    format!("c{client}.test")
}

fn config(connections: Vec<Arc<Connection>>) -> EndpointConfig {
    let secrets = vec![pollux_pair::shared_key(b"load-psk")];
    EndpointConfig { connections, secrets, ..pollux_pair::config("a") }
}

fn of_client(client: u32, ike: &[Proposal], esp: &[Proposal]) -> Result<Arc<Connection>> {
    let inner = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + client);
    let child = child(TrafficSelector::host(inner.into()), TrafficSelector::host(responder()), esp);
    Ok(Arc::new(Connection {
        name: name(client).into(),
        local_id: Some(Identity::parse(&name(client)).context("an identity")?),
        remote_addrs: vec![AddressRange::host(responder())],
        ..connection("a", "gw.test", ike, child)?
    }))
}

fn of_responder(ike: &[Proposal], esp: &[Proposal]) -> Result<Connection> {
    let child = child(TrafficSelector::host(responder()), TrafficSelector::any_v4(), esp);
    let local_id = Some(Identity::parse("gw.test").context("an identity")?);
    Ok(Connection { local_id, ..connection("b", "%any", ike, child)? })
}

/// The address of the gateway that everybody comes to.
fn responder() -> IpAddr {
    pollux_pair::address("b")
}

fn connection(end: &str, remote_id: &str, ike: &[Proposal], child: ChildConfig) -> Result<Connection> {
    Ok(Connection {
        name: "load".into(),
        remote_addrs: Vec::new(),
        local_id: None,
        remote_id: IdentityPattern::parse(remote_id).context("a pattern")?,
        proposals: ike.to_vec(),
        dpd_delay: Duration::ZERO,
        unique: Unique::Never,
        children: vec![Arc::new(child)],
        ..pollux_pair::connection(end)
    })
}

fn child(local: TrafficSelector, remote: TrafficSelector, esp: &[Proposal]) -> ChildConfig {
    ChildConfig {
        name: "load".into(),
        local_ts: vec![SelectorConfig::Fixed(local)],
        remote_ts: vec![SelectorConfig::Fixed(remote)],
        proposals: esp.to_vec(),
        reqid: None,
        ..pollux_pair::child("a")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_come_up_one_after_the_other() {
        let mut pair = Pair::new(3, "aes256gcm16-prfsha384-x25519").expect("a configuration");
        for client in 0..3 {
            pair.set_up(client).expect("up on both ends");
        }
    }
}
