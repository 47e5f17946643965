//! An IKE SA that works: its Child SAs, its tasks, and at most one exchange each way.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use pollux_abi::event::SaStats;
use pollux_abi::{Reqid, SaId};

use super::channel::Channel;
use super::children::{Children, DirectionState};
use super::liveness::{LivenessDecision, Watch};
use super::tasks::{AGAIN_AFTER, Task, Tasks};
use super::timer::Timer;
use super::{IkeSaId, Incoming, Keys};
use crate::config::{Action, ChildConfig, Connection};
use crate::endpoint::Turn;
use crate::error::IkeError;
use crate::event::{DownReason, Event, IkeUp};
use crate::exchange::{Ours, create_child_responder::ExpectInstalled};
use crate::identity::Identity;
use crate::message::{ExchangeType, Malformed, NotifyType};
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
    pub(crate) reqids: Vec<(Arc<str>, Arc<Reqid>)>,
}

impl Peer {
    /// The reqid of a child, which stays the same through every rekey.
    pub(crate) fn reqid(&mut self, turn: &mut Turn<'_>, child: &ChildConfig) -> Reqid {
        if let Some(reqid) = child.reqid {
            return reqid;
        }
        if let Some((_, reqid)) = self.reqids.iter().find(|(name, _)| *name == child.name) {
            return **reqid;
        }
        let reqid = turn.next_reqid();
        self.reqids.push((child.name.clone(), Arc::clone(&reqid)));
        *reqid
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
    /// Children that have been up and that nobody has closed: whatever takes their last Child SA away, another one is
    /// asked for.
    pub(crate) wanted: BTreeMap<Arc<str>, Arc<ChildConfig>>,
    /// Children of which no further Child SA is asked for before a moment.
    pub(crate) further: BTreeMap<Arc<str>, Instant>,
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
            wanted: BTreeMap::new(),
            further: BTreeMap::new(),
            late_deletes: Vec::new(),
            finished: None,
            answered_last: false,
        }
    }

    /// Starts the clocks of an IKE SA that works now.
    pub(crate) fn start_clocks(&self, channel: &mut Channel, turn: &mut Turn<'_>) {
        let connection = &self.peer.connection;
        channel.timers.stop(Timer::HalfOpen);
        if !connection.rekey_time.is_zero() {
            let early = turn.part_of(connection.rand_time).min(connection.rekey_time / 2);
            channel.timers.set(Timer::IkeRekey, turn.now + connection.rekey_time.saturating_sub(early));
            let end = connection.rekey_time + connection.over_time;
            channel.timers.set(Timer::IkeExpire, turn.now + end);
        }
        if !connection.dpd_delay.is_zero() {
            channel.timers.set(Timer::Dpd, turn.now + connection.dpd_delay);
        }
        let keepalive = turn.shared.config.nat_keepalive;
        if channel.path.nat_local && !keepalive.is_zero() {
            channel.timers.set(Timer::NatKeepalive, turn.now + keepalive);
        }
    }

    /// What the operator sees.
    pub(crate) fn summary(&self, channel: &Channel) -> IkeUp {
        IkeUp {
            ike: channel.id,
            connection: self.peer.connection.name.clone(),
            initiator: channel.initiator,
            spi_i: channel.spi_i,
            spi_r: channel.spi_r,
            local: channel.path.local,
            remote: channel.path.remote,
            local_id: self.peer.local_id.clone(),
            remote_id: self.peer.remote_id.clone(),
            proposal: self.peer.proposal.clone(),
            nat_local: channel.path.nat_local,
            nat_remote: channel.path.nat_remote,
        }
    }

    /// When it needs a turn, besides the line's timers.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.children.deadline(), self.tasks.deadline()].into_iter().flatten().min()
    }

    /// Whether new Child SAs have a future here: it is not closed, replaced or about to be.
    pub(crate) fn stays(&self) -> bool {
        self.closing.is_none()
            && self.successor.is_none()
            && !self.redundant
            && self.finished.is_none()
            && !self.tasks.delete_ike()
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
    pub(crate) fn on_request(&mut self, channel: &mut Channel, turn: &mut Turn<'_>, incoming: Incoming<'_>) {
        match incoming.exchange {
            // The peer ends the IKE SA, wherever it says so (RFC 7296 §2.21.3).
            _ if incoming.payloads.has_notify(NotifyType::InvalidSyntax) => {
                self.on_informational_request(channel, turn, incoming);
            }
            ExchangeType::CreateChildSa => self.on_create_child_request(channel, turn, incoming),
            ExchangeType::Informational => self.on_informational_request(channel, turn, incoming),
            exchange => {
                self.refuse(channel, turn, incoming, Malformed::Exchange(exchange).into());
            }
        }
    }

    /// Answers a request with the notify of an error, and tells the operator. INVALID_SYNTAX ends the IKE SA.
    pub(crate) fn refuse(
        &mut self,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        incoming: Incoming<'_>,
        error: IkeError,
    ) {
        let sent = channel.respond(turn, incoming.exchange, incoming.id, |writer| {
            crate::exchange::write_refusal(writer, &error);
        });
        if error.is_fatal() {
            self.answered_last = true;
            self.finished = Some(DownReason::Failed);
        }
        self.tell_refused(channel, turn, error);
        self.check(&sent);
    }

    pub(crate) fn tell_refused(&self, channel: &Channel, turn: &mut Turn<'_>, error: IkeError) {
        turn.event(Event::Refused {
            ike: Some(channel.id),
            connection: Some(self.peer.connection.name.clone()),
            remote: channel.path.remote,
            error,
            authenticated: true,
        });
    }

    /// A message that cannot be sealed ends the IKE SA: nothing of ours would reach the peer any more.
    pub(crate) fn check(&mut self, sent: &Result<(), IkeError>) {
        if sent.is_err() {
            self.finished = Some(DownReason::Failed);
        }
    }

    /// A response to our outstanding request.
    pub(crate) fn on_response(&mut self, channel: &mut Channel, turn: &mut Turn<'_>, incoming: Incoming<'_>) {
        if incoming.payloads.has_notify(NotifyType::InvalidSyntax) {
            return self.ended_by_peer(channel, turn, NotifyType::InvalidSyntax);
        }
        if let Some(ours) = self.ours.take() {
            ours.on_reply(self, channel, turn, incoming.payloads);
        }
    }

    /// The peer has found that it cannot go on with this IKE SA, which is gone at its end (RFC 7296 §2.21.2, §2.21.3).
    pub(crate) fn ended_by_peer(&mut self, channel: &Channel, turn: &mut Turn<'_>, notify: NotifyType) {
        let name = &self.peer.connection.name;
        let (offered, key) = if notify == NotifyType::InvalidSyntax {
            ("a message that it cannot read".to_owned(), "what the peer's log says of it".to_owned())
        } else {
            (format!("to be {}", self.peer.local_id), format!("connection.{name}.local.id and psk"))
        };
        self.tell_refused(channel, turn, IkeError::PeerRefused { notify, offered, key });
        self.finished = Some(DownReason::Failed);
    }

    /// Runs tasks until one has to wait for the peer.
    pub(crate) fn run_tasks(&mut self, channel: &mut Channel, turn: &mut Turn<'_>) {
        if channel.window.nearly_exhausted() && self.successor.is_none() && self.closing.is_none() {
            self.tasks.push(Task::RekeyIke);
        }
        self.ask_for_lost_children();
        while self.ours.is_none() && self.finished.is_none() && channel.window.next_request().is_some() {
            if self.undecided {
                return;
            }
            let Some(task) = self.tasks.pop() else { return };
            if self.closing.is_some() && !matches!(task, Task::DeleteIke(_)) {
                continue;
            }
            match crate::exchange::begin(self, channel, turn, task.clone()) {
                Ok(begun) => self.ours = begun,
                Err(error) => self.not_begun(channel, turn, task, error),
            }
        }
    }

    /// A rekey that one end believes done and the other one takes back, or two that meet, can leave a child without any
    /// Child SA: it is asked for anew.
    fn ask_for_lost_children(&mut self) {
        if !self.stays() || self.undecided {
            return;
        }
        let is_lost = |config: &&Arc<ChildConfig>| {
            let name = &config.name;
            let creates = self.ours.as_ref().and_then(Ours::creates).into_iter();
            !self.has_child(config)
                && !self.tasks.to_be_created().chain(creates).any(|other| other.name == *name)
        };
        let lost: Vec<Arc<ChildConfig>> = self.wanted.values().filter(is_lost).cloned().collect();
        for config in lost {
            self.tasks.push(Task::CreateChild(config));
        }
    }

    /// A task of ours could not even be asked for: it waits, or it was the last one.
    fn not_begun(&mut self, channel: &Channel, turn: &mut Turn<'_>, task: Task, error: IkeError) {
        self.tell_refused(channel, turn, error);
        match task {
            Task::DeleteIke(reason) => self.finished = Some(reason),
            Task::DeleteChild(key) => self.forget_child(channel, turn, key),
            Task::Probe | Task::CreateFurther(..) => {}
            task => self.try_again(turn, task),
        }
    }

    /// Does a task again after a while, with jitter: both ends may have met at the same moment.
    pub(crate) fn try_again(&mut self, turn: &mut Turn<'_>, task: Task) {
        let at = turn.now + AGAIN_AFTER + turn.part_of(AGAIN_AFTER);
        self.tasks.push_later(at, task);
    }

    /// A timer of the line.
    pub(crate) fn on_timer(&mut self, channel: &mut Channel, turn: &mut Turn<'_>, timer: Timer) {
        match timer {
            Timer::Dpd => self.look_for_life(channel, turn),
            Timer::NatKeepalive => {
                let (local, remote) = (channel.path.local, channel.path.remote);
                turn.transmit(crate::endpoint::Transmit {
                    local,
                    remote,
                    bytes: vec![0xff],
                    keepalive: true,
                });
                channel.timers.set(Timer::NatKeepalive, turn.now + turn.shared.config.nat_keepalive);
            }
            Timer::IkeRekey if self.successor.is_none() => self.tasks.push(Task::RekeyIke),
            Timer::IkeExpire => self.expire(channel, turn),
            Timer::IkeRekey | Timer::Retransmit | Timer::HalfOpen => {}
        }
    }

    fn expire(&mut self, channel: &mut Channel, turn: &mut Turn<'_>) {
        if self.closing.is_some() || self.redundant {
            // A peer that had made the superfluous one too would have deleted it by now.
            self.finished = Some(if self.redundant { DownReason::Replaced } else { DownReason::Lifetime });
            return;
        }
        let replaced = self.successor.is_some() || self.undecided;
        if !replaced {
            self.bring_up_again(turn, |child| child.start_action == Action::Start);
        }
        self.undecided = false;
        let reason = if replaced { DownReason::Replaced } else { DownReason::Lifetime };
        self.tasks.push(Task::DeleteIke(reason));
        channel.timers.set(Timer::IkeExpire, turn.now + LAST_WORDS);
    }

    /// The peer's packets come from elsewhere than the path leads to: asks whether the path lives, and from then on
    /// lets no ESP answer that.
    pub(crate) fn doubt_path(&mut self, channel: &mut Channel, turn: &mut Turn<'_>) {
        if core::mem::replace(&mut channel.esp_elsewhere, true) {
            return;
        }
        if self.ours.is_none() {
            turn.event(Event::LivenessProbe { ike: channel.id, idle: turn.now.since(channel.heard) });
            self.tasks.push(Task::Probe);
        }
    }

    fn look_for_life(&mut self, channel: &mut Channel, turn: &mut Turn<'_>) {
        if self.redundant || self.undecided || self.successor.is_some() {
            // Its end comes by itself, and asks the peer as well as a probe does.
            return;
        }
        let delay = self.peer.connection.dpd_delay;
        let evidence = !channel.esp_elsewhere;
        let inbound = self
            .children
            .keys_where(|child| evidence && matches!(child.inbound.state, DirectionState::Installed));
        match self.watch.look(turn, channel.heard, delay, inbound.into_iter()) {
            LivenessDecision::Heard(at) | LivenessDecision::Asking(at) => channel.timers.set(Timer::Dpd, at),
            LivenessDecision::Silent(idle) => {
                channel.timers.set(Timer::Dpd, turn.now + delay);
                // Any request of ours that is outstanding asks as well as a probe does.
                if self.ours.is_none() {
                    turn.event(Event::LivenessProbe { ike: channel.id, idle });
                    self.tasks.push(Task::Probe);
                }
            }
        }
    }

    /// The data plane says how long an inbound SA has been silent.
    pub(crate) fn on_stats(&mut self, channel: &mut Channel, turn: &mut Turn<'_>, sa: SaId, stats: SaStats) {
        if let Some(at) = self.watch.on_stats(turn.now, sa, stats, self.peer.connection.dpd_delay) {
            channel.timers.set(Timer::Dpd, at);
        }
    }

    /// Everything that is due besides the line's timers.
    pub(crate) fn on_timeout(&mut self, channel: &mut Channel, turn: &mut Turn<'_>) {
        self.tasks.ripen(turn.now);
        let due: Vec<SaId> = self
            .children
            .iter()
            .filter(|(_, child)| child.deadline() <= Some(turn.now))
            .map(|(key, _)| key)
            .collect();
        for key in due {
            self.child_due(channel, turn, key);
        }
    }

    /// A request of ours was refused for now, or for good.
    pub(crate) fn on_refused(&mut self, channel: &Channel, turn: &mut Turn<'_>, error: IkeError, task: Task) {
        let temporary = error.is_temporary();
        self.tell_refused(channel, turn, error);
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
            Task::CreateChild(config) => {
                self.wanted.remove(&config.name);
            }
            // A packet asks again, but not at once.
            Task::CreateFurther(config, _) => {
                let pause = if temporary { AGAIN_AFTER } else { FURTHER_REFUSED };
                self.further.insert(config.name.clone(), turn.now + pause);
            }
            _ => {}
        }
    }
}

/// How long an IKE SA that is replaced or expired waits for the answer to its DELETE.
pub(crate) const LAST_WORDS: Duration = Duration::from_mins(1);

/// How long packets ask in vain for a further Child SA that the peer refused by policy.
pub(super) const FURTHER_REFUSED: Duration = Duration::from_mins(1);

/// How long a rekey waits that the peer refused by policy: the operator may change it meanwhile.
const REFUSED_FOR_GOOD: Duration = Duration::from_secs(30);
