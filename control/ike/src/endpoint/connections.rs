//! Which connection a peer belongs to, and connections that are tried again.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{AddressRange, Connection, EndpointConfig};
use crate::error::IkeError;
use crate::identity::Identity;
use crate::message::TransformType;
use crate::negotiate::IkeAgreement;
use crate::sa::Path;
use crate::time::Instant;

/// Connections about these addresses, the most specific first; equals in the order of the file.
pub(crate) fn candidates(config: &EndpointConfig, local: IpAddr, remote: IpAddr) -> Vec<Arc<Connection>> {
    let mut ranked: Vec<(u8, Arc<Connection>)> = Vec::new();
    for connection in &config.connections {
        let ranks = (rank(&connection.remote_addrs, remote), rank(&connection.local_addrs, local));
        if let (Some(remote), Some(local)) = ranks {
            ranked.push((remote * 3 + local, connection.clone()));
        }
    }
    ranked.sort_by_key(|(rank, _)| core::cmp::Reverse(*rank));
    ranked.into_iter().map(|(_, connection)| connection).collect()
}

/// 2 for the address itself, 1 for a range around it, 0 for any.
fn rank(ranges: &[AddressRange], address: IpAddr) -> Option<u8> {
    if ranges.is_empty() {
        return Some(0);
    }
    let fits = ranges.iter().filter(|range| range.contains(address));
    fits.map(|range| if range.single().is_some() { 2 } else { 1 }).max()
}

/// The connection of an authenticating peer, and the identity that we have in it.
///
/// `wanted` is the IDr that the peer asked for.
pub(crate) fn matching(
    config: &EndpointConfig,
    path: &Path,
    remote_id: &Identity,
    wanted: Option<&Identity>,
    suite: IkeAgreement,
) -> Result<(Arc<Connection>, Identity), IkeError> {
    let (local, remote) = (path.local.ip(), path.remote.ip());
    let mut best: Option<(u8, Arc<Connection>, Identity)> = None;
    for connection in candidates(config, local, remote) {
        let Some(rank) = connection.remote_id.rank(remote_id) else { continue };
        let local_id = connection.local_id.clone().unwrap_or_else(|| Identity::address(local));
        let is_wanted = wanted.is_none_or(|wanted| local_id.is_same(wanted));
        if !is_wanted || !accepts(&connection, suite) {
            continue;
        }
        if best.as_ref().is_none_or(|(known, ..)| rank > *known) {
            best = Some((rank, connection, local_id));
        }
    }
    best.map(|(_, connection, local_id)| (connection, local_id)).ok_or_else(|| IkeError::NoConnection {
        local,
        remote,
        identity: remote_id.to_string(),
        wanted: wanted.map_or_else(|| "-".to_owned(), Identity::to_string),
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
        has(TransformType::Encryption, suite.encryption.id(), Some(suite.encryption.key_bits()))
            && suite.integrity.is_none_or(|integrity| has(TransformType::Integrity, integrity.id(), None))
            && has(TransformType::Prf, suite.prf.id(), None)
            && has(TransformType::KeyExchange, suite.ke.id(), None)
    })
}

/// Connections and children that wait for another attempt; one entry each, so bounded by the configuration.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    waiting: BTreeMap<Key, Instant>,
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
        let planned = self.waiting.entry(key).or_insert(at);
        *planned = at.min(*planned);
    }

    /// Forgets what is planned for a connection.
    pub(crate) fn cancel(&mut self, connection: &str) {
        self.waiting.retain(|(name, _), _| **name != *connection);
        self.failures.remove(connection);
    }

    /// What is due now.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Key> {
        let due: Vec<Key> =
            self.waiting.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        for key in &due {
            self.waiting.remove(key);
        }
        due
    }

    /// When the next one is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().min().copied()
    }
}

/// The first retry comes soon, the later ones ever more slowly.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// A dead peer is asked once a minute.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
