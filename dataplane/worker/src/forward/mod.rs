//! From destination to frame: next hop, neighbour, link-layer header.

pub mod fib;
pub mod neighbour;
