//! How a control process attaches to the data plane.
//!
//! ```text
//!   control                                     data plane (housekeeper)
//!     connect ─────────────────────────────────► accept; SO_PEERCRED: uid 0 or the configured one
//!     hello: magic, ABI version ───────────────► version the same? nobody else attached?
//!     ◄──────────── welcome + memfd + doorbells (SCM_RIGHTS), or a refusal with its reason
//! ```
//!
//! Later, control passes its IKE sockets over the same connection ([`send_sockets`], [`Attachment::take_sockets`]): the
//! data plane asks the kernel for their cookies, by which the guard at the exit knows control's own packets.
//!
//! The connection then stays open for as long as both live: its hang-up is how either learns of the
//! other's death. Each attach gets fresh memory, so that nothing of a dead control process lingers.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pollux_abi::layout::ABI_VERSION;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use thiserror::Error;

use crate::doorbell::Doorbell;
use crate::run_dir::{RunDirError, SocketPlace};
use crate::spsc::{ControlRing, DataplaneRing, SetupError, SharedRings};

mod wire;

/// What the data plane tells a control process that attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachReply {
    /// Workers; there is one ring more, the housekeeper's.
    pub workers: u16,
    /// Bits of table index in the SPIs that control gives out.
    pub spi_index_width: u32,
    /// Places in the SA table of each direction.
    pub sa_capacity: u32,
    /// Key of the fingerprints by which installed keys are compared.
    pub fingerprint_key: [u8; 32],
}

/// Why the data plane turned a connection away.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// Neither root nor the configured user.
    #[error(
        "user {uid} may not attach; run pollux-control as root or as the user that the configuration names"
    )]
    User {
        /// Who it was.
        uid: u32,
    },
    /// Another control process is attached and alive.
    #[error("another control process, pid {pid}, is attached; stop it first")]
    Attached {
        /// Its process id.
        pid: u32,
    },
    /// The two processes come from different builds.
    #[error(
        "the data plane speaks ABI version {dataplane}, control {control}; install both from one release"
    )]
    Version {
        /// The data plane's.
        dataplane: u32,
        /// Control's.
        control: u32,
    },
}

/// Something went wrong on the data plane's side. The listener stays usable.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// A system call failed.
    #[error("{what} {path}: {source}")]
    Call {
        /// What.
        what: &'static str,
        /// The socket.
        path: PathBuf,
        /// With what.
        #[source]
        source: Errno,
    },
    /// Another data plane listens there.
    #[error("{path}: another data plane listens here; stop it, or give this one a run directory of its own")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A connection was turned away; this is for the log.
    #[error("turned pid {pid} away: {refusal}")]
    Refused {
        /// Who it was.
        pid: u32,
        /// Why.
        refusal: Refusal,
    },
    /// A connection did not say hello, or not in time.
    #[error("pid {pid} connected but said no hello")]
    NoHello {
        /// Who it was.
        pid: u32,
    },
    /// Memory or doorbells could not be made.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The socket could not be made.
    #[error(transparent)]
    RunDir(RunDirError),
}

/// Where control processes connect.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    place: SocketPlace,
    control_uid: u32,
}

impl Listener {
    /// Listens at `path`. Root may attach, and `control_uid` where one is given; the others cannot even
    /// connect.
    ///
    /// A socket that a dead data plane left behind is replaced; one that answers is not.
    pub fn bind(path: &Path, control_uid: Option<u32>) -> Result<Self, HandshakeError> {
        let call = |what, source| HandshakeError::Call { what, path: path.to_owned(), source };
        let refused = |error| match error {
            RunDirError::InUse { path } => HandshakeError::InUse { path },
            other => HandshakeError::RunDir(other),
        };
        let place = SocketPlace::of(path).map_err(refused)?;
        let socket =
            place.bind(SocketType::SEQPACKET, SocketFlags::NONBLOCK, control_uid).map_err(refused)?;
        rustix::net::listen(&socket, BACKLOG).map_err(|e| call("listening at", e))?;
        Ok(Self { socket, path: path.to_owned(), place, control_uid: control_uid.unwrap_or(0) })
    }

    /// Takes one waiting connection through the handshake; `None` when nobody waits.
    ///
    /// Blocks for at most a fifth of a second, and only for a peer whose credentials are good.
    /// `current` is whoever is attached now; dead ones do not count.
    pub fn accept(
        &self,
        attach_reply: &AttachReply,
        current: Option<&Attachment>,
    ) -> Result<Option<(Attachment, Vec<DataplaneRing>)>, HandshakeError> {
        let call = |what, source| HandshakeError::Call { what, path: self.path.clone(), source };
        let connection = match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC) {
            Ok(connection) => connection,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(None),
            Err(source) => return Err(call("accepting at", source)),
        };
        let peer = socket_peercred(&connection).map_err(|e| call("peer credentials at", e))?;
        let (uid, pid) = (peer.uid.as_raw(), peer.pid.as_raw_nonzero().get().unsigned_abs());
        let refuse = |refusal| {
            let _ = rustix::net::send(&connection, &wire::refusal(refusal), SEND_FLAGS);
            drain(&connection);
            Err(HandshakeError::Refused { pid, refusal })
        };
        if uid != 0 && uid != self.control_uid {
            return refuse(Refusal::User { uid });
        }
        let control = receive_hello(&connection).ok_or(HandshakeError::NoHello { pid })?;
        if control != ABI_VERSION {
            return refuse(Refusal::Version { dataplane: ABI_VERSION, control });
        }
        if let Some(attached) = current.filter(|attached| attached.is_alive()) {
            return refuse(Refusal::Attached { pid: attached.pid });
        }
        let shared = SharedRings::create(attach_reply.workers)?;
        send_welcome(&connection, attach_reply, &shared).map_err(|e| call("welcoming at", e))?;
        Ok(Some((Attachment { connection, pid, uid }, shared.rings)))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.place.remove();
    }
}

/// An attached control process, as the data plane sees it. Dropping it hangs up.
#[derive(Debug)]
pub struct Attachment {
    connection: OwnedFd,
    pid: u32,
    uid: u32,
}

impl Attachment {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its user.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Whether it still holds the connection. Poll the descriptor for a hang-up to learn it at once.
    pub fn is_alive(&self) -> bool {
        let mut set = [PollFd::new(&self.connection, PollFlags::IN | PollFlags::RDHUP)];
        let _ = poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        !set[0].revents().intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR)
    }

    /// The sockets that control passed last, if it has passed any since the last call: all of them, in place of those
    /// before. Whoever passes something else passes nothing.
    pub fn take_sockets(&self) -> Option<Vec<OwnedFd>> {
        let mut last = None;
        for _ in 0..DRAIN_MAX {
            let mut octets = [0_u8; 1];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut iov = [std::io::IoSliceMut::new(&mut octets)];
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let Ok(got) = rustix::net::recvmsg(&self.connection, &mut iov, &mut ancillary, flags) else {
                break;
            };
            if got.bytes == 0 {
                break;
            }
            let fds = ancillary.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(received) => Some(received.collect::<Vec<OwnedFd>>()),
                _ => None,
            });
            last = Some(fds.flatten().collect());
        }
        last
    }
}

impl AsFd for Attachment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// Why control could not attach.
#[derive(Debug, Error)]
pub enum AttachError {
    /// Nobody listens.
    #[error("no data plane at {path} ({source}); start pollux-dataplane")]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// With what.
        #[source]
        source: Errno,
    },
    /// It answered, with no.
    #[error("the data plane refused: {0}")]
    Refused(#[from] Refusal),
    /// It answered with something else, or not at all.
    #[error("what answers at {path} is no Pollux data plane of this release: {reason}")]
    Malformed {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Call {
        /// What.
        what: &'static str,
        /// With what.
        #[source]
        source: Errno,
    },
    /// The memory it gave could not be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// Control's side of an attachment.
#[derive(Debug)]
pub struct Session {
    /// What the data plane said of itself.
    pub attach_reply: AttachReply,
    /// One per worker, then the housekeeper's.
    pub rings: Vec<ControlRing>,
    /// Rings when an event waits in any ring whose reader sleeps.
    pub doorbell: Doorbell,
    /// Hangs up when the data plane dies. Nothing is ever read from it.
    pub connection: OwnedFd,
}

impl Session {
    /// Attaches to the data plane that listens at `path`. Blocks, for at most five seconds.
    pub fn attach(path: &Path) -> Result<Self, AttachError> {
        let call = |what, source| AttachError::Call { what, source };
        let address = SocketAddrUnix::new(path).map_err(|e| call("socket path", e))?;
        let connection =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|e| call("socket", e))?;
        rustix::net::connect(&connection, &address)
            .map_err(|source| AttachError::NotRunning { path: path.to_owned(), source })?;
        set_socket_timeout(&connection, Timeout::Recv, Some(ANSWER_TIMEOUT))
            .map_err(|e| call("receive time-out", e))?;
        // A refusal may arrive, and the connection close, before the hello is out: the answer decides.
        let _ = rustix::net::send(&connection, &wire::hello(), SendFlags::NOSIGNAL);
        let malformed = |reason| AttachError::Malformed { path: path.to_owned(), reason };
        let (answer, mut fds) = receive_answer(&connection).map_err(|errno| match errno {
            Errno::AGAIN => malformed("no answer within five seconds"),
            source => call("receiving the answer", source),
        })?;
        let attach_reply = wire::answer(&answer).ok_or_else(|| malformed("the answer cannot be read"))??;
        if fds.len() < 2 {
            return Err(malformed("the answer lacks its descriptors"));
        }
        let ropes = fds.split_off(2);
        let (Some(doorbell), Some(memory)) = (fds.pop(), fds.pop()) else {
            return Err(malformed("the answer lacks its descriptors"));
        };
        let rings = SharedRings::open(attach_reply.workers, memory, ropes)?;
        Ok(Self { attach_reply, rings, doorbell: Doorbell::from_peer(doorbell), connection })
    }
}

/// Passes control's IKE sockets to the data plane, in place of those that it was passed before.
pub fn send_sockets(connection: impl AsFd, sockets: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(Errno::MSGSIZE);
    }
    let iov = [std::io::IoSlice::new(&[SOCKETS_FOLLOW])];
    rustix::net::sendmsg(connection, &iov, &mut ancillary, SEND_FLAGS).map(|_| ())
}

/// Takes in what the peer has sent and stops it from sending more: closing a socket with unread octets
/// would reset the connection, and the peer would never read why it was refused.
fn drain(connection: &OwnedFd) {
    let _ = rustix::net::shutdown(connection, rustix::net::Shutdown::Read);
    let mut octets = [0_u8; wire::HELLO_LEN];
    for _ in 0..DRAIN_MAX {
        if rustix::net::recv(connection, &mut octets, RecvFlags::DONTWAIT).map_or(0, |(n, _)| n) == 0 {
            break;
        }
    }
}

fn receive_hello(connection: &OwnedFd) -> Option<u32> {
    set_socket_timeout(connection, Timeout::Recv, Some(HELLO_TIMEOUT)).ok()?;
    let mut octets = [0_u8; wire::HELLO_LEN];
    let (got, len) = rustix::net::recv(connection, &mut octets, RecvFlags::TRUNC).ok()?;
    if got != octets.len() || len != octets.len() {
        return None;
    }
    wire::hello_version(octets)
}

fn send_welcome(connection: &OwnedFd, attach_reply: &AttachReply, shared: &SharedRings) -> Result<(), Errno> {
    let mut fds = vec![shared.memfd.as_fd()];
    fds.extend(shared.fds.iter().map(AsFd::as_fd));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::MSGSIZE);
    }
    let octets = wire::attach_reply(attach_reply);
    let iov = [std::io::IoSlice::new(&octets)];
    rustix::net::sendmsg(connection, &iov, &mut ancillary, SEND_FLAGS).map(|_| ())
}

fn receive_answer(connection: &OwnedFd) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
    let mut octets = vec![0_u8; wire::ANSWER_LEN];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [std::io::IoSliceMut::new(&mut octets)];
    let got = rustix::net::recvmsg(connection, &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    octets.truncate(got.bytes);
    Ok((octets, fds))
}

/// A peer that says more than this many things before its answer does not get to read it.
const DRAIN_MAX: u32 = 8;
/// Connections that wait while the housekeeper is busy.
const BACKLOG: i32 = 8;
/// The housekeeper has other duties than waiting for a peer that connects and says nothing.
const HELLO_TIMEOUT: Duration = Duration::from_millis(200);
/// The housekeeper may be compiling policies when control connects.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory, control's doorbell, and a ringer for each ring.
const FDS_MAX: usize = 2 + pollux_abi::layout::WORKERS_MAX as usize + 1;
/// IKE sockets that control can pass: two ports of two families, and as many again.
const SOCKETS_MAX: usize = 8;
/// The one octet that carries them.
const SOCKETS_FOLLOW: u8 = b'S';
const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

#[cfg(test)]
mod tests;
