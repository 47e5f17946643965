//! Operators who wait for a child to come up.

use std::sync::Arc;
use std::time::Instant;

use pollux_config::api::Done;
use tokio::sync::oneshot;

/// Whoever waits.
pub(crate) type Reply = oneshot::Sender<Result<Done, String>>;

#[derive(Debug)]
struct Waiter {
    connection: Arc<str>,
    child: Arc<str>,
    deadline: Instant,
    reply: Reply,
}

/// All who wait.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Vec<Waiter>);

impl Waiters {
    /// One more.
    pub(crate) fn push(&mut self, connection: Arc<str>, child: Arc<str>, deadline: Instant, reply: Reply) {
        self.0.push(Waiter { connection, child, deadline, reply });
    }

    /// A child is up.
    pub(crate) fn up(&mut self, connection: &str, child: &str, text: &str) {
        let done = |waiter: Waiter| {
            // Whoever asked may be gone.
            let _ = waiter.reply.send(Ok(Done { text: text.to_owned(), count: 1 }));
        };
        let is_about = |waiter: &mut Waiter| &*waiter.connection == connection && &*waiter.child == child;
        self.0.extract_if(.., is_about).for_each(done);
    }

    /// Whether somebody waits for a child of this connection.
    pub(crate) fn wait_for(&self, connection: &str) -> bool {
        self.0.iter().any(|waiter| &*waiter.connection == connection)
    }

    /// A connection has failed.
    pub(crate) fn failed(&mut self, connection: &str, text: &str) {
        self.0.extract_if(.., |waiter| &*waiter.connection == connection).for_each(|waiter| {
            let _ = waiter.reply.send(Err(text.to_owned()));
        });
    }

    /// Ends the patience of those whose time is up.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.0.extract_if(.., |waiter| waiter.deadline <= now).for_each(|waiter| {
            let text = format!(
                "{}/{} did not come up in time; `pollux log` says how far it got",
                waiter.connection, waiter.child
            );
            let _ = waiter.reply.send(Err(text));
        });
    }

    /// When [`Self::expire`] is to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|waiter| waiter.deadline).min()
    }
}
