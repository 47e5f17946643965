//! The vocabulary that both Pollux processes share.
//!
//! Newtypes for ids and numbers, traffic selectors, ESP suites, key material, the slots of the
//! command and event rings, and the one list of drop reasons. This crate has no I/O, no threads, no
//! clock, no allocation on any path that a packet or a ring slot takes, and no `unsafe`.
//!
//! ```text
//!   control process                                   data-plane process
//!   Command ──encode──► CommandSlot ══ ring k ══► decode + validate ──► worker k / housekeeper
//!   Event   ◄─decode─── EventSlot   ══ ring k ══◄ encode ───────────── worker k / housekeeper
//! ```
//!
//! Decoding never panics and never trusts a field: a slot that another process wrote is outside input.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod command;
pub mod counters;
pub mod drop_reason;
pub mod dscp;
pub mod event;
pub mod ids;
pub mod key;
pub mod layout;
pub mod selector;
pub mod seq;
pub mod suite;
mod wire;

pub use checkpoint::Checkpoint;
pub use command::{Command, CommandError, CommandSlot};
pub use counters::{Counter, DropCounters, SaCounters};
pub use drop_reason::DropReason;
pub use dscp::{Dscp, DscpMark, Ecn};
pub use event::{Event, EventSlot, LostThing};
pub use ids::{CoreId, IfIndex, PolicyId, QueueId, Reqid, SaId, SaIndex, Spi, Ticket, WorkerId};
pub use key::{KeyMaterial, wipe_stack};
pub use selector::{PortRange, SelectorPair, Selectors, TrafficSelector};
pub use seq::{Esn, SeqNo};
pub use suite::EspSuite;
