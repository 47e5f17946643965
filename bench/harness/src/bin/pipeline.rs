//! `pipeline`: a whole worker on memory ports, from burst in to burst out, seal and open.

use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use pollux_abi::EspSuite;
use pollux_aead::{Engine, EngineChoice};
use pollux_bench::pipeline::{PACKETS, Pipeline};
use pollux_bench::report::{Output, Table};
use pollux_bench::run::Machine;
use pollux_bench::stats::summarize;
use pollux_packet::hint;
use serde::Serialize;

/// A worker on memory ports: TSC cycles a packet and Mpps of one core, ESN on, window of 1,024 packets.
///
/// No kernel is involved and no NAPI runs anywhere: that is what `veth` is for.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    output: Output,
    /// The cipher kernel: auto, vaes512, vaes256, aesni or portable.
    #[arg(long, default_value = "auto")]
    aead: String,
    /// The suite, as in `esp_proposals`.
    #[arg(long, default_value = "aes128gcm16")]
    suite: String,
    /// Only these lengths of the inner IP packet, as in `64,imix`.
    #[arg(long, value_delimiter = ',')]
    bytes: Vec<String>,
    /// Only these numbers of SAs.
    #[arg(long, value_delimiter = ',')]
    sas: Vec<u32>,
    /// Octets of a UMEM frame, as `frame_len` in the configuration: what a gateway with an MTU of 1,500 has.
    #[arg(long, default_value_t = 2048)]
    frame_len: u32,
    /// Passes over each row.
    #[arg(long)]
    passes: Option<usize>,
}

/// One figure.
#[derive(Serialize)]
struct Row {
    direction: &'static str,
    suite: &'static str,
    engine: &'static str,
    /// Octets of the inner IP packet, or `imix`.
    bytes: String,
    sas: u32,
    /// Median TSC cycles a packet.
    cycles: f64,
    /// The best pass.
    cycles_min: f64,
    /// Half the distance of the quartiles, as a share of the median.
    spread: f64,
    /// Packets a second of one core, in millions.
    mpps: f64,
    /// Where NAPI ran.
    napi: &'static str,
}

/// 64, 576 and 1420 octets as 7:4:1.
const MIX: [usize; 12] = [64, 576, 64, 64, 576, 64, 1420, 64, 576, 64, 576, 64];

/// The rows of one length: the memory ports alone, and the two workers with theirs.
const DIRECTIONS: [&str; 3] = ["ports", "encrypt", "decrypt"];

impl Arguments {
    fn bytes(&self) -> Vec<String> {
        let all: &[&str] = if self.output.quick {
            &["64", "512", "1420", "imix"]
        } else {
            &["64", "128", "256", "512", "1024", "1420", "imix"]
        };
        if self.bytes.is_empty() { all.iter().map(ToString::to_string).collect() } else { self.bytes.clone() }
    }

    fn sas(&self) -> &[u32] {
        if self.sas.is_empty() { &[1, 1_000, 10_000] } else { &self.sas }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let engine = Engine::select(arguments.aead.parse::<EngineChoice>()?)?;
    let suite = EspSuite::from_name(&arguments.suite)
        .ok_or_else(|| anyhow::anyhow!("unknown suite {}", arguments.suite))?;
    let machine = Machine::here();
    let hz = tsc_hz();
    let passes = arguments.passes.unwrap_or(if arguments.output.quick { 101 } else { 401 });
    let mut rows = Vec::new();
    for &sas in arguments.sas() {
        for bytes in arguments.bytes() {
            let lens = if bytes == "imix" { MIX.to_vec() } else { vec![bytes.parse().context("a length")?] };
            let mut pipeline = Pipeline::new(engine, suite, sas, &lens, arguments.frame_len)?;
            let (mut ports, mut encrypt, mut decrypt) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..passes {
                let pass = pipeline.pass()?;
                ports.push(per_packet(pass.ports));
                encrypt.push(per_packet(pass.encrypt));
                decrypt.push(per_packet(pass.decrypt));
            }
            for (direction, figures) in DIRECTIONS.into_iter().zip([&ports, &encrypt, &decrypt]) {
                let summary = summarize(figures);
                rows.push(Row {
                    direction,
                    suite: suite.name(),
                    engine: engine.name(),
                    bytes: bytes.clone(),
                    sas,
                    cycles: tenths(summary.median),
                    cycles_min: tenths(summary.min),
                    spread: (summary.spread * 1000.0).round() / 1000.0,
                    mpps: (hz / summary.median / 1e4).round() / 100.0,
                    napi: "none",
                });
            }
        }
    }
    arguments.output.give("pipeline", &machine, &rows, |machine, rows| print(machine, hz, rows))
}

#[expect(clippy::cast_precision_loss, reason = "cycles of one pass are far below 2^52")]
fn per_packet(cycles: u64) -> f64 {
    cycles as f64 / PACKETS as f64
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// How fast the time-stamp counter runs.
#[expect(clippy::cast_precision_loss, reason = "cycles of 50 ms are far below 2^52")]
fn tsc_hz() -> f64 {
    let (start, cycles) = (Instant::now(), hint::tsc());
    while start.elapsed().as_millis() < 50 {
        std::hint::spin_loop();
    }
    (hint::tsc() - cycles) as f64 / start.elapsed().as_secs_f64()
}

fn print(machine: &Machine, hz: f64, rows: &[Row]) {
    println!("{}, {} CPUs, Linux {}, {}", machine.cpu, machine.cpus, machine.kernel, machine.date);
    println!(
        "TSC {:.2} GHz; {} on {}; memory ports, NAPI: none; TSC cycles a packet (Mpps)\n",
        hz / 1e9,
        rows.first().map_or("", |row| row.suite),
        rows.first().map_or("", |row| row.engine)
    );
    let lens: Vec<&str> = rows
        .iter()
        .filter(|row| row.direction == "encrypt" && row.sas == rows[0].sas)
        .map(|row| row.bytes.as_str())
        .collect();
    let mut table = Table::new(["direction, SAs"].into_iter().chain(lens.iter().copied()));
    let mut counts: Vec<u32> = rows.iter().map(|row| row.sas).collect();
    counts.dedup();
    for direction in DIRECTIONS {
        for &sas in &counts {
            let cells = rows.iter().filter(|row| row.direction == direction && row.sas == sas);
            let figures = cells.map(|row| format!("{} ({})", row.cycles, row.mpps));
            table.push([format!("{direction}, {sas}")].into_iter().chain(figures));
        }
    }
    print!("{}", table.render());
}
