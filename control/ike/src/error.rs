//! Errors by blame, with the facts that the operator needs.
//!
//! Each is one notify on the wire ([`IkeError::notify`]) and one line in the log (`Display`): what they
//! offered, what we accept, and which key of the configuration decides it.

use core::net::IpAddr;

use thiserror::Error;

use crate::identity::Identity;
use crate::message::{Malformed, NotifyType};

/// Why a message, an exchange or an SA failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IkeError {
    // Blame: the peer.
    /// A message that does not parse.
    #[error("malformed message: {0}")]
    Malformed(#[from] Malformed),
    /// A well-formed message that has no place in the exchange.
    #[error("the peer broke the protocol: {what}")]
    PeerMisbehaved {
        /// What it did.
        what: &'static str,
    },
    /// The peer left AUTH out of IKE_AUTH, which asks for EAP (RFC 7296 §2.16).
    #[error(
        "authentication failed: the peer, {identity}, wants EAP (its IKE_AUTH has no AUTH payload), we accept {methods}; \
         set the peer to one of these"
    )]
    EapWanted {
        /// Who it claims to be.
        identity: String,
        /// The methods that we speak.
        methods: &'static str,
    },
    /// Authentication of the peer failed.
    #[error("authentication failed: the peer offered {offered}, we accept {accepted}; {key} decides it")]
    AuthenticationFailed {
        /// Who it claims to be, and how it wants to prove it.
        offered: String,
        /// What would have done.
        accepted: String,
        /// The key of the configuration that decides it.
        key: String,
    },
    /// The peer named a Child SA that we do not have.
    #[error("the peer named a Child SA with SPI 0x{spi:08x}, and there is none")]
    ChildSaNotFound {
        /// The SPI as it came.
        spi: u32,
    },
    /// The peer refused.
    #[error("the peer answered {notify}; we offered {offered}; {key} decides it")]
    PeerRefused {
        /// Notify message type.
        notify: NotifyType,
        /// What we had asked for.
        offered: String,
        /// The key of our configuration that decides what we ask for.
        key: String,
    },

    // Blame: the policies of both ends do not meet.
    /// No proposal fits.
    #[error("no proposal chosen: the peer offered {offered}, we accept {accepted}; {key} decides it")]
    NoProposalChosen {
        /// The peer's proposals.
        offered: String,
        /// Ours.
        accepted: String,
        /// The key of the configuration.
        key: String,
    },
    /// The key exchange is of a group that we do not choose.
    #[error("the peer's key exchange is of group {offered}, we want group {accepted}; {key} decides it")]
    InvalidKe {
        /// The peer's group.
        offered: u16,
        /// The group that we chose from its proposals.
        accepted: u16,
        /// The key of the configuration.
        key: String,
    },
    /// No traffic selector fits.
    #[error(
        "traffic selectors do not meet: the peer offered {offered}, we accept {accepted}; {key} decides it"
    )]
    TsUnacceptable {
        /// The peer's selectors, `theirs === ours`.
        offered: String,
        /// Ours.
        accepted: String,
        /// The key of the configuration.
        key: String,
    },

    /// What the peer of a wildcard connection asks for is in use by another one.
    #[error(
        "traffic selectors are in use: the peer offered {offered}, and {by} has them; give each peer its own"
    )]
    TsInUse {
        /// The peer's selectors, `theirs === ours`.
        offered: String,
        /// Whose they are.
        by: String,
    },

    // Blame: the operator, or nobody yet.
    /// No connection is about these addresses and identities.
    #[error(
        "no connection: the peer offered to be {identity} at {remote} and asks for {wanted} at {local}, we accept \
         {accepted}; connection.*.local_addrs, remote_addrs, local.id, remote.id and proposals decide it"
    )]
    NoConnection {
        /// Our address.
        local: IpAddr,
        /// The peer's address.
        remote: IpAddr,
        /// Who it claims to be; `-` before it said so.
        identity: String,
        /// Whom it asked for; `-` for anyone.
        wanted: String,
        /// The first connections of the configuration.
        accepted: String,
    },
    /// There is no pre-shared key for these identities.
    #[error("no pre-shared key for {remote} and {local}; {key} decides it")]
    NoSecret {
        /// Our identity.
        local: Identity,
        /// The peer's.
        remote: Identity,
        /// The key of the configuration that decides it.
        key: String,
    },
    /// No connection or SA of that name.
    #[error("there is no connection, child or SA {name}")]
    UnknownTarget {
        /// What was asked for.
        name: String,
    },
    /// The kernel has no route to the peer, so that there is no address of ours to begin from.
    #[error("there is no route to {remote}; add one, or name our address in {key}")]
    NoRoute {
        /// The peer's address.
        remote: IpAddr,
        /// The key of the configuration that takes the place of the route's source address.
        key: String,
    },

    // Blame: us.
    /// The data plane did not install an SA, or not in time.
    #[error("the data plane did not install the SA: {what}")]
    DataPlane {
        /// What it said.
        what: String,
    },
    /// A limit of ours is reached.
    #[error("a limit is reached: {what}")]
    Limit {
        /// Which one.
        what: &'static str,
    },
    /// What was asked collides with what is going on (RFC 7296 §2.25).
    #[error("not now: {what}")]
    TemporaryFailure {
        /// What is going on.
        what: &'static str,
    },
    /// Something that cannot happen, or cryptography that failed.
    #[error("internal: {what}")]
    Internal {
        /// What.
        what: &'static str,
    },
}

impl IkeError {
    /// Whether the notify that tells the peer ends the IKE SA at both ends, without a DELETE (RFC 7296 §2.21.3).
    pub fn is_fatal(&self) -> bool {
        self.notify() == NotifyType::InvalidSyntax
    }

    /// Whether what was refused may go through a little later (RFC 7296 §2.25).
    pub const fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::PeerRefused { notify: NotifyType::TemporaryFailure | NotifyType::NoAdditionalSas, .. }
                | Self::TemporaryFailure { .. }
                | Self::DataPlane { .. }
                | Self::Limit { .. }
        )
    }

    /// The notify that tells the peer (RFC 7296 §3.10.1).
    pub const fn notify(&self) -> NotifyType {
        match self {
            Self::Malformed(malformed) => malformed.notify(),
            // What no other type covers (RFC 7296 §3.10.1).
            Self::PeerMisbehaved { .. } => NotifyType::InvalidSyntax,
            Self::NoProposalChosen { .. } => NotifyType::NoProposalChosen,
            Self::InvalidKe { .. } => NotifyType::InvalidKePayload,
            Self::AuthenticationFailed { .. }
            | Self::EapWanted { .. }
            | Self::NoConnection { .. }
            | Self::NoSecret { .. } => NotifyType::AuthenticationFailed,
            Self::Limit { .. } => NotifyType::NoAdditionalSas,
            Self::TsUnacceptable { .. } | Self::TsInUse { .. } => NotifyType::TsUnacceptable,
            Self::ChildSaNotFound { .. } => NotifyType::ChildSaNotFound,
            Self::DataPlane { .. }
            | Self::TemporaryFailure { .. }
            | Self::Internal { .. }
            | Self::PeerRefused { .. }
            | Self::NoRoute { .. }
            | Self::UnknownTarget { .. } => NotifyType::TemporaryFailure,
        }
    }
}
