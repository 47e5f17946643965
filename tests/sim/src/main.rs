//! Runs seeds of the simulation: `pollux-sim SEED` tells one of them, `pollux-sim --count N [--from S]
//! [--real]` runs many.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pollux_sim::{Cryptography, FaultProfile, Scenario, run};

/// The seed at work, for the panic message.
static SEED: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(orders) = Orders::parse(&arguments) else {
        eprintln!("usage: pollux-sim SEED [--real] | --count N [--from SEED] [--real]");
        return ExitCode::from(2);
    };
    let real = if orders.cryptography == Cryptography::Real { " --real" } else { "" };
    let replay = move |seed: u64| format!("replay it with: scripts/sim {seed}{real}");
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        eprintln!("{}", replay(SEED.load(Ordering::Relaxed)));
    }));
    let begin = Instant::now();
    let (mut failed, mut totals) = (0u64, Totals::default());
    for seed in orders.from..orders.from.saturating_add(orders.count) {
        SEED.store(seed, Ordering::Relaxed);
        match run(Scenario { seed, cryptography: orders.cryptography, trace: orders.trace }) {
            Ok(outcome) => totals.add(&outcome),
            Err(what) => {
                failed += 1;
                println!("seed {seed} failed {what}\n{}", replay(seed));
                if failed >= FAILURES_SHOWN {
                    break;
                }
            }
        }
    }
    println!("{} seeds, {failed} failed, {:.1} s: {totals}", orders.count, begin.elapsed().as_secs_f64());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// More than that say the same again.
const FAILURES_SHOWN: u64 = 10;

struct Orders {
    from: u64,
    count: u64,
    cryptography: Cryptography,
    trace: bool,
}

impl Orders {
    fn parse(arguments: &[String]) -> Option<Self> {
        let mut orders = Self { from: 0, count: 0, cryptography: Cryptography::Null, trace: false };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--real" => orders.cryptography = Cryptography::Real,
                "--count" => orders.count = arguments.next()?.parse().ok()?,
                "--from" => orders.from = arguments.next()?.parse().ok()?,
                seed => {
                    orders.from = seed.parse().ok()?;
                    orders.count = 1;
                    orders.trace = true;
                }
            }
        }
        (orders.count > 0).then_some(orders)
    }
}

#[derive(Default)]
struct Totals {
    steps: u64,
    delivered: u64,
    lost: u64,
    lost_without_chaos: u64,
    child_rekeys: u64,
    ike_rekeys: u64,
}

impl Totals {
    fn add(&mut self, outcome: &pollux_sim::Outcome) {
        self.steps += outcome.steps;
        self.delivered += outcome.delivered;
        self.lost += outcome.lost;
        if outcome.profile != FaultProfile::Chaos {
            self.lost_without_chaos += outcome.lost;
        }
        self.child_rekeys += outcome.child_rekeys;
        self.ike_rekeys += outcome.ike_rekeys;
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} steps, {} Child and {} IKE rekeys told, {} ESP packets arrived, {} found no SA ({} of them \
             without chaos)",
            self.steps,
            self.child_rekeys,
            self.ike_rekeys,
            self.delivered,
            self.lost,
            self.lost_without_chaos
        )
    }
}
