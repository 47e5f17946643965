//! Identification payloads IDi and IDr (RFC 7296 §3.5).

use crate::message::octets::Octets;
use crate::message::{IdType, Malformed, PayloadType};

/// Who the sender says it is, or whom it wants to talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id<'a> {
    /// What `data` is.
    pub kind: IdType,
    /// Identification data.
    pub data: &'a [u8],
    body: &'a [u8],
}

impl<'a> Id<'a> {
    /// Checks the lengths; addresses have the length of their family, other identities at least an octet.
    pub fn parse(payload: PayloadType, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut octets = Octets::new(payload, body);
        let kind = IdType::from_wire(octets.u8("type")?);
        octets.array::<3>("reserved octets")?;
        let data = octets.rest();
        let fits = match kind {
            IdType::Ipv4Addr => data.len() == 4,
            IdType::Ipv6Addr => data.len() == 16,
            IdType::Null => true,
            _ => !data.is_empty(),
        };
        if !fits {
            let value = u32::try_from(data.len()).unwrap_or(u32::MAX);
            return Err(Malformed::Field { kind: payload, field: "data length", value });
        }
        Ok(Self { kind, data, body })
    }

    /// The payload without its generic header: what AUTH signs as RestOfInitIDPayload (RFC 7296 §2.15).
    ///
    /// Includes the reserved octets as they came.
    pub const fn signed_octets(&self) -> &'a [u8] {
        self.body
    }
}

/// Appends the body of an IDi or IDr payload. The same octets are what AUTH signs.
pub fn write_id(kind: IdType, data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind.to_wire(), 0, 0, 0]);
    out.extend_from_slice(data);
}
