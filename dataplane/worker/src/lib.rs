//! The packet path of one core, from burst in to burst out.
//!
//! Not in this crate: an opinion on where packets come from. Ports may be AF_XDP sockets, memory or files;
//! routes, neighbours and policies come from the housekeeper, SAs from control's ring. So the whole path
//! runs unprivileged, in tests and in benchmarks.
//!
//! ```text
//!   control ══ ring k ══► control.rs ──► engine          housekeeper ── rtrb ──► control.rs ──► fib, ports
//!                                          │
//!   port ─rx─► classify ─► engine.inbound / outbound ─► settle ─► forward ─► port ─tx─►
//!                                          │              │          └ waiting for a neighbour
//!   other workers ◄── handover.rs ◄────────┘              └ dropped, counted, frame back
//! ```
//!
//! Promises: a round allocates nothing, takes no lock, and makes no system call but the ports' kicks and a
//! doorbell for a worker that sleeps. Every queue is bounded; whatever finds one full is dropped and counted,
//! except frames on their way home, which always have room.
#![forbid(unsafe_code)]

mod control;
mod early;
pub mod forward;
pub mod handover;
pub mod housekeeping;
mod idle;
mod ports;
mod round;
mod run;
mod stall;
pub mod stats;
mod worker;

pub use idle::Idle;
pub use ports::PortEntry;
pub use run::monotonic_ns;
pub use worker::{Worker, WorkerParts};
