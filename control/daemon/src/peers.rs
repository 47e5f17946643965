//! Policies of the peers of connections for many: there while a peer's SAs are, in whichever life of control
//! they came up.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use pollux_abi::{Reqid, SaId, TrafficSelector};
use pollux_config::api::SaRow;
use pollux_config::parse_selector;

/// What a Child SA that is up protects, of a connection for many.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dynamic {
    /// `CONNECTION/CHILD`.
    pub(crate) name: String,
    /// Our side, narrowed.
    pub(crate) local_ts: Vec<TrafficSelector>,
    /// The peer's side.
    pub(crate) remote_ts: Vec<TrafficSelector>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// By reqid and inbound SA: one peer may have several Child SAs of one child, with other selectors each.
    up: BTreeMap<Reqid, BTreeMap<SaId, Dynamic>>,
    reqids: BTreeMap<SaId, Reqid>,
    /// In which order peers came up: reqids begin again after their last.
    order: BTreeMap<Reqid, u64>,
    came: u64,
    /// Of an earlier life of control, whose SAs still work.
    inherited: BTreeMap<Reqid, Dynamic>,
    changed: bool,
}

impl Peers {
    /// A peer's Child SA is up. The peer that had the same in an earlier life has begun anew.
    pub(crate) fn protect(&mut self, inbound: SaId, reqid: Reqid, dynamic: Dynamic) {
        self.inherited.retain(|_, entry| entry.remote_ts != dynamic.remote_ts);
        // A rekeyed one protects what its predecessor does.
        self.changed |= !self.protects(reqid, &dynamic);
        self.reqids.insert(inbound, reqid);
        self.up.entry(reqid).or_default().insert(inbound, dynamic);
        self.came += 1;
        self.order.entry(reqid).or_insert(self.came);
    }

    /// A peer's Child SA is gone.
    pub(crate) fn release(&mut self, inbound: SaId) {
        let Some(reqid) = self.reqids.remove(&inbound) else { return };
        let Some(of_reqid) = self.up.get_mut(&reqid) else { return };
        let gone = of_reqid.remove(&inbound);
        if of_reqid.is_empty() {
            self.up.remove(&reqid);
            self.order.remove(&reqid);
        }
        self.changed |= gone.is_some_and(|gone| !self.protects(reqid, &gone));
    }

    fn protects(&self, reqid: Reqid, dynamic: &Dynamic) -> bool {
        self.up.get(&reqid).is_some_and(|of_reqid| of_reqid.values().any(|same| same == dynamic))
    }

    /// The data plane has these SAs already: what peers' SAs protect goes on being protected by them.
    pub(crate) fn inherit<'r>(&mut self, rows: impl Iterator<Item = &'r SaRow>) {
        self.inherited.clear();
        for row in rows {
            let reqid = Reqid(row.reqid);
            let is_new = row.direction == "out" && row.checkpoint.is_none() && reqid.is_of_peer();
            if !is_new || self.up.contains_key(&reqid) {
                continue;
            }
            let (local_ts, remote_ts) = (selectors(&row.local_ts), selectors(&row.remote_ts));
            let name = format!("earlier/{reqid}");
            self.inherited.insert(reqid, Dynamic { name, local_ts, remote_ts });
        }
    }

    /// Whether an SA with this reqid is what a policy of an earlier life stands for.
    pub(crate) fn has_inherited(&self, reqid: Reqid) -> bool {
        self.inherited.contains_key(&reqid)
    }

    /// The last outbound SA with this reqid is gone.
    pub(crate) fn forget(&mut self, reqid: Reqid) {
        self.changed |= self.inherited.remove(&reqid).is_some();
    }

    /// All in the order in which they are searched: who is up comes before who was, and of what is up the newest first.
    /// A peer that has come back may still have a dead predecessor.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (Reqid, &Dynamic)> {
        let mut up: Vec<_> = self.up.iter().collect();
        up.sort_by_cached_key(|(reqid, _)| Reverse(self.order.get(reqid)));
        let up = up.into_iter().flat_map(|(reqid, of_reqid)| {
            let mut distinct: Vec<&Dynamic> = Vec::new();
            for dynamic in of_reqid.values() {
                if !distinct.contains(&dynamic) {
                    distinct.push(dynamic);
                }
            }
            distinct.into_iter().map(|dynamic| (*reqid, dynamic))
        });
        up.chain(self.inherited.iter().map(|(reqid, dynamic)| (*reqid, dynamic)))
    }

    /// Whether something has changed since this was last asked.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}

fn selectors(written: &[String]) -> Vec<TrafficSelector> {
    written.iter().filter_map(|selector| parse_selector(selector)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dynamic(remote: &str) -> Dynamic {
        let [local_ts, remote_ts] = ["10.1.0.0/16", remote].map(|text| selectors(&[text.to_owned()]));
        Dynamic { name: "clients/media".to_owned(), local_ts, remote_ts }
    }

    fn row(direction: &str, reqid: u32, remote: &str) -> SaRow {
        let [local_ts, remote_ts] = ["10.1.0.0/16", remote].map(|text| vec![text.to_owned()]);
        SaRow { direction: direction.to_owned(), reqid, local_ts, remote_ts, ..SaRow::default() }
    }

    #[test]
    fn what_an_earlier_life_protected_is_protected_until_its_sa_goes_or_its_peer_returns() {
        let mut peers = Peers::default();
        // The last ones: after them reqids begin again.
        let last = *Reqid::OF_PEERS.end();
        let [first, second] = [last - 1, last];
        let next = *Reqid::OF_PEERS.start();
        let rows = [
            row("in", first, "10.2.0.0/16"),
            row("out", first, "10.2.0.0/16"),
            row("out", second, "10.3.0.0/16[udp/16384-32767]"),
            row("out", 7, "10.4.0.0/16"),
        ];
        peers.inherit(rows.iter());
        let remotes = |peers: &Peers| -> Vec<String> {
            peers.in_order().map(|(_, dynamic)| dynamic.remote_ts[0].to_string()).collect()
        };
        assert_eq!(remotes(&peers), ["10.2.0.0/16", "10.3.0.0/16[17/16384-32767]"]);
        peers.protect(SaId(1), Reqid(next), dynamic("10.5.0.0/16"));
        assert_eq!(remotes(&peers)[0], "10.5.0.0/16", "who is up comes first");
        assert!(peers.take_changed() && !peers.take_changed());
        peers.protect(SaId(2), Reqid(next + 1), dynamic("10.2.0.0/16"));
        assert!(!peers.has_inherited(Reqid(first)) && peers.has_inherited(Reqid(second)));
        let again = Reqid(next + 2);
        peers.protect(SaId(3), again, dynamic("10.2.0.0/16"));
        let first_of = |peers: &Peers| peers.in_order().next().map(|(reqid, _)| reqid);
        assert_eq!(first_of(&peers), Some(again), "the newest wins over its dead predecessor");
        peers.release(SaId(3));
        peers.forget(Reqid(second));
        peers.release(SaId(1));
        assert_eq!(remotes(&peers), ["10.2.0.0/16"]);
        assert!(peers.take_changed());
    }
    #[test]
    fn a_policy_stays_as_long_as_one_child_sa_of_it_does() {
        let mut peers = Peers::default();
        let reqid = Reqid(*Reqid::OF_PEERS.start());
        let remotes = |peers: &Peers| -> Vec<String> {
            peers.in_order().map(|(_, dynamic)| dynamic.remote_ts[0].to_string()).collect()
        };
        peers.protect(SaId(1), reqid, dynamic("10.2.0.0/24"));
        peers.protect(SaId(3), reqid, dynamic("10.3.0.0/24"));
        assert_eq!(remotes(&peers).len(), 2, "two Child SAs of one child, each with its own selectors");
        assert!(peers.take_changed());
        peers.protect(SaId(5), reqid, dynamic("10.2.0.0/24"));
        peers.protect(SaId(7), reqid, dynamic("10.2.0.0/24"));
        peers.release(SaId(1));
        peers.release(SaId(7));
        assert!(!peers.take_changed(), "a rekey, even one that collides, changes no policy");
        assert_eq!(remotes(&peers).len(), 2);
        peers.release(SaId(5));
        assert_eq!(remotes(&peers), ["10.3.0.0/24"]);
        assert!(peers.take_changed());
    }
}
