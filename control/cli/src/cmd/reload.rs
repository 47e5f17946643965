//! `pollux reload`: what changed.

use anyhow::{Result, bail};
use pollux_config::Paths;
use pollux_config::api::{ControlRequest, ReloadReport};

use crate::output;
use crate::output::say;
use crate::socket::control;

pub(crate) fn reload(paths: &Paths, json: bool) -> Result<()> {
    let report: ReloadReport = control(paths, &ControlRequest::Reload)?;
    if json {
        output::json(&report)?;
    } else {
        print(&report);
    }
    if !report.refused.is_empty() {
        bail!("the data plane refused {} of the changes", report.refused.len());
    }
    Ok(())
}

fn print(report: &ReloadReport) {
    let lists = [
        ("SAs added", &report.sas_added),
        ("SAs replaced", &report.sas_replaced),
        ("SAs removed", &report.sas_removed),
        ("connections added", &report.connections_added),
        ("connections changed", &report.connections_changed),
        ("connections removed", &report.connections_removed),
        ("refused", &report.refused),
        ("needs a restart of the data plane", &report.needs_restart),
        ("waits for the rekey", &report.waits_for_rekey),
    ];
    for (what, names) in lists.iter().filter(|(_, names)| !names.is_empty()) {
        // Ten thousand names help nobody.
        let shown = names.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if names.len() > 10 { format!(" and {} more", names.len() - 10) } else { String::new() };
        say!("{what}: {shown}{more}");
    }
    say!("SAs untouched: {}", report.sas_untouched);
    say!("policies: {}", if report.policies_changed { "changed" } else { "as they were" });
}
