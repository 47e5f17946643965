//! Does the packet fit, may it still travel, has the frame room? Before a number is spent on it.

use pollux_abi::DropReason;
use pollux_abi::command::Direction;
use pollux_packet::esp::{TRAILER_LEN, Trailer};
use pollux_packet::ipv4::Ipv4;
use pollux_packet::{IpVersion, Meta, Packet, Role, Verdict, icmp};

use super::select::complete_checksum;
use crate::engine::Engine;
use crate::mtu::IPV6_LEAST;
use crate::sa::{OutboundSa, flag, place};
use crate::{icmp_error, mark};

/// Whether the packet goes on; if not, it has its verdict: dropped, answered or given back to be fragmented.
/// Takes a hop off what is forwarded and completes half-made checksums.
#[inline]
pub(crate) fn admit(engine: &mut Engine, now_ns: u64, packet: &mut Packet, meta: &mut Meta) -> bool {
    let sa = &engine.sas.outbound.hot[place(meta.sa)];
    match judge(sa, packet, meta) {
        Ok(()) => {
            complete_checksum(engine, packet, meta);
            true
        }
        Err(refusal) => {
            refuse(engine, now_ns, packet, meta, refusal);
            false
        }
    }
}

#[cold]
fn refuse(engine: &mut Engine, now_ns: u64, packet: &mut Packet, meta: &mut Meta, refusal: Refusal) {
    match refusal {
        Refusal::Drop(reason) => {
            meta.drop_for(reason);
            if engine.sas.outbound.hot[place(meta.sa)].flags & (flag::STOPPED | flag::EXHAUSTED) != 0 {
                engine.retell_limit(Direction::Outbound, meta.sa);
            }
        }
        Refusal::TooBig(inner_mtu) => too_big(engine, now_ns, packet, meta, inner_mtu),
        Refusal::Expired => {
            let error = icmp::Error::TimeExceeded;
            icmp_error::answer(engine, now_ns, packet, meta, error, DropReason::TtlExpired);
        }
    }
}

/// Why a packet does not go on.
#[derive(Clone, Copy)]
enum Refusal {
    Drop(DropReason),
    /// Longer than this.
    TooBig(u16),
    Expired,
}

#[inline]
fn judge(sa: &OutboundSa, packet: &mut Packet, meta: &Meta) -> Result<(), Refusal> {
    if let Some(reason) = sa.refusal() {
        return Err(Refusal::Drop(reason));
    }
    if packet.len() > usize::from(sa.inner_mtu) {
        return Err(Refusal::TooBig(sa.inner_mtu));
    }
    let behind =
        Trailer::padding(packet.len(), usize::from(sa.block)) + TRAILER_LEN + usize::from(sa.icv_len);
    if packet.headroom() < sa.front_len() || packet.tailroom() < behind {
        return Err(Refusal::Drop(DropReason::NoHeadroom));
    }
    if meta.role == Role::Lan && !mark::take_hop(packet.data_mut(), meta.flow.version) {
        return Err(Refusal::Expired);
    }
    Ok(())
}

/// IPv4 without DF is given back to be fragmented, where the SA takes fragments: those behind the first
/// show no ports, and the peer would refuse them under selectors that want some. Everything else is
/// answered (RFC 4301 §8.2.1).
fn too_big(engine: &mut Engine, now_ns: u64, packet: &mut Packet, meta: &mut Meta, inner_mtu: u16) {
    let fragmentable = meta.flow.version == IpVersion::V4
        && Ipv4::parse(packet.data()).is_some_and(|header| !header.dont_fragment())
        && inner_mtu >= crate::fragment::MTU_LEAST
        && engine.sas.outbound.selectors.accepts_leaving(place(meta.sa), &meta.flow.without_ports());
    if fragmentable {
        // Of the pieces, none could be completed any more.
        complete_checksum(engine, packet, meta);
        meta.verdict = Verdict::Fragment(inner_mtu);
        engine.counters.fragmented.add(1);
        return;
    }
    let mtu = match meta.flow.version {
        IpVersion::V4 => inner_mtu,
        IpVersion::V6 => inner_mtu.max(IPV6_LEAST),
    };
    icmp_error::answer(engine, now_ns, packet, meta, icmp::Error::TooBig { mtu }, DropReason::TooBig);
}
