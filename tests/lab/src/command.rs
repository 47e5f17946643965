//! Running a program to its end, with its output in the error.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `command` and returns its standard output.
///
/// # Errors
/// If it can't be started or fails; the error holds the command and what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` and returns what it printed and how it ended.
///
/// # Errors
/// If it can't be started.
pub fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))
}

/// Runs a program with arguments separated by white space.
///
/// # Errors
/// As [`run`].
pub fn sh(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    run(Command::new(program).args(words))
}

/// How many echoes `ping` says have come back. With a deadline (`-w`) it goes on until it has the count that it was
/// asked for, and may send and receive more than that on a slow machine; without, it waits for two round trips alone.
pub fn echoes(ping: &str) -> u64 {
    let number = ping.split(" received").next().and_then(|head| head.rsplit(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}
