//! The inner packet takes over: ECN is combined, metadata and verdict are its own.

use pollux_abi::DropReason;
use pollux_abi::dscp::Ecn;
use pollux_packet::{Burst, Class, IpVersion, Packet, Verdict};

use crate::engine::Engine;
use crate::live::Live;
use crate::mark::{self, Decap};
use crate::sa::place;

/// Makes each packet one to be forwarded. Its hop is taken by whoever forwards it.
pub(crate) fn decap(engine: &Engine, burst: &mut Burst, live: Live) {
    let (packets, metas) = burst.split_mut();
    for at in live.iter() {
        let (packet, meta) = (&mut packets[at], &mut metas[at]);
        let outer = Ecn::of_traffic_class(meta.traffic_class);
        meta.traffic_class = traffic_class(packet, meta.flow.version);
        meta.class = Class::Plain;
        meta.verdict = Verdict::Forward;
        if engine.sas.inbound.hot[place(meta.sa)].ecn {
            match mark::decap(Ecn::of_traffic_class(meta.traffic_class), outer) {
                Decap::Keep => {}
                Decap::KeepUnexpected => engine.counters.ecn_unexpected.add(1),
                Decap::Set(ecn) => {
                    meta.traffic_class = meta.traffic_class & !3 | ecn as u8;
                    mark::set_ecn(packet.data_mut(), &meta.flow, meta.traffic_class);
                    engine.counters.ecn_ce.add(u64::from(ecn == Ecn::Ce));
                }
                Decap::Drop => {
                    meta.drop_for(DropReason::EcnForbidden);
                    continue;
                }
            }
        }
        engine.counters.decapsulated.add(1);
    }
}

#[inline]
fn traffic_class(packet: &Packet, version: IpVersion) -> u8 {
    match (packet.data(), version) {
        ([_, class, ..], IpVersion::V4) => *class,
        ([first, second, ..], IpVersion::V6) => first << 4 | second >> 4,
        _ => 0,
    }
}
