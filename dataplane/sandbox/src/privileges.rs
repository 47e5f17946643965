//! Capabilities, new privileges, core dumps.
//!
//! Capabilities belong to threads.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capabilities_secure_bits,
    capability_is_in_bounding_set, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
};

/// Ends core dumps and other processes' looks into this one's memory: keys are in it.
///
/// # Errors
/// If the kernel refuses.
pub fn close_memory() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Takes everything from the calling thread but `keep`, for good, and says what it still has.
///
/// A program that it might start gains nothing by set-user-ID bits or file capabilities, and nothing by
/// being root: the bounding set shrinks too, where the thread has the right to shrink it.
///
/// # Errors
/// If the kernel refuses.
pub fn keep_only(keep: CapabilitySet) -> io::Result<CapabilitySet> {
    let had = capabilities(None)?.permitted;
    if had.contains(CapabilitySet::SETPCAP) {
        for capability in every_capability() {
            if !keep.contains(capability) && capability_is_in_bounding_set(capability)? {
                remove_capability_from_bounding_set(capability)?;
            }
        }
        let locked = CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
        set_capabilities_secure_bits(capabilities_secure_bits()? | locked)?;
    }
    clear_ambient_capability_set()?;
    let kept = had & keep;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    set_no_new_privs(true)?;
    Ok(kept)
}

/// Their names, as `capsh` has them without `cap_`.
pub fn names(set: CapabilitySet) -> String {
    let names: Vec<String> = set.iter_names().map(|(name, _)| name.to_lowercase()).collect();
    names.join(" ")
}

/// Those that this kernel knows; `PR_CAPBSET_READ` refuses the others.
fn every_capability() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS)
        .map(|bit| CapabilitySet::from_bits_retain(1 << bit))
        .take_while(|&capability| capability_is_in_bounding_set(capability).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own: what it gives up is gone.
    fn in_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(body).join().expect("no panic")
    }

    #[test]
    fn a_thread_keeps_what_it_is_left_and_gets_nothing_back() {
        let before = capabilities(None).expect("capget").permitted;
        let keep = CapabilitySet::NET_ADMIN;
        let (kept, after, again) = in_thread(move || {
            let kept = keep_only(keep).expect("giving up is allowed");
            let after = capabilities(None).expect("capget");
            let all = CapabilitySets { effective: before, permitted: before, inheritable: before };
            (kept, after, set_capabilities(None, all).is_ok())
        });
        assert_eq!(kept, before & keep);
        assert_eq!(
            (after.effective, after.permitted, after.inheritable),
            (kept, kept, CapabilitySet::empty())
        );
        assert_eq!(again, before == kept, "what was given up came back");
        assert_eq!(capabilities(None).expect("capget").permitted, before, "other threads are not touched");
    }

    #[test]
    fn a_worker_is_left_nothing_and_can_gain_nothing() {
        let (kept, new_privs, bound) = in_thread(|| {
            let could = capabilities(None).expect("capget").permitted.contains(CapabilitySet::SETPCAP);
            let kept = keep_only(CapabilitySet::empty()).expect("giving up is allowed");
            let bound = capability_is_in_bounding_set(CapabilitySet::SYS_ADMIN).expect("it exists");
            (kept, rustix::thread::no_new_privs().expect("prctl"), bound && could)
        });
        assert_eq!((kept, new_privs, bound), (CapabilitySet::empty(), true, false));
    }
}
