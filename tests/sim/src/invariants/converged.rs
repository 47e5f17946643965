//! What both ends have when all is calm.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use pollux_abi::command::Direction;
use pollux_abi::{SaId, Spi, TrafficSelector};
use pollux_ike::Instant;
use pollux_ike::config::Unique;
use pollux_ike::endpoint::{ChildStatus, IkeStatus};

use crate::gateway::Gateway;
use crate::scenario::ScenarioParams;

/// 7 to 9.
pub(crate) fn converged(
    params: &ScenarioParams,
    gateways: &[Gateway; 2],
    now: Instant,
) -> Result<(), String> {
    let [a, b] = [0, 1].map(|end| gateways[end].endpoint.status(now));
    ike_sas(params, &a, &b)?;
    let pairs = |list: &[IkeStatus], swap: bool| -> BTreeSet<(Spi, Spi)> {
        children(list)
            .map(|child| (child.sa.spi_in, child.sa.spi_out))
            .map(|(ours, theirs)| if swap { (theirs, ours) } else { (ours, theirs) })
            .collect()
    };
    if pairs(&a, false) != pairs(&b, true) {
        return Err(format!("the ends have other Child SAs: {} and {}", brief(&a), brief(&b)));
    }
    for (end, list) in [&a, &b].into_iter().enumerate() {
        let gateway = &gateways[end];
        one_of_each(params, end, gateway, list).map_err(|what| format!("end {end}: {what}"))?;
        tables(gateway, list).map_err(|what| format!("end {end}: {what}"))?;
    }
    keys(gateways)
}

fn children(list: &[IkeStatus]) -> impl Iterator<Item = &ChildStatus> {
    list.iter().flat_map(|ike| &ike.children)
}

/// What a gateway has, in a line.
fn brief(list: &[IkeStatus]) -> String {
    let mut text = String::new();
    for ike in list {
        let _ = write!(text, "[{} {}/{}:", ike.state, ike.spi_i, ike.spi_r);
        for child in &ike.children {
            let sa = &child.sa;
            let _ = write!(text, " {} {} in {} out {};", sa.child, child.state, sa.spi_in, sa.spi_out);
        }
        text.push(']');
    }
    text
}

/// Both ends have the same IKE SAs, and with `unique = replace` a single one.
fn ike_sas(params: &ScenarioParams, a: &[IkeStatus], b: &[IkeStatus]) -> Result<(), String> {
    let spis =
        |list: &[IkeStatus]| -> BTreeSet<_> { list.iter().map(|ike| (ike.spi_i, ike.spi_r)).collect() };
    if spis(a) != spis(b) || a.iter().chain(b).any(|ike| ike.state != "ESTABLISHED") {
        return Err(format!("the ends have other IKE SAs: {} and {}", brief(a), brief(b)));
    }
    match a.len() {
        0 => Err("there is no IKE SA".to_owned()),
        1 => Ok(()),
        many if params.unique == Unique::Replace => {
            Err(format!("unique = replace leaves {many} IKE SAs: {}", brief(a)))
        }
        _ => Ok(()),
    }
}

/// Each child has one Child SA, at rest, for what both ends allow.
fn one_of_each(
    params: &ScenarioParams,
    end: usize,
    gateway: &Gateway,
    list: &[IkeStatus],
) -> Result<(), String> {
    for child in children(list) {
        if child.state != "INSTALLED" || !child.outbound {
            return Err(format!("a Child SA is not at rest: {child:?}"));
        }
    }
    for (nth, config) in gateway.children().enumerate() {
        for ike in list {
            let of_it: Vec<&ChildStatus> =
                ike.children.iter().filter(|child| child.sa.child == config.name).collect();
            if of_it.len() > 1 {
                return Err(format!("{} Child SAs of {}: {}", of_it.len(), config.name, brief(list)));
            }
        }
        let Some(child) = children(list).find(|child| child.sa.child == config.name) else {
            return Err(format!("no Child SA of {}", config.name));
        };
        if config.reqid.is_some_and(|reqid| reqid != child.sa.reqid) {
            return Err(format!("another reqid than the configured one: {child:?}"));
        }
        let carried: (Vec<TrafficSelector>, Vec<TrafficSelector>) = params.carried(end, nth);
        if (&child.sa.local_ts, &child.sa.remote_ts) != (&carried.0, &carried.1) {
            return Err(format!("both ends allow {carried:?}, and have {child:?}"));
        }
    }
    Ok(())
}

/// Nothing is left over.
fn tables(gateway: &Gateway, list: &[IkeStatus]) -> Result<(), String> {
    let known: BTreeSet<SaId> =
        children(list).flat_map(|child| [child.sa.inbound, child.sa.outbound]).collect();
    let held: BTreeSet<SaId> = gateway.data_plane.table.keys().copied().collect();
    if known != held {
        return Err(format!("the data plane holds {held:?}, the endpoint knows {known:?}"));
    }
    let given = gateway.data_plane.allocator.given();
    let used = gateway.data_plane.inbound_spis();
    if given == used { Ok(()) } else { Err(format!("SPIs given: {given:?}, in use: {used:?}")) }
}

/// What one end seals, the other opens.
fn keys(gateways: &[Gateway; 2]) -> Result<(), String> {
    for end in 0..2 {
        let of = |end: usize, direction: Direction| {
            let table = gateways[end].data_plane.table.values();
            table.map(|entry| &entry.install).filter(move |install| install.direction == direction)
        };
        for ours in of(end, Direction::Outbound) {
            let opened = of(1 - end, Direction::Inbound).any(|theirs| {
                theirs.spi == ours.spi
                    && theirs.keys.as_bytes() == ours.keys.as_bytes()
                    && (theirs.suite, theirs.esn) == (ours.suite, ours.esn)
            });
            if !opened {
                return Err(format!("what end {end} seals under {} the other does not open", ours.spi));
            }
        }
    }
    Ok(())
}
