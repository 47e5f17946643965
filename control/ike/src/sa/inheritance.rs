//! What becomes of Child SAs and tasks when their IKE SA ends: an heir takes them, or they end with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use pollux_abi::Reqid;

use super::IkeSaId;
use super::channel::Channel;
use super::children::{ChildSa, Children};
use super::established::Established;
use super::tasks::Tasks;
use super::timer::Timer;
use crate::config::{Action, ChildConfig, Connection};
use crate::endpoint::{Effect, Turn};
use crate::event::DownReason;
use crate::exchange::Ours;

/// What an IKE SA leaves to the one that takes its place.
pub(crate) struct InheritedChildren {
    connection: Arc<Connection>,
    children: Children,
    tasks: Tasks,
    reqids: Vec<(Arc<str>, Arc<Reqid>)>,
    wanted: BTreeMap<Arc<str>, Arc<ChildConfig>>,
}

impl InheritedChildren {
    /// There is no successor: Child SAs leave the data plane, and those that start by themselves start again.
    pub(crate) fn dissolve(self, turn: &mut Turn<'_>, ike: IkeSaId) {
        let mut wanted: Vec<Arc<ChildConfig>> = self.tasks.to_be_created().cloned().collect();
        for mut child in self.children.into_values() {
            child.down = DownReason::PeerDead;
            child.tell_down(turn, ike, false);
            child.remove_both(turn);
            wanted.push(child.config);
        }
        let mut names: Vec<Arc<str>> = Vec::new();
        for config in wanted {
            if config.dpd_action == Action::Start && !names.contains(&config.name) {
                names.push(config.name.clone());
                let (connection, child) = (self.connection.clone(), Some(config.name.clone()));
                turn.effect(Effect::Again { connection, child, failed: false });
            }
        }
    }
}

impl Established {
    /// Asks the endpoint to bring up children once more that `which` selects, of those that are there or
    /// wanted.
    pub(crate) fn bring_up_again(&self, turn: &mut Turn<'_>, which: impl Fn(&ChildConfig) -> bool) {
        for name in self.children_there_or_wanted(which) {
            let connection = self.peer.connection.clone();
            turn.effect(Effect::Again { connection, child: Some(name), failed: false });
        }
    }

    /// The same after a while.
    fn bring_up_later(&self, turn: &mut Turn<'_>, which: impl Fn(&ChildConfig) -> bool) {
        for name in self.children_there_or_wanted(which) {
            let connection = self.peer.connection.clone();
            turn.effect(Effect::Later { connection, child: name });
        }
    }

    fn children_there_or_wanted(&self, which: impl Fn(&ChildConfig) -> bool) -> Vec<Arc<str>> {
        let there = self.children.iter().map(|(_, child)| &child.config);
        let asked = self.ours.iter().filter_map(Ours::creates).chain(self.wanted.values());
        let mut names: Vec<Arc<str>> = Vec::new();
        for config in there.chain(self.tasks.to_be_created()).chain(asked) {
            if which(config) && !names.contains(&config.name) {
                names.push(config.name.clone());
            }
        }
        names
    }

    /// Ends it here: Child SAs leave the data plane.
    pub(crate) fn abandon(&mut self, channel: &Channel, turn: &mut Turn<'_>, reason: DownReason) {
        match reason {
            DownReason::PeerDead if self.successor.is_none() => {
                self.bring_up_again(turn, |child| child.dpd_action == Action::Start);
            }
            // One end could not read the other. A new IKE SA may do better, but not at once.
            DownReason::Failed if self.successor.is_none() => {
                self.bring_up_later(turn, |child| child.start_action == Action::Start);
            }
            DownReason::Peer if self.successor.is_none() => {
                self.bring_up_again(turn, |child| child.close_action == Action::Start);
            }
            // The peer's other IKE SA stays: what this one carried belongs there now.
            DownReason::Replaced if self.successor.is_none() && !self.redundant => {
                self.bring_up_again(turn, |child| child.start_action == Action::Start);
            }
            _ => {}
        }
        if let Some(ours) = self.ours.take()
            && let Some(successor) = ours.abandon(turn)
        {
            self.transfer_to(turn, successor);
        }
        if let Some(theirs) = self.theirs.take() {
            theirs.abandon(self, turn);
        }
        for child in core::mem::take(&mut self.children).into_values() {
            drop_child(channel, turn, child, reason);
        }
    }

    /// Gives Child SAs and tasks to the IKE SA that takes our place.
    pub(crate) fn transfer_to(&mut self, turn: &mut Turn<'_>, successor: IkeSaId) {
        self.successor = Some(successor);
        let inherited = Box::new(InheritedChildren {
            connection: self.peer.connection.clone(),
            children: core::mem::take(&mut self.children),
            tasks: core::mem::take(&mut self.tasks),
            reqids: self.peer.reqids.clone(),
            wanted: core::mem::take(&mut self.wanted),
        });
        turn.effect(Effect::Inherit { to: successor, inherited });
    }

    /// Takes over what a predecessor passed on.
    pub(crate) fn inherit(
        &mut self,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        inherited: InheritedChildren,
    ) {
        self.undecided = false;
        let dpd_delay = self.peer.connection.dpd_delay;
        if !dpd_delay.is_zero() {
            channel.timers.set(Timer::Dpd, turn.now + dpd_delay);
        }
        self.peer.reqids = inherited.reqids;
        self.children.inherit(turn, channel.id, inherited.children);
        self.tasks.inherit(inherited.tasks);
        self.wanted.extend(inherited.wanted);
        for spi in core::mem::take(&mut self.late_deletes) {
            if let Some(key) = self.children.of_peer_spi(spi) {
                self.deleted_by_peer(channel, turn, key);
            }
        }
        self.children_follow(channel, turn);
    }
}

fn drop_child(channel: &Channel, turn: &mut Turn<'_>, mut child: ChildSa, reason: DownReason) {
    child.down = reason;
    child.tell_down(turn, channel.id, child.replaced_by.is_some());
    child.remove_both(turn);
}
