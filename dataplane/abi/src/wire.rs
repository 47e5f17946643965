//! Octets of a ring slot, written and read field by field.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ids::SaId;

/// Appends to a slot. Each slot holds the largest thing that is written to it, as tests show.
pub(crate) struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn put(&mut self, octets: &[u8]) {
        let end = self.at + octets.len();
        self.bytes[self.at..end].copy_from_slice(octets);
        self.at = end;
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    pub(crate) fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => {
                self.u8(4);
                self.put(&v4.octets());
                self.put(&[0; 12]);
            }
            IpAddr::V6(v6) => {
                self.u8(6);
                self.put(&v6.octets());
            }
        }
    }
}

/// Takes from the front of a slot; `None` at its end or for a value that the field cannot have.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*head)
    }

    pub(crate) fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[octet]| octet)
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn sa_id(&mut self) -> Option<SaId> {
        self.u64().filter(|&id| id != 0).map(SaId)
    }

    pub(crate) fn address(&mut self) -> Option<IpAddr> {
        let (family, octets) = (self.u8()?, self.take::<16>()?);
        match family {
            4 => octets.first_chunk::<4>().map(|v4| Ipv4Addr::from(*v4).into()),
            6 => Some(Ipv6Addr::from(octets).into()),
            _ => None,
        }
    }
}
