//! The Child SA that we ask for, in IKE_AUTH or CREATE_CHILD_SA, and what becomes of it.

use core::net::IpAddr;
use std::sync::Arc;

use pollux_abi::layout::SELECTORS_MAX;
use pollux_abi::{Reqid, Spi, TrafficSelector};

use crate::config::{ChildConfig, SelectorConfig};
use crate::crypto::{KeMethod, Secret};
use crate::endpoint::Turn;
use crate::error::IkeError;
use crate::event::{DownReason, Event, NarrowedBy};
use crate::message::{Payloads, Writer};
use crate::negotiate::{EspAgreement, Proposal, proposal, selector, syntax};
use crate::sa::{ChildSa, DirectionSa, DirectionState, Keys, PacketPair, Path, Phase, lowest_nonce};

/// What was offered.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) config: Arc<ChildConfig>,
    pub(crate) connection: Arc<str>,
    proposals: Vec<Proposal>,
    pub(crate) spi: Spi,
    reqid: Reqid,
    local_ts: Vec<TrafficSelector>,
    remote_ts: Vec<TrafficSelector>,
    in_auth: bool,
    /// The life of the data plane that gave the SPI.
    life: u64,
}

/// Which nonces and which shared secret a Child SA's keys grow from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeymatInputs<'a> {
    pub(crate) keys: &'a Keys,
    pub(crate) nonce_i: &'a [u8],
    pub(crate) nonce_r: &'a [u8],
    pub(crate) shared: Option<&'a Secret>,
}

impl Offer {
    /// An offer with a fresh SPI. In IKE_AUTH there is no key exchange (RFC 7296 §1.2).
    pub(crate) fn new(
        turn: &mut Turn<'_>,
        connection: Arc<str>,
        config: Arc<ChildConfig>,
        path: &Path,
        reqid: Reqid,
        in_auth: bool,
    ) -> Result<Self, IkeError> {
        let spi = turn.inbound_spi()?;
        let proposals = proposals(&config, in_auth);
        let local_ts = selectors(&config.local_ts, path.local.ip());
        let remote_ts = selectors(&config.remote_ts, path.remote.ip());
        Ok(Self {
            config,
            connection,
            proposals,
            spi,
            reqid,
            local_ts,
            remote_ts,
            in_auth,
            life: turn.shared.data_plane_lives,
        })
    }

    /// The same for the successor of a Child SA: it is to carry all that is in use (RFC 7296 §2.9.2).
    #[must_use]
    pub(crate) fn in_place_of(mut self, old: &ChildSa) -> Self {
        for (ours, of_old) in [(&mut self.local_ts, &old.local_ts), (&mut self.remote_ts, &old.remote_ts)] {
            let in_use = selector::in_use(of_old, ours);
            *ours = selector::for_rekey(&in_use, ours);
        }
        self
    }

    /// The same for a packet that other Child SAs leave out: its addresses go first (RFC 7296 §2.9). `false` where the
    /// child's policy is not about it.
    pub(crate) fn for_packet(&mut self, (source, destination): PacketPair) -> bool {
        for (ours, address) in [(&mut self.local_ts, source), (&mut self.remote_ts, destination)] {
            let host = selector::in_use(&[TrafficSelector::host(address)], ours);
            if host.is_empty() {
                return false;
            }
            *ours = selector::for_rekey(&host, ours);
        }
        true
    }

    /// Tells the operator where a Child SA carries less than was offered.
    pub(crate) fn tell_narrowed(&self, turn: &mut Turn<'_>, child: &ChildSa) {
        if selector::covers_all(&child.local_ts, &self.local_ts)
            && selector::covers_all(&child.remote_ts, &self.remote_ts)
        {
            return;
        }
        turn.event(Event::ChildNarrowed {
            connection: self.connection.clone(),
            child: self.config.name.clone(),
            reqid: self.reqid,
            wanted: describe(&self.local_ts, &self.remote_ts),
            carried: describe(&child.local_ts, &child.remote_ts),
            by: NarrowedBy::Peer,
        });
    }

    /// An answer that has no room for the packet that wanted the Child SA.
    pub(crate) fn check_packet(&self, new: &ChildSa, packet: PacketPair) -> Result<(), IkeError> {
        if new.carries(packet) {
            return Ok(());
        }
        Err(IkeError::TsUnacceptable {
            offered: describe(&new.local_ts, &new.remote_ts),
            accepted: format!("what has room for packets from {} to {}", packet.0, packet.1),
            key: format!(
                "the peer's policy for connection.{}.children.{}",
                self.connection, self.config.name
            ),
        })
    }

    /// Whether the Child SA that came of this offer carries all that `old` does, as far as the policy still allows it.
    pub(crate) fn check_successor(&self, new: &ChildSa, old: &ChildSa) -> Result<(), IkeError> {
        let holds = |offered: &[TrafficSelector], new: &[TrafficSelector], old: &[TrafficSelector]| {
            selector::covers_all(new, &selector::in_use(old, offered))
        };
        if holds(&self.local_ts, &new.local_ts, &old.local_ts)
            && holds(&self.remote_ts, &new.remote_ts, &old.remote_ts)
        {
            return Ok(());
        }
        let describe = |child: &ChildSa| describe(&child.local_ts, &child.remote_ts);
        Err(IkeError::TsUnacceptable {
            offered: format!("{}, narrower than the Child SA in use, at its rekey", describe(new)),
            accepted: describe(old),
            key: format!(
                "the peer's policy for connection.{}.children.{}",
                self.connection, self.config.name
            ),
        })
    }

    /// Gives back the SPI, unless it has died with its data plane.
    pub(crate) fn release(&self, turn: &mut Turn<'_>) {
        if self.life == turn.shared.data_plane_lives {
            turn.shared.allocator.release(self.spi);
        }
    }

    /// The key exchange method that a value is sent of: the configuration's first.
    pub(crate) fn ke_method(&self) -> Option<KeMethod> {
        self.proposals.iter().find_map(|proposal| proposal.ke_methods().next())
    }

    /// Whether the peer may ask for this method instead.
    pub(crate) fn offers(&self, method: KeMethod) -> bool {
        proposal::offers_ke(&self.proposals, method)
    }

    /// SA payload.
    pub(crate) fn write_sa(&self, writer: &mut Writer) {
        let spi = self.spi.to_be_bytes();
        writer.sa(&proposal::offer(&self.proposals, &spi));
    }

    /// TSi and TSr.
    pub(crate) fn write_ts(&self, writer: &mut Writer) {
        writer.ts_i(&self.local_ts).ts_r(&self.remote_ts);
    }

    /// What was chosen of our proposals.
    pub(crate) fn agreement(&self, payloads: &Payloads<'_>) -> Result<(EspAgreement, Spi), IkeError> {
        let sa = payloads.sa.as_ref().ok_or(IkeError::PeerMisbehaved { what: "a reply without SA" })?;
        let chosen = proposal::accept_esp(&self.proposals, sa, self.in_auth)
            .ok_or(IkeError::PeerMisbehaved { what: "it chose an ESP proposal that was not offered" })?;
        let spi = chosen.esp_spi().ok_or(IkeError::PeerMisbehaved { what: "its SPI is a reserved one" })?;
        Ok((chosen.agreement, spi))
    }

    /// The Child SA that the peer agreed to; nothing is installed yet.
    pub(crate) fn accept(
        &self,
        turn: &mut Turn<'_>,
        path: &Path,
        payloads: &Payloads<'_>,
        keymat_inputs: KeymatInputs<'_>,
    ) -> Result<ChildSa, IkeError> {
        if self.life != turn.shared.data_plane_lives {
            return Err(IkeError::DataPlane { what: "it died meanwhile".to_owned() });
        }
        let (agreement, peer_spi) = self.agreement(payloads)?;
        let missing = IkeError::PeerMisbehaved { what: "a reply without traffic selectors" };
        let (Some(ts_i), Some(ts_r)) = (&payloads.ts_i, &payloads.ts_r) else { return Err(missing) };
        let local_ts: Vec<_> = ts_i.selectors().take(SELECTORS_MAX + 1).collect();
        let remote_ts: Vec<_> = ts_r.selectors().take(SELECTORS_MAX + 1).collect();
        let fits = |ts: &[TrafficSelector], offered: &[TrafficSelector]| {
            (1..=SELECTORS_MAX).contains(&ts.len()) && selector::is_narrowed(offered, ts.iter().copied())
        };
        if !fits(&local_ts, &self.local_ts) || !fits(&remote_ts, &self.remote_ts) {
            return Err(IkeError::PeerMisbehaved {
                what: "it chose traffic selectors that were not offered",
            });
        }
        let provider = turn.shared.provider.clone();
        let KeymatInputs { keys, nonce_i, nonce_r, shared } = keymat_inputs;
        let (of_i, of_r) = keys.child(&*provider, agreement.suite, shared, nonce_i, nonce_r)?;
        let mut half = |spi, keys| DirectionSa {
            id: turn.shared.allocator.sa_id(),
            spi,
            state: DirectionState::Held(keys),
        };
        Ok(ChildSa {
            connection: self.connection.clone(),
            config: self.config.clone(),
            reqid: self.reqid,
            suite: agreement.suite,
            esn: agreement.esn,
            inbound: half(self.spi, of_r),
            outbound: half(peer_spi, of_i),
            outer: path.outer(),
            local_ts,
            remote_ts,
            initiator: true,
            origin: (true, lowest_nonce(nonce_i, nonce_r)),
            lowest: lowest_nonce(nonce_i, nonce_r),
            phase: Phase::Opening,
            replaces: None,
            replaced_by: None,
            had_successor: false,
            redundant: false,
            give_up_at: None,
            rekey_at: None,
            expire_at: None,
            down: DownReason::Operator,
            told: false,
        })
    }

    /// What the peer refused, as the operator reads it.
    pub(crate) fn refused(&self, notify: crate::message::NotifyType) -> IkeError {
        let key = |key: &str| format!("connection.{}.children.{}.{key}", self.connection, self.config.name);
        let (offered, key) = if notify == crate::message::NotifyType::TsUnacceptable {
            (describe(&self.local_ts, &self.remote_ts), key("local_ts and remote_ts"))
        } else {
            (syntax::describe(&self.proposals), key("esp_proposals"))
        };
        IkeError::PeerRefused { notify, offered, key }
    }
}

/// Both sides of a Child SA as the operator reads them.
pub(crate) fn describe(local: &[TrafficSelector], remote: &[TrafficSelector]) -> String {
    let (local, remote) = (local.iter().copied(), remote.iter().copied());
    format!("{} === {}", selector::describe(local), selector::describe(remote))
}

/// ESP proposals for an exchange.
pub(crate) fn proposals(config: &ChildConfig, in_auth: bool) -> Vec<Proposal> {
    if in_auth {
        config.proposals.iter().map(Proposal::without_ke).collect()
    } else {
        config.proposals.clone()
    }
}

/// Configured selectors, with the outer address for dynamic ones.
pub(crate) fn selectors(list: &[SelectorConfig], dynamic: IpAddr) -> Vec<TrafficSelector> {
    let selector = |selector: &SelectorConfig| match selector {
        SelectorConfig::Fixed(selector) => *selector,
        SelectorConfig::Dynamic => TrafficSelector::host(dynamic),
    };
    list.iter().map(selector).take(SELECTORS_MAX).collect()
}
