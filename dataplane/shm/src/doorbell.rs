//! Waking a reader that sleeps: a flag in shared memory, and a datagram when the flag is up.
//!
//! The reader that wants to block raises the flag, then looks at the ring once more; the writer commits,
//! then looks at the flag. Between either pair stands a full fence, so that at least one of them sees the
//! other (a store followed by a load of another word may otherwise be reordered).
//!
//! A doorbell is one end of a socket pair and the ringer the other, not a shared eventfd: each end has file
//! status flags of its own, and every call says `MSG_DONTWAIT`, so that a hostile holder of the ringer can
//! neither make the holder of the doorbell block nor swallow what woke it for another reason.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The end that is waited on: put its descriptor into a poll set.
#[derive(Debug)]
pub struct Doorbell(OwnedFd);

/// The end that is pulled.
#[derive(Debug)]
pub struct DoorbellRinger(OwnedFd);

impl Doorbell {
    /// A doorbell and its ringer.
    pub fn pair() -> Result<(Self, DoorbellRinger), Errno> {
        let (doorbell, ringer) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        Ok((Self(doorbell), DoorbellRinger(ringer)))
    }

    /// A doorbell that another process gave us.
    pub fn from_peer(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Forgets all pulls so far; returns how many there were. Never blocks, and stops after a bound, so
    /// that a peer that never stops pulling cannot keep the caller here.
    pub fn quiet(&self) -> u32 {
        let mut pulls = 0;
        let mut octet = [0_u8; 1];
        for _ in 0..PULLS_PER_QUIET {
            match rustix::net::recv(&self.0, &mut octet, RecvFlags::DONTWAIT) {
                Ok(_) => pulls += 1,
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(_) => break,
            }
        }
        pulls
    }

    /// The descriptor, for an asynchronous runtime.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}

impl DoorbellRinger {
    /// A ringer that another process gave us.
    pub fn from_peer(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Wakes whoever waits on the doorbell. Never blocks; a doorbell with unread pulls is rung enough.
    pub fn pull(&self) {
        let _ = rustix::net::send(&self.0, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// A second ringer to the same doorbell.
    pub fn try_clone(&self) -> Result<Self, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.0, 0).map(Self)
    }

    /// The descriptor, to be passed to another process.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for DoorbellRinger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// More than the queue of a datagram socket holds (`net.unix.max_dgram_qlen`, 512 at most by default).
const PULLS_PER_QUIET: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn readable(doorbell: &Doorbell) -> PollFlags {
        let mut set = [PollFd::new(doorbell, PollFlags::IN)];
        poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll");
        set[0].revents()
    }

    #[test]
    fn pulled_bell_is_readable_until_quiet() {
        let (doorbell, ringer) = Doorbell::pair().expect("pair");
        assert_eq!(readable(&doorbell), PollFlags::empty());
        ringer.pull();
        ringer.pull();
        assert_eq!(readable(&doorbell), PollFlags::IN);
        assert_eq!(doorbell.quiet(), 2);
        assert_eq!(readable(&doorbell), PollFlags::empty());
    }

    #[test]
    fn hostile_rope_holder_neither_blocks_nor_deafens_the_bell() {
        let (doorbell, ringer) = Doorbell::pair().expect("pair");
        let ours = ringer.try_clone().expect("clone");
        // Clears O_NONBLOCK on its own end, floods it, shuts it down and closes it.
        rustix::io::ioctl_fionbio(&ringer, false).expect("ioctl");
        (0..5000).for_each(|_| ringer.pull());
        assert!(doorbell.quiet() > 0);
        assert!(rustix::fs::fcntl_getfl(&doorbell).expect("flags").contains(rustix::fs::OFlags::NONBLOCK));
        drop(ringer);
        assert_eq!(readable(&doorbell) & PollFlags::HUP, PollFlags::empty());
        ours.pull();
        assert_eq!(doorbell.quiet(), 1);
    }
}
