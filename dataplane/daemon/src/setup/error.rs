//! Why the data plane did not come up.

use std::io;

use pollux_aead::EngineError;
use pollux_ebpf::{Role, SteerError};
use pollux_port::{UmemError, XskError};
use pollux_shm::{CheckpointError, HandshakeError, RunDirError};
use rustix::io::Errno;
use thiserror::Error;

use crate::host_port::HostPortError;
use crate::namespace::NamespaceError;
use crate::netlink::NetlinkError;
use crate::query::QueryError;

/// Why the data plane did not come up. Each says what, where and what fixes it.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A folder or file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// With what.
        #[source]
        source: io::Error,
    },
    /// No such interface.
    #[error("interface {name} ({side}): there is none of this name{place}; create it, or fix [dataplane]")]
    NoInterface {
        /// Its name.
        name: String,
        /// `wan` or `lan`.
        side: Role,
        /// In which namespace.
        place: String,
    },
    /// No Ethernet frames.
    #[error(
        "interface {name} ({side}) has the link type {link_type}: a port needs Ethernet; name the Ethernet interface \
         below it, or leave it to the kernel"
    )]
    LinkType {
        /// Its name.
        name: String,
        /// `wan` or `lan`.
        side: Role,
        /// What it is.
        link_type: &'static str,
    },
    /// Fewer queues than workers.
    #[error(
        "interface {name} receives on {has} queues, [dataplane] queues asks for {wants}: ethtool -L {name} {word} {wants}"
    )]
    TooFewQueues {
        /// Its name.
        name: String,
        /// How many are active.
        has: u32,
        /// How many are asked for.
        wants: u16,
        /// What `ethtool -L` calls them.
        word: &'static str,
    },
    /// More queues than workers: what lands on the others would be lost.
    #[error(
        "interface {name} receives on {has} queues, of which [dataplane] queues = {wants} serves the first {wants}; what \
         lands on the others would be lost: ethtool -L {name} {word} {wants}, or queues = {has}"
    )]
    TooManyQueues {
        /// Its name.
        name: String,
        /// How many are active.
        has: u32,
        /// How many are served.
        wants: u16,
        /// What `ethtool -L` calls them.
        word: &'static str,
    },
    /// The number of queues cannot be read.
    #[error("channels of interface {name}")]
    Channels {
        /// Its name.
        name: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// More interfaces than a worker has ports.
    #[error("{count} interfaces are more than the {max} that a worker can have")]
    Interfaces {
        /// What was requested.
        count: usize,
        /// Most.
        max: usize,
    },
    /// A core that is not there, or that this process may not use.
    #[error("[dataplane] cores: there is no core {core} for this process to run on; it may use {allowed}")]
    Core {
        /// Which.
        core: u32,
        /// Those that there are.
        allowed: String,
    },
    /// A socket was closed while it was being set up.
    #[error("a socket closed while it was set up")]
    Closed,
    /// No thread.
    #[error("worker {worker}: no thread: {source}")]
    Thread {
        /// Which worker.
        worker: u16,
        /// With what.
        #[source]
        source: io::Error,
    },
    /// A doorbell.
    #[error("a wake-up socket: {0}")]
    Doorbell(#[from] Errno),
    /// The network namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// Netlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// `pollux0`.
    #[error(transparent)]
    HostPort(#[from] HostPortError),
    /// The XDP program.
    #[error(transparent)]
    Steer(#[from] SteerError),
    /// The packets' memory.
    #[error(transparent)]
    Umem(#[from] UmemError),
    /// An AF_XDP socket.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// The cipher.
    #[error("[dataplane] aead: {0}")]
    Aead(#[from] EngineError),
    /// The ESP engine.
    #[error(transparent)]
    Engine(#[from] pollux_esp::EngineError),
    /// No thread for the counter file.
    #[error("the thread that writes the counter file: {source}")]
    CounterWriter {
        /// With what.
        #[source]
        source: io::Error,
    },
    /// A worker could not be confined.
    #[error(
        "worker {worker} cannot be confined: {reason}; this kernel has to allow it (CONFIG_SECCOMP_FILTER), or write \
         sandbox = false under [dataplane]"
    )]
    Sandbox {
        /// Which worker.
        worker: u16,
        /// What was refused.
        reason: String,
    },
    /// The run directory or the state directory.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The counter file.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The attach socket.
    #[error(transparent)]
    Attach(#[from] HandshakeError),
    /// The statistics socket.
    #[error(transparent)]
    Query(#[from] QueryError),
}
