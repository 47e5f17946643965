//! The Child SAs of one IKE SA, and where each half of them stands in the data plane.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use pollux_abi::command::{Direction, EncapPorts, Lifetimes};
use pollux_abi::{EspSuite, KeyMaterial, Reqid, SaId, Spi, TrafficSelector};

use super::IkeSaId;
use super::collision::Lowest;
use super::tasks::PacketPair;
use crate::config::ChildConfig;
use crate::endpoint::{DATA_PLANE_DEADLINE, SaCommand, SaInstall, Turn};
use crate::event::{ChildUp, DownReason, Event, KeyLog};
use crate::negotiate::selector;
use crate::time::Instant;

/// One direction of a Child SA.
#[derive(Debug)]
pub(crate) struct DirectionSa {
    pub(crate) id: SaId,
    pub(crate) spi: Spi,
    pub(crate) state: DirectionState,
}

/// Where a half stands in the data plane.
#[derive(Debug)]
pub(crate) enum DirectionState {
    /// Its keys wait here: the peer is not known to have it yet.
    Held(Box<KeyMaterial>),
    /// The data plane was asked to install it.
    Asked {
        /// By when it must answer.
        deadline: Instant,
    },
    /// It works.
    Installed,
    /// It is removed, was never asked for, or died with the data plane.
    Gone,
}

/// Where a Child SA stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The data plane is being asked; nothing was told to the operator.
    Opening,
    /// Inbound works.
    Up,
    /// A DELETE of ours is queued or on its way.
    Deleting,
    /// Both ends have deleted it; inbound decrypts a little longer.
    Lingering {
        /// Until then.
        until: Instant,
    },
}

/// Outer addresses of ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outer {
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) encap: Option<EncapPorts>,
}

/// One Child SA.
#[derive(Debug)]
pub(crate) struct ChildSa {
    pub(crate) connection: Arc<str>,
    pub(crate) config: Arc<ChildConfig>,
    pub(crate) reqid: Reqid,
    pub(crate) suite: EspSuite,
    pub(crate) esn: bool,
    pub(crate) inbound: DirectionSa,
    pub(crate) outbound: DirectionSa,
    pub(crate) outer: Outer,
    pub(crate) local_ts: Vec<TrafficSelector>,
    pub(crate) remote_ts: Vec<TrafficSelector>,
    /// Whether the exchange that made it was ours.
    pub(crate) initiator: bool,
    /// The lower nonce of that exchange.
    pub(crate) lowest: Lowest,
    /// Whether we asked for the first of its line, which rekeys continue, and the lower nonce of the exchange that made it.
    pub(crate) origin: (bool, Lowest),
    pub(crate) phase: Phase,
    /// The Child SA whose place it takes.
    pub(crate) replaces: Option<SaId>,
    /// The Child SA that takes its place.
    pub(crate) replaced_by: Option<SaId>,
    /// Whether there has been one: who deletes it then does not close the child.
    pub(crate) had_successor: bool,
    /// Whether a collision made it superfluous, and the peer will delete it (RFC 7296 §2.8.1).
    pub(crate) redundant: bool,
    /// When the other end should have deleted it, if another one has taken its place.
    pub(crate) give_up_at: Option<Instant>,
    pub(crate) rekey_at: Option<Instant>,
    pub(crate) expire_at: Option<Instant>,
    pub(crate) down: DownReason,
    /// Whether the operator was told that it is up, and not yet that it is gone.
    pub(crate) told: bool,
}

impl ChildSa {
    /// Asks the data plane for the half of `direction`. Keys leave for it and are wiped there.
    pub(crate) fn install(&mut self, turn: &mut Turn<'_>, ike: IkeSaId, direction: Direction) {
        let half = match direction {
            Direction::Inbound => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        };
        let deadline = turn.now + DATA_PLANE_DEADLINE;
        match core::mem::replace(&mut half.state, DirectionState::Asked { deadline }) {
            DirectionState::Held(keys) => {
                let (id, spi) = (half.id, half.spi);
                turn.shared.owners.insert(id, ike);
                let lifetimes = self.lifetimes(turn);
                if turn.shared.config.log_keys {
                    self.log_keys(turn, direction, &keys);
                }
                turn.sa(SaCommand::Install(Box::new(SaInstall {
                    id,
                    direction,
                    spi,
                    suite: self.suite,
                    esn: self.esn,
                    keys,
                    local: self.outer.local,
                    remote: self.outer.remote,
                    encap: self.outer.encap,
                    reqid: self.reqid,
                    lifetimes,
                    local_ts: self.local_ts.clone(),
                    remote_ts: self.remote_ts.clone(),
                    connection: self.connection.clone(),
                    child: self.config.name.clone(),
                })));
            }
            other => half.state = other,
        }
    }

    /// Removes the half of `direction` from the data plane.
    pub(crate) fn remove(&mut self, turn: &mut Turn<'_>, direction: Direction) {
        let half = match direction {
            Direction::Inbound => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        };
        let (id, spi) = (half.id, half.spi);
        turn.shared.owners.remove(&id);
        turn.shared.claims.release(id);
        match core::mem::replace(&mut half.state, DirectionState::Gone) {
            DirectionState::Asked { .. } | DirectionState::Installed => {
                turn.sa(SaCommand::Remove { id, spi, direction });
            }
            DirectionState::Held(_) if direction == Direction::Inbound => turn.shared.allocator.release(spi),
            DirectionState::Held(_) | DirectionState::Gone => {}
        }
    }

    /// Removes both halves.
    pub(crate) fn remove_both(&mut self, turn: &mut Turn<'_>) {
        self.remove(turn, Direction::Outbound);
        self.remove(turn, Direction::Inbound);
    }

    /// Both halves died with the data plane: there is nothing to remove.
    pub(crate) fn died(&mut self, turn: &mut Turn<'_>) {
        for half in [&mut self.inbound, &mut self.outbound] {
            turn.shared.owners.remove(&half.id);
            turn.shared.claims.release(half.id);
            if !matches!(half.state, DirectionState::Held(_)) {
                half.state = DirectionState::Gone;
            }
        }
    }

    /// Whether it carries traffic both ways, or will as soon as the peer is known to have it.
    pub(crate) fn is_up(&self) -> bool {
        self.phase == Phase::Up && !self.redundant
    }

    /// Whether its selectors have room for packets between these addresses.
    pub(crate) fn carries(&self, (source, destination): PacketPair) -> bool {
        self.local_ts.iter().any(|selector| selector.contains_address(source))
            && self.remote_ts.iter().any(|selector| selector.contains_address(destination))
    }

    /// Starts the clocks of its soft and hard lifetime.
    pub(crate) fn start_clocks(&mut self, turn: &mut Turn<'_>) {
        let config = self.config.clone();
        if !config.rekey_time.is_zero() {
            let early = turn.part_of(config.rand_time).min(config.rekey_time / 2);
            self.rekey_at = Some(turn.now + config.rekey_time.saturating_sub(early));
        }
        if !config.life_time.is_zero() {
            self.expire_at = Some(turn.now + config.life_time);
        }
    }

    /// Whether another one has taken its place, and one of the ends deletes it.
    pub(crate) const fn is_superseded(&self) -> bool {
        self.replaced_by.is_some() || self.redundant
    }

    /// The next moment at which something has to happen.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let asked = |half: &DirectionSa| match half.state {
            DirectionState::Asked { deadline } => Some(deadline),
            _ => None,
        };
        let clocks = match self.phase {
            Phase::Lingering { until } => [Some(until), None],
            Phase::Up if self.is_superseded() => [self.give_up_at, self.expire_at],
            Phase::Up => [self.rekey_at, self.expire_at],
            Phase::Opening | Phase::Deleting => [None, None],
        };
        [asked(&self.inbound), asked(&self.outbound), clocks[0], clocks[1]].into_iter().flatten().min()
    }

    /// A half whose installation was not answered in time.
    pub(crate) fn overdue(&self, now: Instant) -> Option<SaId> {
        [&self.inbound, &self.outbound]
            .into_iter()
            .find(|half| matches!(half.state, DirectionState::Asked { deadline } if deadline <= now))
            .map(|half| half.id)
    }

    /// What the operator sees.
    pub(crate) fn summary(&self, ike: IkeSaId) -> ChildUp {
        ChildUp {
            ike,
            connection: self.connection.clone(),
            child: self.config.name.clone(),
            inbound: self.inbound.id,
            outbound: self.outbound.id,
            spi_in: self.inbound.spi,
            spi_out: self.outbound.spi,
            reqid: self.reqid,
            suite: self.suite,
            esn: self.esn,
            encap: self.outer.encap.is_some(),
            local_ts: self.local_ts.clone(),
            remote_ts: self.remote_ts.clone(),
        }
    }

    /// Tells the operator that it is gone, if it was told that it is up. `replaced`: another one carries its traffic.
    pub(crate) fn tell_down(&mut self, turn: &mut Turn<'_>, ike: IkeSaId, replaced: bool) {
        if !core::mem::take(&mut self.told) {
            return;
        }
        turn.event(Event::ChildDown {
            ike,
            connection: self.connection.clone(),
            child: self.config.name.clone(),
            inbound: self.inbound.id,
            spi_in: self.inbound.spi,
            spi_out: self.outbound.spi,
            reqid: self.reqid,
            reason: self.down,
            replaced,
        });
    }

    /// Limits by bytes and packets, and by age for the time without a control process. The soft ones carry jitter, so
    /// that two ends rarely reach them together.
    fn lifetimes(&self, turn: &mut Turn<'_>) -> Lifetimes {
        let config = &self.config;
        let soft = |turn: &mut Turn<'_>, rekey: u64, rand: u64| {
            if rekey == 0 { 0 } else { rekey.saturating_sub(turn.below(rand)).max(rekey / 2).max(1) }
        };
        Lifetimes {
            soft_bytes: soft(turn, config.rekey_bytes, config.rand_bytes),
            hard_bytes: config.life_bytes,
            soft_packets: soft(turn, config.rekey_packets, config.rand_packets),
            hard_packets: config.life_packets,
            soft_age: 0,
            hard_age: hard_age(config.life_time),
        }
    }

    fn log_keys(&self, turn: &mut Turn<'_>, direction: Direction, keys: &KeyMaterial) {
        let (half, source, destination) = match direction {
            Direction::Inbound => (&self.inbound, self.outer.remote, self.outer.local),
            Direction::Outbound => (&self.outbound, self.outer.local, self.outer.remote),
        };
        turn.event(Event::Keys(KeyLog::Esp {
            spi: half.spi,
            source,
            destination,
            suite: self.suite,
            material: keys.as_bytes().to_vec(),
        }));
    }
}

/// The table of Child SAs, by the id of their inbound half.
#[derive(Debug, Default)]
pub(crate) struct Children(BTreeMap<SaId, ChildSa>);

impl Children {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn insert(&mut self, child: ChildSa) -> SaId {
        let key = child.inbound.id;
        self.0.insert(key, child);
        key
    }

    pub(crate) fn get(&self, key: SaId) -> Option<&ChildSa> {
        self.0.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: SaId) -> Option<&mut ChildSa> {
        self.0.get_mut(&key)
    }

    pub(crate) fn remove(&mut self, key: SaId) -> Option<ChildSa> {
        self.0.remove(&key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SaId, &ChildSa)> {
        self.0.iter().map(|(&key, child)| (key, child))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut ChildSa> {
        self.0.values_mut()
    }

    /// The keys of all that satisfy `which`.
    pub(crate) fn keys_where(&self, which: impl Fn(&ChildSa) -> bool) -> Vec<SaId> {
        self.iter().filter(|(_, child)| which(child)).map(|(key, _)| key).collect()
    }

    /// Whether another Child SA carries the traffic of this one when it goes: the one that takes its place, or, where a
    /// collision made it superfluous or it goes before its time, the one whose place it was to take.
    pub(crate) fn has_stand_in(&self, key: SaId) -> bool {
        self.get(key).is_some_and(|child| {
            let goes_on = |old: SaId| self.get(old).is_some_and(|old| old.told && old.phase == Phase::Up);
            child.replaced_by.is_some() || child.redundant || child.replaces.is_some_and(goes_on)
        })
    }

    /// Another Child SA that takes the place of `old` too: two rekeys have met.
    pub(crate) fn other_successor(&self, old: SaId, not: SaId) -> Option<SaId> {
        let is_successor = |(key, child): &(SaId, &ChildSa)| {
            *key != not
                && child.replaces == Some(old)
                && child.phase == Phase::Up
                && child.replaced_by.is_none()
        };
        self.iter().find(is_successor).map(|(key, _)| key)
    }

    /// Another Child SA for all that this one carries, of another line.
    pub(crate) fn twin(&self, key: SaId, child: &ChildSa) -> Option<(SaId, &ChildSa)> {
        self.iter().find(|(of, other)| {
            *of != key
                && other.config.name == child.config.name
                && other.origin != child.origin
                && other.phase == Phase::Up
                && other.replaced_by.is_none()
                && !other.redundant
                && selector::covers_all(&other.local_ts, &child.local_ts)
                && selector::covers_all(&other.remote_ts, &child.remote_ts)
        })
    }

    /// The Child SA that an SA of the data plane is a half of, and which half.
    pub(crate) fn of_sa(&self, sa: SaId) -> Option<(SaId, Direction)> {
        if self.0.contains_key(&sa) {
            return Some((sa, Direction::Inbound));
        }
        self.iter().find(|(_, child)| child.outbound.id == sa).map(|(key, _)| (key, Direction::Outbound))
    }

    /// The Child SA whose inbound half the peer calls `spi`, in a DELETE or REKEY_SA: our outbound SPI.
    ///
    /// One that lingers is deleted already and no longer known by name.
    pub(crate) fn of_peer_spi(&self, spi: u32) -> Option<SaId> {
        self.iter()
            .find(|(_, child)| {
                child.outbound.spi.get() == spi && !matches!(child.phase, Phase::Lingering { .. })
            })
            .map(|(key, _)| key)
    }

    /// The next moment at which one of them needs attention.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.values().filter_map(ChildSa::deadline).min()
    }

    /// All of them.
    pub(crate) fn into_values(self) -> impl Iterator<Item = ChildSa> {
        self.0.into_values()
    }

    /// Takes over those of a predecessor.
    pub(crate) fn inherit(&mut self, turn: &mut Turn<'_>, ike: IkeSaId, from: Self) {
        for child in from.0.values() {
            for half in [&child.inbound, &child.outbound] {
                if let Some(owner) = turn.shared.owners.get_mut(&half.id) {
                    *owner = ike;
                }
            }
        }
        self.0.extend(from.0);
    }
}

/// The age at which the data plane stops an SA by itself: a while after its own timer deletes it here.
fn hard_age(life: core::time::Duration) -> u32 {
    const GRACE: u64 = 5;
    if life.is_zero() { 0 } else { u32::try_from(life.as_secs() + GRACE).unwrap_or(u32::MAX) }
}
