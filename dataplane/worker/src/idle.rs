//! What a worker does without work: poll for ever, or poll for a while and then block.

use std::os::fd::AsFd;

use arrayvec::ArrayVec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::stats::{Activity, PORTS_MAX};
use crate::worker::Worker;

/// What an idle worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Polls for ever: the core is its own.
    Spin,
    /// Polls for so many nanoseconds, then blocks on sockets and doorbells.
    Adaptive {
        /// How long it polls empty rings.
        spin_ns: u64,
    },
}

/// Sockets of all ports, the worker's own doorbell, and control's.
const FDS_MAX: usize = PORTS_MAX + 2;

impl Worker {
    /// Blocks until something arrives, or for a fraction of the time after which media are stale.
    ///
    /// Nothing is missed: whoever puts something into a queue and does not see the sleeping flag has put it
    /// there before this looked.
    pub(crate) fn block(&mut self, timeout_ns: u64) {
        self.publish();
        self.counters.activity.set(Activity::Blocked as u64);
        self.sleeper.prepare();
        let ring_sleeps = self.ring.as_mut().is_none_or(|ring| ring.commands.prepare_sleep());
        let is_idle = self.again.is_empty() && self.large.is_empty() && !self.handover.is_waiting();
        if ring_sleeps && is_idle && self.housekeeper.to_worker.is_empty() {
            self.wait_for_any(timeout_ns);
        }
        self.sleeper.awake();
        if let Some(ring) = self.ring.as_mut() {
            ring.commands.awake();
            ring.doorbell.quiet();
        }
        self.counters.activity.set(Activity::Running as u64);
    }

    fn wait_for_any(&mut self, timeout_ns: u64) {
        let mut set: ArrayVec<PollFd<'_>, FDS_MAX> = ArrayVec::new();
        set.push(PollFd::from_borrowed_fd(self.sleeper.as_fd(), PollFlags::IN));
        if let Some(ring) = &self.ring {
            set.push(PollFd::from_borrowed_fd(ring.doorbell.as_fd(), PollFlags::IN));
        }
        for fd in self.ports.iter().filter_map(|entry| entry.port.as_ref()?.fd()).take(PORTS_MAX) {
            set.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        #[expect(clippy::cast_possible_wrap, reason = "less than a second")]
        let timeout = Timespec { tv_sec: 0, tv_nsec: timeout_ns.min(999_999_999) as i64 };
        // A signal ends the wait early, which is as good as a time-out.
        let _ = poll(&mut set, Some(&timeout));
    }
}
