//! IKE messages: read without copying, built by one writer that is the reader's mirror (RFC 7296 §3).
//!
//! ```text
//! datagram ─► Header ─► Message { payloads, encrypted } ── Encrypted::open (in place) ─► Payloads::parse
//! Writer::new(header).sa(…).ke(…).nonce(…).finish()
//! Writer::encrypted(header, cipher).id_i(…).auth(…)… .seal(cipher, iv)
//! ```
//!
//! A [`Payloads`] value has been checked to its last octet; its accessors cannot fail. Unknown payloads are
//! skipped, unless they are critical. No input panics, loops or allocates.

mod header;
mod malformed;
mod octets;
pub mod payload;
mod reader;
mod registry;
mod writer;

pub use header::{Flags, Header, IkeSpi, MessageId};
pub use malformed::Malformed;
pub use payload::auth::Auth;
pub use payload::cert::Cert;
pub use payload::cp::{CfgAttribute, Cp};
pub use payload::delete::Delete;
pub use payload::eap::Eap;
pub use payload::id::{Id, write_id};
pub use payload::ke::Ke;
pub use payload::nonce::{NONCE_LEN_MAX, NONCE_LEN_MIN};
pub use payload::notify::Notify;
pub use payload::sa::{ProposalSpec, ProposalView, Sa, Transform};
pub use payload::sk::{Encrypted, Extent, OpenError};
pub use payload::ts::Ts;
pub use reader::{Chain, Message, PAYLOADS_MAX, Payloads, RawPayload};
pub use registry::{
    AuthMethod, CertEncoding, CfgType, ExchangeType, IdType, NotifyType, PayloadType, Protocol, TransformType,
};
pub use writer::{WriteError, Writer};
