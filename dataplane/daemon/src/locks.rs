//! Routes and rules that steer what the kernel routes into `pollux0`, so that it is protected.
//!
//! ```text
//!   rule 5200  own, with control's mark            → main          IKE reaches a peer inside a protected prefix
//!   rule 5210  everything                          → table 20559   remote prefixes         → pollux0 | unreachable
//!   rule 5211  from a local prefix                 → table 20560   wide remote prefixes    → pollux0 | unreachable
//!   rule 5212  own                                 → goto 5214
//!   rule 5213  from a wide local prefix            → table 20560
//!   rule 5214  nothing: where 5212 leads
//! ```
//!
//! They only steer. What leaves in clear although its pair is protected is dropped by the guard at the exit, whatever
//! becomes of rules and routes here; where they are missing, packets are lost.
//!
//! A remote selector of everything must not lock the operator out: it binds what comes from the local selector, and
//! what the gateway itself sends only where that selector is narrow enough to name the sender. The kernel negates a
//! rule as a whole (`not from X iif lo` matches whatever is from elsewhere), so that "forwarded from X" takes three
//! rules. Local prefixes inside a remote one (10.1.0.0/16 inside 10.0.0.0/8) stay where the other tables lead.
//!
//! Other programs remove what they do not know (systemd-networkd does). So every change goes by what the kernel really
//! has, before and after; and [`Locks::apply`] says what was missing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;
use pollux_abi::IfIndex;
use pollux_ebpf::{IpNet, is_narrow};

use crate::netlink::{LockKind, LockRoute, NetlinkError, Rtnl, Rule, RuleTarget};

/// Table of protected remote prefixes.
pub const TABLE: u32 = 20_559;
/// Table of remote prefixes too wide to name anybody.
pub const TABLE_ALL: u32 = 20_560;
/// Our tables, which forwarding must not follow.
pub const TABLES: &[u32] = &[TABLE, TABLE_ALL];

/// What the data plane marks control's IKE sockets with (`SO_MARK`). It steers, and proves nothing to the guard.
pub const IKE_MARK: u32 = 0x504f_4c58;

const PRIORITY_IKE: u32 = 5_200;
const PRIORITY: u32 = 5_210;
const PRIORITY_NARROW: u32 = 5_211;
const PRIORITY_OWN: u32 = 5_212;
const PRIORITY_WIDE: u32 = 5_213;
const PRIORITY_END: u32 = 5_214;
const TABLE_MAIN: u32 = 254;

/// How often a set is written before it is said that the kernel does not keep it.
const TRIES: u32 = 3;

/// Routes and rules of one set of protected pairs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    routes: BTreeSet<LockRoute>,
    rules: BTreeSet<Rule>,
}

/// What the kernel has that carries our protocol number.
struct Actual {
    rules: Vec<RuleMessage>,
    routes: Vec<RouteMessage>,
}

/// What should be in the kernel, and has been put there.
#[derive(Debug, Default)]
pub struct Locks {
    installed: Wanted,
}

/// What was not as this process had left it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Rules that somebody had removed.
    pub rules: u32,
    /// Routes that somebody had removed, or that the kernel withdrew with an interface or address.
    pub routes: u32,
}

impl Locks {
    /// Makes the kernel's routes and rules of our protocol number those of `pairs` of (local, remote) prefixes: first
    /// what is missing, then away with what is not wanted, also of an earlier process; then looks again. `addresses`
    /// are the gateway's own.
    pub fn apply(
        &mut self,
        rtnl: &mut Rtnl,
        pairs: &[(IpNet, IpNet)],
        host_link: Option<IfIndex>,
        addresses: &[IpAddr],
    ) -> Result<Restored, NetlinkError> {
        let wanted = wanted(pairs, host_link, addresses);
        let mut restored = Restored::default();
        for attempt in 1.. {
            let actual = Actual::read(rtnl)?;
            let rules: Vec<&Rule> = actual.missing_rules(&wanted);
            let routes: Vec<&LockRoute> = actual.missing_routes(&wanted);
            let (surplus_rules, surplus_routes) = actual.surplus(&wanted);
            if rules.is_empty() && routes.is_empty() && surplus_rules.is_empty() && surplus_routes.is_empty()
            {
                break;
            }
            if attempt > TRIES {
                return Err(NetlinkError::NotKept { rules: rules.len(), routes: routes.len() });
            }
            if attempt == 1 {
                let lost = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
                restored.rules =
                    lost(rules.iter().filter(|rule| self.installed.rules.contains(**rule)).count());
                restored.routes =
                    lost(routes.iter().filter(|route| self.installed.routes.contains(**route)).count());
            }
            routes.into_iter().try_for_each(|route| rtnl.put_route(route))?;
            // The target of a jump before the jump, the jump before what it leads past.
            let mut rules = rules;
            rules.sort_unstable_by_key(|rule| (rule.priority != PRIORITY_END, rule.priority));
            rules.into_iter().try_for_each(|rule| rtnl.add_rule(rule))?;
            surplus_rules.into_iter().try_for_each(|rule| rtnl.delete_rule_message(rule))?;
            surplus_routes.into_iter().try_for_each(|route| rtnl.delete_route(route))?;
        }
        self.installed = wanted;
        Ok(restored)
    }

    /// Removes every rule and route that carries our protocol number.
    pub fn remove_all(rtnl: &mut Rtnl) -> Result<(), NetlinkError> {
        let (rules, routes) = Actual::read(rtnl)?.surplus(&Wanted::default());
        // Rules go first: without them the routes mean nothing.
        rules.into_iter().rev().try_for_each(|rule| rtnl.delete_rule_message(rule))?;
        routes.into_iter().try_for_each(|route| rtnl.delete_route(route))
    }
}

impl Actual {
    fn read(rtnl: &mut Rtnl) -> Result<Self, NetlinkError> {
        Ok(Self { rules: rtnl.own_rules()?, routes: rtnl.own_routes()? })
    }

    fn missing_rules<'a>(&self, wanted: &'a Wanted) -> Vec<&'a Rule> {
        wanted.rules.iter().filter(|rule| !self.rules.iter().any(|has| rule.is_same_as(has))).collect()
    }

    fn missing_routes<'a>(&self, wanted: &'a Wanted) -> Vec<&'a LockRoute> {
        let places = self.by_place();
        let has = |route: &LockRoute| {
            places.get(&route.place()).is_some_and(|list| list.iter().any(|has| route.is_same_as(has)))
        };
        wanted.routes.iter().filter(|route| !has(route)).collect()
    }

    /// What carries our number and is not wanted, or is there twice. Rules in the order in which they may go: the
    /// target of a jump after the jump.
    fn surplus(&self, wanted: &Wanted) -> (Vec<RuleMessage>, Vec<RouteMessage>) {
        let mut left: Vec<&Rule> = wanted.rules.iter().collect();
        let rules = self.rules.iter().filter(|has| match left.iter().position(|rule| rule.is_same_as(has)) {
            Some(at) => {
                left.swap_remove(at);
                false
            }
            None => true,
        });
        let rules: Vec<RuleMessage> = rules.cloned().collect();
        let mut places: BTreeMap<_, Vec<&LockRoute>> = BTreeMap::new();
        for route in &wanted.routes {
            places.entry(route.place()).or_default().push(route);
        }
        let wanted = |has: &RouteMessage| {
            LockRoute::place_of(has)
                .and_then(|place| places.get(&place))
                .is_some_and(|list| list.iter().any(|route| route.is_same_as(has)))
        };
        let routes = self.routes.iter().filter(|has| !wanted(has)).cloned().collect();
        (rules, routes)
    }

    fn by_place(&self) -> BTreeMap<(u32, IpAddr, u8), Vec<&RouteMessage>> {
        let mut places: BTreeMap<_, Vec<&RouteMessage>> = BTreeMap::new();
        for route in &self.routes {
            if let Some(place) = LockRoute::place_of(route) {
                places.entry(place).or_default().push(route);
            }
        }
        places
    }
}

fn wanted(pairs: &[(IpNet, IpNet)], host_link: Option<IfIndex>, addresses: &[IpAddr]) -> Wanted {
    let mut sources: BTreeMap<IpNet, Option<IpAddr>> = BTreeMap::new();
    let mut wanted = Wanted::default();
    let locals: BTreeSet<IpNet> = pairs.iter().map(|(local, _)| local.trunc()).collect();
    for &(local, remote) in pairs {
        let (local, remote) = (local.trunc(), remote.trunc());
        let source =
            addresses.iter().copied().find(|address| local.prefix_len() > 0 && local.contains(address));
        // Of several local prefixes with one remote prefix the first with an address of ours counts.
        let known = sources.entry(remote).or_default();
        *known = known.or(source);
        wanted.rules.extend(rules(local, remote));
    }
    for (remote, source) in sources {
        let table = if is_narrow(&remote) { TABLE } else { TABLE_ALL };
        let route = |prefix: IpNet, kind, source| LockRoute {
            table,
            destination: prefix.addr(),
            prefix_len: prefix.prefix_len(),
            kind,
            source,
        };
        wanted.routes.insert(route(remote, LockKind::Unreachable, None));
        if let Some(link) = host_link {
            wanted.routes.insert(route(remote, LockKind::To(link), source));
        }
        // Ordered by address, then length: what lies inside follows without a gap.
        let inside = locals.range(remote..).take_while(|other| remote.contains(*other));
        for local in inside.filter(|other| **other != remote && other.prefix_len() > 0) {
            wanted.routes.insert(route(*local, LockKind::Throw, None));
        }
    }
    wanted
}

fn rules(local: IpNet, remote: IpNet) -> Vec<Rule> {
    let ipv4 = remote.addr().is_ipv4();
    let rule = |priority, source, own, target| Rule { ipv4, priority, source, own, mark: None, target };
    let ike = Rule { mark: Some(IKE_MARK), ..rule(PRIORITY_IKE, None, true, RuleTarget::Table(TABLE_MAIN)) };
    let from = Some((local.addr(), local.prefix_len())).filter(|&(_, len)| len > 0);
    if is_narrow(&remote) {
        vec![ike, rule(PRIORITY, None, false, RuleTarget::Table(TABLE))]
    } else if is_narrow(&local) {
        vec![ike, rule(PRIORITY_NARROW, from, false, RuleTarget::Table(TABLE_ALL))]
    } else {
        vec![
            ike,
            rule(PRIORITY_OWN, None, true, RuleTarget::Goto(PRIORITY_END)),
            rule(PRIORITY_WIDE, from, false, RuleTarget::Table(TABLE_ALL)),
            rule(PRIORITY_END, None, false, RuleTarget::Nothing),
        ]
    }
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
        assert!(wanted.rules.iter().any(|rule| rule.target == RuleTarget::Table(TABLE) && !rule.own));
    }

    #[test]
    fn everything_as_selector_binds_only_what_is_forwarded() {
        let pairs = [(net("0.0.0.0/0"), net("0.0.0.0/0")), (net("::/0"), net("::/0"))];
        let wanted = wanted(&pairs, Some(IfIndex(7)), &["192.0.2.1".parse().expect("an address")]);
        for ipv4 in [true, false] {
            let rules: Vec<&Rule> = wanted.rules.iter().filter(|rule| rule.ipv4 == ipv4).collect();
            let place = |priority| rules.iter().position(|rule| rule.priority == priority).expect("the rule");
            assert!(place(PRIORITY_OWN) < place(PRIORITY_WIDE), "the gateway's own goes past");
            assert_eq!(rules[place(PRIORITY_OWN)].target, RuleTarget::Goto(PRIORITY_END));
            assert!(rules[place(PRIORITY_OWN)].own && place(PRIORITY_END) == rules.len() - 1);
        }
        assert!(wanted.routes.iter().all(|route| route.table == TABLE_ALL && route.source.is_none()));
    }

    #[test]
    fn a_full_tunnel_of_one_subnet_binds_that_subnet_and_the_gateways_address_in_it() {
        let own: IpAddr = "10.1.0.1".parse().expect("an address");
        let wanted = wanted(&[(net("10.1.0.0/16"), net("0.0.0.0/0"))], Some(IfIndex(7)), &[own]);
        let leading: Vec<_> =
            wanted.rules.iter().filter(|rule| rule.target == RuleTarget::Table(TABLE_ALL)).collect();
        let [rule] = leading[..] else { panic!("{leading:?}") };
        assert_eq!((rule.source, rule.own), (Some(("10.1.0.0".parse().expect("an address"), 16)), false));
        assert!(wanted.routes.iter().any(|route| route.kind == LockKind::Throw && route.prefix_len == 16));
        assert!(wanted.rules.iter().any(|rule| rule.mark == Some(IKE_MARK) && rule.own));
    }

    #[test]
    fn a_selector_too_wide_to_name_anybody_counts_as_everything() {
        let wanted = wanted(&[(net("10.1.0.0/16"), net("128.0.0.0/1"))], None, &[]);
        assert!(wanted.routes.iter().all(|route| route.table == TABLE_ALL));
        assert!(wanted.rules.iter().all(|rule| rule.priority != PRIORITY));
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
