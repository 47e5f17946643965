//! Socket options that no safe wrapper has.
#![allow(unsafe_code, reason = "getsockopt and setsockopt of integers")]

use core::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// An integer socket option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntOption {
    /// Microseconds that a receive polls the device (`SO_BUSY_POLL`).
    BusyPoll,
    /// The device's interrupts stay off while the socket polls (`SO_PREFER_BUSY_POLL`, Linux 5.11).
    PreferBusyPoll,
    /// Packets per poll (`SO_BUSY_POLL_BUDGET`, Linux 5.11).
    BusyPollBudget,
    /// NAPI id of the queue that the last packet came from (`SO_INCOMING_NAPI_ID`).
    IncomingNapiId,
    /// Descriptors that one copy-mode send takes (`XDP_MAX_TX_SKB_BUDGET`, Linux 6.17).
    MaxTxSkbBudget,
}

impl IntOption {
    const fn numbers(self) -> (c_int, c_int) {
        match self {
            Self::BusyPoll => (libc::SOL_SOCKET, libc::SO_BUSY_POLL),
            Self::PreferBusyPoll => (libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL),
            Self::BusyPollBudget => (libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET),
            Self::IncomingNapiId => (libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID),
            Self::MaxTxSkbBudget => (libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET),
        }
    }
}

pub(crate) fn set(fd: impl AsFd, option: IntOption, value: u32) -> Result<(), Errno> {
    let (level, name) = option.numbers();
    let value = c_int::try_from(value).map_err(|_| Errno::INVAL)?;
    // SAFETY: the descriptor is open for as long as it is borrowed; pointer and length are those of
    // `value`, an initialised integer that the kernel only reads.
    let result =
        unsafe { libc::setsockopt(fd.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), LEN) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

pub(crate) fn get(fd: impl AsFd, option: IntOption) -> Result<u32, Errno> {
    let (level, name) = option.numbers();
    let mut value: c_int = 0;
    let mut len = LEN;
    // SAFETY: the descriptor is open for as long as it is borrowed; the kernel writes at most `len` octets
    // to `value`, which are all of it, and the new length to `len`; both live through the call.
    let result = unsafe {
        libc::getsockopt(fd.as_fd().as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
    };
    if result == 0 { Ok(u32::try_from(value).unwrap_or(0)) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

const XDP_MAX_TX_SKB_BUDGET: c_int = 9;
#[expect(clippy::cast_possible_truncation, reason = "four")]
const LEN: libc::socklen_t = size_of::<c_int>() as libc::socklen_t;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_back_and_refusals_have_a_reason() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("socket");
        assert_eq!(get(&socket, IntOption::IncomingNapiId), Ok(0));
        assert_eq!(set(&socket, IntOption::BusyPoll, u32::MAX), Err(Errno::INVAL));
        assert!(set(&socket, IntOption::MaxTxSkbBudget, 64).is_err(), "it is no AF_XDP socket");
        let file = std::fs::File::open("/dev/null").expect("file");
        assert_eq!(get(&file, IntOption::BusyPoll), Err(Errno::NOTSOCK));
    }
}
