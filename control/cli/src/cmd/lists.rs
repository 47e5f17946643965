//! Tables of the data plane: SAs, policies, workers, ports, drops.

use anyhow::Result;
use pollux_config::Paths;
use pollux_config::api::{ControlRequest, DataplaneRequest, DropRow, PolicyRow, PortRow, SaRow, WorkerRow};

use crate::output::{self, Table, duration, or_dash};
use crate::socket::{control, dataplane};

/// Control knows the names; without it, the data plane still has the rows.
fn named<T: serde::de::DeserializeOwned>(
    paths: &Paths,
    request: &ControlRequest,
    unnamed: &DataplaneRequest,
) -> Result<T> {
    control(paths, request).or_else(|_| dataplane(paths, unnamed))
}

/// What an SA is called: without a name of its own, by its SPI.
fn name_of(row: &SaRow) -> String {
    row.name.clone().unwrap_or_else(|| spi(row))
}

fn spi(row: &SaRow) -> String {
    format!("{:#010x}", row.spi)
}

pub(crate) fn sas(paths: &Paths, json: bool) -> Result<()> {
    let rows: Vec<SaRow> = named(paths, &ControlRequest::Sas, &DataplaneRequest::Sas)?;
    if json {
        return output::json(&rows);
    }
    let mut table = Table::new(&[
        "NAME", "DIR", "SPI", "LOCAL", "REMOTE", "SUITE", "ESN", "REQID", "WORKER", "PACKETS", "BYTES",
        "SEQ", "REPLAY", "ICV", "LOST", "IDLE s", "AGE",
    ]);
    for row in &rows {
        let udp = if row.encap.is_some() { "/udp" } else { "" };
        table.row(vec![
            name_of(row),
            row.direction.clone(),
            spi(row),
            or_dash(row.local),
            or_dash(row.remote),
            format!("{}{udp}", row.suite),
            if row.esn { "yes" } else { "no" }.to_owned(),
            row.reqid.to_string(),
            row.worker.to_string(),
            row.packets.to_string(),
            row.bytes.to_string(),
            row.highest_seq.to_string(),
            row.replay_errors.to_string(),
            row.icv_errors.to_string(),
            row.lost.to_string(),
            or_dash(row.idle_s.map(|idle| format!("{idle:.1}"))),
            duration(row.age_s),
        ]);
    }
    table.print("no SA is installed");
    Ok(())
}

pub(crate) fn policies(paths: &Paths, json: bool) -> Result<()> {
    let rows: Vec<PolicyRow> = named(paths, &ControlRequest::Policies, &DataplaneRequest::Policies)?;
    if json {
        return output::json(&rows);
    }
    let mut table = Table::new(&["ORDER", "NAME", "DIR", "LOCAL", "REMOTE", "ACTION", "REQID"]);
    for (order, row) in rows.iter().enumerate() {
        table.row(vec![
            (order + 1).to_string(),
            or_dash(row.name.as_ref()),
            row.direction.clone(),
            row.local.clone(),
            row.remote.clone(),
            row.action.clone(),
            or_dash(row.reqid),
        ]);
    }
    table.print("no policy is in force");
    Ok(())
}

pub(crate) fn workers(paths: &Paths, json: bool) -> Result<()> {
    let rows: Vec<WorkerRow> = dataplane(paths, &DataplaneRequest::Workers)?;
    if json {
        return output::json(&rows);
    }
    let mut table = Table::new(&[
        "WORKER",
        "CORE",
        "STATE",
        "CPU s",
        "RX",
        "TX",
        "SEALED",
        "OPENED",
        "GIVEN",
        "TAKEN",
        "DROPS",
        "SAS",
        "ROUND p50 ns",
        "p99 ns",
    ]);
    for row in &rows {
        table.row(vec![
            row.worker.to_string(),
            or_dash(row.core),
            row.state.clone(),
            format!("{:.2}", row.cpu_s),
            row.rx_packets.to_string(),
            row.tx_packets.to_string(),
            row.sealed.to_string(),
            row.opened.to_string(),
            row.handed_over.to_string(),
            row.taken_over.to_string(),
            row.drops.to_string(),
            row.sas.to_string(),
            row.round.p50_ns.to_string(),
            row.round.p99_ns.to_string(),
        ]);
    }
    table.print("no worker runs");
    Ok(())
}

pub(crate) fn ports(paths: &Paths, json: bool) -> Result<()> {
    let rows: Vec<PortRow> = dataplane(paths, &DataplaneRequest::Ports)?;
    if json {
        return output::json(&rows);
    }
    let mut table = Table::new(&[
        "PORT",
        "ROLE",
        "QUEUE",
        "WORKER",
        "UP",
        "MTU",
        "XDP",
        "COPY",
        "NAPI",
        "RX",
        "TX",
        "KICKS",
        "RX_RING_FULL",
        "FILL_EMPTY",
    ]);
    for row in &rows {
        table.row(vec![
            row.name.clone(),
            row.role.clone(),
            row.queue.to_string(),
            row.worker.to_string(),
            if row.up { "yes" } else { "no" }.to_owned(),
            row.mtu.to_string(),
            row.xdp.clone(),
            if row.zero_copy { "zero" } else { "copy" }.to_owned(),
            row.napi_id.to_string(),
            row.rx_packets.to_string(),
            row.tx_packets.to_string(),
            row.kicks.to_string(),
            row.xsk.rx_ring_full.to_string(),
            row.xsk.rx_fill_ring_empty_descs.to_string(),
        ]);
    }
    table.print("no port is bound");
    Ok(())
}

pub(crate) fn drops(paths: &Paths, all: bool, json: bool) -> Result<()> {
    let mut rows: Vec<DropRow> = dataplane(paths, &DataplaneRequest::Drops)?;
    if json {
        return output::json(&rows);
    }
    rows.retain(|row| all || row.packets > 0);
    let mut table = Table::new(&["REASON", "WHERE", "PACKETS", "XFRM", "MEANING"]);
    for row in rows {
        table.row(vec![
            row.reason,
            format!("{:?}", row.site).to_lowercase(),
            row.packets.to_string(),
            or_dash(row.xfrm),
            row.text,
        ]);
    }
    table.print("no packet was dropped");
    Ok(())
}
