//! An IKEv2 initiator that says what it is told to say, by way of `tests/lab/oracle/ike.py`.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command::run;
use crate::ike::SECRET;
use crate::world::{Family, Side, World};

/// One thing that the initiator does: the name of a step of the script, and its arguments.
#[derive(Clone, Debug)]
pub struct Step(Value);

impl Step {
    /// The step called `name`.
    pub fn new(name: &str) -> Self {
        Self(json!({ "do": name }))
    }

    /// With an argument.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0[key] = value.into();
        self
    }
}

/// What came back for one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Notifies: type, SPI and data, the latter two in hexadecimal.
    pub notifies: Vec<(u64, String, String)>,
    /// Types of all payloads.
    pub payloads: Vec<u64>,
    /// How long it took.
    pub ms: u64,
    /// Nothing came at all.
    pub silence: bool,
}

/// Plays gateway b against gateway a, over IPv4: one step after the other.
///
/// # Errors
/// If the script fails.
pub fn talk(world: &World, steps: &[Step]) -> Result<Vec<Answer>> {
    let [ours, theirs] = [Side::B, Side::A].map(|side| side.outer(Family::V4).to_string());
    let job = json!({
        "local": ours,
        "remote": theirs,
        "local_id": "gateway-b.example",
        "secret": SECRET,
        "local_ts": Side::B.prefix(Family::V4),
        "remote_ts": Side::A.prefix(Family::V4),
        "steps": steps.iter().map(|step| step.0.clone()).collect::<Vec<_>>(),
    });
    let file = world.folder().join("initiator.json");
    std::fs::write(&file, job.to_string())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/ike.py");
    let mut command = world.gateway_b.command(script.to_str().context("a path in UTF-8")?);
    let text = run(command.arg(&file))?;
    let answers: Vec<Value> = serde_json::from_str(&text).with_context(|| format!("it said: {text}"))?;
    answers.iter().map(answer).collect()
}

fn answer(value: &Value) -> Result<Answer> {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned).context("text");
    let notifies = value["notifies"].as_array().context("notifies")?.iter();
    let notifies = notifies.map(|notify| {
        let kind = notify["type"].as_u64().context("a number")?;
        Ok((kind, text(&notify["spi"])?, text(&notify["data"])?))
    });
    let payloads = value["payloads"].as_array().context("payloads")?.iter();
    Ok(Answer {
        notifies: notifies.collect::<Result<_>>()?,
        payloads: payloads.filter_map(Value::as_u64).collect(),
        ms: value["ms"].as_u64().context("a time")?,
        silence: value["silence"] == true,
    })
}
