//! Policy routing rules that lead to our tables.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::route::PROTOCOL;
use super::socket::{NetlinkError, Rtnl};

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleTarget {
    /// Looks in a table.
    Table(u32),
    /// Goes on with the rules of a later priority.
    Goto(u32),
    /// Nothing: a place to go to.
    Nothing,
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
    /// Only what the gateway itself sends.
    pub own: bool,
    /// Only packets with exactly this mark.
    pub mark: Option<u32>,
    /// What it does.
    pub target: RuleTarget,
}

impl Rule {
    /// Whether the kernel's rule is this one: neither less nor more selective. The kernel adds attributes that
    /// select nothing.
    pub(crate) fn is_same_as(&self, message: &RuleMessage) -> bool {
        let ours = self.message();
        let header = &message.header;
        (ours.header.family, ours.header.src_len, ours.header.action, 0, 0)
            == (header.family, header.src_len, header.action, header.dst_len, header.tos)
            && !header.flags.contains(RuleFlags::Invert)
            && ours.attributes.iter().all(|attribute| message.attributes.contains(attribute))
            && message
                .attributes
                .iter()
                .all(|attribute| !selects(attribute) || ours.attributes.contains(attribute))
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = if self.ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.attributes = vec![
            RuleAttribute::Priority(self.priority),
            RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
        ];
        match self.target {
            RuleTarget::Table(table) => {
                message.header.action = RuleAction::ToTable;
                message.attributes.push(RuleAttribute::Table(table));
            }
            RuleTarget::Goto(priority) => {
                message.header.action = RuleAction::Goto;
                message.attributes.push(RuleAttribute::Goto(priority));
            }
            RuleTarget::Nothing => message.header.action = RuleAction::Nop,
        }
        if let Some((prefix, len)) = self.source.filter(|&(_, len)| len > 0) {
            message.header.src_len = len;
            message.attributes.push(RuleAttribute::Source(prefix));
        }
        if self.own {
            // What the host itself sends looks as if it came in on lo.
            message.attributes.push(RuleAttribute::Iifname("lo".to_owned()));
        }
        if let Some(mark) = self.mark {
            message.attributes.push(RuleAttribute::FwMark(mark));
            message.attributes.push(RuleAttribute::FwMask(u32::MAX));
        }
        message
    }
}

/// Whether an attribute narrows down the packets of a rule.
fn selects(attribute: &RuleAttribute) -> bool {
    match attribute {
        RuleAttribute::FwMark(mark) | RuleAttribute::FwMask(mark) => *mark != 0,
        RuleAttribute::TunId(id) => *id != 0,
        RuleAttribute::Source(_)
        | RuleAttribute::Destination(_)
        | RuleAttribute::Iifname(_)
        | RuleAttribute::Oifname(_)
        | RuleAttribute::UidRange(_)
        | RuleAttribute::IpProtocol(_)
        | RuleAttribute::SourcePortRange(_)
        | RuleAttribute::DestinationPortRange(_) => true,
        _ => false,
    }
}

impl Rtnl {
    /// Adds a rule that is not there. The kernel is not asked to refuse a duplicate (`NLM_F_EXCL`): to it a rule
    /// without a source is the same as one with.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        let what = format!("rule {}", rule.priority);
        self.request(what, RouteNetlinkMessage::NewRule(rule.message()), NLM_F_CREATE)
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
