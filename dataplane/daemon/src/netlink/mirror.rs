//! What the kernel knows of the network, kept up to date.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use pollux_abi::IfIndex;
use pollux_packet::PortSlot;
use pollux_worker::forward::fib::{NextHop, Route, WeightedNextHop};

use super::link::Link;
use super::neighbour::Neighbour;
use super::route::{Hop, KernelRoute, RouteKey, RouteKind};
use super::socket::{Follower, NetlinkError, Rtnl};

/// What changed since the last look.
#[derive(Debug, Default)]
pub struct Changes {
    /// Interfaces came, went or changed.
    pub links: bool,
    /// Addresses of the gateway came or went.
    pub addresses: bool,
    /// Routes came, went or changed.
    pub routes: bool,
    /// Neighbours that are known anew, changed or failed, in order.
    pub neighbours: Vec<Neighbour>,
    /// Neighbours that the kernel has forgotten.
    pub neighbours_gone: Vec<(IfIndex, IpAddr)>,
    /// The kernel dropped notifications and everything was read anew.
    pub resynchronised: bool,
}

/// The mirror: a follower, and the tables that it keeps up to date.
#[derive(Debug)]
pub struct Mirror {
    follower: Follower,
    requests: Rtnl,
    links: HashMap<IfIndex, Link>,
    addresses: HashSet<(IfIndex, IpAddr)>,
    routes: BTreeMap<RouteKey, KernelRoute>,
    neighbours: HashMap<(IfIndex, IpAddr), Neighbour>,
    ignored_tables: RangeInclusive<u32>,
    /// The tables have to be read anew: word was lost, or an earlier attempt failed.
    is_incomplete: bool,
    /// What is in the tables and was not told yet, as reading the rest failed.
    untold: Changes,
}

impl Mirror {
    /// Reads all of the calling thread's network namespace and follows it from there. Routes of
    /// `ignored_tables` are left out: our own locks must not look like ways to somewhere.
    pub fn open(ignored_tables: RangeInclusive<u32>) -> Result<Self, NetlinkError> {
        // Subscribed before the dumps, so that no change between the two is missed.
        let follower = Follower::open()?;
        let mut mirror = Self {
            follower,
            requests: Rtnl::open()?,
            links: HashMap::new(),
            addresses: HashSet::new(),
            routes: BTreeMap::new(),
            neighbours: HashMap::new(),
            ignored_tables,
            is_incomplete: false,
            untold: Changes::default(),
        };
        mirror.read_all(&mut Changes::default())?;
        Ok(mirror)
    }

    /// The follower, for a poll set.
    pub fn follower(&self) -> &Follower {
        &self.follower
    }

    /// Takes in every waiting notification and says what changed. After an error nothing is lost: the next call reads
    /// everything anew, and says also what had changed before the error.
    pub fn update(&mut self) -> Result<Changes, NetlinkError> {
        let mut changes = core::mem::take(&mut self.untold);
        let result = self.take_in(&mut changes);
        if let Err(error) = result {
            self.untold = changes;
            return Err(error);
        }
        Ok(changes)
    }

    fn take_in(&mut self, changes: &mut Changes) -> Result<(), NetlinkError> {
        let mut waiting = Vec::new();
        let drained = self.follower.drain(|message| waiting.push(message));
        // Until all has been read, what is known is not to be relied on.
        let was_incomplete =
            core::mem::replace(&mut self.is_incomplete, true) || !matches!(drained, Ok(true));
        // An IPv6 next hop that leaves a group says so by a deletion that names the whole route.
        let reread = waiting.iter().any(|message| {
            matches!(message, RouteNetlinkMessage::DelRoute(route)
                if route.header.address_family == AddressFamily::Inet6)
        });
        for message in waiting {
            self.apply(message, changes);
        }
        drained?;
        if was_incomplete {
            // Answers to a request that failed would stand in the way of the next one.
            self.requests = Rtnl::open()?;
            changes.resynchronised = true;
            self.read_all(changes)?;
        } else if reread || changes.links || changes.addresses {
            // The kernel withdraws IPv4 routes of a downed interface or lost address without a word.
            changes.routes |= self.read_routes()?;
        }
        self.is_incomplete = false;
        Ok(())
    }

    /// An interface by its number.
    pub fn link(&self, index: IfIndex) -> Option<&Link> {
        self.links.get(&index)
    }

    /// Every interface.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// An interface by its name.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.is_named(name))
    }

    /// Every address of the gateway, sorted, each once.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = self.addresses.iter().map(|&(_, address)| address).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Every address of the gateway with its interface, sorted.
    pub fn addresses_by_link(&self) -> Vec<(IfIndex, IpAddr)> {
        let mut all: Vec<(IfIndex, IpAddr)> = self.addresses.iter().copied().collect();
        all.sort_unstable();
        all
    }

    /// Every neighbour with a link-layer address, or one that failed.
    pub fn neighbours(&self) -> impl Iterator<Item = &Neighbour> {
        self.neighbours.values()
    }

    /// The routes as forwarding wants them: `slot` says which interface is which port. The table `local`
    /// comes before `main` and `main` before `default`, as in the kernel's own rules.
    pub fn forwarding(&self, slot: impl Fn(IfIndex) -> Option<PortSlot>) -> Vec<Route> {
        let mut list: Vec<&KernelRoute> =
            self.routes.values().filter(|route| TABLES.contains(&route.table)).collect();
        // Both keys ascending: the better table and metric comes first, and the first of equals is used.
        list.sort_by_key(|route| (TABLES.iter().position(|&table| table == route.table), route.metric));
        list.into_iter()
            .map(|route| match &route.kind {
                RouteKind::Local => Route::new(route.destination, route.prefix_len, NextHop::Local),
                RouteKind::Unreachable => {
                    Route::new(route.destination, route.prefix_len, NextHop::Unreachable)
                }
                RouteKind::Unicast(hops) => Route {
                    destination: route.destination,
                    prefix_len: route.prefix_len,
                    ways: ways(hops, &slot),
                },
            })
            .collect()
    }

    fn apply(&mut self, message: RouteNetlinkMessage, changes: &mut Changes) {
        match message {
            RouteNetlinkMessage::NewLink(message) => {
                if let Some(link) = Link::from_message(&message) {
                    let old = self.links.insert(link.index, link.clone());
                    changes.links |= old.as_ref() != Some(&link);
                }
            }
            RouteNetlinkMessage::DelLink(message) => {
                changes.links |= self.links.remove(&IfIndex(message.header.index)).is_some();
            }
            RouteNetlinkMessage::NewAddress(message) => {
                if let Some(key) = own_address(&message) {
                    changes.addresses |= self.addresses.insert(key);
                }
            }
            RouteNetlinkMessage::DelAddress(message) => {
                if let Some(key) = own_address(&message) {
                    changes.addresses |= self.addresses.remove(&key);
                }
            }
            RouteNetlinkMessage::NewRoute(message) => {
                if let Some(route) = KernelRoute::from_message(&message).filter(|route| self.follows(route)) {
                    let old = self.routes.insert(route.key(), route.clone());
                    changes.routes |= old.as_ref() != Some(&route);
                }
            }
            RouteNetlinkMessage::DelRoute(message) => {
                if let Some(route) = KernelRoute::from_message(&message) {
                    changes.routes |= self.routes.remove(&route.key()).is_some();
                }
            }
            RouteNetlinkMessage::NewNeighbour(message) => {
                if let Some(neighbour) = Neighbour::from_message(&message) {
                    self.learn(neighbour, changes);
                }
            }
            RouteNetlinkMessage::DelNeighbour(message) => {
                if let Some(neighbour) = Neighbour::from_message(&message) {
                    let key = (neighbour.link, neighbour.address);
                    if self.neighbours.remove(&key).is_some() {
                        changes.neighbours_gone.push(key);
                    }
                }
            }
            _ => {}
        }
    }

    fn learn(&mut self, neighbour: Neighbour, changes: &mut Changes) {
        // One that is being asked for keeps what was known of it: its answer or its failure decides.
        if neighbour.mac.is_none() && !neighbour.failed {
            return;
        }
        let old = self.neighbours.insert((neighbour.link, neighbour.address), neighbour);
        if old != Some(neighbour) {
            changes.neighbours.push(neighbour);
        }
    }

    fn follows(&self, route: &KernelRoute) -> bool {
        !self.ignored_tables.contains(&route.table)
    }

    fn read_all(&mut self, changes: &mut Changes) -> Result<(), NetlinkError> {
        let links: HashMap<_, _> =
            self.requests.links()?.into_iter().map(|link| (link.index, link)).collect();
        changes.links |= links != self.links;
        self.links = links;

        let mut addresses = HashSet::new();
        let get = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.requests.dump("dump of addresses", &get, |message| {
            if let RouteNetlinkMessage::NewAddress(message) = message {
                addresses.extend(own_address(&message));
            }
        })?;
        changes.addresses |= addresses != self.addresses;
        self.addresses = addresses;

        changes.routes |= self.read_routes()?;

        let known = self.requests.neighbours()?;
        let mut forgotten = core::mem::take(&mut self.neighbours);
        for neighbour in known {
            let key = (neighbour.link, neighbour.address);
            if let Some(old) = forgotten.remove(&key) {
                self.neighbours.insert(key, old);
            }
            self.learn(neighbour, changes);
        }
        changes.neighbours_gone.extend(forgotten.into_keys());
        Ok(())
    }

    /// Reads the routes anew; whether they differ from what was known.
    fn read_routes(&mut self) -> Result<bool, NetlinkError> {
        let mut routes = BTreeMap::new();
        for route in self.requests.routes()?.into_iter().filter(|route| self.follows(route)) {
            // A dump lists equals in the kernel's order of preference.
            routes.entry(route.key()).or_insert(route);
        }
        let changed = routes != self.routes;
        self.routes = routes;
        Ok(changed)
    }
}

/// The tables that forwarding follows, best first: `local`, `main`, `default`.
const TABLES: [u32; 3] = [255, 254, 253];

/// The hops as forwarding wants them. Where one leads out of a port of ours those that don't are left out: what has
/// been sealed could not go there.
fn ways(hops: &[Hop], slot: impl Fn(IfIndex) -> Option<PortSlot>) -> Vec<WeightedNextHop> {
    let all = hops.iter().map(|hop| {
        let next_hop = match (slot(hop.link), hop.gateway) {
            (None, _) => NextHop::Kernel,
            (Some(port), None) => NextHop::OnLink(port),
            (Some(port), Some(router)) => NextHop::Via(port, router),
        };
        WeightedNextHop { next_hop, weight: hop.weight }
    });
    let (kernel, ours): (Vec<WeightedNextHop>, Vec<WeightedNextHop>) =
        all.partition(|way| way.next_hop == NextHop::Kernel);
    if ours.is_empty() { kernel } else { ours }
}

/// The gateway's own address in a message. For IPv4 point-to-point links `IFA_ADDRESS` is the peer's.
fn own_address(message: &AddressMessage) -> Option<(IfIndex, IpAddr)> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    Some((IfIndex(message.header.index), address))
}
