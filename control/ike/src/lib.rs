//! IKEv2 (RFC 7296) without sockets, clock, randomness, runtime or cryptography.
//!
//! [`Endpoint`] is one gateway's IKE: it eats datagrams, timer expiries, commands of the operator and
//! answers of the data plane, and emits datagrams, SA commands and events. Nothing here sends, waits,
//! asks the time or draws a random number: the moment and the randomness are arguments of every verb, and
//! cryptography is behind [`crypto`]. So the same seed gives the same run, octet for octet.
//!
//! ```text
//!  handle_datagram ──► endpoint ─ admission, cookie (no state yet)
//!  handle_timeout          │    ─ demux: SPI ──► sa ─ window, protect, timer, children, liveness
//!  handle_command          │                     │
//!                          │                     └─► exchange ─ one role of one exchange a file, with
//!                          │                           │        states named after what they expect
//!                          ▼                           ▼
//!  poll_output ◄── Transmit, SaCommand, Event    message ─ payloads;  negotiate ─ proposals, selectors
//!  next_deadline
//! ```
//!
//! Promises: no datagram, command or answer panics or loops; every table, queue and list is bounded by
//! [`config::Limits`] or a named constant; an SA that fails leaves nothing behind, here or in the data
//! plane; what an unauthenticated message says changes no SA. Allocation happens per message.
#![forbid(unsafe_code)]

pub mod config;
pub mod crypto;
pub mod endpoint;
pub mod error;
pub mod event;
mod exchange;
pub mod identity;
pub mod message;
pub mod negotiate;
mod sa;
pub mod time;

pub use endpoint::Endpoint;
pub use error::IkeError;
pub use event::Event;
pub use identity::{Identity, IdentityPattern};
pub use sa::IkeSaId;
pub use time::Instant;
