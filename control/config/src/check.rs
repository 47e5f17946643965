//! Mistakes that only show when sections are held against each other.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use pollux_abi::command::Direction;
use pollux_abi::layout::SELECTORS_MAX;
use pollux_abi::{Reqid, TrafficSelector};

use crate::document::Report;
use crate::model::{Action, ChildSelector, Config, ManualSa, Policy};

/// Reports every such mistake, and fills in the selectors that SAs take from their policies.
pub(crate) fn across(report: &Report, config: &mut Config) {
    names(report, config);
    spis_and_keys(report, config);
    places(report, config);
    reqids(report, config);
    selectors(report, config);
    shadowed(report, &config.policies);
}

/// Reports each item whose key an earlier one has.
fn twice<T, K: Eq + Hash>(items: &[T], key: impl Fn(&T) -> Option<K>, mut found: impl FnMut(&T, &T)) {
    let mut seen: HashMap<K, &T> = HashMap::new();
    for item in items {
        let Some(key) = key(item) else { continue };
        if let Some(earlier) = seen.get(&key) {
            found(earlier, item);
        } else {
            seen.insert(key, item);
        }
    }
}

fn names(report: &Report, config: &Config) {
    let fix = "give each a name of its own; reloads tell them apart by it";
    twice(
        &config.sas,
        |sa| Some(sa.name.clone()),
        |earlier, sa| {
            let reason = format!("`{}` is also the name of the SA on line {}", sa.name, earlier.line);
            report.add(sa.line, format!("sa.{}.name", sa.name), reason, fix);
        },
    );
    twice(
        &config.policies,
        |policy| Some(policy.name.clone()),
        |earlier, policy| {
            let reason = format!("`{}` is also the name of the policy on line {}", policy.name, earlier.line);
            report.add(policy.line, format!("policy.{}.name", policy.name), reason, fix);
        },
    );
    twice(
        &config.connections,
        |connection| Some(connection.name.clone()),
        |earlier, connection| {
            let reason =
                format!("`{}` is also the name of the connection on line {}", connection.name, earlier.line);
            report.add(connection.line, format!("connection.{}.name", connection.name), reason, fix);
        },
    );
}

fn spis_and_keys(report: &Report, config: &Config) {
    let sa_wrong = |sa: &ManualSa, key: &str, reason: String, fix: &str| {
        report.add_at(&format!("sa.{}", sa.name), key, reason, fix);
    };
    let inbound = |sa: &ManualSa| (sa.direction == Direction::Inbound).then_some(sa.spi);
    twice(&config.sas, inbound, |earlier, sa| {
        let reason = format!("{} is also the SPI of inbound SA `{}`", sa.spi, earlier.name);
        sa_wrong(sa, "spi", reason, "give each inbound SA an SPI of its own");
    });
    let outbound = |sa: &ManualSa| (sa.direction == Direction::Outbound).then_some((sa.spi, sa.remote));
    twice(&config.sas, outbound, |earlier, sa| {
        let reason = format!("{} to {} is also the SPI of outbound SA `{}`", sa.spi, sa.remote, earlier.name);
        sa_wrong(sa, "spi", reason, "a peer tells SAs apart by their SPI: give each its own");
    });
    twice(
        &config.sas,
        |sa| Some(sa.key.clone()),
        |earlier, sa| {
            let reason = format!("`{}` is also the key of SA `{}`", sa.key, earlier.name);
            sa_wrong(
                sa,
                "key",
                reason,
                "draw a key for each SA and direction: one key under two SAs breaks AES-GCM",
            );
        },
    );
}

/// Owners and table sizes.
fn places(report: &Report, config: &Config) {
    let workers = config.dataplane.queues;
    for sa in &config.sas {
        if let Some(worker) = sa.worker.filter(|&worker| worker >= workers) {
            let fix = format!("write 0 to {}, or leave the key out", workers - 1);
            let reason = format!("there is no worker {worker}");
            report.add_at(&format!("sa.{}", sa.name), "worker", reason, fix);
        }
    }
    for direction in [Direction::Inbound, Direction::Outbound] {
        let count = config.sas.iter().filter(|sa| sa.direction == direction).count();
        let capacity = config.dataplane.sa_capacity as usize;
        if count > capacity {
            let reason = format!("{count} manual SAs of one direction, and the tables hold {capacity}");
            let fix = format!("write at least {}", count.next_power_of_two());
            report.add_at("dataplane", "sa_capacity", reason, fix);
        }
    }
}

/// A reqid in one direction, true for outbound: what ties SAs and policies together.
type Use = (Reqid, bool);

fn is_outbound(direction: Direction) -> bool {
    direction == Direction::Outbound
}

/// What a policy protects with.
fn uses(policy: &Policy) -> impl Iterator<Item = Use> {
    let reqid = match policy.action {
        Action::Protect(reqid) => Some(reqid),
        Action::Bypass | Action::Discard => None,
    };
    reqid
        .into_iter()
        .flat_map(|reqid| policy.directions.iter().map(move |&direction| (reqid, is_outbound(direction))))
}

fn reqids(report: &Report, config: &Config) {
    let of_sas: HashSet<Use> = config.sas.iter().map(|sa| (sa.reqid, is_outbound(sa.direction))).collect();
    let of_policies: HashSet<Use> = config.policies.iter().flat_map(uses).collect();
    let child_reqids: HashSet<Reqid> = config
        .connections
        .iter()
        .flat_map(|connection| &connection.children)
        .filter_map(|child| child.reqid)
        .collect();
    // Where an SA has a mistake, that its policy has none follows from it.
    let sas_are_whole = !report.has_problem_below("sa.");
    for policy in config.policies.iter().filter(|_| sas_are_whole) {
        let Action::Protect(reqid) = policy.action else { continue };
        for &direction in &policy.directions {
            let kept = of_sas.contains(&(reqid, is_outbound(direction)));
            if !kept && !child_reqids.contains(&reqid) {
                let which = if direction == Direction::Outbound { "out" } else { "in" };
                let reason = format!("no [[sa]] has direction = \"{which}\" and reqid = {reqid}");
                let fix = "add the SA, or the reqid of one that exists; until then this traffic is dropped";
                report.warn_at(&format!("policy.{}", policy.name), "reqid", reason, fix);
            }
        }
    }
    // Where a policy has a mistake, that its SA has none follows from it.
    let policies_are_whole = !report.has_problem_below("policy.");
    for sa in config.sas.iter().filter(|_| policies_are_whole) {
        if !of_policies.contains(&(sa.reqid, is_outbound(sa.direction))) {
            let reason = format!("no [[policy]] protects anything with reqid = {}", sa.reqid);
            report.add_at(
                &format!("sa.{}", sa.name),
                "reqid",
                reason,
                "add a [[policy]] with action = \"protect\" and this reqid",
            );
        }
    }
    for sa in &config.sas {
        if child_reqids.contains(&sa.reqid) {
            let reason = format!("reqid {} is also that of a connection's child", sa.reqid);
            report.add_at(
                &format!("sa.{}", sa.name),
                "reqid",
                reason,
                "keep manual and negotiated SAs apart",
            );
        }
    }
    let children: Vec<_> = config
        .connections
        .iter()
        .flat_map(|connection| connection.children.iter().map(move |child| (&connection.name, child)))
        .collect();
    twice(
        &children,
        |(_, child)| child.reqid,
        |(_, earlier), (connection, child)| {
            let reason = format!("is also the reqid of child `{}`", earlier.name);
            let section = format!("connection.{connection}.children.{}", child.name);
            report.add_at(&section, "reqid", reason, "give each child its own, or leave the key out");
        },
    );
}

/// SAs without selectors take those of their policies; others have to cover them.
fn selectors(report: &Report, config: &mut Config) {
    let Config { sas, policies, .. } = config;
    let mut by_use: HashMap<Use, Vec<&Policy>> = HashMap::new();
    for policy in policies.iter() {
        for used in uses(policy) {
            by_use.entry(used).or_default().push(policy);
        }
    }
    for sa in sas {
        let section = format!("sa.{}", sa.name);
        let of_sa = by_use.get(&(sa.reqid, is_outbound(sa.direction))).map_or(&[][..], Vec::as_slice);
        for (key, side, own) in [
            ("local_ts", local_ts as Side, &mut sa.local_ts),
            ("remote_ts", remote_ts as Side, &mut sa.remote_ts),
        ] {
            let wanted: Vec<TrafficSelector> =
                of_sa.iter().flat_map(|policy| side(policy)).copied().collect();
            if own.is_empty() {
                *own = joined(&wanted);
                if own.len() > SELECTORS_MAX {
                    let reason = format!(
                        "the policies of its reqid have {} selectors, and {SELECTORS_MAX} fit",
                        own.len()
                    );
                    report.add_at(&section, key, reason, "write wider prefixes here, or split the SA");
                }
            } else if let Some(missed) =
                wanted.iter().find(|wanted| !own.iter().any(|own| own.covers(wanted)))
            {
                let reason =
                    format!("does not cover {missed}, which a policy of reqid {} protects", sa.reqid);
                report.add_at(
                    &section,
                    key,
                    reason,
                    "widen it, or leave both selectors out to take the policies'",
                );
            }
        }
    }
}

type Side = fn(&Policy) -> &[TrafficSelector];

fn local_ts(policy: &Policy) -> &[TrafficSelector] {
    &policy.local_ts
}

fn remote_ts(policy: &Policy) -> &[TrafficSelector] {
    &policy.remote_ts
}

/// The list without what another of its entries covers.
fn joined(list: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut kept: Vec<TrafficSelector> = Vec::new();
    for selector in list {
        if !kept.iter().any(|other| other.covers(selector)) {
            kept.retain(|other| !selector.covers(other));
            kept.push(*selector);
        }
    }
    kept
}

/// Policies that can never match because earlier ones take all of their traffic.
fn shadowed(report: &Report, policies: &[Policy]) {
    if policies.len() > SHADOW_CHECK_MAX {
        return;
    }
    let covers = |wide: &[TrafficSelector], narrow: &[TrafficSelector]| {
        narrow.iter().all(|narrow| wide.iter().any(|wide| wide.covers(narrow)))
    };
    for (index, policy) in policies.iter().enumerate() {
        let earlier = policies[..index].iter().find(|earlier| {
            policy.directions.iter().all(|direction| earlier.directions.contains(direction))
                && covers(&earlier.local_ts, &policy.local_ts)
                && covers(&earlier.remote_ts, &policy.remote_ts)
        });
        if let Some(earlier) = earlier {
            report.add_at(
                &format!("policy.{}", policy.name),
                "local_ts",
                format!(
                    "never matches: policy `{}` on line {} takes all of it first",
                    earlier.name, earlier.line
                ),
                "put the narrower policy first, or remove this one",
            );
        }
    }
}

/// The check compares each policy with all before it; beyond this it would be felt.
const SHADOW_CHECK_MAX: usize = 2_000;

/// The fixed selectors of a child's side.
pub(crate) fn fixed(list: &[ChildSelector]) -> Vec<TrafficSelector> {
    list.iter()
        .filter_map(|selector| match selector {
            ChildSelector::Fixed(selector) => Some(*selector),
            ChildSelector::Dynamic => None,
        })
        .collect()
}
