//! The run itself: one queue of what happens next.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use pollux_crypto::AwsLc;
use pollux_ike::Instant;
use pollux_ike::crypto::Provider;
use pollux_ike::endpoint::{Command, Output};
use pollux_ike::event::Event;
use pollux_pair::{NullCrypto, Seeded};

use crate::data_plane::{EspPacket, Faults, Opened};
use crate::deeds::Deed;
use crate::gateway::Gateway;
use crate::invariants::{Watch, converged};
use crate::network::{Arrival, Network, NetworkFaults, addresses};
use crate::scenario::{Cryptography, FaultProfile, Revision, Scenario, ScenarioParams};

/// What a run was like.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The profile of the seed.
    pub profile: FaultProfile,
    /// ESP packets that arrived.
    pub delivered: u64,
    /// ESP packets that found no SA.
    pub lost: u64,
    /// Rekeys of Child SAs, as both ends tell them.
    pub child_rekeys: u64,
    /// Rekeys of IKE SAs, as both ends tell them.
    pub ike_rekeys: u64,
    /// Things that happened.
    pub steps: u64,
}

/// One run from its first to its last moment. The error says which invariant broke, and when.
pub fn run(scenario: Scenario) -> Result<Outcome, String> {
    let null = Arc::new(NullCrypto::default());
    let provider: Arc<dyn Provider> = match scenario.cryptography {
        Cryptography::Null => null.clone(),
        Cryptography::Real => Arc::new(AwsLc),
    };
    let mut world = World::new(scenario, &provider);
    let result = world.play();
    if null.repeated_an_iv() {
        return Err(world.when("a (key, IV) pair has sealed two messages"));
    }
    result.map_err(|what| world.when(&what))?;
    Ok(Outcome {
        profile: world.params.profile,
        delivered: world.watch.delivered,
        lost: world.watch.lost,
        child_rekeys: world.watch.rekeys.0,
        ike_rekeys: world.watch.rekeys.1,
        steps: world.steps,
    })
}

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Happening {
    Arrive(Arrival),
    Answer { end: usize, life: u32, command: Command },
    Send { end: usize, child: usize },
    Esp { end: usize, child: usize, packet: EspPacket, source: SocketAddr },
    Do { end: usize, deed: Deed },
    Clear,
}

pub(crate) struct World {
    pub(crate) params: ScenarioParams,
    trace: bool,
    pub(crate) now: Instant,
    pub(crate) gateways: [Gateway; 2],
    pub(crate) network: Network,
    pub(crate) watch: Watch,
    queue: BTreeMap<(Instant, u64), Happening>,
    sequence: u64,
    steps: u64,
    pub(crate) rng: Seeded,
}

/// More happenings than this at one moment, or in one run, are a loop.
const STEPS_AT_ONCE_MAX: u32 = 20_000;
/// After the last fault: a dead IKE SA is found out, another one takes its place, and what was left over is gone.
const SETTLE: Duration = Duration::from_secs(150);
/// Then nothing at all may go wrong for so long, until both ends are compared: longer than an SA of an earlier life may
/// stay, and than several rekeys take.
const QUIET: Duration = Duration::from_mins(6);
/// Where nothing goes wrong, everything is up by then.
const UP: Duration = Duration::from_secs(5);

impl World {
    fn new(scenario: Scenario, provider: &Arc<dyn Provider>) -> Self {
        let mut rng = Seeded::new(scenario.seed);
        let params = ScenarioParams::new(&mut rng);
        let gateways = [0, 1].map(|end| {
            let address = addresses(params.v6)[end];
            Gateway::new(params.config(end, Revision::First), provider.clone(), address, &mut rng)
        });
        let network = Network::new(rng.part(), params.nat, params.v6);
        let now = Instant::from_nanos(1_000_000_000);
        let mut watch = Watch::new(params.profile, now + params.chaos + SETTLE);
        watch.excuses.cause(now + UP);
        let queue = BTreeMap::new();
        let trace = scenario.trace;
        Self { params, trace, now, gateways, network, watch, queue, sequence: 0, steps: 0, rng }
    }

    fn when(&self, what: &str) -> String {
        format!("at {} ({:?}): {what}", self.now, self.params)
    }

    pub(crate) fn tell(&self, text: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{} {}", self.now, text());
        }
    }

    pub(crate) fn at(&mut self, wait: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + wait, self.sequence), happening);
    }

    fn play(&mut self) -> Result<(), String> {
        for end in 0..2 {
            self.command(end, Command::DataPlaneUp { live: Vec::new() })?;
        }
        self.plan();
        let chaos = self.params.chaos;
        self.at(chaos, Happening::Clear);
        self.run_until(self.now + chaos + SETTLE + QUIET)?;
        // A rekey may be under way at this very moment: any quiet moment will do.
        let mut verdict = Err("never looked".to_owned());
        for _ in 0..400 {
            verdict = converged(&self.params, &self.gateways, self.now);
            if verdict.is_ok() {
                break;
            }
            self.run_until(self.now + Duration::from_millis(250))?;
        }
        verdict?;
        self.watch.rekeyed(&self.gateways, self.now)
    }

    /// Everything that will happen by itself.
    fn plan(&mut self) {
        for end in 0..2 {
            for child in 0..self.params.children {
                let wait = Duration::from_millis(self.rng.between(1, 900));
                self.at(wait, Happening::Send { end, child });
            }
        }
        let profile = self.params.profile;
        if profile != FaultProfile::Calm {
            self.network.faults = NetworkFaults {
                drop: self.rng.below(150),
                duplicate: self.rng.below(200),
                corrupt: self.rng.below(30),
                reflect: self.rng.below(30),
                straggle_ms: self.rng.below(900),
                cut: false,
            };
            for end in 0..2 {
                self.gateways[end].data_plane.faults = Faults {
                    refuse: self.rng.below(60),
                    late: self.rng.below(60),
                    lose_answer: self.rng.below(60),
                };
            }
        }
        let chaos = u64::try_from(self.params.chaos.as_millis()).unwrap_or(0);
        for _ in 0..self.rng.between(2, 24) {
            let at = Duration::from_millis(self.rng.between(2_000, chaos));
            let deed = self.deed();
            let end = usize::try_from(self.rng.below(2)).unwrap_or(0);
            self.at(at, Happening::Do { end, deed });
            // Half of them at both ends at once, or within a round trip.
            if self.rng.per_mille(500) {
                let apart =
                    Duration::from_millis(self.rng.below(60)).min(self.params.chaos.saturating_sub(at));
                let other = if self.rng.per_mille(700) { deed } else { self.deed() };
                self.at(at + apart, Happening::Do { end: 1 - end, deed: other });
            }
        }
    }

    fn run_until(&mut self, end_at: Instant) -> Result<(), String> {
        let (mut moment, mut at_once) = (self.now, 0);
        loop {
            let deadline = (0..2).filter_map(|end| Some((self.gateways[end].deadline()?, end))).min();
            let happening = self.queue.first_key_value().map(|(&(at, _), _)| at);
            let next = match (deadline, happening) {
                (Some((at, end)), Some(other)) if at < other => (at, Some(end)),
                (_, Some(at)) => (at, None),
                (Some((at, end)), None) => (at, Some(end)),
                (None, None) => break,
            };
            if next.0 > end_at {
                break;
            }
            self.now = next.0.max(self.now);
            at_once = if self.now == moment { at_once + 1 } else { 0 };
            moment = self.now;
            if at_once > STEPS_AT_ONCE_MAX {
                return Err("time stands still".to_owned());
            }
            self.steps += 1;
            match next.1 {
                Some(end) => {
                    let gateway = &mut self.gateways[end];
                    gateway.endpoint.handle_timeout(self.now, &mut gateway.rng);
                    self.drain(end)?;
                }
                None => {
                    if let Some((_, happening)) = self.queue.pop_first() {
                        self.happen(happening)?;
                    }
                }
            }
        }
        self.now = end_at;
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Arrive(Arrival { at, local, remote, bytes, genuine }) => {
                if genuine {
                    self.watch.arrived(at, &self.gateways[at], &bytes, self.now);
                }
                let gateway = &mut self.gateways[at];
                gateway.endpoint.handle_datagram(self.now, local, remote, &bytes, &mut gateway.rng);
                self.drain(at)
            }
            Happening::Answer { end, life, command } => {
                if self.gateways[end].life == life {
                    self.command(end, command)
                } else {
                    Ok(())
                }
            }
            Happening::Send { end, child } => self.send(end, child),
            Happening::Esp { end, child, packet, source } => self.esp_arrives(end, child, &packet, source),
            Happening::Do { end, deed } => {
                self.tell(|| format!("[{end}] {deed:?}"));
                self.act(end, deed)
            }
            Happening::Clear => self.clear(),
        }
    }

    /// The chaos is over.
    fn clear(&mut self) -> Result<(), String> {
        self.tell(|| "all clear".to_owned());
        self.network.faults = NetworkFaults::default();
        for end in 0..2 {
            self.gateways[end].data_plane.faults = Faults::default();
            if !self.gateways[end].data_plane.up {
                self.act(end, Deed::DataPlaneReturns)?;
            }
            if self.gateways[end].revision != Revision::First {
                self.act(end, Deed::Reload(Revision::First))?;
            }
        }
        // What the last deeds have begun ends first.
        self.at(Duration::from_secs(20), Happening::Do { end: 0, deed: Deed::Initiate });
        Ok(())
    }

    /// A packet of the protected traffic.
    fn send(&mut self, end: usize, child: usize) -> Result<(), String> {
        let wait = Duration::from_millis(self.rng.between(200, 900));
        self.at(wait, Happening::Send { end, child });
        let Some(packet) = self.gateways[end].data_plane.seal(ScenarioParams::packet(end, child)) else {
            return self.lost(1 - end, child);
        };
        let delay = self.network.delay();
        if self.network.faults.cut {
            return Ok(());
        }
        match self.network.translate(end, packet.outer.0, packet.outer.1) {
            Some((_, source)) => self.at(delay, Happening::Esp { end: 1 - end, child, packet, source }),
            None => return self.lost(1 - end, child),
        }
        Ok(())
    }

    fn esp_arrives(
        &mut self,
        end: usize,
        child: usize,
        packet: &EspPacket,
        source: SocketAddr,
    ) -> Result<(), String> {
        match self.gateways[end].data_plane.open(self.now, packet, source) {
            Opened::Yes { sa, first, moved } => {
                self.watch.packet(self.now, end, child, true)?;
                if first {
                    self.command(end, Command::FirstPacket { sa })?;
                }
                if moved {
                    self.command(end, Command::PeerMoved { sa, remote: source })?;
                }
                Ok(())
            }
            Opened::No => {
                self.tell(|| format!("[{end}] ESP {} finds no SA", packet.spi));
                self.lost(end, child)
            }
        }
    }

    /// A packet to `end` found no SA. After a reload one of the gateways may not even have the child.
    fn lost(&mut self, end: usize, child: usize) -> Result<(), String> {
        let configured = self.gateways.iter().all(|gateway| gateway.children().nth(child).is_some());
        if configured { self.watch.packet(self.now, end, child, false) } else { Ok(()) }
    }

    pub(crate) fn command(&mut self, end: usize, command: Command) -> Result<(), String> {
        self.tell(|| format!("[{end}] command {command:?}"));
        let gateway = &mut self.gateways[end];
        gateway.endpoint.handle_command(self.now, command, &mut gateway.rng);
        self.drain(end)
    }

    pub(crate) fn drain(&mut self, end: usize) -> Result<(), String> {
        while let Some(output) = self.gateways[end].endpoint.poll_output() {
            match output {
                Output::Transmit(transmit) if transmit.keepalive => {}
                Output::Transmit(transmit) => {
                    let life = self.gateways[end].life;
                    self.watch.sent((end, life), &transmit.bytes)?;
                    self.tell(|| format!("[{end}] {}", describe(&transmit.bytes)));
                    let carried = self.network.carry(end, transmit.local, transmit.remote, &transmit.bytes);
                    for (delay, arrival) in carried {
                        self.at(delay, Happening::Arrive(arrival));
                    }
                }
                Output::Sa(command) => {
                    self.tell(|| format!("[{end}] {command:?}"));
                    let life = self.gateways[end].life;
                    if let Some((wait, command)) = self.gateways[end].data_plane.command(self.now, command)? {
                        self.at(wait, Happening::Answer { end, life, command });
                    }
                }
                Output::Event(event) => {
                    self.tell(|| format!("[{end}] {event:?}"));
                    self.watch.event(end, &event, self.now)?;
                    if let Event::ChildUp(child) = &event
                        && child.encap != self.params.in_udp()
                    {
                        return Err(format!("ESP in UDP: {}, where no or another NAT is", child.encap));
                    }
                }
            }
        }
        self.watch.look(end, &self.gateways[end], self.now)
    }
}

fn describe(bytes: &[u8]) -> String {
    match pollux_ike::message::Header::parse(bytes) {
        Ok(header) => format!(
            "sends {} {} {} of {}/{}, {} octets",
            header.exchange,
            if header.flags.response { "response" } else { "request" },
            header.id,
            header.spi_i,
            header.spi_r,
            bytes.len()
        ),
        Err(error) => error.to_string(),
    }
}
