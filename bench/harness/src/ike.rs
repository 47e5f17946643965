//! Two IKE endpoints in memory: no sockets, no data plane but one that says yes at once.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_abi::{SaId, SaIndex, Spi, TrafficSelector};
use pollux_crypto::{AwsLc, OsRng};
use pollux_ike::config::{
    Action, AddressRange, ChildConfig, Connection, EndpointConfig, Limits, Ports, PreSharedKey, Retransmit,
    SelectorConfig, Unique,
};
use pollux_ike::endpoint::{Command, Output, SaAllocator, SaCommand, Transmit};
use pollux_ike::negotiate::Proposal;
use pollux_ike::{Endpoint, Event, Identity, IdentityPattern, Instant};
use zeroize::Zeroizing;

const INITIATOR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const RESPONDER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// Outputs that one set-up may cause on both ends; a core that loops does not hang the benchmark.
const OUTPUTS_MAX: usize = 200;

/// A gateway with many connections and a gateway that takes whoever has the key.
pub struct Pair {
    ends: [Endpoint; 2],
    rng: OsRng,
    now: Instant,
}

impl Pair {
    /// Gateways for so many clients, which negotiate the first proposal of this swanctl string.
    pub fn new(clients: u32, ike_proposal: &str) -> Result<Self> {
        let ike = vec![Proposal::parse_ike(ike_proposal)?];
        let esp = vec![Proposal::parse_esp("aes256gcm16")?];
        let initiating =
            (0..clients).map(|client| of_client(client, &ike, &esp)).collect::<Result<Vec<_>>>()?;
        let end = |connections| {
            Endpoint::new(Arc::new(config(connections)), Arc::new(AwsLc), Box::new(Table::default()))
        };
        let ends = [end(initiating), end(vec![Arc::new(of_responder(&ike, &esp)?)])];
        let mut pair = Self { ends, rng: OsRng::new(), now: Instant::from_nanos(1_000_000_000) };
        for end in 0..2 {
            pair.ends[end].handle_command(pair.now, Command::DataPlaneUp { live: Vec::new() }, &mut pair.rng);
        }
        Ok(pair)
    }

    /// One IKE SA and its Child SA, up on both ends.
    pub fn set_up(&mut self, client: u32) -> Result<()> {
        self.now = self.now + Duration::from_millis(10);
        let connection = name(client).into();
        let command = Command::Initiate { connection, child: None };
        self.ends[0].handle_command(self.now, command, &mut self.rng);
        let mut up = [0; 2];
        let mut wire = VecDeque::new();
        for _ in 0..OUTPUTS_MAX {
            let Some((end, output)) = self.output() else {
                let Some((to, datagram)) = wire.pop_front() else { break };
                self.deliver(to, &datagram);
                continue;
            };
            match output {
                Output::Transmit(datagram) => wire.push_back((1 - end, datagram)),
                Output::Sa(SaCommand::Install(sa)) => {
                    let command = Command::SaInstalled { sa: sa.id };
                    self.ends[end].handle_command(self.now, command, &mut self.rng);
                }
                Output::Event(Event::ChildUp(_)) => up[end] += 1,
                Output::Sa(_) | Output::Event(_) => {}
            }
        }
        ensure!(up == [1, 1], "client {client}: Child SAs up on the two ends: {up:?}");
        Ok(())
    }

    fn output(&mut self) -> Option<(usize, Output)> {
        (0..2).find_map(|end| self.ends[end].poll_output().map(|output| (end, output)))
    }

    fn deliver(&mut self, to: usize, datagram: &Transmit) {
        let (local, remote): (SocketAddr, SocketAddr) = (datagram.remote, datagram.local);
        self.ends[to].handle_datagram(self.now, local, remote, &datagram.bytes, &mut self.rng);
    }
}

/// Inbound SPIs and SA names, one after the other.
#[derive(Default)]
struct Table {
    index: u32,
    id: u64,
}

impl SaAllocator for Table {
    fn inbound_spi(&mut self, random: u32) -> Option<Spi> {
        self.index += 1;
        Spi::with_index(SaIndex(self.index), pollux_abi::layout::SPI_INDEX_WIDTH_MAX, random)
    }

    fn release(&mut self, _: Spi) {}

    fn sa_id(&mut self) -> SaId {
        self.id += 1;
        SaId(self.id)
    }
}

fn name(client: u32) -> String {
    format!("c{client}.test")
}

fn config(connections: Vec<Arc<Connection>>) -> EndpointConfig {
    EndpointConfig {
        connections,
        secrets: vec![PreSharedKey {
            owners: Vec::new(),
            key: Arc::new(Zeroizing::new(b"load-psk".to_vec())),
        }],
        limits: Limits::default(),
        retransmit: Retransmit::default(),
        nat_keepalive: Duration::from_secs(20),
        ports: Ports::default(),
        log_keys: false,
    }
}

fn of_client(client: u32, ike: &[Proposal], esp: &[Proposal]) -> Result<Arc<Connection>> {
    let inner = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + client);
    let child = child(TrafficSelector::host(inner.into()), TrafficSelector::host(RESPONDER), esp);
    Ok(Arc::new(Connection {
        name: name(client).into(),
        local_id: Some(Identity::parse(&name(client)).context("an identity")?),
        remote_addrs: vec![AddressRange::host(RESPONDER)],
        ..connection(INITIATOR, "gw.test", ike, child)?
    }))
}

fn of_responder(ike: &[Proposal], esp: &[Proposal]) -> Result<Connection> {
    let child = child(TrafficSelector::host(RESPONDER), TrafficSelector::any_v4(), esp);
    let local_id = Some(Identity::parse("gw.test").context("an identity")?);
    Ok(Connection { local_id, ..connection(RESPONDER, "%any", ike, child)? })
}

fn connection(local: IpAddr, remote_id: &str, ike: &[Proposal], child: ChildConfig) -> Result<Connection> {
    Ok(Connection {
        name: "load".into(),
        local_addrs: vec![AddressRange::host(local)],
        remote_addrs: Vec::new(),
        local_id: None,
        remote_id: IdentityPattern::parse(remote_id).context("a pattern")?,
        proposals: ike.to_vec(),
        encap: false,
        dpd_delay: Duration::ZERO,
        rekey_time: Duration::from_hours(4),
        over_time: Duration::from_mins(24),
        rand_time: Duration::from_mins(24),
        keyingtries: 1,
        unique: Unique::Never,
        children: vec![Arc::new(child)],
    })
}

fn child(local: TrafficSelector, remote: TrafficSelector, esp: &[Proposal]) -> ChildConfig {
    ChildConfig {
        name: "load".into(),
        local_ts: vec![SelectorConfig::Fixed(local)],
        remote_ts: vec![SelectorConfig::Fixed(remote)],
        proposals: esp.to_vec(),
        reqid: None,
        rekey_time: Duration::from_hours(1),
        life_time: Duration::from_mins(66),
        rand_time: Duration::from_mins(6),
        rekey_bytes: 0,
        life_bytes: 0,
        rand_bytes: 0,
        rekey_packets: 0,
        life_packets: 0,
        rand_packets: 0,
        overlap: Duration::from_secs(5),
        start_action: Action::None,
        close_action: Action::None,
        dpd_action: Action::None,
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
