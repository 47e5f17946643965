//! Reqids of the peers of wildcard connections: each peer has its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use pollux_abi::Reqid;

/// Dead entries are looked for when there are so many more.
const SWEEP: usize = 64;

/// They count up, so that a number rests for long before it is given again. After the last comes the first that is
/// free: whoever is given one holds it, and lets go of it with the IKE SA.
#[derive(Debug)]
pub(crate) struct PeerReqids {
    next: Reqid,
    held: BTreeMap<Reqid, Weak<Reqid>>,
    sweep_at: usize,
}

impl Default for PeerReqids {
    fn default() -> Self {
        Self { next: Reqid(*Reqid::OF_PEERS.start()), held: BTreeMap::new(), sweep_at: SWEEP }
    }
}

impl PeerReqids {
    /// The next one that nobody holds, and that no SA of an earlier life has.
    pub(crate) fn give(&mut self, is_taken: impl Fn(Reqid) -> bool) -> Arc<Reqid> {
        let mut reqid = self.next;
        // There are fewer IKE SAs than reqids: one is free.
        while self.is_held(reqid) || is_taken(reqid) {
            reqid = after(reqid);
        }
        self.next = after(reqid);
        if self.held.len() >= self.sweep_at {
            self.held.retain(|_, holder| holder.strong_count() > 0);
            self.sweep_at = 2 * self.held.len() + SWEEP;
        }
        let holder = Arc::new(reqid);
        self.held.insert(reqid, Arc::downgrade(&holder));
        holder
    }

    /// SAs of an earlier life have these: counting goes on behind them.
    pub(crate) fn go_on_behind(&mut self, live: impl Iterator<Item = Reqid>) {
        if let Some(last) = live.filter(|reqid| reqid.is_of_peer()).max() {
            self.next = self.next.max(after(last));
        }
    }

    fn is_held(&self, reqid: Reqid) -> bool {
        self.held.get(&reqid).is_some_and(|holder| holder.strong_count() > 0)
    }
}

fn after(reqid: Reqid) -> Reqid {
    Reqid(if reqid.0 == *Reqid::OF_PEERS.end() { *Reqid::OF_PEERS.start() } else { reqid.0 + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reqid_is_given_again_only_when_nobody_has_it_and_not_soon() {
        let [first, last] = [*Reqid::OF_PEERS.start(), *Reqid::OF_PEERS.end()];
        let mut reqids = PeerReqids::default();
        let kept = reqids.give(|_| false);
        assert_eq!(*kept, Reqid(first));
        drop(reqids.give(|_| false));
        assert_eq!(*reqids.give(|_| false), Reqid(first + 2), "it rests first");
        reqids.go_on_behind([Reqid(7), Reqid(last - 1), Reqid(u32::MAX)].into_iter());
        assert_eq!(*reqids.give(|_| false), Reqid(last));
        let is_taken = |reqid: Reqid| reqid.0 == first + 1;
        assert_eq!(
            *reqids.give(is_taken),
            Reqid(first + 2),
            "the first is held, the second an earlier life's"
        );
    }

    #[test]
    fn holders_that_are_gone_take_no_room() {
        let mut reqids = PeerReqids::default();
        let held: Vec<_> = (0..100).map(|_| reqids.give(|_| false)).collect();
        for _ in 0..10_000 {
            drop(reqids.give(|_| false));
        }
        assert!(reqids.held.len() <= 2 * held.len() + SWEEP);
        assert!(held.iter().all(|reqid| reqids.is_held(**reqid)));
    }
}
