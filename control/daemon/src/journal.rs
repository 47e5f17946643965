//! What happened, for the operator: kept for a while, streamed to those who listen, and logged.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pollux_config::api::EventRecord;
use pollux_shm::log::RateLimit;
use tokio::sync::broadcast;

/// Events that are kept for `pollux log` and `pollux events --past`.
const KEPT: usize = 10_000;
/// Events that a slow listener may lag behind before it misses some, and is told so.
const LAG_MAX: usize = 1_024;

/// Events that outsiders can cause as often as they like: packets of hosts, and messages of whoever can reach
/// the IKE ports. Of the others there are as many as our peers and the operator cause.
const FROM_OUTSIDE: &[&str] = &[
    "ike",
    "ike-not-sent",
    "ike-overload",
    "ike-refused",
    "ike-retransmit",
    "peer-moved",
    "replay-burst",
    "unknown-spi",
    "wanted-sa",
];

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Level {
    /// The operator must act now.
    Error,
    /// Soon.
    Warn,
    /// Life cycle.
    Info,
}

/// The journal.
#[derive(Debug)]
pub(crate) struct Journal {
    kept: VecDeque<EventRecord>,
    listeners: broadcast::Sender<EventRecord>,
    limit: RateLimit<(&'static str, Level)>,
}

/// The facts of one event.
#[derive(Debug, Default)]
pub(crate) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// With one fact more.
    pub(crate) fn with(mut self, name: &str, value: impl Display) -> Self {
        self.0.insert(name.to_owned(), value.to_string());
        self
    }
}

/// No facts yet.
pub(crate) fn fields() -> Fields {
    Fields::default()
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self { kept: VecDeque::new(), listeners: broadcast::channel(LAG_MAX).0, limit: RateLimit::default() }
    }

    /// Writes one event down. Of those that outsiders cause, some are left out and counted.
    pub(crate) fn note(
        &mut self,
        level: Level,
        event: &'static str,
        text: impl Into<String>,
        fields: Fields,
    ) {
        let mut text = text.into();
        let mut fields = fields;
        if FROM_OUTSIDE.contains(&event) {
            match self.limit.admit((event, level), Instant::now()) {
                None => return,
                Some(0) => {}
                Some(left_out) => {
                    text = format!("{text} ({left_out} such events before it were left out)");
                    fields = fields.with("left_out", left_out);
                }
            }
        }
        let name = match level {
            Level::Error => {
                tracing::error!(event, "{text}");
                "error"
            }
            Level::Warn => {
                tracing::warn!(event, "{text}");
                "warn"
            }
            Level::Info => {
                tracing::info!(event, "{text}");
                "info"
            }
        };
        let record = EventRecord {
            time_ms: now_ms(),
            event: event.to_owned(),
            level: name.to_owned(),
            text,
            fields: fields.0,
        };
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(record.clone());
        // Nobody listening is no error.
        let _ = self.listeners.send(record);
    }

    /// The last `count` events, oldest first; 0 for all that are kept.
    pub(crate) fn last(&self, count: u32) -> Vec<EventRecord> {
        let count = if count == 0 { KEPT } else { usize::try_from(count).unwrap_or(KEPT) };
        self.kept.iter().skip(self.kept.len().saturating_sub(count)).cloned().collect()
    }

    /// Every event from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<EventRecord> {
        self.listeners.subscribe()
    }
}

/// Milliseconds since 1970, UTC.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_from_outside_is_bounded_and_pushes_nothing_else_out() {
        let mut journal = Journal::new();
        journal.note(Level::Info, "ike-up", "a peer", fields());
        for _ in 0..2 * KEPT {
            journal.note(Level::Warn, "unknown-spi", "a stranger", fields());
        }
        for _ in 0..100 {
            journal.note(Level::Info, "child-up", "a child", fields());
        }
        let events: Vec<String> = journal.last(0).into_iter().map(|record| record.event).collect();
        let count = |name: &str| events.iter().filter(|event| *event == name).count();
        assert_eq!([count("ike-up"), count("unknown-spi"), count("child-up")], [1, 10, 100]);
    }
}
