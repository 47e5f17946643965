//! Delete payload (RFC 7296 §3.11).

use pollux_abi::Spi;

use crate::message::octets::Octets;
use crate::message::{Malformed, PayloadType, Protocol};

/// SAs that the sender has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    /// What is closed: the IKE SA itself, or Child SAs of this protocol.
    pub protocol: Protocol,
    spi_len: usize,
    spis: &'a [u8],
}

impl<'a> Delete<'a> {
    /// Checks the lengths: no SPI for IKE, four octets each for ESP and AH.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut octets = Octets::new(PayloadType::Delete, body);
        let protocol = Protocol::from_wire(octets.u8("protocol")?);
        let spi_len = octets.u8("SPI size")?;
        let count = octets.u16("number of SPIs")?;
        let wanted = match protocol {
            Protocol::Ike => 0,
            Protocol::Esp | Protocol::Ah => 4,
            _ => spi_len,
        };
        if spi_len != wanted {
            let value = u32::from(spi_len);
            return Err(Malformed::Field { kind: PayloadType::Delete, field: "SPI size", value });
        }
        let spi_len = usize::from(spi_len);
        let spis = octets.take(spi_len * usize::from(count), "SPIs")?;
        octets.finish()?;
        Ok(Self { protocol, spi_len, spis })
    }

    /// The closed ESP SAs, by the SPIs that the sender chose; reserved values are skipped.
    pub fn esp_spis(&self) -> impl Iterator<Item = Spi> + 'a {
        let spis = if self.protocol == Protocol::Esp && self.spi_len == 4 { self.spis } else { &[] };
        let (chunks, _) = spis.as_chunks::<4>();
        chunks.iter().filter_map(|octets| Spi::new(u32::from_be_bytes(*octets)))
    }
}

/// Appends the body that closes the IKE SA.
pub(in crate::message) fn write_ike(out: &mut Vec<u8>) {
    out.extend_from_slice(&[Protocol::Ike.to_wire(), 0, 0, 0]);
}

/// Appends the body that closes ESP SAs, by the SPIs of our inbound halves.
pub(in crate::message) fn write_esp(spis: &[Spi], out: &mut Vec<u8>) {
    out.extend_from_slice(&[Protocol::Esp.to_wire(), 4]);
    out.extend_from_slice(&u16::try_from(spis.len()).unwrap_or(u16::MAX).to_be_bytes());
    for spi in spis {
        out.extend_from_slice(&spi.to_be_bytes());
    }
}
