//! The generated test of "fail closed"; see [`pollux_lab::drawn`].
//!
//! Two minutes, or as long as `POLLUX_DRAWN_SECONDS` says (`scripts/leaks`), from a seed of chance or `POLLUX_DRAWN_SEED`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    let chance = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed = number("POLLUX_DRAWN_SEED")?.unwrap_or(chance);
    let time = Duration::from_secs(number("POLLUX_DRAWN_SECONDS")?.unwrap_or(120));
    let run = run_for(time, seed)?;
    println!("{}", run.cells.table());
    // A run that sees nothing proves nothing.
    ensure!(run.esp > 0 && run.open > 0, "{} ESP packets, {} others", run.esp, run.open);
    Ok(())
}
