//! Route netlink sockets: requests with acknowledgement, dumps, and the follower of notifications.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use thiserror::Error;

/// Why the kernel's network state could not be read or changed.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// A socket call failed.
    #[error("netlink: {call}: {source}")]
    Socket {
        /// Which call.
        call: &'static str,
        /// What it returned.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("netlink: {what}: {source}")]
    Refused {
        /// What was asked.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Rules and routes of ours do not stay.
    #[error(
        "{rules} rules and {routes} routes of ours are gone as soon as they are written: another program removes them"
    )]
    NotKept {
        /// Rules that were missing in the end.
        rules: usize,
        /// Routes.
        routes: usize,
    },
    /// A dump was disturbed again and again by changes.
    #[error("netlink: {what}: the kernel's tables changed during each of {tries} dumps")]
    Unsettled {
        /// What was dumped.
        what: String,
        /// How often.
        tries: u32,
    },
}

impl NetlinkError {
    /// Whether the kernel said that the thing is already there.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Whether the kernel said that there is no such thing.
    pub fn is_missing(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::EADDRNOTAVAIL))
    }

    fn errno(&self) -> Option<i32> {
        match self {
            Self::Socket { source, .. } | Self::Refused { source, .. } => source.raw_os_error(),
            Self::Unsettled { .. } | Self::NotKept { .. } => None,
        }
    }

    pub(super) fn socket(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Socket { call, source }
    }
}

/// A socket for requests in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Rtnl {
    socket: Socket,
    sequence: u32,
}

/// How often a dump is repeated when the tables change under it.
const DUMP_TRIES: u32 = 5;

impl Rtnl {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::socket("socket"))?;
        socket.bind_auto().map_err(NetlinkError::socket("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(NetlinkError::socket("connect"))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request and waits for its acknowledgement. `what` names it in an error.
    pub fn request(
        &mut self,
        what: impl Into<String>,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.receive(what.into(), &mut |_| {}).map(|_| ())
    }

    /// Dumps a table; `each` sees every entry. A dump that was disturbed is repeated, and shows nothing of its own.
    pub fn dump(
        &mut self,
        what: &str,
        message: &RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), NetlinkError> {
        for _ in 0..DUMP_TRIES {
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            // A dump that was disturbed may hold what is gone by now, and half of what has changed.
            let mut entries = Vec::new();
            if self.receive(what.to_owned(), &mut |entry| entries.push(entry))? {
                entries.into_iter().for_each(&mut each);
                return Ok(());
            }
        }
        Err(NetlinkError::Unsettled { what: what.to_owned(), tries: DUMP_TRIES })
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut octets = vec![0; packet.buffer_len()];
        packet.serialize(&mut octets);
        self.socket.send(&octets, 0).map_err(NetlinkError::socket("send"))?;
        Ok(())
    }

    /// Reads until the answer to the last request is complete; `false` if a dump was disturbed.
    fn receive(
        &mut self,
        what: String,
        each: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> Result<bool, NetlinkError> {
        let mut settled = true;
        loop {
            let (octets, _) = self.socket.recv_from_full().map_err(NetlinkError::socket("recv"))?;
            for message in messages(&octets) {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                settled &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(settled),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(settled),
                        Some(_) => return Err(NetlinkError::Refused { what, source: error.to_io() }),
                    },
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    _ => {}
                }
            }
        }
    }
}

/// A socket that hears of every change of links, addresses, routes and neighbours.
#[derive(Debug)]
pub struct Follower {
    socket: Socket,
    buffer: Vec<u8>,
}

/// Room for one read; the kernel never makes a notification larger than its own 32 KB.
const READ_LEN: usize = 64 * 1024;

/// What the kernel may queue for us before it drops notifications (and says so).
const RECEIVE_BUFFER_LEN: usize = 4 * 1024 * 1024;

impl Follower {
    /// Subscribes in the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::socket("socket"))?;
        socket.bind_auto().map_err(NetlinkError::socket("bind"))?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER_LEN).map_err(NetlinkError::socket("SO_RCVBUF"))?;
        socket.set_non_blocking(true).map_err(NetlinkError::socket("O_NONBLOCK"))?;
        for group in [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_NEIGH,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV6_ROUTE,
        ] {
            socket.add_membership(group).map_err(NetlinkError::socket("NETLINK_ADD_MEMBERSHIP"))?;
        }
        Ok(Self { socket, buffer: Vec::with_capacity(READ_LEN) })
    }

    /// Hands every waiting notification to `each`. `false` says that the kernel had to drop some: what is
    /// known must be read anew.
    pub fn drain(&mut self, mut each: impl FnMut(RouteNetlinkMessage)) -> Result<bool, NetlinkError> {
        let mut complete = true;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(complete),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    complete = false;
                    continue;
                }
                Err(source) => return Err(NetlinkError::Socket { call: "recv", source }),
            }
            for message in messages(&self.buffer) {
                if let NetlinkPayload::InnerMessage(inner) = message.payload {
                    each(inner);
                }
            }
        }
    }
}

impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Every message of a datagram. One that this library cannot read is passed over: the kernel may know
/// attributes of which it does not.
pub(super) fn messages(mut octets: &[u8]) -> impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>> + '_ {
    core::iter::from_fn(move || {
        loop {
            let length = octets.first_chunk::<4>().map(|head| u32::from_ne_bytes(*head) as usize)?;
            if length < 16 || length > octets.len() {
                return None;
            }
            let message = NetlinkMessage::deserialize(&octets[..length]);
            octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
            if let Ok(message) = message {
                return Some(message);
            }
        }
    })
}
