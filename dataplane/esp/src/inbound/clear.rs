//! What arrives in clear from outside is judged by policy (RFC 4301 §5.2, step 3).

use pollux_abi::DropReason;
use pollux_abi::command::PolicyAction;
use pollux_packet::{Burst, Flow, Verdict};

use crate::engine::Engine;
use crate::policy::{CompiledPolicies, Match};

/// Judges every pending packet of the burst.
pub(crate) fn judge_clear(engine: &Engine, burst: &mut Burst) {
    for meta in burst.metas_mut().iter_mut().filter(|meta| meta.is_pending()) {
        meta.verdict = match judge(&engine.policies, &meta.flow) {
            Ok(()) => {
                engine.counters.bypassed.add(1);
                Verdict::Bypass
            }
            Err(reason) => Verdict::Drop(reason),
        };
    }
}

/// Inbound policies come first. Where they are silent, what leaves protected must not arrive in clear, and
/// what leaves in clear may arrive so: the outbound policies, read backwards.
pub(crate) fn judge(policies: &CompiledPolicies, flow: &Flow) -> Result<(), DropReason> {
    match policies.arriving(flow) {
        Match::None => Err(DropReason::NotOurs),
        Match::Entry(entry) => match entry.action {
            PolicyAction::Protect(_) => Err(DropReason::ClearForProtected),
            PolicyAction::Discard => Err(DropReason::InPolicyDiscard),
            PolicyAction::Bypass => Ok(()),
        },
        Match::Undecided(entry) => match entry.action {
            PolicyAction::Protect(_) => Err(DropReason::ClearForProtected),
            PolicyAction::Discard | PolicyAction::Bypass => Err(DropReason::FragmentPorts),
        },
    }
}
