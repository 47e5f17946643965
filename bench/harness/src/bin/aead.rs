//! `aead`: every engine of ours and every peer, payload by payload, seal and open, with one SA and with many.

use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use pollux_aead::{Engine, Suite};
use pollux_bench::interleave::interleave;
use pollux_bench::peer::libraries::{AwsLc, OpenSsl, Ring, rustcrypto};
use pollux_bench::peer::ours::Ours;
use pollux_bench::peer::{Contender, Pool};
use pollux_bench::report::{Output, Table};
use pollux_bench::run::Machine;
use pollux_bench::stats::{paired_ratio, summarize};
use serde::Serialize;

/// AEADs side by side: nanoseconds a packet, one core, bursts of 32.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    output: Output,
    /// Only rows whose "suite direction payload sas" contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only contenders whose name contains one of these, separated by commas.
    #[arg(long, default_value = "")]
    engines: String,
}

/// One size, or the mix of 7:4:1 packets of 64, 576 and 1420 octets.
#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
enum Payload {
    Octets(usize),
    Mix(&'static str),
}

/// One figure.
#[derive(Serialize)]
struct Row {
    suite: &'static str,
    direction: &'static str,
    engine: String,
    bytes: Payload,
    sas: usize,
    /// Median nanoseconds a packet.
    ns: f64,
    /// The best slice.
    ns_min: f64,
    /// Half the distance of the quartiles, as a share of the median.
    spread: f64,
    /// This row's time over that of the first engine, round by round: the median.
    ratio: f64,
}

/// Packets that one timed pass goes over; a multiple of the burst and of the mix.
const POOL: usize = 384;

/// [`POOL`], to divide by.
#[expect(clippy::cast_precision_loss, reason = "384 is exact")]
const PACKETS: f64 = POOL as f64;

/// Passes in one slice, of which the median counts.
const PASSES: usize = 9;

const CONTEXTS: usize = 10_000;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let machine = Machine::here();
    let payloads = if arguments.output.quick {
        vec![Payload::Octets(64), Payload::Octets(256), Payload::Octets(1420), Payload::Mix("imix")]
    } else {
        let sizes = [64, 128, 256, 512, 1024, 1420].into_iter().map(Payload::Octets);
        sizes.chain([Payload::Mix("imix")]).collect()
    };
    let mut rows = Vec::new();
    for suite in [Suite::Aes128Gcm16, Suite::Aes256Gcm16, Suite::ChaCha20Poly1305] {
        let mut contenders = contenders(suite)?;
        let wanted = |name: &str| arguments.engines.split(',').any(|part| name.contains(part));
        contenders.retain(|contender| wanted(contender.name()));
        for direction in ["seal", "open"] {
            for &payload in &payloads {
                let many = matches!(payload, Payload::Octets(64)) || !arguments.output.quick;
                for sas in if many { &[1, 1000, CONTEXTS][..] } else { &[1] } {
                    let title = format!("{suite} {direction} {} {sas}", payload.name());
                    if title.contains(&arguments.only) {
                        rows.extend(compare(
                            &mut contenders,
                            suite,
                            direction,
                            payload,
                            *sas,
                            arguments.output.quick,
                        )?);
                    }
                }
            }
        }
    }
    arguments.output.give("aead", &machine, &rows, print)
}

/// Everybody who can run the suite here; the first is the one that others are compared with.
fn contenders(suite: Suite) -> Result<Vec<Box<dyn Contender>>> {
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    for engine in Engine::available() {
        all.push(Box::new(Ours::new(engine, suite, CONTEXTS)?));
    }
    #[cfg(ipsec_mb)]
    {
        use pollux_bench::peer::ipsec_mb::{Arch, IpsecMb};
        for arch in [Arch::Avx512, Arch::Avx2, Arch::Sse] {
            if let Some(peer) = IpsecMb::new(arch, suite, CONTEXTS) {
                all.push(Box::new(peer));
            }
        }
    }
    all.push(Box::new(Ring::new(suite, CONTEXTS)?));
    all.push(Box::new(AwsLc::new(suite, CONTEXTS)?));
    all.push(rustcrypto(suite, CONTEXTS)?);
    all.push(Box::new(OpenSsl::new(suite, CONTEXTS)?));
    Ok(all)
}

impl Payload {
    fn name(self) -> String {
        match self {
            Self::Octets(octets) => octets.to_string(),
            Self::Mix(name) => name.to_owned(),
        }
    }

    fn lens(self) -> Vec<usize> {
        match self {
            Self::Octets(octets) => vec![octets; POOL],
            Self::Mix(_) => {
                const MIX: [usize; 12] = [64, 576, 64, 64, 576, 64, 1420, 64, 576, 64, 576, 64];
                MIX.into_iter().cycle().take(POOL).collect()
            }
        }
    }
}

/// All contenders in one row, interleaved.
fn compare(
    contenders: &mut [Box<dyn Contender>],
    suite: Suite,
    direction: &'static str,
    payload: Payload,
    sas: usize,
    quick: bool,
) -> Result<Vec<Row>> {
    let plain = Pool::new(&payload.lens());
    let mut sealed = Pool::new(&payload.lens());
    let mut walk = Walk::new(sas);
    for (i, contender) in contenders.iter_mut().enumerate() {
        // Everybody must make the same packets and accept them.
        let mut pool = Pool::new(&payload.lens());
        contender.seal(&mut pool, walk.next());
        if i == 0 {
            sealed.restore(&pool);
        }
        ensure!(pool.same(&sealed), "{} seals {suite} otherwise than the first", contender.name());
        ensure!(contender.open(&mut pool, walk.next()) == POOL, "{} refuses {suite}", contender.name());
    }
    let before = if direction == "seal" { &plain } else { &sealed };
    let mut pool = Pool::new(&payload.lens());
    let figures = interleave(contenders, if quick { 9 } else { 21 }, |contender| {
        // With many SAs a turn begins with the whole walk, so that nobody pays for the caches that another has filled;
        // twice, as an L3 that takes what L2 gives up has little of a table before that.
        for _ in 0..2 * walk.pools() {
            pool.restore(before);
            turn(contender.as_mut(), direction, &mut pool, walk.next());
        }
        let mut passes = [0.0; PASSES];
        for pass in &mut passes {
            pool.restore(before);
            let sas = walk.next();
            let start = Instant::now();
            turn(contender.as_mut(), direction, &mut pool, sas);
            *pass = start.elapsed().as_secs_f64() * 1e9 / PACKETS;
        }
        summarize(&passes).median
    });
    let rows = contenders.iter().zip(&figures).map(|(contender, ns)| {
        let summary = summarize(ns);
        Row {
            suite: suite.name(),
            direction,
            engine: contender.name().to_owned(),
            bytes: payload,
            sas,
            ns: round(summary.median),
            ns_min: round(summary.min),
            spread: round(summary.spread),
            ratio: round(paired_ratio(&figures[0], ns)),
        }
    });
    Ok(rows.collect())
}

/// One pass over the pool.
fn turn(contender: &mut dyn Contender, direction: &str, pool: &mut Pool, sas: &[u32]) {
    if direction == "seal" {
        contender.seal(pool, sas);
    } else {
        contender.open(pool, sas);
    }
}

fn round(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

/// SAs in random order, none twice before all had their turn.
struct Walk {
    order: Vec<u32>,
    at: usize,
}

impl Walk {
    fn new(sas: usize) -> Self {
        let sas = u32::try_from(sas).unwrap_or(u32::MAX);
        // At least a pool's worth, and whole pools, so that every slice is one run of the array.
        let mut order: Vec<u32> =
            (0..sas).cycle().take((sas as usize).max(POOL).next_multiple_of(POOL)).collect();
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for i in (1..order.len()).rev() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            order.swap(i, usize::try_from(random % (i as u64 + 1)).unwrap_or(0));
        }
        Self { order, at: 0 }
    }

    /// Pools until every SA had its turn; none where one pool is all.
    fn pools(&self) -> usize {
        if self.order.len() > POOL { self.order.len() / POOL } else { 0 }
    }

    fn next(&mut self) -> &[u32] {
        let at = self.at;
        self.at = (at + POOL) % self.order.len();
        &self.order[at..at + POOL]
    }
}

/// One table for each suite, direction and count of SAs: engines down, payloads across.
fn print(machine: &Machine, rows: &[Row]) {
    println!("{}, {} GHz; Linux {}; {}", machine.cpu, machine.ghz, machine.kernel, machine.date);
    println!(
        "ns a packet (median of slices), one core, bursts of 32, AAD 8, ICV 16; in brackets: times the first engine"
    );
    let key = |row: &Row| (row.suite, row.direction, row.sas);
    let mut tables: Vec<_> = rows.iter().map(key).collect();
    tables.dedup();
    let mut seen = Vec::new();
    for table in tables {
        if seen.contains(&table) {
            continue;
        }
        seen.push(table);
        let (suite, direction, sas) = table;
        let mine: Vec<_> = rows.iter().filter(|row| key(row) == table).collect();
        let mut payloads: Vec<_> = mine.iter().map(|row| row.bytes.name()).collect();
        payloads.dedup();
        let mut engines: Vec<_> = mine.iter().map(|row| row.engine.as_str()).collect();
        engines.truncate(mine.len() / payloads.len().max(1));
        let heads = [format!("{suite} {direction}, {sas} SA")].into_iter().chain(payloads.iter().cloned());
        let mut text = Table::new(heads);
        for engine in engines {
            let cells = mine.iter().filter(|row| row.engine == engine);
            let cells =
                cells.map(|row| format!("{:.1} ±{:.0}% ({:.2})", row.ns, row.spread * 100.0, row.ratio));
            text.push([engine.to_owned()].into_iter().chain(cells));
        }
        println!("\n{}", text.render().trim_end());
    }
}
