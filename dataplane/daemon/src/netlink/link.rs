//! Interfaces: read, created as veth pairs, changed, deleted.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, Prop,
};
use pollux_abi::IfIndex;
use pollux_packet::ethernet::Mac;

use super::socket::{NetlinkError, Rtnl};

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number; a recreated interface has another.
    pub index: IfIndex,
    /// Its name at the moment.
    pub name: String,
    /// Its own link-layer address; zeros where it has none of six octets.
    pub mac: Mac,
    /// Maximum transmission unit.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The other side is there: cable or veth peer.
    pub carrier: bool,
    /// Receive queues.
    pub queues: u32,
    /// Its frames begin with an Ethernet header (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// Its link type, as `ip link` spells it or nearly so.
    pub link_type: &'static str,
    /// Its other names (`ip link property add … altname`).
    pub alt_names: Vec<String>,
}

impl Link {
    pub(super) fn from_message(message: &LinkMessage) -> Option<Self> {
        let flags = message.header.flags;
        let mut link = Self {
            index: IfIndex(message.header.index),
            name: String::new(),
            mac: Mac::default(),
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            queues: 1,
            ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            link_type: link_type(message.header.link_layer_type),
            alt_names: Vec::new(),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::NumRxQueues(queues) => link.queues = *queues,
                LinkAttribute::Address(octets) => {
                    link.mac = <[u8; 6]>::try_from(octets.as_slice()).map(Mac).unwrap_or_default();
                }
                LinkAttribute::PropList(properties) => {
                    link.alt_names.extend(properties.iter().filter_map(|property| match property {
                        Prop::AltIfName(name) => Some(name.clone()),
                        _ => None,
                    }));
                }
                _ => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }
}

impl Link {
    /// Whether it goes by this name, the kernel's or another one of it.
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name || self.alt_names.iter().any(|alt| alt == name)
    }
}

fn link_type(kind: LinkLayerType) -> &'static str {
    match kind {
        LinkLayerType::Ether => "ether",
        LinkLayerType::Loopback => "loopback",
        LinkLayerType::Ppp => "ppp",
        // TUN and WireGuard are of this type.
        LinkLayerType::None => "none (layer 3, as TUN and WireGuard)",
        LinkLayerType::Rawip => "rawip",
        LinkLayerType::Tunnel | LinkLayerType::Tunnel6 | LinkLayerType::Sit | LinkLayerType::Ipgre => {
            "ip tunnel"
        }
        LinkLayerType::Infiniband => "infiniband",
        _ => "not Ethernet",
    }
}

impl Rtnl {
    /// Every interface of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut links = Vec::new();
        self.dump("dump of links", &RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
            if let RouteNetlinkMessage::NewLink(message) = message {
                links.extend(Link::from_message(&message));
            }
        })?;
        Ok(links)
    }

    /// The interface of this name.
    pub fn link_named(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        Ok(self.links()?.into_iter().find(|link| link.is_named(name)))
    }

    /// Creates a veth pair with so many queues at each end, both ends down.
    pub fn create_veth(&mut self, name: &str, peer: &str, queues: u32) -> Result<(), NetlinkError> {
        let counts = [LinkAttribute::NumTxQueues(queues), LinkAttribute::NumRxQueues(queues)];
        let mut other = LinkMessage::default();
        other.attributes = vec![LinkAttribute::IfName(peer.to_owned())];
        other.attributes.extend(counts.clone());
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
            ]),
        ];
        message.attributes.extend(counts);
        let what = format!("creating the veth pair {name} and {peer}");
        self.request(what, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes an interface; a veth takes its peer along.
    pub fn delete_link(&mut self, index: IfIndex) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index.0;
        self.request(format!("deleting interface {index}"), RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Brings an interface up, with or without ARP and neighbour discovery, and sets its MTU.
    pub fn set_link_up(&mut self, index: IfIndex, mtu: u32, arp: bool) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index.0;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up | LinkFlags::Noarp;
        message.header.flags.set(LinkFlags::Noarp, !arp);
        message.attributes = vec![LinkAttribute::Mtu(mtu)];
        let what = format!("bringing up interface {index} with an MTU of {mtu}");
        self.request(what, RouteNetlinkMessage::SetLink(message), 0)
    }
}
