//! What every packet of an outbound SA begins with, made once: outer IP header, UDP header and SPI.

use pollux_packet::{Flow, IpVersion, ipv4, ipv6, udp};

/// TTL and hop limit of outer headers.
const TTL: u8 = 64;

/// IPv6, UDP and SPI: the longest.
const LEN_MAX: usize = ipv6::HEADER_LEN + udp::HEADER_LEN + SPI_LEN;
const SPI_LEN: usize = 4;
const V4_LEN: usize = ipv4::HEADER_LEN + SPI_LEN;
const V6_LEN: usize = ipv6::HEADER_LEN + SPI_LEN;

/// Which headers there are; each has its length, so that copies are of fixed lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeaderKind {
    V4,
    V4Udp,
    V6,
    V6Udp,
}

/// Headers whose lengths, marks and checksums are filled in for each packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OuterTemplate {
    octets: [u8; LEN_MAX],
    /// Of the IPv4 header with zeros for what is filled in.
    checksum: u16,
    kind: HeaderKind,
}

/// What differs from packet to packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    /// DSCP and ECN.
    pub(crate) traffic_class: u8,
    /// IPv4 only.
    pub(crate) dont_fragment: bool,
    /// IPv4 only: unique among the fragments of these addresses.
    pub(crate) identification: u16,
}

impl Default for OuterTemplate {
    fn default() -> Self {
        Self { octets: [0; LEN_MAX], checksum: 0, kind: HeaderKind::V4 }
    }
}

impl OuterTemplate {
    /// The headers of packets of `outer`, with UDP where it has ports.
    pub(crate) fn new(outer: &Flow, flow_label: u32, spi: u32) -> Self {
        let mut template = Self::default();
        let mut rest = &mut template.octets[..];
        let mut put = |octets: &[u8]| {
            if let Some((room, left)) = core::mem::take(&mut rest).split_at_mut_checked(octets.len()) {
                room.copy_from_slice(octets);
                rest = left;
            }
        };
        match outer.version {
            IpVersion::V4 => {
                let header = ipv4_header(outer).to_bytes();
                template.checksum = u16::from_be_bytes([header[10], header[11]]);
                put(&header);
            }
            IpVersion::V6 => put(&ipv6_header(outer, flow_label).to_bytes()),
        }
        if outer.has_ports {
            put(&udp::header(outer.source_port, outer.destination_port, 0));
        }
        put(&spi.to_be_bytes());
        template.kind = match (outer.version, outer.has_ports) {
            (IpVersion::V4, false) => HeaderKind::V4,
            (IpVersion::V4, true) => HeaderKind::V4Udp,
            (IpVersion::V6, false) => HeaderKind::V6,
            (IpVersion::V6, true) => HeaderKind::V6Udp,
        };
        template
    }

    /// Octets before the SPI.
    #[inline]
    pub(crate) const fn l4(&self) -> usize {
        match self.kind {
            HeaderKind::V4 => ipv4::HEADER_LEN,
            HeaderKind::V4Udp => ipv4::HEADER_LEN + udp::HEADER_LEN,
            HeaderKind::V6 => ipv6::HEADER_LEN,
            HeaderKind::V6Udp => ipv6::HEADER_LEN + udp::HEADER_LEN,
        }
    }

    /// Writes headers and SPI to the front of `packet`, which has `total_len` octets; `None` without room.
    #[inline]
    pub(crate) fn write(&self, packet: &mut [u8], total_len: u16, marks: Marks) -> Option<()> {
        match self.kind {
            HeaderKind::V4 => self.write_v4(self.copy::<{ V4_LEN }>(packet)?, total_len, marks),
            HeaderKind::V4Udp => {
                let octets = self.copy::<{ V4_LEN + udp::HEADER_LEN }>(packet)?;
                self.write_v4(octets, total_len, marks)?;
                write_udp_len(octets, V4_LEN - SPI_LEN, total_len)
            }
            HeaderKind::V6 => write_v6(self.copy::<{ V6_LEN }>(packet)?, total_len, marks),
            HeaderKind::V6Udp => {
                let octets = self.copy::<{ V6_LEN + udp::HEADER_LEN }>(packet)?;
                write_v6(octets, total_len, marks)?;
                write_udp_len(octets, V6_LEN - SPI_LEN, total_len)
            }
        }
    }

    #[inline]
    fn copy<'a, const LEN: usize>(&self, packet: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let room = packet.first_chunk_mut::<LEN>()?;
        *room = *self.octets.first_chunk::<LEN>()?;
        Some(room)
    }

    #[inline]
    fn write_v4(&self, octets: &mut [u8], total_len: u16, marks: Marks) -> Option<()> {
        // An atomic datagram needs no identification (RFC 6864 §4.1).
        let identification = if marks.dont_fragment { 0 } else { marks.identification };
        let Marks { traffic_class, dont_fragment, .. } = marks;
        ipv4::fill_in(
            octets.first_chunk_mut()?,
            self.checksum,
            traffic_class,
            total_len,
            identification,
            dont_fragment,
        );
        Some(())
    }
}

#[inline]
fn write_v6(octets: &mut [u8], total_len: u16, marks: Marks) -> Option<()> {
    let payload_len = usize::from(total_len).checked_sub(ipv6::HEADER_LEN)?;
    ipv6::set_traffic_class(octets, marks.traffic_class);
    octets.get_mut(4..6)?.copy_from_slice(&u16::try_from(payload_len).ok()?.to_be_bytes());
    Some(())
}

#[inline]
fn write_udp_len(octets: &mut [u8], at: usize, total_len: u16) -> Option<()> {
    let len = usize::from(total_len).checked_sub(at)?;
    octets.get_mut(at + 4..at + 6)?.copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
    Some(())
}

fn ipv4_header(outer: &Flow) -> ipv4::Header {
    #[expect(clippy::cast_possible_truncation, reason = "the flow's addresses are IPv4")]
    let address = |bits: u128| (bits as u32).to_be_bytes();
    ipv4::Header {
        source: address(outer.source_bits()),
        destination: address(outer.destination_bits()),
        protocol: outer.protocol,
        ttl: TTL,
        ..ipv4::Header::default()
    }
}

fn ipv6_header(outer: &Flow, flow_label: u32) -> ipv6::Header {
    ipv6::Header {
        source: outer.source_bits().to_be_bytes(),
        destination: outer.destination_bits().to_be_bytes(),
        next_header: outer.protocol,
        traffic_class: 0,
        flow_label,
        hop_limit: TTL,
        payload_len: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_packet::flow;
    use proptest::prelude::*;

    /// The same from the builders of each protocol, the plain way.
    fn built(outer: &Flow, flow_label: u32, spi: u32, total_len: u16, marks: Marks) -> Vec<u8> {
        let mut octets = match outer.version {
            IpVersion::V4 => {
                let Marks { traffic_class, dont_fragment, identification } = marks;
                let identification = if dont_fragment { 0 } else { identification };
                let header = ipv4_header(outer);
                let header =
                    ipv4::Header { traffic_class, dont_fragment, identification, total_len, ..header };
                header.to_bytes().to_vec()
            }
            IpVersion::V6 => {
                let header = ipv6_header(outer, flow_label);
                let (traffic_class, payload_len) = (marks.traffic_class, total_len - 40);
                ipv6::Header { traffic_class, payload_len, ..header }.to_bytes().to_vec()
            }
        };
        if outer.has_ports {
            let payload_len = usize::from(total_len) - octets.len() - udp::HEADER_LEN;
            let payload_len = u16::try_from(payload_len).expect("shorter than the packet");
            octets.extend(udp::header(outer.source_port, outer.destination_port, payload_len));
        }
        octets.extend(spi.to_be_bytes());
        octets
    }

    proptest! {
        #[test]
        fn fronts_are_what_the_builders_make(
            (v6, in_udp, dont_fragment) in any::<(bool, bool, bool)>(),
            (source, destination, flow_label, spi) in any::<(u128, u128, u32, u32)>(),
            (traffic_class, identification, total_len) in (any::<u8>(), any::<u16>(), 60u16..),
        ) {
            let cut = |bits: u128| if v6 { bits } else { bits & 0xffff_ffff };
            let version = if v6 { IpVersion::V6 } else { IpVersion::V4 };
            let mut outer = Flow::between(version, cut(source), cut(destination), flow::ESP);
            if in_udp {
                (outer.protocol, outer.has_ports) = (flow::UDP, true);
                (outer.source_port, outer.destination_port) = (4500, 40_000);
            }
            let marks = Marks { traffic_class, dont_fragment, identification };
            let template = OuterTemplate::new(&outer, flow_label, spi);
            let expected = built(&outer, flow_label, spi, total_len, marks);
            let mut octets = vec![0xee; 60];
            prop_assert_eq!(template.write(&mut octets, total_len, marks), Some(()));
            prop_assert_eq!(&octets[..expected.len()], &expected);
            prop_assert!(octets[expected.len()..].iter().all(|octet| *octet == 0xee));
            prop_assert_eq!(template.l4() + SPI_LEN, expected.len());
            prop_assert_eq!(template.write(&mut octets[..template.l4()], total_len, marks), None);
        }
    }
}
