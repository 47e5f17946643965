//! A deterministic simulation of two IKE gateways over a network that drops, duplicates, reorders, delays
//! and corrupts, with data planes that answer late, refuse, forget or die.
//!
//! ```text
//!   seed ─► scenario ─► world ─ clock: the next of all deadlines and arrivals
//!                         ├─ gateway A, B: pollux_ike::Endpoint + data_plane (tables, answers, ESP)
//!                         ├─ network: what becomes of a datagram
//!                         ├─ deeds: what an operator, a power cut or a NAT does
//!                         └─ invariants: what must hold at every moment, and when all is calm again
//! ```
//!
//! One seed is one run, octet for octet: [`run`] with the same [`Scenario`] does the same again. Runs on
//! [`NullCrypto`](pollux_pair::NullCrypto) take milliseconds; [`Cryptography::Real`] takes the gateway's own provider.
//!
//! Not in this crate: sockets, threads, the machine's clock or its randomness.
#![forbid(unsafe_code)]

mod data_plane;
mod deeds;
mod gateway;
mod invariants;
mod network;
mod scenario;
mod world;

pub use scenario::{Cryptography, FaultProfile, Scenario};
pub use world::{Outcome, run};
