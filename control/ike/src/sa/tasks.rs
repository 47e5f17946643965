//! What an established IKE SA has to ask of its peer, one request after the other.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use pollux_abi::SaId;

use crate::config::ChildConfig;
use crate::event::DownReason;
use crate::time::Instant;

/// Source and destination of a packet that wants a Child SA, as they are on our side.
pub(crate) type PacketPair = (IpAddr, IpAddr);

/// One thing to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// A further Child SA.
    CreateChild(Arc<ChildConfig>),
    /// A further Child SA of a child, for a packet that the narrowed ones leave out (RFC 7296 §2.9).
    CreateFurther(Arc<ChildConfig>, PacketPair),
    /// A new Child SA in place of this one.
    RekeyChild(SaId),
    /// This Child SA is deleted.
    DeleteChild(SaId),
    /// A new IKE SA in place of this one.
    RekeyIke,
    /// This IKE SA is deleted.
    DeleteIke(DownReason),
    /// The Child SA with this SPI of ours, which the peer made and we cannot use, is deleted.
    Release(pollux_abi::Spi),
    /// Does the peer live?
    Probe,
}

/// Tasks that wait for the window, and tasks that wait for their moment.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    now: VecDeque<Task>,
    later: Vec<(Instant, Task)>,
}

impl Tasks {
    /// Appends a task, unless it waits already. Deleting the IKE SA comes before all else.
    pub(crate) fn push(&mut self, task: Task) {
        if self.now.contains(&task) || self.now.len() >= TASKS_MAX {
            return;
        }
        self.later.retain(|(_, waiting)| *waiting != task);
        match task {
            Task::DeleteIke(_) => self.now.push_front(task),
            _ => self.now.push_back(task),
        }
    }

    /// Appends a task that waits for `at`.
    pub(crate) fn push_later(&mut self, at: Instant, task: Task) {
        let known = self.now.contains(&task) || self.later.iter().any(|(_, waiting)| *waiting == task);
        if !known && self.later.len() < TASKS_MAX {
            self.later.push((at, task));
        }
    }

    /// Whether the IKE SA is to be deleted, now or later.
    pub(crate) fn delete_ike(&self) -> bool {
        let later = self.later.iter().map(|(_, task)| task);
        self.now.iter().chain(later).any(|task| matches!(task, Task::DeleteIke(_)))
    }

    /// A task is not wanted any more.
    pub(crate) fn cancel(&mut self, task: &Task) {
        self.now.retain(|waiting| waiting != task);
        self.later.retain(|(_, waiting)| waiting != task);
    }

    /// Whether a task waits for the window.
    pub(crate) fn waits(&self, task: &Task) -> bool {
        self.now.contains(task)
    }

    /// The next task.
    pub(crate) fn pop(&mut self) -> Option<Task> {
        self.now.pop_front()
    }

    /// Children that are to be created, now or later.
    pub(crate) fn to_be_created(&self) -> impl Iterator<Item = &Arc<ChildConfig>> {
        let later = self.later.iter().map(|(_, task)| task);
        self.now.iter().chain(later).filter_map(|task| match task {
            Task::CreateChild(config) => Some(config),
            _ => None,
        })
    }

    /// Moves tasks whose moment has come.
    pub(crate) fn ripen(&mut self, now: Instant) {
        let (due, later) = core::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(Instant, Task)> = due;
        for (_, task) in due {
            self.push(task);
        }
    }

    /// When the next task ripens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.later.iter().map(|(at, _)| *at).min()
    }

    /// Takes over what a predecessor had still to do. Where it was to be deleted, so is its successor,
    /// unless the reason was its age.
    pub(crate) fn inherit(&mut self, from: Self) {
        for task in from.now {
            if !matches!(task, Task::DeleteIke(DownReason::Lifetime) | Task::RekeyIke | Task::Probe) {
                self.push(task);
            }
        }
        for (at, task) in from.later {
            self.push_later(at, task);
        }
    }
}

/// More than [`crate::config::Limits::children_max`] Child SAs can want at once.
const TASKS_MAX: usize = 256;

/// How long a request that the peer refused for now waits, and as much again at random (RFC 7296 §2.25).
pub(crate) const AGAIN_AFTER: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_not_doubled_and_closing_comes_first() {
        let mut tasks = Tasks::default();
        tasks.push_later(Instant::from_nanos(5), Task::RekeyIke);
        tasks.push(Task::RekeyChild(SaId(1)));
        tasks.push(Task::RekeyChild(SaId(1)));
        tasks.push(Task::DeleteIke(DownReason::Operator));
        assert_eq!(tasks.deadline(), Some(Instant::from_nanos(5)));
        tasks.ripen(Instant::from_nanos(5));
        let all: Vec<Task> = core::iter::from_fn(|| tasks.pop()).collect();
        assert_eq!(all, [Task::DeleteIke(DownReason::Operator), Task::RekeyChild(SaId(1)), Task::RekeyIke]);
    }

    #[test]
    fn a_successor_is_deleted_where_its_predecessor_was_to_be() {
        let mut old = Tasks::default();
        for task in [Task::RekeyIke, Task::Probe, Task::DeleteIke(DownReason::Operator)] {
            old.push(task);
        }
        let mut successor = Tasks::default();
        successor.inherit(old);
        let all: Vec<Task> = core::iter::from_fn(|| successor.pop()).collect();
        assert_eq!(all, [Task::DeleteIke(DownReason::Operator)]);
        let mut aged = Tasks::default();
        aged.push(Task::DeleteIke(DownReason::Lifetime));
        successor.inherit(aged);
        assert_eq!(successor.pop(), None, "the successor has an age of its own");
    }

    #[test]
    fn tasks_are_bounded() {
        let mut tasks = Tasks::default();
        for id in 0..10_000 {
            tasks.push(Task::RekeyChild(SaId(id)));
            tasks.push_later(Instant::from_nanos(id), Task::DeleteChild(SaId(id)));
        }
        assert_eq!((tasks.now.len(), tasks.later.len()), (TASKS_MAX, TASKS_MAX));
    }
}
