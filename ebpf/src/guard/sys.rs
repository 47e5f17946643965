//! What aya cannot do: netfilter programs, and links of netfilter and TCX by interface index. Plain bpf(2).
#![allow(unsafe_code, reason = "bpf(2) takes pointers inside a union")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Commands, from `enum bpf_cmd`.
const PROG_LOAD: libc::c_long = 5;
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;

const PROG_TYPE_NETFILTER: u32 = 32;
const ATTACH_NETFILTER: u32 = 45;
const ATTACH_TCX_EGRESS: u32 = 47;
/// `BPF_F_BEFORE`: with nothing to be before, the head of the chain.
const BEFORE: u32 = 1 << 3;

const NF_INET_POST_ROUTING: u32 = 4;

/// Octets of `union bpf_attr` that are used here; the kernel takes what is missing for zeros.
const ATTR_LEN: usize = 80;

/// Room for the verifier's complaint.
const LOG_LEN: u32 = 1 << 16;

/// `union bpf_attr`, written by offset. Aligned as the kernel's.
#[repr(C, align(8))]
struct Attr([u8; ATTR_LEN]);

impl Attr {
    const fn new() -> Self {
        Self([0; ATTR_LEN])
    }

    fn put32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    /// A pointer, which the caller keeps alive through the call.
    fn put_pointer<T>(mut self, offset: usize, pointer: *const T) -> Self {
        self.0[offset..offset + 8].copy_from_slice(&(pointer.expose_provenance() as u64).to_ne_bytes());
        self
    }

    fn put_fd(self, offset: usize, fd: BorrowedFd<'_>) -> Self {
        self.put32(offset, fd.as_raw_fd().cast_unsigned())
    }

    /// # Safety
    ///
    /// Every pointer in the structure leads to memory that lives through the call, of the kind and length that
    /// the command reads or writes there.
    unsafe fn call(mut self, command: libc::c_long) -> io::Result<libc::c_long> {
        // SAFETY: the structure is initialised, aligned and of the length that is passed; its pointers are the
        // caller's promise.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), ATTR_LEN) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }

    /// # Safety
    ///
    /// As [`Self::call`], and the command returns a new descriptor.
    unsafe fn open(self, command: libc::c_long) -> io::Result<OwnedFd> {
        // SAFETY: passed on.
        let fd = unsafe { self.call(command)? };
        let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Loads a netfilter program: 8 octets an instruction. The error carries the verifier's last line.
pub(crate) fn load_netfilter(instructions: &[u8]) -> io::Result<OwnedFd> {
    let count = u32::try_from(instructions.len() / 8).map_err(io::Error::other)?;
    let license = c"Dual BSD/GPL";
    let attr = || {
        Attr::new()
            .put32(0, PROG_TYPE_NETFILTER)
            .put32(4, count)
            .put_pointer(8, instructions.as_ptr())
            .put_pointer(16, license.as_ptr())
            .put32(68, ATTACH_NETFILTER)
    };
    // SAFETY: `instructions` holds `count` instructions of 8 octets, `license` ends in a zero; both are only read
    // and live through the call.
    match unsafe { attr().open(PROG_LOAD) } {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::E2BIG)) => {
            let mut log = vec![0_u8; LOG_LEN as usize];
            let attr = attr().put32(24, 4 | 1).put32(28, LOG_LEN).put_pointer(32, log.as_mut_ptr());
            // SAFETY: as above; and `log` has the length that is passed, is written by nobody else and lives
            // through the call.
            let again = unsafe { attr.open(PROG_LOAD) };
            let text = String::from_utf8_lossy(&log);
            let text: Vec<&str> = text.trim_end_matches('\0').lines().rev().take(3).collect();
            again.map_err(|_| io::Error::other(format!("{error}: {}", text.join(" | "))))
        }
        other => other,
    }
}

/// Links a netfilter program to POSTROUTING of the calling thread's network namespace. `EBUSY` says that the
/// priority has a BPF program already.
pub(crate) fn link_netfilter(program: BorrowedFd<'_>, family: u32, priority: i32) -> io::Result<OwnedFd> {
    let attr = Attr::new()
        .put_fd(0, program)
        .put32(8, ATTACH_NETFILTER)
        .put32(16, family)
        .put32(20, NF_INET_POST_ROUTING)
        .put32(24, priority.cast_unsigned());
    // SAFETY: there is no pointer in it, and the command returns a descriptor.
    unsafe { attr.open(LINK_CREATE) }
}

/// Links a classifier to the egress of an interface of the calling thread's network namespace, before all others.
pub(crate) fn link_egress(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let attr = Attr::new().put_fd(0, program).put32(4, ifindex).put32(8, ATTACH_TCX_EGRESS).put32(12, BEFORE);
    // SAFETY: there is no pointer in it, and the command returns a descriptor.
    unsafe { attr.open(LINK_CREATE) }
}

/// Exchanges the program behind a link.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = Attr::new().put_fd(0, link).put_fd(4, program);
    // SAFETY: there is no pointer in it.
    unsafe { attr.call(LINK_UPDATE) }.map(drop)
}

/// Pins a link or a map.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = Attr::new().put_pointer(0, path.as_ptr()).put_fd(8, object);
    // SAFETY: the path ends in a zero, is only read and lives through the call.
    unsafe { attr.call(OBJ_PIN) }.map(drop)
}

/// Opens what is pinned.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = Attr::new().put_pointer(0, path.as_ptr());
    // SAFETY: the path ends in a zero, is only read and lives through the call, which returns a descriptor.
    unsafe { attr.open(OBJ_GET) }
}

/// The interface that a link of an interface (XDP, TCX) is on; 0 where it has been detached or the interface is gone.
pub(crate) fn link_ifindex(link: BorrowedFd<'_>) -> io::Result<u32> {
    /// `struct bpf_link_info`: type, id, program, then what the type has; for both types an ifindex first.
    #[repr(C, align(8))]
    struct Info([u8; 64]);
    let mut info = Info([0; 64]);
    let attr = Attr::new().put_fd(0, link).put32(4, 64).put_pointer(8, info.0.as_mut_ptr());
    // SAFETY: `info` has the 64 octets that are passed as its length, is written by nobody else and lives through
    // the call.
    unsafe { attr.call(OBJ_GET_INFO_BY_FD) }?;
    let [.., a, b, c, d] = *info.0.first_chunk::<20>().expect("64 octets hold 20");
    Ok(u32::from_ne_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn the_kernel_refuses_what_is_no_object_of_its_own() {
        let file = File::open("/dev/null").expect("a file");
        assert!(link_ifindex(file.as_fd()).is_err());
        assert!(update_link(file.as_fd(), file.as_fd()).is_err());
        assert!(link_egress(file.as_fd(), 1).is_err());
        assert!(link_netfilter(file.as_fd(), 2, -200).is_err());
        assert!(pin(file.as_fd(), Path::new("/tmp/no-bpffs")).is_err());
        assert!(open_pin(Path::new("/dev/null")).is_err());
        assert!(open_pin(Path::new("a\0b")).is_err(), "a zero inside a path");
        assert!(load_netfilter(&[]).is_err());
        assert!(load_netfilter(&[0xff; 16]).is_err());
    }
}
