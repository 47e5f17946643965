//! The run itself: one queue of what happens next.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use pollux_abi::{Reqid, SaId};
use pollux_crypto::AwsLc;
use pollux_ike::Instant;
use pollux_ike::crypto::Provider;
use pollux_ike::endpoint::{Command, Output, Target};
use pollux_ike::event::Event;
use pollux_pair::{NullCrypto, Seeded};

use crate::data_plane::{EspPacket, Faults, Opened};
use crate::gateway::Gateway;
use crate::invariants::{Watch, bounded, converged};
use crate::network::{Arrival, Network, NetworkFaults, addresses};
use crate::scenario::{Cryptography, FaultProfile, Scenario, ScenarioParams};

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
enum Happening {
    Arrive(Arrival),
    Answer { end: usize, life: u32, command: Command },
    Send { end: usize, reqid: Reqid },
    Esp { end: usize, reqid: Reqid, packet: EspPacket },
    Do { end: usize, deed: Deed },
    Clear,
}

/// What an operator, a power cut or a stranger does.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Initiate,
    RekeyChild,
    RekeyIke,
    TerminateChild,
    TerminateIke,
    RestartControl,
    RestartAll,
    DataPlaneDies,
    DataPlaneReturns,
    Cut,
    Repair,
    Noise,
}

struct World {
    params: ScenarioParams,
    trace: bool,
    now: Instant,
    gateways: [Gateway; 2],
    network: Network,
    watch: Watch,
    queue: BTreeMap<(Instant, u64), Happening>,
    sequence: u64,
    steps: u64,
    rng: Seeded,
}

/// More happenings than this at one moment, or in one run, are a loop.
const STEPS_AT_ONCE_MAX: u32 = 20_000;
/// How long all is calm before both ends are compared: longer than a dead IKE SA takes to be found out, and
/// than an SA of an earlier life may stay.
const CALM: Duration = Duration::from_mins(7);

impl World {
    fn new(scenario: Scenario, provider: &Arc<dyn Provider>) -> Self {
        let mut rng = Seeded::new(scenario.seed);
        let params = ScenarioParams::new(&mut rng);
        let gateways = [0, 1].map(|end| {
            let address = addresses(params.v6)[end];
            Gateway::new(params.config(end), provider.clone(), address, &mut rng)
        });
        let network = Network::new(rng.part(), params.nat, params.v6);
        let now = Instant::from_nanos(1_000_000_000);
        let (queue, watch) = (BTreeMap::new(), Watch::default());
        let trace = scenario.trace;
        Self { params, trace, now, gateways, network, watch, queue, sequence: 0, steps: 0, rng }
    }

    fn when(&self, what: &str) -> String {
        format!("at {} ({:?}): {what}", self.now, self.params)
    }

    fn tell(&self, text: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{} {}", self.now, text());
        }
    }

    fn at(&mut self, wait: Duration, happening: Happening) {
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
        self.run_until(self.now + chaos + CALM)?;
        // A rekey may be under way at this very moment: any quiet moment will do.
        let mut verdict = Err("never looked".to_owned());
        for _ in 0..400 {
            verdict = converged(&self.gateways, self.now);
            if verdict.is_ok() {
                break;
            }
            self.run_until(self.now + Duration::from_millis(250))?;
        }
        verdict
    }

    /// Everything that will happen by itself.
    fn plan(&mut self) {
        for end in 0..2 {
            for reqid in self.gateways[end].reqids() {
                let wait = Duration::from_millis(self.rng.between(1, 900));
                self.at(wait, Happening::Send { end, reqid });
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

    fn deed(&mut self) -> Deed {
        if self.params.profile != FaultProfile::Chaos {
            return if self.rng.per_mille(700) { Deed::RekeyChild } else { Deed::RekeyIke };
        }
        match self.rng.below(16) {
            0 | 1 => Deed::Initiate,
            2..=5 => Deed::RekeyChild,
            6 | 7 => Deed::RekeyIke,
            8 => Deed::TerminateChild,
            9 => Deed::TerminateIke,
            10 => Deed::RestartControl,
            11 => Deed::RestartAll,
            12 => Deed::DataPlaneDies,
            13 | 14 => Deed::Cut,
            _ => Deed::Noise,
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
            Happening::Arrive(Arrival { at, local, remote, bytes }) => {
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
            Happening::Send { end, reqid } => self.send(end, reqid),
            Happening::Esp { end, reqid, packet } => self.esp_arrives(end, reqid, &packet),
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
        }
        // What the last deeds have begun ends first.
        self.at(Duration::from_secs(20), Happening::Do { end: 0, deed: Deed::Initiate });
        Ok(())
    }

    /// A packet of the protected traffic.
    fn send(&mut self, end: usize, reqid: Reqid) -> Result<(), String> {
        let wait = Duration::from_millis(self.rng.between(200, 900));
        self.at(wait, Happening::Send { end, reqid });
        match self.gateways[end].data_plane.seal(reqid) {
            Some(packet) => {
                let delay = self.network.delay();
                if !self.network.faults.cut {
                    self.at(delay, Happening::Esp { end: 1 - end, reqid, packet });
                }
                Ok(())
            }
            None => self.watch.packet(self.params.profile, reqid.0, false),
        }
    }

    fn esp_arrives(&mut self, end: usize, reqid: Reqid, packet: &EspPacket) -> Result<(), String> {
        match self.gateways[end].data_plane.open(self.now, packet) {
            Opened::Yes(first) => {
                self.watch.packet(self.params.profile, reqid.0, true)?;
                first.map_or(Ok(()), |sa: SaId| self.command(end, Command::FirstPacket { sa }))
            }
            Opened::No => {
                self.tell(|| format!("[{end}] ESP {} finds no SA", packet.spi));
                self.watch.packet(self.params.profile, reqid.0, false)
            }
        }
    }

    fn command(&mut self, end: usize, command: Command) -> Result<(), String> {
        self.tell(|| format!("[{end}] command {command:?}"));
        let gateway = &mut self.gateways[end];
        gateway.endpoint.handle_command(self.now, command, &mut gateway.rng);
        self.drain(end)
    }

    fn drain(&mut self, end: usize) -> Result<(), String> {
        while let Some(output) = self.gateways[end].endpoint.poll_output() {
            match output {
                Output::Transmit(transmit) if transmit.keepalive => {}
                Output::Transmit(transmit) => {
                    let life = self.gateways[end].life;
                    self.watch.sent(end, life, &transmit.bytes)?;
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
                    self.watch.event(&event);
                    if let Event::ChildUp(child) = &event {
                        if child.encap != self.params.in_udp() {
                            return Err(format!("ESP in UDP: {}, where no or another NAT is", child.encap));
                        }
                        // Up at the responder first, at the initiator last: then both can send.
                        if end == 0 {
                            self.watch.up.insert(child.reqid.0);
                        }
                    }
                }
            }
        }
        bounded(&self.gateways[end], self.now)
    }

    fn act(&mut self, end: usize, deed: Deed) -> Result<(), String> {
        let connection = || "peer".into();
        match deed {
            Deed::Initiate => {
                // Behind a NAT only gateway 0 can begin.
                let end = if self.params.nat { 0 } else { end };
                self.command(end, Command::Initiate { connection: connection(), child: None })
            }
            Deed::RekeyChild => {
                let target = Target::Connection { connection: connection(), child: Some("net".into()) };
                self.command(end, Command::Rekey(target))
            }
            Deed::RekeyIke => self
                .command(end, Command::Rekey(Target::Connection { connection: connection(), child: None })),
            Deed::TerminateChild => {
                let target = Target::Connection { connection: connection(), child: Some("net".into()) };
                self.command(end, Command::Terminate(target))
            }
            Deed::TerminateIke => {
                let target = Target::Connection { connection: connection(), child: None };
                self.command(end, Command::Terminate(target))
            }
            Deed::RestartControl | Deed::RestartAll => self.restart(end, matches!(deed, Deed::RestartAll)),
            Deed::DataPlaneDies => {
                self.gateways[end].data_plane.die();
                let wait = Duration::from_millis(self.rng.between(10, 20_000));
                self.at(wait, Happening::Do { end, deed: Deed::DataPlaneReturns });
                self.command(end, Command::DataPlaneDown)
            }
            Deed::DataPlaneReturns => {
                if self.gateways[end].data_plane.up {
                    return Ok(());
                }
                self.gateways[end].data_plane.up = true;
                self.command(end, Command::DataPlaneUp { live: Vec::new() })
            }
            Deed::Cut => {
                self.network.faults.cut = true;
                let wait = Duration::from_millis(self.rng.between(500, 60_000));
                self.at(wait, Happening::Do { end, deed: Deed::Repair });
                Ok(())
            }
            Deed::Repair => {
                self.network.faults.cut = false;
                Ok(())
            }
            Deed::Noise => self.noise(end),
        }
    }

    fn restart(&mut self, end: usize, all: bool) -> Result<(), String> {
        let gateway = &mut self.gateways[end];
        if all {
            gateway.data_plane.die();
            gateway.data_plane.up = true;
        }
        gateway.restart_control();
        if !gateway.data_plane.up {
            return Ok(());
        }
        let live = gateway.data_plane.live(self.now);
        self.command(end, Command::DataPlaneUp { live })
    }

    /// A stranger sends octets that are nothing at all.
    fn noise(&mut self, end: usize) -> Result<(), String> {
        let ports = [500, 4500];
        for _ in 0..20 {
            let len = usize::try_from(self.rng.below(200)).unwrap_or(0);
            let mut bytes = vec![0; len];
            pollux_ike::crypto::Rng::fill(&mut self.rng, &mut bytes);
            let port = ports[usize::try_from(self.rng.below(2)).unwrap_or(0)];
            let local = core::net::SocketAddr::new(addresses(self.params.v6)[end], port);
            let remote = core::net::SocketAddr::new([192, 0, 2, 66].into(), 4500);
            let gateway = &mut self.gateways[end];
            gateway.endpoint.handle_datagram(self.now, local, remote, &bytes, &mut gateway.rng);
            self.drain(end)?;
        }
        Ok(())
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
