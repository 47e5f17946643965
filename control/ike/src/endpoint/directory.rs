//! Which IKE SAs belong to a connection, and which to a peer: set-ups ask for both, and there may be many
//! thousands of others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::identity::Identity;
use crate::sa::IkeSaId;

/// IKE SAs by what others look for them by. Follows every turn of an IKE SA.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    by_connection: BTreeMap<Arc<str>, BTreeSet<IkeSaId>>,
    by_identities: BTreeMap<Identities, BTreeSet<IkeSaId>>,
}

/// The identities of both ends of an IKE SA.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identities {
    pub(crate) remote: Identity,
    pub(crate) local: Identity,
}

/// What one IKE SA is entered under. A half-open one of a stranger has neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) connection: Option<Arc<str>>,
    /// Who is at its ends, once the peer is authenticated.
    pub(crate) identities: Option<Identities>,
}

impl Entry {
    /// What of it another one has not.
    pub(crate) fn without(self, other: &Self) -> Self {
        Self {
            connection: self.connection.filter(|name| Some(name) != other.connection.as_ref()),
            identities: self.identities.filter(|ends| Some(ends) != other.identities.as_ref()),
        }
    }
}

impl Directory {
    /// IKE SAs of a connection, half-open ones of ours included, the oldest first.
    pub(crate) fn of_connection(&self, name: &str) -> impl Iterator<Item = IkeSaId> {
        self.by_connection.get(name).into_iter().flatten().copied()
    }

    /// Established IKE SAs between the same two, the oldest first.
    pub(crate) fn between(&self, ends: &Identities) -> impl Iterator<Item = IkeSaId> {
        self.by_identities.get(ends).into_iter().flatten().copied()
    }

    pub(crate) fn enter(&mut self, id: IkeSaId, entry: &Entry) {
        if let Some(connection) = &entry.connection {
            self.by_connection.entry(connection.clone()).or_default().insert(id);
        }
        if let Some(ends) = &entry.identities {
            self.by_identities.entry(ends.clone()).or_default().insert(id);
        }
    }

    pub(crate) fn strike(&mut self, id: IkeSaId, entry: &Entry) {
        if let Some(connection) = &entry.connection {
            strike(&mut self.by_connection, connection, id);
        }
        if let Some(ends) = &entry.identities {
            strike(&mut self.by_identities, ends, id);
        }
    }

    /// Entries of connections and of identities, for the proof that nothing is left behind.
    pub(crate) fn len(&self) -> (usize, usize) {
        let connections = self.by_connection.values().map(BTreeSet::len).sum();
        (connections, self.by_identities.values().map(BTreeSet::len).sum())
    }
}

fn strike<K: Ord>(index: &mut BTreeMap<K, BTreeSet<IkeSaId>>, key: &K, id: IkeSaId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
