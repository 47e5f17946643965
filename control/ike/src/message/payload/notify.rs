//! Notify payload (RFC 7296 §3.10).

use pollux_abi::Spi;

use crate::message::octets::Octets;
use crate::message::{Malformed, NotifyType, PayloadType, Protocol};

/// An error or a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify<'a> {
    /// What the SPI belongs to; none without an SPI.
    pub protocol: Protocol,
    /// The SPI that the notify is about; empty as a rule.
    pub spi: &'a [u8],
    /// What it says.
    pub kind: NotifyType,
    /// Data of that type.
    pub data: &'a [u8],
}

impl<'a> Notify<'a> {
    /// A notify about the IKE SA or the exchange as a whole.
    pub const fn new(kind: NotifyType, data: &'a [u8]) -> Self {
        Self { protocol: Protocol::None, spi: &[], kind, data }
    }

    /// A notify about a Child SA; `spi` are the octets of its SPI (REKEY_SA, CHILD_SA_NOT_FOUND).
    pub const fn about_esp(kind: NotifyType, spi: &'a [u8; 4]) -> Self {
        Self { protocol: Protocol::Esp, spi, kind, data: &[] }
    }

    /// Checks the lengths.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut octets = Octets::new(PayloadType::Notify, body);
        let protocol = Protocol::from_wire(octets.u8("protocol")?);
        let spi_len = octets.u8("SPI size")?;
        let kind = NotifyType::from_wire(octets.u16("type")?);
        let spi = octets.take(usize::from(spi_len), "SPI")?;
        Ok(Self { protocol, spi, kind, data: octets.rest() })
    }

    /// The ESP SPI that the notify is about; `None` for anything else and for reserved values.
    pub fn esp_spi(&self) -> Option<Spi> {
        if self.protocol != Protocol::Esp {
            return None;
        }
        let octets: [u8; 4] = self.spi.try_into().ok()?;
        Spi::new(u32::from_be_bytes(octets))
    }

    /// The data as one 16-bit number: the wanted method in INVALID_KE_PAYLOAD.
    pub fn data_u16(&self) -> Option<u16> {
        self.data.try_into().ok().map(u16::from_be_bytes)
    }

    pub(in crate::message) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.protocol.to_wire());
        out.push(u8::try_from(self.spi.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(&self.kind.to_wire().to_be_bytes());
        out.extend_from_slice(self.spi);
        out.extend_from_slice(self.data);
    }
}
