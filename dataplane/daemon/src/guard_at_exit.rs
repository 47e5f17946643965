//! The guard at the exit before there is a housekeeper, and the interfaces that it belongs on.

use pollux_abi::IfIndex;
use pollux_config::Config;
use pollux_config::api::Effective;
use pollux_ebpf::{Exit, Guard, IpNet, SteerError, Steering};

use crate::host_port::HostPort;
use crate::netlink::Link;
use crate::netlink::mirror::Mirror;
use crate::pairs;

/// The index of `lo` in every network namespace.
const LO: IfIndex = IfIndex(1);

/// Every interface through which a packet can leave the machine: all but `lo` and the kernel's end of `pollux0`.
pub(crate) fn exits<'a>(links: impl IntoIterator<Item = &'a Link>) -> Vec<Exit> {
    let leaves = |link: &&Link| link.index != LO && !HostPort::is_kernel_end(&link.name);
    let exit = |link: &Link| Exit { ifindex: link.index, name: link.name.clone(), ethernet: link.ethernet };
    links.into_iter().filter(leaves).map(exit).collect()
}

/// The kernel's end of `pollux0`.
pub(crate) fn host_link(mirror: &Mirror) -> Option<IfIndex> {
    mirror.links().find(|link| HostPort::is_kernel_end(&link.name)).map(|link| link.index)
}

/// Closes what the configuration protects and what an earlier life has held, at both ends, before the first packet can
/// come by: the guard is in force when this returns, and the XDP program finds its pairs. What control commits later
/// takes their place.
pub(crate) fn close(
    config: &Config,
    mirror: &Mirror,
    steering: &mut Steering,
) -> Result<(Guard, Vec<(IpNet, IpNet)>), SteerError> {
    let pairs = hold(config, steering)?;
    let mut guard = Guard::open(steering)?;
    guard.set_addresses_known(true)?;
    guard.set_host_link(host_link(mirror))?;
    guard.attach_netfilter()?;
    guard.attach_egress(&exits(mirror.links()))?;
    guard.forget_others()?;
    Ok((guard, pairs))
}

/// Adds the pairs of the configuration to those that the maps hold already; all of them.
pub(crate) fn hold(config: &Config, steering: &mut Steering) -> Result<Vec<(IpNet, IpNet)>, SteerError> {
    let mut pairs = steering.protected()?;
    pairs.extend(pairs::of_config(config));
    pairs.sort_unstable();
    pairs.dedup();
    steering.set_protected(&pairs)?;
    Ok(pairs)
}

/// What is in place, and what is not.
pub(crate) fn report(guard: &Guard) -> Effective {
    let missing: Vec<String> = guard.missing().iter().map(ToString::to_string).collect();
    let has = format!("egress of {} interfaces", guard.exits());
    Effective {
        what: "guard".to_owned(),
        requested: "netfilter, egress of every interface".to_owned(),
        effective: if missing.is_empty() {
            format!("netfilter, {has}")
        } else {
            format!("{has}, but not {}", missing.join("; "))
        },
    }
}
