//! The packet path of one core, from burst in to burst out.
#![forbid(unsafe_code)]

pub mod forward;
