//! `veth`: forwarders over AF_XDP on veth pairs, as a ratio to a plain layer-2 forward on the same rings.

use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use pollux_aead::{Engine, EngineChoice};
use pollux_bench::interleave::interleave;
use pollux_bench::report::{Output, Table};
use pollux_bench::run::Machine;
use pollux_bench::stats::{paired_ratio, summarize};
use pollux_bench::veth::{Forwarder, L2Forward, NAPI, Path, PolluxWorker, Testbed, Traffic};
use serde::Serialize;

/// Packets a second over veth pairs, one worker, copy mode, taking turns in slices of a fraction of a second.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    output: Output,
}

/// One figure.
#[derive(Serialize)]
struct Row {
    forwarder: String,
    /// Octets in a frame in clear.
    bytes: usize,
    /// Median millions of packets a second that arrived.
    mpps: f64,
    /// Half the distance of the quartiles, as a share of the median.
    spread: f64,
    /// Median millions of packets a second that were offered.
    offered_mpps: f64,
    /// This row's rate over that of the plain forward, round by round: the median.
    ratio: f64,
    /// Where NAPI ran.
    napi: &'static str,
    /// Of the sockets.
    copy_mode: String,
}

/// A forwarder on a path of its own.
struct Contender {
    path: Path,
    forwarder: Box<dyn Forwarder>,
    offered: Vec<f64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let machine = Machine::here();
    let mut testbed = Testbed::new()?;
    let mut contenders = contenders(&mut testbed)?;
    let (sizes, rounds, time) = if arguments.output.quick {
        (&[64, 1400][..], 5, Duration::from_millis(400))
    } else {
        (&[64, 256, 512, 1024, 1400][..], 15, Duration::from_secs(1))
    };
    let mut rows = Vec::new();
    for &bytes in sizes {
        rows.extend(compare(&mut contenders, bytes, rounds, time)?);
    }
    // Generators end and sockets close before the namespace's devices go.
    drop(contenders);
    drop(testbed);
    arguments.output.give("veth", &machine, &rows, print)
}

/// The plain forward first: the others are compared with it. The gateways run what the daemon runs, on the same
/// rings.
fn contenders(testbed: &mut Testbed) -> Result<Vec<Contender>> {
    let aead = Engine::select(EngineChoice::Auto)?;
    let contender = |path, forwarder| Contender { path, forwarder, offered: Vec::new() };
    let (path, ends) = testbed.path(Traffic::Clear)?;
    let plain = contender(path, Box::new(L2Forward::new(ends)) as Box<dyn Forwarder>);
    let (path, ends) = testbed.path(Traffic::Clear)?;
    let encrypt = contender(path, Box::new(PolluxWorker::sealing(aead, ends)?));
    let (path, ends) = testbed.path(Traffic::Sealed(aead))?;
    let decrypt = contender(path, Box::new(PolluxWorker::opening(aead, ends)?));
    Ok(vec![plain, encrypt, decrypt])
}

fn compare(contenders: &mut [Contender], bytes: usize, rounds: usize, time: Duration) -> Result<Vec<Row>> {
    for contender in contenders.iter_mut() {
        contender.offered.clear();
    }
    let mut failed = None;
    let figures = interleave(contenders, rounds, |contender| {
        match contender.path.run(contender.forwarder.as_mut(), bytes, time) {
            Ok(slice) => {
                contender.offered.push(slice.offered_mpps);
                slice.mpps
            }
            Err(error) => {
                failed.get_or_insert(error);
                0.0
            }
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let row = |(contender, mpps): (&Contender, &Vec<f64>)| {
        let summary = summarize(mpps);
        Row {
            forwarder: contender.forwarder.name().to_owned(),
            bytes,
            mpps: summary.median,
            spread: summary.spread,
            offered_mpps: summarize(&contender.offered).median,
            ratio: paired_ratio(&figures[0], mpps),
            napi: NAPI,
            copy_mode: "copy".to_owned(),
        }
    };
    Ok(contenders.iter().zip(&figures).map(row).collect())
}

fn print(machine: &Machine, rows: &[Row]) {
    println!("{} on {}, Linux {}, {}", machine.date, machine.cpu, machine.kernel, machine.cpus);
    println!("NAPI: {NAPI}; AF_XDP in copy mode, XDP in driver mode; one worker");
    let mut table = Table::new(["forwarder", "bytes", "Mpps", "± %", "offered Mpps", "of l2fwd"]);
    for row in rows {
        table.push([
            row.forwarder.clone(),
            row.bytes.to_string(),
            format!("{:.3}", row.mpps),
            format!("{:.1}", row.spread * 100.0),
            format!("{:.3}", row.offered_mpps),
            format!("{:.2}", row.ratio),
        ]);
    }
    print!("{}", table.render());
}
