//! Marks and counts the media at both ends, with nftables: independent of the gateways and of SIPp.

use anyhow::Result;
use pollux_lab::world::{Side, World};

/// SIPp's media port at the callee; all calls share it.
const RTP: &str = "6000";

/// Packets counted at both ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// RTP packets that left caller and callee.
    pub(crate) rtp_sent: u64,
    /// RTP packets that arrived at callee and caller.
    pub(crate) rtp_received: u64,
    /// UDP datagrams that the hosts refused for a wrong checksum or another error.
    pub(crate) udp_errors: u64,
}

/// Media leave as EF and signalling as CS3, as phones send them, and are counted.
pub(crate) fn prepare(world: &World) -> Result<()> {
    for (side, ours, theirs) in [(Side::A, "dport", "sport"), (Side::B, "sport", "dport")] {
        world.host(side).nft(&format!(
            "table inet media {{
  counter rtp_out {{ }}
  counter rtp_in {{ }}
  chain out {{
    type filter hook output priority 0;
    udp {ours} {RTP} counter name rtp_out
    meta nfproto ipv4 udp {ours} {RTP} ip dscp set ef
    meta nfproto ipv6 udp {ours} {RTP} ip6 dscp set ef
    meta nfproto ipv4 udp dport 5060 ip dscp set cs3
    meta nfproto ipv6 udp dport 5060 ip6 dscp set cs3
  }}
  chain in {{
    type filter hook input priority 0;
    udp {theirs} {RTP} counter name rtp_in
  }}
}}"
        ))?;
    }
    Ok(())
}

/// Reads the counters.
pub(crate) fn counters(world: &World) -> Counters {
    let mut counters = Counters::default();
    for side in [Side::A, Side::B] {
        let host = world.host(side);
        counters.rtp_sent += host.nft_counter("rtp_out");
        counters.rtp_received += host.nft_counter("rtp_in");
        // SIPp binds media ports that it never reads; what overflows there was received all the same.
        let errors = host.snmp("Udp", "InErrors").saturating_sub(host.snmp("Udp", "RcvbufErrors"));
        counters.udp_errors += errors + host.snmp("Udp", "InCsumErrors");
    }
    counters
}
