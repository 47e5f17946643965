//! When packets may be lost and SAs may go down: never without a cause, and no longer than the cause lasts.

use core::time::Duration;
use std::collections::BTreeSet;

use pollux_ike::error::IkeError;
use pollux_ike::event::{DownReason, Event, IkeUp};
use pollux_ike::message::NotifyType;
use pollux_ike::{IkeSaId, Instant};

use crate::scenario::FaultProfile;

/// From the end of a cause to working SAs: a peer is found dead in under 30 s, the next attempt may have to repeat
/// itself, and the data plane may refuse what it brings.
const RECOVERY: Duration = Duration::from_secs(90);

/// Causes so far, and until when they count.
#[derive(Debug)]
pub(crate) struct Excuses {
    profile: FaultProfile,
    /// From here on even the consequences of faults are over.
    settled: Instant,
    until: Instant,
    /// IKE SAs that have been up, by end.
    established: BTreeSet<(usize, IkeSaId)>,
}

impl Excuses {
    pub(crate) const fn new(profile: FaultProfile, settled: Instant) -> Self {
        Self { profile, settled, until: Instant::from_nanos(0), established: BTreeSet::new() }
    }

    /// Something happens that may cost packets until `until`.
    pub(crate) fn cause(&mut self, until: Instant) {
        self.until = self.until.max(until);
    }

    /// Something ends an SA now.
    pub(crate) fn fault(&mut self, now: Instant) {
        self.cause(now + RECOVERY);
    }

    /// Whether a packet may be lost now.
    pub(crate) fn hold(&self, now: Instant) -> bool {
        now < self.until
    }

    /// Whether nothing at all goes wrong now.
    pub(crate) fn quiet(&self, now: Instant) -> bool {
        !self.hold(now) && self.settled(now)
    }

    fn settled(&self, now: Instant) -> bool {
        self.profile == FaultProfile::Calm || now >= self.settled
    }

    /// An event of an endpoint: what goes down has a cause, or is a failure.
    pub(crate) fn event(&mut self, now: Instant, end: usize, event: &Event) -> Result<(), String> {
        let (reason, followed) = match event {
            Event::IkeUp(IkeUp { ike, .. }) | Event::IkeRekeyed { new: IkeUp { ike, .. }, .. } => {
                self.established.insert((end, *ike));
                return Ok(());
            }
            // An attempt that failed where IKE_SA_INIT, which nothing authenticates, can be damaged on its way.
            Event::IkeDown { ike, .. } if !self.settled(now) && !self.established.contains(&(end, *ike)) => {
                return Ok(());
            }
            Event::IkeDown { reason, .. } => (*reason, false),
            Event::ChildDown { reason, replaced, .. } => (*reason, *replaced),
            // Once may be: the first request on a new IKE SA can overtake the response that makes it.
            Event::Retransmit { attempt: 2.., .. } if self.quiet(now) => {
                return Err(format!("a request is repeated on a network that loses nothing: {event:?}"));
            }
            // The data plane has not taken one half of a Child SA: it goes at both ends.
            Event::Refused { error: IkeError::DataPlane { .. } | IkeError::Limit { .. }, .. }
                if !self.settled(now) =>
            {
                self.fault(now);
                return Ok(());
            }
            // Rekeys that meet, of which one comes when what it is about is gone (RFC 7296 §2.25.1).
            Event::Refused { error: IkeError::ChildSaNotFound { .. }, .. } => return Ok(()),
            Event::Refused {
                error: IkeError::PeerRefused { notify: NotifyType::ChildSaNotFound, .. },
                ..
            } => {
                return Ok(());
            }
            Event::Refused { error, .. } if self.quiet(now) && !error.is_temporary() => {
                return Err(format!("it was refused without a cause: {event:?}"));
            }
            _ => return Ok(()),
        };
        // A Child SA that the data plane did not take has lost packets, whatever comes next.
        if reason == DownReason::Replaced || followed && reason != DownReason::DataPlane {
            return Ok(());
        }
        let may_happen = match self.profile {
            _ if self.settled(now) => false,
            FaultProfile::Calm => false,
            FaultProfile::Lossy => self.hold(now),
            FaultProfile::Chaos => true,
        };
        if !may_happen {
            return Err(format!("it went down without a cause: {event:?}"));
        }
        self.fault(now);
        Ok(())
    }
}
