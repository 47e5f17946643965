//! Exchanges: one role of one exchange a file, each with a type for what it expects next.

pub(crate) mod auth_initiator;
pub(crate) mod auth_responder;
pub(crate) mod child_answer;
pub(crate) mod child_offer;
pub(crate) mod create_child_initiator;
pub(crate) mod create_child_responder;
pub(crate) mod informational_initiator;
pub(crate) mod informational_responder;
pub(crate) mod init_initiator;
pub(crate) mod init_responder;
pub(crate) mod nat;
pub(crate) mod psk;
pub(crate) mod rekey_ike_initiator;
pub(crate) mod rekey_ike_responder;

use std::sync::Arc;

use crate::config::ChildConfig;
use crate::crypto::{KeMethod, Rng, draw};
use crate::endpoint::Turn;
use crate::error::IkeError;
use crate::message::{Ke, Malformed, Notify, PayloadType, Payloads, Writer};
use crate::sa::{Channel, Established, IkeSaId, Task};
use create_child_initiator::ExpectChildReply;
use informational_initiator::{ExpectDeleteReply, ExpectIkeDeleteReply, ExpectProbeReply};
use rekey_ike_initiator::ExpectIkeReply;

/// Our request that is outstanding on an established IKE SA.
pub(crate) enum Ours {
    /// CREATE_CHILD_SA for a new Child SA, or one in place of another.
    CreateChild(Box<ExpectChildReply>),
    /// CREATE_CHILD_SA for a new IKE SA.
    RekeyIke(Box<ExpectIkeReply>),
    /// DELETE of a Child SA.
    DeleteChild(ExpectDeleteReply),
    /// DELETE of the IKE SA.
    DeleteIke(ExpectIkeDeleteReply),
    /// An empty INFORMATIONAL, or one whose answer does not matter.
    Probe(ExpectProbeReply),
}

impl Ours {
    /// The response came.
    pub(crate) fn on_reply(
        self,
        established: &mut Established,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        payloads: &Payloads<'_>,
    ) {
        match self {
            Self::CreateChild(expect) => expect.on_reply(established, channel, turn, payloads),
            Self::RekeyIke(expect) => (*expect).on_reply(established, channel, turn, payloads),
            Self::DeleteChild(expect) => expect.on_reply(established, channel, turn),
            Self::DeleteIke(expect) => expect.on_reply(established),
            Self::Probe(ExpectProbeReply) => {}
        }
    }

    /// The child that it is about, where it creates one.
    pub(crate) fn creates(&self) -> Option<&Arc<ChildConfig>> {
        match self {
            Self::CreateChild(expect) => Some(expect.config()),
            _ => None,
        }
    }

    /// The response will never come. Returns the IKE SA that inherits, if the peer has made one.
    pub(crate) fn abandon(self, turn: &mut Turn<'_>) -> Option<IkeSaId> {
        match self {
            Self::CreateChild(expect) => {
                expect.abandon(turn);
                None
            }
            Self::RekeyIke(expect) => expect.collided_with(),
            Self::DeleteChild(_) | Self::DeleteIke(_) | Self::Probe(_) => None,
        }
    }
}

/// Asks the peer for what a task wants; `None` where there is nothing to ask any more.
pub(crate) fn begin(
    established: &mut Established,
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    task: Task,
) -> Result<Option<Ours>, IkeError> {
    match task {
        Task::CreateChild(config) => create_child_initiator::begin(established, channel, turn, config),
        Task::CreateFurther(config, packet) => {
            create_child_initiator::begin_further(established, channel, turn, config, packet)
        }
        Task::RekeyChild(key) => create_child_initiator::begin_rekey(established, channel, turn, key),
        Task::DeleteChild(key) => informational_initiator::delete_child(established, channel, turn, key),
        Task::RekeyIke => rekey_ike_initiator::begin(established, channel, turn),
        Task::DeleteIke(reason) => informational_initiator::delete_ike(established, channel, turn, reason),
        Task::Release(spi) => informational_initiator::release(channel, turn, spi),
        Task::Probe => informational_initiator::probe(channel, turn),
    }
}

/// Writes the notify that an error is to the peer.
pub(crate) fn write_refusal(writer: &mut Writer, error: &IkeError) {
    let kind = error.notify();
    match error {
        IkeError::InvalidKe { accepted, .. } => {
            writer.notify(Notify::new(kind, &accepted.to_be_bytes()));
        }
        IkeError::ChildSaNotFound { spi } => {
            writer.notify(Notify::about_esp(kind, &spi.to_be_bytes()));
        }
        IkeError::Malformed(Malformed::UnknownCritical(number)) => {
            writer.notify(Notify::new(kind, &[*number]));
        }
        _ => {
            writer.notify(Notify::new(kind, &[]));
        }
    }
}

/// A nonce of ours: half the key size of any PRF at least, and more than any peer needs (RFC 7296 §2.10).
pub(crate) fn nonce(rng: &mut dyn Rng) -> [u8; 32] {
    draw(rng)
}

/// A payload that the exchange cannot do without.
pub(crate) fn required<T>(payload: Option<T>, what: &'static str) -> Result<T, IkeError> {
    payload.ok_or(IkeError::PeerMisbehaved { what })
}

/// A payload without which a message has not the syntax of its exchange.
pub(crate) fn present<T>(payload: Option<T>, kind: PayloadType) -> Result<T, IkeError> {
    payload.ok_or(IkeError::Malformed(Malformed::Missing(kind)))
}

/// The method of a KE payload, if we know it and the value has its length.
pub(crate) fn ke_method(ke: &Ke<'_>) -> Option<KeMethod> {
    KeMethod::from_id(ke.method)
}

/// Cryptography that failed: the peer's fault where its public value is none (RFC 6989 §2.5), else ours.
impl From<crate::crypto::CryptoError> for IkeError {
    fn from(error: crate::crypto::CryptoError) -> Self {
        match error {
            crate::crypto::CryptoError::PublicValue(method) => Malformed::PublicValue(method.id()).into(),
            _ => Self::Internal { what: "cryptography failed" },
        }
    }
}
