//! The life of a Child SA between the data plane and the peer: installed, in use, replaced, deleted.
//!
//! Inbound is there before the peer may send, outbound moves when the peer is known to have the new SA, and
//! what was deleted by a rekey decrypts a little longer: so no packet finds no SA (RFC 7296 §2.8).

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use pollux_abi::SaId;
use pollux_abi::command::Direction;

use super::channel::Channel;
use super::children::{ChildSa, DirectionState, Phase};
use super::established::{Established, FURTHER_REFUSED};
use super::tasks::{AGAIN_AFTER, PacketPair, Task};
use crate::config::{Action, ChildConfig};
use crate::endpoint::{Effect, SaCommand, Turn};
use crate::error::IkeError;
use crate::event::{DownReason, Event};
use crate::exchange::Ours;

impl Established {
    pub(super) fn child_due(&mut self, channel: &mut Channel, turn: &mut Turn<'_>, key: SaId) {
        let Some(child) = self.children.get_mut(key) else { return };
        if child.deadline().is_none_or(|at| at > turn.now) {
            return;
        }
        if let Some(sa) = child.overdue(turn.now) {
            let error = IkeError::DataPlane { what: "no answer within its deadline".to_owned() };
            return self.on_installed(channel, turn, sa, Err(error));
        }
        match child.phase {
            Phase::Lingering { .. } => {
                child.remove_both(turn);
                self.children.remove(key);
            }
            Phase::Up if child.is_superseded() && child.give_up_at.is_some_and(|at| at <= turn.now) => {
                child.give_up_at = None;
                child.down = DownReason::Replaced;
                self.tasks.push(Task::DeleteChild(key));
            }
            Phase::Up if child.expire_at.is_some_and(|at| at <= turn.now) => {
                child.expire_at = None;
                child.rekey_at = None;
                child.down = DownReason::Lifetime;
                let last = child.replaced_by.is_none().then(|| child.config.clone());
                self.tasks.push(Task::DeleteChild(key));
                match last {
                    Some(config) if config.start_action == Action::Start => {
                        self.tasks.push(Task::CreateChild(config));
                    }
                    Some(config) => {
                        self.wanted.remove(&config.name);
                    }
                    None => {}
                }
            }
            _ => {
                child.rekey_at = None;
                self.tasks.push(Task::RekeyChild(key));
            }
        }
    }

    /// The data plane has installed a half of a Child SA, or has not.
    pub(crate) fn on_installed(
        &mut self,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        sa: SaId,
        result: Result<(), IkeError>,
    ) {
        let Some((key, direction)) = self.children.of_sa(sa) else { return };
        let Some(child) = self.children.get_mut(key) else { return };
        let half = match direction {
            Direction::Inbound => &mut child.inbound,
            Direction::Outbound => &mut child.outbound,
        };
        if !matches!(half.state, DirectionState::Asked { .. }) {
            return;
        }
        if result.is_ok() {
            half.state = DirectionState::Installed;
        }
        let answering = direction == Direction::Inbound
            && self.theirs.as_ref().is_some_and(|theirs| theirs.child() == key);
        if answering {
            if let Some(theirs) = self.theirs.take() {
                theirs.on_installed(self, channel, turn, result);
            }
            return;
        }
        match (result, direction) {
            (Ok(()), Direction::Inbound) => {
                if child.phase == Phase::Opening {
                    child.install(turn, channel.id, Direction::Outbound);
                }
            }
            (Ok(()), Direction::Outbound) => {
                turn.effect(Effect::Superseded(child.reqid));
                if child.phase == Phase::Opening {
                    self.opened(channel, turn, key);
                }
            }
            (Err(error), _) => self.child_failed(channel, turn, key, error),
        }
    }

    /// A Child SA works: the operator is told, and the one whose place it takes is deleted by us if the
    /// exchange was ours.
    pub(crate) fn opened(&mut self, channel: &Channel, turn: &mut Turn<'_>, key: SaId) {
        let Some(child) = self.children.get_mut(key) else { return };
        child.phase = Phase::Up;
        child.told = true;
        child.start_clocks(turn);
        self.wanted.insert(child.config.name.clone(), child.config.clone());
        let (summary, initiator, replaces) = (child.summary(channel.id), child.initiator, child.replaces);
        match replaces.and_then(|old| Some((old, self.children.get_mut(old)?))) {
            Some((old, predecessor)) => {
                predecessor.replaced_by = Some(key);
                predecessor.give_up_at = Some(turn.now + GIVE_UP_AFTER);
                predecessor.had_successor = true;
                turn.event(Event::ChildRekeyed { old, new: summary, initiator });
                if initiator {
                    predecessor.down = DownReason::Replaced;
                    self.tasks.push(Task::DeleteChild(old));
                }
            }
            None => turn.event(Event::ChildUp(summary)),
        }
        self.one_gives_way(key);
        if !initiator && replaces.is_none_or(|old| self.children.get(old).is_none()) {
            self.promote_if_alone(channel, turn, key);
        }
    }

    /// Both ends may have asked for the same Child SA at once. Nothing forbids it, and nothing says which one stays: the
    /// line that the exchange with the lowest nonce has begun goes, by whoever has begun it, as in RFC 7296 §2.8.1. Of
    /// two lines of ours the older one goes. A peer that wants two keeps both, unless ours is the one that goes.
    fn one_gives_way(&mut self, key: SaId) {
        let Some(child) = self.children.get(key) else { return };
        let Some((twin, other)) = self.children.twin(key, child) else { return };
        let (loser, winner) = match (child.origin.0, other.origin.0) {
            (true, true) => (twin, key),
            (true, false) if child.origin.1.loses_to(&other.origin.1) => (key, twin),
            (false, true) if other.origin.1.loses_to(&child.origin.1) => (twin, key),
            _ => return,
        };
        if let Some(child) = self.children.get_mut(loser) {
            child.replaced_by = Some(winner);
            child.down = DownReason::Replaced;
            self.tasks.push(Task::DeleteChild(loser));
        }
    }

    /// Moves outbound traffic to a Child SA of which the peer may not have heard yet, if no other one carries it.
    fn promote_if_alone(&mut self, channel: &Channel, turn: &mut Turn<'_>, key: SaId) {
        let Some(name) = self.children.get(key).map(|child| child.config.name.clone()) else { return };
        let carries = |(_, other): (SaId, &ChildSa)| {
            other.config.name == name
                && other.phase == Phase::Up
                && matches!(other.outbound.state, DirectionState::Asked { .. } | DirectionState::Installed)
        };
        if !self.children.iter().any(carries) {
            self.promote(channel, turn, key);
        }
    }

    /// Moves outbound traffic to a Child SA that the peer is known to have.
    pub(crate) fn promote(&mut self, channel: &Channel, turn: &mut Turn<'_>, key: SaId) {
        let Some(child) = self.children.get_mut(key) else { return };
        if child.is_up() && matches!(child.outbound.state, DirectionState::Held(_)) {
            if turn.shared.data_plane {
                child.install(turn, channel.id, Direction::Outbound);
            } else {
                let what = "it is down".to_owned();
                self.child_failed(channel, turn, key, IkeError::DataPlane { what });
            }
        }
    }

    /// The data plane did not take a Child SA that the peer has: it is deleted at both ends, and what it
    /// was to replace goes on.
    pub(crate) fn child_failed(
        &mut self,
        channel: &Channel,
        turn: &mut Turn<'_>,
        key: SaId,
        error: IkeError,
    ) {
        self.tell_refused(channel, turn, error);
        let Some(child) = self.children.get_mut(key) else { return };
        child.down = DownReason::DataPlane;
        // Where inbound works, the peer may be using it already: it stays until the peer has let go.
        child.remove(turn, Direction::Outbound);
        if !matches!(child.inbound.state, DirectionState::Installed) {
            child.remove(turn, Direction::Inbound);
        }
        child.phase = Phase::Deleting;
        child.rekey_at = None;
        child.expire_at = None;
        let was_up = child.told;
        let replaced = self.children.has_stand_in(key);
        let Some(child) = self.children.get_mut(key) else { return };
        child.tell_down(turn, channel.id, replaced);
        let (replaces, config, successor) = (child.replaces, child.config.clone(), child.replaced_by);
        self.tasks.push(Task::DeleteChild(key));
        if let Some(Ours::CreateChild(ours)) = &mut self.ours {
            ours.no_longer_collided(key);
        }
        if let Some(successor) = successor {
            // The peer has made it, or is about to: better than nothing at all.
            return self.promote(channel, turn, successor);
        }
        let up = |old: &SaId| self.children.get(*old).is_some_and(|old| old.phase == Phase::Up);
        match replaces.filter(up) {
            Some(old) => self.loses_successor(turn, old, key),
            None if was_up => self.tasks.push(Task::CreateChild(config)),
            None => self.try_again(turn, Task::CreateChild(config)),
        }
    }

    /// What was to take the place of `old` is not there: another one that was to do so has to, or it goes on itself and
    /// is rekeyed later.
    fn loses_successor(&mut self, turn: &mut Turn<'_>, old: SaId, lost: SaId) {
        let successor = self.children.other_successor(old, lost);
        if let Some(successor) = successor.and_then(|key| self.children.get_mut(key)) {
            successor.redundant = false;
        }
        let Some(child) = self.children.get_mut(old) else { return };
        child.replaced_by = successor;
        if successor.is_none() {
            child.rekey_at = Some(turn.now + AGAIN_AFTER + turn.part_of(AGAIN_AFTER));
        }
    }

    /// A Child SA is deleted at both ends. Its successor gets the outbound traffic, if it has not yet; its
    /// own inbound half decrypts what is still on the way.
    pub(crate) fn forget_child(&mut self, channel: &Channel, turn: &mut Turn<'_>, key: SaId) {
        let replaced = self.children.has_stand_in(key);
        let Some(child) = self.children.get_mut(key) else { return };
        let (successor, replaces) = (child.replaced_by, child.replaces);
        child.tell_down(turn, channel.id, replaced);
        let handed_back = self.takes_over_again(turn, key, replaces, successor);
        if let Some(successor) = successor {
            // First the new outbound, then the old one goes: no packet finds none.
            self.promote(channel, turn, successor);
        }
        let Some(child) = self.children.get_mut(key) else { return };
        child.remove(turn, Direction::Outbound);
        let overlap = child.config.overlap;
        let gone = Gone { name: child.config.name.clone(), replaces, followed: successor.is_some() };
        let followed = successor.is_some() || handed_back;
        if followed && !overlap.is_zero() && matches!(child.inbound.state, DirectionState::Installed) {
            child.phase = Phase::Lingering { until: turn.now + overlap };
        } else {
            child.remove_both(turn);
            self.children.remove(key);
        }
        self.another_takes_over(channel, turn, &gone);
    }

    /// A Child SA goes before the one whose place it took: that one is again the one that counts, unless a successor
    /// stands in for both.
    fn takes_over_again(
        &mut self,
        turn: &mut Turn<'_>,
        key: SaId,
        replaces: Option<SaId>,
        successor: Option<SaId>,
    ) -> bool {
        let Some((key_of_old, old)) = replaces.and_then(|old| Some((old, self.children.get_mut(old)?)))
        else {
            return false;
        };
        if old.replaced_by == Some(key) {
            old.replaced_by = successor;
            if successor.is_none() {
                if old.phase == Phase::Up {
                    // What was to be deleted, since another one carries its traffic, is needed again.
                    self.tasks.cancel(&Task::DeleteChild(key_of_old));
                }
                self.loses_successor(turn, key_of_old, key);
            }
        }
        true
    }

    /// A Child SA is gone that may have been the one in use, or the winner of two rekeys that met: another one of the same
    /// child, which was held back, or the loser has to do.
    fn another_takes_over(&mut self, channel: &Channel, turn: &mut Turn<'_>, gone: &Gone) {
        for child in self.children.values_mut() {
            child.redundant &= gone.followed || gone.replaces.is_none() || child.replaces != gone.replaces;
        }
        let waits = |child: &ChildSa| {
            child.config.name == gone.name
                && child.phase == Phase::Up
                && child.replaced_by.is_none()
                && matches!(child.outbound.state, DirectionState::Held(_))
        };
        if let Some(key) = self.children.keys_where(waits).pop() {
            self.promote_if_alone(channel, turn, key);
        }
    }

    /// The first packet under an inbound SA: the peer has it, so outbound may follow.
    pub(crate) fn on_first_packet(&mut self, channel: &Channel, turn: &mut Turn<'_>, sa: SaId) {
        self.promote(channel, turn, sa);
    }

    /// An SA has reached a limit by bytes or packets. One that has stopped is replaced in the same way: the
    /// rekey needs no ESP.
    pub(crate) fn on_lifetime(&mut self, sa: SaId) {
        let Some((key, _)) = self.children.of_sa(sa) else { return };
        let Some(child) = self.children.get_mut(key) else { return };
        if child.phase == Phase::Up && child.replaced_by.is_none() {
            child.rekey_at = None;
            self.tasks.push(Task::RekeyChild(key));
        }
    }

    /// The peer's path has changed from `old` to what the channel has now: the operator is told, and what goes to the
    /// peer follows.
    pub(crate) fn peer_moved(&mut self, channel: &mut Channel, turn: &mut Turn<'_>, old: SocketAddr) {
        let (ike, new) = (channel.id, channel.path.remote);
        turn.event(Event::PeerMoved { ike, old, new });
        turn.effect(Effect::Moved { ike, old, new });
        channel.esp_elsewhere = false;
        self.children_follow(channel, turn);
    }

    /// Outer addresses changed: outbound ESP follows.
    pub(crate) fn children_follow(&mut self, channel: &Channel, turn: &mut Turn<'_>) {
        let outer = channel.path.outer();
        for child in self.children.values_mut() {
            if child.outer == outer {
                continue;
            }
            child.outer = outer;
            for half in [&child.outbound, &child.inbound] {
                if matches!(half.state, DirectionState::Asked { .. } | DirectionState::Installed) {
                    turn.sa(SaCommand::Move {
                        id: half.id,
                        local: outer.local,
                        remote: outer.remote,
                        encap: outer.encap,
                    });
                }
            }
        }
    }

    /// The data plane died: everything it was asked for is lost.
    pub(crate) fn on_data_plane_down(&mut self, channel: &mut Channel, turn: &mut Turn<'_>) {
        for key in self.children.keys_where(|_| true) {
            let asked: Vec<SaId> = self.children.get(key).map_or_else(Vec::new, |child| {
                [&child.inbound, &child.outbound]
                    .into_iter()
                    .filter(|half| matches!(half.state, DirectionState::Asked { .. }))
                    .map(|half| half.id)
                    .collect()
            });
            for sa in asked {
                let error = IkeError::DataPlane { what: "it died".to_owned() };
                self.on_installed(channel, turn, sa, Err(error));
            }
        }
        for child in self.children.values_mut() {
            child.died(turn);
        }
        for key in self.children.keys_where(|child| matches!(child.phase, Phase::Lingering { .. })) {
            self.children.remove(key);
        }
    }

    /// The data plane is back, and empty: every Child SA is replaced by a new one at once.
    pub(crate) fn on_data_plane_up(&mut self) {
        for key in self.children.keys_where(|child| child.is_up() && child.replaced_by.is_none()) {
            self.tasks.push(Task::RekeyChild(key));
        }
    }

    /// A packet of a child found no SA: it wants the child, or a further Child SA where the peer has narrowed those that
    /// are there. At most one further one of a child is asked for in [`FURTHER_EVERY`].
    pub(crate) fn create_for(
        &mut self,
        channel: &Channel,
        turn: &mut Turn<'_>,
        config: &Arc<ChildConfig>,
        packet: PacketPair,
    ) {
        let up = self.children.keys_where(|child| {
            child.config.name == config.name && matches!(child.phase, Phase::Opening | Phase::Up)
        });
        if up.is_empty() {
            return self.create_unless_up(config);
        }
        let carries = |key: &SaId| self.children.get(*key).is_some_and(|child| child.carries(packet));
        let waits = up.iter().any(carries) || self.further.get(&config.name).is_some_and(|at| turn.now < *at);
        if waits {
            return;
        }
        if up.len() >= CHILDREN_OF_ONE_MAX {
            self.further.insert(config.name.clone(), turn.now + FURTHER_REFUSED);
            let error = IkeError::Limit { what: "Child SAs of one child; the peer narrows each of them" };
            self.tell_refused(channel, turn, error);
        } else {
            self.further.insert(config.name.clone(), turn.now + FURTHER_EVERY);
            self.tasks.push(Task::CreateFurther(config.clone(), packet));
        }
    }

    /// Asks for a Child SA, unless one of that name is up or wanted already.
    pub(crate) fn create_unless_up(&mut self, config: &Arc<ChildConfig>) {
        if !self.has_child(config) {
            self.tasks.push(Task::CreateChild(config.clone()));
        }
    }

    /// Whether there is a Child SA of this name that is going to stay.
    pub(crate) fn has_child(&self, config: &ChildConfig) -> bool {
        self.children.iter().any(|(_, child)| {
            child.config.name == config.name
                && matches!(child.phase, Phase::Opening | Phase::Up)
                && child.replaced_by.is_none()
                && !child.redundant
                && !self.tasks.waits(&Task::DeleteChild(child.inbound.id))
        })
    }
}

/// A Child SA that another one has replaced is deleted by the end that wanted that. If it does not for so long, we do: a
/// peer may have lost count of rekeys that met.
pub(crate) const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// What is remembered of a Child SA that is deleted.
struct Gone {
    name: Arc<str>,
    replaces: Option<SaId>,
    /// Whether a successor has taken its place.
    followed: bool,
}

/// The data plane looks through 16 SAs of a policy, and a rekey has two in place of each for a while.
const CHILDREN_OF_ONE_MAX: usize = 8;
/// So seldom is a further Child SA of one child asked for.
const FURTHER_EVERY: Duration = Duration::from_secs(1);
