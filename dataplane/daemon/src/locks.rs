//! The second lock: kernel routes that keep protected traffic from leaving in clear.
//!
//! ```text
//!   rule 5200  own UDP 500 and 4500        → main          IKE reaches a peer inside a protected prefix
//!   rule 5210  everything                  → table 20559   protected remote prefixes → pollux0 | unreachable
//!   rule 5211  forwarded, from a local     → table 20560   0.0.0.0/0 and ::/0        → pollux0 | unreachable
//!              selector
//! ```
//!
//! Whatever the kernel routes to a protected remote prefix goes into `pollux0`, where the XDP program on our
//! end hands it to a worker or drops it; where `pollux0` is away, it is unreachable. That holds for the
//! gateway itself, a third interface and reassembled fragments, and outlives the data plane.
//!
//! A remote selector of everything must not lock the operator out: it binds what is forwarded from the
//! local selector, and not what the gateway itself sends. Local prefixes inside a remote one (10.1.0.0/16
//! inside 10.0.0.0/8) stay where the other tables lead.

use std::collections::BTreeSet;
use std::net::IpAddr;

use pollux_abi::IfIndex;
use pollux_ebpf::IpNet;

use crate::netlink::{LockKind, LockRoute, NetlinkError, Origin, Rtnl, Rule};

/// Table of protected remote prefixes.
pub const TABLE: u32 = 20_559;
/// Table of remote selectors that are everything.
pub const TABLE_ALL: u32 = 20_560;
/// Our tables, which forwarding must not follow.
pub const TABLES: &[u32] = &[TABLE, TABLE_ALL];

const PRIORITY_IKE: u32 = 5_200;
const PRIORITY: u32 = 5_210;
const PRIORITY_ALL: u32 = 5_211;
const TABLE_MAIN: u32 = 254;

/// Routes and rules of one set of protected pairs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    routes: BTreeSet<LockRoute>,
    rules: BTreeSet<Rule>,
}

/// What is in the kernel, as far as this process has put it there.
#[derive(Debug, Default)]
pub struct Locks {
    installed: Wanted,
}

impl Locks {
    /// Puts the locks for `pairs` of (local, remote) prefixes in force: first what is new, then away with
    /// what is no longer wanted, also of an earlier process. `addresses` are the gateway's own.
    pub fn apply(
        &mut self,
        rtnl: &mut Rtnl,
        pairs: &[(IpNet, IpNet)],
        host_link: Option<IfIndex>,
        addresses: &[IpAddr],
    ) -> Result<(), NetlinkError> {
        let wanted = wanted(pairs, host_link, addresses);
        for route in &wanted.routes {
            rtnl.put_route(route)?;
        }
        for rule in wanted.rules.difference(&self.installed.rules) {
            rtnl.add_rule(rule)?;
        }
        let first = self.installed == Wanted::default();
        if first {
            remove_others(rtnl, &wanted)?;
        } else {
            for rule in self.installed.rules.difference(&wanted.rules) {
                rtnl.delete_rule(rule)?;
            }
            for route in self.installed.routes.difference(&wanted.routes) {
                // A route that differs in its source alone has been replaced already.
                let replaced = wanted.routes.iter().any(|new| same_place(new, route));
                if !replaced {
                    rtnl.delete_lock(route)?;
                }
            }
        }
        self.installed = wanted;
        Ok(())
    }

    /// Removes every rule and route that carries our protocol number.
    pub fn remove_all(rtnl: &mut Rtnl) -> Result<(), NetlinkError> {
        remove_others(rtnl, &Wanted::default())
    }
}

fn same_place(a: &LockRoute, b: &LockRoute) -> bool {
    let class = |kind| matches!(kind, LockKind::Unreachable);
    (a.table, a.destination, a.prefix_len, class(a.kind))
        == (b.table, b.destination, b.prefix_len, class(b.kind))
}

/// Removes what is ours and not wanted. Rules go first: without them the routes mean nothing.
fn remove_others(rtnl: &mut Rtnl, wanted: &Wanted) -> Result<(), NetlinkError> {
    for message in rtnl.own_rules()? {
        if !wanted.rules.iter().any(|rule| rule.is_same_as(&message)) {
            rtnl.delete_rule_message(message)?;
        }
    }
    for message in rtnl.own_routes()? {
        if !wanted.routes.iter().any(|route| route.is_same_as(&message)) {
            rtnl.delete_route(message)?;
        }
    }
    Ok(())
}

fn wanted(pairs: &[(IpNet, IpNet)], host_link: Option<IfIndex>, addresses: &[IpAddr]) -> Wanted {
    let mut wanted = Wanted::default();
    for &(local, remote) in pairs {
        let ipv4 = remote.addr().is_ipv4();
        let all = remote.prefix_len() == 0;
        let source =
            addresses.iter().copied().find(|address| local.prefix_len() > 0 && local.contains(address));
        let table = if all { TABLE_ALL } else { TABLE };
        let place = |kind, source| LockRoute {
            table,
            destination: remote.trunc().addr(),
            prefix_len: remote.prefix_len(),
            kind,
            source,
        };
        wanted.routes.insert(place(LockKind::Unreachable, None));
        if let Some(link) = host_link {
            let way = place(LockKind::To(link), source);
            // Of several local prefixes with one remote prefix the first with an address of ours counts.
            if !wanted.routes.iter().any(|known| same_place(known, &way) && known.source.is_some()) {
                wanted.routes.retain(|known| !same_place(known, &way));
                wanted.routes.insert(way);
            }
        }
        let nested = |other: &IpNet| remote.contains(other) && *other != remote && other.prefix_len() > 0;
        for inside in pairs.iter().map(|(other, _)| other.trunc()).filter(nested) {
            wanted.routes.insert(LockRoute {
                table,
                destination: inside.addr(),
                prefix_len: inside.prefix_len(),
                kind: LockKind::Throw,
                source: None,
            });
        }
        let rule = |priority, source, origin, udp_source_port, table| Rule {
            ipv4,
            priority,
            source,
            origin,
            udp_source_port,
            table,
        };
        if all {
            let from = (local.trunc().addr(), local.prefix_len());
            wanted.rules.insert(rule(PRIORITY_ALL, Some(from), Origin::Forwarded, None, TABLE_ALL));
        } else {
            wanted.rules.insert(rule(PRIORITY, None, Origin::Any, None, TABLE));
            for port in [500, 4500] {
                wanted.rules.insert(rule(PRIORITY_IKE, None, Origin::Own, Some(port), TABLE_MAIN));
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    #[test]
    fn every_remote_prefix_is_unreachable_behind_pollux0() {
        let pairs = [(net("10.1.0.0/16"), net("10.2.0.0/16"))];
        let own: IpAddr = "10.1.0.1".parse().expect("an address");
        let wanted = wanted(&pairs, Some(IfIndex(7)), &[own]);
        let kinds: Vec<_> =
            wanted.routes.iter().map(|route| (route.table, route.kind, route.source)).collect();
        assert_eq!(
            kinds,
            [(TABLE, LockKind::To(IfIndex(7)), Some(own)), (TABLE, LockKind::Unreachable, None)]
        );
        assert!(wanted.rules.iter().any(|rule| rule.table == TABLE && rule.origin == Origin::Any));
    }

    #[test]
    fn everything_as_selector_binds_only_what_is_forwarded() {
        let pairs = [(net("0.0.0.0/0"), net("0.0.0.0/0")), (net("::/0"), net("::/0"))];
        let wanted = wanted(&pairs, Some(IfIndex(7)), &["192.0.2.1".parse().expect("an address")]);
        assert!(wanted.rules.iter().all(|rule| rule.origin == Origin::Forwarded));
        assert!(wanted.routes.iter().all(|route| route.table == TABLE_ALL && route.source.is_none()));
        assert_eq!(wanted.rules.len(), 2, "one for each family");
    }

    #[test]
    fn a_local_prefix_inside_the_remote_one_is_left_to_the_other_tables() {
        let pairs = [(net("10.1.0.0/16"), net("10.0.0.0/8"))];
        let wanted = wanted(&pairs, None, &[]);
        assert!(wanted.routes.iter().any(|route| {
            route.kind == LockKind::Throw && route.prefix_len == 16 && route.table == TABLE
        }));
    }

    #[test]
    fn without_pollux0_the_unreachable_route_alone_remains() {
        let wanted = wanted(&[(net("10.1.0.0/16"), net("10.2.0.0/16"))], None, &[]);
        assert!(wanted.routes.iter().all(|route| route.kind == LockKind::Unreachable));
        assert_eq!(wanted.routes.len(), 1);
    }
}
