//! Events on their way to control: a bounded queue.

use arrayvec::ArrayVec;
use pollux_abi::Event;

/// Events that wait at most. Lifetimes and first packets are offered again until they fit; the others are
/// rate-limited to far fewer between two polls.
pub(crate) const QUEUE_LEN: usize = 256;

/// A ring of events.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    ring: ArrayVec<Event, QUEUE_LEN>,
    head: usize,
}

impl EventQueue {
    /// Appends; false where the queue is full.
    #[must_use = "a full queue did not take the event"]
    pub(crate) fn push(&mut self, event: Event) -> bool {
        if self.head == self.ring.len() {
            self.ring.clear();
            self.head = 0;
        }
        self.ring.try_push(event).is_ok()
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.ring.get(self.head).copied()?;
        self.head += 1;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_abi::SaId;

    fn event(id: usize) -> Event {
        Event::FirstPacket { sa: SaId(id as u64) }
    }

    #[test]
    fn events_leave_in_order_and_a_full_queue_refuses() {
        let mut queue = EventQueue::default();
        for id in 0..QUEUE_LEN {
            assert!(queue.push(event(id)));
        }
        assert!(!queue.push(event(999)));
        for id in 0..QUEUE_LEN {
            assert_eq!(queue.pop(), Some(event(id)));
        }
        assert_eq!(queue.pop(), None);
        assert!(queue.push(event(5)));
        assert_eq!(queue.pop(), Some(event(5)));
    }
}
