//! An SA that gets other addresses or marks without its keys being told again.

mod support;

use pollux_abi::{CommandError, DropReason, EspSuite};
use pollux_packet::{Verdict, esp, ipv4};
use support::{checkpoints, dropped, gateway_of, inbound, outbound, pair, protect_all, v4};

#[test]
fn an_sa_that_is_moved_without_keys_keeps_those_that_it_has() {
    let (mut sender, mut receiver) = pair(|_| {});
    assert_eq!(receiver.verdict_in(&sender.encrypt(&v4(b""))), Verdict::Forward);
    let (mut out, mut into) = (outbound(1, 3), inbound(2, 3));
    (out.remote, into.local) = ([198, 51, 100, 9].into(), [198, 51, 100, 9].into());
    assert_eq!(sender.replace_without_keys(out.clone()), Ok(0));
    assert_eq!(receiver.replace_without_keys(into), Ok(0));
    let moved = sender.encrypt(&v4(b""));
    let header = esp::Header::parse(&moved[ipv4::HEADER_LEN..]).expect("ESP");
    assert_eq!((header.sequence, &moved[16..20]), (2, &[198, 51, 100, 9][..]), "its numbers go on");
    assert_eq!(receiver.verdict_in(&moved), Verdict::Forward);
    assert_eq!(receiver.verdict_in(&moved), dropped(DropReason::Replayed));
    let other_suite = pollux_abi::command::SaSpec { suite: EspSuite::Aes256Gcm16, ..out };
    assert_eq!(sender.replace_without_keys(other_suite), Err(CommandError::Field));
    assert_eq!(sender.replace_without_keys(outbound(9, 4)), Err(CommandError::Unknown));
    assert_eq!(receiver.verdict_in(&sender.encrypt(&v4(b""))), Verdict::Forward, "refusals change nothing");
}

#[test]
fn keys_of_another_slot_of_the_counter_file_are_others() {
    for with_keys in [false, true] {
        let mut gateway = gateway_of(0, checkpoints());
        gateway.policies(&protect_all());
        let mut out = outbound(1, 3);
        out.checkpoint = Some(1);
        assert_eq!(gateway.add(out.clone()), Ok(1));
        assert_eq!(gateway.replace_without_keys(out.clone()), Ok(1), "the same");
        out.checkpoint = Some(2);
        let (wanted, result) = if with_keys {
            (Ok(2), gateway.replace(out))
        } else {
            (Err(CommandError::Field), gateway.replace_without_keys(out))
        };
        assert_eq!(result, wanted);
    }
}
