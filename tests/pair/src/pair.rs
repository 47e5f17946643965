//! The two ends, their network and their data planes.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pollux_abi::SaId;
use pollux_abi::command::Direction;
use pollux_abi::event::SaStats;
use pollux_ike::config::EndpointConfig;
use pollux_ike::crypto::{Provider, Rng};
use pollux_ike::endpoint::{Command, LiveSa, Output, Routes, SaCommand, SaInstall, Transmit};
use pollux_ike::event::{ChildUp, DownReason, Event};
use pollux_ike::message::NotifyType;
use pollux_ike::{Endpoint, IkeError, Instant};

use crate::configs::address;
use crate::null_crypto::NullCrypto;
use crate::random::Seeded;
use crate::spis::Counting;

/// What a data plane holds.
pub type Table = BTreeMap<SaId, Box<SaInstall>>;

/// What becomes of a datagram of one end on its way to the other: `None` drops it.
pub type Network<R> = fn(&mut Pair<R>, usize, Transmit) -> Option<Transmit>;

/// Both gateways.
pub struct Pair<R = Seeded> {
    /// The endpoints.
    pub ends: [Endpoint; 2],
    /// The time that both have.
    pub now: Instant,
    /// What each end told its operator.
    pub events: Vec<(usize, Event)>,
    /// Child SAs that each end told to be up.
    pub children_up: [u64; 2],
    /// What each data plane holds.
    pub tables: [Table; 2],
    /// Where randomness comes from.
    pub rng: R,
    /// What becomes of datagrams.
    pub network: Network<R>,
    /// Whether a data plane answers.
    pub data_plane: [bool; 2],
    /// Every datagram that an end has sent.
    pub sent: Vec<(usize, Transmit)>,
    /// What the data planes say of the age of the last packet.
    pub idle: Option<Duration>,
    configs: [Arc<EndpointConfig>; 2],
    provider: Arc<dyn Provider>,
    in_flight: VecDeque<(usize, Transmit)>,
    remembers: bool,
}

/// Datagrams that one thing may cause before all is quiet; a core that loops does not hang its test.
const DATAGRAMS_MAX: u32 = 1_000_000;

impl Pair {
    /// Gateways with these configurations and no real cryptography.
    pub fn new(a: EndpointConfig, b: EndpointConfig) -> Self {
        Self::with(a, b, Arc::new(NullCrypto::default()), Seeded::new(1), true)
    }

    /// Both ends take every message for authentic.
    pub fn gullible(a: EndpointConfig, b: EndpointConfig) -> Self {
        Self::with(a, b, Arc::new(NullCrypto::gullible()), Seeded::new(1), true)
    }
}

impl<R: Rng> Pair<R> {
    /// Gateways that use this provider and this randomness, and forget what they have sent, told and
    /// installed: all that grows is the endpoints.
    pub fn forgetful(a: EndpointConfig, b: EndpointConfig, provider: Arc<dyn Provider>, rng: R) -> Self {
        Self::with(a, b, provider, rng, false)
    }

    fn with(
        a: EndpointConfig,
        b: EndpointConfig,
        provider: Arc<dyn Provider>,
        rng: R,
        remembers: bool,
    ) -> Self {
        let configs = [Arc::new(a), Arc::new(b)];
        let end = |end: usize| {
            let allocator = Box::new(Counting::default());
            Endpoint::new(configs[end].clone(), provider.clone(), allocator, routes(end))
        };
        let mut pair = Self {
            ends: [end(0), end(1)],
            now: Instant::from_nanos(1_000_000_000),
            events: Vec::new(),
            children_up: [0; 2],
            tables: [Table::new(), Table::new()],
            rng,
            network: |_, _, transmit| Some(transmit),
            data_plane: [true; 2],
            sent: Vec::new(),
            idle: None,
            configs,
            provider,
            in_flight: VecDeque::new(),
            remembers,
        };
        for end in 0..2 {
            pair.command(end, Command::DataPlaneUp { live: Vec::new() });
        }
        pair
    }

    /// Gives one end a command.
    pub fn command(&mut self, end: usize, command: Command) {
        self.ends[end].handle_command(self.now, command, &mut self.rng);
        self.drain(end);
    }

    /// Lets one end bring up [the connection](crate::connection).
    pub fn initiate(&mut self, end: usize) {
        self.command(end, Command::Initiate { connection: "peer".into(), child: None });
    }

    /// Brings a datagram of the other end to `end`.
    pub fn deliver(&mut self, end: usize, transmit: &Transmit) {
        self.ends[end].handle_datagram(
            self.now,
            transmit.remote,
            transmit.local,
            &transmit.bytes,
            &mut self.rng,
        );
        self.drain(end);
    }

    fn drain(&mut self, end: usize) {
        while let Some(output) = self.ends[end].poll_output() {
            match output {
                Output::Transmit(transmit) => {
                    if self.remembers {
                        self.sent.push((end, transmit.clone()));
                    }
                    let network = self.network;
                    if let Some(transmit) = network(self, end, transmit) {
                        self.in_flight.push_back((1 - end, transmit));
                    }
                }
                Output::Event(event) => {
                    self.children_up[end] += u64::from(matches!(event, Event::ChildUp(_)));
                    if self.remembers {
                        self.events.push((end, event));
                    }
                }
                Output::Sa(SaCommand::Install(install)) => {
                    let sa = install.id;
                    if self.remembers {
                        self.tables[end].insert(sa, install);
                    }
                    if self.data_plane[end] {
                        self.ends[end].handle_command(self.now, Command::SaInstalled { sa }, &mut self.rng);
                    }
                }
                Output::Sa(SaCommand::Remove { id, .. }) => {
                    self.tables[end].remove(&id);
                }
                Output::Sa(SaCommand::Query { id }) => {
                    if let Some(idle) = self.idle {
                        let idle_ns = u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX);
                        let stats = SaStats { idle_ns, ..SaStats::default() };
                        let answer = Command::SaStats { sa: id, stats };
                        self.ends[end].handle_command(self.now, answer, &mut self.rng);
                    }
                }
                Output::Sa(SaCommand::Move { id, local, remote, encap }) => {
                    if let Some(sa) = self.tables[end].get_mut(&id) {
                        (sa.local, sa.remote, sa.encap) = (local, remote, encap);
                    }
                }
            }
        }
    }

    /// Delivers what is on its way, until all is quiet.
    ///
    /// # Panics
    /// If it never is.
    pub fn exchange(&mut self) {
        let mut delivered = 0;
        while let Some((end, transmit)) = self.in_flight.pop_front() {
            self.deliver(end, &transmit);
            delivered += 1;
            assert!(delivered < DATAGRAMS_MAX, "the ends never fall silent");
        }
    }

    /// Drops what is on its way.
    pub fn clear_network(&mut self) {
        self.in_flight.clear();
    }

    /// Lets so many milliseconds pass.
    ///
    /// # Panics
    /// If a deadline that was served comes back at once.
    pub fn run(&mut self, ms: u64) {
        let end_at = self.now + Duration::from_millis(ms);
        loop {
            self.exchange();
            let next = (0..2).filter_map(|end| Some((self.ends[end].next_deadline()?, end))).min();
            match next {
                Some((at, end)) if at <= end_at => {
                    self.now = at.max(self.now);
                    self.ends[end].handle_timeout(self.now, &mut self.rng);
                    assert!(
                        self.ends[end].next_deadline().is_none_or(|next| next > at),
                        "a deadline that was served comes back"
                    );
                    self.drain(end);
                }
                _ => break,
            }
        }
        self.now = end_at;
    }

    /// IKE SAs of one end, half-open ones included.
    ///
    /// # Panics
    /// If an index of the endpoint is wrong.
    pub fn state_len(&self, end: usize) -> usize {
        self.ends[end].audit().expect("the endpoint's indexes agree with its table")
    }

    /// Child SAs that carry traffic.
    pub fn children(&self, end: usize) -> Vec<ChildUp> {
        let status = self.ends[end].status(self.now);
        let children = status.iter().flat_map(|ike| &ike.children);
        children.filter(|child| child.state == "INSTALLED").map(|child| child.sa.clone()).collect()
    }

    /// Whether every outbound SA finds an inbound one with its keys at the other end.
    pub fn keys_match(&self) -> bool {
        [0, 1].into_iter().all(|end| {
            let outbound = self.tables[end].values().filter(|sa| sa.direction == Direction::Outbound);
            outbound.into_iter().all(|ours| {
                self.tables[1 - end].values().any(|theirs| {
                    theirs.direction == Direction::Inbound
                        && theirs.spi == ours.spi
                        && theirs.keys.as_bytes() == ours.keys.as_bytes()
                        && theirs.suite == ours.suite
                        && theirs.esn == ours.esn
                })
            })
        })
    }

    /// The control process of `end` begins anew and finds `live` in the data plane.
    pub fn restart(&mut self, end: usize, live: Vec<LiveSa>) {
        if live.is_empty() {
            self.tables[end].clear();
        }
        let allocator = Box::new(Counting::behind(1_000, 1_000));
        self.ends[end] =
            Endpoint::new(self.configs[end].clone(), self.provider.clone(), allocator, routes(end));
        self.command(end, Command::DataPlaneUp { live });
    }

    /// What a new control process finds.
    pub fn live(&self, end: usize) -> Vec<LiveSa> {
        let live = self.tables[end].values().map(|sa| LiveSa {
            id: sa.id,
            direction: sa.direction,
            spi: sa.spi,
            reqid: sa.reqid,
            local: sa.local,
            remote: sa.remote,
            encap: sa.encap,
            idle_ns: 1,
        });
        live.collect()
    }

    /// Whether `end` told that an IKE SA is gone for this reason.
    pub fn has_down(&self, end: usize, why: DownReason) -> bool {
        self.events.iter().any(|(at, event)| match event {
            Event::IkeDown { reason, .. } => *at == end && *reason == why,
            _ => false,
        })
    }

    /// Whether `end` told that the peer refused with this notify.
    pub fn refused_with(&self, end: usize, with: NotifyType) -> bool {
        self.events.iter().any(|(at, event)| match event {
            Event::Refused { error: IkeError::PeerRefused { notify, .. }, .. } => {
                *at == end && *notify == with
            }
            _ => false,
        })
    }
}

/// The routes of one end: there is one way, and it leaves with that end's address.
fn routes(end: usize) -> Box<dyn Routes + Send> {
    let source = address(if end == 0 { "a" } else { "b" });
    Box::new(move |remote: IpAddr| (remote.is_ipv4() == source.is_ipv4()).then_some(source))
}
