//! One gateway's IKE: entry verbs, the table of IKE SAs, outputs.

mod command;
mod output;
mod status;

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

pub use command::{Command, LiveSa, Target};
pub use output::{Output, SaAllocator, SaCommand, SaInstall, Transmit};
pub use status::{ChildStatus, IkeStatus};

use crate::config::EndpointConfig;
use crate::crypto::{Provider, Rng};
use crate::time::Instant;

/// How long the data plane has to answer; what comes later is as good as a refusal.
pub const DATA_PLANE_DEADLINE: Duration = Duration::from_millis(500);

/// All IKE SAs of one gateway.
pub struct Endpoint {
    config: Arc<EndpointConfig>,
    out: VecDeque<Output>,
}

impl Endpoint {
    /// An endpoint without SAs. The data plane counts as down until [`Command::DataPlaneUp`], and
    /// connections with `start_action = start` are brought up then.
    pub fn new(
        config: Arc<EndpointConfig>,
        _provider: Arc<dyn Provider>,
        _allocator: Box<dyn SaAllocator + Send>,
    ) -> Self {
        Self { config, out: VecDeque::new() }
    }

    /// Takes one datagram: the UDP payload without its non-ESP marker.
    ///
    /// `local` is the address and port it came to, `remote` where it came from. Never fails: what is wrong
    /// with it is answered, told as an event, or dropped.
    pub fn handle_datagram(
        &mut self,
        _now: Instant,
        _local: SocketAddr,
        _remote: SocketAddr,
        _bytes: &[u8],
        _rng: &mut dyn Rng,
    ) {
    }

    /// Does what is due. Call it at [`Self::next_deadline`] or later; too early does nothing.
    pub fn handle_timeout(&mut self, _now: Instant, _rng: &mut dyn Rng) {}

    /// Takes one command, answer or event.
    pub fn handle_command(&mut self, _now: Instant, command: Command, _rng: &mut dyn Rng) {
        if let Command::Reload(config) = command {
            self.config = config;
        }
    }

    /// The next thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// All IKE SAs, for `list-sas`.
    pub fn status(&self) -> Vec<IkeStatus> {
        Vec::new()
    }
}
