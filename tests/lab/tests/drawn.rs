//! The generated test of "fail closed"; see [`pollux_lab::drawn`].
//!
//! Two minutes from one seed, or as long and from which `POLLUX_DRAWN_SECONDS` and `POLLUX_DRAWN_SEED` say
//! (`scripts/leaks`, which draws the seed too).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::drawn::run::run_for;
use pollux_lab::skip_unless;

fn number(variable: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    text.parse().map(Some).with_context(|| format!("{variable} = {text}: a number is wanted"))
}

#[test]
fn a_protected_pair_leaves_as_esp_or_not_at_all_and_the_rest_as_the_kernel_alone_would_have_it() -> Result<()>
{
    skip_unless!("ip", "tcpdump", "nft", "python3");
    let seed = number("POLLUX_DRAWN_SEED")?.unwrap_or(1);
    let time = Duration::from_secs(number("POLLUX_DRAWN_SECONDS")?.unwrap_or(120));
    let run = run_for(time, seed)?;
    println!("{}", run.cells.table());
    // A run that sees nothing proves nothing.
    ensure!(run.esp > 0 && run.open > 0, "{} ESP packets, {} others", run.esp, run.open);
    Ok(())
}
