//! The generated test of "fail closed": drawn policies × senders × events, against a capture outside and a twin.
//!
//! A twin world has the same topology, addresses, routes and nftables rules, and no gateway. Every packet is sent in
//! both worlds. The oracle is: a packet of a protected pair leaves as ESP or not at all; any other leaves exactly when it
//! leaves the twin, where the kernel alone decides.

pub mod cells;
pub mod event;
pub mod packet;
pub mod policy;
pub mod run;
pub mod stage;
