//! Commands, answers of the data plane, and the effects that one IKE SA has on others.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use pollux_abi::{Reqid, SaId};

use super::connection_index::ConnectionIndex;
use super::{Command, Effect, Endpoint, Identities, Target, Turn};
use crate::config::{Action, Connection, EndpointConfig, Ports, Unique};
use crate::crypto::Rng;
use crate::error::IkeError;
use crate::event::{DownReason, Event};
use crate::exchange::init_initiator;
use crate::sa::{Established, IkeSa, IkeSaId, LAST_WORDS, PacketPair, State, Task, Timer};
use crate::time::Instant;

impl Endpoint {
    pub(super) fn operate(&mut self, now: Instant, command: Command, rng: &mut dyn Rng) {
        match command {
            Command::Initiate { connection, child } => {
                self.retries.cancel(&connection);
                self.initiate(now, &connection, child, rng);
            }
            Command::Terminate(target) => self.on_target(now, &target, rng, Operation::Terminate),
            Command::Rekey(target) => self.on_target(now, &target, rng, Operation::Rekey),
            Command::Acquire { reqid, source, destination } => {
                self.acquire(now, reqid, (source, destination), rng);
            }
            Command::Reload(config) => self.reload(now, config, rng),
            Command::SaInstalled { sa } => {
                self.on_owner(now, sa, rng, |ike, turn| ike.on_installed(turn, sa, Ok(())));
            }
            Command::SaRefused { sa, error } => {
                let error = match error {
                    pollux_abi::CommandError::Full => {
                        IkeError::Limit { what: "the data plane's table is full" }
                    }
                    other => IkeError::DataPlane { what: other.to_string() },
                };
                self.on_owner(now, sa, rng, |ike, turn| ike.on_installed(turn, sa, Err(error)));
            }
            Command::SaStats { sa, stats } => {
                self.shared.orphans.on_stats(sa, stats, &mut self.shared.out);
                self.on_owner(now, sa, rng, |ike, turn| {
                    if let Some((channel, established)) = ike.established_mut() {
                        established.on_stats(channel, turn, sa, stats);
                    }
                });
            }
            Command::FirstPacket { sa } => self.on_owner(now, sa, rng, |ike, turn| {
                if let Some((channel, established)) = ike.established_mut() {
                    established.on_first_packet(channel, turn, sa);
                }
            }),
            Command::Lifetime { sa, .. } => self.on_owner(now, sa, rng, |ike, turn| {
                if let Some((_, established)) = ike.established_mut() {
                    established.on_lifetime(sa);
                }
                ike.after(turn);
            }),
            Command::PeerMoved { sa, remote } => {
                self.on_owner(now, sa, rng, |ike, turn| ike.on_peer_moved(turn, remote));
            }
            Command::DataPlaneUp { live } => self.data_plane_up(now, live, rng),
            Command::DataPlaneDown => self.data_plane_down(now, rng),
        }
    }

    /// Gives a turn to the IKE SA that an SA of the data plane belongs to.
    fn on_owner(
        &mut self,
        now: Instant,
        sa: SaId,
        rng: &mut dyn Rng,
        act: impl FnOnce(&mut IkeSa, &mut Turn<'_>),
    ) {
        if let Some(&owner) = self.shared.owners.get(&sa) {
            self.turn(now, owner, rng, act);
            self.reindex(owner);
        }
    }

    /// An IKE SA that has handed over its Child SAs hears of no ESP any more. What it has still to say to the peer goes
    /// where the others' traffic goes.
    fn predecessors_follow(
        &mut self,
        now: Instant,
        moved: IkeSaId,
        (old, new): (SocketAddr, SocketAddr),
        rng: &mut dyn Rng,
    ) {
        let Some(ends) = self.sas.get(&moved).and_then(|sa| sa.established()).map(|state| Identities {
            remote: state.peer.remote_id.clone(),
            local: state.peer.local_id.clone(),
        }) else {
            return;
        };
        let stays_behind = |sa: &IkeSa| {
            sa.channel.path.remote == old && sa.established().is_some_and(|state| state.successor.is_some())
        };
        let behind: Vec<IkeSaId> =
            self.directory.between(&ends).filter(|id| self.sas.get(id).is_some_and(stays_behind)).collect();
        for id in behind {
            self.turn(now, id, rng, |ike, _| ike.channel.path.remote = new);
            self.reindex(id);
        }
    }

    /// Brings up a connection, or what is missing of it.
    pub(super) fn initiate(
        &mut self,
        now: Instant,
        name: &Arc<str>,
        child: Option<Arc<str>>,
        rng: &mut dyn Rng,
    ) {
        let Some(connection) = self.shared.config.connection(name).cloned() else {
            return self.unknown(name);
        };
        if let Some(child) = &child
            && !connection.children.iter().any(|known| known.name == *child)
        {
            return self.unknown(child);
        }
        let of_connection = || self.directory.of_connection(name).filter_map(|id| self.sas.get(&id));
        let stays = |sa: &&IkeSa| sa.established().is_some_and(Established::stays);
        let up = of_connection().find(stays).map(|sa| sa.channel.id);
        if let Some(up) = up {
            self.turn(now, up, rng, |ike, turn| {
                if let Some((_, established)) = ike.established_mut() {
                    let children = established.peer.connection.children.clone();
                    for config in children
                        .iter()
                        .filter(|config| child.as_ref().is_none_or(|name| *name == config.name))
                    {
                        established.create_unless_up(config);
                    }
                }
                ike.after(turn);
            });
            return self.reindex(up);
        }
        // An attempt that is under way brings up what it was begun for; the rest waits for its end.
        let begun_for = |sa: &IkeSa| match &sa.state {
            State::ExpectInitReply(expect) => Some(expect.wanted().1),
            State::ExpectAuthReply(expect) => Some(expect.wanted().1),
            _ => None,
        };
        let attempts: Vec<Option<Arc<str>>> = of_connection().filter_map(begun_for).collect();
        if !attempts.is_empty() {
            if !attempts.iter().any(|begun_for| begun_for.is_none() || *begun_for == child) {
                self.retries.plan((name.clone(), child), now + Duration::from_secs(1));
            }
            return;
        }
        self.connect(now, &connection, child, rng);
    }

    fn connect(
        &mut self,
        now: Instant,
        connection: &Arc<Connection>,
        child: Option<Arc<str>>,
        rng: &mut dyn Rng,
    ) {
        let single = |ranges: &[crate::config::AddressRange]| {
            ranges.iter().find_map(crate::config::AddressRange::single)
        };
        let Some(remote) = single(&connection.remote_addrs) else { return self.unknown(&connection.name) };
        let same_family = |address: &IpAddr| address.is_ipv4() == remote.is_ipv4();
        let local =
            connection.local_addrs.iter().filter_map(crate::config::AddressRange::single).find(same_family);
        let Some(local) = local.or_else(|| self.shared.routes.source(remote)) else {
            let key = format!("connection.{}.local_addrs", connection.name);
            let name = Some(connection.name.clone());
            self.shared.out.push_back(super::Output::Event(Event::Refused {
                ike: None,
                connection: name,
                remote: SocketAddr::new(remote, connection.remote_port),
                error: IkeError::NoRoute { remote, key },
                authenticated: true,
            }));
            return self.again(now, connection, child, true, rng);
        };
        let (ports, usual) = (self.shared.config.ports, Ports::default());
        // What listens at the NAT-T port expects the marker, which our own NAT-T socket adds.
        let in_udp = [usual.nat_t, ports.nat_t].contains(&connection.remote_port);
        let port = if in_udp { ports.nat_t } else { ports.ike };
        let local = SocketAddr::new(local, port);
        let remote = SocketAddr::new(remote, connection.remote_port);
        let mut turn = Turn { now, rng, shared: &mut self.shared };
        match init_initiator::begin(&mut turn, connection.clone(), child, local, remote) {
            Ok(sa) => self.adopt(sa),
            Err(error) => {
                let connection = Some(connection.name.clone());
                turn.event(Event::Refused { ike: None, connection, remote, error, authenticated: true });
            }
        }
    }

    fn unknown(&mut self, name: &str) {
        let error = IkeError::UnknownTarget { name: name.to_owned() };
        let remote = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let event = Event::Refused { ike: None, connection: None, remote, error, authenticated: true };
        self.shared.out.push_back(super::Output::Event(event));
    }

    fn acquire(&mut self, now: Instant, reqid: Reqid, packet: PacketPair, rng: &mut dyn Rng) {
        let wanted = self.shared.config.child(reqid);
        let wanted = wanted.map(|(connection, child)| (connection.name.clone(), child.clone()));
        let Some((connection, child)) = wanted else { return };
        let stays =
            |id: &IkeSaId| self.sas.get(id).and_then(IkeSa::established).is_some_and(Established::stays);
        let up = self.directory.of_connection(&connection).find(stays);
        let Some(up) = up else { return self.initiate(now, &connection, Some(child.name.clone()), rng) };
        self.turn(now, up, rng, |ike, turn| {
            if let Some((channel, established)) = ike.established_mut() {
                established.create_for(channel, turn, &child, packet);
            }
            ike.after(turn);
        });
        self.reindex(up);
    }

    fn on_target(&mut self, now: Instant, target: &Target, rng: &mut dyn Rng, operation: Operation) {
        if let (Operation::Terminate, Target::Connection { connection, child }) = (operation, target) {
            match (child, self.shared.config.connection(connection)) {
                (Some(child), Some(connection)) => self.retries.cancel_child(connection, child),
                _ => self.retries.cancel(connection),
            }
        }
        let ids: Vec<IkeSaId> = match target {
            Target::Ike(id) => vec![*id],
            Target::Child(sa) => self.shared.owners.get(sa).copied().into_iter().collect(),
            Target::Connection { connection, .. } => self.directory.of_connection(connection).collect(),
        };
        for id in ids {
            self.turn(now, id, rng, |ike, turn| ike.on_operation(turn, target, operation));
            self.reindex(id);
        }
    }

    fn reload(&mut self, now: Instant, config: Arc<EndpointConfig>, rng: &mut dyn Rng) {
        let old = core::mem::replace(&mut self.shared.config, ConnectionIndex::new(config));
        let changed: Vec<Arc<str>> = old
            .connections
            .iter()
            .filter(|connection| !self.shared.config.has(connection))
            .map(|connection| connection.name.clone())
            .collect();
        for name in &changed {
            let target = Target::Connection { connection: name.clone(), child: None };
            self.on_target(now, &target, rng, Operation::Terminate);
        }
        if self.shared.data_plane {
            self.start_connections(now, rng, |connection| !old.has(connection));
        }
    }

    fn data_plane_up(&mut self, now: Instant, live: Vec<super::LiveSa>, rng: &mut dyn Rng) {
        self.shared.data_plane = true;
        self.shared.reqids.go_on_behind(live.iter().map(|sa| sa.reqid));
        let children = self.shared.config.connections.iter().flat_map(|connection| &connection.children);
        let lifetime = children.map(|child| child.life_time).filter(|life| !life.is_zero()).max();
        self.shared.orphans.adopt(now, live, lifetime.unwrap_or(ORPHANS_LIVE));
        for id in self.sas.keys().copied().collect::<Vec<_>>() {
            self.turn(now, id, rng, |ike, turn| {
                if let Some((_, established)) = ike.established_mut() {
                    established.on_data_plane_up();
                }
                ike.after(turn);
            });
            self.reindex(id);
        }
        self.start_connections(now, rng, |_| true);
    }

    /// Brings up what starts by itself; those with the newest traffic of an earlier life first.
    fn start_connections(&mut self, now: Instant, rng: &mut dyn Rng, which: impl Fn(&Connection) -> bool) {
        let places = self.shared.orphans.places();
        let place = |connection: &Connection| {
            let remote = connection.remote_addrs.iter().find_map(crate::config::AddressRange::single);
            remote.and_then(|remote| places.get(&remote)).copied().unwrap_or(usize::MAX)
        };
        let mut starting: Vec<Arc<Connection>> =
            self.shared.config.connections.iter().filter(|connection| which(connection)).cloned().collect();
        starting.sort_by_cached_key(|connection| place(connection));
        let mut begun = 0;
        for connection in starting {
            let starts = |child: &&Arc<crate::config::ChildConfig>| child.start_action == Action::Start;
            let all = connection.children.iter().all(|child| starts(&child));
            let children: Vec<Option<Arc<str>>> = if all && !connection.children.is_empty() {
                vec![None]
            } else {
                connection.children.iter().filter(starts).map(|child| Some(child.name.clone())).collect()
            };
            for child in children {
                // A peer that gets a thousand handshakes at once asks for cookies or drops them, and so would our own
                // sockets: the rest follows at a pace.
                let wait = BEGIN_EVERY * (begun / BEGIN_AT_ONCE);
                begun += 1;
                if wait.is_zero() {
                    self.initiate(now, &connection.name, child, rng);
                } else {
                    self.retries.plan((connection.name.clone(), child), now + wait);
                }
            }
        }
    }

    fn data_plane_down(&mut self, now: Instant, rng: &mut dyn Rng) {
        self.shared.data_plane = false;
        self.shared.data_plane_lives += 1;
        self.shared.orphans.died();
        for id in self.sas.keys().copied().collect::<Vec<_>>() {
            self.turn(now, id, rng, IkeSa::on_data_plane_down);
            self.reindex(id);
        }
    }

    /// Connections whose next attempt is due.
    pub(super) fn retry_due(&mut self, now: Instant, rng: &mut dyn Rng) {
        for (connection, child) in self.retries.due(now) {
            if self.shared.config.connection(&connection).is_some() {
                self.initiate(now, &connection, child, rng);
            }
        }
    }

    /// Takes a new IKE SA into the table.
    pub(super) fn adopt(&mut self, sa: IkeSa) {
        let id = sa.channel.id;
        if let Some(stranger) = &sa.channel.half_open {
            self.admission.opened(stranger);
        }
        self.shared.count_in(sa.channel.counted);
        self.demux.insert(&sa);
        self.sas.insert(id, sa);
        self.reindex(id);
    }

    /// Carries out what turns have left to do, until nothing is left.
    pub(super) fn carry_out(&mut self, now: Instant, rng: &mut dyn Rng) {
        while let Some(effect) = self.shared.effects.pop_front() {
            match effect {
                Effect::Adopt(sa) => {
                    let id = sa.channel.id;
                    self.adopt(*sa);
                    self.turn(now, id, rng, IkeSa::after);
                    self.reindex(id);
                }
                Effect::Inherit { to, inherited } => {
                    let mut inherited = Some(inherited);
                    self.turn(now, to, rng, |successor, turn| {
                        if let Some((channel, established)) = successor.established_mut()
                            && let Some(inherited) = inherited.take()
                        {
                            established.inherit(channel, turn, *inherited);
                        }
                        successor.after(turn);
                    });
                    self.reindex(to);
                    if let Some(inherited) = inherited {
                        // The successor is gone before its time.
                        let mut turn = Turn { now, rng, shared: &mut self.shared };
                        inherited.dissolve(&mut turn, to);
                    }
                }
                Effect::Redundant(id) => {
                    self.turn(now, id, rng, |sa, turn| {
                        if let Some((channel, established)) = sa.established_mut() {
                            established.redundant = true;
                            channel.timers.set(Timer::IkeExpire, turn.now + LAST_WORDS);
                        }
                    });
                    self.reindex(id);
                }
                Effect::Established { ike, initial_contact } => {
                    self.on_established(now, ike, initial_contact, rng);
                }
                Effect::Again { connection, child, failed } => {
                    self.again(now, &connection, child, failed, rng);
                }
                Effect::Later { connection, child } => self.later(now, &connection, child, rng),
                Effect::Reached(connection) => self.retries.reached(&connection.name),
                Effect::Moved { ike, old, new } => self.predecessors_follow(now, ike, (old, new), rng),
                Effect::Superseded(reqid) => self.shared.orphans.superseded(reqid, &mut self.shared.out),
            }
        }
    }

    fn again(
        &mut self,
        now: Instant,
        connection: &Arc<Connection>,
        child: Option<Arc<str>>,
        failed: bool,
        rng: &mut dyn Rng,
    ) {
        if !self.shared.config.has(connection) {
            return;
        }
        let wait = if failed { self.retries.failed(connection) } else { Some(Duration::from_millis(200)) };
        let Some(wait) = wait else { return };
        let mut turn = Turn { now, rng, shared: &mut self.shared };
        let wait = wait + turn.part_of(wait / 2);
        turn.event(Event::Retry { connection: connection.name.clone(), wait });
        self.retries.plan((connection.name.clone(), child), now + wait);
    }

    fn later(&mut self, now: Instant, connection: &Arc<Connection>, child: Arc<str>, rng: &mut dyn Rng) {
        if !self.shared.config.has(connection) {
            return;
        }
        let mut turn = Turn { now, rng, shared: &mut self.shared };
        let wait = NOT_UNDERSTOOD + turn.part_of(NOT_UNDERSTOOD);
        turn.event(Event::Retry { connection: connection.name.clone(), wait });
        self.retries.plan((connection.name.clone(), Some(child)), now + wait);
    }

    /// Another IKE SA with the same peer may have to go (RFC 7296 §2.4).
    fn on_established(&mut self, now: Instant, ike: IkeSaId, initial_contact: bool, rng: &mut dyn Rng) {
        let Some(new) = self.sas.get(&ike) else { return };
        let Some(state) = new.established() else { return };
        let unique = state.peer.connection.unique;
        let (born, initiator, spi) = (new.channel.born, new.channel.initiator, new.channel.spi_i);
        let (remote, local) = (state.peer.remote_id.clone(), state.peer.local_id.clone());
        let others: Vec<IkeSaId> = self
            .directory
            .between(&Identities { remote, local })
            .filter(|id| *id != ike)
            .filter(|id| self.sas.get(id).and_then(IkeSa::established).is_some_and(Established::stays))
            .collect();
        let mut loser_is_new = false;
        for id in others {
            self.turn(now, id, rng, |other, turn| {
                let Some((channel, established)) = other.established_mut() else { return };
                // What was made after the peer began cannot be what it has forgotten.
                let forgotten = initial_contact && unique != Unique::Never && established.since < born;
                if forgotten {
                    other.close(turn, DownReason::InitialContact);
                } else if unique == Unique::Replace {
                    // Both began at once: the one with the lower SPI goes, by whoever began it.
                    let crossed =
                        channel.initiator != initiator && turn.now.since(established.since) < CROSSED;
                    if crossed && channel.spi_i > spi {
                        loser_is_new = true;
                    } else {
                        established
                            .tasks
                            .push_later(turn.now + LET_GO_AFTER, Task::DeleteIke(DownReason::Replaced));
                    }
                }
            });
            self.reindex(id);
        }
        if loser_is_new {
            self.turn(now, ike, rng, |sa, turn| {
                if let Some((_, established)) = sa.established_mut() {
                    established
                        .tasks
                        .push_later(turn.now + LET_GO_AFTER, Task::DeleteIke(DownReason::Replaced));
                }
            });
            self.reindex(ike);
        }
    }
}

/// What the operator wants of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Terminate,
    Rekey,
}

impl IkeSa {
    /// A wish of the operator, if this IKE SA or one of its children is meant.
    fn on_operation(&mut self, turn: &mut Turn<'_>, target: &Target, operation: Operation) {
        let whole = |name: &Arc<str>| match target {
            Target::Ike(_) => true,
            Target::Connection { connection, child: None } => connection == name,
            _ => false,
        };
        let Some((_, established)) = self.established_mut() else {
            let connecting = match &self.state {
                State::ExpectInitReply(expect) => expect.wanted().0.name.clone(),
                State::ExpectAuthReply(expect) => expect.connection().name.clone(),
                State::ExpectAuthInstalled(waiting) => waiting.connection().clone(),
                _ => return,
            };
            if operation == Operation::Terminate && whole(&connecting) {
                self.abort(turn);
            }
            return;
        };
        let name = established.peer.connection.name.clone();
        if whole(&name) {
            established.tasks.push(match operation {
                Operation::Terminate => Task::DeleteIke(DownReason::Operator),
                Operation::Rekey => Task::RekeyIke,
            });
        }
        for key in established.children.keys_where(|child| match target {
            Target::Connection { child: Some(named), connection } => {
                *connection == name && *named == child.config.name
            }
            Target::Child(sa) => child.inbound.id == *sa || child.outbound.id == *sa,
            _ => false,
        }) {
            if let (Operation::Terminate, Some(child)) = (operation, established.children.get(key)) {
                established.wanted.remove(&child.config.name);
            }
            established.tasks.push(match operation {
                Operation::Terminate => Task::DeleteChild(key),
                Operation::Rekey => Task::RekeyChild(key),
            });
        }
        self.after(turn);
    }

    /// The operator gives up an IKE SA that is not established yet.
    fn abort(&mut self, turn: &mut Turn<'_>) {
        let effects = turn.shared.effects.len();
        self.close(turn, DownReason::Operator);
        // Closing an attempt asks for another one; not here.
        let kept: VecDeque<Effect> = core::mem::take(&mut turn.shared.effects)
            .into_iter()
            .enumerate()
            .filter(|(at, effect)| *at < effects || !matches!(effect, Effect::Again { .. }))
            .map(|(_, effect)| effect)
            .collect();
        turn.shared.effects = kept;
    }

    fn on_data_plane_down(&mut self, turn: &mut Turn<'_>) {
        let died = || IkeError::DataPlane { what: "it died".to_owned() };
        let waiting = match &self.state {
            State::ExpectAuthInstalled(waiting) => Some(waiting.child()),
            _ => None,
        };
        if let Some(sa) = waiting {
            self.on_installed(turn, sa, Err(died()));
        }
        if let Some((channel, established)) = self.established_mut() {
            established.on_data_plane_down(channel, turn);
        }
        self.after(turn);
    }

    /// ESP came from another address. Where the peer is behind a NAT and we are not, that NAT has moved it: IKE follows
    /// at the next message of its own, outbound ESP at once (RFC 7296 §2.23). Elsewhere nothing may be followed, and
    /// the old path has to prove that it lives.
    fn on_peer_moved(&mut self, turn: &mut Turn<'_>, remote: SocketAddr) {
        let Some((channel, established)) = self.established_mut() else { return };
        if channel.path.remote == remote {
            return;
        }
        if !channel.path.nat_remote || channel.path.nat_local {
            established.doubt_path(channel, turn);
            return self.after(turn);
        }
        let old = core::mem::replace(&mut channel.path.remote, remote);
        established.peer_moved(channel, turn, old);
    }
}

/// Connections that start by themselves begin so many at once,
const BEGIN_AT_ONCE: u32 = 64;
/// and so many more each time after this.
const BEGIN_EVERY: Duration = Duration::from_millis(100);
/// SAs of an earlier life are given up after so long where the configuration names no lifetime.
const ORPHANS_LIVE: Duration = Duration::from_hours(1);
/// After INVALID_SYNTAX the next IKE SA is begun so much later: the same message will come up again in it.
const NOT_UNDERSTOOD: Duration = Duration::from_secs(10);
/// Two IKE SAs that the two ends began within this time were begun at once.
const CROSSED: Duration = Duration::from_secs(30);
/// The replaced IKE SA stays until the new one's Child SAs surely carry the traffic.
const LET_GO_AFTER: Duration = Duration::from_secs(2);
