//! The data plane's socket: state and counters, read-only except for `stop`.

use std::net::IpAddr;

use pollux_abi::SaCounters;
use pollux_abi::command::{Direction, PolicyAction, PolicySpec, SaSpec};
use pollux_abi::dscp::{DfMark, DscpMark, EcnMode};
use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;

/// What may be asked of the data plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum DataplaneRequest {
    /// → [`DataplaneStatus`].
    Status,
    /// → `Vec<`[`WorkerRow`]`>`.
    Workers,
    /// → `Vec<`[`PortRow`]`>`.
    Ports,
    /// → `Vec<`[`DropRow`]`>`: every reason, also those at 0.
    Drops,
    /// → `Vec<`[`SaRow`]`>`.
    Sas,
    /// → `Vec<`[`PolicyRow`]`>`, in the order of the list in force.
    Policies,
    /// → [`Explanation`].
    Explain(FlowQuery),
    /// → `()`; then the process ends in an orderly way. Pins, routes and host port stay (fail closed).
    Stop,
}

/// Something that was asked for at start, beside what was really got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effective {
    /// What: `xdp wan0`, `huge pages`, `core of worker 0`, `aead` …
    pub what: String,
    /// What the configuration asked for.
    pub requested: String,
    /// What it is, with the reason where it differs.
    pub effective: String,
}

/// Where all UMEM frames of one worker are. `free + rings + in_flight = total`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameLedger {
    /// Frames in all.
    pub total: u64,
    /// On the worker's free list.
    pub free: u64,
    /// In the four rings of its ports: to receive into, received, to send, sent and not yet taken back.
    pub rings: u64,
    /// Waiting for a neighbour or for their SA, handed over to another worker, or on the way home from one.
    pub in_flight: u64,
    /// `total` less all of the above: anything but 0 is a leak.
    pub missing: i64,
}

/// `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataplaneStatus {
    /// Version of the program.
    pub version: String,
    /// Version of the rings.
    pub abi_version: u32,
    /// Process id.
    pub pid: u32,
    /// Drawn at random at start: another value is another life.
    pub instance: u64,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Network namespace that was entered.
    pub netns: Option<String>,
    /// Process id of the attached control process.
    pub control_pid: Option<u32>,
    /// How many workers.
    pub workers: u16,
    /// Width of the index in our SPIs.
    pub spi_index_width: u32,
    /// SAs of each direction that the tables hold.
    pub sa_capacity: u32,
    /// Inbound SAs installed.
    pub sas_inbound: u32,
    /// Outbound SAs installed.
    pub sas_outbound: u32,
    /// Policies in force.
    pub policies: u32,
    /// The AEAD kernel in use.
    pub aead: String,
    /// Start-up: asked and got.
    pub effective: Vec<Effective>,
    /// All workers' frames added up.
    pub frames: FrameLedger,
    /// Packets dropped, all reasons.
    pub drops: u64,
}

/// A distribution, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// Largest.
    pub max_ns: u64,
}

/// `workers`, one row each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// The worker.
    pub worker: u16,
    /// The core that it is pinned to.
    pub core: Option<u32>,
    /// That core's NUMA node.
    pub numa_node: Option<u32>,
    /// `running`, `blocked` or `stalled`.
    pub state: String,
    /// CPU seconds, user and system.
    pub cpu_s: f64,
    /// Rounds of the loop.
    pub rounds: u64,
    /// Rounds that found no packet.
    pub idle_rounds: u64,
    /// Packets received from all its ports.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets sealed.
    pub sealed: u64,
    /// Packets opened and authenticated.
    pub opened: u64,
    /// Packets given to their SA's owner.
    pub handed_over: u64,
    /// Packets taken from other workers.
    pub taken_over: u64,
    /// ESP packets that came before their SA and were held for it.
    pub held_early: u64,
    /// Half-made checksums completed.
    pub csum_completed: u64,
    /// NAT keepalives and other packets that end here by design.
    pub consumed: u64,
    /// Packets dropped, all reasons.
    pub drops: u64,
    /// Times that the watchdog found the worker stalled.
    pub stalls: u64,
    /// SAs that it owns.
    pub sas: u32,
    /// Frames.
    pub frames: FrameLedger,
    /// Duration of a round that found packets.
    pub round: Latency,
}

/// The kernel's counters of an AF_XDP socket (`XDP_STATISTICS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XskStats {
    /// Dropped by the socket for other reasons.
    pub rx_dropped: u64,
    /// Bad descriptors in the fill ring.
    pub rx_invalid_descs: u64,
    /// Bad descriptors in the transmit ring.
    pub tx_invalid_descs: u64,
    /// Dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Dropped because the fill ring was empty.
    pub rx_fill_ring_empty_descs: u64,
    /// Transmit ring found empty.
    pub tx_ring_empty_descs: u64,
}

/// `ports`, one row for each interface and queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortRow {
    /// Interface.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// `wan`, `lan` or `host`.
    pub role: String,
    /// Queue.
    pub queue: u32,
    /// The worker that polls it.
    pub worker: u16,
    /// Whether the link is up and the socket bound.
    pub up: bool,
    /// MTU in octets.
    pub mtu: u32,
    /// Link-layer address.
    pub mac: String,
    /// `driver` or `generic`.
    pub xdp: String,
    /// Zero-copy (true) or copy.
    pub zero_copy: bool,
    /// NAPI id, 0 where there is none.
    pub napi_id: u32,
    /// Packets received.
    pub rx_packets: u64,
    /// Octets received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Octets sent.
    pub tx_bytes: u64,
    /// System calls to make the kernel send or receive.
    pub kicks: u64,
    /// The kernel's counters.
    pub xsk: XskStats,
}

/// Where a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DropSite {
    /// In the XDP program.
    Xdp,
    /// In the kernel, at an AF_XDP socket.
    Xsk,
    /// In a worker.
    Worker,
    /// The guard at the exit.
    Guard,
}

/// `drops`, one row for each reason and place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRow {
    /// Counter name.
    pub reason: String,
    /// Where.
    pub site: DropSite,
    /// Packets.
    pub packets: u64,
    /// The counter of `/proc/net/xfrm_stat` that means the same.
    pub xfrm: Option<String>,
    /// One sentence.
    pub text: String,
}

/// `sas`, one row each: all of [`SaSpec`], a fingerprint of the keys, and the counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SaRow {
    /// Control's number for the SA.
    pub id: u64,
    /// The SA's name in the configuration; filled in by control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `in` or `out`.
    pub direction: String,
    /// Table index.
    pub index: u32,
    /// SPI.
    pub spi: u32,
    /// Suite, as in `esp_proposals`.
    pub suite: String,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Replay window.
    pub window_packets: u32,
    /// Our outer address.
    pub local: Option<IpAddr>,
    /// The peer's outer address.
    pub remote: Option<IpAddr>,
    /// UDP encapsulation: our port and the peer's.
    pub encap: Option<(u16, u16)>,
    /// Reqid.
    pub reqid: u32,
    /// Owner.
    pub worker: u16,
    /// `copy` or a number.
    pub dscp: String,
    /// `normal` or `off`.
    pub ecn: String,
    /// `copy`, `set` or `clear`.
    pub df: String,
    /// Soft limit in octets; 0 is none.
    pub soft_bytes: u64,
    /// Hard limit in octets.
    pub hard_bytes: u64,
    /// Soft limit in packets.
    pub soft_packets: u64,
    /// Hard limit in packets.
    pub hard_packets: u64,
    /// Soft limit in seconds of age.
    pub soft_age_s: u32,
    /// Hard limit in seconds of age.
    pub hard_age_s: u32,
    /// Slot of the counter file.
    pub checkpoint: Option<u32>,
    /// Our selectors.
    pub local_ts: Vec<String>,
    /// The peer's selectors.
    pub remote_ts: Vec<String>,
    /// Keyed hash of suite and keys: equal keys, equal fingerprint, for one life of the data plane.
    pub fingerprint: Fingerprint,
    /// Seconds since it was installed; of a manual SA, since its key was, also in an earlier life.
    pub age_s: u64,
    /// Packets sealed or opened.
    pub packets: u64,
    /// Octets of inner packets.
    pub bytes: u64,
    /// Seconds since the last packet.
    pub idle_s: Option<f64>,
    /// Highest sequence number sent or authenticated.
    pub highest_seq: u64,
    /// Replayed or too old.
    pub replay_errors: u64,
    /// Integrity check failed.
    pub icv_errors: u64,
    /// Never arrived.
    pub lost: u64,
    /// Outside the selectors.
    pub selector_errors: u64,
}

impl SaRow {
    /// The row of an SA. `now_ns` is the clock of [`SaCounters::last_used_ns`].
    pub fn new(
        spec: &SaSpec,
        fingerprint: Fingerprint,
        age_s: u64,
        now_ns: u64,
        counters: &SaCounters,
    ) -> Self {
        let last_used_ns = counters.last_used_ns.value();
        Self {
            id: spec.id.0,
            name: None,
            direction: direction_name(spec.direction).to_owned(),
            index: spec.index.0,
            spi: spec.spi.get(),
            suite: spec.suite.name().to_owned(),
            esn: spec.esn,
            window_packets: spec.window_packets,
            local: Some(spec.local),
            remote: Some(spec.remote),
            encap: spec.encap.map(|ports| (ports.local, ports.remote)),
            reqid: spec.reqid.0,
            worker: spec.owner.0,
            dscp: dscp_name(spec.dscp),
            ecn: ecn_name(spec.ecn).to_owned(),
            df: df_name(spec.df).to_owned(),
            soft_bytes: spec.lifetimes.soft_bytes,
            hard_bytes: spec.lifetimes.hard_bytes,
            soft_packets: spec.lifetimes.soft_packets,
            hard_packets: spec.lifetimes.hard_packets,
            soft_age_s: spec.lifetimes.soft_age,
            hard_age_s: spec.lifetimes.hard_age,
            checkpoint: spec.checkpoint,
            local_ts: spec.local_ts.as_slice().iter().map(ToString::to_string).collect(),
            remote_ts: spec.remote_ts.as_slice().iter().map(ToString::to_string).collect(),
            fingerprint,
            age_s,
            packets: counters.packets.value(),
            bytes: counters.bytes.value(),
            idle_s: (last_used_ns != 0)
                .then(|| std::time::Duration::from_nanos(now_ns.saturating_sub(last_used_ns)).as_secs_f64()),
            highest_seq: counters.highest_seq.value(),
            replay_errors: counters.replay_errors.value(),
            icv_errors: counters.icv_errors.value(),
            lost: counters.lost.value(),
            selector_errors: counters.selector_errors.value(),
        }
    }
}

/// `policies`, one row each, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// Control's number for the policy.
    pub id: u32,
    /// The policy's name in the configuration; filled in by control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `in` or `out`.
    pub direction: String,
    /// `protect`, `bypass` or `discard`.
    pub action: String,
    /// Reqid of `protect`.
    pub reqid: Option<u32>,
    /// Our side.
    pub local: String,
    /// The peer's side.
    pub remote: String,
}

impl From<&PolicySpec> for PolicyRow {
    fn from(spec: &PolicySpec) -> Self {
        let (action, reqid) = match spec.action {
            PolicyAction::Protect(reqid) => ("protect", Some(reqid.0)),
            PolicyAction::Bypass => ("bypass", None),
            PolicyAction::Discard => ("discard", None),
        };
        Self {
            id: spec.id.0,
            name: None,
            direction: direction_name(spec.direction).to_owned(),
            action: action.to_owned(),
            reqid,
            local: spec.selectors.local.to_string(),
            remote: spec.selectors.remote.to_string(),
        }
    }
}

/// The flow that `explain` is asked about: an inner packet as it would arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowQuery {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Source port; 0 where the protocol has none.
    #[serde(default)]
    pub source_port: u16,
    /// Destination port.
    #[serde(default)]
    pub destination_port: u16,
}

/// One decision on a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Who decides: `xdp`, `policy`, `sa`, `route`, `neighbour`, `mtu`.
    pub stage: String,
    /// What it decides, with names and numbers.
    pub text: String,
}

/// `explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// `out` (clear from our side) or `in` (clear from the peer's side).
    pub direction: String,
    /// `protect`, `bypass`, `drop`, `host` or `kernel`.
    pub verdict: String,
    /// The decisions, in order.
    pub steps: Vec<Step>,
    /// Policy that matched.
    pub policy: Option<u32>,
    /// Its name, where control knows it.
    #[serde(default)]
    pub policy_name: Option<String>,
    /// SA that would be used.
    pub sa: Option<u64>,
    /// Its name in the file, or connection and child, where control knows it.
    #[serde(default)]
    pub sa_name: Option<String>,
    /// Its SPI.
    pub spi: Option<u32>,
    /// Next hop and interface.
    pub next_hop: Option<String>,
    /// Drop reason, where it would be dropped.
    pub drop: Option<String>,
}

/// `in` or `out`.
pub fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
    }
}

/// As in the configuration: `copy` or a number.
pub fn dscp_name(mark: DscpMark) -> String {
    match mark {
        DscpMark::Copy => "copy".to_owned(),
        DscpMark::Fixed(dscp) => dscp.get().to_string(),
    }
}

/// As in the configuration.
pub fn ecn_name(mode: EcnMode) -> &'static str {
    match mode {
        EcnMode::Normal => "normal",
        EcnMode::Off => "off",
    }
}

/// As in the configuration.
pub fn df_name(mark: DfMark) -> &'static str {
    match mark {
        DfMark::Copy => "copy",
        DfMark::Set => "set",
        DfMark::Clear => "clear",
    }
}
