//! The housekeeping thread: everything that is not packets.
//!
//! ```text
//!   netlink ──► network.rs ──► routes, neighbours, ports ──► workers, XDP maps, kernel locks
//!   attach socket, ring ──► commands.rs ──► registry, policies ──► workers
//!   statistics socket ──► queries.rs ──► counters
//!   workers ──► neighbours in use, retired boxes, answers
//! ```

mod commands;
mod guard;
mod network;
mod queries;
mod watch;

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use pollux_abi::command::{Direction, PolicySpec};
use pollux_abi::{CoreId, Event};
use pollux_config::Config;
use pollux_config::api::Effective;
use pollux_ebpf::{Guard, IpNet, Steering};
use pollux_esp::{EngineCounters, Explanation, SaCounterTable};
use pollux_port::Umem;
use pollux_shm::{AttachReply, Attachment, CheckpointFile, DataplaneRing, Listener};
use pollux_worker::housekeeping::{FromWorker, HousekeeperLink, Sleeper, ToWorker, Waker};
use pollux_worker::stats::WorkerCounters;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zeroize::Zeroize;

use crate::counter_writer::CounterWriter;
use crate::device::Device;
use crate::host_port::HostPort;
use crate::locks::Locks;
use crate::netlink::mirror::Mirror;
use crate::netlink::{Rtnl, RuleWatch};
use crate::query::QuerySocket;
use crate::registry::Registry;
use crate::setup::Started;
use commands::Commit;

/// A worker as the housekeeper sees it.
pub struct WorkerLink {
    housekeeper: HousekeeperLink,
    waker: Waker,
    counters: Arc<WorkerCounters>,
    engine: Arc<EngineCounters>,
    core: Option<CoreId>,
    thread: Option<JoinHandle<()>>,
    /// What found the worker's queue full, in order.
    backlog: VecDeque<ToWorker>,
    /// The watchdog has found it stalled and said so.
    stalled: bool,
    stalls: u64,
}

impl WorkerLink {
    /// A worker whose thread has been started.
    pub fn new(
        housekeeper: HousekeeperLink,
        waker: Waker,
        counters: Arc<WorkerCounters>,
        engine: Arc<EngineCounters>,
        core: Option<CoreId>,
        thread: JoinHandle<()>,
    ) -> Self {
        let thread = Some(thread);
        Self {
            housekeeper,
            waker,
            counters,
            engine,
            core,
            thread,
            backlog: VecDeque::new(),
            stalled: false,
            stalls: 0,
        }
    }

    /// Sends a message, after those that wait already.
    fn send(&mut self, message: ToWorker) {
        self.backlog.push_back(message);
        self.push();
    }

    /// Sends what waits, as far as there is room.
    fn push(&mut self) {
        let mut sent = false;
        while let Some(message) = self.backlog.pop_front() {
            match self.housekeeper.to_worker.push(message) {
                Ok(()) => sent = true,
                Err(rtrb::PushError::Full(message)) => {
                    self.backlog.push_front(message);
                    break;
                }
            }
        }
        if sent {
            self.waker.wake();
        }
    }
}

/// What the housekeeper is made of; see [`crate::setup::bring_up`].
pub struct Parts {
    /// Tells this life from others.
    pub instance: u64,
    /// The workers.
    pub started: Started,
    /// The configuration.
    pub config: Config,
    /// For requests to the kernel.
    pub rtnl: Rtnl,
    /// The kernel's network state.
    pub mirror: Mirror,
    /// Word of rules and of routes in our tables.
    pub rules: RuleWatch,
    /// The XDP program.
    pub steering: Steering,
    /// The guard at the exit.
    pub guard: Guard,
    /// The pairs that both hold already.
    pub pairs: Vec<(IpNet, IpNet)>,
    /// The ports.
    pub devices: Vec<Device>,
    /// `pollux0`.
    pub host: Option<HostPort>,
    /// The packets' memory.
    pub umem: Umem,
    /// The counter file.
    pub checkpoints: CheckpointFile,
    /// What brings it to the disk.
    pub counter_writer: CounterWriter,
    /// Where control attaches.
    pub listener: Listener,
    /// Where the operator asks.
    pub queries: QuerySocket,
    /// What control is told.
    pub attach_reply: AttachReply,
    /// Requested and effective.
    pub effective: Vec<Effective>,
}

/// The housekeeper.
pub struct Housekeeper {
    instance: u64,
    since: Instant,
    config: Config,
    rtnl: Rtnl,
    mirror: Mirror,
    rules: RuleWatch,
    steering: Steering,
    guard: Guard,
    /// When what others can take away was last looked at.
    looked_after: Instant,
    /// Rules or routes of ours may have changed since the locks were last compared with the kernel.
    rules_touched: bool,
    /// When they were.
    rules_seen: Instant,
    locks: Locks,
    devices: Vec<Device>,
    host: Option<HostPort>,
    umem: Umem,
    checkpoints: CheckpointFile,
    counter_writer: Option<CounterWriter>,
    /// Manual SAs were noted whose reservations are not on disk yet.
    counters_noted: bool,
    listener: Listener,
    queries: Option<QuerySocket>,
    attach_reply: AttachReply,
    effective: Vec<Effective>,
    workers: Vec<WorkerLink>,
    sleeper: Sleeper,
    sa_counters: Arc<SaCounterTable>,
    aead: &'static str,
    registry: Registry,
    /// The list in force.
    policies: Vec<PolicySpec>,
    /// The list that control is making.
    next_policies: Option<Vec<PolicySpec>>,
    commit: Option<Commit>,
    /// The pairs that the XDP program and the locks hold.
    pairs: Vec<(IpNet, IpNet)>,
    attachment: Option<Attachment>,
    ring: Option<DataplaneRing>,
    /// Events that found the ring full.
    events: VecDeque<Event>,
    explained: Option<Explanation>,
    stopping: bool,
}

/// How long the housekeeper sleeps at most: the watchdog's pace.
const NAP: Duration = Duration::from_millis(50);

impl Housekeeper {
    /// A housekeeper that has told its workers nothing yet.
    pub fn new(parts: Parts) -> Self {
        let Started { workers, sleeper, sa_counters, aead } = parts.started;
        let mut housekeeper = Self {
            instance: parts.instance,
            since: Instant::now(),
            config: parts.config,
            rtnl: parts.rtnl,
            mirror: parts.mirror,
            rules: parts.rules,
            steering: parts.steering,
            guard: parts.guard,
            looked_after: Instant::now(),
            rules_touched: false,
            rules_seen: Instant::now(),
            locks: Locks::default(),
            devices: parts.devices,
            host: parts.host,
            umem: parts.umem,
            checkpoints: parts.checkpoints,
            counter_writer: Some(parts.counter_writer),
            counters_noted: false,
            listener: parts.listener,
            queries: Some(parts.queries),
            attach_reply: parts.attach_reply,
            effective: parts.effective,
            workers,
            sleeper,
            sa_counters,
            aead,
            registry: Registry::default(),
            policies: Vec::new(),
            next_policies: None,
            commit: None,
            pairs: parts.pairs,
            attachment: None,
            ring: None,
            events: VecDeque::new(),
            explained: None,
            stopping: false,
        };
        housekeeper.tell_everything();
        housekeeper.renew_locks();
        housekeeper
    }

    /// What was asked for and what was got, for the operator.
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// Keeps house until a signal or the operator says stop; then stops the workers. The XDP program, the
    /// kernel routes and `pollux0` stay: what is protected stays closed in.
    pub fn run(mut self, signals: &SignalFd) {
        while !self.stopping {
            self.sleep(signals);
            while let Ok(Some(signal)) = signals.read_signal() {
                tracing::info!(signal = signal.ssi_signo, "stopping");
                self.stopping = true;
            }
            self.hear_workers();
            self.follow_network();
            self.attend_control();
            self.read_commands();
            self.answer_queries();
            self.watch_workers();
            self.follow_rules();
            self.look_after();
            for worker in &mut self.workers {
                worker.push();
            }
        }
        self.stop_workers();
    }

    fn sleep(&mut self, signals: &SignalFd) {
        self.sleeper.prepare();
        let ring_sleeps = self.ring.as_mut().is_none_or(|ring| ring.commands.prepare_sleep());
        let quiet = self.workers.iter().all(|worker| worker.housekeeper.from_worker.is_empty());
        if ring_sleeps && quiet {
            let mut set = vec![
                PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.sleeper.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.mirror.follower().as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.rules.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            ];
            if let Some(attachment) = &self.attachment {
                set.push(PollFd::from_borrowed_fd(attachment.as_fd(), PollFlags::IN | PollFlags::RDHUP));
            }
            if let Some(ring) = &self.ring {
                set.push(PollFd::from_borrowed_fd(ring.doorbell.as_fd(), PollFlags::IN));
            }
            for (fd, writes) in self.queries.iter().flat_map(QuerySocket::fds) {
                // The next request is read when the answer is out.
                set.push(PollFd::from_borrowed_fd(fd, if writes { PollFlags::OUT } else { PollFlags::IN }));
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(NAP.subsec_nanos()) };
            // A signal ends the nap early, which is as good as a time-out.
            let _ = poll(&mut set, Some(&timeout));
        }
        self.sleeper.awake();
        if let Some(ring) = self.ring.as_mut() {
            ring.commands.awake();
            ring.doorbell.quiet();
        }
    }

    /// Takes in what the workers have sent.
    fn hear_workers(&mut self) {
        for at in 0..self.workers.len() {
            while let Ok(message) = self.workers[at].housekeeper.from_worker.pop() {
                match message {
                    FromWorker::Use(key) => self.use_neighbour(&key),
                    FromWorker::RetiredPolicies(policies) => {
                        drop(policies);
                        self.note_policies_in_force();
                    }
                    // The others are freed here, where it costs no packet.
                    FromWorker::RetiredFib(_) | FromWorker::RetiredRing(_) => {}
                    FromWorker::RetiredPort(slot, port) => {
                        drop(port);
                        self.note_port_closed(slot);
                    }
                    FromWorker::RingBroken => self.let_control_go("its ring makes no sense any more"),
                    FromWorker::Explained(_, explanation) => self.explained = Some(explanation),
                }
            }
        }
    }

    fn stop_workers(&mut self) {
        for worker in &mut self.workers {
            worker.send(ToWorker::Stop);
        }
        for (worker, id) in self.workers.iter_mut().zip(0u16..) {
            if let Some(thread) = worker.thread.take()
                && thread.join().is_err()
            {
                tracing::error!(worker = id, "worker-panicked");
            }
        }
        self.counter_writer = None;
        self.give_back_numbers();
        if let Err(error) = self.checkpoints.sync() {
            tracing::error!(%error, "counter-file-not-written");
        }
    }
}

impl Housekeeper {
    /// What the workers, which have ended, reserved and did not use is free again.
    fn give_back_numbers(&self) {
        for installed in self.registry.sorted() {
            let spec = &installed.spec;
            let slot = spec.checkpoint.and_then(|slot| usize::try_from(slot).ok());
            if spec.direction == Direction::Outbound
                && let Some(checkpoint) = slot.and_then(|slot| self.checkpoints.checkpoints().get(slot))
                && let Some(row) = self.sa_counters.row(spec.direction, spec.index)
            {
                let unused = row.highest_seq.value().saturating_add(1).max(checkpoint.start());
                checkpoint.reserve(unused.min(checkpoint.reserved()));
            }
        }
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        self.attach_reply.fingerprint_key.zeroize();
    }
}
