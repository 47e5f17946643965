//! What must hold, in one place.
//!
//! At every moment:
//! 1. no panic (the runner sees to it), and no deadline that comes back for ever;
//! 2. no message id used twice with other octets, in any life of any IKE SA, and no authenticated request without an
//!    answer ([`requests`]);
//! 3. no (key, IV) pair used twice, and no ESP key installed twice ([`pollux_pair::NullCrypto`],
//!    [`crate::data_plane`]);
//! 4. no unbounded state, and no index that disagrees with its table ([`Watch::look`]);
//! 5. a Child SA, once up, is never without a working pair, and no SA goes down, unless something has happened that
//!    costs packets, and only until that is over ([`excuses`]);
//! 6. a peer that has lost an IKE SA is found out; where nothing goes wrong, each SA is rekeyed in its time, and none
//!    stays for long in a state of passage ([`clocks`]).
//!
//! When all has been calm for long ([`converged`]):
//! 7. both ends have the same IKE SAs and the same Child SAs, one of each child, with the selectors that both allow;
//! 8. each Child SA carries traffic both ways, under the same keys;
//! 9. the data planes hold the SAs of these Child SAs and nothing else, and no SPI is leaked.

mod clocks;
mod converged;
mod excuses;
mod requests;

use std::collections::BTreeSet;

use pollux_ike::Instant;
use pollux_ike::event::Event;

use crate::gateway::Gateway;
use crate::scenario::{CHILDREN, FaultProfile};
use clocks::Clocks;
pub(crate) use converged::converged;
use excuses::Excuses;
use requests::{Life, Requests};

/// IKE SAs that one gateway may have at once: two ends that begin again and again while old ones time out.
const IKE_SAS_MAX: usize = 48;

/// What is remembered of a run.
#[derive(Debug)]
pub(crate) struct Watch {
    profile: FaultProfile,
    pub(crate) excuses: Excuses,
    requests: Requests,
    clocks: Clocks,
    /// Children that have been up at each end and that nobody has told to go, by name.
    up: [BTreeSet<String>; 2],
    /// Packets that found no SA, there or here.
    pub(crate) lost: u64,
    /// Packets that arrived.
    pub(crate) delivered: u64,
    /// Rekeys of Child SAs and IKE SAs.
    pub(crate) rekeys: (u64, u64),
}

impl Watch {
    /// `settled`: when even the consequences of the last fault are over.
    pub(crate) fn new(profile: FaultProfile, settled: Instant) -> Self {
        Self {
            profile,
            excuses: Excuses::new(profile, settled),
            requests: Requests::default(),
            clocks: Clocks::default(),
            up: Default::default(),
            lost: 0,
            delivered: 0,
            rekeys: (0, 0),
        }
    }

    /// A datagram leaves.
    pub(crate) fn sent(&mut self, life: Life, bytes: &[u8]) -> Result<(), String> {
        self.requests.sent(life, bytes)
    }

    /// A datagram arrives as the other end has sent it.
    pub(crate) fn arrived(&mut self, end: usize, gateway: &Gateway, bytes: &[u8], now: Instant) {
        self.requests.arrived((end, gateway.life), bytes, &gateway.endpoint.status(now), now);
    }

    /// An event of an endpoint.
    pub(crate) fn event(&mut self, end: usize, event: &Event, now: Instant) -> Result<(), String> {
        if let Event::ChildUp(up) = event {
            // With a second IKE SA, the responder may send under a Child SA that the initiator has not heard of yet.
            let second = !self.up[end].insert(up.child.to_string());
            if second && !self.excuses.quiet(now) {
                self.excuses.fault(now);
            }
        }
        match event {
            Event::ChildRekeyed { .. } => self.rekeys.0 += 1,
            Event::IkeRekeyed { .. } => self.rekeys.1 += 1,
            _ => {}
        }
        self.clocks.event(end, event);
        self.excuses.event(now, end, event)
    }

    /// The operator has closed a child, or all of them: they stay closed until something asks for them.
    pub(crate) fn closed(&mut self, child: Option<&str>, now: Instant) {
        self.excuses.fault(now);
        for up in &mut self.up {
            up.retain(|up| child.is_some_and(|child| child != up));
        }
    }

    /// A packet of a child was sealed at one end and opened at the other one, `end`; or it was not.
    pub(crate) fn packet(
        &mut self,
        now: Instant,
        end: usize,
        child: usize,
        arrived: bool,
    ) -> Result<(), String> {
        if arrived {
            self.delivered += 1;
            self.clocks.heard(end);
            return Ok(());
        }
        self.lost += 1;
        let both_up = self.up.iter().all(|up| up.contains(CHILDREN[child]));
        let never_up = !both_up && !self.excuses.quiet(now);
        if never_up || self.excuses.hold(now) {
            return Ok(());
        }
        Err(format!("a packet of {} found no working pair of SAs", CHILDREN[child]))
    }

    /// What one gateway has after something happened there.
    pub(crate) fn look(&mut self, end: usize, gateway: &Gateway, now: Instant) -> Result<(), String> {
        let status = gateway.endpoint.status(now);
        if status.len() > IKE_SAS_MAX {
            return Err(format!("{} IKE SAs", status.len()));
        }
        gateway.endpoint.audit().map_err(|index| format!("an index is wrong: {index}"))?;
        self.requests.look((end, gateway.life), &status, now)?;
        let patient = self.profile == FaultProfile::Lossy;
        self.clocks
            .look(end, &status, self.excuses.quiet(now), patient, now)
            .map_err(|what| format!("end {end}: {what}"))
    }

    /// At the end of the run: whether rekeys came as often as they had to.
    pub(crate) fn rekeyed(&self, gateways: &[Gateway; 2], now: Instant) -> Result<(), String> {
        for (end, gateway) in gateways.iter().enumerate() {
            for child in gateway.children() {
                self.clocks.rekeys(end, &child.name, now).map_err(|what| format!("end {end}: {what}"))?;
            }
        }
        Ok(())
    }
}
