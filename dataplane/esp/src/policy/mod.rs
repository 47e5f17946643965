//! The Security Policy Database (RFC 4301 §4.4.1), compiled for a flat-cost lookup.

mod compile;
mod lookup;

pub use compile::{CompileError, CompiledPolicies, POLICIES_MAX};
pub(crate) use lookup::{Entry, Match};
