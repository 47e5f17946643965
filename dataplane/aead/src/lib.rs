//! AEAD over bursts of ESP packets.

#![deny(unsafe_code)]

mod burst;
mod ct;
mod dispatch;
mod kernel;
mod key;
mod packet;
mod suite;
mod verdict;

pub use burst::{OpenJob, SealJob};
pub use dispatch::{Engine, EngineChoice, EngineError, EngineKind};
pub use key::{Key, KeyError};
pub use suite::{Suite, UnknownSuite};
pub use verdict::Verdict;
