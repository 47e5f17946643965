//! A configuration held against the machine on which it is checked. It may be meant for another one: these are warnings.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use pollux_config::{Config, ManualSa, Problem};

/// What does not fit this machine.
pub(crate) fn warnings(config: &Config) -> Vec<Problem> {
    let mut warnings = Vec::new();
    let mut warn = |line: u32, key: String, reason: String, fix: &str| {
        warnings.push(Problem { file: config.file.clone(), line, key, reason, fix: fix.to_owned() });
    };
    for &core in &config.dataplane.cores {
        if !core_exists(core) {
            let reason = format!("there is no core {core} on this machine");
            warn(0, "dataplane.cores".to_owned(), reason, "`lscpu -e` lists them");
        }
    }
    // Of another network namespace nothing is known here.
    let ours = if config.dataplane.netns.is_none() { addresses() } else { None };
    if let Some(ours) = ours {
        // One address is one mistake, however many SAs have it.
        let mut foreign: BTreeMap<IpAddr, (&ManualSa, usize)> = BTreeMap::new();
        for sa in config.sas.iter().filter(|sa| !ours.contains(&sa.local)) {
            foreign.entry(sa.local).or_insert((sa, 0)).1 += 1;
        }
        for (address, (sa, count)) in foreign {
            let others = if count > 1 { format!(" ({} more SAs have it)", count - 1) } else { String::new() };
            let reason = format!(
                "{address} is no address of this machine{others}: what the peer sends there does not arrive, and what leaves with it may be dropped on the way"
            );
            warn(
                sa.line,
                format!("sa.{}.local", sa.name),
                reason,
                "write one that `ip address` shows, or add it",
            );
        }
        for connection in &config.connections {
            for address in connection.local_addrs.iter().filter(|address| !ours.contains(address)) {
                let reason =
                    format!("{address} is no address of this machine: no IKE message can be sent from it");
                let key = format!("connection.{}.local_addrs", connection.name);
                warn(connection.line, key, reason, "write one that `ip address` shows, or add it");
            }
        }
    }
    warnings
}

fn core_exists(core: u32) -> bool {
    fs::exists(format!("/sys/devices/system/cpu/cpu{core}")).unwrap_or(true)
}

/// The addresses of this network namespace; `None` where they can't be read.
fn addresses() -> Option<HashSet<IpAddr>> {
    let address = |storage: nix::sys::socket::SockaddrStorage| -> Option<IpAddr> {
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    };
    Some(getifaddrs().ok()?.filter_map(|interface| address(interface.address?)).collect())
}
