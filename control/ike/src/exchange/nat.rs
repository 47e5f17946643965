//! NAT detection: hashes of addresses and ports that the other end compares (RFC 7296 §2.23).

use core::net::{IpAddr, SocketAddr};

use crate::crypto::{Provider, Rng, draw};
use crate::message::{IkeSpi, Notify, NotifyType, Payloads, Writer};
use crate::sa::Path;

/// Adds both notifies. With `fake`, the source hash fits nothing, so that the peer finds a NAT in front of
/// us and takes ESP in UDP.
pub(crate) fn write(
    writer: &mut Writer,
    provider: &dyn Provider,
    rng: &mut dyn Rng,
    spis: (IkeSpi, IkeSpi),
    path: &Path,
    fake: bool,
) {
    let source = if fake { draw(rng) } else { hash(provider, spis, path.local) };
    let destination = hash(provider, spis, path.remote);
    writer.notify(Notify::new(NotifyType::NatDetectionSourceIp, &source));
    writer.notify(Notify::new(NotifyType::NatDetectionDestinationIp, &destination));
}

/// What the peer's notifies say: (NAT in front of us, NAT in front of the peer). A peer that sends none
/// knows nothing of NATs.
pub(crate) fn detect(
    provider: &dyn Provider,
    payloads: &Payloads<'_>,
    spis: (IkeSpi, IkeSpi),
    local: SocketAddr,
    remote: SocketAddr,
) -> (bool, bool) {
    let all = |kind| payloads.notifies().filter(move |notify| notify.kind == kind);
    let differs = |kind, address| {
        let expected = hash(provider, spis, address);
        all(kind).next().is_some() && all(kind).all(|notify| notify.data != expected)
    };
    (differs(NotifyType::NatDetectionDestinationIp, local), differs(NotifyType::NatDetectionSourceIp, remote))
}

fn hash(provider: &dyn Provider, (spi_i, spi_r): (IkeSpi, IkeSpi), at: SocketAddr) -> [u8; 20] {
    let (spi_i, spi_r, port) = (spi_i.to_be_bytes(), spi_r.to_be_bytes(), at.port().to_be_bytes());
    match at.ip() {
        IpAddr::V4(v4) => provider.sha1(&[&spi_i, &spi_r, &v4.octets(), &port]),
        IpAddr::V6(v6) => provider.sha1(&[&spi_i, &spi_r, &v6.octets(), &port]),
    }
}
