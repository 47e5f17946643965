//! The XDP program of Pollux and its loader: which frames go to the workers, which to the kernel, which nowhere.
//!
//! ```text
//!   bpf/steer.bpf.c ──build.rs, clang──► object ──aya──► kernel ◄── maps ◄── Steering
//!
//!   Steering::open ── set_local_addrs, set_protected, add_port, set_xsk ── attach ── verdicts
//!        │ bpffs (bpffs::mount_own): v<ABI>/<map>, v<ABI>/link-<ifindex>
//!        └ outlives the process: the program goes on steering and, without sockets, dropping
//! ```
//!
//! Fill the maps before [`Steering::attach`]: from then on frames are judged by them. A restarted data plane
//! opens the same maps, brings them up to date and replaces the program through the pinned link, all without
//! a moment in which a protected packet could pass. [`Steering::remove_all`] is the way back.
//!
//! This crate knows no packet formats beyond what the program needs, no netlink, and no AF_XDP but the
//! descriptor it puts into the XSKMAP. Calls block for system calls only; none belongs on a packet path.
//! They need `CAP_BPF`, `CAP_NET_ADMIN` and, for mounting, `CAP_SYS_ADMIN`; Linux 5.10 or later, 5.18 for an MTU
//! that takes several buffers.
#![deny(unsafe_code)]

mod abi;
mod attach;
pub mod bpffs;
mod error;
mod ethtool;
mod guard;
mod maps;
mod object;
mod pairs;
mod protect;
mod steering;
mod test_run;
mod verdicts;

pub use abi::{
    ABI_VERSION, CLASS_WIDE, IPV6_HEADERS_MAX, LOCAL_INSIDE, Mode, PORT_SLOTS, QUEUES_PER_PORT, Role,
    SPI_TOP_BITS, SPI_TOP_SHIFT, VLAN_TAGS_MAX,
};
pub use attach::{Attached, ModeChoice};
pub use error::SteerError;
pub use ethtool::{Channels, channels};
pub use guard::{Exit, Guard, GuardCount, GuardLayer, GuardVerdict, Missing};
pub use ipnet::IpNet;
pub use object::Capacity;
pub use pairs::{CLASS_PAIRS_MAX, is_inside, is_narrow};
pub use steering::{Port, Steering};
pub use test_run::{TestRun, XdpAction};
pub use verdicts::{Disposition, VerdictCount, XdpVerdict};
