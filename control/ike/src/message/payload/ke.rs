//! Key Exchange payload (RFC 7296 §3.4).

use crate::message::octets::Octets;
use crate::message::{Malformed, PayloadType};

/// A public value and the number of its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ke<'a> {
    /// Key exchange method (Diffie-Hellman group), a transform id of type KE.
    pub method: u16,
    /// The public value; its length is the method's business.
    pub public: &'a [u8],
}

impl<'a> Ke<'a> {
    /// Checks the lengths.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut octets = Octets::new(PayloadType::Ke, body);
        let method = octets.u16("method")?;
        octets.u16("reserved octets")?;
        let public = octets.rest();
        if public.is_empty() {
            return Err(Malformed::Truncated { kind: PayloadType::Ke, field: "public value" });
        }
        Ok(Self { method, public })
    }

    pub(in crate::message) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.method.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(self.public);
    }
}
