//! Certificate and Certificate Request payloads (RFC 7296 §3.6, §3.7).

use crate::message::octets::Octets;
use crate::message::{CertEncoding, Malformed, PayloadType};

/// A certificate, or a request for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cert<'a> {
    /// What `data` is.
    pub encoding: CertEncoding,
    /// The certificate; in a request the SHA-1 hashes of acceptable authorities' keys, 20 octets each.
    pub data: &'a [u8],
}

impl<'a> Cert<'a> {
    /// Checks the lengths; `payload` is CERT or CERTREQ.
    pub fn parse(payload: PayloadType, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut octets = Octets::new(payload, body);
        let encoding = CertEncoding::from_wire(octets.u8("encoding")?);
        Ok(Self { encoding, data: octets.rest() })
    }

    pub(in crate::message) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.encoding.to_wire());
        out.extend_from_slice(self.data);
    }
}
