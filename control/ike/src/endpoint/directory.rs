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
    by_peer: BTreeMap<Identity, BTreeSet<IkeSaId>>,
}

/// What one IKE SA is entered under. A half-open one of a stranger has neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) connection: Option<Arc<str>>,
    /// The peer's identity, once it is authenticated.
    pub(crate) peer: Option<Identity>,
}

impl Entry {
    /// What of it another one has not.
    pub(crate) fn without(self, other: &Self) -> Self {
        Self {
            connection: self.connection.filter(|name| Some(name) != other.connection.as_ref()),
            peer: self.peer.filter(|peer| Some(peer) != other.peer.as_ref()),
        }
    }
}

impl Directory {
    /// IKE SAs of a connection, half-open ones of ours included, the oldest first.
    pub(crate) fn of_connection(&self, name: &str) -> impl Iterator<Item = IkeSaId> {
        self.by_connection.get(name).into_iter().flatten().copied()
    }

    /// Established IKE SAs of a peer, the oldest first.
    pub(crate) fn of_peer(&self, identity: &Identity) -> impl Iterator<Item = IkeSaId> {
        self.by_peer.get(identity).into_iter().flatten().copied()
    }

    pub(crate) fn enter(&mut self, id: IkeSaId, entry: &Entry) {
        if let Some(connection) = &entry.connection {
            self.by_connection.entry(connection.clone()).or_default().insert(id);
        }
        if let Some(peer) = &entry.peer {
            self.by_peer.entry(peer.clone()).or_default().insert(id);
        }
    }

    pub(crate) fn strike(&mut self, id: IkeSaId, entry: &Entry) {
        if let Some(connection) = &entry.connection {
            strike(&mut self.by_connection, connection, id);
        }
        if let Some(peer) = &entry.peer {
            strike(&mut self.by_peer, peer, id);
        }
    }

    /// Entries of connections and of peers, for the proof that nothing is left behind.
    pub(crate) fn len(&self) -> (usize, usize) {
        let connections = self.by_connection.values().map(BTreeSet::len).sum();
        (connections, self.by_peer.values().map(BTreeSet::len).sum())
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
