//! What the operator is told: control's state as the types of the API.

use std::collections::HashMap;
use std::process;
use std::time::{Duration, Instant};

use pollux_abi::{SaId, TrafficSelector};
use pollux_config::StartAction;
use pollux_config::api::{ChildConfigRow, ChildRow, ConnectionRow, ControlStatus, IkeSaRow, Names, SaRow};
use pollux_ike::endpoint::{ChildStatus, IkeStatus};

use crate::policies;
use crate::shell::{Shell, Timer};
use crate::table::State;

impl Shell {
    /// Every IKE SA at this moment.
    pub(crate) fn ike_status(&self) -> Vec<IkeStatus> {
        self.endpoint.status(self.ike_now(Instant::now()))
    }

    pub(crate) fn has_ike_sas(&self) -> bool {
        !self.ike_status().is_empty()
    }

    pub(crate) fn status(&self) -> ControlStatus {
        let ike = self.ike_status();
        let in_state = |state: &str| ike.iter().filter(|sa| sa.state == state).count();
        let children =
            ike.iter().flat_map(|sa| &sa.children).filter(|child| child.state == "INSTALLED").count();
        let installed = |entry: &&crate::table::SaEntry| {
            entry.state == State::Installed && entry.is_manual() && entry.row.name.is_some()
        };
        ControlStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            attached: self.rings.is_some(),
            detached_reason: self.detached_reason.clone(),
            attachments: self.counters.attachments,
            config: self.file.display().to_string(),
            sas_wanted: count(self.config.sas.len()),
            sas_installed: count(self.table.values().filter(installed).count()),
            policies_wanted: count(self.entries.len()),
            policies_in_force: count(self.in_force.as_ref().map_or(0, Vec::len)),
            changing: self.change.is_some()
                || self.installer.has_policies()
                || self.timers.values().any(|timer| *timer == Timer::TryAgain),
            refused: self.refused.values().cloned().collect(),
            ike_sas: count(in_state("ESTABLISHED")),
            child_sas: count(children),
            half_open: count(in_state("CONNECTING")),
            child_rekeys: self.counters.child_rekeys,
            ike_rekeys: self.counters.ike_rekeys,
            lost_to_rekey: self.counters.lost_to_rekey,
        }
    }

    /// Names of SAs by the number that the data plane knows them by.
    pub(crate) fn sa_names(&self) -> HashMap<u64, String> {
        self.table.iter().filter_map(|(id, entry)| Some((id.0, entry.row.name.clone()?))).collect()
    }

    /// Names of policies by number.
    pub(crate) fn policy_names(&self) -> HashMap<u32, String> {
        self.entries.iter().map(|entry| (entry.spec.id.0, entry.name.clone())).collect()
    }

    /// Names of one policy and one SA, by the same numbers.
    pub(crate) fn names(&self, policy: Option<u32>, sa: Option<u64>) -> Names {
        let entry = policy.and_then(|id| self.entries.iter().find(|entry| entry.spec.id.0 == id));
        let row = sa.and_then(|id| self.table.get(&SaId(id))).map(|entry| &entry.row);
        Names {
            policy: entry.map(|entry| entry.name.clone()),
            sa: row.map(|row| row.name.clone().unwrap_or_else(|| format!("{:#010x}", row.spi))),
        }
    }

    pub(crate) fn connections(&self) -> Vec<ConnectionRow> {
        let row = |connection: &pollux_config::Connection| ConnectionRow {
            name: connection.name.clone(),
            local_addrs: connection.local_addrs.iter().map(ToString::to_string).collect(),
            remote_addrs: connection.remote_addrs.iter().map(net).collect(),
            local_id: connection.local.id.clone().unwrap_or_else(|| "our address".to_owned()),
            remote_id: connection.remote.id.clone().unwrap_or_else(|| "%any".to_owned()),
            proposals: or_default(&connection.proposals),
            children: connection.children.iter().map(|child| self.child_row(connection, child)).collect(),
        };
        self.config.connections.iter().map(row).collect()
    }

    fn child_row(
        &self,
        connection: &pollux_config::Connection,
        child: &pollux_config::Child,
    ) -> ChildConfigRow {
        let key = (connection.name.as_str().into(), child.name.as_str().into());
        let list = |list: &[pollux_config::ChildSelector]| {
            list.iter()
                .map(|selector| match selector {
                    pollux_config::ChildSelector::Fixed(selector) => selector.to_string(),
                    pollux_config::ChildSelector::Dynamic => "dynamic".to_owned(),
                })
                .collect()
        };
        let reqid = self.reqids.children().get(&key).filter(|_| !policies::is_for_many(connection));
        ChildConfigRow {
            name: child.name.clone(),
            local_ts: list(&child.local_ts),
            remote_ts: list(&child.remote_ts),
            esp_proposals: or_default(&child.esp_proposals),
            start_action: match child.start_action {
                StartAction::None => "none",
                StartAction::Trap => "trap",
                StartAction::Start => "start",
            }
            .to_owned(),
            reqid: reqid.map_or(0, |reqid| reqid.0),
        }
    }

    pub(crate) fn ike_sas(&self) -> Vec<IkeSaRow> {
        self.ike_status().iter().map(ike_row).collect()
    }
}

fn net(net: &ipnet::IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

fn or_default(written: &[String]) -> Vec<String> {
    if written.is_empty() { vec!["default".to_owned()] } else { written.to_vec() }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn seconds(time: Option<Duration>) -> Option<u64> {
    time.map(|time| time.as_secs())
}

fn ike_row(sa: &IkeStatus) -> IkeSaRow {
    let dash = || "-".to_owned();
    IkeSaRow {
        id: sa.ike.0,
        connection: sa.connection.as_deref().map_or_else(dash, str::to_owned),
        state: sa.state.to_owned(),
        role: if sa.initiator { "initiator" } else { "responder" }.to_owned(),
        local: sa.local.to_string(),
        remote: sa.remote.to_string(),
        local_id: sa.local_id.as_ref().map_or_else(dash, ToString::to_string),
        remote_id: sa.remote_id.as_ref().map_or_else(dash, ToString::to_string),
        spi_i: sa.spi_i.to_string(),
        spi_r: sa.spi_r.to_string(),
        proposal: sa.proposal.clone().unwrap_or_else(dash),
        age_s: seconds(sa.age).unwrap_or_default(),
        rekey_s: seconds(sa.rekey_in),
        children: sa.children.iter().map(child_row).collect(),
    }
}

fn child_row(child: &ChildStatus) -> ChildRow {
    let list = |list: &[TrafficSelector]| list.iter().map(ToString::to_string).collect();
    let sa = &child.sa;
    ChildRow {
        name: sa.child.to_string(),
        id: sa.inbound.0,
        state: child.state.to_owned(),
        reqid: sa.reqid.0,
        spi_in: sa.spi_in.get(),
        spi_out: sa.spi_out.get(),
        proposal: sa.suite.name().to_owned(),
        esn: sa.esn,
        encap: sa.encap,
        local_ts: list(&sa.local_ts),
        remote_ts: list(&sa.remote_ts),
        rekey_s: seconds(child.rekey_in),
        out_id: sa.outbound.0,
        ..ChildRow::default()
    }
}

/// Puts the data plane's counters into the rows of Child SAs.
pub(crate) fn with_counters(rows: &mut [IkeSaRow], sas: &[SaRow]) {
    let by_id: HashMap<u64, &SaRow> = sas.iter().map(|row| (row.id, row)).collect();
    for child in rows.iter_mut().flat_map(|row| &mut row.children) {
        if let Some(row) = by_id.get(&child.id) {
            (child.packets_in, child.bytes_in, child.age_s) = (row.packets, row.bytes, row.age_s);
        }
        if let Some(row) = by_id.get(&child.out_id) {
            (child.packets_out, child.bytes_out) = (row.packets, row.bytes);
        }
    }
}
