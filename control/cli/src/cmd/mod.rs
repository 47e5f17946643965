//! One command, or one family of commands, a file.

pub(crate) mod check;
pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod guard;
pub(crate) mod ike;
pub(crate) mod lists;
pub(crate) mod reload;
pub(crate) mod status;
pub(crate) mod up;
