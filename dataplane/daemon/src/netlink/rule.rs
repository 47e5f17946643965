//! Policy routing rules that lead to our tables.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};

use super::route::PROTOCOL;
use super::socket::{NetlinkError, Rtnl};

/// Where a packet comes from, as far as a rule is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// From anywhere.
    Any,
    /// From another host: it is being forwarded.
    Forwarded,
    /// From the gateway itself.
    Own,
}

/// A rule of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// IPv4 or IPv6.
    pub ipv4: bool,
    /// The lower, the earlier.
    pub priority: u32,
    /// Only packets from this prefix.
    pub source: Option<(IpAddr, u8)>,
    /// Only packets of this origin.
    pub origin: Origin,
    /// Only UDP from this port.
    pub udp_source_port: Option<u16>,
    /// The table to look in.
    pub table: u32,
}

impl Rule {
    /// Whether the kernel's rule is this one. The kernel adds attributes of its own.
    pub(crate) fn is_same_as(&self, message: &RuleMessage) -> bool {
        let ours = self.message();
        let header = &message.header;
        (ours.header.family, ours.header.src_len) == (header.family, header.src_len)
            && ours.header.flags.contains(RuleFlags::Invert) == header.flags.contains(RuleFlags::Invert)
            && ours.attributes.iter().all(|attribute| message.attributes.contains(attribute))
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = if self.ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Priority(self.priority),
            RuleAttribute::Table(self.table),
            RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
        ];
        if let Some((prefix, len)) = self.source.filter(|&(_, len)| len > 0) {
            message.header.src_len = len;
            message.attributes.push(RuleAttribute::Source(prefix));
        }
        if self.origin != Origin::Any {
            // What the host itself sends looks as if it came in on lo; all else is "not iif lo".
            message.attributes.push(RuleAttribute::Iifname("lo".to_owned()));
        }
        if self.origin == Origin::Forwarded {
            message.header.flags = RuleFlags::Invert;
        }
        if let Some(port) = self.udp_source_port {
            message.attributes.push(RuleAttribute::IpProtocol(IpProtocol::Udp));
            message.attributes.push(RuleAttribute::SourcePortRange(RulePortRange { start: port, end: port }));
        }
        message
    }
}

impl Rtnl {
    /// Adds a rule; one that is there already is fine.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        let what = format!("rule {} for table {}", rule.priority, rule.table);
        let added =
            self.request(what, RouteNetlinkMessage::NewRule(rule.message()), NLM_F_CREATE | NLM_F_EXCL);
        match added {
            Err(error) if error.is_exists() => Ok(()),
            other => other,
        }
    }

    /// Removes a rule; one that is gone already is fine.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        self.delete_rule_message(rule.message())
    }

    /// Every rule that carries our protocol number.
    pub(crate) fn own_rules(&mut self) -> Result<Vec<RuleMessage>, NetlinkError> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RuleMessage::default();
            message.header.family = family;
            self.dump("dump of rules", &RouteNetlinkMessage::GetRule(message), |entry| {
                if let RouteNetlinkMessage::NewRule(entry) = entry {
                    let ours = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
                    if entry.attributes.contains(&ours) {
                        rules.push(entry);
                    }
                }
            })?;
        }
        Ok(rules)
    }

    pub(crate) fn delete_rule_message(&mut self, message: RuleMessage) -> Result<(), NetlinkError> {
        let gone = self.request("removing a rule", RouteNetlinkMessage::DelRule(message), 0);
        match gone {
            Err(error) if error.is_missing() => Ok(()),
            other => other,
        }
    }
}
