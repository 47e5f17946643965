//! What the peers of wildcard connections have for themselves: nobody takes another's traffic.
//!
//! The configuration of such a connection allows every peer the same selectors. Which of them a peer really has is in its
//! Child SAs, and belongs to its authenticated identity as long as one of these lives (RFC 4301 §4.4.3, §5.2). The same
//! identity may ask for it again: it has lost what it had, or is about to.

use std::collections::BTreeMap;

use pollux_abi::{SaId, TrafficSelector};

use crate::identity::Identity;

/// What one Child SA carries, and whose it is.
#[derive(Debug)]
struct Claim {
    identity: Identity,
    local_ts: Vec<TrafficSelector>,
    remote_ts: Vec<TrafficSelector>,
}

/// All of them, by inbound SA.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    by_sa: BTreeMap<SaId, Claim>,
}

impl Claims {
    /// The Child SA with this inbound SA belongs to a peer.
    pub(crate) fn claim(
        &mut self,
        inbound: SaId,
        identity: &Identity,
        local_ts: &[TrafficSelector],
        remote_ts: &[TrafficSelector],
    ) {
        let claim =
            Claim { identity: identity.clone(), local_ts: local_ts.to_vec(), remote_ts: remote_ts.to_vec() };
        self.by_sa.insert(inbound, claim);
    }

    /// The Child SA is gone, or was none of a wildcard connection.
    pub(crate) fn release(&mut self, inbound: SaId) {
        self.by_sa.remove(&inbound);
    }

    /// What of a peer's side nobody else has in use with our side, and who has the first of what is left out.
    pub(crate) fn free(
        &self,
        identity: &Identity,
        local_ts: &[TrafficSelector],
        remote_ts: &[TrafficSelector],
    ) -> (Vec<TrafficSelector>, Option<&Identity>) {
        let meet = |ours: &[TrafficSelector], theirs: &[TrafficSelector]| {
            ours.iter().any(|ours| theirs.iter().any(|theirs| ours.intersection(theirs).is_some()))
        };
        let mut taken_by = None;
        let mut free = remote_ts.to_vec();
        for claim in self.by_sa.values() {
            if claim.identity == *identity || !meet(local_ts, &claim.local_ts) {
                continue;
            }
            let before = free.len();
            free.retain(|selector| !meet(&[*selector], &claim.remote_ts));
            if free.len() < before {
                taken_by.get_or_insert(&claim.identity);
            }
        }
        (free, taken_by)
    }
}
