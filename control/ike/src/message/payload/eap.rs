//! EAP payload: one EAP packet (RFC 7296 §3.16, RFC 3748 §4).

use crate::message::octets::Octets;
use crate::message::{Malformed, PayloadType};

/// An EAP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eap<'a> {
    /// Request 1, response 2, success 3, failure 4.
    pub code: u8,
    /// Ties a response to its request.
    pub identifier: u8,
    /// Method type and its data; empty in success and failure.
    pub data: &'a [u8],
}

impl<'a> Eap<'a> {
    /// Checks that the packet's length is the payload's.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut octets = Octets::new(PayloadType::Eap, body);
        let code = octets.u8("code")?;
        let identifier = octets.u8("identifier")?;
        let len = octets.u16("length")?;
        if usize::from(len) != body.len() {
            return Err(Malformed::Field { kind: PayloadType::Eap, field: "length", value: u32::from(len) });
        }
        Ok(Self { code, identifier, data: octets.rest() })
    }

    pub(in crate::message) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.code, self.identifier]);
        out.extend_from_slice(&u16::try_from(self.data.len() + 4).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(self.data);
    }
}
