//! The data-plane process: privileges, netlink, the XDP program, and one housekeeping thread beside the
//! workers.
//!
//! Not in this crate: packets. They are `pollux-worker`'s; nothing here is on their path.
//!
//! ```text
//!   main ─► setup ─► threads: worker 0 … n (pollux-worker)
//!             │
//!             └────► house, on the main thread
//!                      ├ netlink     mirror of links, addresses, routes, neighbours; requests
//!                      ├ device      interfaces and their AF_XDP sockets, XDP program (pollux-ebpf)
//!                      ├ locks       kernel routes that keep protected traffic in
//!                      ├ host_port   pollux0
//!                      ├ registry    what control has installed; keys as fingerprints
//!                      ├ query       the statistics socket
//!                      └ sandbox     what is given up once everything is up
//! ```
//!
//! Promises: the housekeeper may block for a system call, a worker never waits for it. Whatever ends the
//! process, protected traffic stays shut; only [`down::down`] opens it.
#![forbid(unsafe_code)]

pub mod affinity;
pub mod close;
pub mod counter_writer;
pub mod device;
pub mod down;
mod guard_at_exit;
pub mod host_port;
pub mod housekeeping;
pub mod locks;
pub mod namespace;
pub mod netlink;
pub mod pairs;
mod patience;
pub mod query;
pub mod registry;
pub mod sandbox;
pub mod setup;
