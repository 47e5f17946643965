//! Neighbours: what the kernel has resolved, and asking it to resolve more.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use pollux_abi::IfIndex;
use pollux_packet::ethernet::Mac;

use super::socket::{NetlinkError, Rtnl};

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Behind which interface.
    pub link: IfIndex,
    /// Its address.
    pub address: IpAddr,
    /// Its link-layer address; `None` while it is unresolved and after it failed.
    pub mac: Option<Mac>,
    /// The kernel asked without an answer.
    pub failed: bool,
}

impl Neighbour {
    pub(super) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        let (mut address, mut mac) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some((*v4).into()),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some((*v6).into()),
                NeighbourAttribute::LinkLayerAddress(octets) => {
                    mac = <[u8; 6]>::try_from(octets.as_slice()).ok().map(Mac);
                }
                _ => {}
            }
        }
        let usable = matches!(
            message.header.state,
            NeighbourState::Reachable
                | NeighbourState::Stale
                | NeighbourState::Delay
                | NeighbourState::Probe
                | NeighbourState::Permanent
        );
        Some(Self {
            link: IfIndex(message.header.ifindex),
            address: address?,
            mac: mac.filter(|_| usable),
            failed: message.header.state == NeighbourState::Failed,
        })
    }
}

impl Rtnl {
    /// Every neighbour entry of both families.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut neighbours = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = NeighbourMessage::default();
            message.header.family = family;
            self.dump("dump of neighbours", &RouteNetlinkMessage::GetNeighbour(message), |entry| {
                if let RouteNetlinkMessage::NewNeighbour(entry) = entry {
                    neighbours.extend(Neighbour::from_message(&entry));
                }
            })?;
        }
        Ok(neighbours)
    }

    /// Tells the kernel that a neighbour is in use, as a packet to it would: an unknown one is asked for by
    /// ARP or neighbour discovery, a stale one is confirmed, a fresh one is left alone (`NTF_USE`).
    pub fn use_neighbour(&mut self, link: IfIndex, address: IpAddr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = link.0;
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        let destination = match address {
            IpAddr::V4(v4) => {
                message.header.family = AddressFamily::Inet;
                NeighbourAddress::Inet(v4)
            }
            IpAddr::V6(v6) => {
                message.header.family = AddressFamily::Inet6;
                NeighbourAddress::Inet6(v6)
            }
        };
        message.attributes = vec![NeighbourAttribute::Destination(destination)];
        let what = format!("resolving {address} on interface {link}");
        self.request(what, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
    }
}
