//! `pollux0`: the veth pair between the workers and the gateway's own stack.
//!
//! The kernel's end is `pollux0`; our end carries the XDP program and the workers' sockets. Neither end
//! speaks ARP: there is nobody to ask, and a frame goes to whatever is at the other end.

use std::fs;
use std::io;
use std::path::PathBuf;

use pollux_abi::IfIndex;
use thiserror::Error;

use crate::netlink::{Link, NetlinkError, Rtnl};

/// The kernel's end.
pub const NAME: &str = "pollux0";
/// Our end.
pub const OUR_END: &str = "pollux0-port";

/// The veth pair as it is.
#[derive(Clone, Debug)]
pub struct HostPort {
    /// The kernel's end.
    pub kernel: Link,
    /// Our end.
    pub ours: Link,
    /// What could not be set, one line each.
    pub remarks: Vec<String>,
}

/// Why there is no host port.
#[derive(Debug, Error)]
pub enum HostPortError {
    /// A netlink request failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The pair was made and is not there.
    #[error("{NAME} and {OUR_END} were made, but are not there: something else removes them")]
    Vanished,
}

impl HostPort {
    /// Makes the pair with `queues` queues and `mtu` octets in the calling thread's network namespace, or
    /// takes over the one of an earlier life.
    pub fn ensure(rtnl: &mut Rtnl, queues: u32, mtu: u32) -> Result<Self, HostPortError> {
        match (rtnl.link_named(NAME)?, rtnl.link_named(OUR_END)?) {
            (Some(kernel), Some(ours)) if kernel.queues == queues && ours.queues == queues => {}
            (kernel, ours) => {
                for stale in kernel.into_iter().chain(ours) {
                    // The second end has gone with the first.
                    match rtnl.delete_link(stale.index) {
                        Err(error) if error.is_missing() => {}
                        other => other?,
                    }
                }
                rtnl.create_veth(NAME, OUR_END, queues)?;
            }
        }
        let remarks = settings().filter_map(|(path, value)| set(&path, value).err()).collect();
        let (Some(kernel), Some(ours)) = (rtnl.link_named(NAME)?, rtnl.link_named(OUR_END)?) else {
            return Err(HostPortError::Vanished);
        };
        rtnl.set_link_up(ours.index, mtu, false)?;
        rtnl.set_link_up(kernel.index, mtu, false)?;
        Ok(Self { kernel: Link { mtu, ..kernel }, ours: Link { mtu, ..ours }, remarks })
    }

    /// The kernel's end, for routes.
    pub fn kernel_index(&self) -> IfIndex {
        self.kernel.index
    }

    /// Puts back what others have changed of the two ends' settings; how many there were.
    pub fn restore_settings() -> u32 {
        let differs =
            |path: &PathBuf, value: &str| fs::read_to_string(path).is_ok_and(|has| has.trim() != value);
        let restored = settings().filter(|(path, value)| differs(path, value) && set(path, value).is_ok());
        u32::try_from(restored.count()).unwrap_or(u32::MAX)
    }

    /// Whether this interface is the kernel's end.
    pub fn is_kernel_end(name: &str) -> bool {
        name == NAME
    }

    /// Removes the pair; none is fine.
    pub fn remove(rtnl: &mut Rtnl) -> Result<(), NetlinkError> {
        match rtnl.link_named(NAME)? {
            Some(link) => rtnl.delete_link(link.index),
            None => Ok(()),
        }
    }
}

/// What the kernel must know of the two ends. A packet from a protected network comes out of `pollux0`
/// though the way back may lead elsewhere, so that the strict reverse-path filter has to be off there; and
/// what the XDP program leaves alone at our end must not be forwarded again.
fn settings() -> impl Iterator<Item = (PathBuf, &'static str)> {
    let v4 = |device: &str, key: &str| PathBuf::from(format!("/proc/sys/net/ipv4/conf/{device}/{key}"));
    let v6 = |device: &str, key: &str| PathBuf::from(format!("/proc/sys/net/ipv6/conf/{device}/{key}"));
    [
        (v4(NAME, "rp_filter"), "2"),
        (v6(NAME, "accept_ra"), "0"),
        (v6(NAME, "addr_gen_mode"), "1"),
        (v4(OUR_END, "forwarding"), "0"),
        (v6(OUR_END, "disable_ipv6"), "1"),
    ]
    .into_iter()
}

fn set(path: &PathBuf, value: &str) -> Result<(), String> {
    match fs::write(path, value) {
        // A kernel without IPv6 has no such files, and needs none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{} = {value}: {error}", path.display())),
        Ok(()) => Ok(()),
    }
}
