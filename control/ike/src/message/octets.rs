//! A cursor over a payload's body that names what it could not read.

use super::{Malformed, PayloadType};

/// What is left of a payload's body.
pub(super) struct Octets<'a> {
    kind: PayloadType,
    rest: &'a [u8],
}

impl<'a> Octets<'a> {
    pub(super) const fn new(kind: PayloadType, body: &'a [u8]) -> Self {
        Self { kind, rest: body }
    }

    /// The next `len` octets.
    pub(super) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let (head, rest) =
            self.rest.split_at_checked(len).ok_or(Malformed::Truncated { kind: self.kind, field })?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` octets as an array.
    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (head, rest) =
            self.rest.split_first_chunk().ok_or(Malformed::Truncated { kind: self.kind, field })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.array::<1>(field).map(|[octet]| octet)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.array(field).map(u16::from_be_bytes)
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Refuses octets that no field has taken.
    pub(super) const fn finish(self) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            octets => Err(Malformed::Trailing { kind: self.kind, octets }),
        }
    }
}
