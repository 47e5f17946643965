//! Packet buffers, bursts and header views.
//!
//! What it has: windows over UMEM frames ([`Packet`]), up to 64 of them with what is known of each
//! ([`Burst`], [`Meta`], [`Verdict`]), one file per protocol with its view and builder, checksums, and
//! [`parse::classify`], which turns received frames into packets with a flow key in one pass.
//! Not in this crate: sockets, a kernel, a clock, ESP's cryptography, allocation.
//!
//! ```text
//!   port ──rx_burst──► Burst ──parse::classify──► Meta { class, flow, … } ──► esp, forwarding
//!                       │                             ethernet ipv4 ipv6 udp tcp icmp esp: views, builders
//!                       └ Packet = frame + window     checksum: sums, increments, half-made ones
//! ```
//!
//! Promises: no function here panics on any octets that came from outside, none allocates, none blocks.
//! `unsafe` stands in `hint` alone (prefetch and time-stamp counter).
#![deny(unsafe_code)]

pub mod buf;
pub mod burst;
pub mod checksum;
pub mod esp;
pub mod ethernet;
pub mod flow;
pub mod hint;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod meta;
pub mod parse;
pub mod tcp;
pub mod udp;

pub use buf::{FrameId, Packet};
pub use burst::{BURST_MAX, Burst};
pub use flow::{Flow, IpVersion};
pub use meta::{Class, Fragment, Meta, PortSlot, Role, Verdict};
pub use parse::classify;
