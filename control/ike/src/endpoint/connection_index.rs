//! The configuration, and the ways in which a set-up looks things up in it: none of them walks through all
//! connections or all secrets.

use core::net::IpAddr;
use core::ops::Deref;
use std::collections::BTreeMap;
use std::sync::Arc;

use pollux_abi::Reqid;

use crate::config::{AddressRange, ChildConfig, Connection, EndpointConfig, PreSharedKey};
use crate::identity::{Identity, IdentityPattern};

/// A configuration with its indexes.
pub(crate) struct ConnectionIndex {
    config: Arc<EndpointConfig>,
    by_name: BTreeMap<Arc<str>, usize>,
    by_reqid: BTreeMap<Reqid, (usize, usize)>,
    /// Connections that name one address of the peer, by it.
    by_address: BTreeMap<IpAddr, Places>,
    /// Connections about a range of addresses.
    by_range: Places,
    /// Connections about any address.
    by_any: Places,
    /// Connections with one peer's identity, by it.
    by_identity: BTreeMap<Identity, Vec<usize>>,
    /// Secrets that a connection names, by it.
    secrets_by_connection: BTreeMap<Arc<str>, usize>,
    /// Secrets that one identity owns among others, by it.
    secrets_by_owner: BTreeMap<Identity, Vec<usize>>,
    /// The first secret that one identity owns alone.
    secret_of_one: BTreeMap<Identity, usize>,
    /// Secrets of whole classes of owners, or of anyone.
    secrets_for_many: Vec<usize>,
}

/// Places of connections in the file, in its order.
#[derive(Default)]
struct Places {
    /// Those that name addresses of ours.
    local: Vec<usize>,
    /// Those for any address of ours.
    anywhere: Vec<usize>,
}

impl Places {
    fn add(&mut self, place: usize, connection: &Connection) {
        let places = if connection.local_addrs.is_empty() { &mut self.anywhere } else { &mut self.local };
        if places.last() != Some(&place) {
            places.push(place);
        }
    }

    /// Those that can have this rank for an address of ours.
    fn with_rank(&self, rank: u8) -> &[usize] {
        if rank == ANY { &self.anywhere } else { &self.local }
    }
}

/// How well a list of addresses fits: the address itself, a range around it, any.
const RANKS: [u8; 3] = [EXACT, RANGE, ANY];
const EXACT: u8 = 2;
const RANGE: u8 = 1;
const ANY: u8 = 0;

/// So many connections, and addresses of each, fit in a line.
const DESCRIBED: usize = 3;

/// How well [`IdentityPattern::rank`] says that a pattern fits which is no identity itself.
const OF_A_CLASS: u8 = 1;
const ANYONE: u8 = 0;

impl Deref for ConnectionIndex {
    type Target = EndpointConfig;

    fn deref(&self) -> &EndpointConfig {
        &self.config
    }
}

impl ConnectionIndex {
    pub(crate) fn new(config: Arc<EndpointConfig>) -> Self {
        let mut connection_index = Self {
            by_name: BTreeMap::new(),
            by_reqid: BTreeMap::new(),
            by_address: BTreeMap::new(),
            by_range: Places::default(),
            by_any: Places::default(),
            by_identity: BTreeMap::new(),
            secrets_by_connection: BTreeMap::new(),
            secrets_by_owner: BTreeMap::new(),
            secret_of_one: BTreeMap::new(),
            secrets_for_many: Vec::new(),
            config,
        };
        let config = connection_index.config.clone();
        for (place, connection) in config.connections.iter().enumerate() {
            connection_index.enter_connection(place, connection);
        }
        for (place, secret) in config.secrets.iter().enumerate() {
            connection_index.enter_secret(place, secret);
        }
        connection_index
    }

    fn enter_connection(&mut self, place: usize, connection: &Connection) {
        self.by_name.entry(connection.name.clone()).or_insert(place);
        for (of_child, child) in connection.children.iter().enumerate() {
            if let Some(reqid) = child.reqid {
                self.by_reqid.entry(reqid).or_insert((place, of_child));
            }
        }
        if connection.remote_addrs.is_empty() {
            self.by_any.add(place, connection);
        }
        for range in &connection.remote_addrs {
            let places = match range.single() {
                Some(address) => self.by_address.entry(address).or_default(),
                None => &mut self.by_range,
            };
            places.add(place, connection);
        }
        if let IdentityPattern::Exactly(identity) = &connection.remote_id {
            self.by_identity.entry(identity.folded()).or_default().push(place);
        }
    }

    /// Whether a connection names this address of a peer, and not only a range around it.
    pub(crate) fn is_peer(&self, address: IpAddr) -> bool {
        self.by_address.contains_key(&address)
    }

    fn enter_secret(&mut self, place: usize, secret: &PreSharedKey) {
        if let Some(connection) = &secret.connection {
            self.secrets_by_connection.entry(connection.clone()).or_insert(place);
            return;
        }
        let mut exact = Vec::new();
        for owner in &secret.owners {
            match owner {
                IdentityPattern::Exactly(identity) => exact.push(identity.folded()),
                IdentityPattern::Any | IdentityPattern::NameSuffix(..) => {}
            }
        }
        if exact.len() < secret.owners.len() || exact.is_empty() {
            self.secrets_for_many.push(place);
            return;
        }
        if let [owner] = exact.as_slice() {
            self.secret_of_one.entry(owner.clone()).or_insert(place);
        }
        for owner in exact {
            self.secrets_by_owner.entry(owner).or_default().push(place);
        }
    }

    /// The first connections, as an operator reads them whose peer is of none.
    pub(crate) fn describe(&self) -> String {
        let list = |ranges: &[AddressRange]| {
            let shown: Vec<String> = ranges.iter().take(DESCRIBED).map(ToString::to_string).collect();
            if shown.is_empty() { "%any".to_owned() } else { shown.join(" ") }
        };
        let connections = &self.config.connections;
        let mut shown: Vec<String> = connections
            .iter()
            .take(DESCRIBED)
            .map(|one| {
                let local_id =
                    one.local_id.as_ref().map_or_else(|| "our address".to_owned(), Identity::to_string);
                let (remote, local) = (list(&one.remote_addrs), list(&one.local_addrs));
                format!("{} ({} at {remote}, for {local_id} at {local})", one.name, one.remote_id)
            })
            .collect();
        if connections.len() > DESCRIBED {
            shown.push(format!("{} more", connections.len() - DESCRIBED));
        }
        if shown.is_empty() { "nobody".to_owned() } else { shown.join(", ") }
    }

    /// The connection of this name.
    pub(crate) fn connection(&self, name: &str) -> Option<&Arc<Connection>> {
        self.by_name.get(name).and_then(|&place| self.config.connections.get(place))
    }

    /// Whether a connection is in the file, just as it is.
    pub(crate) fn has(&self, connection: &Connection) -> bool {
        self.connection(&connection.name).is_some_and(|known| **known == *connection)
    }

    /// The child with this reqid, and its connection.
    pub(crate) fn child(&self, reqid: Reqid) -> Option<(&Arc<Connection>, &Arc<ChildConfig>)> {
        let &(place, of_child) = self.by_reqid.get(&reqid)?;
        let connection = self.config.connections.get(place)?;
        Some((connection, connection.children.get(of_child)?))
    }

    /// Connections about these addresses, the most specific first; equals in the order of the file.
    pub(crate) fn about(&self, local: IpAddr, remote: IpAddr) -> impl Iterator<Item = &Arc<Connection>> {
        let exact = self.by_address.get(&remote).map(|places| (EXACT, places));
        let groups = exact.into_iter().chain([(RANGE, &self.by_range), (ANY, &self.by_any)]);
        let ranked = groups
            .flat_map(|(of_remote, places)| RANKS.map(|of_local| (of_remote, of_local, places)))
            .flat_map(|(of_remote, of_local, places)| {
                places.with_rank(of_local).iter().map(move |&place| (of_remote, of_local, place))
            });
        ranked.filter_map(move |(of_remote, of_local, place)| {
            let connection = self.config.connections.get(place)?;
            let ranks = (rank(&connection.remote_addrs, remote), rank(&connection.local_addrs, local));
            (ranks == (Some(of_remote), Some(of_local))).then_some(connection)
        })
    }

    /// Connections about these addresses that a peer of this identity may have: those with its very
    /// identity first, then the more specific ones.
    pub(crate) fn about_peer(
        &self,
        local: IpAddr,
        remote: IpAddr,
        identity: &Identity,
    ) -> impl Iterator<Item = &Arc<Connection>> {
        let exact = self.by_identity.get(&identity.folded()).map_or(&[][..], Vec::as_slice);
        let fits = |place: &usize| {
            let connection = self.config.connections.get(*place)?;
            let of_remote = rank(&connection.remote_addrs, remote)?;
            Some((of_remote, rank(&connection.local_addrs, local)?, connection))
        };
        let mut exact: Vec<_> = exact.iter().filter_map(fits).collect();
        exact.sort_by_key(|(of_remote, of_local, _)| core::cmp::Reverse((*of_remote, *of_local)));
        let with_rank = move |want: u8| {
            self.about(local, remote)
                .filter(move |connection| connection.remote_id.rank(identity) == Some(want))
        };
        exact
            .into_iter()
            .map(|(.., connection)| connection)
            .chain(with_rank(OF_A_CLASS))
            .chain(with_rank(ANYONE))
    }

    /// Secrets that a connection, these identities or one of them may have, in the order of the file.
    pub(crate) fn secrets_of(
        &self,
        connection: &str,
        local: &Identity,
        remote: &Identity,
    ) -> Vec<&PreSharedKey> {
        let named = self.secrets_by_connection.get(connection);
        let of_remote = self.secrets_by_owner.get(&remote.folded()).into_iter().flatten();
        let of_local = self.secret_of_one.get(&local.folded());
        let mut places: Vec<usize> = named
            .into_iter()
            .chain(of_remote)
            .chain(of_local)
            .chain(&self.secrets_for_many)
            .copied()
            .collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().filter_map(|place| self.config.secrets.get(place)).collect()
    }
}

/// How well these addresses fit; `None` not at all.
fn rank(ranges: &[AddressRange], address: IpAddr) -> Option<u8> {
    if ranges.is_empty() {
        return Some(ANY);
    }
    let fits = ranges.iter().filter(|range| range.contains(address));
    fits.map(|range| if range.single().is_some() { EXACT } else { RANGE }).max()
}

#[cfg(test)]
mod tests;
