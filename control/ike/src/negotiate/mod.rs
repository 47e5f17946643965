//! Agreement: proposals, traffic selectors, and the strings that configure them.

pub mod proposal;
pub mod selector;
pub mod syntax;

pub use proposal::{Chosen, EspAgreement, IkeAgreement, Proposal};
pub use syntax::SyntaxError;
