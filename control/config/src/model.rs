//! What a configuration says once it is known to be right. Made by [`crate::load`] alone.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use pollux_abi::command::{Direction, EncapPorts, Lifetimes};
use pollux_abi::dscp::{DfMark, DscpMark, EcnMode};
use pollux_abi::{EspSuite, Reqid, Spi, TrafficSelector};

pub use crate::model_ike::{
    Auth, AuthMethod, Child, ChildMode, ChildSelector, Connection, DpdAction, StartAction, UniquePolicy,
};

/// A whole configuration file, without its secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it came from.
    pub file: PathBuf,
    /// Folders and sockets.
    pub paths: Paths,
    /// What the data plane needs.
    pub dataplane: Dataplane,
    /// What control needs beside connections.
    pub control: Control,
    /// Manual SAs, in the order of the file.
    pub sas: Vec<ManualSa>,
    /// Policies, in the order of the file: the first that matches decides.
    pub policies: Vec<Policy>,
    /// IKE connections, in the order of the file.
    pub connections: Vec<Connection>,
    /// What is legal in the file and seldom meant.
    pub warnings: Vec<crate::Problem>,
}

/// Where a gateway is to be found: what is left of a configuration whose other parts may have mistakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The file it came from.
    pub file: PathBuf,
    /// Folders and sockets.
    pub paths: Paths,
    /// The network namespace of both processes.
    pub netns: Option<String>,
}

impl Config {
    /// Mode of the run directory: where control runs as another user it passes through, to its own folder
    /// and to the sockets that are its.
    pub fn run_dir_mode(&self) -> u32 {
        if self.has_control_user() { 0o711 } else { 0o700 }
    }

    /// Mode of control's own folder, whose group is root's: control may be started as root all the same,
    /// without the right to pass over modes.
    pub fn control_dir_mode(&self) -> u32 {
        if self.has_control_user() { 0o770 } else { 0o700 }
    }

    fn has_control_user(&self) -> bool {
        self.dataplane.control_uid.is_some_and(|uid| uid != 0)
    }
}

/// Name of control's own folder in the run directory.
pub const CONTROL_DIR: &str = "control";

/// Folders of one gateway. Two gateways on one host need different ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Sockets, logs, pid files and the bpffs mount. Default `/run/pollux`.
    pub run_dir: PathBuf,
    /// The counter file of manual SAs. Default `/var/lib/pollux`.
    pub state_dir: PathBuf,
    /// The secrets file; relative to the configuration file's folder. `None`: there are no secrets.
    pub secrets: Option<PathBuf>,
}

impl Paths {
    /// Where the data plane answers queries, one JSON object a line ([`crate::api::DataplaneRequest`]).
    pub fn dataplane_socket(&self) -> PathBuf {
        self.run_dir.join("dataplane.sock")
    }

    /// Where control attaches to the data plane's rings.
    pub fn attach_socket(&self) -> PathBuf {
        self.run_dir.join("attach.sock")
    }

    /// Control's own folder in the run directory.
    pub fn control_dir(&self) -> PathBuf {
        self.run_dir.join(CONTROL_DIR)
    }

    /// Where control answers the operator ([`crate::api::ControlRequest`]).
    pub fn control_socket(&self) -> PathBuf {
        self.control_dir().join("control.sock")
    }

    /// The counter file of manual SAs.
    pub fn counter_file(&self) -> PathBuf {
        self.state_dir.join("counters")
    }

    /// Name, in the run directory, of a daemon's log, where `pollux up` started it.
    pub fn log_name(daemon: &str) -> String {
        format!("{daemon}.log")
    }

    /// Name, in the run directory, of a daemon's pid file.
    pub fn pid_name(daemon: &str) -> String {
        format!("{daemon}.pid")
    }
}

/// What a worker does when its rings are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleMode {
    /// Polls for ever: a core of its own.
    Spin,
    /// Polls for a while, then blocks on its sockets and an eventfd.
    Adaptive,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver where it can, else generic, with the reason printed.
    Auto,
    /// In the driver or not at all.
    Driver,
    /// In the kernel's generic hook.
    Generic,
}

/// Whether AF_XDP moves frames without a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Zero-copy where the driver has it.
    Auto,
    /// Copy mode.
    Copy,
    /// Zero-copy or not at all.
    Require,
}

/// `[dataplane]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataplane {
    /// Network namespace that both daemons enter: a name of `ip netns`, or a path. `None`: stay.
    pub netns: Option<String>,
    /// Interfaces towards the peers (ESP).
    pub wan: Vec<String>,
    /// Interfaces towards the media (clear).
    pub lan: Vec<String>,
    /// Queues used on each interface, and so the number of workers.
    pub queues: u16,
    /// One core for each worker; empty: chosen at start and printed.
    pub cores: Vec<u32>,
    /// What idle workers do.
    pub idle: IdleMode,
    /// How long an adaptive worker polls empty rings before it blocks.
    pub spin: Duration,
    /// XDP mode.
    pub xdp: XdpMode,
    /// Copy or zero-copy.
    pub zero_copy: ZeroCopy,
    /// Socket busy-poll where the NIC has a NAPI id.
    pub busy_poll: bool,
    /// Name of the AEAD kernel, or `auto`.
    pub aead: String,
    /// Ask for huge pages.
    pub huge_pages: bool,
    /// UMEM frames of each worker; a power of two.
    pub frames_per_worker: u32,
    /// Octets of a UMEM frame: 2048 or 4096; none: chosen at start by the interfaces' MTU and printed.
    pub frame_len: Option<u32>,
    /// Slots of a receive ring; a power of two.
    pub rx_ring: u32,
    /// Slots of a transmit ring; a power of two.
    pub tx_ring: u32,
    /// Slots of a fill ring; a power of two.
    pub fill_ring: u32,
    /// Slots of a completion ring; a power of two.
    pub completion_ring: u32,
    /// SAs of each direction that the tables hold; a power of two.
    pub sa_capacity: u32,
    /// Media older than this are discarded after a stall.
    pub stale: Duration,
    /// User that may attach as control, beside root.
    pub control_uid: Option<u32>,
    /// Whether `pollux0` is made, through which the gateway itself speaks to protected networks.
    pub host_port: bool,
    /// Whether the data plane gives up, once it is up, what rights it no longer needs.
    pub sandbox: bool,
    /// Log level: `error`, `warn`, `info`, `debug`, `trace`, or a `tracing` filter.
    pub log: String,
}

/// `[control]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// How long a removed or rekeyed inbound SA goes on decrypting.
    pub overlap: Duration,
    /// How long control waits for the data plane to acknowledge an SA.
    pub ack_deadline: Duration,
    /// Our IKE port.
    pub ike_port: u16,
    /// Our port for IKE and ESP behind NAT.
    pub natt_port: u16,
    /// NAT keepalive interval.
    pub keepalive: Duration,
    /// First retransmission of an IKE request.
    pub retransmit_timeout: Duration,
    /// Retransmissions before a peer is given up.
    pub retransmit_tries: u32,
    /// Half-open IKE SAs beyond which COOKIEs are asked for.
    pub cookie_threshold: u32,
    /// Half-open IKE SAs of one IPv4 address or IPv6 /64 that has returned a cookie.
    pub half_open_per_source: u32,
    /// Half-open IKE SAs in all whose sources have returned a cookie.
    pub half_open_max: u32,
    /// IKE SAs in all.
    pub ike_sa_max: u32,
    /// File that negotiated keys are written to, for tshark. `None` (the default): never.
    pub key_log: Option<PathBuf>,
    /// Whether control gives up, once it is up, all rights but that to bind ports 500 and 4500.
    pub sandbox: bool,
    /// Log level, as in [`Dataplane::log`].
    pub log: String,
}

/// `[[sa]]`: what `ip xfrm state add` says.
#[derive(Clone, Debug, PartialEq)]
pub struct ManualSa {
    /// The SA's name in this file, by which a reload knows it again.
    pub name: String,
    /// Line of its heading.
    pub line: u32,
    /// Which way it works.
    pub direction: Direction,
    /// SPI; any value from 256.
    pub spi: Spi,
    /// Cipher and ICV.
    pub suite: EspSuite,
    /// Name of its key in the secrets file.
    pub key: String,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Replay window (inbound).
    pub window_packets: u32,
    /// First sequence number if no life of this SA used a later one; at least 1.
    pub seq: u64,
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// ESP in UDP.
    pub encap: Option<EncapPorts>,
    /// Ties it to policies.
    pub reqid: Reqid,
    /// The worker that owns it; `None`: control spreads SAs over the workers.
    pub worker: Option<u16>,
    /// Outer DSCP.
    pub dscp: DscpMark,
    /// ECN across the tunnel.
    pub ecn: EcnMode,
    /// Outer DF.
    pub df: DfMark,
    /// Limits by bytes, packets and age.
    pub lifetimes: Lifetimes,
    /// Our side's selectors; taken from the policies of the reqid where the file has none.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's side's selectors.
    pub remote_ts: Vec<TrafficSelector>,
}

/// What `[[policy]]` does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// ESP under an SA with this reqid.
    Protect(Reqid),
    /// In clear.
    Bypass,
    /// Dropped.
    Discard,
}

/// `[[policy]]`: what `ip xfrm policy add` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The policy's name.
    pub name: String,
    /// Line of its heading.
    pub line: u32,
    /// Directions it is about; both where the file does not say.
    pub directions: Vec<Direction>,
    /// What happens.
    pub action: Action,
    /// Our side.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's side.
    pub remote_ts: Vec<TrafficSelector>,
}
