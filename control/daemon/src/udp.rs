//! The IKE sockets: ports 500 and 4500 of both families, with the address that a datagram came to.
//!
//! On port 4500 IKE has four zero octets in front (RFC 3948 §2.2); they are taken off and put on here. What
//! has none there is ESP that the data plane did not want, or a keepalive: neither is ours.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn,
    SockaddrIn6, SockaddrStorage, bind, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use pollux_ike::endpoint::Transmit;
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The longest IKE message that is taken: what UDP carries.
const DATAGRAM_MAX: usize = 65_535;
/// Datagrams that wait for the core. Beyond, the oldest stay and new ones are dropped: peers send again.
const WAITING_MAX: usize = 1_024;
const MARKER: [u8; 4] = [0; 4];

/// One datagram for the core.
#[derive(Debug)]
pub(crate) struct Datagram {
    /// Where it came to.
    pub(crate) local: SocketAddr,
    /// Where it came from.
    pub(crate) remote: SocketAddr,
    /// Without its marker.
    pub(crate) bytes: Vec<u8>,
}

/// Why there are no sockets.
#[derive(Debug, Error)]
#[error(
    "UDP port {port} ({family}): {source}; stop what else speaks IKE here, or give us the right to bind it"
)]
pub(crate) struct UdpError {
    port: u16,
    family: &'static str,
    #[source]
    source: io::Error,
}

#[derive(Debug)]
struct Socket {
    fd: Arc<UdpSocket>,
    port: u16,
    is_v6: bool,
    has_marker: bool,
}

/// All sockets. Dropping it closes them.
#[derive(Debug)]
pub(crate) struct Sockets {
    sockets: Vec<Socket>,
    readers: Vec<JoinHandle<()>>,
}

impl Sockets {
    /// Opens the sockets in the namespace of the calling thread. IPv6 may be absent from the kernel.
    pub(crate) fn open(ike_port: u16, natt_port: u16) -> Result<(Self, mpsc::Receiver<Datagram>), UdpError> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let mut all = Self { sockets: Vec::new(), readers: Vec::new() };
        for (port, has_marker) in [(ike_port, false), (natt_port, true)] {
            for is_v6 in [false, true] {
                let fd = match open(port, is_v6) {
                    Ok(fd) => fd,
                    Err(nix::Error::EAFNOSUPPORT) if is_v6 => continue,
                    Err(errno) => {
                        let family = if is_v6 { "IPv6" } else { "IPv4" };
                        return Err(UdpError { port, family, source: errno.into() });
                    }
                };
                let wrap = |source| UdpError { port, family: "tokio", source };
                let fd = Arc::new(UdpSocket::from_std(std::net::UdpSocket::from(fd)).map_err(wrap)?);
                let reader = read_all(Arc::clone(&fd), port, has_marker, sender.clone());
                all.readers.push(tokio::spawn(reader));
                all.sockets.push(Socket { fd, port, is_v6, has_marker });
            }
        }
        Ok((all, receiver))
    }

    /// The sockets, for the data plane to learn their cookies.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.sockets.iter().map(|socket| socket.fd.as_fd()).collect()
    }

    /// Sends a datagram from the address and port that it names. What the kernel cannot take now is lost, as
    /// any datagram may be.
    pub(crate) fn send(&self, transmit: &Transmit) -> io::Result<()> {
        let is_v6 = transmit.remote.is_ipv6();
        let socket = self
            .sockets
            .iter()
            .find(|socket| socket.is_v6 == is_v6 && socket.port == transmit.local.port())
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::AddrNotAvailable, "no socket of that port and family")
            })?;
        let with_marker = [IoSlice::new(&MARKER), IoSlice::new(&transmit.bytes)];
        let iov = if socket.has_marker && !transmit.keepalive { &with_marker[..] } else { &with_marker[1..] };
        let fd = socket.fd.as_raw_fd();
        let remote = SockaddrStorage::from(transmit.remote);
        let sent = match transmit.local.ip() {
            IpAddr::V4(source) if !source.is_unspecified() => {
                let info = nix::libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: nix::libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                    ipi_addr: nix::libc::in_addr { s_addr: 0 },
                };
                sendmsg(
                    fd,
                    iov,
                    &[ControlMessage::Ipv4PacketInfo(&info)],
                    MsgFlags::MSG_DONTWAIT,
                    Some(&remote),
                )
            }
            IpAddr::V6(source) if !source.is_unspecified() => {
                let info = nix::libc::in6_pktinfo {
                    ipi6_addr: nix::libc::in6_addr { s6_addr: source.octets() },
                    ipi6_ifindex: 0,
                };
                sendmsg(
                    fd,
                    iov,
                    &[ControlMessage::Ipv6PacketInfo(&info)],
                    MsgFlags::MSG_DONTWAIT,
                    Some(&remote),
                )
            }
            _ => sendmsg(fd, iov, &[], MsgFlags::MSG_DONTWAIT, Some(&remote)),
        };
        sent.map(|_| ()).map_err(io::Error::from)
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
    }
}

fn open(port: u16, is_v6: bool) -> nix::Result<OwnedFd> {
    let family = if is_v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Datagram, flags, None)?;
    if is_v6 {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
        setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?;
        bind(fd.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)))?;
    } else {
        setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?;
        bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))?;
    }
    Ok(fd)
}

async fn read_all(fd: Arc<UdpSocket>, port: u16, has_marker: bool, out: mpsc::Sender<Datagram>) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let mut read = || receive(fd.as_raw_fd(), port, &mut buffer).map_err(io::Error::from);
        // ICMP errors of earlier datagrams arrive here, too; a retransmission finds out by itself.
        if let Ok(Some((local, remote, len))) = fd.async_io(Interest::READABLE, &mut read).await {
            let bytes = &buffer[..len];
            let bytes = if has_marker { bytes.strip_prefix(&MARKER) } else { Some(bytes) };
            if let Some(bytes) = bytes {
                // A full queue drops: peers send again.
                let _ = out.try_send(Datagram { local, remote, bytes: bytes.to_vec() });
            }
        }
        if out.is_closed() {
            return;
        }
    }
}

/// One datagram: where it came to, where from, and its length.
fn receive(fd: i32, port: u16, buffer: &mut [u8]) -> nix::Result<Option<(SocketAddr, SocketAddr, usize)>> {
    let mut iov = [IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!(nix::libc::in6_pktinfo, nix::libc::in_pktinfo);
    let message = recvmsg::<SockaddrStorage>(fd, &mut iov, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let len = message.bytes;
    let local = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::from(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(IpAddr::from(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
        }
        _ => None,
    });
    let remote = message.address.and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
    });
    Ok(local.zip(remote).map(|(local, remote)| (SocketAddr::new(local, port), remote, len)))
}
