//! What control gives up once its sockets are there: every right but that to bind the IKE ports again at a
//! reload, core dumps, and whatever a program that it started could gain.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capabilities_secure_bits,
    capability_is_in_bounding_set, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
};

/// Ports 500 and 4500.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// Gives up the rest, for good. Threads that exist already are not touched: call it before there are any.
pub(crate) fn enter() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let had = capabilities(None)?.permitted;
    // A process that is not root may not shrink what it could never use.
    if had.contains(CapabilitySet::SETPCAP) {
        let known = (0..u64::BITS)
            .map(|bit| CapabilitySet::from_bits_retain(1 << bit))
            .take_while(|&capability| capability_is_in_bounding_set(capability).is_ok());
        for capability in known.filter(|&capability| !KEPT.contains(capability)) {
            remove_capability_from_bounding_set(capability)?;
        }
        let locked = CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
        set_capabilities_secure_bits(capabilities_secure_bits()? | locked)?;
    }
    clear_ambient_capability_set()?;
    let kept = had & KEPT;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    Ok(set_no_new_privs(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_is_left_the_right_to_bind_its_ports_and_gets_nothing_back() {
        let before = capabilities(None).expect("capget").permitted;
        let (after, again) = std::thread::spawn(move || {
            enter().expect("giving up is allowed");
            let all = CapabilitySets { effective: before, permitted: before, inheritable: before };
            (capabilities(None).expect("capget"), set_capabilities(None, all).is_ok())
        })
        .join()
        .expect("no panic");
        let kept = before & KEPT;
        assert_eq!((after.effective, after.permitted), (kept, kept));
        assert_eq!(again, before == kept, "what was given up came back");
    }
}
