//! Routes and rules that steer what the kernel routes into `pollux0`, so that it is protected.
//!
//! ```text
//!   rule 5200  own, with control's mark            → main          IKE reaches a peer inside a protected prefix
//!   rule 5201  own, from anywhere (IPv6)           → goto 5203
//!   rule 5202  own, without a source address yet   → tables of narrow remote prefixes, with the address to take
//!   rule 5203  nothing: where 5201 leads
//!   rule 5210  from a local prefix                 → its two tables, of narrow and of wide remote prefixes
//!   rule 5211  from a wide local prefix            → table 20560   narrow remote prefixes
//!   rule 5212  own                                 → goto 5214
//!   rule 5213  from a wide local prefix            → table 20561   wide remote prefixes
//!   rule 5214  nothing: where 5212 leads
//! ```
//!
//! Every route there leads to pollux0, before one that says `unreachable`. They only steer. What leaves in clear although its pair is protected is dropped by the guard at the exit, whatever
//! becomes of rules and routes here; where they are missing, packets are lost. And they steer no more than the pairs:
//! every local prefix has tables of its own (from 20562 on), so that what is from elsewhere, or of another pair, goes
//! where the kernel leads it. Beyond [`LOCALS_MAX`] local prefixes they share tables 20560 and 20561: a list of rules is
//! walked for every packet that the kernel routes, and then a packet from one local prefix to the remote prefix of
//! another ends as `no_policy`.
//!
//! What the gateway sends without having chosen an address (most programs) takes the inside address that the policies
//! protect. Such a lookup has no source: `from 0.0.0.0/32` finds it in IPv4; in IPv6 no rule with a source matches it, so
//! that the others are led past.
//!
//! A remote selector of everything must not lock the operator out: it binds what comes from the local selector, and
//! what the gateway itself sends only where that selector is narrow enough to name the sender. The kernel negates a
//! rule as a whole (`not from X iif lo` matches whatever is from elsewhere), so that "forwarded from X" takes three
//! rules. Local prefixes inside a remote one (10.1.0.0/16 inside 10.0.0.0/8) stay where the other tables lead.
//!
//! Other programs remove what they do not know (systemd-networkd does). So every change goes by what the kernel really
//! has, before and after; and [`Locks::apply`] says what was missing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;
use pollux_abi::IfIndex;
use pollux_ebpf::{IpNet, is_narrow};

use crate::netlink::{LockKind, LockRoute, NetlinkError, Rtnl, Rule, RuleTarget};

/// Table of narrow remote prefixes of wide local prefixes.
pub const TABLE_NARROW: u32 = 20_560;
/// Table of remote prefixes too wide to name anybody, of wide local prefixes.
pub const TABLE_WIDE: u32 = 20_561;
/// The first of the tables of one local prefix: its narrow remote prefixes. Its wide ones are in the next table.
pub const TABLE_LOCAL: u32 = 20_562;
/// Most local prefixes that have tables of their own.
pub const LOCALS_MAX: u32 = 64;
/// Our tables, which forwarding must not follow.
pub const TABLES: RangeInclusive<u32> = TABLE_NARROW..=TABLE_LOCAL + 2 * LOCALS_MAX - 1;

/// What the data plane marks control's IKE sockets with (`SO_MARK`). It steers, and proves nothing to the guard.
pub const IKE_MARK: u32 = 0x504f_4c58;

const PRIORITY_IKE: u32 = 5_200;
const PRIORITY_HAS_SOURCE: u32 = 5_201;
const PRIORITY_NO_SOURCE: u32 = 5_202;
const PRIORITY_NO_SOURCE_END: u32 = 5_203;
const PRIORITY_LOCAL: u32 = 5_210;
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
            let is_target = |rule: &Rule| matches!(rule.priority, PRIORITY_END | PRIORITY_NO_SOURCE_END);
            rules.sort_unstable_by_key(|rule| (!is_target(rule), rule.priority));
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
    let mut wanted = Wanted::default();
    let locals: BTreeSet<IpNet> = pairs.iter().map(|(local, _)| local.trunc()).collect();
    let tables = tables(&locals);
    // By table and remote prefix: the address that the gateway takes for what it sends there itself. Of several local
    // prefixes with one remote prefix the first with an address of ours counts.
    let mut remotes: BTreeMap<(u32, IpNet), Option<IpAddr>> = BTreeMap::new();
    for &(local, remote) in pairs {
        let (local, remote) = (local.trunc(), remote.trunc());
        let source =
            addresses.iter().copied().find(|address| local.prefix_len() > 0 && local.contains(address));
        let own = tables.get(&local).map(|first| first + u32::from(!is_narrow(&remote)));
        let table = own.unwrap_or_else(|| shared_table(&remote));
        let known = remotes.entry((table, remote)).or_default();
        *known = known.or(source);
        wanted.rules.extend(rules(local, remote, table));
        // The same table as with the source address: the kernel keeps what it has learned of a path (its MTU) there.
        if source.is_some() && is_narrow(&remote) && own.is_some() {
            wanted.rules.extend(rules_without_source(remote.addr().is_ipv4(), table));
        }
    }
    for ((table, remote), source) in remotes {
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

/// The first table of each local prefix that has tables of its own.
fn tables(locals: &BTreeSet<IpNet>) -> BTreeMap<IpNet, u32> {
    let narrow: Vec<IpNet> = locals.iter().copied().filter(is_narrow).collect();
    if narrow.len() > LOCALS_MAX as usize {
        BTreeMap::new()
    } else {
        narrow.into_iter().zip((TABLE_LOCAL..).step_by(2)).collect()
    }
}

/// Where the remote prefixes are of local prefixes without a table of their own.
fn shared_table(remote: &IpNet) -> u32 {
    if is_narrow(remote) { TABLE_NARROW } else { TABLE_WIDE }
}

/// The rules that lead from a local prefix to the table of a remote prefix.
fn rules(local: IpNet, remote: IpNet, table: u32) -> Vec<Rule> {
    let ipv4 = remote.addr().is_ipv4();
    let rule = |priority, source, own, target| Rule { ipv4, priority, source, own, mark: None, target };
    let ike = Rule { mark: Some(IKE_MARK), ..rule(PRIORITY_IKE, None, true, RuleTarget::Table(TABLE_MAIN)) };
    let from = Some((local.addr(), local.prefix_len())).filter(|&(_, len)| len > 0);
    match table {
        // One rule for all of them: who else sends there is led astray, and told so in the counters.
        TABLE_NARROW if is_narrow(&local) => {
            vec![ike, rule(PRIORITY_NARROW, None, false, RuleTarget::Table(table))]
        }
        TABLE_NARROW => vec![ike, rule(PRIORITY_NARROW, from, false, RuleTarget::Table(table))],
        TABLE_WIDE if !is_narrow(&local) => vec![
            ike,
            rule(PRIORITY_OWN, None, true, RuleTarget::Goto(PRIORITY_END)),
            rule(PRIORITY_WIDE, from, false, RuleTarget::Table(table)),
            rule(PRIORITY_END, None, false, RuleTarget::Nothing),
        ],
        _ => vec![ike, rule(PRIORITY_LOCAL, from, false, RuleTarget::Table(table))],
    }
}

/// The rules that lead what the gateway sends without a source address to a table.
fn rules_without_source(ipv4: bool, table: u32) -> Vec<Rule> {
    let rule = |priority, source, target| Rule { ipv4, priority, source, own: true, mark: None, target };
    let target = RuleTarget::Table(table);
    if ipv4 {
        return vec![rule(PRIORITY_NO_SOURCE, Some((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 32)), target)];
    }
    let any_source = |first: u16| {
        let half = IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0));
        rule(PRIORITY_HAS_SOURCE, Some((half, 1)), RuleTarget::Goto(PRIORITY_NO_SOURCE_END))
    };
    let end = Rule { own: false, ..rule(PRIORITY_NO_SOURCE_END, None, RuleTarget::Nothing) };
    vec![any_source(0), any_source(0x8000), rule(PRIORITY_NO_SOURCE, None, target), end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    fn kinds(wanted: &Wanted, table: u32) -> Vec<(LockKind, Option<IpAddr>)> {
        let routes = wanted.routes.iter().filter(|route| route.table == table);
        routes.map(|route| (route.kind, route.source)).collect()
    }

    #[test]
    fn every_remote_prefix_is_unreachable_behind_pollux0() {
        let pairs = [(net("10.1.0.0/16"), net("10.2.0.0/16"))];
        let own: IpAddr = "10.1.0.1".parse().expect("an address");
        let wanted = wanted(&pairs, Some(IfIndex(7)), &[own]);
        let expected = [(LockKind::To(IfIndex(7)), Some(own)), (LockKind::Unreachable, None)];
        assert_eq!(kinds(&wanted, TABLE_LOCAL), expected);
        let from: Vec<_> = wanted.rules.iter().map(|rule| (rule.priority, rule.source)).collect();
        let source = |text: &str, len| Some((text.parse().expect("an address"), len));
        let expected = [
            (PRIORITY_IKE, None),
            (PRIORITY_NO_SOURCE, source("0.0.0.0", 32)),
            (PRIORITY_LOCAL, source("10.1.0.0", 16)),
        ];
        assert_eq!(from, expected);
    }

    #[test]
    fn local_prefixes_do_not_lend_each_other_their_remote_prefixes() {
        let pairs = [(net("10.1.0.0/16"), net("10.2.0.0/16")), (net("10.3.0.0/16"), net("10.4.0.0/16"))];
        let wanted = wanted(&pairs, None, &[]);
        let routes: Vec<_> =
            wanted.routes.iter().map(|route| (route.table, route.destination.to_string())).collect();
        assert_eq!(routes, [(TABLE_LOCAL, "10.2.0.0".to_owned()), (TABLE_LOCAL + 2, "10.4.0.0".to_owned())]);
    }

    #[test]
    fn many_local_prefixes_share_a_table_and_a_rule() {
        let remote = net("10.200.0.0/16");
        let pairs: Vec<_> = (0..=LOCALS_MAX).map(|n| (net(&format!("10.1.{n}.0/24")), remote)).collect();
        let wanted = wanted(&pairs, None, &[]);
        assert!(wanted.routes.iter().all(|route| route.table == TABLE_NARROW));
        assert_eq!(wanted.rules.len(), 2, "that for IKE and one more");
    }

    #[test]
    fn without_a_source_an_ipv6_lookup_alone_reaches_the_table_of_the_gateway() {
        let own: IpAddr = "fd01::1".parse().expect("an address");
        let wanted = wanted(&[(net("fd01::/64"), net("fd02::/64"))], None, &[own]);
        let rules: Vec<_> = wanted.rules.iter().filter(|rule| rule.priority < PRIORITY_LOCAL).collect();
        let halves = rules.iter().filter(|rule| {
            rule.target == RuleTarget::Goto(PRIORITY_NO_SOURCE_END)
                && rule.own
                && rule.source.is_some_and(|(_, len)| len == 1)
        });
        assert_eq!(halves.count(), 2, "both halves of all addresses");
        let last = rules.last().expect("rules");
        assert_eq!((last.priority, last.target), (PRIORITY_NO_SOURCE_END, RuleTarget::Nothing));
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
        assert!(wanted.routes.iter().all(|route| route.table == TABLE_WIDE && route.source.is_none()));
    }

    #[test]
    fn a_full_tunnel_of_one_subnet_binds_that_subnet_and_the_gateways_address_in_it() {
        let own: IpAddr = "10.1.0.1".parse().expect("an address");
        let wanted = wanted(&[(net("10.1.0.0/16"), net("0.0.0.0/0"))], Some(IfIndex(7)), &[own]);
        let leading: Vec<_> =
            wanted.rules.iter().filter(|rule| rule.target == RuleTarget::Table(TABLE_LOCAL + 1)).collect();
        let [rule] = leading[..] else { panic!("{leading:?}") };
        assert_eq!((rule.source, rule.own), (Some(("10.1.0.0".parse().expect("an address"), 16)), false));
        assert!(wanted.routes.iter().any(|route| route.kind == LockKind::Throw && route.prefix_len == 16));
        assert!(wanted.rules.iter().any(|rule| rule.mark == Some(IKE_MARK) && rule.own));
    }

    #[test]
    fn a_local_prefix_inside_the_remote_one_is_left_to_the_other_tables() {
        let pairs = [(net("10.1.0.0/16"), net("10.0.0.0/8"))];
        let wanted = wanted(&pairs, None, &[]);
        assert!(wanted.routes.iter().any(|route| {
            route.kind == LockKind::Throw && route.prefix_len == 16 && route.table == TABLE_LOCAL
        }));
    }

    #[test]
    fn a_wide_local_selector_with_a_narrow_remote_one_binds_the_gateway_too() {
        let wanted = wanted(&[(net("0.0.0.0/0"), net("10.2.0.0/16"))], None, &[]);
        let rule = wanted.rules.last().expect("a rule");
        assert_eq!((rule.priority, rule.source, rule.own), (PRIORITY_NARROW, None, false));
        assert!(wanted.routes.iter().all(|route| route.table == TABLE_NARROW));
    }

    #[test]
    fn without_pollux0_the_unreachable_route_alone_remains() {
        let wanted = wanted(&[(net("10.1.0.0/16"), net("10.2.0.0/16"))], None, &[]);
        assert!(wanted.routes.iter().all(|route| route.kind == LockKind::Unreachable));
        assert_eq!(wanted.routes.len(), 1);
    }
}
