//! What a worker and the housekeeping thread say to each other, over two bounded queues.
//!
//! Whatever allocates is made by the housekeeper and comes in a box; what it replaces goes back the same
//! way, so that a worker neither allocates nor frees.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use pollux_abi::SaId;
use pollux_abi::command::Direction;
use pollux_esp::{CompiledPolicies, Explanation};
use pollux_packet::ethernet::Mac;
use pollux_packet::{Flow, PortSlot};
use pollux_port::Port;
use pollux_shm::{DataplaneRing, Doorbell, DoorbellRinger};
use rtrb::{Consumer, Producer, RingBuffer};
use rustix::io::Errno;

use crate::forward::fib::Fib;
use crate::forward::neighbour::NeighbourKey;

/// A port as a worker owns it.
pub type BoxedPort = Box<dyn Port + Send>;

/// What changes about a port while it exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortFacts {
    /// Its own link-layer address: the source of what is sent.
    pub mac: Mac,
    /// The one and only neighbour, where nobody has to be asked for it: the host port's other end.
    pub peer: Option<Mac>,
    /// Octets of IP that one frame carries.
    pub mtu: u16,
    /// Whether packets can be sent.
    pub up: bool,
}

/// From the housekeeper to a worker.
pub enum ToWorker {
    /// New routes.
    Fib(Box<Fib>),
    /// New policies.
    Policies(Box<CompiledPolicies>),
    /// A control process has attached: its ring, in place of the old one.
    Ring(Box<DataplaneRing>),
    /// The control process is gone: its ring is of no use any more.
    RingGone,
    /// A neighbour is known, or has changed.
    Neighbour(NeighbourKey, Mac),
    /// A neighbour is no longer known; `failed`: the kernel asked for it without an answer.
    NeighbourGone {
        /// Which.
        key: NeighbourKey,
        /// Whether packets that wait for it are lost.
        failed: bool,
    },
    /// A port's addresses, MTU or state.
    Facts(PortSlot, PortFacts),
    /// A new socket for a port, in place of what was there.
    Port(PortSlot, BoxedPort),
    /// A port's device is gone.
    PortGone(PortSlot),
    /// The source address of ICMP errors, one for each family.
    ErrorSource(IpAddr),
    /// An SA has reached its soft or hard limit by age.
    Age {
        /// Which.
        sa: SaId,
        /// Whether it stops.
        hard: bool,
    },
    /// Asks what would become of a packet.
    Explain(Box<Flow>, Direction),
    /// Ends the loop after this round.
    Stop,
}

/// From a worker to the housekeeper.
pub enum FromWorker {
    /// Packets wait for this neighbour, or go to it: the kernel is to resolve or confirm it.
    Use(NeighbourKey),
    /// To be freed.
    RetiredFib(Box<Fib>),
    /// To be freed; the new policies are in force.
    RetiredPolicies(Box<CompiledPolicies>),
    /// To be freed; `None` where there was no ring before. The new one is in use.
    RetiredRing(Option<Box<DataplaneRing>>),
    /// A closed port, to be freed.
    RetiredPort(PortSlot, BoxedPort),
    /// The control process wrote an impossible index; its ring is not read any more.
    RingBroken,
    /// Answer to a question.
    Explained(Box<Flow>, Explanation),
}

/// Wakes a worker that blocks. It costs a system call only then.
#[derive(Debug)]
pub struct Waker {
    ringer: DoorbellRinger,
    sleeping: Arc<AtomicBool>,
}

impl Waker {
    /// Call it after something was put into one of the worker's queues.
    pub fn wake(&self) {
        // The queue's store must not pass the load of the flag; the sleeper has the mirror image.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) {
            self.ringer.pull();
        }
    }

    /// Another waker of the same worker.
    pub fn try_clone(&self) -> Result<Self, Errno> {
        Ok(Self { ringer: self.ringer.try_clone()?, sleeping: Arc::clone(&self.sleeping) })
    }
}

/// The side that sleeps.
#[derive(Debug)]
pub struct Sleeper {
    doorbell: Doorbell,
    sleeping: Arc<AtomicBool>,
}

impl Sleeper {
    /// Says that this side is about to block; look into the queues once more after it, and then at the
    /// descriptor.
    pub fn prepare(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that this side is awake and needs no doorbell.
    pub fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
        self.doorbell.quiet();
    }
}

impl AsFd for Sleeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }
}

/// A waker and its sleeper.
pub fn waker() -> Result<(Sleeper, Waker), Errno> {
    let (doorbell, ringer) = Doorbell::pair()?;
    let sleeping = Arc::new(AtomicBool::new(false));
    Ok((Sleeper { doorbell, sleeping: Arc::clone(&sleeping) }, Waker { ringer, sleeping }))
}

/// Messages that wait in each direction at most; the housekeeper keeps what does not fit and offers it
/// again, a worker offers it in its next round or does without.
const QUEUE_LEN: usize = 1024;

/// The housekeeper's end.
pub struct HousekeeperLink {
    /// To the worker.
    pub to_worker: Producer<ToWorker>,
    /// From the worker.
    pub from_worker: Consumer<FromWorker>,
}

/// The worker's end.
pub struct WorkerEnd {
    pub(crate) to_worker: Consumer<ToWorker>,
    pub(crate) from_worker: Producer<FromWorker>,
    pub(crate) housekeeper: Waker,
}

/// The two queues between the housekeeper, whom `house` wakes, and one worker.
pub fn channel(housekeeper: Waker) -> (HousekeeperLink, WorkerEnd) {
    let (to_producer, to_consumer) = RingBuffer::new(QUEUE_LEN);
    let (from_producer, from_consumer) = RingBuffer::new(QUEUE_LEN);
    (
        HousekeeperLink { to_worker: to_producer, from_worker: from_consumer },
        WorkerEnd { to_worker: to_consumer, from_worker: from_producer, housekeeper },
    )
}
