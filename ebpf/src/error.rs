//! What can go wrong between the loader and the kernel.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::{ProgramError, links::LinkError};
use ipnet::IpNet;
use pollux_abi::{IfIndex, QueueId};

use crate::abi::{Mode, PORT_SLOTS, QUEUES_PER_PORT};
use crate::guard::GuardLayer;
use crate::pairs::CLASS_PAIRS_MAX;

/// Why steering could not be set up or changed. The maps are then as before, or a superset that protects more.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// The pin directory is on another file system.
    #[error("{path} is not on a bpffs: mount one there, or give the run directory")]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The lasting mount namespace could not be entered.
    #[error("cannot enter the mount namespace that keeps the pinned programs: {source}")]
    MountNamespace {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The object was refused.
    #[error("cannot load the XDP object: {0}")]
    Object(#[from] EbpfError),
    /// The object lacks a map or program: it was not built from this source.
    #[error("the XDP object has no `{name}`")]
    Missing {
        /// Map or program.
        name: &'static str,
    },
    /// The verifier or the kernel refused a program.
    #[error("cannot load XDP program `{program}`: {source}")]
    Load {
        /// Its name.
        program: &'static str,
        /// The kernel's answer, with the verifier's log.
        source: ProgramError,
    },
    /// A map operation failed.
    #[error("map `{map}`: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The kernel's answer.
        source: MapError,
    },
    /// The kernel has no such interface in this network namespace, or no program could be attached.
    #[error("cannot attach XDP to {name} (ifindex {ifindex}) in {mode} mode: {reason}")]
    Attach {
        /// The interface's name.
        name: String,
        /// Its index.
        ifindex: IfIndex,
        /// The mode that was tried last.
        mode: Mode,
        /// The kernel's answer.
        reason: String,
    },
    /// Someone else's XDP program is on the interface.
    #[error(
        "{name} (ifindex {ifindex}) has an XDP program of someone else in {mode} mode: `ip link set dev {name} {} off` \
         removes it; where that is refused, `bpftool link` shows whose it is",
        iproute2(*mode)
    )]
    Occupied {
        /// The interface's name.
        name: String,
        /// Its index.
        ifindex: IfIndex,
        /// The mode of that program: `ip link set … xdp off` alone does not reach every one.
        mode: Mode,
    },
    /// The program runs, but without a link it cannot be pinned and would die with the process.
    #[error(
        "{name} (ifindex {ifindex}): the kernel gave no bpf_link (Linux 5.9 or later is needed): {source}"
    )]
    NoLink {
        /// The interface's name.
        name: String,
        /// Its index.
        ifindex: IfIndex,
        /// aya's answer.
        source: LinkError,
    },
    /// Generic mode runs, but merged packets would be dropped by it.
    #[error("cannot switch off gro and lro of {name}, which generic XDP mode asks for: {source}")]
    Offload {
        /// The interface's name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A layer of the guard at the exit is missing.
    #[error("cannot attach the {layer} layer of the guard: {source}")]
    Guard {
        /// Which.
        layer: GuardLayer,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A link could not be pinned.
    #[error("cannot pin {path}: {source}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: PinError,
    },
    /// Every slot is taken.
    #[error("no more than {PORT_SLOTS} ports; ifindex {ifindex} is one too many")]
    TooManyPorts {
        /// The interface that found no slot.
        ifindex: IfIndex,
    },
    /// `add_port` or `attach` comes first.
    #[error("ifindex {ifindex} is no port yet")]
    UnknownPort {
        /// The interface.
        ifindex: IfIndex,
    },
    /// The XSKMAP has no room for the queue.
    #[error("queue {queue} of ifindex {ifindex}: the XDP program serves queues 0 to {}", QUEUES_PER_PORT - 1)]
    QueueOutOfRange {
        /// The interface.
        ifindex: IfIndex,
        /// The queue.
        queue: QueueId,
    },
    /// The prefixes of a pair are of different IP versions.
    #[error("protected pair {local} ↔ {remote} mixes IPv4 and IPv6")]
    MixedFamilies {
        /// Ours.
        local: IpNet,
        /// The peer's.
        remote: IpNet,
    },
    /// More different prefixes on one side than the tries were made for. The old ones count until the update ends.
    #[error(
        "{needed} {side} prefixes, but the XDP program was loaded for {capacity} (old ones count during a change)"
    )]
    TooManyPrefixes {
        /// `local` or `remote`.
        side: &'static str,
        /// Prefixes of old and new set together.
        needed: usize,
        /// What was given at load.
        capacity: u32,
    },
    /// Prefixes nested in each other on both sides multiply; this configuration multiplies too much.
    #[error(
        "the protected pairs nest so deeply that more than {CLASS_PAIRS_MAX} combinations would be needed"
    )]
    TooManyPairs,
    /// `BPF_PROG_TEST_RUN` refused.
    #[error("test run of {len} octets: {source}")]
    TestRun {
        /// Length of the frame; the kernel wants at least 14 octets.
        len: usize,
        /// The kernel's answer.
        source: ProgramError,
    },
    /// The program gave back a number that is no XDP action.
    #[error("XDP program returned {value}")]
    UnknownAction {
        /// What it returned.
        value: u32,
    },
}

impl SteerError {
    pub(crate) fn map(map: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map { map, source }
    }
}

/// What `ip link` calls XDP in a mode.
const fn iproute2(mode: Mode) -> &'static str {
    match mode {
        Mode::Driver => "xdpdrv",
        Mode::Generic => "xdpgeneric",
    }
}
