//! From policies to the pairs of prefixes that XDP program and kernel routes hold fast.

use std::net::IpAddr;

use pollux_abi::TrafficSelector;
use pollux_abi::command::{PolicyAction, PolicySpec};
use pollux_config::{Action, Config};
use pollux_ebpf::IpNet;

/// The (local, remote) prefixes of every policy that does not let packets pass in clear, each pair once.
/// An address range becomes the fewest prefixes that cover it exactly.
pub fn held(policies: &[PolicySpec]) -> Vec<(IpNet, IpNet)> {
    let mut pairs = Vec::new();
    for policy in policies {
        if policy.action == PolicyAction::Bypass {
            continue;
        }
        let remotes = prefixes(&policy.selectors.remote);
        for local in prefixes(&policy.selectors.local) {
            pairs.extend(remotes.iter().map(|&remote| (local, remote)));
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// The pairs of the configuration alone, as [`held`] has them: what is closed before control has said anything.
pub fn of_config(config: &Config) -> Vec<(IpNet, IpNet)> {
    let mut pairs = Vec::new();
    let mut add = |local_ts: &[TrafficSelector], remote_ts: &[TrafficSelector]| {
        for local in local_ts {
            for remote in remote_ts.iter().filter(|remote| remote.is_ipv4() == local.is_ipv4()) {
                let remotes = prefixes(remote);
                let locals = prefixes(local);
                pairs.extend(
                    locals.iter().flat_map(|&local| remotes.iter().map(move |&remote| (local, remote))),
                );
            }
        }
    };
    for policy in config.policies.iter().filter(|policy| policy.action != Action::Bypass) {
        add(&policy.local_ts, &policy.remote_ts);
    }
    for connection in &config.connections {
        for child in &connection.children {
            let (local_ts, remote_ts) = connection.selectors(child, |_| None);
            add(&local_ts, &remote_ts);
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

fn prefixes(selector: &TrafficSelector) -> Vec<IpNet> {
    match (selector.first(), selector.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            ipnet::Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            ipnet::Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_abi::command::Direction;
    use pollux_abi::selector::{PortRange, SelectorPair};
    use pollux_abi::{PolicyId, Reqid};

    fn policy(local: (&str, &str), remote: (&str, &str), action: PolicyAction) -> PolicySpec {
        let selector = |(first, last): (&str, &str)| {
            let address = |text: &str| text.parse().expect("an address");
            TrafficSelector::new(address(first), address(last), None, PortRange::ANY).expect("a range")
        };
        let selectors = SelectorPair { local: selector(local), remote: selector(remote) };
        PolicySpec { id: PolicyId(1), direction: Direction::Outbound, selectors, action }
    }

    #[test]
    fn ranges_become_exact_prefixes_and_bypass_is_left_out() {
        let protect = PolicyAction::Protect(Reqid(1));
        let everything = ("0.0.0.0", "255.255.255.255");
        let list = [
            policy(("10.1.0.0", "10.1.255.255"), ("10.2.0.1", "10.2.0.2"), protect),
            policy(("10.1.0.0", "10.1.255.255"), ("10.2.0.1", "10.2.0.2"), PolicyAction::Discard),
            policy(("10.9.0.0", "10.9.255.255"), everything, PolicyAction::Bypass),
            policy(everything, everything, protect),
            policy(("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ("fd00::", "fd00::1"), protect),
        ];
        let text: Vec<String> =
            held(&list).iter().map(|(local, remote)| format!("{local} {remote}")).collect();
        assert_eq!(
            text,
            ["0.0.0.0/0 0.0.0.0/0", "10.1.0.0/16 10.2.0.1/32", "10.1.0.0/16 10.2.0.2/32", "::/0 fd00::/127"]
        );
    }
}
