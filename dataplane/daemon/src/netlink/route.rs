//! Routes: those of the kernel that forwarding follows, and the locks that we write.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use pollux_abi::IfIndex;

use super::socket::{NetlinkError, Rtnl};

/// What the kernel does with packets that a route matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Forwards them by one of these hops.
    Unicast(Vec<Hop>),
    /// Takes them for itself.
    Local,
    /// Drops them, with or without a word to the sender.
    Unreachable,
}

/// Out of an interface, to a router or to the destination itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Out of which interface.
    pub link: IfIndex,
    /// Through which router.
    pub gateway: Option<IpAddr>,
    /// How much of the traffic it takes, beside the weights of the others: 1 to 256.
    pub weight: u16,
}

/// A route of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// Which table.
    pub table: u32,
    /// Destination.
    pub destination: IpAddr,
    /// Length of the destination's prefix.
    pub prefix_len: u8,
    /// The lower, the better.
    pub metric: u32,
    /// What it does.
    pub kind: RouteKind,
}

/// What tells two routes of one table apart.
pub(super) type RouteKey = (u32, IpAddr, u8, u32);

impl KernelRoute {
    pub(super) fn key(&self) -> RouteKey {
        (self.table, self.destination, self.prefix_len, self.metric)
    }

    /// `None` for what forwarding does not follow: multicast, clones of exceptions, routes by type of
    /// service or by source, and those whose next hops are all dead.
    pub(super) fn from_message(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        if header.flags.contains(RouteFlags::Cloned) || header.tos != 0 || header.source_prefix_length != 0 {
            return None;
        }
        let mut route = Self {
            table: u32::from(header.table),
            destination: match header.address_family {
                AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
                AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
                _ => return None,
            },
            prefix_len: header.destination_prefix_length,
            metric: 0,
            kind: RouteKind::Unreachable,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(table) => route.table = *table,
                RouteAttribute::Priority(metric) => route.metric = *metric,
                RouteAttribute::Destination(RouteAddress::Inet(v4)) => route.destination = (*v4).into(),
                RouteAttribute::Destination(RouteAddress::Inet6(v6)) => route.destination = (*v6).into(),
                _ => {}
            }
        }
        route.kind = match header.kind {
            RouteType::Local | RouteType::Anycast => RouteKind::Local,
            RouteType::Unreachable | RouteType::Prohibit | RouteType::BlackHole | RouteType::Broadcast => {
                RouteKind::Unreachable
            }
            RouteType::Unicast if header.flags.contains(RouteFlags::Dead) => return None,
            RouteType::Unicast => RouteKind::Unicast(hops(&message.attributes)?),
            _ => return None,
        };
        Some(route)
    }
}

/// The route's next hop, or the living ones of several; `None` where there is none.
fn hops(attributes: &[RouteAttribute]) -> Option<Vec<Hop>> {
    let (mut link, mut gateway) = (None, None);
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(IfIndex(*index)),
            RouteAttribute::MultiPath(hops) => {
                let alive = hops.iter().filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead));
                let hops: Vec<Hop> = alive.map(hop).collect();
                return (!hops.is_empty()).then_some(hops);
            }
            other => gateway = gateway.or_else(|| gateway_of(other)),
        }
    }
    Some(vec![Hop { link: link?, gateway, weight: 1 }])
}

fn hop(hop: &RouteNextHop) -> Hop {
    Hop {
        link: IfIndex(hop.interface_index),
        gateway: hop.attributes.iter().find_map(gateway_of),
        // The kernel's number is the weight less one.
        weight: u16::from(hop.hops) + 1,
    }
}

fn gateway_of(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(v4)) | RouteAttribute::Via(RouteVia::Inet(v4)) => {
            Some((*v4).into())
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(v6)) | RouteAttribute::Via(RouteVia::Inet6(v6)) => {
            Some((*v6).into())
        }
        _ => None,
    }
}

/// `rtm_protocol` of every route and rule that is ours, so that all of them can be found and removed.
pub(crate) const PROTOCOL: u8 = 80;

/// What a route of ours does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LockKind {
    /// Sends packets out of `pollux0`.
    To(IfIndex),
    /// Refuses them, where the route out of `pollux0` is gone.
    Unreachable,
    /// Leaves them to the tables that come after ours.
    Throw,
}

/// A route that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LockRoute {
    /// Our table.
    pub(crate) table: u32,
    /// A protected remote prefix.
    pub(crate) destination: IpAddr,
    /// Its length.
    pub(crate) prefix_len: u8,
    /// What it does.
    pub(crate) kind: LockKind,
    /// Source address that the gateway's own packets to there take.
    pub(crate) source: Option<IpAddr>,
}

/// Metric of all but the unreachable routes, which have the worst one there is.
const METRIC: u32 = 10;

impl LockRoute {
    /// Table, destination and length: what several routes of ours may share.
    pub(crate) fn place(&self) -> (u32, IpAddr, u8) {
        (self.table, self.destination, self.prefix_len)
    }

    /// [`Self::place`] of the kernel's route.
    pub(crate) fn place_of(message: &RouteMessage) -> Option<(u32, IpAddr, u8)> {
        let mut destination: IpAddr = match message.header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let mut table = u32::from(message.header.table);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Destination(RouteAddress::Inet(v4)) => destination = (*v4).into(),
                RouteAttribute::Destination(RouteAddress::Inet6(v6)) => destination = (*v6).into(),
                _ => {}
            }
        }
        Some((table, destination, message.header.destination_prefix_length))
    }

    /// Whether the kernel's route is this one, except for what nobody asked for.
    pub(crate) fn is_same_as(&self, message: &RouteMessage) -> bool {
        let ours = self.message();
        let oif = |message: &RouteMessage| {
            message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(link) => Some(*link),
                _ => None,
            })
        };
        let source = |message: &RouteMessage| {
            message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::PrefSource(source) => Some(source.clone()),
                _ => None,
            })
        };
        Self::place_of(message) == Some(self.place())
            && ours.header.kind == message.header.kind
            // IPv6 names lo as the device of an unreachable route.
            && (!matches!(self.kind, LockKind::To(_))
                || (oif(&ours), source(&ours)) == (oif(message), source(message)))
    }

    fn message(&self) -> RouteMessage {
        let (kind, metric) = match self.kind {
            LockKind::To(_) => (RouteType::Unicast, METRIC),
            LockKind::Unreachable => (RouteType::Unreachable, u32::MAX),
            LockKind::Throw => (RouteType::Throw, METRIC),
        };
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(self.destination),
            destination_prefix_length: self.prefix_len,
            protocol: RouteProtocol::Other(PROTOCOL),
            scope: RouteScope::Universe,
            kind,
            ..RouteHeader::default()
        };
        message.attributes = vec![RouteAttribute::Table(self.table), RouteAttribute::Priority(metric)];
        if self.prefix_len > 0 {
            message.attributes.push(RouteAttribute::Destination(self.destination.into()));
        }
        if let LockKind::To(link) = self.kind {
            message.attributes.push(RouteAttribute::Oif(link.0));
            if self.destination.is_ipv4() {
                message.header.scope = RouteScope::Link;
            }
        }
        if let Some(source) = self.source {
            message.attributes.push(RouteAttribute::PrefSource(source.into()));
        }
        message
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

impl Rtnl {
    /// Every route of both families and all tables that forwarding can follow.
    pub fn routes(&mut self) -> Result<Vec<KernelRoute>, NetlinkError> {
        let mut routes = Vec::new();
        self.dump_routes(|message| routes.extend(KernelRoute::from_message(message)))?;
        Ok(routes)
    }

    /// The tables in which routes of ours are, with their messages for removal.
    pub(crate) fn own_routes(&mut self) -> Result<Vec<RouteMessage>, NetlinkError> {
        let mut routes = Vec::new();
        self.dump_routes(|message| {
            if message.header.protocol == RouteProtocol::Other(PROTOCOL) {
                routes.push(message.clone());
            }
        })?;
        Ok(routes)
    }

    fn dump_routes(&mut self, mut each: impl FnMut(&RouteMessage)) -> Result<(), NetlinkError> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            self.dump("dump of routes", &RouteNetlinkMessage::GetRoute(message), |entry| {
                if let RouteNetlinkMessage::NewRoute(entry) = entry {
                    each(&entry);
                }
            })?;
        }
        Ok(())
    }

    /// Writes a route of ours, or replaces the one with the same prefix and metric.
    pub(crate) fn put_route(&mut self, route: &LockRoute) -> Result<(), NetlinkError> {
        let what = format!("route to {}/{} in table {}", route.destination, route.prefix_len, route.table);
        let message = RouteNetlinkMessage::NewRoute(route.message());
        self.request(what, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes a route of ours; one that is gone already is fine.
    pub(crate) fn delete_route(&mut self, message: RouteMessage) -> Result<(), NetlinkError> {
        let gone = self.request("removing a route", RouteNetlinkMessage::DelRoute(message), 0);
        match gone {
            Err(error) if error.is_missing() => Ok(()),
            other => other,
        }
    }
}
