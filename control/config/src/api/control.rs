//! Control's socket: what the operator asks and is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What may be asked of control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum ControlRequest {
    /// → [`ControlStatus`].
    Status,
    /// Reads the file again and applies the difference → [`ReloadReport`].
    Reload,
    /// → `Vec<`[`super::SaRow`]`>` with names.
    Sas,
    /// → `Vec<`[`super::PolicyRow`]`>` with names.
    Policies,
    /// → [`Names`]: what the operator calls one policy and one SA.
    Names {
        /// The policy's number.
        #[serde(default)]
        policy: Option<u32>,
        /// The SA's number.
        #[serde(default)]
        sa: Option<u64>,
    },
    /// → `Vec<`[`ConnectionRow`]`>`.
    ListConns,
    /// → `Vec<`[`IkeSaRow`]`>`.
    ListSas,
    /// Sets a child up, and its IKE SA where there is none → [`Done`].
    Initiate {
        /// `CHILD`, or `CONNECTION/CHILD` where several have one of that name.
        child: String,
        /// How long to wait for it to be up; 0: do not wait.
        #[serde(default)]
        timeout_ms: u64,
    },
    /// Deletes a child, or an IKE SA with all its children → [`Done`].
    Terminate {
        /// Child by name.
        #[serde(default)]
        child: Option<String>,
        /// Connection by name.
        #[serde(default)]
        ike: Option<String>,
    },
    /// Rekeys a child or an IKE SA → [`Done`].
    Rekey {
        /// Child by name.
        #[serde(default)]
        child: Option<String>,
        /// Connection by name.
        #[serde(default)]
        ike: Option<String>,
    },
    /// → a stream of [`EventRecord`], one a line, until the reader goes.
    Events {
        /// So many past events first.
        #[serde(default)]
        past: u32,
    },
    /// → `Vec<`[`EventRecord`]`>`: the last ones.
    Log {
        /// How many.
        #[serde(default)]
        lines: u32,
    },
    /// → `()`; then the process ends. What is installed stays installed.
    Stop,
}

/// `names`; `None` for what has none, or is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The policy's.
    pub policy: Option<String>,
    /// The SA's; its SPI where it has none.
    pub sa: Option<String>,
}

/// `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlStatus {
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Whether the rings are attached.
    pub attached: bool,
    /// Why not, where they are not.
    pub detached_reason: Option<String>,
    /// Times that the rings were attached.
    pub attachments: u64,
    /// The configuration in force.
    pub config: String,
    /// Manual SAs wanted.
    pub sas_wanted: u32,
    /// SAs that every worker has acknowledged.
    pub sas_installed: u32,
    /// Policies wanted.
    pub policies_wanted: u32,
    /// Policies of the list that the data plane has acknowledged.
    pub policies_in_force: u32,
    /// Whether a change is on its way to the data plane, or will be tried again.
    pub changing: bool,
    /// What the data plane refused, one line each.
    pub refused: Vec<String>,
    /// IKE SAs up.
    pub ike_sas: u32,
    /// Child SAs up.
    pub child_sas: u32,
    /// IKE SAs half open.
    pub half_open: u32,
    /// Child SAs rekeyed.
    pub child_rekeys: u64,
    /// IKE SAs rekeyed.
    pub ike_rekeys: u64,
    /// Packets lost to rekeying.
    pub lost_to_rekey: u64,
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// SAs installed.
    pub sas_added: Vec<String>,
    /// SAs with new keys, addresses or marks.
    pub sas_replaced: Vec<String>,
    /// SAs removed.
    pub sas_removed: Vec<String>,
    /// SAs left as they were, with sequence numbers and windows.
    pub sas_untouched: u32,
    /// Whether the policy list changed.
    pub policies_changed: bool,
    /// Connections added, by name.
    pub connections_added: Vec<String>,
    /// Connections changed.
    pub connections_changed: Vec<String>,
    /// Connections removed.
    pub connections_removed: Vec<String>,
    /// What the data plane refused, one line each.
    pub refused: Vec<String>,
    /// What takes a restart of the data plane, one line each.
    pub needs_restart: Vec<String>,
    /// What live SAs keep as it was until they are rekeyed, one line each.
    pub waits_for_rekey: Vec<String>,
}

/// Something was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// One line for the operator.
    pub text: String,
    /// How many SAs it concerned.
    pub count: u32,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Milliseconds since 1970, UTC.
    pub time_ms: u64,
    /// Constant name, as `sa-installed` or `child-rekeyed`.
    pub event: String,
    /// `error`, `warn`, `info` or `debug`.
    pub level: String,
    /// One line.
    pub text: String,
    /// The facts, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

/// `list-conns`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRow {
    /// Connection.
    pub name: String,
    /// Our addresses.
    pub local_addrs: Vec<String>,
    /// The peer's addresses.
    pub remote_addrs: Vec<String>,
    /// Our identity.
    pub local_id: String,
    /// The peer's.
    pub remote_id: String,
    /// IKE proposals.
    pub proposals: Vec<String>,
    /// Children with selectors, in words.
    pub children: Vec<ChildConfigRow>,
}

/// A child of a connection as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildConfigRow {
    /// Child.
    pub name: String,
    /// Our side.
    pub local_ts: Vec<String>,
    /// The peer's side.
    pub remote_ts: Vec<String>,
    /// ESP proposals.
    pub esp_proposals: Vec<String>,
    /// `none`, `trap` or `start`.
    pub start_action: String,
    /// Reqid.
    pub reqid: u32,
}

/// `list-sas`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeSaRow {
    /// Our number for it.
    pub id: u64,
    /// Connection.
    pub connection: String,
    /// `CONNECTING`, `ESTABLISHED`, `REKEYED` or `DELETING`.
    pub state: String,
    /// `initiator` or `responder` of this IKE SA.
    pub role: String,
    /// Our address and port.
    pub local: String,
    /// The peer's address and port.
    pub remote: String,
    /// Our identity.
    pub local_id: String,
    /// The peer's.
    pub remote_id: String,
    /// Initiator SPI, hexadecimal.
    pub spi_i: String,
    /// Responder SPI, hexadecimal.
    pub spi_r: String,
    /// Chosen transforms.
    pub proposal: String,
    /// Seconds since it was established.
    pub age_s: u64,
    /// Seconds until it is rekeyed.
    pub rekey_s: Option<u64>,
    /// Child SAs.
    pub children: Vec<ChildRow>,
}

/// A Child SA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildRow {
    /// Child.
    pub name: String,
    /// The data plane's number for its inbound SA.
    pub id: u64,
    /// The same for its outbound SA.
    pub out_id: u64,
    /// `INSTALLING`, `INSTALLED`, `REKEYED` or `DELETING`.
    pub state: String,
    /// Reqid.
    pub reqid: u32,
    /// Inbound SPI.
    pub spi_in: u32,
    /// Outbound SPI.
    pub spi_out: u32,
    /// Chosen suite.
    pub proposal: String,
    /// Extended sequence numbers.
    pub esn: bool,
    /// ESP in UDP.
    pub encap: bool,
    /// Our side, as narrowed.
    pub local_ts: Vec<String>,
    /// The peer's side, as narrowed.
    pub remote_ts: Vec<String>,
    /// Packets in.
    pub packets_in: u64,
    /// Octets in.
    pub bytes_in: u64,
    /// Packets out.
    pub packets_out: u64,
    /// Octets out.
    pub bytes_out: u64,
    /// Seconds since it was installed.
    pub age_s: u64,
    /// Seconds until it is rekeyed.
    pub rekey_s: Option<u64>,
}
