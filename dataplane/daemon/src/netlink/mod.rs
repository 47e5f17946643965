//! The kernel's links, addresses, routes and neighbours: read, followed and, for what is ours, written.
//!
//! Blocking requests go over [`Rtnl`]; notifications arrive at [`Follower`], which the housekeeping
//! thread polls. [`mirror::Mirror`] is the state that both keep up to date.

mod link;
pub mod mirror;
mod neighbour;
mod route;
mod rule;
mod socket;
mod watch;

pub use link::Link;
pub use neighbour::Neighbour;
pub use route::{Hop, KernelRoute, RouteKind};
pub(crate) use route::{LockKind, LockRoute};
pub use rule::{Rule, RuleTarget};
pub use socket::{Follower, NetlinkError, Rtnl};
pub use watch::RuleWatch;
