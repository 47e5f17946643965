//! A run: steps of drawn events, with the packets of each step judged by the oracle.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pollux_pair::Seeded;

use super::cells::Cells;
use super::event::Event;
use super::packet::{Packet, Sender};
use super::policy::{Policies, Verdict};
use super::stage::{Left, Stage};
use crate::gateway::{Config, Gateway};
use crate::wait::sleep;
use crate::world::Side;

/// Packets of one sender in a batch.
const PACKETS: u64 = 12;

/// How often packets that no policy protects are compared with the twin's before they differ for good.
const ATTEMPTS: u32 = 3;

/// How often a batch goes out while an event happens.
const ROUNDS: u32 = 4;

/// A gateway, its twin without one, and what is known about both.
#[derive(Debug)]
pub struct Run {
    gateway: Gateway,
    ours: Stage,
    twin: Stage,
    chance: Seeded,
    /// The lists that may be in force: two while a reload is under way, none when the gateway is down.
    in_force: Vec<Policies>,
    /// Whether what is in force can be anything for now, between a `down` that was cut off and the next start.
    unknown: bool,
    has_dataplane: bool,
    has_control: bool,
    turns: BTreeMap<&'static str, u64>,
    /// Every packet that must never leave in clear, with what was in force when it was sent.
    closed: BTreeMap<String, String>,
    packets: u64,
    /// What was covered.
    pub cells: Cells,
    /// ESP packets outside.
    pub esp: u64,
    /// Packets of no protected pair that left as from the twin.
    pub open: u64,
}

impl Run {
    /// Both worlds, and a gateway with drawn policies.
    ///
    /// # Errors
    /// If they can't be made.
    pub fn new(seed: u64) -> Result<Self> {
        let mut chance = Seeded::new(seed);
        let (ours, twin) = (Stage::new("drw")?, Stage::new("twn")?);
        let (policies, gateway) = loop {
            let policies = Policies::draw(&mut chance);
            match Gateway::start(&ours.world, Side::A, &config(&policies)?) {
                Ok(gateway) => break (policies, gateway),
                // Some of what can be drawn is a mistake of the file; `check` has said so.
                Err(error) if format!("{error:#}").contains("mistake") => {}
                Err(error) => return Err(error),
            }
        };
        Ok(Self {
            gateway,
            ours,
            twin,
            chance,
            in_force: vec![policies],
            unknown: false,
            has_dataplane: true,
            has_control: true,
            turns: BTreeMap::new(),
            closed: BTreeMap::new(),
            packets: 0,
            cells: Cells::default(),
            esp: 0,
            open: 0,
        })
    }

    /// Draws an event, and sends while it happens and afterwards.
    ///
    /// # Errors
    /// If something leaks, or something else is not as the kernel alone would have it.
    pub fn step(&mut self) -> Result<()> {
        let event = Event::draw(&mut self.chance);
        let turn = self.turns.entry(event.name()).or_default();
        *turn += 1;
        let turn = *turn;
        println!(
            "{} (turn {turn}), data plane {}, control {}",
            event.name(),
            if self.has_dataplane { "runs" } else { "is dead" },
            if self.has_control { "runs" } else { "is dead" }
        );
        self.happen(event, turn).with_context(|| {
            format!(
                "{} (turn {turn}), in force: {}\n{}",
                event.name(),
                self.in_force.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
                self.gateway.logs()
            )
        })
    }

    fn happen(&mut self, event: Event, turn: u64) -> Result<()> {
        match event {
            Event::Reload => self.reload(event),
            Event::DataPlane => self.while_sending(event, |run| {
                run.has_dataplane = !run.has_dataplane;
                if run.has_dataplane { run.gateway.start_dataplane() } else { run.gateway.kill_dataplane() }
            }),
            Event::Control => self.while_sending(event, |run| {
                run.has_control = !run.has_control;
                if run.has_control { run.gateway.start_control() } else { run.gateway.kill_control() }
            }),
            Event::DownAndUp => self.down_and_up(event),
            Event::DownHalfWay => self.down_half_way(event),
            _ => self.while_sending(event, |run| run.disturb(event, turn)),
        }?;
        self.after(event)
    }

    /// What happens to the kernel, in both worlds.
    fn disturb(&mut self, event: Event, turn: u64) -> Result<()> {
        if let Some(script) = event.sabotage(turn) {
            self.ours.world.gateway_a.script(script)?;
        }
        for stage in [&mut self.ours, &mut self.twin] {
            if let Some(script) = event.script(turn, stage.world.callee.name()) {
                stage.world.gateway_a.script(&script)?;
                if matches!(event, Event::Link | Event::Move) {
                    let on_second = self.turns.get(Event::Uplink.name()).is_some_and(|turn| turn % 2 == 1);
                    stage.settle(on_second)?;
                }
            }
        }
        Ok(())
    }

    /// Runs an action while a batch is under way, of which nothing closed may leave.
    fn while_sending(&mut self, event: Event, action: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let packets = self.draw_packets();
        self.note(&packets, event);
        let sending = self.ours.send(&packets, ROUNDS)?;
        sleep(Duration::from_millis(30))?;
        let done = action(self);
        Stage::sent(sending)?;
        done?;
        let left = self.ours.left_until(|_| true)?;
        self.check_closed(left).map(drop)
    }

    /// Sends a batch when the event is over, in both worlds.
    fn after(&mut self, event: Event) -> Result<()> {
        let mut packets = self.draw_packets();
        self.note(&packets, event);
        // A neighbour that is just being asked for, or a link that has just come up, decides otherwise a moment later;
        // what the gateway decides stays.
        for attempt in 1.. {
            let (differing, said) = self.compare(&packets)?;
            if differing.is_empty() {
                break;
            }
            ensure!(attempt < ATTEMPTS, "{said}");
            sleep(Duration::from_secs(1))?;
            packets = differing;
            for packet in &mut packets {
                packet.id = self.next_id();
            }
        }
        Ok(())
    }

    /// Sends packets in both worlds; those that no policy protects and that leave one of them alone, and what there is
    /// to say of them.
    fn compare(&mut self, packets: &[Packet]) -> Result<(Vec<Packet>, String)> {
        let sending = [self.ours.send(packets, 1)?, self.twin.send(packets, 1)?];
        let [refused, refused_by_twin] = sending.map(Stage::sent);
        let (refused, refused_by_twin) = (refused?, refused_by_twin?);
        let nat = self.turns.get(Event::Nat.name()).is_some_and(|&turn| Event::masquerades(turn));
        // Source NAT drops what it finds no unique tuple for, which depends on all that was sent before.
        let compared = |packet: &&Packet| self.verdict(packet) == Verdict::Open && !nat;
        let open: Vec<&Packet> = packets.iter().filter(compared).collect();
        let alone = self.twin.left_until(|_| true)?;
        let leaves = |left: &Left, packet: &Packet| left.drawn.contains_key(&packet.id);
        let all = |left: &Left| open.iter().all(|packet| leaves(left, packet) == leaves(&alone, packet));
        let left = self.ours.left_until(all)?;
        let left = self.check_closed(left)?;
        self.open +=
            open.iter().filter(|packet| leaves(&alone, packet) && leaves(&left, packet)).count() as u64;
        let differs = |packet: &&Packet| leaves(&left, packet) != leaves(&alone, packet);
        let differing: Vec<Packet> = open.into_iter().filter(differs).cloned().collect();
        let said = format!(
            "no policy protects these, and they leave {} world alone: {differing:?}\nrefused here: {refused:?}\n\
             there: {refused_by_twin:?}\n{:?}",
            if differing.first().is_some_and(|packet| leaves(&left, packet)) { "this" } else { "the other" },
            self.gateway.drops()
        );
        Ok((differing, said))
    }

    fn next_id(&mut self) -> String {
        self.packets += 1;
        format!("#!{:06x}", self.packets & 0xff_ffff)
    }

    /// Fails on the first packet in clear that was closed when it was sent.
    fn check_closed(&mut self, left: Left) -> Result<Left> {
        self.esp += left.esp;
        for (id, frames) in &left.drawn {
            if let Some(packet) = self.closed.get(id) {
                bail!("a protected packet leaves in clear: {packet}\nas {:02x?}", frames[0].bytes);
            }
        }
        for frame in &left.others {
            let Some(ip) = frame.ip() else { continue };
            if !self.unknown && self.verdict_of(ip.source, ip.destination, true) == Verdict::Closed {
                bail!("in clear though protected: {} → {}: {:02x?}", ip.source, ip.destination, frame.bytes);
            }
        }
        Ok(left)
    }

    fn draw_packets(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        for sender in Sender::ALL {
            for _ in 0..PACKETS {
                let id = self.next_id();
                // Most of what can be drawn matches nothing.
                let mut packet = Packet::draw(&mut self.chance, sender, id.clone());
                for _ in 0..self.chance.below(4) {
                    if self.verdict(&packet) == Verdict::Open {
                        packet = Packet::draw(&mut self.chance, sender, id.clone());
                    }
                }
                packets.push(packet);
            }
        }
        packets
    }

    /// Remembers what may not leave, and counts.
    fn note(&mut self, packets: &[Packet], event: Event) {
        for packet in packets {
            if self.verdict(packet) == Verdict::Closed {
                self.closed.insert(packet.id.clone(), format!("{packet:?}, sent during: {}", event.name()));
            }
            let kind = self.in_force.last().map_or_else(|| "down".to_owned(), |list| list.kind(packet));
            self.cells.add(kind, packet.kind(), event.name());
        }
    }

    fn verdict(&self, packet: &Packet) -> Verdict {
        let verdict = self.verdict_of(packet.source, packet.target, packet.is_own());
        let steered =
            packet.is_unbound() && self.in_force.iter().any(|list| list.steers_unbound(packet.target));
        if verdict == Verdict::Open && steered || packet.is_dhcp() { Verdict::Either } else { verdict }
    }

    /// What all lists that may be in force agree on.
    fn verdict_of(&self, source: std::net::IpAddr, target: std::net::IpAddr, own: bool) -> Verdict {
        if self.unknown {
            return Verdict::Either;
        }
        let mut verdicts = self.in_force.iter().map(|list| list.verdict(source, target, own));
        let Some(first) = verdicts.next() else { return Verdict::Open };
        if verdicts.all(|verdict| verdict == first) { first } else { Verdict::Either }
    }

    fn reload(&mut self, event: Event) -> Result<()> {
        let old = self.in_force.last().cloned().unwrap_or_default();
        let new = loop {
            let new = Policies::draw(&mut self.chance);
            self.gateway.configure(&config(&new)?)?;
            if self.gateway.cli("check").is_ok() {
                break new;
            }
        };
        if !(self.has_control && self.has_dataplane) {
            // The file has changed; nobody has been told, and the next start takes it.
            self.gateway.configure(&config(&old)?)?;
            return Ok(());
        }
        println!("  to {new}");
        self.in_force = vec![old, new.clone()];
        self.while_sending(event, |run| run.gateway.reload().map(drop))?;
        self.gateway.wait_installed()?;
        self.in_force = vec![new];
        Ok(())
    }

    /// Opened on purpose: nothing of ours is left. Then the guard alone, then all of it.
    fn down_and_up(&mut self, event: Event) -> Result<()> {
        let lists = std::mem::take(&mut self.in_force);
        self.unknown = true;
        self.while_sending(event, |run| run.gateway.down().map(drop))?;
        (self.has_dataplane, self.has_control) = (false, false);
        self.unknown = false;
        self.after(event).context("after `pollux down`")?;
        self.unknown = true;
        let file = self.gateway.config_file();
        self.gateway.cli(&format!("guard {}", file.display()))?;
        self.in_force = lists;
        self.unknown = false;
        self.after(event).context("after `pollux guard`")?;
        self.while_sending(event, Self::start)
    }

    fn down_half_way(&mut self, event: Event) -> Result<()> {
        self.unknown = true;
        let time = Duration::from_millis(self.chance.below(120));
        self.while_sending(event, |run| run.gateway.down_half_way(time))?;
        (self.has_dataplane, self.has_control) = (false, false);
        self.start()?;
        self.unknown = false;
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        self.gateway.start_dataplane()?;
        self.gateway.start_control()?;
        self.gateway.wait_installed()?;
        (self.has_dataplane, self.has_control) = (true, true);
        Ok(())
    }
}

fn config(policies: &Policies) -> Result<Config> {
    let mut config = Config::default();
    policies.configure(&mut config)?;
    Ok(config)
}

/// Steps until the time is over or so many have been taken.
///
/// # Errors
/// As [`Run::step`]; the error has the seed.
pub fn run_for(time: Duration, steps: u64, seed: u64) -> Result<Run> {
    let started = Instant::now();
    let mut run = Run::new(seed)?;
    let mut taken = 0;
    while taken < steps && started.elapsed() < time {
        run.step().with_context(|| format!("seed {seed}, step {taken}, after {:?}", started.elapsed()))?;
        taken += 1;
    }
    println!(
        "seed {seed}: {taken} steps, {} ESP packets, {} open packets as from the twin",
        run.esp, run.open
    );
    Ok(run)
}
