//! The run directory: folders, sockets and logs, reached by descriptors and never through links.
//!
//! ```text
//!   <run_dir>           root's, 0700; 0711 where control runs as a user of its own, who may then pass through
//!   ├ dataplane.sock    0600; 0660, that user's and root's group, so that both may connect
//!   ├ attach.sock       the same
//!   ├ *.log, *.pid      0600
//!   ├ bpf               the bpffs
//!   └ control           0700; 0770, that user's and root's group: root writes nothing in it through names
//!     ├ control.sock    0600
//!     └ reqids          the same: control's table of the children's reqids
//! ```
//!
//! Modes are set by code: the umask of whoever starts us takes bits away and cannot add any.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;

/// Why the run directory, or something in it, cannot be used.
#[derive(Debug, Error)]
pub enum RunDirError {
    /// A system call failed.
    #[error("{path}: {what}: {source}")]
    Call {
        /// What.
        what: &'static str,
        /// Of what.
        path: PathBuf,
        /// With what.
        #[source]
        source: Errno,
    },
    /// It is somebody else's, who may put links into it.
    #[error(
        "{path} belongs to user {uid}, who could put anything in it; remove it, or: chown {wanted} {path}"
    )]
    Owner {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Whose it has to be.
        wanted: u32,
    },
    /// It is a link or a file.
    #[error("{path} is no directory but a link or a file; find out who made it, and remove it")]
    NotDirectory {
        /// What should be a folder.
        path: PathBuf,
    },
    /// Somebody listens there.
    #[error("{path}: somebody answers here already")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
}

/// A folder, held open.
#[derive(Debug)]
pub struct RunDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl RunDir {
    /// Opens the folder at `path`, which others have made.
    pub fn open(path: &Path) -> Result<Self, RunDirError> {
        let fd = rustix::fs::open(path, FOLDER, Mode::empty()).map_err(call("opening the folder", path))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Makes the folder at `path` where it is missing, and gives it `mode`. It has to be `owner`'s, or ours
    /// where none is given. Folders on the way to it are made as the umask has them.
    pub fn ensure(path: &Path, mode: u32, owner: Option<u32>) -> Result<Self, RunDirError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(RunDirError::NotDirectory { path: path.to_owned() });
        };
        std::fs::create_dir_all(parent)
            .map_err(|error| call("making the folder", parent)(error_number(&error)))?;
        Self::open(parent)?.child(name, mode, owner)
    }

    /// The same for a folder in this one.
    pub fn child(&self, name: impl AsRef<OsStr>, mode: u32, owner: Option<u32>) -> Result<Self, RunDirError> {
        let name = name.as_ref();
        let path = self.path.join(name);
        match rustix::fs::mkdirat(&self.fd, name, Mode::RWXU) {
            Err(Errno::EXIST) => {}
            made => made.map_err(call("making the folder", &path))?,
        }
        let fd = match rustix::fs::openat(&self.fd, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(RunDirError::NotDirectory { path }),
            opened => opened.map_err(call("opening the folder", &path))?,
        };
        let stat = rustix::fs::fstat(&fd).map_err(call("asking whose it is", &path))?;
        let us = rustix::process::geteuid().as_raw();
        let (uid, wanted) = (stat.st_uid, owner.unwrap_or(us));
        if uid != wanted {
            // Only what is still root's is given away.
            if us != 0 || uid != 0 {
                return Err(RunDirError::Owner { path, uid, wanted });
            }
            let flags = AtFlags::EMPTY_PATH;
            rustix::fs::chownat(&fd, "", Some(Uid::from_raw(wanted)), None, flags)
                .map_err(call("giving it to control's user", &path))?;
        }
        if stat.st_mode & 0o7777 != mode {
            // The descriptor is one of a path, which `fchmod` does not take.
            rustix::fs::chmod(descriptor_path(&fd), Mode::from_raw_mode(mode))
                .map_err(call("setting the mode", &path))?;
        }
        Ok(Self { fd, path })
    }

    /// Opens a log or another file in it to read and to append to, its owner's alone; made where it is missing. A link
    /// is refused, and so is what is no file.
    pub fn log(&self, name: &str) -> Result<File, RunDirError> {
        self.file(name, OFlags::APPEND | OFlags::RDWR | OFlags::NONBLOCK)
    }

    /// Puts `text` into a file in it, in the place of what the file held.
    pub fn write(&self, name: &str, text: &str) -> Result<(), RunDirError> {
        let mut file = self.file(name, OFlags::TRUNC | OFlags::WRONLY | OFlags::NONBLOCK)?;
        let written = file.write_all(text.as_bytes());
        written.map_err(|error| call("writing", &self.path.join(name))(error_number(&error)))
    }

    fn file(&self, name: &str, flags: OFlags) -> Result<File, RunDirError> {
        let path = self.path.join(name);
        let flags = flags | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(call("opening without following links", &path))?;
        let stat = rustix::fs::fstat(&fd).map_err(call("asking what it is", &path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink != 1 {
            return Err(call("opening what is no plain file", &path)(Errno::INVAL));
        }
        rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(call("setting the mode of", &path))?;
        Ok(File::from(fd))
    }
}

/// Where a Unix socket is, or will be: an open folder and a name in it.
#[derive(Debug)]
pub struct SocketPlace {
    folder: RunDir,
    name: PathBuf,
}

impl SocketPlace {
    /// The place at `path`, whose folder exists.
    pub fn of(path: &Path) -> Result<Self, RunDirError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(call("naming a socket", path)(Errno::INVAL));
        };
        Ok(Self { folder: RunDir::open(parent)?, name: name.into() })
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.folder.path.join(&self.name)
    }

    /// A bound socket that only we may connect to, from the first moment on, and `owner` where one is given;
    /// our group may then, too, as it has to be root's. What a dead process left behind is replaced; a socket that answers is not.
    pub fn bind(
        &self,
        kind: SocketType,
        flags: SocketFlags,
        owner: Option<u32>,
    ) -> Result<OwnedFd, RunDirError> {
        let path = self.path();
        let address = SocketAddrUnix::new(descriptor_path(&self.folder.fd).join(&self.name))
            .map_err(call("the name of the socket", &path))?;
        let socket = || {
            rustix::net::socket_with(AddressFamily::UNIX, kind, flags | SocketFlags::CLOEXEC, None)
                .map_err(call("making a socket", &path))
        };
        let bound = socket()?;
        // The file takes over the mode of the socket.
        rustix::fs::fchmod(&bound, Mode::RUSR | Mode::WUSR).map_err(call("setting the mode of", &path))?;
        match rustix::net::bind(&bound, &address) {
            Err(Errno::ADDRINUSE) => {
                if self.is_socket() {
                    let probe = socket()?;
                    if rustix::net::connect(&probe, &address) != Err(Errno::CONNREFUSED) {
                        return Err(RunDirError::InUse { path });
                    }
                }
                rustix::fs::unlinkat(&self.folder.fd, &self.name, AtFlags::empty())
                    .map_err(call("removing what is left of an earlier one", &path))?;
                rustix::net::bind(&bound, &address).map_err(call("binding", &path))?;
            }
            other => other.map_err(call("binding", &path))?,
        }
        if let Some(owner) = owner.filter(|&owner| owner != rustix::process::geteuid().as_raw()) {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&self.folder.fd, &self.name, Some(Uid::from_raw(owner)), None, flags)
                .map_err(call("giving it to control's user", &path))?;
            // By name, as `fchmod` no longer reaches the file: in this folder only we give names. The umask has
            // taken the group's rights away.
            rustix::fs::chmodat(&self.folder.fd, &self.name, Mode::from_raw_mode(0o660), AtFlags::empty())
                .map_err(call("setting the mode of", &path))?;
        }
        Ok(bound)
    }

    /// Removes the socket; best effort, as one that is left behind is replaced at the next start.
    pub fn remove(&self) {
        if self.is_socket() {
            let _ = rustix::fs::unlinkat(&self.folder.fd, &self.name, AtFlags::empty());
        }
    }

    fn is_socket(&self) -> bool {
        rustix::fs::statat(&self.folder.fd, &self.name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
    }
}

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A path that leads to what is open, whatever lies at its name by now.
fn descriptor_path(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

fn call(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> RunDirError {
    let path = path.to_owned();
    move |source| RunDirError::Call { what, path, source }
}

fn error_number(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests;
