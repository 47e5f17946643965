//! One turn of the core: the moment, the randomness, and what all IKE SAs share.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pollux_abi::{Reqid, SaId};

use super::claims::Claims;
use super::connection_index::ConnectionIndex;
use super::orphans::Orphans;
use super::output::{Output, Routes, SaAllocator, SaCommand, Transmit};
use super::peer_reqids::PeerReqids;
use crate::config::Connection;
use crate::crypto::{Provider, Rng};
use crate::error::IkeError;
use crate::event::Event;
use crate::sa::{IkeSa, IkeSaId, InheritedChildren};
use crate::time::Instant;

/// What every IKE SA may use while it works.
pub(crate) struct Shared {
    pub(crate) config: ConnectionIndex,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) allocator: Box<dyn SaAllocator + Send>,
    pub(crate) routes: Box<dyn Routes + Send>,
    pub(crate) out: VecDeque<Output>,
    /// Which IKE SA hears of an SA of the data plane.
    pub(crate) owners: BTreeMap<SaId, IkeSaId>,
    pub(crate) effects: VecDeque<Effect>,
    /// Whether the data plane is there.
    pub(crate) data_plane: bool,
    /// How often it has died: an SPI of an earlier life is worth nothing.
    pub(crate) data_plane_lives: u64,
    pub(crate) ike_ids: u64,
    /// Reqids of peers of wildcard connections.
    pub(crate) reqids: PeerReqids,
    /// IKE SAs by the peer's address, half-open ones included.
    pub(crate) contacts: BTreeMap<IpAddr, u32>,
    /// SAs of an earlier control process.
    pub(crate) orphans: Orphans,
    /// What peers of wildcard connections have in use.
    pub(crate) claims: Claims,
}

impl Shared {
    /// Whether we may say INITIAL_CONTACT: the peer has nothing with us but what is being begun
    /// (RFC 7296 §2.4), neither here nor in the data plane.
    pub(crate) fn is_first_contact(&self, remote: IpAddr) -> bool {
        self.contacts.get(&remote).is_none_or(|&count| count <= 1) && !self.orphans.has_peer(remote)
    }

    /// Counts an IKE SA in.
    pub(crate) fn count_in(&mut self, remote: IpAddr) {
        *self.contacts.entry(remote).or_default() += 1;
    }

    /// Counts an IKE SA out.
    pub(crate) fn count_out(&mut self, remote: IpAddr) {
        if let Some(count) = self.contacts.get_mut(&remote) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.contacts.remove(&remote);
            }
        }
    }
}

/// What a turn of one IKE SA means for others; carried out when the turn is over.
pub(crate) enum Effect {
    /// A new IKE SA exists.
    Adopt(Box<IkeSa>),
    /// The Child SAs and tasks of one IKE SA go to its successor.
    Inherit { to: IkeSaId, inherited: Box<InheritedChildren> },
    /// An IKE SA that a collision made superfluous waits for the peer to delete it.
    Redundant(IkeSaId),
    /// An IKE SA is established: others with the same peer may have to go.
    Established { ike: IkeSaId, initial_contact: bool },
    /// A connection, or one child of it, shall be brought up again.
    Again { connection: Arc<Connection>, child: Option<Arc<str>>, failed: bool },
    /// A child shall be brought up again, but not at once: the peer and we do not understand each other.
    Later { connection: Arc<Connection>, child: Arc<str> },
    /// A connection is up: its failed attempts are forgotten.
    Reached(Arc<Connection>),
    /// The peer of an IKE SA is elsewhere now.
    Moved { ike: IkeSaId, old: SocketAddr, new: SocketAddr },
    /// A new outbound SA of this reqid works: those of an earlier life may go.
    Superseded(Reqid),
}

/// One turn.
pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    pub(crate) rng: &'a mut dyn Rng,
    pub(crate) shared: &'a mut Shared,
}

impl Turn<'_> {
    pub(crate) fn event(&mut self, event: Event) {
        self.shared.out.push_back(Output::Event(event));
    }

    pub(crate) fn transmit(&mut self, transmit: Transmit) {
        self.shared.out.push_back(Output::Transmit(transmit));
    }

    pub(crate) fn sa(&mut self, command: SaCommand) {
        self.shared.out.push_back(Output::Sa(command));
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.shared.effects.push_back(effect);
    }

    pub(crate) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut octets = [0; N];
        self.rng.fill(&mut octets);
        octets
    }

    /// A random number below `bound`, or 0 where that is 0. The slight bias does not matter for jitter.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        u64::from_be_bytes(self.random()).checked_rem(bound).unwrap_or(0)
    }

    /// A random part of `span`.
    pub(crate) fn part_of(&mut self, span: Duration) -> Duration {
        Duration::from_nanos(self.below(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// An inbound SPI; an error where the data plane's table is full or gone.
    pub(crate) fn inbound_spi(&mut self) -> Result<pollux_abi::Spi, IkeError> {
        if !self.shared.data_plane {
            return Err(IkeError::DataPlane { what: "it is down".to_owned() });
        }
        let random = u32::from_be_bytes(self.random());
        self.shared
            .allocator
            .inbound_spi(random)
            .ok_or(IkeError::Limit { what: "the data plane's table is full" })
    }

    pub(crate) fn next_ike_id(&mut self) -> IkeSaId {
        self.shared.ike_ids += 1;
        IkeSaId(self.shared.ike_ids)
    }

    /// A reqid of its own for a peer of a wildcard connection.
    pub(crate) fn next_reqid(&mut self) -> Arc<Reqid> {
        let Shared { reqids, orphans, .. } = &mut *self.shared;
        reqids.give(|reqid| orphans.has_reqid(reqid))
    }
}
