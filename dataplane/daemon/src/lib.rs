//! The data-plane process.
#![forbid(unsafe_code)]

pub mod affinity;
pub mod host_port;
pub mod locks;
pub mod namespace;
pub mod netlink;
