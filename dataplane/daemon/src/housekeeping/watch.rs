//! The watchdog over the workers, and what the kernel says of their threads.

use pollux_worker::monotonic_ns;
use pollux_worker::stats::Activity;

use super::{Housekeeper, WorkerLink};

/// A worker that has not begun a round for so long, and does not block, stands still.
const STALLED_NS: u64 = 250_000_000;

impl Housekeeper {
    /// Notices workers that stand still, and that move again.
    pub(super) fn watch_workers(&mut self) {
        let now_ns = monotonic_ns();
        for (worker, id) in self.workers.iter_mut().zip(0u16..) {
            let stamp_ns = worker.counters.heartbeat_ns.value();
            let runs = Activity::from_number(worker.counters.activity.value()) == Activity::Running;
            let stands = runs && stamp_ns != 0 && now_ns.saturating_sub(stamp_ns) > STALLED_NS;
            if stands && !worker.stalled {
                worker.stalls += 1;
                tracing::warn!(worker = id, "worker-stalled");
            } else if !stands && worker.stalled {
                tracing::info!(worker = id, "worker-moves-again");
            }
            worker.stalled = stands;
        }
    }
}

impl WorkerLink {
    /// `running`, `blocked`, `stalled` or `stopped`.
    pub(super) fn state(&self) -> &'static str {
        match Activity::from_number(self.counters.activity.value()) {
            _ if self.stalled => "stalled",
            Activity::Running => "running",
            Activity::Blocked => "blocked",
            Activity::Stopped => "stopped",
        }
    }

    /// CPU seconds of the worker's thread; 0 where the kernel does not say.
    pub(super) fn cpu_s(&self) -> f64 {
        let path = format!("/proc/self/task/{}/schedstat", self.counters.thread_id.value());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let ns: u64 = text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
        std::time::Duration::from_nanos(ns).as_secs_f64()
    }
}
