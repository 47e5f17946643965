//! `pollux guard`: closes what a configuration protects before the network is up.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cmd::up::program;

pub(crate) fn guard(file: &Path) -> Result<()> {
    let status = Command::new(program("pollux-dataplane"))
        .arg("--config")
        .arg(file)
        .arg("guard")
        .status()
        .context("starting pollux-dataplane: is it installed?")?;
    if !status.success() {
        bail!("the guard is not in place ({status}); what is protected is open until the data plane is up");
    }
    Ok(())
}
