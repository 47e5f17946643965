//! Configuration payload (RFC 7296 §3.15).

use crate::message::octets::Octets;
use crate::message::{CfgType, Malformed, PayloadType};

/// The highest bit of an attribute's type is reserved.
const ATTRIBUTE_MASK: u16 = 0x7fff;

/// One attribute: inner addresses, DNS servers, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CfgAttribute<'a> {
    /// Attribute type (RFC 7296 §3.15.1).
    pub kind: u16,
    /// Its value; empty where one is asked for.
    pub value: &'a [u8],
}

/// A checked list of attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cp<'a> {
    /// Request, reply, set or acknowledgement.
    pub kind: CfgType,
    attributes: &'a [u8],
}

impl<'a> Cp<'a> {
    /// Checks every attribute's length.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut octets = Octets::new(PayloadType::Cp, body);
        let kind = CfgType::from_wire(octets.u8("type")?);
        octets.array::<3>("reserved octets")?;
        let attributes = octets.rest();
        let mut octets = Octets::new(PayloadType::Cp, attributes);
        while !octets.is_empty() {
            attribute(&mut octets)?;
        }
        Ok(Self { kind, attributes })
    }

    /// The attributes.
    pub fn attributes(&self) -> impl Iterator<Item = CfgAttribute<'a>> + 'a {
        let mut octets = Octets::new(PayloadType::Cp, self.attributes);
        core::iter::from_fn(move || if octets.is_empty() { None } else { attribute(&mut octets).ok() })
    }
}

fn attribute<'a>(octets: &mut Octets<'a>) -> Result<CfgAttribute<'a>, Malformed> {
    let kind = octets.u16("attribute type")? & ATTRIBUTE_MASK;
    let len = octets.u16("attribute length")?;
    Ok(CfgAttribute { kind, value: octets.take(usize::from(len), "attribute value")? })
}

/// Appends the body of a CP payload.
pub(in crate::message) fn write(kind: CfgType, attributes: &[CfgAttribute<'_>], out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind.to_wire(), 0, 0, 0]);
    for attribute in attributes {
        out.extend_from_slice(&(attribute.kind & ATTRIBUTE_MASK).to_be_bytes());
        out.extend_from_slice(&u16::try_from(attribute.value.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(attribute.value);
    }
}
