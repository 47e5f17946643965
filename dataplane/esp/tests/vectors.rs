//! Packets that another implementation made: scapy, AES-128-GCM, in `tests/corpus/esp`.

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;
mod support;

use pollux_abi::command::EncapPorts;
use pollux_abi::{Command, KeyMaterial, Spi};
use pollux_packet::parse::{self, ENCAP_PORT, classify};
use pollux_packet::{Burst, Class, Flow, Meta, PortSlot, Role, Verdict, checksum};
use support::*;

/// The frame as a classified burst.
fn received(octets: &[u8]) -> Burst {
    let mut burst = Burst::new();
    assert!(burst.push(packet(octets, 0), Meta::received(PortSlot(0), Role::Wan, NOW)).is_ok());
    classify(&mut burst, ENCAP_PORT);
    burst
}

#[test]
fn every_packet_that_scapy_sealed_is_opened() {
    let vectors = harness::corpus("esp");
    assert_eq!(vectors.len(), 16);
    for (name, octets) in vectors {
        let mut burst = received(&octets);
        let meta = burst.metas()[0];
        let esp = &burst.packets()[0].data()[usize::from(meta.l4)..];
        let header = pollux_packet::esp::Header::parse(esp).expect("an ESP header");
        let mut spec = inbound(2, 3);
        spec.spi = Spi::new(header.spi).expect("not reserved");
        spec.esn = name.contains("esn");
        (spec.local, spec.remote) = (meta.flow.destination(), meta.flow.source());
        let encap = EncapPorts { local: 4500, remote: meta.flow.source_port };
        spec.encap = (meta.class == Class::EspInUdp).then_some(encap);
        let material: Vec<u8> = (0..20).collect();
        let mut gateway = gateway();
        let keys = KeyMaterial::new(&material).expect("it fits");
        assert_eq!(gateway.engine.apply(NOW, Command::SaAdd(spec, keys)), Ok(0), "{name}");
        gateway.engine.inbound(NOW, &mut burst);
        assert_eq!(burst.metas()[0].verdict, Verdict::Forward, "{name}");
        let inner = burst.packets()[0].data();
        let mut flow = Flow::default();
        let parsed = parse::ip(inner, &mut flow).expect("an IP packet");
        let transport = &inner[parsed.l4..];
        let sum = checksum::pseudo_header(&flow, flow.protocol, transport.len());
        assert_eq!(sum.octets(transport).fold(), u16::MAX, "{name}: the inner checksum holds");
        // The same frame once more.
        let mut again = received(&octets);
        gateway.engine.inbound(NOW, &mut again);
        assert_ne!(again.metas()[0].verdict, Verdict::Forward, "{name}");
    }
}
