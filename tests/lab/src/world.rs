//! The topology of the demo and of most tests: two gateways, a host behind each, an internet between.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::netns::{End, Netns, veth_with_queues};

/// Which addresses a test uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Five namespaces in a row, and a folder for files; all gone when dropped.
///
/// ```text
/// caller eth0 ── lan0 gateway-a wan0 ── a0 internet b0 ── wan0 gateway-b lan0 ── eth0 callee
/// ```
#[derive(Debug)]
pub struct World {
    /// Unique to this run; prefix of every namespace.
    pub tag: String,
    /// The host behind gateway a.
    pub caller: Netns,
    /// Gateway a.
    pub gateway_a: Netns,
    /// A router between the gateways.
    pub internet: Netns,
    /// Gateway b.
    pub gateway_b: Netns,
    /// The host behind gateway b.
    pub callee: Netns,
    folder: PathBuf,
    keep: bool,
}

/// Which gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The caller's.
    A,
    /// The callee's.
    B,
}

impl Side {
    /// `a` or `b`.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The other side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The gateway's outer address.
    pub fn outer(self, family: Family) -> IpAddr {
        let text = match (self, family) {
            (Self::A, Family::V4) => "192.0.2.2",
            (Self::B, Family::V4) => "198.51.100.2",
            (Self::A, Family::V6) => "2001:db8:a::2",
            (Self::B, Family::V6) => "2001:db8:b::2",
        };
        parse(text)
    }

    /// The host behind the gateway.
    pub fn host(self, family: Family) -> IpAddr {
        let text = match (self, family) {
            (Self::A, Family::V4) => "10.1.0.10",
            (Self::B, Family::V4) => "10.2.0.10",
            (Self::A, Family::V6) => "fd01::10",
            (Self::B, Family::V6) => "fd02::10",
        };
        parse(text)
    }

    /// The gateway's own address on the inside.
    pub fn inside(self, family: Family) -> IpAddr {
        let text = match (self, family) {
            (Self::A, Family::V4) => "10.1.0.1",
            (Self::B, Family::V4) => "10.2.0.1",
            (Self::A, Family::V6) => "fd01::1",
            (Self::B, Family::V6) => "fd02::1",
        };
        parse(text)
    }

    /// The prefix behind the gateway.
    pub fn prefix(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::A, Family::V4) => "10.1.0.0/16",
            (Self::B, Family::V4) => "10.2.0.0/16",
            (Self::A, Family::V6) => "fd01::/64",
            (Self::B, Family::V6) => "fd02::/64",
        }
    }
}

fn parse(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| unreachable!("`{text}` is an address"))
}

impl World {
    /// Makes the namespaces, links, addresses and routes.
    ///
    /// # Errors
    /// If `ip` refuses; what was made by then is removed.
    pub fn new(name: &str) -> Result<Self> {
        Self::with_queues(name, 1)
    }

    /// As [`Self::new`], with so many queues on every device.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_queues(name: &str, queues: u16) -> Result<Self> {
        let tag = format!("{name}{}", std::process::id());
        let folder = std::env::temp_dir().join(format!("pollux-{tag}"));
        std::fs::create_dir_all(&folder)?;
        let world = Self {
            caller: Netns::new(&tag, "caller")?,
            gateway_a: Netns::new(&tag, "gwa")?,
            internet: Netns::new(&tag, "inet")?,
            gateway_b: Netns::new(&tag, "gwb")?,
            callee: Netns::new(&tag, "callee")?,
            tag,
            folder,
            keep: false,
        };
        world.connect(queues)?;
        Ok(world)
    }

    /// Where the run's files are: logs, captures, configurations.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves the files behind when dropped.
    pub fn keep_files(&mut self) {
        self.keep = true;
    }

    /// One side's gateway.
    pub fn gateway(&self, side: Side) -> &Netns {
        match side {
            Side::A => &self.gateway_a,
            Side::B => &self.gateway_b,
        }
    }

    /// One side's host.
    pub fn host(&self, side: Side) -> &Netns {
        match side {
            Side::A => &self.caller,
            Side::B => &self.callee,
        }
    }

    fn connect(&self, queues: u16) -> Result<()> {
        for (side, outside, outer_router) in [
            (Side::A, "a0", ["192.0.2.1/24", "2001:db8:a::1/64"]),
            (Side::B, "b0", ["198.51.100.1/24", "2001:db8:b::1/64"]),
        ] {
            let lengths = [(Family::V4, 24), (Family::V6, 64)];
            let list = |address: fn(Side, Family) -> IpAddr| {
                lengths.map(|(family, len)| format!("{}/{len}", address(side, family)))
            };
            let (host, inside, outer) = (list(Side::host), list(Side::inside), list(Side::outer));
            veth_with_queues(
                End { netns: self.host(side), device: "eth0", addresses: &[&host[0], &host[1]] },
                End { netns: self.gateway(side), device: "lan0", addresses: &[&inside[0], &inside[1]] },
                queues,
            )?;
            veth_with_queues(
                End { netns: self.gateway(side), device: "wan0", addresses: &[&outer[0], &outer[1]] },
                End { netns: &self.internet, device: outside, addresses: &outer_router },
                queues,
            )?;
            let gateway = self.gateway(side);
            gateway.forward()?;
            for (family, router) in [(Family::V4, outer_router[0]), (Family::V6, outer_router[1])] {
                let router = router.split('/').next().unwrap_or_default();
                gateway.ip(&format!("route add default via {router}"))?;
                self.host(side).ip(&format!("route add default via {}", side.inside(family)))?;
            }
        }
        self.internet.forward()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
