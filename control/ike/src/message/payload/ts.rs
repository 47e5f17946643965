//! Traffic Selector payloads TSi and TSr (RFC 7296 §3.13).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pollux_abi::{PortRange, TrafficSelector};

use crate::message::octets::Octets;
use crate::message::{Malformed, PayloadType};

const IPV4_ADDR_RANGE: u8 = 7;
const IPV6_ADDR_RANGE: u8 = 8;

/// A checked list of selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ts<'a> {
    payload: PayloadType,
    body: &'a [u8],
}

impl<'a> Ts<'a> {
    /// Checks every selector; `payload` is TSi or TSr. Selectors of an unknown type are skipped.
    pub fn parse(payload: PayloadType, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut octets = Octets::new(payload, body);
        let count = octets.u8("number of selectors")?;
        octets.array::<3>("reserved octets")?;
        if count == 0 {
            return Err(Malformed::Field { kind: payload, field: "number of selectors", value: 0 });
        }
        let list = octets.rest();
        let mut octets = Octets::new(payload, list);
        for _ in 0..count {
            selector(payload, &mut octets)?;
        }
        octets.finish()?;
        Ok(Self { payload, body: list })
    }

    /// The selectors of IPv4 and IPv6, in the sender's order.
    pub fn selectors(&self) -> impl Iterator<Item = TrafficSelector> + 'a {
        let payload = self.payload;
        let mut octets = Octets::new(payload, self.body);
        core::iter::from_fn(
            move || if octets.is_empty() { None } else { selector(payload, &mut octets).ok() },
        )
        .flatten()
    }
}

fn selector(payload: PayloadType, octets: &mut Octets<'_>) -> Result<Option<TrafficSelector>, Malformed> {
    let kind = octets.u8("selector type")?;
    let protocol = octets.u8("IP protocol")?;
    let len = usize::from(octets.u16("selector length")?);
    let field = |field, value| Malformed::Field { kind: payload, field, value };
    let len_error = field("selector length", u32::try_from(len).unwrap_or(u32::MAX));
    let inside = octets.take(len.checked_sub(4).ok_or(len_error)?, "selector")?;
    let mut inside = Octets::new(payload, inside);
    let first_port = inside.u16("first port")?;
    let last_port = inside.u16("last port")?;
    let (first, last): (IpAddr, IpAddr) = match kind {
        IPV4_ADDR_RANGE => {
            let first = Ipv4Addr::from(inside.array::<4>("first address")?);
            (first.into(), Ipv4Addr::from(inside.array::<4>("last address")?).into())
        }
        IPV6_ADDR_RANGE => {
            let first = Ipv6Addr::from(inside.array::<16>("first address")?);
            (first.into(), Ipv6Addr::from(inside.array::<16>("last address")?).into())
        }
        _ => return Ok(None),
    };
    inside.finish()?;
    let ports = PortRange { first: first_port, last: last_port };
    if first_port > last_port && ports != PortRange::OPAQUE {
        return Err(field("first port", u32::from(first_port)));
    }
    let protocol = (protocol != 0).then_some(protocol);
    let selector = TrafficSelector::new(first, last, protocol, ports);
    selector.map(Some).ok_or_else(|| field("address range's order", 1))
}

/// Appends the body of a TSi or TSr payload; at most 255 selectors, and our lists are far shorter.
pub(in crate::message) fn write(selectors: &[TrafficSelector], out: &mut Vec<u8>) {
    let selectors = selectors.get(..usize::from(u8::MAX)).unwrap_or(selectors);
    out.extend_from_slice(&[u8::try_from(selectors.len()).unwrap_or(u8::MAX), 0, 0, 0]);
    for selector in selectors {
        let (kind, len) = if selector.is_ipv4() { (IPV4_ADDR_RANGE, 16u16) } else { (IPV6_ADDR_RANGE, 40) };
        out.extend_from_slice(&[kind, selector.protocol.unwrap_or(0)]);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&selector.ports.first.to_be_bytes());
        out.extend_from_slice(&selector.ports.last.to_be_bytes());
        for address in [selector.first(), selector.last()] {
            match address {
                IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
            }
        }
    }
}
