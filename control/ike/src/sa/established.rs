//! An IKE SA that works: its Child SAs, its tasks, and at most one exchange each way.

use core::time::Duration;
use std::sync::Arc;

use pollux_abi::command::Direction;
use pollux_abi::event::SaStats;
use pollux_abi::{Reqid, SaId};

use super::children::{ChildSa, Children, HalfState, Phase};
use super::line::Line;
use super::liveness::{Verdict, Watch};
use super::tasks::{AGAIN_AFTER, Task, Tasks};
use super::timer::Timer;
use super::{IkeSaId, Incoming, Keys};
use crate::config::{Action, ChildConfig, Connection};
use crate::endpoint::{Effect, SaCommand, Turn};
use crate::error::IkeError;
use crate::event::{DownReason, Event, IkeUp};
use crate::exchange::{Ours, create_child_responder::ExpectInstalled};
use crate::identity::Identity;
use crate::message::{ExchangeType, NotifyType};
use crate::negotiate::IkeAgreement;
use crate::time::Instant;

/// Who is at both ends, and under which connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) connection: Arc<Connection>,
    pub(crate) local_id: Identity,
    pub(crate) remote_id: Identity,
    /// The chosen IKE proposal as swanctl users write it.
    pub(crate) proposal: String,
    /// Reqids of this peer's children: the configuration's, or given to this peer alone.
    pub(crate) reqids: Vec<(Arc<str>, Reqid)>,
}

impl Peer {
    /// The reqid of a child, which stays the same through every rekey.
    pub(crate) fn reqid(&mut self, turn: &mut Turn<'_>, child: &ChildConfig) -> Reqid {
        if let Some(reqid) = child.reqid {
            return reqid;
        }
        if let Some((_, reqid)) = self.reqids.iter().find(|(name, _)| *name == child.name) {
            return *reqid;
        }
        let reqid = turn.next_reqid();
        self.reqids.push((child.name.clone(), reqid));
        reqid
    }
}

/// The state.
pub(crate) struct Established {
    pub(crate) peer: Peer,
    pub(crate) keys: Keys,
    pub(crate) suite: IkeAgreement,
    pub(crate) since: Instant,
    pub(crate) children: Children,
    pub(crate) tasks: Tasks,
    /// Our request that is outstanding.
    pub(crate) ours: Option<Ours>,
    /// The peer's request that waits for the data plane.
    pub(crate) theirs: Option<ExpectInstalled>,
    watch: Watch,
    /// A DELETE of ours for the whole IKE SA is queued or on its way.
    pub(crate) closing: Option<DownReason>,
    /// The IKE SA that took its place.
    pub(crate) successor: Option<IkeSaId>,
    /// A collision made it superfluous; the peer will delete it.
    pub(crate) redundant: bool,
    /// It was made by the peer's rekey while ours is outstanding: which one stays is not known yet.
    pub(crate) undecided: bool,
    /// SPIs that the peer deleted while the Child SAs were still with the predecessor.
    pub(crate) late_deletes: Vec<u32>,
    /// It is over, as soon as this turn is.
    pub(crate) finished: Option<DownReason>,
    /// Our last answer may have to be repeated after it is over.
    pub(crate) answered_last: bool,
}

impl Established {
    pub(crate) fn new(now: Instant, peer: Peer, keys: Keys, suite: IkeAgreement) -> Self {
        Self {
            peer,
            keys,
            suite,
            since: now,
            children: Children::default(),
            tasks: Tasks::default(),
            ours: None,
            theirs: None,
            watch: Watch::default(),
            closing: None,
            successor: None,
            redundant: false,
            undecided: false,
            late_deletes: Vec::new(),
            finished: None,
            answered_last: false,
        }
    }

    /// Starts the clocks of an IKE SA that works now.
    pub(crate) fn start_clocks(&self, line: &mut Line, turn: &mut Turn<'_>) {
        let connection = &self.peer.connection;
        line.timers.stop(Timer::HalfOpen);
        if !connection.rekey_time.is_zero() {
            let early = turn.part_of(connection.rand_time).min(connection.rekey_time / 2);
            line.timers.set(Timer::IkeRekey, turn.now + connection.rekey_time.saturating_sub(early));
            let end = connection.rekey_time + connection.over_time;
            line.timers.set(Timer::IkeExpire, turn.now + end);
        }
        if !connection.dpd_delay.is_zero() {
            line.timers.set(Timer::Dpd, turn.now + connection.dpd_delay);
        }
        let keepalive = turn.shared.config.nat_keepalive;
        if line.path.nat_local && !keepalive.is_zero() {
            line.timers.set(Timer::NatKeepalive, turn.now + keepalive);
        }
    }

    /// What the operator sees.
    pub(crate) fn summary(&self, line: &Line) -> IkeUp {
        IkeUp {
            ike: line.id,
            connection: self.peer.connection.name.clone(),
            initiator: line.initiator,
            spi_i: line.spi_i,
            spi_r: line.spi_r,
            local: line.path.local,
            remote: line.path.remote,
            local_id: self.peer.local_id.clone(),
            remote_id: self.peer.remote_id.clone(),
            proposal: self.peer.proposal.clone(),
            nat_local: line.path.nat_local,
            nat_remote: line.path.nat_remote,
        }
    }

    /// When it needs a turn, besides the line's timers.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.children.deadline(), self.tasks.deadline()].into_iter().flatten().min()
    }

    /// Whether a new Child SA or a rekey may be begun by the peer (RFC 7296 §2.25).
    pub(crate) fn busy(&self) -> Option<IkeError> {
        let what = if self.closing.is_some() || self.successor.is_some() {
            "the IKE SA is being closed"
        } else if self.undecided || self.redundant {
            "a rekey of the IKE SA is not decided yet"
        } else if matches!(self.ours, Some(Ours::RekeyIke(_))) {
            "the IKE SA is being rekeyed"
        } else {
            return None;
        };
        Some(IkeError::TemporaryFailure { what })
    }

    /// A request of the peer.
    pub(crate) fn on_request(&mut self, line: &mut Line, turn: &mut Turn<'_>, incoming: Incoming<'_>) {
        match incoming.exchange {
            ExchangeType::CreateChildSa => self.on_create_child_request(line, turn, incoming),
            ExchangeType::Informational => self.on_informational_request(line, turn, incoming),
            _ => {
                let error = IkeError::PeerMisbehaved { what: "an exchange that has no place here" };
                self.refuse(line, turn, incoming, error);
            }
        }
    }

    /// Answers a request with the notify of an error, and tells the operator.
    pub(crate) fn refuse(
        &mut self,
        line: &mut Line,
        turn: &mut Turn<'_>,
        incoming: Incoming<'_>,
        error: IkeError,
    ) {
        let sent = line.respond(turn, incoming.exchange, incoming.id, |writer| {
            crate::exchange::write_refusal(writer, &error);
        });
        self.tell_refused(line, turn, error);
        self.check(sent);
    }

    pub(crate) fn tell_refused(&self, line: &Line, turn: &mut Turn<'_>, error: IkeError) {
        turn.event(Event::Refused {
            ike: Some(line.id),
            connection: Some(self.peer.connection.name.clone()),
            remote: line.path.remote,
            error,
            authenticated: true,
        });
    }

    /// A message that cannot be sealed ends the IKE SA: nothing of ours would reach the peer any more.
    pub(crate) fn check(&mut self, sent: Result<(), IkeError>) {
        if sent.is_err() {
            self.finished = Some(DownReason::Failed);
        }
    }

    /// A response to our outstanding request.
    pub(crate) fn on_response(&mut self, line: &mut Line, turn: &mut Turn<'_>, incoming: Incoming<'_>) {
        if let Some(ours) = self.ours.take() {
            ours.on_reply(self, line, turn, incoming.payloads);
        }
    }

    /// Runs tasks until one has to wait for the peer.
    pub(crate) fn run_tasks(&mut self, line: &mut Line, turn: &mut Turn<'_>) {
        if line.window.nearly_exhausted() && self.successor.is_none() && self.closing.is_none() {
            self.tasks.push(Task::RekeyIke);
        }
        while self.ours.is_none() && self.finished.is_none() && line.window.next_request().is_some() {
            if self.undecided {
                return;
            }
            let Some(task) = self.tasks.pop() else { return };
            if self.closing.is_some() && !matches!(task, Task::DeleteIke(_)) {
                continue;
            }
            match crate::exchange::begin(self, line, turn, task.clone()) {
                Ok(begun) => self.ours = begun,
                Err(error) => self.not_begun(line, turn, task, error),
            }
        }
    }

    /// A task of ours could not even be asked for: it waits, or it was the last one.
    fn not_begun(&mut self, line: &Line, turn: &mut Turn<'_>, task: Task, error: IkeError) {
        self.tell_refused(line, turn, error);
        match task {
            Task::DeleteIke(reason) => self.finished = Some(reason),
            Task::DeleteChild(key) => self.forget_child(line, turn, key),
            Task::Probe => {}
            task => self.try_again(turn, task),
        }
    }

    /// Does a task again after a while, with jitter: both ends may have met at the same moment.
    pub(crate) fn try_again(&mut self, turn: &mut Turn<'_>, task: Task) {
        let at = turn.now + AGAIN_AFTER + turn.part_of(AGAIN_AFTER);
        self.tasks.push_later(at, task);
    }

    /// A timer of the line.
    pub(crate) fn on_timer(&mut self, line: &mut Line, turn: &mut Turn<'_>, timer: Timer) {
        match timer {
            Timer::Dpd => self.look_for_life(line, turn),
            Timer::NatKeepalive => {
                let (local, remote) = (line.path.local, line.path.remote);
                turn.transmit(crate::endpoint::Transmit {
                    local,
                    remote,
                    bytes: vec![0xff],
                    keepalive: true,
                });
                line.timers.set(Timer::NatKeepalive, turn.now + turn.shared.config.nat_keepalive);
            }
            Timer::IkeRekey if self.successor.is_none() => self.tasks.push(Task::RekeyIke),
            Timer::IkeExpire => self.expire(line, turn),
            Timer::IkeRekey | Timer::Retransmit | Timer::HalfOpen => {}
        }
    }

    fn expire(&mut self, line: &mut Line, turn: &mut Turn<'_>) {
        if self.closing.is_some() {
            self.finished = Some(DownReason::Lifetime);
            return;
        }
        let replaced = self.successor.is_some() || self.undecided;
        if !replaced {
            self.bring_up_again(turn, |child| child.start_action == Action::Start);
        }
        self.undecided = false;
        let reason = if replaced { DownReason::Replaced } else { DownReason::Lifetime };
        self.tasks.push(Task::DeleteIke(reason));
        line.timers.set(Timer::IkeExpire, turn.now + LAST_WORDS);
    }

    fn look_for_life(&mut self, line: &mut Line, turn: &mut Turn<'_>) {
        let delay = self.peer.connection.dpd_delay;
        let inbound = self.children.keys_where(|child| matches!(child.inbound.state, HalfState::Installed));
        match self.watch.look(turn, line.heard, delay, inbound.into_iter()) {
            Verdict::Heard(at) | Verdict::Asking(at) => line.timers.set(Timer::Dpd, at),
            Verdict::Silent(idle) => {
                line.timers.set(Timer::Dpd, turn.now + delay);
                // Any request of ours that is outstanding asks as well as a probe does.
                if self.ours.is_none() {
                    turn.event(Event::LivenessProbe { ike: line.id, idle });
                    self.tasks.push(Task::Probe);
                }
            }
        }
    }

    /// The data plane says how long an inbound SA has been silent.
    pub(crate) fn on_stats(&mut self, line: &mut Line, turn: &mut Turn<'_>, sa: SaId, stats: SaStats) {
        if let Some(at) = self.watch.on_stats(turn.now, sa, stats, self.peer.connection.dpd_delay) {
            line.timers.set(Timer::Dpd, at);
        }
    }

    /// Everything that is due besides the line's timers.
    pub(crate) fn on_timeout(&mut self, line: &mut Line, turn: &mut Turn<'_>) {
        self.tasks.ripen(turn.now);
        let due: Vec<SaId> = self
            .children
            .iter()
            .filter(|(_, child)| child.deadline() <= Some(turn.now))
            .map(|(key, _)| key)
            .collect();
        for key in due {
            self.child_due(line, turn, key);
        }
    }

    fn child_due(&mut self, line: &mut Line, turn: &mut Turn<'_>, key: SaId) {
        let Some(child) = self.children.get_mut(key) else { return };
        if child.deadline().is_none_or(|at| at > turn.now) {
            return;
        }
        if let Some(sa) = child.overdue(turn.now) {
            let error = IkeError::DataPlane { what: "no answer within its deadline".to_owned() };
            return self.on_installed(line, turn, sa, Err(error));
        }
        match child.phase {
            Phase::Lingering { .. } => {
                child.remove_both(turn);
                self.children.remove(key);
            }
            Phase::Up if child.expire_at.is_some_and(|at| at <= turn.now) => {
                child.expire_at = None;
                child.rekey_at = None;
                child.down = DownReason::Lifetime;
                let again = child.replaced_by.is_none().then(|| child.config.clone());
                self.tasks.push(Task::DeleteChild(key));
                if let Some(config) = again.filter(|config| config.start_action == Action::Start) {
                    self.tasks.push(Task::CreateChild(config));
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
        line: &mut Line,
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
        if !matches!(half.state, HalfState::Asked { .. }) {
            return;
        }
        if result.is_ok() {
            half.state = HalfState::Installed;
        }
        let answering = direction == Direction::Inbound
            && self.theirs.as_ref().is_some_and(|theirs| theirs.child() == key);
        if answering {
            if let Some(theirs) = self.theirs.take() {
                theirs.on_installed(self, line, turn, result);
            }
            return;
        }
        match (result, direction) {
            (Ok(()), Direction::Inbound) => {
                if child.phase == Phase::Opening {
                    child.install(turn, line.id, Direction::Outbound);
                }
            }
            (Ok(()), Direction::Outbound) => {
                turn.effect(Effect::Superseded(child.reqid));
                if child.phase == Phase::Opening {
                    self.opened(line, turn, key);
                }
            }
            (Err(error), _) => self.child_failed(line, turn, key, error),
        }
    }

    /// A Child SA works: the operator is told, and the one whose place it takes is deleted by us if the
    /// exchange was ours.
    pub(crate) fn opened(&mut self, line: &Line, turn: &mut Turn<'_>, key: SaId) {
        let Some(child) = self.children.get_mut(key) else { return };
        child.phase = Phase::Up;
        child.told = true;
        child.start_clocks(turn);
        let (summary, initiator, replaces) = (child.summary(line.id), child.initiator, child.replaces);
        match replaces.and_then(|old| Some((old, self.children.get_mut(old)?))) {
            Some((old, predecessor)) => {
                predecessor.replaced_by = Some(key);
                turn.event(Event::ChildRekeyed { old, new: summary, initiator });
                if initiator {
                    predecessor.down = DownReason::Replaced;
                    self.tasks.push(Task::DeleteChild(old));
                }
            }
            None => turn.event(Event::ChildUp(summary)),
        }
        if !initiator && replaces.is_none_or(|old| self.children.get(old).is_none()) {
            self.promote(line, turn, key);
        }
    }

    /// Moves outbound traffic to a Child SA that the peer is known to have.
    pub(crate) fn promote(&mut self, line: &Line, turn: &mut Turn<'_>, key: SaId) {
        let Some(child) = self.children.get_mut(key) else { return };
        if child.is_up() && matches!(child.outbound.state, HalfState::Held(_)) {
            if turn.shared.data_plane {
                child.install(turn, line.id, Direction::Outbound);
            } else {
                let what = "it is down".to_owned();
                self.child_failed(line, turn, key, IkeError::DataPlane { what });
            }
        }
    }

    /// The data plane did not take a Child SA that the peer has: it is deleted at both ends, and what it
    /// was to replace goes on.
    pub(crate) fn child_failed(&mut self, line: &Line, turn: &mut Turn<'_>, key: SaId, error: IkeError) {
        self.tell_refused(line, turn, error);
        let Some(child) = self.children.get_mut(key) else { return };
        child.down = DownReason::DataPlane;
        // Where inbound works, the peer may be using it already: it stays until the peer has let go.
        child.remove(turn, Direction::Outbound);
        if !matches!(child.inbound.state, HalfState::Installed) {
            child.remove(turn, Direction::Inbound);
        }
        child.phase = Phase::Deleting;
        child.rekey_at = None;
        child.expire_at = None;
        let was_up = child.told;
        child.tell_down(turn, line.id);
        let (replaces, config) = (child.replaces, child.config.clone());
        self.tasks.push(Task::DeleteChild(key));
        match replaces.and_then(|old| self.children.get_mut(old)).filter(|old| old.phase == Phase::Up) {
            Some(old) => {
                old.replaced_by = None;
                old.rekey_at = Some(turn.now + AGAIN_AFTER + turn.part_of(AGAIN_AFTER));
            }
            None if was_up => self.tasks.push(Task::CreateChild(config)),
            None => self.try_again(turn, Task::CreateChild(config)),
        }
    }

    /// A Child SA is deleted at both ends. Its successor gets the outbound traffic, if it has not yet; its
    /// own inbound half decrypts what is still on the way.
    pub(crate) fn forget_child(&mut self, line: &Line, turn: &mut Turn<'_>, key: SaId) {
        let Some(child) = self.children.get_mut(key) else { return };
        let (successor, replaces) = (child.replaced_by, child.replaces);
        child.tell_down(turn, line.id);
        let handed_back = self.takes_over_again(turn, key, replaces);
        if let Some(successor) = successor {
            // First the new outbound, then the old one goes: no packet finds none.
            self.promote(line, turn, successor);
        }
        let Some(child) = self.children.get_mut(key) else { return };
        child.remove(turn, Direction::Outbound);
        let overlap = child.config.overlap;
        let followed = successor.is_some() || handed_back;
        if followed && !overlap.is_zero() && matches!(child.inbound.state, HalfState::Installed) {
            child.phase = Phase::Lingering { until: turn.now + overlap };
        } else {
            child.remove_both(turn);
            self.children.remove(key);
        }
    }

    /// A Child SA goes before the one whose place it took: that one is again the one that counts.
    fn takes_over_again(&mut self, turn: &mut Turn<'_>, key: SaId, replaces: Option<SaId>) -> bool {
        let Some(old) = replaces.and_then(|old| self.children.get_mut(old)) else { return false };
        if old.replaced_by == Some(key) {
            old.replaced_by = None;
            old.rekey_at = Some(turn.now + AGAIN_AFTER + turn.part_of(AGAIN_AFTER));
        }
        true
    }

    /// The first packet under an inbound SA: the peer has it, so outbound may follow.
    pub(crate) fn on_first_packet(&mut self, line: &Line, turn: &mut Turn<'_>, sa: SaId) {
        self.promote(line, turn, sa);
    }

    /// An SA has reached a limit by bytes or packets.
    pub(crate) fn on_lifetime(&mut self, sa: SaId, hard: bool) {
        let Some((key, _)) = self.children.of_sa(sa) else { return };
        let Some(child) = self.children.get_mut(key) else { return };
        if child.phase != Phase::Up || child.replaced_by.is_some() {
            return;
        }
        if hard {
            // It has stopped: no use in keeping it until the peer agrees to a new one.
            child.down = DownReason::Lifetime;
            let config = child.config.clone();
            self.tasks.push(Task::CreateChild(config));
            self.tasks.push(Task::DeleteChild(key));
        } else {
            child.rekey_at = None;
            self.tasks.push(Task::RekeyChild(key));
        }
    }

    /// Outer addresses changed: outbound ESP follows.
    pub(crate) fn children_follow(&mut self, line: &Line, turn: &mut Turn<'_>) {
        let outer = line.path.outer();
        for child in self.children.values_mut() {
            if child.outer == outer {
                continue;
            }
            child.outer = outer;
            for half in [&child.outbound, &child.inbound] {
                if matches!(half.state, HalfState::Asked { .. } | HalfState::Installed) {
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
    pub(crate) fn on_data_plane_down(&mut self, line: &mut Line, turn: &mut Turn<'_>) {
        for key in self.children.keys_where(|_| true) {
            let asked: Vec<SaId> = self.children.get(key).map_or_else(Vec::new, |child| {
                [&child.inbound, &child.outbound]
                    .into_iter()
                    .filter(|half| matches!(half.state, HalfState::Asked { .. }))
                    .map(|half| half.id)
                    .collect()
            });
            for sa in asked {
                let error = IkeError::DataPlane { what: "it died".to_owned() };
                self.on_installed(line, turn, sa, Err(error));
            }
        }
        for key in self.children.keys_where(|child| matches!(child.phase, Phase::Lingering { .. })) {
            self.children.remove(key);
        }
        for child in self.children.values_mut() {
            child.died(turn);
        }
    }

    /// The data plane is back, and empty: every Child SA is replaced by a new one at once.
    pub(crate) fn on_data_plane_up(&mut self) {
        for key in self.children.keys_where(|child| child.is_up() && child.replaced_by.is_none()) {
            self.tasks.push(Task::RekeyChild(key));
        }
    }

    /// Asks for a Child SA, unless one of that name is up or wanted already.
    pub(crate) fn create_unless_up(&mut self, config: &Arc<ChildConfig>) {
        let up = self.children.iter().any(|(_, child)| {
            child.config.name == config.name
                && matches!(child.phase, Phase::Opening | Phase::Up)
                && child.replaced_by.is_none()
        });
        if !up {
            self.tasks.push(Task::CreateChild(config.clone()));
        }
    }

    /// Asks the endpoint to bring up children once more that `which` selects, of those that are there or
    /// wanted.
    pub(crate) fn bring_up_again(&self, turn: &mut Turn<'_>, which: impl Fn(&ChildConfig) -> bool) {
        let there = self.children.iter().map(|(_, child)| &child.config);
        let asked = self.ours.iter().filter_map(Ours::creates);
        let mut names: Vec<Arc<str>> = Vec::new();
        for config in there.chain(self.tasks.to_be_created()).chain(asked) {
            if which(config) && !names.contains(&config.name) {
                names.push(config.name.clone());
            }
        }
        for name in names {
            let connection = self.peer.connection.clone();
            turn.effect(Effect::Again { connection, child: Some(name), failed: false });
        }
    }

    /// Ends it here: Child SAs leave the data plane.
    pub(crate) fn abandon(&mut self, line: &Line, turn: &mut Turn<'_>, reason: DownReason) {
        match reason {
            DownReason::PeerDead if self.successor.is_none() => {
                self.bring_up_again(turn, |child| child.dpd_action == Action::Start);
            }
            DownReason::Peer if self.successor.is_none() => {
                self.bring_up_again(turn, |child| child.close_action == Action::Start);
            }
            _ => {}
        }
        if let Some(ours) = self.ours.take()
            && let Some(heir) = ours.abandon(turn)
        {
            self.bequeath(turn, heir);
        }
        if let Some(theirs) = self.theirs.take() {
            theirs.abandon(self, turn);
        }
        for child in core::mem::take(&mut self.children).into_values() {
            self.drop_child(line, turn, child, reason);
        }
    }

    /// Gives Child SAs and tasks to the IKE SA that takes our place.
    pub(crate) fn bequeath(&mut self, turn: &mut Turn<'_>, heir: IkeSaId) {
        self.successor = Some(heir);
        let estate = Box::new(Estate {
            connection: self.peer.connection.clone(),
            children: core::mem::take(&mut self.children),
            tasks: core::mem::take(&mut self.tasks),
            reqids: self.peer.reqids.clone(),
        });
        turn.effect(Effect::Inherit { to: heir, estate });
    }

    /// Takes over what a predecessor bequeathed.
    pub(crate) fn inherit(&mut self, line: &mut Line, turn: &mut Turn<'_>, estate: Estate) {
        self.undecided = false;
        self.peer.reqids = estate.reqids;
        self.children.inherit(turn, line.id, estate.children);
        self.tasks.inherit(estate.tasks);
        for spi in core::mem::take(&mut self.late_deletes) {
            if let Some(key) = self.children.of_peer_spi(spi) {
                self.deleted_by_peer(line, turn, key);
            }
        }
        self.children_follow(line, turn);
    }

    fn drop_child(&self, line: &Line, turn: &mut Turn<'_>, mut child: ChildSa, reason: DownReason) {
        child.down = reason;
        child.tell_down(turn, line.id);
        child.remove_both(turn);
    }

    /// A request of ours was refused for now, or for good.
    pub(crate) fn on_refused(&mut self, line: &Line, turn: &mut Turn<'_>, error: IkeError, task: Task) {
        let temporary = matches!(
            &error,
            IkeError::PeerRefused { notify: NotifyType::TemporaryFailure | NotifyType::NoAdditionalSas, .. }
                | IkeError::DataPlane { .. }
                | IkeError::Limit { .. }
        );
        self.tell_refused(line, turn, error);
        match task {
            Task::RekeyChild(key) => {
                let again = turn.now + AGAIN_AFTER + turn.part_of(AGAIN_AFTER);
                if let Some(child) = self.children.get_mut(key).filter(|child| child.replaced_by.is_none()) {
                    child.rekey_at = Some(if temporary { again } else { again + REFUSED_FOR_GOOD });
                }
            }
            Task::RekeyIke if self.successor.is_none() => {
                self.try_again(turn, Task::RekeyIke);
            }
            Task::CreateChild(_) if temporary => self.try_again(turn, task),
            _ => {}
        }
    }
}

/// What an IKE SA leaves to the one that takes its place.
pub(crate) struct Estate {
    connection: Arc<Connection>,
    children: Children,
    tasks: Tasks,
    reqids: Vec<(Arc<str>, Reqid)>,
}

impl Estate {
    /// There is no heir: Child SAs leave the data plane, and those that start by themselves start again.
    pub(crate) fn dissolve(self, turn: &mut Turn<'_>, ike: IkeSaId) {
        let mut wanted: Vec<Arc<ChildConfig>> = self.tasks.to_be_created().cloned().collect();
        for mut child in self.children.into_values() {
            child.down = DownReason::PeerDead;
            child.tell_down(turn, ike);
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

/// How long an IKE SA that is replaced or expired waits for the answer to its DELETE.
pub(crate) const LAST_WORDS: Duration = Duration::from_mins(1);

/// How long a rekey waits that the peer refused by policy: the operator may change it meanwhile.
const REFUSED_FOR_GOOD: Duration = Duration::from_secs(30);
