//! The Child SA that the peer asks for, in IKE_AUTH or CREATE_CHILD_SA, and what we agree to.

use std::sync::Arc;

use pollux_abi::layout::SELECTORS_MAX;
use pollux_abi::{Spi, TrafficSelector};

use super::child_offer::{KeymatInputs, describe, proposals, selectors};
use super::ke_method;
use crate::config::{ChildConfig, SelectorConfig};
use crate::endpoint::Turn;
use crate::error::IkeError;
use crate::event::{DownReason, Event, NarrowedBy};
use crate::message::{Payloads, Protocol, Ts, Writer};
use crate::negotiate::{Chosen, EspAgreement, proposal, selector, syntax};
use crate::sa::{ChildSa, DirectionSa, DirectionState, Path, Peer, Phase, lowest_nonce};

/// What we agreed to; its SPI is allocated, nothing is installed.
#[derive(Debug)]
pub(crate) struct Answer {
    config: Arc<ChildConfig>,
    pub(crate) chosen: Chosen<EspAgreement>,
    spi: Spi,
    peer_spi: Spi,
    /// Ours.
    local_ts: Vec<TrafficSelector>,
    /// The peer's.
    remote_ts: Vec<TrafficSelector>,
    /// What the peer asked for, where the answer has no room for all of it that our policy allows.
    cut: Option<String>,
}

impl Answer {
    /// Chooses a child of the connection, a proposal and selectors.
    ///
    /// `old` is the Child SA that is being rekeyed: the new one is never narrower (RFC 7296 §2.9.2).
    pub(crate) fn choose(
        turn: &mut Turn<'_>,
        peer: &Peer,
        path: &Path,
        payloads: &Payloads<'_>,
        old: Option<&ChildSa>,
        in_auth: bool,
    ) -> Result<Self, IkeError> {
        let sent = payloads.ke.as_ref().and_then(ke_method);
        let children = &peer.connection.children;
        let candidates =
            || children.iter().filter(|child| old.is_none_or(|old| child.name == old.config.name));
        let outside = || IkeError::TsUnacceptable {
            offered: sides(payloads.ts_i.as_ref(), payloads.ts_r.as_ref()),
            accepted: accepted(candidates().map(|config| &**config), path),
            key: format!("connection.{}.children.*.remote_ts and local_ts", peer.connection.name),
        };
        let key = |config: &ChildConfig| esp_proposals_key(peer, config);
        let refused = |config: &ChildConfig, offered: String| IkeError::NoProposalChosen {
            offered,
            accepted: syntax::describe(&proposals(config, in_auth)),
            key: key(config),
        };
        let (Some(ts_i), Some(ts_r)) = (&payloads.ts_i, &payloads.ts_r) else { return Err(outside()) };
        let Some(sa) = &payloads.sa else {
            let first = candidates().next();
            return Err(first.map_or_else(outside, |config| refused(config, "nothing".to_owned())));
        };
        sa.check_numbers()?;
        let mut refusal = None;
        let mut in_order: Vec<_> = candidates().collect();
        in_order.sort_by_key(|config| !has_room_for_first(config, path, ts_i, ts_r));
        for config in in_order {
            let ours = selectors(&config.remote_ts, path.remote.ip());
            let remote_ts = narrow(&ours, ts_i, old.map(|old| &*old.remote_ts));
            let ours = selectors(&config.local_ts, path.local.ip());
            let local_ts = narrow(&ours, ts_r, old.map(|old| &*old.local_ts));
            let (Some(remote_ts), Some(local_ts)) = (remote_ts, local_ts) else { continue };
            let agreed = (&*local_ts, remote_ts);
            let remote_ts = match unclaimed(turn, peer, config, agreed, (ts_i, ts_r)) {
                Ok(free) => free,
                Err(error) => {
                    refusal.get_or_insert(error);
                    continue;
                }
            };
            let ours = proposals(config, in_auth);
            let Some(chosen) = proposal::choose_esp(&ours, sa, sent, in_auth) else {
                refusal.get_or_insert_with(|| refused(config, syntax::describe_sa(sa)));
                continue;
            };
            if let (Some(wanted), false) = (chosen.agreement.ke, in_auth)
                && sent != Some(wanted)
            {
                return Err(IkeError::InvalidKe {
                    offered: payloads.ke.as_ref().map_or(0, |ke| ke.method),
                    accepted: wanted.id(),
                    key: key(config),
                });
            }
            let reserved = || refused(config, format!("{} with a reserved SPI", syntax::describe_sa(sa)));
            let peer_spi = chosen.esp_spi().ok_or_else(reserved)?;
            let spi = turn.inbound_spi()?;
            let is_cut = is_cut(&selectors(&config.local_ts, path.local.ip()), ts_r, &local_ts)
                || is_cut(&selectors(&config.remote_ts, path.remote.ip()), ts_i, &remote_ts);
            let cut = (is_cut && old.is_none()).then(|| sides(Some(ts_r), Some(ts_i)));
            return Ok(Self { config: config.clone(), chosen, spi, peer_spi, local_ts, remote_ts, cut });
        }
        Err(refusal.unwrap_or_else(outside))
    }

    /// SA payload of the answer.
    pub(crate) fn write_sa(&self, writer: &mut Writer) {
        let spi = self.spi.to_be_bytes();
        writer.sa(&[self.chosen.answer(Protocol::Esp, &spi)]);
    }

    /// TSi and TSr of the answer.
    pub(crate) fn write_ts(&self, writer: &mut Writer) {
        writer.ts_i(&self.remote_ts).ts_r(&self.local_ts);
    }

    /// Gives back the SPI.
    pub(crate) fn release(&self, turn: &mut Turn<'_>) {
        turn.shared.allocator.release(self.spi);
    }

    /// The Child SA; nothing is installed yet.
    pub(crate) fn child(
        &self,
        turn: &mut Turn<'_>,
        peer: &mut Peer,
        path: &Path,
        keymat_inputs: KeymatInputs<'_>,
    ) -> Result<ChildSa, IkeError> {
        let provider = turn.shared.provider.clone();
        let KeymatInputs { keys, nonce_i, nonce_r, shared } = keymat_inputs;
        let suite = self.chosen.agreement.suite;
        let (of_i, of_r) = keys.child(&*provider, suite, shared, nonce_i, nonce_r)?;
        let reqid = peer.reqid(turn, &self.config);
        if let Some(wanted) = &self.cut {
            turn.event(Event::ChildNarrowed {
                connection: peer.connection.name.clone(),
                child: self.config.name.clone(),
                reqid,
                wanted: wanted.clone(),
                carried: describe(&self.local_ts, &self.remote_ts),
                by: NarrowedBy::Limit,
            });
        }
        let half = |turn: &mut Turn<'_>, spi, keys| DirectionSa {
            id: turn.shared.allocator.sa_id(),
            spi,
            state: DirectionState::Held(keys),
        };
        let (inbound, outbound) = (half(turn, self.spi, of_i), half(turn, self.peer_spi, of_r));
        if self.config.reqid.is_none() {
            turn.shared.claims.claim(inbound.id, &peer.remote_id, &self.local_ts, &self.remote_ts);
        }
        Ok(ChildSa {
            connection: peer.connection.name.clone(),
            config: self.config.clone(),
            reqid,
            suite,
            esn: self.chosen.agreement.esn,
            inbound,
            outbound,
            outer: path.outer(),
            local_ts: self.local_ts.clone(),
            remote_ts: self.remote_ts.clone(),
            initiator: false,
            origin: (false, lowest_nonce(nonce_i, nonce_r)),
            lowest: lowest_nonce(nonce_i, nonce_r),
            phase: Phase::Opening,
            replaces: None,
            replaced_by: None,
            had_successor: false,
            redundant: false,
            give_up_at: None,
            rekey_at: None,
            expire_at: None,
            down: DownReason::Operator,
            told: false,
        })
    }
}

fn esp_proposals_key(peer: &Peer, config: &ChildConfig) -> String {
    format!("connection.{}.children.{}.esp_proposals", peer.connection.name, config.name)
}

/// What of the peer's side nobody else has in use; only peers of a wildcard connection share a configuration.
fn unclaimed(
    turn: &Turn<'_>,
    peer: &Peer,
    config: &ChildConfig,
    (local_ts, remote_ts): (&[TrafficSelector], Vec<TrafficSelector>),
    (ts_i, ts_r): (&Ts<'_>, &Ts<'_>),
) -> Result<Vec<TrafficSelector>, IkeError> {
    if config.reqid.is_some() {
        return Ok(remote_ts);
    }
    let (free, taken_by) = turn.shared.claims.free(&peer.remote_id, local_ts, &remote_ts);
    if free.is_empty() {
        let by = taken_by.map_or_else(String::new, ToString::to_string);
        return Err(IkeError::TsInUse { offered: sides(Some(ts_i), Some(ts_r)), by });
    }
    Ok(free)
}

/// What of the peer's selectors is in the answer; `None` where that is nothing, or less than what is in use.
fn narrow(
    ours: &[TrafficSelector],
    theirs: &Ts<'_>,
    of_old: Option<&[TrafficSelector]>,
) -> Option<Vec<TrafficSelector>> {
    let in_use = selector::in_use(of_old.unwrap_or_default(), ours);
    // What is in use goes first, so that it is in the answer even where that has to be cut short.
    let kept = in_use.iter().filter(|old| theirs.selectors().any(|theirs| theirs.covers(old))).copied();
    let narrowed = selector::narrow(ours, kept.chain(theirs.selectors()));
    let enough = !narrowed.is_empty() && selector::covers_all(&narrowed, &in_use);
    enough.then_some(narrowed)
}

/// Whether an answer leaves out some of what both ends allow, because no more selectors fit.
fn is_cut(ours: &[TrafficSelector], theirs: &Ts<'_>, answer: &[TrafficSelector]) -> bool {
    let theirs: Vec<TrafficSelector> = theirs.selectors().collect();
    answer.len() == SELECTORS_MAX && !selector::covers_all(answer, &selector::in_use(&theirs, ours))
}

/// Whether a child meets the first selector of each side: it may be the very packet that wants the Child SA
/// (RFC 7296 §2.9), and such children go first.
fn has_room_for_first(config: &ChildConfig, path: &Path, ts_i: &Ts<'_>, ts_r: &Ts<'_>) -> bool {
    let meets = |ours: &[SelectorConfig], outer, theirs: &Ts<'_>| {
        let first = theirs.selectors().next();
        first.is_some_and(|first| {
            selectors(ours, outer).iter().any(|ours| ours.intersection(&first).is_some())
        })
    };
    meets(&config.remote_ts, path.remote.ip(), ts_i) && meets(&config.local_ts, path.local.ip(), ts_r)
}

/// Both sides of what the peer asks for, as the operator reads them.
fn sides(left: Option<&Ts<'_>>, right: Option<&Ts<'_>>) -> String {
    let list = |ts: Option<&Ts<'_>>| selector::describe(ts.into_iter().flat_map(Ts::selectors));
    format!("{} === {}", list(left), list(right))
}

fn accepted<'a>(children: impl Iterator<Item = &'a ChildConfig>, path: &Path) -> String {
    let list = children.map(|config| {
        let remote = selector::describe(selectors(&config.remote_ts, path.remote.ip()));
        let local = selector::describe(selectors(&config.local_ts, path.local.ip()));
        format!("{remote} === {local}")
    });
    let list: Vec<String> = list.collect();
    if list.is_empty() { "none".to_owned() } else { list.join("; ") }
}
