//! What the loader and the XDP program agree on, as `bpf/abi.h` says it in C. A test compares the two.

use std::fmt;

/// Version of the maps' layout and meaning. It names the pin folder, so that pins of another version are
/// never taken for ours.
pub const ABI_VERSION: u32 = 2;

/// Interfaces that may be ports at the same time.
pub const PORT_SLOTS: u32 = 32;

/// Receive queues per port; frames of a queue beyond are dropped as [`crate::XdpVerdict::DropNoXsk`].
pub const QUEUES_PER_PORT: u32 = 64;

/// Our own SPIs, shifted right by this, are [`SPI_TOP_BITS`].
pub const SPI_TOP_SHIFT: u32 = 30;

/// The bits that our own SPIs begin with.
pub const SPI_TOP_BITS: u32 = 3;

/// Value bit of a local address that lies inside a local selector narrow enough to mean it.
pub const LOCAL_INSIDE: u32 = 1;

/// Bit of a class whose prefix is too short to name anybody (0.0.0.0/0).
pub const CLASS_WIDE: u32 = 0x8000_0000;

/// VLAN tags that the program looks through; a frame with more is dropped.
pub const VLAN_TAGS_MAX: u32 = 4;

/// IPv6 extension headers that the program walks past to find ESP or UDP.
pub const IPV6_HEADERS_MAX: u32 = 8;

/// What an interface is to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// The untrusted side, where ESP comes from.
    Wan = 1,
    /// The protected side.
    Lan = 2,
    /// Our end of `pollux0`, the veth pair to the host's own stack.
    Host = 3,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Wan, Self::Lan, Self::Host];
    /// Rows of the verdict counters: the roles and "no role".
    pub const COUNT: u32 = 4;

    /// The word of the configuration and of the counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wan => "wan",
            Self::Lan => "lan",
            Self::Host => "host",
        }
    }

    const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Wan),
            2 => Some(Self::Lan),
            3 => Some(Self::Host),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The XDP mode that an interface really got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// In the driver, before a socket buffer exists.
    Driver = 1,
    /// In the network stack, on socket buffers.
    Generic = 2,
}

impl Mode {
    /// `driver` or `generic`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The value of map `ports`, `struct port` in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortEntry {
    /// Inode of the network namespace that the ifindex belongs to.
    pub(crate) netns: u32,
    /// Row of the XSKMAP.
    pub(crate) slot: u16,
    /// What the interface is to the gateway.
    pub(crate) role: Role,
    /// How it was attached; `None` until then.
    pub(crate) mode: Option<Mode>,
    /// The interface's MAC address: frames to another unicast address are not ours. Zero: not known.
    pub(crate) mac: [u8; 6],
}

impl PortEntry {
    pub(crate) fn encode(self) -> [u8; 16] {
        let netns = self.netns.to_ne_bytes();
        let slot = self.slot.to_ne_bytes();
        let mode = self.mode.map_or(0, |mode| mode as u8);
        let mut value = [0; 16];
        value[..4].copy_from_slice(&netns);
        value[4..6].copy_from_slice(&slot);
        value[6..8].copy_from_slice(&[self.role as u8, mode]);
        value[8..14].copy_from_slice(&self.mac);
        value
    }

    /// `None` for a value that this loader cannot have written.
    pub(crate) fn decode(value: [u8; 16]) -> Option<Self> {
        let [n0, n1, n2, n3, s0, s1, role, mode, mac @ .., _, _] = value;
        let mode = match mode {
            0 => None,
            1 => Some(Mode::Driver),
            2 => Some(Mode::Generic),
            _ => return None,
        };
        let slot = u16::from_ne_bytes([s0, s1]);
        if u32::from(slot) >= PORT_SLOTS {
            return None;
        }
        Some(Self {
            netns: u32::from_ne_bytes([n0, n1, n2, n3]),
            slot,
            role: Role::from_u8(role)?,
            mode,
            mac,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_entries_survive_a_round_trip_and_refuse_strange_octets() {
        for role in Role::ALL {
            for mode in [None, Some(Mode::Driver), Some(Mode::Generic)] {
                let entry = PortEntry { netns: 0xf000_0123, slot: 31, role, mode, mac: [2, 0, 0, 1, 2, 3] };
                assert_eq!(PortEntry::decode(entry.encode()), Some(entry));
            }
        }
        let good = PortEntry { netns: 7, slot: 0, role: Role::Wan, mode: None, mac: [0; 6] }.encode();
        for (octet, value) in [(4, 32), (6, 0), (6, 4), (7, 3)] {
            let mut bad = good;
            bad[octet] = value;
            assert_eq!(PortEntry::decode(bad), None, "octet {octet} = {value}");
        }
    }
}
