//! `ike`: set-ups of an IKE SA with its Child SA, PSK, two of our gateways in memory; strongSwan beside them.
//!
//! Time is CPU time of the whole process, so that neighbours on a shared machine do not count; both ends of
//! every set-up are in it, as they are in strongSwan's figure, where two daemons talk over a veth pair.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use pollux_bench::ike::Pair;
use pollux_bench::interleave::interleave;
use pollux_bench::report::{Output, Table};
use pollux_bench::run::Machine;
use pollux_bench::stats::{paired_ratio, summarize};
use serde::{Deserialize, Serialize};

/// IKE: CPU time of a set-up, and memory of a tunnel.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    output: Output,
    /// Leave strongSwan's load-tester out.
    #[arg(long)]
    no_strongswan: bool,
    /// Set up so many tunnels, print what they cost in memory, and end.
    #[arg(long, hide = true)]
    memory_of: Option<u32>,
}

/// One figure.
#[derive(Serialize)]
#[serde(tag = "row", rename_all = "snake_case")]
enum Row {
    /// What a set-up costs.
    SetUp {
        gateways: String,
        proposal: String,
        /// CPU time of both ends.
        us: f64,
        us_min: f64,
        spread: f64,
        /// On one core, both ends on it.
        per_second: f64,
        /// This row's time over that of the first row, round by round: the median.
        ratio: f64,
    },
    /// What an established tunnel holds, and what one more costs beside so many.
    Memory {
        tunnels: u32,
        kib_per_tunnel: f64,
        /// CPU time of the last set-ups, both ends, over that of the first ones.
        last_to_first: f64,
    },
}

/// The proposal that strongSwan's load-tester negotiates too.
const MAIN: &str = "aes256gcm16-prfsha384-x25519";

/// Set-ups in one slice of ours.
const SET_UPS: u32 = 40;
/// Set-ups in one slice of strongSwan: its start is not counted, and few of them would be noise.
const STRONGSWAN_SET_UPS: u32 = 1000;

enum Gateways {
    Ours(&'static str),
    StrongSwan,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(tunnels) = arguments.memory_of {
        println!("{}", serde_json::to_string(&memory(tunnels)?)?);
        return Ok(());
    }
    let machine = Machine::here();
    let mut rows = set_ups(&arguments)?;
    let scales: &[u32] = if arguments.output.quick { &[1_000] } else { &[1_000, 10_000] };
    for &tunnels in scales {
        let own = std::env::current_exe().context("our own program")?;
        let output = Command::new(own).arg("--memory-of").arg(tunnels.to_string()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let Held { kib_per_tunnel, last_to_first } = serde_json::from_slice(&output.stdout)?;
        rows.push(Row::Memory { tunnels, kib_per_tunnel, last_to_first });
    }
    arguments.output.give("ike", &machine, &rows, print)
}

fn set_ups(arguments: &Arguments) -> Result<Vec<Row>> {
    let mut contenders = vec![Gateways::Ours(MAIN)];
    if !arguments.output.quick {
        contenders.extend(OTHER_GROUPS.map(Gateways::Ours));
    }
    if !arguments.no_strongswan {
        match strongswan() {
            Ok(_) => contenders.push(Gateways::StrongSwan),
            Err(reason) => eprintln!("skipped: strongSwan's load-tester: {reason:#}"),
        }
    }
    let rounds = if arguments.output.quick { 3 } else { 9 };
    let mut failed = None;
    let figures = interleave(&mut contenders, rounds, |gateways| {
        let microseconds = match gateways {
            Gateways::Ours(proposal) => ours(proposal),
            Gateways::StrongSwan => strongswan(),
        };
        microseconds.unwrap_or_else(|error| {
            failed.get_or_insert(error);
            f64::NAN
        })
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let row = |(gateways, of_rounds): (&Gateways, &Vec<f64>)| {
        let summary = summarize(of_rounds);
        let (name, proposal) = match gateways {
            Gateways::Ours(proposal) => ("pollux", *proposal),
            Gateways::StrongSwan => ("strongSwan load-tester", MAIN),
        };
        Row::SetUp {
            gateways: name.to_owned(),
            proposal: proposal.to_owned(),
            us: summary.median,
            us_min: summary.min,
            spread: summary.spread,
            per_second: 1e6 / summary.median,
            ratio: paired_ratio(&figures[0], of_rounds),
        }
    };
    Ok(contenders.iter().zip(&figures).map(row).collect())
}

/// Microseconds of CPU time that one set-up of ours takes, both ends.
fn ours(proposal: &str) -> Result<f64> {
    let mut pair = Pair::new(SET_UPS, proposal)?;
    let before = cpu_us()?;
    for client in 0..SET_UPS {
        pair.set_up(client)?;
    }
    Ok((cpu_us()? - before) / f64::from(SET_UPS))
}

/// User and system time of this process so far.
fn cpu_us() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let total = (usage.user_time() + usage.system_time()).num_microseconds();
    #[expect(clippy::cast_precision_loss, reason = "a benchmark does not run for 285 years")]
    let total = total as f64;
    Ok(total)
}

/// What the recipe of the load-tester reports.
#[derive(Deserialize)]
struct LoadTest {
    set_ups: u32,
    cpu_seconds: f64,
}

/// Microseconds of CPU time that one set-up takes two strongSwan daemons.
fn strongswan() -> Result<f64> {
    ensure!(nix::unistd::geteuid().is_root(), "needs root, for network namespaces");
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/lab/peers/ike-load.sh");
    let output = Command::new(recipe).arg(STRONGSWAN_SET_UPS.to_string()).output().context("the recipe")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", errors.lines().last().unwrap_or("the recipe failed"));
    let result: LoadTest = serde_json::from_slice(&output.stdout).context("the recipe's figures")?;
    ensure!(result.set_ups >= STRONGSWAN_SET_UPS, "only {} set-ups", result.set_ups);
    Ok(result.cpu_seconds * 1e6 / f64::from(result.set_ups))
}

/// What many tunnels cost.
#[derive(Serialize, Deserialize)]
struct Held {
    kib_per_tunnel: f64,
    last_to_first: f64,
}

/// Set-ups whose time is taken at the beginning and at the end.
const FEW: u32 = 250;

/// Resident memory per tunnel and gateway, and how much more the last set-ups took than the first ones.
fn memory(tunnels: u32) -> Result<Held> {
    let mut pair = Pair::new(tunnels, MAIN)?;
    let before = resident_kib()?;
    let mut slices = Vec::new();
    for (first, last) in [(0, FEW), (FEW, tunnels - FEW), (tunnels - FEW, tunnels)] {
        let from = cpu_us()?;
        for client in first..last {
            pair.set_up(client)?;
        }
        slices.push(cpu_us()? - from);
    }
    let kib_per_tunnel = (resident_kib()? - before) / f64::from(tunnels) / 2.0;
    Ok(Held { kib_per_tunnel, last_to_first: slices[2] / slices[0] })
}

fn resident_kib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn print(machine: &Machine, rows: &[Row]) {
    println!("{}, Linux {}, {}", machine.cpu, machine.kernel, machine.date);
    let mut times = Table::new(["gateways and proposal", "us CPU", "min", "spread %", "a second", "ratio"]);
    let mut memory = Table::new(["tunnels", "KiB each", "last set-ups to first"]);
    for row in rows {
        match row {
            Row::SetUp { gateways, proposal, us, us_min, spread, per_second, ratio } => times.push([
                format!("{gateways} {proposal}"),
                format!("{us:.0}"),
                format!("{us_min:.0}"),
                format!("{:.1}", spread * 100.0),
                format!("{per_second:.0}"),
                format!("{ratio:.2}"),
            ]),
            Row::Memory { tunnels, kib_per_tunnel, last_to_first } => {
                memory.push([
                    tunnels.to_string(),
                    format!("{kib_per_tunnel:.1}"),
                    format!("{last_to_first:.2}"),
                ]);
            }
        }
    }
    println!("{}\n{}", times.render(), memory.render());
}

/// The same with other key exchanges, which are most of the time.
const OTHER_GROUPS: [&str; 6] = [
    "aes256gcm16-prfsha384-ecp256",
    "aes256gcm16-prfsha384-ecp384",
    "aes256gcm16-prfsha384-ecp521",
    "aes256gcm16-prfsha384-modp2048",
    "aes256gcm16-prfsha384-modp3072",
    "aes256gcm16-prfsha384-modp4096",
];
