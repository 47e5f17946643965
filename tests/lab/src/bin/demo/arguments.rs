//! The demo's command line.

use clap::Parser;
use pollux_lab::world::Family;

/// Carries real SIP calls with RTP between two Pollux gateways in network namespaces of this machine,
/// over AF_XDP, encrypted, and says what became of them. Leaves nothing behind.
#[derive(Debug, Parser)]
#[command(
    name = "scripts/demo",
    after_help = "Examples:
  sudo ./scripts/demo                      20 calls, IKEv2, ESP over IPv4
  sudo ./scripts/demo --calls 100 --json   more calls, and one JSON object on the last line
  sudo ./scripts/demo --nat                gateway a behind a NAT
  sudo ./scripts/demo --static --udp-encap manual keys, ESP in UDP"
)]
pub(crate) struct Arguments {
    /// How many calls, all at once.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) calls: u32,
    /// ESP in UDP (RFC 3948), also without a NAT.
    #[arg(long)]
    pub(crate) udp_encap: bool,
    /// IPv6 inside and outside.
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Puts gateway a behind a masquerading router.
    #[arg(long, conflicts_with_all = ["ipv6", "static"])]
    pub(crate) nat: bool,
    /// Manual keys from the configuration instead of IKEv2.
    #[arg(long = "static")]
    pub(crate) r#static: bool,
    /// Leaves everything up afterwards, to look around.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Prints the summary as one JSON object on the last line.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Arguments {
    /// The addresses that are used.
    pub(crate) fn family(&self) -> Family {
        if self.ipv6 { Family::V6 } else { Family::V4 }
    }
}
