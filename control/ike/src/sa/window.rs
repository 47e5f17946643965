//! Message ids, cached answers and retransmission, with a window of one request each way (RFC 7296 §2.1–2.3).

use core::time::Duration;

use crate::config::Retransmit;
use crate::message::MessageId;

/// The window of one IKE SA.
#[derive(Debug, Default)]
pub(crate) struct Window {
    next: Option<MessageId>,
    pending: Option<Pending>,
    expected: Option<MessageId>,
    answer: Option<Vec<u8>>,
    /// The last request is taken and not answered yet.
    unanswered: bool,
}

/// Our request that waits for its response.
#[derive(Debug)]
struct Pending {
    id: MessageId,
    bytes: Vec<u8>,
    attempt: u32,
}

/// What a request's message id says about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judged<'a> {
    /// It is the next one.
    New,
    /// It was seen before; here is the answer, or `None` where that is still being made.
    Repeated(Option<&'a [u8]>),
    /// It is neither, or comes while the one before it is not answered yet: drop it. We have announced a window of
    /// one (RFC 7296 §2.3), and the peer repeats what it means.
    Outside,
}

impl Window {
    /// A window whose ids start at zero in both directions.
    pub(crate) fn new() -> Self {
        Self::starting_at(MessageId(0), MessageId(0))
    }

    /// A window whose ids start elsewhere: after IKE_SA_INIT.
    pub(crate) const fn starting_at(next: MessageId, expected: MessageId) -> Self {
        Self { next: Some(next), pending: None, expected: Some(expected), answer: None, unanswered: false }
    }

    /// The id for our next request; `None` while one is outstanding or after the last.
    pub(crate) fn next_request(&self) -> Option<MessageId> {
        if self.pending.is_some() { None } else { self.next }
    }

    /// Whether message ids run out, so that the IKE SA has to be rekeyed while it still can be.
    pub(crate) fn nearly_exhausted(&self) -> bool {
        const RESERVE: u32 = 1 << 16;
        let near = |id: Option<MessageId>| id.is_none_or(|id| id.0 > u32::MAX - RESERVE);
        near(self.next) || near(self.expected)
    }

    /// Records a request that goes out now.
    pub(crate) fn requested(&mut self, id: MessageId, bytes: Vec<u8>) {
        self.next = id.next();
        self.pending = Some(Pending { id, bytes, attempt: 0 });
    }

    /// Replaces the outstanding IKE_SA_INIT request by another one with the same id (RFC 7296 §2.6, §2.7).
    pub(crate) fn requested_anew(&mut self, bytes: Vec<u8>) {
        if let Some(pending) = &mut self.pending {
            pending.bytes = bytes;
            pending.attempt = 0;
        }
    }

    /// Whether a response with this id is the one we wait for.
    pub(crate) fn awaits(&self, id: MessageId) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.id == id)
    }

    /// Ends the wait; the response was accepted.
    pub(crate) fn responded(&mut self) {
        self.pending = None;
    }

    /// The outstanding request once more, and which repetition it is; `None` when the last was sent before.
    pub(crate) fn repeat(&mut self, rule: &Retransmit) -> Option<(MessageId, &[u8], u32)> {
        let pending = self.pending.as_mut().filter(|pending| pending.attempt < rule.tries)?;
        pending.attempt += 1;
        Some((pending.id, &pending.bytes, pending.attempt))
    }

    /// How long to wait now, before jitter.
    pub(crate) fn wait(&self, rule: &Retransmit) -> Duration {
        let attempt = self.pending.as_ref().map_or(0, |pending| pending.attempt);
        let mut wait = rule.first.min(rule.cap);
        for _ in 0..attempt.min(BACK_OFFS_MAX) {
            wait = (wait * 9 / 5).min(rule.cap);
        }
        wait
    }

    /// What to do with a request.
    pub(crate) fn judge(&self, id: MessageId) -> Judged<'_> {
        match self.expected {
            Some(expected) if id == expected && !self.unanswered => Judged::New,
            Some(expected) if id.next() == Some(expected) => Judged::Repeated(self.answer.as_deref()),
            None if id.next().is_none() => Judged::Repeated(self.answer.as_deref()),
            _ => Judged::Outside,
        }
    }

    /// Takes a new request: from now on it is a repeated one.
    pub(crate) fn accept(&mut self, id: MessageId) {
        self.expected = id.next();
        self.answer = None;
        self.unanswered = true;
    }

    /// Keeps the answer to the last request.
    pub(crate) fn answered(&mut self, bytes: Vec<u8>) {
        self.answer = Some(bytes);
        self.unanswered = false;
    }

    /// Octets kept for repetition.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.answer.as_ref().map_or(0, Vec::len)
            + self.pending.as_ref().map_or(0, |pending| pending.bytes.len())
    }
}

/// After so many steps of 1.8 every sensible cap is reached.
const BACK_OFFS_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_new_once_and_its_answer_is_kept() {
        let mut window = Window::new();
        assert_eq!(window.judge(MessageId(0)), Judged::New);
        window.accept(MessageId(0));
        assert_eq!(window.judge(MessageId(0)), Judged::Repeated(None));
        assert_eq!(window.judge(MessageId(1)), Judged::Outside, "one request at a time");
        window.answered(vec![1]);
        assert_eq!(window.judge(MessageId(0)), Judged::Repeated(Some(&[1])));
        assert_eq!(window.judge(MessageId(1)), Judged::New);
        assert_eq!(window.judge(MessageId(2)), Judged::Outside);
        window.accept(MessageId(1));
        assert_eq!(window.judge(MessageId(0)), Judged::Outside);
        assert_eq!(window.kept(), 0);
    }

    #[test]
    fn one_request_is_outstanding_and_ids_never_repeat() {
        let mut window = Window::new();
        let first = window.next_request().expect("a fresh window");
        window.requested(first, vec![1]);
        assert_eq!(window.next_request(), None);
        assert!(window.awaits(first) && !window.awaits(MessageId(1)));
        window.responded();
        assert_eq!(window.next_request(), Some(MessageId(1)));
        let mut last = Window::starting_at(MessageId(u32::MAX), MessageId(u32::MAX));
        assert!(last.nearly_exhausted());
        last.requested(MessageId(u32::MAX), vec![]);
        last.responded();
        assert_eq!(last.next_request(), None);
        last.accept(MessageId(u32::MAX));
        assert_eq!(last.judge(MessageId(u32::MAX)), Judged::Repeated(None));
        assert_eq!(last.judge(MessageId(0)), Judged::Outside);
    }

    #[test]
    fn repetition_backs_off_to_its_cap_and_ends() {
        let rule = Retransmit { tries: 3, cap: Duration::from_secs(5), ..Retransmit::default() };
        let mut window = Window::new();
        window.requested(MessageId(0), vec![7]);
        let mut waits = vec![window.wait(&rule)];
        while let Some((_, bytes, _)) = window.repeat(&rule) {
            assert_eq!(bytes, [7]);
            waits.push(window.wait(&rule));
        }
        let millis: Vec<u128> = waits.iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [2000, 3600, 5000, 5000]);
    }
}
