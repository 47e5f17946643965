//! `pollux check`: every mistake on one line.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::json;

use crate::output;

pub(crate) fn check(file: &Path, as_json: bool) -> Result<()> {
    let problems = match pollux_config::load_with_secrets(file) {
        Ok((config, _)) => {
            if as_json {
                return output::json(&json!({ "problems": [] }));
            }
            println!(
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
        let rows: Vec<_> = problems
            .iter()
            .map(|problem| {
                json!({
                    "file": problem.file, "line": problem.line, "key": problem.key,
                    "reason": problem.reason, "fix": problem.fix,
                })
            })
            .collect();
        output::json(&json!({ "problems": rows }))?;
    } else {
        for problem in &problems {
            println!("{problem}");
        }
    }
    bail!("{} mistake{} found", problems.len(), if problems.len() == 1 { "" } else { "s" })
}
