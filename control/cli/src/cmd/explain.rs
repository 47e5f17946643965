//! `pollux explain`: what would become of a packet.

use anyhow::Result;
use pollux_config::Paths;
use pollux_config::api::{ControlRequest, DataplaneRequest, Explanation, FlowQuery, Names};

use crate::arguments::Flow;
use crate::output;
use crate::output::say;
use crate::socket::{control, dataplane};

pub(crate) fn explain(paths: &Paths, flow: &Flow, json: bool) -> Result<()> {
    let query = FlowQuery {
        source: flow.source.0,
        destination: flow.destination.0,
        protocol: flow.protocol,
        source_port: flow.source.1,
        destination_port: flow.destination.1,
    };
    let mut explanation: Explanation = dataplane(paths, &DataplaneRequest::Explain(query))?;
    name(paths, &mut explanation);
    if json {
        return output::json(&explanation);
    }
    for step in &explanation.steps {
        let name = match step.stage.as_str() {
            "policy" => explanation.policy_name.as_deref(),
            "sa" => explanation.sa_name.as_deref(),
            _ => None,
        };
        say!("{:<10}{}{}", step.stage, name.map_or_else(String::new, |name| format!("{name}: ")), step.text);
    }
    let reason = explanation.drop.map_or_else(String::new, |drop| format!(": {drop}"));
    say!("{:<10}{}{reason}", explanation.direction, explanation.verdict);
    Ok(())
}

/// Policy and SA by the names that the operator has given them. Only control knows them; without it there are none.
fn name(paths: &Paths, explanation: &mut Explanation) {
    let request = ControlRequest::Names { policy: explanation.policy, sa: explanation.sa };
    if let Ok(Names { policy, sa }) = control(paths, &request) {
        (explanation.policy_name, explanation.sa_name) = (policy, sa);
    }
}
