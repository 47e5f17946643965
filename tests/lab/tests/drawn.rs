//! The generated test of "fail closed"; see [`pollux_lab::drawn`].
//!
//! About two minutes of steps from one seed, or as long and from which `POLLUX_DRAWN_SECONDS` and `POLLUX_DRAWN_SEED` say
//! (`scripts/leaks`, which draws the seed too).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::drawn::run::run_for;
use pollux_lab::skip_unless;

/// About two minutes on two cores.
const STEPS: u64 = 70;

fn number(variable: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    text.parse().map(Some).with_context(|| format!("{variable} = {text}: a number is wanted"))
}

#[test]
fn a_protected_pair_leaves_as_esp_or_not_at_all_and_the_rest_as_the_kernel_alone_would_have_it() -> Result<()>
{
    skip_unless!("ip", "tcpdump", "nft", "python3");
    let seed = number("POLLUX_DRAWN_SEED")?.unwrap_or(1);
    // The same steps on a slow machine and on a fast one, unless a time is given.
    let (time, steps) = match number("POLLUX_DRAWN_SECONDS")? {
        Some(seconds) => (Duration::from_secs(seconds), u64::MAX),
        None => (Duration::from_mins(4), STEPS),
    };
    let run = run_for(time, steps, seed)?;
    println!("{}", run.cells.table());
    // A run that sees nothing proves nothing.
    ensure!(run.esp > 0 && run.open > 0, "{} ESP packets, {} others", run.esp, run.open);
    Ok(())
}
