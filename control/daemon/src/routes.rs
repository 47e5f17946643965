//! The address that the kernel would send IKE from: asked of it, since NAT detection hashes it before the
//! first message leaves (RFC 7296 §2.23).

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Attributes that choose among rules by protocol and ports, as IKE's own do (`linux/rtnetlink.h`).
const RTA_IP_PROTO: u16 = 27;
const RTA_SPORT: u16 = 28;
const RTA_DPORT: u16 = 29;
const UDP: u8 = 17;

/// Answers that are read before it is given up: the kernel sends one, and at most one error.
const ANSWERS_MAX: usize = 4;

/// The kernel's routes in the network namespace of the calling thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelRoutes {
    /// IKE's port: rules may choose by it.
    pub(crate) ike_port: u16,
}

impl pollux_ike::endpoint::Routes for KernelRoutes {
    fn source(&self, remote: IpAddr) -> Option<IpAddr> {
        self.ask(remote).unwrap_or_else(|error| {
            tracing::warn!(event = "route-not-read", %remote, %error);
            None
        })
    }
}

impl KernelRoutes {
    /// `ip route get REMOTE ipproto udp sport PORT dport PORT`: the source address of the answer.
    fn ask(self, remote: IpAddr) -> io::Result<Option<IpAddr>> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        socket.send(&self.request(remote), 0)?;
        for _ in 0..ANSWERS_MAX {
            // The answer lies in the socket before the request returns.
            let (octets, _) = match socket.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                other => other?,
            };
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&octets)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            match answer.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                    return Ok(preferred_source(&route).filter(|source| !source.is_unspecified()));
                }
                // No route, or one that forbids: unreachable, prohibit, blackhole.
                NetlinkPayload::Error(_) => return Ok(None),
                _ => {}
            }
        }
        Ok(None)
    }

    fn request(self, remote: IpAddr) -> Vec<u8> {
        let mut message = RouteMessage::default();
        let (family, bits, address) = match remote {
            IpAddr::V4(v4) => (AddressFamily::Inet, 32, RouteAddress::Inet(v4)),
            IpAddr::V6(v6) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(v6)),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = bits;
        let port = self.ike_port.to_be_bytes().to_vec();
        message.attributes = vec![
            RouteAttribute::Destination(address),
            RouteAttribute::Other(DefaultNla::new(RTA_IP_PROTO, vec![UDP])),
            RouteAttribute::Other(DefaultNla::new(RTA_SPORT, port.clone())),
            RouteAttribute::Other(DefaultNla::new(RTA_DPORT, port)),
        ];
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        header.sequence_number = 1;
        let inner = NetlinkPayload::InnerMessage(RouteNetlinkMessage::GetRoute(message));
        let mut packet = NetlinkMessage::new(header, inner);
        packet.finalize();
        let mut octets = vec![0; packet.buffer_len()];
        packet.serialize(&mut octets);
        octets
    }
}

fn preferred_source(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::PrefSource(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use pollux_ike::endpoint::Routes as _;

    use super::*;

    #[test]
    fn the_kernel_names_the_source_of_a_way_that_exists_and_none_of_one_that_does_not() {
        let routes = KernelRoutes { ike_port: 500 };
        for loopback in ["127.0.0.1", "127.9.9.9"] {
            let remote: IpAddr = loopback.parse().expect("an address");
            let source = routes.source(remote).expect("loopback is always there");
            assert!(source.is_loopback(), "{remote} from {source}");
        }
        // A multicast interface-local address needs an interface to be named.
        let nowhere = routes.source("ff01::1".parse().expect("an address"));
        assert!(nowhere.is_none_or(|source| !source.is_unspecified()), "{nowhere:?}");
    }
}
