//! `pollux explain`: what would become of a packet.

use anyhow::Result;
use pollux_config::Paths;
use pollux_config::api::{DataplaneRequest, Explanation, FlowQuery};

use crate::arguments::Flow;
use crate::output;
use crate::output::say;
use crate::socket::dataplane;

pub(crate) fn explain(paths: &Paths, flow: &Flow, json: bool) -> Result<()> {
    let query = FlowQuery {
        source: flow.source.0,
        destination: flow.destination.0,
        protocol: flow.protocol,
        source_port: flow.source.1,
        destination_port: flow.destination.1,
    };
    let explanation: Explanation = dataplane(paths, &DataplaneRequest::Explain(query))?;
    if json {
        return output::json(&explanation);
    }
    for step in &explanation.steps {
        say!("{:<10}{}", step.stage, step.text);
    }
    let reason = explanation.drop.map_or_else(String::new, |drop| format!(": {drop}"));
    say!("{:<10}{}{reason}", explanation.direction, explanation.verdict);
    Ok(())
}
