//! What the internet between the gateways sees.

use std::collections::BTreeMap;

use anyhow::Result;
use pollux_lab::capture::{Frame, Kind};
use pollux_lab::world::World;

/// The internet's interface towards gateway a.
pub(crate) const DEVICE: &str = "a0";

/// Frames by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count {
    /// ESP, raw or in UDP.
    pub(crate) esp: u64,
    /// Of these, in UDP.
    pub(crate) in_udp: u64,
    /// IKE.
    pub(crate) ike: u64,
    /// Any other IP packet.
    pub(crate) clear: u64,
    /// ESP packets by outer DSCP.
    pub(crate) dscp: BTreeMap<u8, u64>,
}

/// Sorts a capture.
pub(crate) fn count(frames: &[Frame]) -> Count {
    let mut count = Count::default();
    for frame in frames {
        match frame.kind() {
            kind @ (Kind::Esp | Kind::EspInUdp) => {
                count.esp += 1;
                count.in_udp += u64::from(kind == Kind::EspInUdp);
                let dscp = frame.ip().map_or(0, |ip| ip.traffic_class >> 2);
                *count.dscp.entry(dscp).or_default() += 1;
            }
            Kind::Ike => count.ike += 1,
            Kind::Clear => count.clear += 1,
            Kind::Keepalive | Kind::Neighbour | Kind::Other => {}
        }
    }
    count
}

/// The name of a code point, as operators say it.
pub(crate) fn dscp_name(dscp: u8) -> String {
    match dscp {
        0 => "BE".to_owned(),
        24 => "CS3".to_owned(),
        46 => "EF".to_owned(),
        other => other.to_string(),
    }
}

/// Gateway a's address is translated on its way out.
pub(crate) fn masquerade(world: &World) -> Result<()> {
    world.internet.nft(
        "table ip nat {
  chain post {
    type nat hook postrouting priority 100;
    oifname \"b0\" ip saddr 192.0.2.0/24 masquerade
  }
}",
    )
}
