//! The loop.

use rustix::time::{ClockId, clock_gettime};

use crate::idle::Idle;
use crate::stats::Activity;
use crate::worker::Worker;

/// Nanoseconds of the monotonic clock.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    #[expect(clippy::cast_sign_loss, reason = "the monotonic clock starts at 0")]
    let ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    ns
}

impl Worker {
    /// Does rounds until the housekeeper says stop; then closes the ports and ends.
    pub fn run(&mut self, idle: Idle) {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        self.counters.thread_id.set(u64::from(thread.unsigned_abs()));
        let mut now_ns = monotonic_ns();
        let mut busy_ns = now_ns;
        while !self.stopping {
            let found = self.round(now_ns);
            let begun_ns = now_ns;
            now_ns = monotonic_ns();
            if found != 0 {
                busy_ns = now_ns;
                self.counters.round_ns.note(now_ns - begun_ns);
                continue;
            }
            self.counters.idle_rounds.add(1);
            match idle {
                Idle::Adaptive { spin_ns } if now_ns - busy_ns >= spin_ns => {
                    let timeout_ns = self.stale_ns / 4;
                    self.block(timeout_ns);
                    let slept_ns = monotonic_ns() - now_ns;
                    now_ns += slept_ns;
                    // What the wait was allowed to take is no stall; what it took beyond may be one.
                    self.last_round_ns += slept_ns.min(timeout_ns);
                }
                _ => std::hint::spin_loop(),
            }
        }
        self.close_ports();
        self.publish();
        self.counters.activity.set(Activity::Stopped as u64);
    }
}
