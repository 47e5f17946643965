//! The guard's verdicts, in the order of `bpf/guard_verdicts.h`.

use std::fmt;

/// Where the guard looks at a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum GuardLayer {
    /// POSTROUTING of netfilter: what the kernel's IP sends and forwards.
    Netfilter = 0,
    /// The egress of each interface (TCX): everything that passes the queueing discipline.
    Egress = 1,
}

impl GuardLayer {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Netfilter, Self::Egress];
    /// How many there are.
    pub const COUNT: u32 = 2;

    /// The word for the operator.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Netfilter => "netfilter",
            Self::Egress => "egress",
        }
    }
}

impl fmt::Display for GuardLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the guard decided about a packet of a protected pair. Packets of other pairs are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
#[expect(missing_docs, reason = "text() is the documentation, and tables print it")]
pub enum GuardVerdict {
    PassWorker,
    PassLan,
    PassOwn,
    PassLink,
    PassNd,
    PassDhcp,
    PassIke,
    PassBypass,
    DropClear,
    DropTagDepth,
}

impl GuardVerdict {
    /// Every verdict, in the order of its counters.
    pub const ALL: [Self; 10] = [
        Self::PassWorker,
        Self::PassLan,
        Self::PassOwn,
        Self::PassLink,
        Self::PassNd,
        Self::PassDhcp,
        Self::PassIke,
        Self::PassBypass,
        Self::DropClear,
        Self::DropTagDepth,
    ];

    /// How many there are.
    pub const COUNT: u32 = 10;

    /// The counter's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PassWorker => "guard_worker",
            Self::PassLan => "guard_lan",
            Self::PassOwn => "guard_own",
            Self::PassLink => "guard_link",
            Self::PassNd => "guard_nd",
            Self::PassDhcp => "guard_dhcp",
            Self::PassIke => "guard_ike",
            Self::PassBypass => "guard_bypass",
            Self::DropClear => "guard_clear",
            Self::DropTagDepth => "guard_tag_depth",
        }
    }

    /// One sentence for the operator.
    pub const fn text(self) -> &'static str {
        match self {
            Self::PassWorker => "Sent by a worker, or handed to the kernel by one",
            Self::PassLan => "Out of a lan port, to a local prefix or to the link alone",
            Self::PassOwn => {
                "The gateway's own, where the selectors are too wide to name anybody (0.0.0.0/0)"
            }
            Self::PassLink => "Without a source address, to the link alone",
            Self::PassNd => "Neighbour discovery",
            Self::PassDhcp => "DHCP of the gateway itself",
            Self::PassIke => "IKE from a socket of control",
            Self::PassBypass => "A policy lets it pass in clear",
            Self::DropClear => "Would have left in clear though its pair of prefixes is protected",
            Self::DropTagDepth => "Leaves under more VLAN tags than can be looked through",
        }
    }

    /// Whether the packet was dropped.
    pub const fn is_drop(self) -> bool {
        self as u32 >= Self::DropClear as u32
    }

    pub(super) const fn counter(self, layer: GuardLayer) -> u32 {
        layer as u32 * Self::COUNT + self as u32
    }
}

impl fmt::Display for GuardVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One counter, summed over the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardCount {
    /// Where.
    pub layer: GuardLayer,
    /// What.
    pub verdict: GuardVerdict,
    /// Packets since the map was made; it survives a restart of the data plane.
    pub packets: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_complete_and_in_the_order_of_its_counters() {
        assert_eq!(GuardVerdict::COUNT as usize, GuardVerdict::ALL.len());
        for (place, verdict) in GuardVerdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, place);
            assert!(verdict.name().starts_with("guard_"));
        }
    }
}
