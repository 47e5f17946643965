//! `pollux status`: both daemons at a glance.

use anyhow::Result;
use pollux_config::Paths;
use pollux_config::api::{ControlRequest, ControlStatus, DataplaneRequest, DataplaneStatus};
use serde_json::json;

use crate::output::say;
use crate::output::{self, Table, duration};
use crate::socket::{control, dataplane};

pub(crate) fn status(paths: &Paths, as_json: bool) -> Result<()> {
    let plane = dataplane::<DataplaneStatus>(paths, &DataplaneRequest::Status);
    let keys = control::<ControlStatus>(paths, &ControlRequest::Status);
    if let (Err(error), Err(_)) = (&plane, &keys) {
        anyhow::bail!("{error:#}");
    }
    if as_json {
        output::json(&json!({ "dataplane": plane.as_ref().ok(), "control": keys.as_ref().ok() }))?;
        return both(&plane, &keys);
    }
    match &plane {
        Ok(status) => print_dataplane(status),
        Err(error) => say!("data plane  {error:#}"),
    }
    match &keys {
        Ok(status) => print_control(status),
        Err(error) => say!("control     {error:#}"),
    }
    both(&plane, &keys)
}

/// Half a gateway is none: the command fails where one of the two does not answer.
fn both(plane: &Result<DataplaneStatus>, keys: &Result<ControlStatus>) -> Result<()> {
    match (plane, keys) {
        (Ok(_), Ok(_)) => Ok(()),
        (Err(error), _) | (_, Err(error)) => anyhow::bail!("{error:#}"),
    }
}

fn print_dataplane(status: &DataplaneStatus) {
    let frames = &status.frames;
    say!(
        "data plane  {}, pid {}, up {}, {} workers, AEAD {}",
        status.version,
        status.pid,
        duration(status.uptime_s),
        status.workers,
        status.aead
    );
    say!(
        "SAs         {} inbound, {} outbound of {}; {} policies",
        status.sas_inbound,
        status.sas_outbound,
        status.sa_capacity,
        status.policies
    );
    say!(
        "frames      {} in all, {} free, {} in flight, {} missing",
        frames.total,
        frames.free,
        frames.in_flight,
        frames.missing
    );
    say!("drops       {}", status.drops);
    let mut table = Table::new(&["WHAT", "REQUESTED", "EFFECTIVE"]);
    for effective in &status.effective {
        table.row(vec![effective.what.clone(), effective.requested.clone(), effective.effective.clone()]);
    }
    table.print("");
}

fn print_control(status: &ControlStatus) {
    say!("control     {}, pid {}, up {}", status.version, status.pid, duration(status.uptime_s));
    match &status.detached_reason {
        Some(reason) if !status.attached => say!("rings       not attached: {reason}"),
        _ => say!("rings       attached {} times", status.attachments),
    }
    say!(
        "manual SAs  {} of {} installed; {} of {} policies in force",
        status.sas_installed,
        status.sas_wanted,
        status.policies_in_force,
        status.policies_wanted
    );
    say!(
        "IKE         {} IKE SAs, {} Child SAs, {} half open; rekeyed {} and {}; {} packets lost to it",
        status.ike_sas,
        status.child_sas,
        status.half_open,
        status.ike_rekeys,
        status.child_rekeys,
        status.lost_to_rekey
    );
    for line in &status.refused {
        say!("refused     {line}");
    }
}
