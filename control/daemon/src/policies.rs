//! The policy list: manual policies, then those of peers that are up, then those of the children.

use std::collections::{BTreeMap, BTreeSet};

use pollux_abi::command::{Direction, PolicyAction, PolicySpec};
use pollux_abi::{PolicyId, Reqid, SelectorPair, TrafficSelector};
use pollux_config::{Action, Config, Connection, StartAction};
use pollux_ike::endpoint::Routes as _;

use crate::peers::Peers;
use crate::reqids::ChildName;
use crate::routes::KernelRoutes;

/// FNV-1a: small, and the same in every build.
fn hash(connection: &str, child: &str) -> u32 {
    let octets = connection.bytes().chain([0]).chain(child.bytes());
    octets.fold(0x811c_9dc5, |hash: u32, octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193))
}

/// Whether several peers may use a connection at once: each then needs policies and SAs of its own.
pub(crate) fn is_for_many(connection: &Connection) -> bool {
    let any_address = !connection.remote_addrs.iter().any(|net| net.prefix_len() == net.max_prefix_len());
    let any_name = connection.remote.id.as_deref().is_none_or(|id| id == "%any" || id.contains('*'));
    any_address && any_name
}

/// One entry, with what the operator calls it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// Its name: of the policy, or `CONNECTION/CHILD`.
    pub(crate) name: String,
    /// Whether an [`pollux_abi::Event::WantedSa`] about it sets the child up.
    pub(crate) is_trap: bool,
    /// What the data plane is told.
    pub(crate) spec: PolicySpec,
}

/// The whole list, in the order in which it is searched.
pub(crate) fn list(config: &Config, reqids: &BTreeMap<ChildName, Reqid>, peers: &Peers) -> Vec<Entry> {
    let mut list = Builder::default();
    let routes = KernelRoutes { ike_port: config.control.ike_port };
    for policy in &config.policies {
        let action = match policy.action {
            Action::Protect(reqid) => PolicyAction::Protect(reqid),
            Action::Bypass => PolicyAction::Bypass,
            Action::Discard => PolicyAction::Discard,
        };
        list.pairs(&policy.name, false, &policy.directions, action, &policy.local_ts, &policy.remote_ts);
    }
    let both = [Direction::Outbound, Direction::Inbound];
    for (reqid, peer) in peers.in_order() {
        list.pairs(&peer.name, false, &both, PolicyAction::Protect(reqid), &peer.local_ts, &peer.remote_ts);
    }
    for connection in &config.connections {
        for child in &connection.children {
            let key = (connection.name.as_str().into(), child.name.as_str().into());
            let Some(&reqid) = reqids.get(&key) else { continue };
            let (local_ts, remote_ts) = connection.selectors(child, |peer| routes.source(peer));
            let name = format!("{}/{}", connection.name, child.name);
            let is_trap = child.start_action != StartAction::None;
            list.pairs(&name, is_trap, &both, PolicyAction::Protect(reqid), &local_ts, &remote_ts);
        }
    }
    list.0
}

/// The list as it grows, and the ids that are taken.
#[derive(Default)]
struct Builder(Vec<Entry>, BTreeSet<u32>);

impl Builder {
    /// An entry for each direction and pair of selectors of one family.
    fn pairs(
        &mut self,
        name: &str,
        is_trap: bool,
        directions: &[Direction],
        action: PolicyAction,
        local_ts: &[TrafficSelector],
        remote_ts: &[TrafficSelector],
    ) {
        for &direction in directions {
            for local in local_ts {
                for remote in remote_ts.iter().filter(|remote| remote.is_ipv4() == local.is_ipv4()) {
                    let selectors = SelectorPair { local: *local, remote: *remote };
                    let id = self.id(name, direction, &selectors);
                    let spec = PolicySpec { id, direction, selectors, action };
                    self.0.push(Entry { name: name.to_owned(), is_trap, spec });
                }
            }
        }
    }

    /// The same entry has the same id in every list and in every life of control: what the data plane says of a
    /// policy is about that one, also where a newer list is on its way.
    fn id(&mut self, name: &str, direction: Direction, selectors: &SelectorPair) -> PolicyId {
        let inbound = direction == Direction::Inbound;
        let words = format!("{}\0{}\0{inbound}", selectors.local, selectors.remote);
        let mut id = hash(name, &words).max(1);
        while !self.1.insert(id) {
            id = id.wrapping_add(1).max(1);
        }
        PolicyId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: &str) -> TrafficSelector {
        pollux_config::parse_selector(text).expect("a selector")
    }

    #[test]
    fn a_policy_keeps_its_id_whatever_comes_before_it() {
        let both = [Direction::Outbound, Direction::Inbound];
        let [near, far, other] = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"].map(selector);
        let mut one = Builder::default();
        one.pairs("site/net", false, &both, PolicyAction::Protect(Reqid(1)), &[near], &[far, other]);
        let mut two = Builder::default();
        two.pairs("early", false, &both, PolicyAction::Bypass, &[near], &[other]);
        two.pairs("site/net", true, &both, PolicyAction::Protect(Reqid(9)), &[near], &[other, far]);
        let id = |list: &Builder, direction, remote: TrafficSelector| {
            let found = list.0.iter().rfind(|entry| {
                entry.name == "site/net"
                    && (entry.spec.direction, entry.spec.selectors.remote) == (direction, remote)
            });
            found.expect("an entry").spec.id
        };
        for direction in both {
            for remote in [far, other] {
                assert_eq!(id(&one, direction, remote), id(&two, direction, remote));
            }
        }
        let ids: BTreeSet<PolicyId> = two.0.iter().map(|entry| entry.spec.id).collect();
        assert_eq!(ids.len(), two.0.len(), "each has its own");
        // The same entry twice has two ids.
        two.pairs("early", false, &both, PolicyAction::Bypass, &[near], &[other]);
        assert_eq!(two.1.len(), two.0.len());
    }
}
