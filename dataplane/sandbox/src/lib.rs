//! What a process of ours gives up once it is set up, so that whoever takes it over finds little to use:
//! capabilities, core dumps, new privileges, system calls.
//!
//! Both daemons use it, each with a list of its own of what it keeps. Not in this crate: an opinion on what a
//! process needs. Everything here works on the calling thread and on what that thread starts afterwards.
#![forbid(unsafe_code)]

pub mod privileges;
pub mod seccomp;

pub use rustix::thread::CapabilitySet;
