//! Two IKE endpoints in memory, and what it takes to run them: for the core's own tests, for the simulation
//! and for the benchmark.
//!
//! ```text
//!   configs ─► Pair ─┬─ pollux_ike::Endpoint ×2     Null or a real provider, Seeded or real randomness
//!                    ├─ network: a function of each datagram
//!                    └─ data planes: tables that say yes at once, or never
//! ```
//!
//! Not in this crate: sockets, threads, a clock. It provides NO SECURITY and is for tests alone.
#![forbid(unsafe_code)]

mod configs;
mod null_crypto;
mod pair;
mod random;
mod spis;

pub use configs::{address, child, config, config_of, connection, shared_key};
pub use null_crypto::NullCrypto;
pub use pair::{Network, Pair, Table};
pub use random::Seeded;
pub use spis::Counting;
