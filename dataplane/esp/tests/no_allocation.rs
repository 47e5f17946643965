//! The packet path allocates nothing, over a million packets.

mod support;

use pollux_packet::parse::{ENCAP_PORT, classify_ip};
use pollux_packet::{Burst, Meta, PortSlot, Role, Verdict};
use support::*;

/// Packets encrypted and as many decrypted.
const PACKETS: u64 = 1_000_000;

#[test]
fn a_million_packets_allocate_nothing() {
    let (mut sender, mut receiver) = pair(|spec| {
        spec.esn = true;
        in_udp(spec);
    });
    let inner = v4(&[0x80; 172]);
    let mut full = Burst::new();
    for frame in 0..64 {
        assert!(full.push(packet(&inner, frame), Meta::default()).is_ok());
    }
    let mut through = 0;
    let counted = allocation_counter::measure(|| {
        while through < PACKETS {
            for (packet, meta) in full.iter_mut() {
                packet.reset(256);
                assert!(packet.extend(&inner));
                *meta = Meta::received(PortSlot(0), Role::Lan, NOW);
            }
            classify_ip(&mut full, ENCAP_PORT);
            sender.engine.outbound(NOW, &mut full);
            for meta in full.metas_mut() {
                assert_eq!(meta.verdict, Verdict::Forward);
                *meta = Meta::received(PortSlot(1), Role::Wan, NOW);
            }
            classify_ip(&mut full, ENCAP_PORT);
            receiver.engine.inbound(NOW, &mut full);
            receiver.engine.inbound_clear(&mut full);
            through += full.metas().iter().filter(|meta| meta.verdict == Verdict::Forward).count() as u64;
        }
    });
    assert_eq!(through, PACKETS);
    assert_eq!(counted.count_total, 0, "{counted:?}");
    assert_eq!(receiver.counters.decapsulated.value(), PACKETS);
}

#[test]
fn bad_packets_allocate_nothing_either() {
    let (mut sender, mut receiver) = pair(|_| {});
    let good = sender.encrypt(&v4(b"once"));
    let mut unknown = good.clone();
    unknown[20] = 0x33;
    let mut forged = good.clone();
    forged[40] ^= 1;
    let bad = [good.clone(), good, unknown, forged, v4(b"clear"), vec![0x45; 30]];
    let mut burst = burst(Role::Wan, &bad);
    let counted = allocation_counter::measure(|| {
        for _ in 0..2_000 {
            for ((packet, meta), octets) in burst.iter_mut().zip(&bad) {
                packet.reset(256);
                assert!(packet.extend(octets));
                *meta = Meta::received(PortSlot(0), Role::Wan, NOW);
            }
            classify_ip(&mut burst, ENCAP_PORT);
            receiver.engine.inbound(NOW, &mut burst);
            receiver.engine.inbound_clear(&mut burst);
        }
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
