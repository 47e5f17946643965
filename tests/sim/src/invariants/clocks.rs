//! How long things last: rekeys come in their time, what is on its way arrives, and a dead peer is found out.

use core::time::Duration;
use std::collections::BTreeMap;

use pollux_abi::SaId;
use pollux_ike::Instant;
use pollux_ike::endpoint::IkeStatus;
use pollux_ike::event::Event;

use super::requests::Spis;
use crate::scenario::{CHILD_REKEY_TIME, IKE_REKEY_TIME};

/// A rekey that meets another one is tried again after 3 to 6 s, as often as they meet.
const REKEY_SLACK: Duration = Duration::from_secs(25);
/// A Child SA that is neither at rest nor gone: its exchange takes milliseconds where nothing is lost, and one that the
/// peer should delete is given half a minute.
const CHILD_PASSING: Duration = Duration::from_secs(35);
/// An IKE SA that a collision has made superfluous waits a minute for the DELETE of a peer that may have lost it.
const IKE_PASSING: Duration = Duration::from_secs(65);
/// Silence of 10 s, a question to the data plane, and every repetition of a request, each with its jitter. An IKE SA made
/// by a rekey that met another one first waits for the end of that one's repetitions.
const FOUND_DEAD: Duration = Duration::from_secs(50);
/// The same where twelve repetitions are allowed.
const FOUND_DEAD_IF_PATIENT: Duration = Duration::from_mins(2);

/// A state, and since when.
type State = (&'static str, Instant);

/// Ages of everything at both ends.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    ikes: [BTreeMap<Spis, State>; 2],
    children: [BTreeMap<SaId, State>; 2],
    /// Since when the other end has not had an IKE SA that this end believes in, and nothing was heard.
    widowed: [BTreeMap<Spis, Instant>; 2],
    quiet_since: Option<Instant>,
    /// Rekeys since then, by end and child.
    child_rekeys: BTreeMap<(usize, String), u32>,
    ike_rekeys: [u32; 2],
}

impl Clocks {
    /// An ESP packet was opened: the other end lives.
    pub(crate) fn heard(&mut self, end: usize) {
        self.widowed[end].clear();
    }

    pub(crate) fn event(&mut self, end: usize, event: &Event) {
        match event {
            Event::ChildRekeyed { new, .. } => {
                *self.child_rekeys.entry((end, new.child.to_string())).or_default() += 1;
            }
            Event::IkeRekeyed { .. } => self.ike_rekeys[end] += 1,
            _ => {}
        }
    }

    /// Looks at everything that `end` has. `quiet`: nothing goes wrong now.
    pub(crate) fn look(
        &mut self,
        end: usize,
        status: &[IkeStatus],
        quiet: bool,
        patient: bool,
        now: Instant,
    ) -> Result<(), String> {
        if !quiet {
            self.quiet_since = None;
        } else if self.quiet_since.is_none() {
            self.quiet_since = Some(now);
            self.child_rekeys.clear();
            self.ike_rekeys = [0; 2];
        }
        let ikes = status.iter().map(|ike| ((ike.spi_i, ike.spi_r), ike.state));
        update(&mut self.ikes[end], ikes, now);
        let children = status.iter().flat_map(|ike| &ike.children);
        update(&mut self.children[end], children.map(|child| (child.sa.inbound, child.state)), now);
        self.widows(end, patient, now)?;
        if quiet {
            // What began before all was quiet is given the time it takes from then on.
            let quiet_since = self.quiet_since.unwrap_or(now);
            overdue(&self.ikes[end], "ESTABLISHED", (IKE_REKEY_TIME, IKE_PASSING), quiet_since, now)
                .map_err(|what| format!("IKE SA {what}"))?;
            overdue(&self.children[end], "INSTALLED", (CHILD_REKEY_TIME, CHILD_PASSING), quiet_since, now)
                .map_err(|what| format!("Child SA {what}"))?;
        }
        Ok(())
    }

    fn widows(&mut self, end: usize, patient: bool, now: Instant) -> Result<(), String> {
        let (ours, theirs) = (&self.ikes[end], &self.ikes[1 - end]);
        let widowed = |spis: &Spis| {
            !theirs.contains_key(spis) && ours.get(spis).is_some_and(|(state, _)| *state == "ESTABLISHED")
        };
        self.widowed[end].retain(|spis, _| widowed(spis));
        for spis in ours.keys().filter(|spis| widowed(spis)) {
            self.widowed[end].entry(*spis).or_insert(now);
        }
        let limit = if patient { FOUND_DEAD_IF_PATIENT } else { FOUND_DEAD };
        match self.widowed[end].iter().find(|(_, since)| now.since(**since) > limit) {
            None => Ok(()),
            Some((spis, since)) => {
                Err(format!("the peer of {spis:?} has been dead since {since}, and is not found out"))
            }
        }
    }

    /// At the end: as many rekeys as there was time for.
    pub(crate) fn rekeys(&self, end: usize, child: &str, now: Instant) -> Result<(), String> {
        let Some(quiet) = self.quiet_since.map(|since| now.since(since)) else { return Ok(()) };
        let least = |rekey_time: Duration| quiet.as_secs() / (rekey_time + REKEY_SLACK).as_secs();
        let children = self.child_rekeys.get(&(end, child.to_owned())).copied().unwrap_or(0);
        if u64::from(children) < least(CHILD_REKEY_TIME) {
            return Err(format!("{children} rekeys of child {child} in {} s", quiet.as_secs()));
        }
        if u64::from(self.ike_rekeys[end]) < least(IKE_REKEY_TIME) {
            return Err(format!("{} rekeys of the IKE SA in {} s", self.ike_rekeys[end], quiet.as_secs()));
        }
        Ok(())
    }
}

/// Enters what there is; what is no longer there is forgotten.
fn update<K: Ord>(
    known: &mut BTreeMap<K, State>,
    there: impl Iterator<Item = (K, &'static str)>,
    now: Instant,
) {
    let mut before = core::mem::take(known);
    known.extend(there.map(|(key, state)| {
        let since = before.remove(&key).filter(|(was, _)| *was == state).map_or(now, |(_, since)| since);
        (key, (state, since))
    }));
}

fn overdue<K: core::fmt::Debug>(
    known: &BTreeMap<K, State>,
    at_rest: &str,
    (rekey_time, passing): (Duration, Duration),
    quiet_since: Instant,
    now: Instant,
) -> Result<(), String> {
    for (key, (state, since)) in known {
        let (limit, since) = if *state == at_rest {
            (rekey_time + REKEY_SLACK, *since)
        } else {
            (passing, (*since).max(quiet_since))
        };
        if now.since(since) > limit {
            return Err(format!("{key:x?} has been {state} since {since}"));
        }
    }
    Ok(())
}
