//! What comes out of a tunnel has the authority that policy gives its SA, and no more (RFC 4301 §5.2).

mod support;

use pollux_abi::command::{Direction, PolicyAction, SaSpec};
use pollux_abi::selector::{PortRange, Selectors};
use pollux_abi::{DropReason, Reqid};
use pollux_packet::{Verdict, ipv4};
use support::{Gateway, REQID, dropped, inbound, net, outbound, policy, protect_all, v4_with};

const PROTECT: PolicyAction = PolicyAction::Protect(REQID);
const OTHER: PolicyAction = PolicyAction::Protect(Reqid(8));

/// A sender that sends anything, and the receiver of one SA whose selectors are those of two policies together.
fn two_sites() -> (Gateway, Gateway) {
    let (sender, mut receiver) = support::pair(|spec| {
        if spec.direction == Direction::Inbound {
            spec.local_ts = Selectors::new(&[net("10.1.1.0/24"), net("10.1.2.0/24")]).expect("two fit");
            spec.remote_ts = Selectors::new(&[net("10.2.1.0/24"), net("10.2.2.0/24")]).expect("two fit");
        }
    });
    receiver
        .policies(&both(&[("10.1.1.0/24", "10.2.1.0/24", PROTECT), ("10.1.2.0/24", "10.2.2.0/24", PROTECT)]));
    (sender, receiver)
}

/// Each entry in both directions.
fn both(list: &[(&str, &str, PolicyAction)]) -> Vec<pollux_abi::command::PolicySpec> {
    let entry = |id, &(local, remote, action): &(&str, &str, PolicyAction)| {
        [Direction::Outbound, Direction::Inbound]
            .map(|direction| policy(id, direction, local, remote, action))
    };
    (1..).zip(list).flat_map(|(id, row)| entry(id, row)).collect()
}

fn arrives(sender: &mut Gateway, receiver: &mut Gateway, source: [u8; 4], destination: [u8; 4]) -> Verdict {
    let packet = v4_with(|header| (header.source, header.destination) = (source, destination), b"media");
    let sealed = sender.encrypt(&packet);
    receiver.verdict_in(&sealed)
}

#[test]
fn policies_of_one_reqid_lend_each_other_nothing() {
    let (mut sender, mut receiver) = two_sites();
    let mut try_one = |source: [u8; 4], destination: [u8; 4]| {
        // Twice: the second answer may come from what is known of the flow.
        let first = arrives(&mut sender, &mut receiver, source, destination);
        assert_eq!(first, arrives(&mut sender, &mut receiver, source, destination));
        first
    };
    assert_eq!(try_one([10, 2, 1, 5], [10, 1, 1, 5]), Verdict::Forward);
    assert_eq!(try_one([10, 2, 2, 5], [10, 1, 2, 5]), Verdict::Forward);
    let mismatch = dropped(DropReason::SelectorMismatch);
    assert_eq!(try_one([10, 2, 1, 5], [10, 1, 2, 5]), mismatch, "a cross product");
    assert_eq!(try_one([10, 2, 2, 5], [10, 1, 1, 5]), mismatch, "the other one");
    assert_eq!(try_one([10, 2, 3, 5], [10, 1, 1, 5]), mismatch, "outside the selectors");
    let counters = receiver.sa_counters.row(Direction::Inbound, inbound(2, 3).index).expect("a row");
    assert_eq!(counters.selector_errors.value(), 6);
}

#[test]
fn an_earlier_policy_takes_its_part_away() {
    let (mut sender, mut receiver) = support::pair(|_: &mut SaSpec| {});
    let into = [10, 1, 0, 5];
    for (action, verdict) in [
        (PROTECT, Verdict::Forward),
        (OTHER, dropped(DropReason::SelectorMismatch)),
        (PolicyAction::Bypass, dropped(DropReason::SelectorMismatch)),
        (PolicyAction::Discard, dropped(DropReason::InPolicyDiscard)),
    ] {
        receiver
            .policies(&both(&[("10.1.0.0/16", "10.2.9.0/24", action), ("0.0.0.0/0", "0.0.0.0/0", PROTECT)]));
        assert_eq!(arrives(&mut sender, &mut receiver, [10, 2, 9, 5], into), verdict, "{action:?}");
        assert_eq!(arrives(&mut sender, &mut receiver, [10, 2, 8, 5], into), Verdict::Forward, "{action:?}");
    }
    receiver.policies(&[policy(1, Direction::Outbound, "10.1.0.0/16", "10.2.9.0/24", PROTECT)]);
    assert_eq!(arrives(&mut sender, &mut receiver, [10, 2, 9, 5], into), Verdict::Forward, "read backwards");
    let none = arrives(&mut sender, &mut receiver, [10, 2, 8, 5], into);
    assert_eq!(none, dropped(DropReason::SelectorMismatch), "no policy is no authority");
}

#[test]
fn an_sa_whose_policies_are_on_their_way_has_its_selectors() {
    let (mut sender, mut receiver) = support::pair(|spec| {
        if spec.direction == Direction::Inbound {
            spec.remote_ts = Selectors::new(&[net("10.2.0.0/16")]).expect("one fits");
        }
    });
    receiver.policies(&both(&[
        ("0.0.0.0/0", "10.2.9.0/24", PolicyAction::Discard),
        ("0.0.0.0/0", "0.0.0.0/0", OTHER),
    ]));
    let into = [10, 1, 0, 5];
    assert_eq!(arrives(&mut sender, &mut receiver, [10, 2, 8, 5], into), Verdict::Forward);
    let mismatch = dropped(DropReason::SelectorMismatch);
    assert_eq!(arrives(&mut sender, &mut receiver, [10, 3, 8, 5], into), mismatch);
    let discard = dropped(DropReason::InPolicyDiscard);
    assert_eq!(arrives(&mut sender, &mut receiver, [10, 2, 9, 5], into), discard);
}

#[test]
fn a_fragment_without_ports_does_not_pass_by_another_reqids_ports() {
    let (mut sender, mut receiver) = support::pair(|_: &mut SaSpec| {});
    let mut voice = policy(1, Direction::Inbound, "0.0.0.0/0", "0.0.0.0/0", OTHER);
    voice.selectors.local.protocol = Some(17);
    voice.selectors.local.ports = PortRange::single(5_062);
    receiver.policies(&[voice, policy(2, Direction::Inbound, "0.0.0.0/0", "0.0.0.0/0", PROTECT)]);
    let mut fragment = v4_with(|_| {}, b"media of a later fragment");
    fragment[6..8].copy_from_slice(&8u16.to_be_bytes());
    support::renew_checksum(&mut fragment[..ipv4::HEADER_LEN]);
    let mut through = |receiver: &mut Gateway| {
        let sealed = sender.encrypt(&fragment);
        receiver.verdict_in(&sealed)
    };
    assert_eq!(through(&mut receiver), dropped(DropReason::FragmentPorts));
    voice.action = PROTECT;
    receiver.policies(&[voice, policy(2, Direction::Inbound, "0.0.0.0/0", "0.0.0.0/0", PROTECT)]);
    assert_eq!(through(&mut receiver), Verdict::Forward);
}

#[test]
fn what_is_known_of_a_flow_ends_with_its_sa() {
    let (mut sender, mut receiver) = support::pair(|_: &mut SaSpec| {});
    receiver.policies(&protect_all());
    let (source, destination) = ([10, 2, 0, 5], [10, 1, 0, 5]);
    assert_eq!(arrives(&mut sender, &mut receiver, source, destination), Verdict::Forward);
    // The same place in the table, and selectors that exclude the flow.
    assert_eq!(receiver.delete(2), Ok(0));
    let mut narrow = inbound(2, 3);
    narrow.spi = outbound(1, 3).spi;
    narrow.remote_ts = Selectors::new(&[net("10.9.0.0/16")]).expect("one fits");
    assert_eq!(receiver.add(narrow), Ok(0));
    let after = arrives(&mut sender, &mut receiver, source, destination);
    assert_eq!(after, dropped(DropReason::SelectorMismatch));
}
