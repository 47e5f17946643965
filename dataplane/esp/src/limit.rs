//! Rate limits with bounded state: for events about things that outsiders can make up, and for ICMP errors.

/// Nanoseconds between two events about one thing, at the least.
const QUIET_NS: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
struct Seen<K> {
    key: K,
    told_ns: u64,
    count: u32,
}

/// Lets an event about each of a few keys pass once per second, and counts in between: of more than `KEYS`
/// different ones within a second, the others go untold.
#[derive(Debug)]
pub(crate) struct EventLimit<K, const KEYS: usize> {
    seen: [Option<Seen<K>>; KEYS],
    /// Nothing that was counted and not told is due before.
    due_ns: u64,
}

impl<K: Copy + PartialEq, const KEYS: usize> EventLimit<K, KEYS> {
    pub(crate) const fn new() -> Self {
        Self { seen: [None; KEYS], due_ns: u64::MAX }
    }

    /// Counts one more of `key`: how many there were since it was last told, where it is time to tell.
    pub(crate) fn hit(&mut self, now_ns: u64, key: K) -> Option<u32> {
        let quiet = |seen: &Seen<K>| now_ns.saturating_sub(seen.told_ns) < QUIET_NS;
        if let Some(seen) = self.seen.iter_mut().flatten().find(|seen| seen.key == key) {
            seen.count = seen.count.saturating_add(1);
            if quiet(seen) {
                self.due_ns = self.due_ns.min(seen.told_ns.saturating_add(QUIET_NS));
                return None;
            }
            let count = seen.count;
            *seen = Seen { key, told_ns: now_ns, count: 0 };
            return Some(count);
        }
        // A slot that has been quiet for long enough may be given away; with none, the key goes untold.
        let free = self.seen.iter_mut().find(|slot| !slot.as_ref().is_some_and(quiet))?;
        *free = Some(Seen { key, told_ns: now_ns, count: 0 });
        Some(1)
    }

    /// A key with what was counted of it since it was told, where that was long enough ago: the end of a burst is told
    /// without another hit.
    pub(crate) fn overdue(&mut self, now_ns: u64) -> Option<(K, u32)> {
        if now_ns < self.due_ns {
            return None;
        }
        let mut due_ns = u64::MAX;
        let mut told = None;
        for seen in self.seen.iter_mut().flatten().filter(|seen| seen.count > 0) {
            let at_ns = seen.told_ns.saturating_add(QUIET_NS);
            if told.is_none() && at_ns <= now_ns {
                told = Some((seen.key, seen.count));
                *seen = Seen { key: seen.key, told_ns: now_ns, count: 0 };
            } else {
                due_ns = due_ns.min(at_ns);
            }
        }
        self.due_ns = due_ns;
        told
    }
}

/// ICMP errors per second, at the most (RFC 1812 §4.3.2.8, RFC 4443 §2.4): enough for the path MTU
/// discovery of every sender behind a gateway, and less than a flood.
const ERRORS_PER_SECOND: u64 = 1_000;
/// Errors in a row after a pause.
const ERRORS_BURST: u64 = 100;

/// A token bucket for ICMP errors.
#[derive(Debug)]
pub(crate) struct ErrorLimit {
    tokens: u64,
    filled_ns: u64,
}

impl ErrorLimit {
    pub(crate) const fn new() -> Self {
        Self { tokens: ERRORS_BURST, filled_ns: 0 }
    }

    /// Whether one more may be sent.
    pub(crate) fn pass(&mut self, now_ns: u64) -> bool {
        let each = QUIET_NS / ERRORS_PER_SECOND;
        let new = now_ns.saturating_sub(self.filled_ns) / each;
        if new > 0 {
            self.tokens = self.tokens.saturating_add(new).min(ERRORS_BURST);
            self.filled_ns = now_ns;
        }
        let pass = self.tokens > 0;
        self.tokens -= u64::from(pass);
        pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_told_once_per_second_with_its_count() {
        let mut limit = EventLimit::<_, 16>::new();
        assert_eq!(limit.hit(5, 'a'), Some(1));
        assert_eq!(limit.hit(6, 'a'), None);
        assert_eq!(limit.hit(7, 'b'), Some(1));
        assert_eq!(limit.hit(QUIET_NS + 5, 'a'), Some(2));
    }

    #[test]
    fn the_end_of_a_burst_is_told_without_another_hit() {
        let mut limit = EventLimit::<_, 16>::new();
        assert_eq!([limit.hit(5, 'a'), limit.hit(6, 'b')], [Some(1), Some(1)]);
        assert_eq!(limit.overdue(QUIET_NS + 6), None, "nothing came since");
        let later = 2 * QUIET_NS;
        assert_eq!(
            [limit.hit(later, 'a'), limit.hit(later, 'b'), limit.hit(later + 1, 'a')],
            [Some(1), Some(1), None]
        );
        assert_eq!([limit.hit(later + 2, 'a'), limit.hit(later + 3, 'b')], [None, None]);
        assert_eq!(limit.overdue(later + QUIET_NS - 1), None);
        let mut told = [limit.overdue(later + QUIET_NS), limit.overdue(later + QUIET_NS)];
        told.sort_unstable();
        assert_eq!(told, [Some(('a', 2)), Some(('b', 1))]);
        assert_eq!(limit.overdue(u64::MAX), None);
    }

    #[test]
    fn a_flood_of_keys_is_told_of_few() {
        let mut limit = EventLimit::<_, 16>::new();
        let told = (0..1_000_000u64).filter(|key| limit.hit(5 + key / 1_000, *key).is_some()).count();
        assert_eq!(told, 16);
        assert_eq!(limit.hit(2 * QUIET_NS, 7_777_777), Some(1), "a quiet second frees the slots");
    }

    #[test]
    fn errors_flow_at_their_rate() {
        let mut limit = ErrorLimit::new();
        let passed = (0..100_000u64).filter(|step| limit.pass(QUIET_NS + step * 100_000)).count() as u64;
        let expected = ERRORS_BURST + 10 * ERRORS_PER_SECOND;
        assert!((expected - 2..=expected + 2).contains(&passed), "{passed} in ten seconds");
    }
}
