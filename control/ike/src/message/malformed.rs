//! What is wrong with a message that breaks the format of RFC 7296 §3.

use thiserror::Error;

use super::{ExchangeType, NotifyType, PayloadType};

/// A message that breaks the format. The peer's fault, or the network's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// Fewer octets than a header has.
    #[error("{len} octets are too few for an IKE header")]
    Header {
        /// Octets in the datagram.
        len: usize,
    },
    /// The header's length is not the datagram's.
    #[error("the header claims {claimed} octets, the datagram has {actual}")]
    MessageLength {
        /// The header's length field.
        claimed: u32,
        /// Octets in the datagram.
        actual: usize,
    },
    /// A major version that we do not speak.
    #[error("IKE major version {0}, and we speak 2: set the peer to IKEv2")]
    MajorVersion(u8),
    /// A payload that is shorter than its header, or longer than what is left of the message.
    #[error("payload {kind} claims {claimed} octets, {left} are left")]
    PayloadLength {
        /// Which payload.
        kind: PayloadType,
        /// Its length field.
        claimed: u16,
        /// Octets from its header to the end of the chain.
        left: usize,
    },
    /// The chain ends in the middle of a payload's header, or octets follow its end.
    #[error("{left} octets where payload {kind} was to begin")]
    Chain {
        /// The payload that the chain announced; none: octets follow the last payload.
        kind: PayloadType,
        /// Octets left.
        left: usize,
    },
    /// More payloads than a message of ours or of any known peer has.
    #[error("more than {max} payloads")]
    TooManyPayloads {
        /// The limit.
        max: usize,
    },
    /// A payload that may appear once appears twice.
    #[error("payload {0} appears twice")]
    Repeated(PayloadType),
    /// An encrypted payload inside an encrypted payload.
    #[error("payload {0} inside an encrypted payload")]
    Nested(PayloadType),
    /// A payload that we do not know and that says that we must.
    #[error("unknown critical payload of type {0}")]
    UnknownCritical(u8),
    /// A payload's inside does not fit its length.
    #[error("payload {kind} is cut off in its {field}")]
    Truncated {
        /// Which payload.
        kind: PayloadType,
        /// The field that does not fit.
        field: &'static str,
    },
    /// Octets that no field of the payload accounts for.
    #[error("payload {kind} has {octets} octets too many")]
    Trailing {
        /// Which payload.
        kind: PayloadType,
        /// How many.
        octets: usize,
    },
    /// A field with a value that the RFC rules out.
    #[error("payload {kind}: {field} cannot be {value}")]
    Field {
        /// Which payload.
        kind: PayloadType,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// A payload without which the message means nothing.
    #[error("payload {0} is missing")]
    Missing(PayloadType),
    /// A public value that is none of its group (RFC 6989 §2.5).
    #[error("payload KE: its public value is none of group {0}")]
    PublicValue(u16),
    /// An exchange that does not exist, or has no place here.
    #[error("exchange {0} has no place here")]
    Exchange(ExchangeType),
    /// The padding of a decrypted payload is longer than the payload.
    #[error("the padding claims {claimed} octets, {left} are there")]
    Padding {
        /// Its length field.
        claimed: u8,
        /// Octets before it.
        left: usize,
    },
}

impl Malformed {
    /// The notify that answers it, where the rules allow an answer at all (RFC 7296 §2.21).
    pub const fn notify(&self) -> NotifyType {
        match self {
            Self::MajorVersion(_) => NotifyType::InvalidMajorVersion,
            Self::UnknownCritical(_) => NotifyType::UnsupportedCriticalPayload,
            _ => NotifyType::InvalidSyntax,
        }
    }
}
