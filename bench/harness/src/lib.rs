//! Benchmarks: ours against a peer, interleaved in one run.
//!
//! A claim of speed holds only where both sides ran in the same minutes on the same core: clock, neighbours and
//! caches of a shared machine wander by more than most gains. So contenders take turns in short slices
//! ([`interleave`]), each round gives one ratio for each pair, and the median of those ratios is the claim
//! ([`stats`]). Absolute figures are printed too, with their spread ([`report`]), and say where they were measured
//! ([`run`]).

#![deny(unsafe_code)]

pub mod gateway;
pub mod ike;
pub mod interleave;
pub mod peer;
pub mod pipeline;
pub mod report;
pub mod run;
pub mod stats;
pub mod veth;
