//! Which connection a peer belongs to, and connections that are tried again.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::connection_index::ConnectionIndex;
use crate::config::Connection;
use crate::error::IkeError;
use crate::identity::Identity;
use crate::message::TransformType;
use crate::negotiate::IkeAgreement;
use crate::sa::Path;
use crate::time::Instant;

/// The connection of an authenticating peer, and the identity that we have in it.
///
/// `wanted` is the IDr that the peer asked for.
pub(crate) fn matching(
    connection_index: &ConnectionIndex,
    path: &Path,
    remote_id: &Identity,
    wanted: Option<&Identity>,
    suite: IkeAgreement,
) -> Result<(Arc<Connection>, Identity), IkeError> {
    let (local, remote) = (path.local.ip(), path.remote.ip());
    for connection in connection_index.about_peer(local, remote, remote_id) {
        let local_id = connection.local_id.clone().unwrap_or_else(|| Identity::address(local));
        let is_wanted = wanted.is_none_or(|wanted| local_id.is_same(wanted));
        if is_wanted && accepts(connection, suite) {
            return Ok((connection.clone(), local_id));
        }
    }
    Err(IkeError::NoConnection {
        local,
        remote,
        identity: remote_id.to_string(),
        wanted: wanted.map_or_else(|| "-".to_owned(), Identity::to_string),
        accepted: connection_index.describe(),
    })
}

/// Whether the connection's own proposals contain what another connection's have agreed to.
fn accepts(connection: &Connection, suite: IkeAgreement) -> bool {
    connection.proposals.iter().any(|proposal| {
        let has = |kind, id: u16, bits: Option<u16>| {
            proposal.transforms().iter().any(|transform| {
                transform.kind == kind && transform.id == id && (bits.is_none() || transform.key_bits == bits)
            })
        };
        has(TransformType::Encryption, suite.encryption.id(), suite.encryption.key_bits())
            && suite.integrity.is_none_or(|integrity| has(TransformType::Integrity, integrity.id(), None))
            && has(TransformType::Prf, suite.prf.id(), None)
            && has(TransformType::KeyExchange, suite.ke.id(), None)
    })
}

/// Connections and children that wait for another attempt; one entry each, so bounded by the configuration.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    planned: BTreeMap<Key, Instant>,
    by_time: BTreeSet<(Instant, Key)>,
    failures: BTreeMap<Arc<str>, u32>,
}

/// Connection and child.
pub(crate) type Key = (Arc<str>, Option<Arc<str>>);

impl Retries {
    /// Notes that an attempt failed. How long to wait for the next one, before jitter; `None` where
    /// `keyingtries` are used up.
    pub(crate) fn failed(&mut self, connection: &Connection) -> Option<Duration> {
        let failures = self.failures.entry(connection.name.clone()).or_default();
        *failures = failures.saturating_add(1);
        if connection.keyingtries != 0 && *failures >= connection.keyingtries {
            self.failures.remove(&connection.name);
            return None;
        }
        let doublings = (*failures - 1).min(16);
        Some((FIRST_WAIT * 2u32.pow(doublings)).min(LONGEST_WAIT))
    }

    /// The connection is up: its failures are forgotten.
    pub(crate) fn reached(&mut self, connection: &str) {
        self.failures.remove(connection);
    }

    /// Tries again at `at`, or when it was planned before.
    pub(crate) fn plan(&mut self, key: Key, at: Instant) {
        let before = self.planned.get(&key).copied();
        if before.is_some_and(|before| before <= at) {
            return;
        }
        self.forget(&key);
        self.by_time.insert((at, key.clone()));
        self.planned.insert(key, at);
    }

    /// Forgets what is planned for a connection.
    pub(crate) fn cancel(&mut self, connection: &Arc<str>) {
        let from = (connection.clone(), None);
        let keys: Vec<Key> = self
            .planned
            .range(from..)
            .map(|(key, _)| key)
            .take_while(|(name, _)| name == connection)
            .cloned()
            .collect();
        for key in keys {
            self.forget(&key);
        }
        self.failures.remove(connection);
    }

    /// Forgets what is planned for one child; the others of its connection are tried as before.
    pub(crate) fn cancel_child(&mut self, connection: &Connection, child: &Arc<str>) {
        let of = |child: Option<&Arc<str>>| (connection.name.clone(), child.cloned());
        self.forget(&of(Some(child)));
        let Some(&at) = self.planned.get(&of(None)) else { return };
        self.forget(&of(None));
        for other in connection.children.iter().filter(|other| other.name != *child) {
            self.plan(of(Some(&other.name)), at);
        }
    }

    /// What is due now.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Key> {
        let due: Vec<Key> =
            self.by_time.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| key.clone()).collect();
        for key in &due {
            self.forget(key);
        }
        due
    }

    /// When the next one is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.by_time.first().map(|&(at, _)| at)
    }

    fn forget(&mut self, key: &Key) {
        if let Some(at) = self.planned.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }
}

/// The first retry comes soon, the later ones ever more slowly.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// A dead peer is asked once a minute.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
