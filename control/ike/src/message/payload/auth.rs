//! Authentication payload (RFC 7296 §3.8).

use crate::message::octets::Octets;
use crate::message::{AuthMethod, Malformed, PayloadType};

/// Proof of the sender's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// How `data` was made.
    pub method: AuthMethod,
    /// The signature or MAC.
    pub data: &'a [u8],
}

impl<'a> Auth<'a> {
    /// Checks the lengths.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut octets = Octets::new(PayloadType::Auth, body);
        let method = AuthMethod::from_wire(octets.u8("method")?);
        octets.array::<3>("reserved octets")?;
        Ok(Self { method, data: octets.rest() })
    }

    pub(in crate::message) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.method.to_wire(), 0, 0, 0]);
        out.extend_from_slice(self.data);
    }
}
