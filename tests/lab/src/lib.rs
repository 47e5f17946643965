//! The lab: network namespaces, gateways as processes, peers and oracles that we did not write.
//!
//! Everything made here undoes itself when dropped: namespaces, links, processes, folders. Nothing here
//! links the data plane or the control plane; both run as the programs that a user runs.
//!
//! ```text
//!   caller ──lan──► gateway a ──wan──► internet ──wan──► gateway b ──lan──► callee
//!  10.1.0.10       10.1.0.1  192.0.2.2         198.51.100.2  10.2.0.1      10.2.0.10
//! ```
#![forbid(unsafe_code)]

pub mod capture;
pub mod command;
pub mod drawn;
pub mod flow;
pub mod gateway;
pub mod huge_pages;
pub mod ike;
pub mod interrupt;
pub mod netns;
pub mod oracle;
pub mod peer;
pub mod process;
pub mod rtp;
pub mod sipp;
pub mod skip;
pub mod tunnel;
pub mod wait;
pub mod world;
