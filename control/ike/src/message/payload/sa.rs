//! Security Association payload: proposals and their transforms (RFC 7296 §3.3).

use crate::message::octets::Octets;
use crate::message::{Malformed, PayloadType, Protocol, TransformType};

/// The attribute "Key Length" in its short form (RFC 7296 §3.3.5).
const KEY_LENGTH: u16 = 14;
/// Attribute type bit: the value stands in the attribute's second half.
const SHORT_FORM: u16 = 0x8000;
/// "More proposals" and "more transforms" in a substructure's first octet.
const LAST: u8 = 0;
const MORE_PROPOSALS: u8 = 2;
const MORE_TRANSFORMS: u8 = 3;

/// One transform. The same value reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transform {
    /// What it transforms.
    pub kind: TransformType,
    /// Number in the registry of its type.
    pub id: u16,
    /// Key length in bits, where the attribute is there.
    pub key_bits: Option<u16>,
    /// It carries an attribute that we do not know, and therefore cannot be chosen (RFC 7296 §3.3.6).
    pub unknown_attribute: bool,
}

impl Transform {
    /// A transform without attributes.
    pub const fn new(kind: TransformType, id: u16) -> Self {
        Self { kind, id, key_bits: None, unknown_attribute: false }
    }

    /// A transform with a key length.
    pub const fn with_key_bits(kind: TransformType, id: u16, key_bits: u16) -> Self {
        Self { kind, id, key_bits: Some(key_bits), unknown_attribute: false }
    }
}

/// One proposal as it lies in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProposalView<'a> {
    /// Its number, from 1.
    pub number: u8,
    /// IKE, AH or ESP.
    pub protocol: Protocol,
    /// The sender's SPI; empty in IKE_SA_INIT.
    pub spi: &'a [u8],
    transforms: &'a [u8],
}

impl<'a> ProposalView<'a> {
    /// Its transforms, in the sender's order of preference.
    pub fn transforms(&self) -> impl Iterator<Item = Transform> + 'a {
        // Sound already: `Sa::parse` has walked them.
        TransformWalk { octets: Octets::new(PayloadType::Sa, self.transforms), done: false }
            .map_while(Result::ok)
    }
}

/// A proposal to be written.
#[derive(Clone, Copy, Debug)]
pub struct ProposalSpec<'a> {
    /// Its number, from 1.
    pub number: u8,
    /// IKE or ESP.
    pub protocol: Protocol,
    /// Our SPI; empty in IKE_SA_INIT.
    pub spi: &'a [u8],
    /// Best first.
    pub transforms: &'a [Transform],
}

/// A checked SA payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sa<'a> {
    body: &'a [u8],
}

impl<'a> Sa<'a> {
    /// Checks every length, proposal and transform.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut empty = true;
        for proposal in proposals(body) {
            let proposal = proposal?;
            empty = false;
            for transform in (TransformWalk {
                octets: Octets::new(PayloadType::Sa, proposal.view.transforms),
                done: false,
            }) {
                transform?;
            }
            let counted = proposal.view.transforms().count();
            if counted != usize::from(proposal.transform_count) {
                return Err(field("number of transforms", usize::from(proposal.transform_count)));
            }
        }
        if empty {
            return Err(Malformed::Truncated { kind: PayloadType::Sa, field: "first proposal" });
        }
        Ok(Self { body })
    }

    /// Checks that the proposals of an offer are numbered 1, 2, 3 and so on (RFC 7296 §3.3.1). An answer repeats the
    /// number of the one that was chosen, whatever that is.
    pub fn check_numbers(&self) -> Result<(), Malformed> {
        let mut expected = Some(1u8);
        for proposal in self.proposals() {
            if Some(proposal.number) != expected {
                return Err(field("proposal's number", usize::from(proposal.number)));
            }
            expected = proposal.number.checked_add(1);
        }
        Ok(())
    }

    /// The proposals, in the sender's order of preference.
    pub fn proposals(&self) -> impl Iterator<Item = ProposalView<'a>> + 'a {
        proposals(self.body).map_while(|proposal| proposal.ok().map(|proposal| proposal.view))
    }
}

/// Appends the body of an SA payload.
pub(crate) fn write(proposals: &[ProposalSpec<'_>], out: &mut Vec<u8>) {
    for (at, proposal) in proposals.iter().enumerate() {
        let start = out.len();
        out.push(if at + 1 == proposals.len() { LAST } else { MORE_PROPOSALS });
        out.extend_from_slice(&[0, 0, 0, proposal.number, proposal.protocol.to_wire()]);
        out.push(low_octet(proposal.spi.len()));
        out.push(low_octet(proposal.transforms.len()));
        out.extend_from_slice(proposal.spi);
        for (at, transform) in proposal.transforms.iter().enumerate() {
            write_transform(transform, at + 1 == proposal.transforms.len(), out);
        }
        let len = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
        out[start + 2..start + 4].copy_from_slice(&len.to_be_bytes());
    }
}

fn write_transform(transform: &Transform, last: bool, out: &mut Vec<u8>) {
    let len: u16 = if transform.key_bits.is_some() { 12 } else { 8 };
    out.extend_from_slice(&[if last { LAST } else { MORE_TRANSFORMS }, 0]);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&[transform.kind.to_wire(), 0]);
    out.extend_from_slice(&transform.id.to_be_bytes());
    if let Some(bits) = transform.key_bits {
        out.extend_from_slice(&(SHORT_FORM | KEY_LENGTH).to_be_bytes());
        out.extend_from_slice(&bits.to_be_bytes());
    }
}

/// Our own proposals have an SPI of at most 8 octets and at most some dozens of transforms.
fn low_octet(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

struct RawProposal<'a> {
    view: ProposalView<'a>,
    transform_count: u8,
}

fn proposals(body: &[u8]) -> impl Iterator<Item = Result<RawProposal<'_>, Malformed>> {
    let mut octets = Octets::new(PayloadType::Sa, body);
    let mut more = true;
    core::iter::from_fn(move || {
        if !more {
            let left = core::mem::replace(&mut octets, Octets::new(PayloadType::Sa, &[]));
            return left.finish().err().map(Err);
        }
        let parsed = proposal(&mut octets);
        more = matches!(parsed, Ok((_, true)));
        if parsed.is_err() {
            octets.rest();
        }
        Some(parsed.map(|(proposal, _)| proposal))
    })
}

fn proposal<'a>(octets: &mut Octets<'a>) -> Result<(RawProposal<'a>, bool), Malformed> {
    let more = match octets.u8("proposal's first octet")? {
        LAST => false,
        MORE_PROPOSALS => true,
        other => return Err(field("last substructure", usize::from(other))),
    };
    octets.u8("proposal's reserved octet")?;
    let len = usize::from(octets.u16("proposal's length")?);
    let inside = len.checked_sub(4).ok_or_else(|| field("proposal's length", len))?;
    let mut inside = Octets::new(PayloadType::Sa, octets.take(inside, "proposal")?);
    let number = inside.u8("proposal's number")?;
    let protocol = Protocol::from_wire(inside.u8("proposal's protocol")?);
    let spi_len = inside.u8("SPI size")?;
    let transform_count = inside.u8("number of transforms")?;
    let spi = inside.take(usize::from(spi_len), "SPI")?;
    let view = ProposalView { number, protocol, spi, transforms: inside.rest() };
    Ok((RawProposal { view, transform_count }, more))
}

struct TransformWalk<'a> {
    octets: Octets<'a>,
    done: bool,
}

impl Iterator for TransformWalk<'_> {
    type Item = Result<Transform, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            let left = core::mem::replace(&mut self.octets, Octets::new(PayloadType::Sa, &[]));
            return left.finish().err().map(Err);
        }
        // A proposal without transforms says so by having no octets here.
        if self.octets.is_empty() {
            return None;
        }
        let parsed = transform(&mut self.octets);
        self.done = !matches!(parsed, Ok((_, true)));
        if parsed.is_err() {
            self.octets.rest();
        }
        Some(parsed.map(|(transform, _)| transform))
    }
}

fn transform(octets: &mut Octets<'_>) -> Result<(Transform, bool), Malformed> {
    let more = match octets.u8("transform's first octet")? {
        LAST => false,
        MORE_TRANSFORMS => true,
        other => return Err(field("last substructure", usize::from(other))),
    };
    octets.u8("transform's reserved octet")?;
    let len = usize::from(octets.u16("transform's length")?);
    let inside = len.checked_sub(4).ok_or_else(|| field("transform's length", len))?;
    let mut inside = Octets::new(PayloadType::Sa, octets.take(inside, "transform")?);
    let kind = TransformType::from_wire(inside.u8("transform type")?);
    inside.u8("transform's reserved octet")?;
    let mut transform = Transform::new(kind, inside.u16("transform id")?);
    while !inside.is_empty() {
        let attribute = inside.u16("attribute type")?;
        let value = inside.u16("attribute value")?;
        if attribute == SHORT_FORM | KEY_LENGTH && transform.key_bits.is_none() {
            transform.key_bits = Some(value);
            continue;
        }
        transform.unknown_attribute = true;
        if attribute & SHORT_FORM == 0 {
            inside.take(usize::from(value), "attribute value")?;
        }
    }
    if more && octets.is_empty() {
        return Err(Malformed::Truncated { kind: PayloadType::Sa, field: "next transform" });
    }
    Ok((transform, more))
}

fn field(field: &'static str, value: usize) -> Malformed {
    Malformed::Field { kind: PayloadType::Sa, field, value: u32::try_from(value).unwrap_or(u32::MAX) }
}
