//! Installing, replacing and removing SAs and policies, step by step and acknowledged.
//!
//! ```text
//!   add      housekeeper SaAdd ─ack(slot)─► non-owners SaRoute ─acks─► owner SaAdd ─ack─► installed
//!   replace  housekeeper SaReplace ─ack──────────────────────────────► owner SaReplace ─ack─► replaced
//!   remove   owner SaDelete ─ack─► non-owners SaDelete ─acks─► housekeeper SaDelete ─ack─► gone
//! ```
//!
//! A refusal or a missed deadline in the middle of an add takes back what was done. Many SAs are on
//! their way at once, so that ten thousand of them take ten rings' worth of turns and not ten thousand.
//! There is no socket and no clock here: time is an argument, the rings are given in.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use pollux_abi::command::{CommandError, PolicySpec, SaRoute, SaSpec};
use pollux_abi::event::SaStats;
use pollux_abi::{Command, KeyMaterial, SaId, Ticket, WorkerId};
use pollux_shm::RingBroken;
use thiserror::Error;

use crate::rings::{Ring, Rings};

/// SAs on their way at once: enough to keep the rings busy, few enough that little key material waits.
const JOBS_MAX: usize = 256;

/// Why something was not done.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The data plane said no.
    #[error("the data plane refused: {0}")]
    Command(CommandError),
    /// It said nothing in time.
    #[error("the data plane did not acknowledge within {0:?}")]
    Late(Duration),
    /// It is gone.
    #[error("the data plane went away")]
    Detached,
}

impl Refusal {
    /// As the data plane's own error, for the IKE core.
    pub(crate) fn command_error(self) -> CommandError {
        match self {
            Self::Command(error) => error,
            Self::Late(_) | Self::Detached => CommandError::Kernel,
        }
    }
}

/// Policy lists are numbered in the order in which they were asked for: the answer to one is no answer to a later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ListNumber(u64);

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Install.
    Add,
    /// New keys, addresses or marks.
    Replace,
    /// Remove.
    Remove,
}

/// What became of it.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// An SA's turn is over.
    Sa { id: SaId, kind: Kind, result: Result<(), Refusal> },
    /// A policy list is in force, or the old one still is.
    Policies { number: ListNumber, list: Vec<PolicySpec>, result: Result<(), Refusal> },
    /// Answer to a query.
    Stats { id: SaId, stats: Option<SaStats> },
}

/// One thing to do.
#[derive(Debug)]
enum Work {
    Add(Box<SaSpec>, Box<KeyMaterial>),
    /// Without keys the SA keeps those that it has.
    Replace(Box<SaSpec>, Option<Box<KeyMaterial>>),
    Remove(WorkerId),
}

#[derive(Debug)]
struct Request {
    id: SaId,
    work: Work,
    patience: Duration,
}

/// An SA on its way.
#[derive(Debug)]
struct Job {
    work: Work,
    kind: Kind,
    patience: Duration,
    /// When its current step is given up.
    deadline: Instant,
    step: u8,
    unanswered: u32,
    /// Why it failed; the job then removes what it had done.
    failure: Option<Refusal>,
}

/// A policy list on its way: begin and entries first, the commit when all of them are taken.
#[derive(Debug)]
struct PolicyJob {
    number: ListNumber,
    list: Vec<PolicySpec>,
    unanswered: usize,
    failure: Option<Refusal>,
    committing: bool,
    deadline: Instant,
    patience: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Purpose {
    Sa(SaId),
    Policy,
    Query(SaId),
}

/// Everything on its way to the data plane.
#[derive(Debug, Default)]
pub(crate) struct Installer {
    jobs: HashMap<SaId, Job>,
    deadlines: BTreeSet<(Instant, SaId)>,
    backlog: VecDeque<Request>,
    policies: Option<PolicyJob>,
    next_policies: Option<(Vec<PolicySpec>, Duration)>,
    /// Of the list that was asked for last.
    last_list: ListNumber,
    tickets: HashMap<Ticket, Purpose>,
    outcomes: VecDeque<Outcome>,
}

impl Installer {
    /// Asks for an SA to be installed. `patience` is how long one step may take.
    pub(crate) fn add(&mut self, spec: SaSpec, key: Box<KeyMaterial>, patience: Duration) {
        let id = spec.id;
        self.backlog.push_back(Request { id, work: Work::Add(Box::new(spec), key), patience });
    }

    /// Asks for an installed SA to get other addresses or marks, and other keys where there are some.
    pub(crate) fn replace(&mut self, spec: SaSpec, key: Option<Box<KeyMaterial>>, patience: Duration) {
        let id = spec.id;
        self.backlog.push_back(Request { id, work: Work::Replace(Box::new(spec), key), patience });
    }

    /// Asks for an SA to be removed.
    pub(crate) fn remove(&mut self, id: SaId, owner: WorkerId, patience: Duration) {
        self.backlog.push_back(Request { id, work: Work::Remove(owner), patience });
    }

    /// Asks for a policy list to be put in force. A list that still waits is superseded, and is over with the outcome
    /// of the one that takes its place.
    pub(crate) fn policies(&mut self, list: Vec<PolicySpec>, patience: Duration) -> ListNumber {
        self.next_policies = Some((list, patience));
        self.last_list = ListNumber(self.last_list.0 + 1);
        self.last_list
    }

    /// Whether a policy list is on its way.
    pub(crate) const fn has_policies(&self) -> bool {
        self.policies.is_some() || self.next_policies.is_some()
    }

    /// Asks for an SA's counters.
    pub(crate) fn query(&mut self, rings: &mut Rings, id: SaId) -> Result<(), RingBroken> {
        let ticket = rings.send(Ring::Housekeeper, &Command::SaQuery(id))?;
        self.tickets.insert(ticket, Purpose::Query(id));
        Ok(())
    }

    /// What has come to an end, in order.
    pub(crate) fn outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// When [`Self::expire`] is to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let policies = self.policies.as_ref().map(|job| job.deadline);
        self.deadlines.first().map(|&(at, _)| at).into_iter().chain(policies).min()
    }

    /// Starts what can be started.
    pub(crate) fn pump(&mut self, rings: &mut Rings, now: Instant) -> Result<(), RingBroken> {
        // One pass over the backlog: a request for an SA that is on its way waits its turn, and keeps its place.
        let mut held = VecDeque::new();
        let mut held_ids = HashSet::new();
        while self.jobs.len() < JOBS_MAX {
            let Some(request) = self.backlog.pop_front() else { break };
            // What was asked for before a removal is in place before it: the next outbound SA of a reqid is used
            // before the one that it follows goes, and no packet finds neither.
            if matches!(request.work, Work::Remove(_)) && self.is_adding() {
                held.push_back(request);
                break;
            }
            if self.jobs.contains_key(&request.id) || held_ids.contains(&request.id) {
                held_ids.insert(request.id);
                held.push_back(request);
                continue;
            }
            self.start(rings, now, request)?;
        }
        while let Some(request) = held.pop_back() {
            self.backlog.push_front(request);
        }
        if self.policies.is_none()
            && let Some((list, patience)) = self.next_policies.take()
        {
            self.start_policies(rings, now, list, patience)?;
        }
        rings.flush()
    }

    /// Whether an SA is on its way in.
    fn is_adding(&self) -> bool {
        self.jobs.values().any(|job| matches!(job.work, Work::Add(..)))
    }

    fn start(&mut self, rings: &mut Rings, now: Instant, request: Request) -> Result<(), RingBroken> {
        let kind = request.work.kind();
        let job = Job {
            work: request.work,
            kind,
            patience: request.patience,
            deadline: now,
            step: 0,
            unanswered: 0,
            failure: None,
        };
        self.advance(rings, now, request.id, job)
    }

    /// Sends the commands of the job's current step, passing over steps without any; ends the job after the last.
    fn advance(&mut self, rings: &mut Rings, now: Instant, id: SaId, mut job: Job) -> Result<(), RingBroken> {
        while let Some(commands) = job.commands(id, rings) {
            if commands.is_empty() {
                job.step += 1;
                continue;
            }
            for (ring, command) in &commands {
                let ticket = rings.send(*ring, command)?;
                self.tickets.insert(ticket, Purpose::Sa(id));
                job.unanswered += 1;
            }
            job.deadline = now + job.patience;
            self.deadlines.insert((job.deadline, id));
            self.jobs.insert(id, job);
            return Ok(());
        }
        let result = job.failure.map_or(Ok(()), Err);
        self.outcomes.push_back(Outcome::Sa { id, kind: job.kind, result });
        Ok(())
    }

    fn start_policies(
        &mut self,
        rings: &mut Rings,
        now: Instant,
        list: Vec<PolicySpec>,
        patience: Duration,
    ) -> Result<(), RingBroken> {
        let begin = std::iter::once(Command::PolicyBegin);
        for command in begin.chain(list.iter().map(|policy| Command::PolicyAdd(*policy))) {
            let ticket = rings.send(Ring::Housekeeper, &command)?;
            self.tickets.insert(ticket, Purpose::Policy);
        }
        let deadline = now + patience;
        let unanswered = list.len() + 1;
        let number = self.last_list;
        let failure = None;
        self.policies =
            Some(PolicyJob { number, list, unanswered, failure, committing: false, deadline, patience });
        Ok(())
    }

    /// Takes an acknowledgement.
    pub(crate) fn acknowledged(
        &mut self,
        rings: &mut Rings,
        now: Instant,
        ticket: Ticket,
        result: Result<u32, CommandError>,
    ) -> Result<(), RingBroken> {
        match self.tickets.remove(&ticket) {
            Some(Purpose::Sa(id)) => self.sa_acknowledged(rings, now, id, result),
            Some(Purpose::Policy) => self.policy_acknowledged(rings, now, result),
            Some(Purpose::Query(id)) => {
                // A query is answered by its counters; an acknowledgement in their place says that there are none.
                if result.is_err() {
                    self.outcomes.push_back(Outcome::Stats { id, stats: None });
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Takes the answer to a query.
    pub(crate) fn answered(&mut self, ticket: Ticket, stats: SaStats) {
        if let Some(Purpose::Query(id)) = self.tickets.remove(&ticket) {
            self.outcomes.push_back(Outcome::Stats { id, stats: Some(stats) });
        }
    }

    fn sa_acknowledged(
        &mut self,
        rings: &mut Rings,
        now: Instant,
        id: SaId,
        result: Result<u32, CommandError>,
    ) -> Result<(), RingBroken> {
        let Some(mut job) = self.jobs.remove(&id) else { return Ok(()) };
        job.unanswered = job.unanswered.saturating_sub(1);
        job.note(result);
        if job.unanswered > 0 {
            self.jobs.insert(id, job);
            return Ok(());
        }
        self.deadlines.remove(&(job.deadline, id));
        job.next_step();
        self.advance(rings, now, id, job)
    }

    fn policy_acknowledged(
        &mut self,
        rings: &mut Rings,
        now: Instant,
        result: Result<u32, CommandError>,
    ) -> Result<(), RingBroken> {
        let Some(job) = &mut self.policies else { return Ok(()) };
        job.unanswered = job.unanswered.saturating_sub(1);
        if let Err(error) = result {
            job.failure.get_or_insert(Refusal::Command(error));
        }
        if job.unanswered > 0 {
            // A long list takes long: what counts is that the data plane goes on answering.
            job.deadline = now + job.patience;
            return Ok(());
        }
        if let Some(failure) = job.failure {
            self.end_policies(Err(failure));
        } else if job.committing {
            self.end_policies(Ok(()));
        } else {
            job.committing = true;
            job.unanswered = 1;
            job.deadline = now + job.patience;
            let ticket = rings.send(Ring::Housekeeper, &Command::PolicyCommit)?;
            self.tickets.insert(ticket, Purpose::Policy);
        }
        Ok(())
    }

    fn end_policies(&mut self, result: Result<(), Refusal>) {
        let Some(PolicyJob { number, list, .. }) = self.policies.take() else { return };
        self.tickets.retain(|_, purpose| !matches!(purpose, Purpose::Policy));
        self.outcomes.push_back(Outcome::Policies { number, list, result });
    }

    /// Gives up what has missed its deadline, and takes it back.
    pub(crate) fn expire(&mut self, rings: &mut Rings, now: Instant) -> Result<(), RingBroken> {
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            let Some(mut job) = self.jobs.remove(&id) else { continue };
            // Late answers must not count for the step that follows.
            self.tickets.retain(|_, purpose| !matches!(purpose, Purpose::Sa(other) if *other == id));
            job.unanswered = 0;
            job.failure.get_or_insert(Refusal::Late(job.patience));
            job.next_step();
            self.advance(rings, now, id, job)?;
        }
        if let Some(job) = self.policies.as_ref().filter(|job| job.deadline <= now) {
            let patience = job.patience;
            self.end_policies(Err(Refusal::Late(patience)));
        }
        Ok(())
    }

    /// The data plane is gone: everything on its way has failed.
    pub(crate) fn detached(&mut self) {
        let jobs = self.jobs.drain().map(|(id, job)| (id, job.kind));
        let waiting = self.backlog.drain(..).map(|request| (request.id, request.work.kind()));
        for (id, kind) in jobs.chain(waiting) {
            self.outcomes.push_back(Outcome::Sa { id, kind, result: Err(Refusal::Detached) });
        }
        if self.policies.take().is_some() | self.next_policies.take().is_some() {
            let (number, list, result) = (self.last_list, Vec::new(), Err(Refusal::Detached));
            self.outcomes.push_back(Outcome::Policies { number, list, result });
        }
        for purpose in self.tickets.drain().map(|(_, purpose)| purpose) {
            if let Purpose::Query(id) = purpose {
                self.outcomes.push_back(Outcome::Stats { id, stats: None });
            }
        }
        self.deadlines.clear();
    }
}

impl Work {
    fn kind(&self) -> Kind {
        match self {
            Self::Add(..) => Kind::Add,
            Self::Replace(..) => Kind::Replace,
            Self::Remove(_) => Kind::Remove,
        }
    }
}

impl Job {
    /// The commands of the current step; `None` after the last.
    fn commands(&self, id: SaId, rings: &Rings) -> Option<Vec<(Ring, Command)>> {
        match &self.work {
            Work::Add(spec, key) => {
                let at = match self.step {
                    0 => return Some(vec![(Ring::Housekeeper, Command::SaAdd((**spec).clone(), copy(key)))]),
                    1 => None,
                    2 => Some(spec.owner),
                    _ => return None,
                };
                Some(match at {
                    Some(owner) => vec![(Ring::Worker(owner), Command::SaAdd((**spec).clone(), copy(key)))],
                    None => {
                        others(rings, spec.owner).map(|ring| (ring, Command::SaRoute(route(spec)))).collect()
                    }
                })
            }
            Work::Replace(spec, key) => {
                let ring = match self.step {
                    0 => Ring::Housekeeper,
                    1 => Ring::Worker(spec.owner),
                    _ => return None,
                };
                Some(vec![(ring, Command::SaReplace((**spec).clone(), key.as_deref().map(copy)))])
            }
            Work::Remove(owner) => {
                let delete = |ring| (ring, Command::SaDelete(id));
                Some(match self.step {
                    0 => vec![delete(Ring::Worker(*owner))],
                    1 => others(rings, *owner).map(delete).collect(),
                    2 => vec![delete(Ring::Housekeeper)],
                    _ => return None,
                })
            }
        }
    }

    /// Takes one answer of the current step.
    fn note(&mut self, result: Result<u32, CommandError>) {
        match (result, &mut self.work) {
            (Ok(slot), Work::Add(spec, _) | Work::Replace(spec, _))
                if self.step == 0 && spec.checkpoint.is_some() =>
            {
                spec.checkpoint = Some(slot);
            }
            // What is to be removed and is not there is removed.
            (Ok(_), _) | (Err(CommandError::Unknown), Work::Remove(_)) => {}
            (Err(error), _) => {
                self.failure.get_or_insert(Refusal::Command(error));
            }
        }
    }

    /// Goes on, or back where an add has failed.
    fn next_step(&mut self) {
        match &self.work {
            Work::Add(spec, _) if self.failure.is_some() => {
                // What the housekeeper refused at once is nowhere; the removal is harmless then, and needed
                // where an answer was late.
                self.work = Work::Remove(spec.owner);
                self.step = 0;
            }
            Work::Replace(..) if self.failure.is_some() => self.step = u8::MAX,
            _ => self.step = self.step.saturating_add(1),
        }
    }
}

fn others(rings: &Rings, owner: WorkerId) -> impl Iterator<Item = Ring> {
    rings.workers().filter(move |&worker| worker != owner).map(Ring::Worker)
}

fn route(spec: &SaSpec) -> SaRoute {
    let SaSpec { id, direction, index, spi, reqid, owner, local_ts, remote_ts, .. } = *spec;
    SaRoute { id, direction, index, spi, reqid, owner, local_ts, remote_ts }
}

/// A copy for a ring; both are wiped, and so is the stack that it passes through once the turn is over.
fn copy(key: &KeyMaterial) -> KeyMaterial {
    KeyMaterial::new(key.as_bytes()).expect("as long as the first")
}
