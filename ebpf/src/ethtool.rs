//! What ethtool's ioctls say and set: receive offloads that merge packets, and channels.
//!
//! With merged packets generic XDP would see frames larger than any buffer and drop them, and TCP would stall (driver
//! mode switches them off by itself).
#![allow(unsafe_code, reason = "SIOCETHTOOL takes a pointer inside a structure")]

use std::ffi::c_char;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, socket};

/// An offload that ethtool's older ioctls switch.
struct Offload {
    /// The word of `ethtool -K`.
    name: &'static str,
    read: u32,
    write: u32,
    /// The bit of the value that means it.
    bit: u32,
}

/// Numbers from linux/ethtool.h: `ETHTOOL_{G,S}GRO`, `ETHTOOL_{G,S}FLAGS` with `ETH_FLAG_LRO`.
const MERGING: [Offload; 2] = [
    Offload { name: "gro", read: 0x2b, write: 0x2c, bit: 1 },
    Offload { name: "lro", read: 0x25, write: 0x26, bit: 1 << 15 },
];

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

/// Commands of SIOCETHTOOL and the structure that each of them reads and writes.
trait Command {}
impl Command for EthtoolValue {}
impl Command for EthtoolChannels {}

/// `ETHTOOL_GCHANNELS`.
const GET_CHANNELS: u32 = 0x3c;

/// Queues that an interface receives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// How many are active: the NIC spreads what it receives over these.
    pub active: u32,
    /// The word of `ethtool -L` that sets their number: `combined`, or `rx` where they are apart from the sending ones.
    pub word: &'static str,
}

/// The channels of an interface of the calling thread's network namespace; `None` where its driver has none.
///
/// # Errors
/// The kernel's, if there is no such interface.
pub fn channels(name: &str) -> io::Result<Option<Channels>> {
    let control = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut channels = EthtoolChannels { command: GET_CHANNELS, ..EthtoolChannels::default() };
    match ask(&control, name, &mut channels) {
        Ok(()) => Ok(Some(Channels {
            active: channels.rx_count.saturating_add(channels.combined_count),
            word: if channels.max_combined > 0 { "combined" } else { "rx" },
        })),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Switches off what merges packets on an interface of the calling thread's network namespace. Returns the
/// offloads that were on. The setting outlives the process, as after `ethtool -K`.
pub(crate) fn switch_off_merging(name: &str) -> io::Result<Vec<&'static str>> {
    let control = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut switched = Vec::new();
    for offload in &MERGING {
        let value = match ethtool(&control, name, offload.read, 0) {
            Ok(value) => value,
            // A device that cannot say has none.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => continue,
            Err(error) => return Err(error),
        };
        if value & offload.bit != 0 {
            ethtool(&control, name, offload.write, value & !offload.bit)?;
            switched.push(offload.name);
        }
    }
    Ok(switched)
}

fn ethtool(control: &OwnedFd, name: &str, command: u32, data: u32) -> io::Result<u32> {
    let mut value = EthtoolValue { command, data };
    ask(control, name, &mut value)?;
    Ok(value.data)
}

fn ask<C: Command>(control: &OwnedFd, name: &str, command: &mut C) -> io::Result<()> {
    let mut request = libc::ifreq {
        ifr_name: interface_name(name)?,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: core::ptr::from_mut(command).cast() },
    };
    // SAFETY: `control` is an open socket, for which the kernel takes SIOCETHTOOL with a `struct ifreq`: `request`
    // is one, ends its name in a zero, and lives until the call returns. Its pointer leads to `command`, which lives
    // as long, is written by nobody else meanwhile, and has the layout that the commands of this module read and
    // write (`struct ethtool_value`, `struct ethtool_channels`): only these two are a `Command`.
    let disposition = unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if disposition < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The name as the kernel wants it: 15 octets at most, zeros behind.
fn interface_name(name: &str) -> io::Result<[c_char; libc::IFNAMSIZ]> {
    let mut octets = [0; libc::IFNAMSIZ];
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` is no interface name")));
    }
    for (octet, byte) in octets.iter_mut().zip(name.bytes()) {
        *octet = c_char::from_ne_bytes([byte]);
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_fit_are_refused_before_the_kernel_sees_them() {
        assert!(interface_name("").is_err());
        assert!(interface_name("sixteen-octets-x").is_err());
        let fifteen = interface_name("fifteen-octetsx").expect("fits with its zero");
        assert_eq!(fifteen[15], 0);
    }

    #[test]
    fn the_loopback_has_no_channels() {
        assert_eq!(channels("lo").expect("it is there"), None);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let error = switch_off_merging("nothing-here").expect_err("no such device");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        let error = channels("nothing-here").expect_err("no such device");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
