//! Anti-replay after RFC 6479: checked for a burst before decryption, committed for the burst after it.

mod arena;
mod burst;
mod window;

pub(crate) use arena::WindowArena;
pub(crate) use burst::{commit, count_packet, precheck};
pub(crate) use window::Window;
