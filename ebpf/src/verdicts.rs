//! The verdicts of the XDP program: one per frame, counted by role and CPU, in the order of `bpf/verdicts.h`.

use std::fmt;

use crate::abi::Role;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Handed to the kernel untouched.
    Kernel,
    /// Handed to the worker of its queue.
    Worker,
    /// Dropped by the XDP program.
    Dropped,
}

/// What the XDP program decided about a frame, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
#[expect(missing_docs, reason = "text() is the documentation, and tables print it")]
pub enum XdpVerdict {
    PassNoRole,
    PassNonIp,
    PassMalformed,
    PassOtherHost,
    PassScope,
    PassLocal,
    PassIke,
    PassNatt,
    PassNd,
    PassDhcp,
    PassFragment,
    PassOther,
    XskEsp,
    XskEspUdp,
    XskClear,
    XskProtected,
    XskFragment,
    DropKeepalive,
    DropTagged,
    DropMulticast,
    DropGroupMac,
    DropTagDepth,
    DropNoXsk,
}

impl XdpVerdict {
    /// Every verdict, in the order of its counters.
    pub const ALL: [Self; 23] = [
        Self::PassNoRole,
        Self::PassNonIp,
        Self::PassMalformed,
        Self::PassOtherHost,
        Self::PassScope,
        Self::PassLocal,
        Self::PassIke,
        Self::PassNatt,
        Self::PassNd,
        Self::PassDhcp,
        Self::PassFragment,
        Self::PassOther,
        Self::XskEsp,
        Self::XskEspUdp,
        Self::XskClear,
        Self::XskProtected,
        Self::XskFragment,
        Self::DropKeepalive,
        Self::DropTagged,
        Self::DropMulticast,
        Self::DropGroupMac,
        Self::DropTagDepth,
        Self::DropNoXsk,
    ];

    /// How many there are.
    pub const COUNT: u32 = 23;

    /// The counter's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PassNoRole => "pass_no_role",
            Self::PassNonIp => "pass_non_ip",
            Self::PassMalformed => "pass_malformed",
            Self::PassOtherHost => "pass_other_host",
            Self::PassScope => "pass_scope",
            Self::PassLocal => "pass_local",
            Self::PassIke => "pass_ike",
            Self::PassNatt => "pass_natt",
            Self::PassNd => "pass_nd",
            Self::PassDhcp => "pass_dhcp",
            Self::PassFragment => "pass_fragment",
            Self::PassOther => "pass_other",
            Self::XskEsp => "xsk_esp",
            Self::XskEspUdp => "xsk_esp_udp",
            Self::XskClear => "xsk_clear",
            Self::XskProtected => "xsk_protected",
            Self::XskFragment => "xsk_fragment",
            Self::DropKeepalive => "drop_keepalive",
            Self::DropTagged => "drop_tagged",
            Self::DropMulticast => "drop_multicast",
            Self::DropGroupMac => "drop_group_mac",
            Self::DropTagDepth => "drop_tag_depth",
            Self::DropNoXsk => "drop_no_xsk",
        }
    }

    /// One sentence for the operator.
    pub const fn text(self) -> &'static str {
        match self {
            Self::PassNoRole => "Came in on an interface that is no port of the gateway",
            Self::PassNonIp => "Not IP: ARP, LLDP and the like",
            Self::PassMalformed => "An IP header cut short or wrong, which the kernel refuses",
            Self::PassOtherHost => "To the MAC address of another host",
            Self::PassScope => "Link-local, broadcast, or multicast that no policy protects",
            Self::PassLocal => "For an address of the gateway",
            Self::PassIke => "IKE: UDP 500, or UDP 4500 with the zero marker",
            Self::PassNatt => "UDP 4500 that is neither IKE nor ESP: STUN, DTLS, RTP",
            Self::PassNd => "Unicast neighbour discovery for an address of the gateway",
            Self::PassDhcp => "A DHCP server's answer to the gateway",
            Self::PassFragment => "A fragment for an address of the gateway, reassembled by the kernel",
            Self::PassOther => "Nothing that a policy protects",
            Self::XskEsp => "ESP for the gateway",
            Self::XskEspUdp => "ESP in UDP for the gateway",
            Self::XskClear => "Came in clear though its pair of prefixes is protected",
            Self::XskProtected => "Goes into a tunnel",
            Self::XskFragment => "A fragment that goes into a tunnel",
            Self::DropKeepalive => "NAT keepalive",
            Self::DropTagged => {
                "Protected, but inside a VLAN tag, which no worker reads: use an untagged port"
            }
            Self::DropMulticast => "Multicast inside a protected pair: tunnels carry unicast alone",
            Self::DropGroupMac => "Protected unicast in a frame to a group MAC address",
            Self::DropTagDepth => "More VLAN tags than can be looked through",
            Self::DropNoXsk => {
                "For a worker, but none listens on this queue: the data plane is down or has too few workers"
            }
        }
    }

    /// What becomes of the frame.
    pub const fn disposition(self) -> Disposition {
        let place = self as u32;
        if place >= Self::DropKeepalive as u32 {
            Disposition::Dropped
        } else if place >= Self::XskEsp as u32 {
            Disposition::Worker
        } else {
            Disposition::Kernel
        }
    }

    /// The verdict's place among the counters of `role`.
    pub(crate) const fn counter(self, role: Option<Role>) -> u32 {
        let row = match role {
            None => 0,
            Some(role) => role as u32,
        };
        row * Self::COUNT + self as u32
    }
}

impl fmt::Display for XdpVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One counter, summed over the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictCount {
    /// The port's role; `None` for an interface without one.
    pub role: Option<Role>,
    /// The verdict.
    pub verdict: XdpVerdict,
    /// Frames since the map was made; it survives a restart of the data plane.
    pub frames: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_complete_and_in_the_order_of_its_counters() {
        assert_eq!(XdpVerdict::COUNT as usize, XdpVerdict::ALL.len());
        for (place, verdict) in XdpVerdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, place);
        }
    }

    #[test]
    fn names_begin_with_the_fate() {
        for verdict in XdpVerdict::ALL {
            let prefix = match verdict.disposition() {
                Disposition::Kernel => "pass_",
                Disposition::Worker => "xsk_",
                Disposition::Dropped => "drop_",
            };
            assert!(verdict.name().starts_with(prefix), "{verdict}");
        }
    }

    #[test]
    fn no_two_roles_share_a_counter() {
        let mut seen = std::collections::HashSet::new();
        for role in [None, Some(Role::Wan), Some(Role::Lan), Some(Role::Host)] {
            for verdict in XdpVerdict::ALL {
                let counter = verdict.counter(role);
                assert!(counter < Role::COUNT * XdpVerdict::COUNT);
                assert!(seen.insert(counter));
            }
        }
    }
}
