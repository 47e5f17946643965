//! Manual SAs: any SPI, other keys under the same one, and no replay window at all.

mod support;

use pollux_abi::{DropReason, SaIndex, Spi};
use pollux_packet::{Verdict, esp, ipv4};
use support::{checkpoints, dropped, gateway, gateway_of, inbound, outbound, pair, protect_all, v4};

/// The sequence number of an ESP packet, the half that is on the wire.
fn sequence(packet: &[u8]) -> u32 {
    esp::Header::parse(&packet[ipv4::HEADER_LEN..]).expect("ESP").sequence
}

#[test]
fn an_spi_with_the_bits_of_ours_works_in_any_place() {
    let (mut sender, mut receiver) = (gateway(), gateway());
    sender.policies(&protect_all());
    // Upper bits that name place 3, which is another SA's, or no place at all.
    let named = inbound(9, 3).spi;
    let spis = [named.get() ^ 1, named.get() ^ 2, 0xc000_0000, u32::MAX, 256];
    assert_eq!(receiver.add(inbound(9, 3)), Ok(0));
    for (spi, index) in spis.into_iter().zip(10..) {
        let (mut out, mut into) = (outbound(u64::from(index), index), inbound(u64::from(index), index));
        (out.spi, into.spi) = (Spi::new(spi).expect("not reserved"), Spi::new(spi).expect("not reserved"));
        assert_eq!((sender.add(out), receiver.add(into.clone())), (Ok(0), Ok(0)), "{spi:#x}");
        let sealed = sender.encrypt(&v4(b""));
        assert_eq!(receiver.verdict_in(&sealed), Verdict::Forward, "{spi:#x}");
        // Away, and again in another place.
        assert_eq!(receiver.delete(into.id.0), Ok(0));
        into.index = SaIndex(index + 20);
        assert_eq!(receiver.add(into), Ok(0), "{spi:#x} again");
        let sealed = sender.encrypt(&v4(b""));
        assert_eq!(receiver.verdict_in(&sealed), Verdict::Forward, "{spi:#x} again");
    }
    let mut own = outbound(9, 3);
    own.spi = named;
    assert_eq!(sender.add(own), Ok(0));
    let sealed = sender.encrypt(&v4(b""));
    assert_eq!(receiver.verdict_in(&sealed), Verdict::Forward, "whose bits name its own place");
}

#[test]
fn other_keys_begin_another_window_at_both_ends() {
    for esn in [false, true] {
        let (mut sender, mut receiver) = (gateway_of(0, checkpoints()), gateway_of(0, checkpoints()));
        sender.policies(&protect_all());
        let (mut out, mut into) = (outbound(1, 3), inbound(2, 3));
        (out.esn, into.esn) = (esn, esn);
        (out.checkpoint, into.checkpoint) = (Some(0), Some(0));
        out.seq_start = if esn { (5 << 32) + 9 } else { 70_000 };
        into.seq_start = out.seq_start - 1;
        assert_eq!((sender.add(out.clone()), receiver.add(into.clone())), (Ok(0), Ok(0)));
        let old = sender.encrypt(&v4(b""));
        assert_eq!(receiver.verdict_in(&old), Verdict::Forward);
        // The same keys go on, whatever else changes.
        assert_eq!((sender.replace(out.clone()), receiver.replace(into.clone())), (Ok(0), Ok(0)));
        assert_eq!(receiver.verdict_in(&old), dropped(DropReason::Replayed));
        (out.checkpoint, into.checkpoint) = (Some(1), Some(1));
        (out.seq_start, into.seq_start) = (1, 0);
        assert_eq!((sender.replace(out), receiver.replace(into)), (Ok(1), Ok(1)));
        let first = sender.encrypt(&v4(b""));
        assert_eq!(sequence(&first), 1, "ESN {esn}");
        assert_eq!(receiver.verdict_in(&first), Verdict::Forward, "ESN {esn}");
        assert_eq!(receiver.verdict_in(&first), dropped(DropReason::Replayed), "ESN {esn}");
    }
}

#[test]
fn without_a_window_every_number_passes() {
    let (mut sender, mut receiver) = pair(|spec| spec.window_packets = 0);
    let packets: Vec<Vec<u8>> = (0..3).map(|_| sender.encrypt(&v4(b""))).collect();
    for at in [2, 0, 0, 1, 2] {
        assert_eq!(receiver.verdict_in(&packets[at]), Verdict::Forward);
    }
}
