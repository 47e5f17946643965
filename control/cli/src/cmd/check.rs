//! `pollux check`: every mistake on one line.

use std::path::Path;

use anyhow::{Result, bail};
use pollux_config::Problem;
use serde_json::json;

use crate::machine;
use crate::output;
use crate::output::say;

pub(crate) fn check(file: &Path, as_json: bool) -> Result<()> {
    let problems = match pollux_config::load_with_secrets(file) {
        Ok((config, secrets)) => {
            let warnings = [&config.warnings[..], secrets.warnings(), &machine::warnings(&config)].concat();
            if as_json {
                return output::json(&json!({ "problems": [], "warnings": rows(&warnings) }));
            }
            for warning in &warnings {
                say!("warning: {warning}");
            }
            say!(
                "{}: no mistakes: {} SAs, {} policies, {} connections",
                file.display(),
                config.sas.len(),
                config.policies.len(),
                config.connections.len()
            );
            return Ok(());
        }
        Err(problems) => problems.0,
    };
    if as_json {
        output::json(&json!({ "problems": rows(&problems) }))?;
    } else {
        for problem in &problems {
            say!("{problem}");
        }
    }
    bail!("{} mistake{} found", problems.len(), if problems.len() == 1 { "" } else { "s" })
}

fn rows(problems: &[Problem]) -> Vec<serde_json::Value> {
    let row = |problem: &Problem| {
        json!({
            "file": problem.file, "line": problem.line, "key": problem.key,
            "reason": problem.reason, "fix": problem.fix,
        })
    };
    problems.iter().map(row).collect()
}
