//! Word that somebody has touched what is ours: rules at all, and routes of our tables.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::route::LockRoute;
use super::socket::{NetlinkError, messages};

/// A socket that hears of rules and routes.
#[derive(Debug)]
pub struct RuleWatch {
    socket: Socket,
    buffer: Vec<u8>,
    tables: RangeInclusive<u32>,
}

/// Room for one read; the kernel never makes a notification larger than its own 32 KB.
const READ_LEN: usize = 64 * 1024;

impl RuleWatch {
    /// Subscribes in the calling thread's network namespace; `tables` are ours.
    pub fn open(tables: RangeInclusive<u32>) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::socket("socket"))?;
        socket.bind_auto().map_err(NetlinkError::socket("bind"))?;
        socket.set_non_blocking(true).map_err(NetlinkError::socket("O_NONBLOCK"))?;
        for group in [
            libc::RTNLGRP_IPV4_RULE,
            libc::RTNLGRP_IPV6_RULE,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
        ] {
            socket.add_membership(group).map_err(NetlinkError::socket("NETLINK_ADD_MEMBERSHIP"))?;
        }
        Ok(Self { socket, buffer: Vec::with_capacity(READ_LEN), tables })
    }

    /// Whether rules or our routes have changed since the last look, or may have.
    pub fn changed(&mut self) -> Result<bool, NetlinkError> {
        let mut changed = false;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => changed |= messages(&self.buffer).any(|message| self.concerns(&message.payload)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel had to drop some.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(source) => return Err(NetlinkError::Socket { call: "recv", source }),
            }
        }
    }

    fn concerns(&self, payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
        let NetlinkPayload::InnerMessage(message) = payload else { return false };
        match message {
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => true,
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                LockRoute::place_of(route).is_some_and(|(table, ..)| self.tables.contains(&table))
            }
            _ => false,
        }
    }
}

impl AsFd for RuleWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
