//! What becomes of a datagram on its way.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use pollux_pair::Seeded;

/// How bad the network is. Chances are per mille of a datagram.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NetworkFaults {
    pub(crate) drop: u64,
    pub(crate) duplicate: u64,
    pub(crate) corrupt: u64,
    pub(crate) reflect: u64,
    /// Longest delay beyond the usual one, which is how datagrams overtake each other.
    pub(crate) straggle_ms: u64,
    /// The wire is cut.
    pub(crate) cut: bool,
}

/// A datagram that arrives.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: usize,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) bytes: Vec<u8>,
    /// Whether it comes from the other end, as that has sent it.
    pub(crate) genuine: bool,
}

/// The network, with or without a NAT in front of gateway 0.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) faults: NetworkFaults,
    nat: bool,
    /// What the NAT adds to ports now.
    mapping: u16,
    addresses: [IpAddr; 2],
    rng: Seeded,
}

/// Outer addresses of the gateways.
const V4: [IpAddr; 2] = [
    IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(core::net::Ipv4Addr::new(198, 51, 100, 2)),
];
const V6: [IpAddr; 2] = [
    IpAddr::V6(core::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1)),
    IpAddr::V6(core::net::Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2)),
];

/// Outer addresses of the gateways, in one family or the other.
pub(crate) const fn addresses(v6: bool) -> [IpAddr; 2] {
    if v6 { V6 } else { V4 }
}
/// What gateway 0 looks like behind its NAT.
pub(crate) const NAT: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(203, 0, 113, 9));
/// What the NAT adds to ports at first,
const NAT_PORTS: u16 = 20_000;
/// and so much more after each time that it has forgotten its mappings.
const NAT_STEP: u16 = 6_000;
/// The last one that leaves room for port 4500.
const NAT_PORTS_MAX: u16 = NAT_PORTS + 6 * NAT_STEP;

impl Network {
    pub(crate) const fn new(rng: Seeded, nat: bool, v6: bool) -> Self {
        Self {
            faults: NetworkFaults {
                drop: 0,
                duplicate: 0,
                corrupt: 0,
                reflect: 0,
                straggle_ms: 0,
                cut: false,
            },
            nat,
            mapping: NAT_PORTS,
            addresses: addresses(v6),
            rng,
        }
    }

    /// The usual way through, for ESP too.
    pub(crate) fn delay(&mut self) -> Duration {
        Duration::from_micros(self.rng.between(5_000, 25_000))
    }

    /// The NAT forgets its mappings: what gateway 0 sends comes from other ports from now on, and nothing reaches it at
    /// the old ones.
    pub(crate) const fn rebind(&mut self) {
        self.mapping = if self.mapping < NAT_PORTS_MAX { self.mapping + NAT_STEP } else { NAT_PORTS };
    }

    /// Copies of a datagram that arrive, and when.
    pub(crate) fn carry(
        &mut self,
        from: usize,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Vec<(Duration, Arrival)> {
        let faults = self.faults;
        let mut arrivals = Vec::new();
        if faults.cut {
            return arrivals;
        }
        let copies = 1 + u64::from(self.rng.per_mille(faults.duplicate));
        for _ in 0..copies {
            if self.rng.per_mille(faults.drop) {
                continue;
            }
            let straggle = Duration::from_millis(self.rng.below(faults.straggle_ms));
            let delay = self.delay() + straggle;
            let mut bytes = bytes.to_vec();
            let genuine = !self.rng.per_mille(faults.corrupt);
            if !genuine {
                self.corrupt(&mut bytes);
            }
            if self.rng.per_mille(faults.reflect) {
                let arrival = Arrival { at: from, local, remote, bytes: bytes.clone(), genuine: false };
                arrivals.push((delay, arrival));
            }
            if let Some((to_local, seen)) = self.translate(from, local, remote) {
                arrivals
                    .push((delay, Arrival { at: 1 - from, local: to_local, remote: seen, bytes, genuine }));
            }
        }
        arrivals
    }

    /// Destination and source as the other end sees them; `None` where nobody is there. Port 0: plain ESP, for which
    /// this NAT has no mapping.
    pub(crate) fn translate(
        &self,
        from: usize,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Option<(SocketAddr, SocketAddr)> {
        if from == 0 {
            let through = !self.nat || local.port() != 0;
            let seen = if self.nat { SocketAddr::new(NAT, local.port() + self.mapping) } else { local };
            return (through && remote.ip() == self.addresses[1]).then_some((remote, seen));
        }
        if self.nat {
            let port = remote.port().checked_sub(self.mapping)?;
            return (remote.ip() == NAT && port < NAT_STEP)
                .then_some((SocketAddr::new(self.addresses[0], port), local));
        }
        (remote.ip() == self.addresses[0]).then_some((remote, local))
    }

    fn corrupt(&mut self, bytes: &mut Vec<u8>) {
        match self.rng.below(4) {
            0 => {
                let len = self.rng.below(bytes.len() as u64 + 1);
                bytes.truncate(usize::try_from(len).unwrap_or(0));
            }
            1 => bytes.extend_from_slice(&self.rng.draw().to_be_bytes()),
            _ => {
                let at = usize::try_from(self.rng.below(bytes.len() as u64)).unwrap_or(0);
                if let Some(octet) = bytes.get_mut(at) {
                    *octet ^= 1 << self.rng.below(8);
                }
            }
        }
    }
}
