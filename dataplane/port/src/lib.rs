//! Ports that bursts come from and go to: AF_XDP sockets, memory, pcap files.
//!
//! Not in this crate: ESP, routing, threads, netlink, BPF. It never allocates after set-up and makes
//! no system call but in [`Port::kick`] and, when asked, [`Port::stats`].
//!
//! ```text
//!   Umem ──partition──► FramePool (one per worker): free list, custody of every frame, ledger
//!                           │ lent for each call
//!     ┌─────────────────────┼──────────────────────────┬───────────────┐
//!   XskPort              MemoryPort                  PcapPort      Fault<P>, Tee<P>
//!   xsk/socket  rx, tx, reclaim, kick                (file in,     loss, duplication, reordering,
//!   xsk/options asked against got                     file out)    corruption; capture
//!   xsk/ring†   four rings over shm's cursors
//!   xsk/syscall† socket options
//!   xsk/umem†   memory, and who has which frame
//! ```
//!
//! Promises: a frame is in one place at any moment. It is free in its home pool, in a ring, or in a
//! [`Packet`]; [`FramePool`] keeps custody of the first two and moves the third in and out by value, and
//! turns back what does not add up. Free + rings + in hand = total, summed over all pools.
#![deny(unsafe_code)]

pub mod fault;
pub mod memory;
pub mod pcap;
pub mod tee;
pub mod xsk;

mod port;

pub use fault::{Fault, FaultRates};
pub use memory::MemoryPort;
pub use pcap::PcapPort;
pub use port::{CopyMode, Port, PortInfo, PortState, PortStats, Requested};
pub use tee::Tee;
pub use xsk::frames::{FramePool, Ledger};
pub use xsk::options::{BusyPoll, ModeChoice, RingSizes, XskConfig};
pub use xsk::socket::{XskError, XskPort};
pub use xsk::umem::{Umem, UmemConfig, UmemError, UmemInfo};

#[doc(no_inline)]
pub use pollux_packet::{Burst, Meta, Packet};
