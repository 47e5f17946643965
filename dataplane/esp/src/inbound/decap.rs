//! The inner packet takes over: ECN is combined, metadata and verdict are its own.

use pollux_abi::DropReason;
use pollux_abi::dscp::Ecn;
use pollux_packet::{Class, IpVersion, Meta, Packet, Verdict};

use crate::engine::Engine;
use crate::mark::{self, Decap};

/// Makes the packet one to be forwarded. Its hop is taken by whoever forwards it.
#[inline]
pub(crate) fn decap(engine: &Engine, packet: &mut Packet, meta: &mut Meta) -> Result<(), DropReason> {
    let outer = Ecn::of_traffic_class(meta.traffic_class);
    meta.traffic_class = traffic_class(packet, meta.flow.version);
    meta.class = Class::Plain;
    meta.verdict = Verdict::Forward;
    match mark::decap(Ecn::of_traffic_class(meta.traffic_class), outer) {
        Decap::Keep => {}
        Decap::KeepUnexpected => engine.counters.ecn_unexpected.add(1),
        Decap::Set(ecn) => {
            meta.traffic_class = meta.traffic_class & !3 | ecn as u8;
            mark::set_ecn(packet.data_mut(), &meta.flow, meta.traffic_class);
            engine.counters.ecn_ce.add(u64::from(ecn == Ecn::Ce));
        }
        Decap::Drop => return Err(DropReason::EcnForbidden),
    }
    Ok(())
}

#[inline]
fn traffic_class(packet: &Packet, version: IpVersion) -> u8 {
    match (packet.data(), version) {
        ([_, class, ..], IpVersion::V4) => *class,
        ([first, second, ..], IpVersion::V6) => first << 4 | second >> 4,
        _ => 0,
    }
}
