//! Nonce payload (RFC 7296 §3.9).

use crate::message::{Malformed, PayloadType};

/// Fewest octets of a nonce (RFC 7296 §3.9).
pub const NONCE_LEN_MIN: usize = 16;
/// Most octets of a nonce.
pub const NONCE_LEN_MAX: usize = 256;

/// The nonce in a payload's body.
pub(in crate::message) fn parse(body: &[u8]) -> Result<&[u8], Malformed> {
    if (NONCE_LEN_MIN..=NONCE_LEN_MAX).contains(&body.len()) {
        return Ok(body);
    }
    let value = u32::try_from(body.len()).unwrap_or(u32::MAX);
    Err(Malformed::Field { kind: PayloadType::Nonce, field: "length", value })
}
