//! Waiting for something to become true, with a limit.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::interrupt;

const INTERVAL: Duration = Duration::from_millis(20);

/// Whether `condition` becomes true within `limit`.
pub fn poll(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end || interrupt::asked() {
            return false;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Waits until `condition` holds.
///
/// # Errors
/// If it does not within `limit`, if it fails itself, or if the user interrupts.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let mut failure = None;
    let held = poll(limit, || match condition() {
        Ok(held) => held,
        Err(error) => {
            failure = Some(error);
            true
        }
    });
    interrupt::check()?;
    match failure {
        Some(error) => Err(error.context(format!("waiting for {what}"))),
        None if held => Ok(()),
        None => bail!("waited {} s for {what}", limit.as_secs_f32()),
    }
}

/// Sleeps, but not past an interrupt.
///
/// # Errors
/// If the user interrupts.
pub fn sleep(time: Duration) -> Result<()> {
    poll(time, || false);
    interrupt::check()
}
