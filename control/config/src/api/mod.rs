//! What goes over the two Unix sockets: one JSON object a line, a request and its reply.
//!
//! ```text
//!   pollux ──► <run_dir>/control.sock    ControlRequest   ──► Reply<T>, or a stream of EventRecord
//!   pollux ──► <run_dir>/dataplane.sock  DataplaneRequest ──► Reply<T>
//!   control ─► <run_dir>/dataplane.sock  (reads back what is installed)
//! ```
//!
//! The type of the reply is written beside each request. A reply is `{"ok": …}` or `{"error": "…"}`.
//! Unknown fields are ignored, so that either side may be newer by a field.

mod control;
mod dataplane;
mod fingerprint;

use serde::{Deserialize, Serialize};

pub use control::{
    ChildConfigRow, ChildRow, ConnectionRow, ControlRequest, ControlStatus, Done, EventRecord, IkeSaRow,
    Names, ReloadReport,
};
pub use dataplane::{
    DataplaneRequest, DataplaneStatus, DropRow, DropSite, Effective, Explanation, FlowQuery, FrameLedger,
    Latency, PolicyRow, PortRow, SaRow, Step, WorkerRow, XskStats, df_name, direction_name, dscp_name,
    ecn_name,
};
pub use fingerprint::{Fingerprint, fingerprint};

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply<T> {
    /// It was done.
    Ok(T),
    /// It was not; one sentence why.
    Error(String),
}

/// The longest request line that a daemon reads; a longer one is an error, not an allocation.
pub const REQUEST_LEN_MAX: usize = 64 * 1024;
