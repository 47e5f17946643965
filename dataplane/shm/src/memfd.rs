//! Anonymous files: made, sized, sealed, on huge pages where there are any.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use thiserror::Error;

/// Size of the pages behind a memfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// The system's ordinary pages.
    Normal,
    /// Pages of 2 MiB, from `vm.nr_hugepages`.
    Huge2M,
}

impl Pages {
    /// Octets in one page.
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::Normal => 4096,
            Self::Huge2M => 2 << 20,
        }
    }
}

/// Why a memfd could not be made or trusted.
#[derive(Debug, Error)]
pub enum MemfdError {
    /// A system call failed.
    #[error("{call} of a memory file: {source}")]
    Call {
        /// Which one.
        call: &'static str,
        /// With what.
        #[source]
        source: Errno,
    },
    /// A received file may still shrink: reading it could raise SIGBUS.
    #[error("the memory file is not sealed against resizing")]
    NotSealed,
    /// A received file is smaller than what was agreed.
    #[error("the memory file has {got} octets, {needed} are needed")]
    TooShort {
        /// Its size.
        got: u64,
        /// What is needed.
        needed: u64,
    },
}

/// An anonymous file.
#[derive(Debug)]
pub struct Memfd {
    fd: OwnedFd,
    len: usize,
}

impl Memfd {
    /// A file of `len` octets, rounded up to whole pages, filled with zeros. Not yet sealed.
    ///
    /// With [`Pages::Huge2M`] this succeeds even where the system has no huge page left: mapping is what
    /// fails then, with `ENOMEM`.
    pub fn create(name: &str, len: usize, pages: Pages) -> Result<Self, MemfdError> {
        let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        if pages == Pages::Huge2M {
            flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        }
        let fd = rustix::fs::memfd_create(name, flags)
            .map_err(|source| MemfdError::Call { call: "creation", source })?;
        let len = len.next_multiple_of(pages.len_bytes());
        rustix::fs::ftruncate(&fd, len as u64)
            .map_err(|source| MemfdError::Call { call: "sizing", source })?;
        Ok(Self { fd, len })
    }

    /// Forbids every later change of the size, and of this very decision.
    pub fn seal(&self) -> Result<(), MemfdError> {
        rustix::fs::fcntl_add_seals(&self.fd, SEALS)
            .map_err(|source| MemfdError::Call { call: "sealing", source })
    }

    /// A file that another process gave us, if it is sealed and at least `needed` octets long.
    pub fn from_peer(fd: OwnedFd, needed: usize) -> Result<Self, MemfdError> {
        let seals = rustix::fs::fcntl_get_seals(&fd)
            .map_err(|source| MemfdError::Call { call: "asking for the seals", source })?;
        if !seals.contains(SEALS) {
            return Err(MemfdError::NotSealed);
        }
        let stat = rustix::fs::fstat(&fd)
            .map_err(|source| MemfdError::Call { call: "asking for the size", source })?;
        let got = u64::try_from(stat.st_size).unwrap_or(0);
        if got < needed as u64 {
            return Err(MemfdError::TooShort { got, needed: needed as u64 });
        }
        Ok(Self { fd, len: needed })
    }

    /// Octets in the file.
    pub fn len_bytes(&self) -> usize {
        self.len
    }
}

impl AsFd for Memfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_file_cannot_be_resized_or_unsealed() {
        let memfd = Memfd::create("pollux-test", 5000, Pages::Normal).expect("memfd");
        assert_eq!(memfd.len_bytes(), 8192);
        memfd.seal().expect("seal");
        assert_eq!(rustix::fs::ftruncate(&memfd, 4096), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&memfd, 1 << 20), Err(Errno::PERM));
        assert_eq!(rustix::fs::fcntl_add_seals(&memfd, SealFlags::WRITE), Err(Errno::PERM));
    }

    #[test]
    fn unsealed_or_short_file_of_a_peer_is_refused() {
        let memfd = Memfd::create("pollux-test", 4096, Pages::Normal).expect("memfd");
        let copy = |m: &Memfd| rustix::io::fcntl_dupfd_cloexec(m, 0).expect("dup");
        assert!(matches!(Memfd::from_peer(copy(&memfd), 4096), Err(MemfdError::NotSealed)));
        memfd.seal().expect("seal");
        assert!(matches!(
            Memfd::from_peer(copy(&memfd), 8192),
            Err(MemfdError::TooShort { got: 4096, needed: 8192 })
        ));
        assert!(Memfd::from_peer(copy(&memfd), 4096).is_ok());
    }
}
