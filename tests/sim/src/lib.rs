//! Seeded simulation of IKE cores over a hostile network.
#![forbid(unsafe_code)]

pub mod null_crypto;
