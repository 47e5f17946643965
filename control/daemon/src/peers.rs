//! Policies of the peers of connections for many: there while a peer's SAs are, in whichever life of control
//! they came up.

use std::collections::BTreeMap;

use pollux_abi::{Reqid, TrafficSelector};
use pollux_config::api::SaRow;
use pollux_config::parse_selector;
use pollux_ike::endpoint::DYNAMIC_REQID;

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
    up: BTreeMap<Reqid, Dynamic>,
    /// Of an earlier life of control, whose SAs still work.
    inherited: BTreeMap<Reqid, Dynamic>,
    changed: bool,
}

impl Peers {
    /// A peer's Child SA is up. The peer that had the same in an earlier life has begun anew.
    pub(crate) fn protect(&mut self, reqid: Reqid, dynamic: Dynamic) {
        if self.up.get(&reqid) == Some(&dynamic) {
            return;
        }
        self.inherited.retain(|_, entry| entry.remote_ts != dynamic.remote_ts);
        self.up.insert(reqid, dynamic);
        self.changed = true;
    }

    /// A peer's Child SA is gone, and none takes its place.
    pub(crate) fn release(&mut self, reqid: Reqid) {
        self.changed |= self.up.remove(&reqid).is_some();
    }

    /// The data plane has these SAs already: what peers' SAs protect goes on being protected by them.
    pub(crate) fn inherit<'r>(&mut self, rows: impl Iterator<Item = &'r SaRow>) {
        self.inherited.clear();
        for row in rows {
            let reqid = Reqid(row.reqid);
            let is_new = row.direction == "out" && row.checkpoint.is_none() && row.reqid >= DYNAMIC_REQID;
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

    /// All in the order in which they are searched: who is up comes before who was, and of what is up the newest first,
    /// since reqids count up. A peer that has come back may still have a dead predecessor.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (Reqid, &Dynamic)> {
        self.up.iter().rev().chain(&self.inherited).map(|(reqid, dynamic)| (*reqid, dynamic))
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
        let [first, second] = [DYNAMIC_REQID + 1, DYNAMIC_REQID + 2];
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
        peers.protect(Reqid(second + 1), dynamic("10.5.0.0/16"));
        assert_eq!(remotes(&peers)[0], "10.5.0.0/16", "who is up comes first");
        assert!(peers.take_changed() && !peers.take_changed());
        peers.protect(Reqid(second + 2), dynamic("10.2.0.0/16"));
        assert!(!peers.has_inherited(Reqid(first)) && peers.has_inherited(Reqid(second)));
        let again = Reqid(second + 3);
        peers.protect(again, dynamic("10.2.0.0/16"));
        let first_of = |peers: &Peers| peers.in_order().next().map(|(reqid, _)| reqid);
        assert_eq!(first_of(&peers), Some(again), "the newest wins over its dead predecessor");
        peers.release(again);
        peers.forget(Reqid(second));
        peers.release(Reqid(second + 1));
        assert_eq!(remotes(&peers), ["10.2.0.0/16"]);
        assert!(peers.take_changed());
    }
}
