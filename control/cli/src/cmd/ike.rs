//! IKE: connections, SAs, and what the operator does with them.

use anyhow::Result;
use pollux_config::Paths;
use pollux_config::api::{ConnectionRow, ControlRequest, Done, IkeSaRow};

use crate::output::say;
use crate::output::{self, duration};
use crate::socket::control;

pub(crate) fn connections(paths: &Paths, json: bool) -> Result<()> {
    let rows: Vec<ConnectionRow> = control(paths, &ControlRequest::ListConns)?;
    if json {
        return output::json(&rows);
    }
    for row in &rows {
        say!(
            "{}: {} ({}) - {} ({})",
            row.name,
            addresses(&row.local_addrs),
            row.local_id,
            addresses(&row.remote_addrs),
            row.remote_id
        );
        say!("  IKE   {}", row.proposals.join(", "));
        for child in &row.children {
            say!(
                "  {}: {} === {}, {}, start_action {}, reqid {}",
                child.name,
                child.local_ts.join(" "),
                child.remote_ts.join(" "),
                child.esp_proposals.join(", "),
                child.start_action,
                child.reqid
            );
        }
    }
    if rows.is_empty() {
        say!("no connection is configured");
    }
    Ok(())
}

fn addresses(list: &[String]) -> String {
    if list.is_empty() { "%any".to_owned() } else { list.join(", ") }
}

pub(crate) fn sas(paths: &Paths, json: bool) -> Result<()> {
    let rows: Vec<IkeSaRow> = control(paths, &ControlRequest::ListSas)?;
    if json {
        return output::json(&rows);
    }
    for row in &rows {
        say!(
            "{} #{}: {}, {}, {}[{}] - {}[{}], {}_i {}_r",
            row.connection,
            row.id,
            row.state,
            row.role,
            row.local,
            row.local_id,
            row.remote,
            row.remote_id,
            row.spi_i,
            row.spi_r
        );
        let rekey = |seconds: Option<u64>| {
            seconds.map_or_else(|| "never".to_owned(), |s| format!("in {}", duration(s)))
        };
        say!("  {}, up {}, rekey {}", row.proposal, duration(row.age_s), rekey(row.rekey_s));
        for child in &row.children {
            say!(
                "  {} #{}: {}, reqid {}, ESP{} {}{}, in 0x{:08x} {} packets {} bytes, out 0x{:08x} {} packets {} bytes, up {}, rekey {}",
                child.name,
                child.id,
                child.state,
                child.reqid,
                if child.encap { " in UDP" } else { "" },
                child.proposal,
                if child.esn { " ESN" } else { "" },
                child.spi_in,
                child.packets_in,
                child.bytes_in,
                child.spi_out,
                child.packets_out,
                child.bytes_out,
                duration(child.age_s),
                rekey(child.rekey_s),
            );
            say!("    {} === {}", child.local_ts.join(" "), child.remote_ts.join(" "));
        }
    }
    if rows.is_empty() {
        say!("no IKE SA");
    }
    Ok(())
}

/// Sends a request that does something, and prints the one line that control answers.
pub(crate) fn done(paths: &Paths, request: &ControlRequest, json: bool) -> Result<()> {
    let done: Done = control(paths, request)?;
    if json {
        return output::json(&done);
    }
    say!("{}", done.text);
    Ok(())
}
