//! What every fuzz harness of the workspace shares. Test programs take it in by `#[path]`, so that no crate
//! depends on the tests.
//!
//! A harness is a test function whose name begins with `fuzz_`, in a test program with `fuzz` in its name.
//! `cargo test` runs a fixed number of rounds from seed 0; `scripts/fuzz SECONDS` runs all of them for so
//! long from a seed of the clock. Three variables steer it:
//!
//! - `POLLUX_FUZZ_SECONDS`: how long each harness runs, in place of its number of rounds;
//! - `POLLUX_FUZZ_SEED`: the one seed to run, as a failure prints it;
//! - `POLLUX_FUZZ_FIRST`: the seed to begin with, in place of the clock.
//!
//! Seeds to mutate stand in `tests/corpus/<area>`, one input a file: `.hex` holds octets as hexadecimal
//! digits, white space and `#` comments aside; anything else is taken as it is.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::time::{Duration, Instant, SystemTime};

/// SplitMix64: a few lines, and the same numbers everywhere.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).expect("64 bits")).expect("below a usize")
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn octet(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    pub(crate) fn octets(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.octet()).collect()
    }

    /// One of `list`, which is not empty.
    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Says which seed failed when a panic unwinds through it.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("fuzz: failed; the same again: POLLUX_FUZZ_SEED={}", self.0);
        }
    }
}

/// Runs `target` with one seeded generator after another; returns how many rounds there were.
pub(crate) fn fuzz(rounds: u64, mut target: impl FnMut(&mut Random)) -> u64 {
    let mut one = |seed| {
        let guard = Seed(seed);
        target(&mut Random(seed));
        drop(guard);
    };
    if let Some(seed) = variable("POLLUX_FUZZ_SEED") {
        one(seed);
        return 1;
    }
    let Some(seconds) = variable("POLLUX_FUZZ_SECONDS") else {
        (0..rounds).for_each(one);
        return rounds;
    };
    let first = variable("POLLUX_FUZZ_FIRST").unwrap_or_else(|| {
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        u64::try_from(clock.as_nanos() & u128::from(u64::MAX)).expect("masked")
    });
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        (0..ROUNDS_PER_CLOCK).for_each(|round| one(first.wrapping_add(done + round)));
        done += ROUNDS_PER_CLOCK;
    }
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("fuzz: {name}: {done} rounds from seed {first}");
    done
}

/// Rounds between two looks at the clock.
const ROUNDS_PER_CLOCK: u64 = 100;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// Changes, doubles, drops or swaps some octets.
pub(crate) fn mutate(octets: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        if octets.is_empty() {
            octets.push(random.octet());
        }
        let at = random.below(octets.len());
        let span = (random.below(12) + 1).min(octets.len() - at);
        match random.below(7) {
            0 => octets[at] = random.octet(),
            1 => octets[at] ^= 1 << random.below(8),
            2 => octets[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            3 => octets.truncate(at),
            4 => drop(octets.drain(at..at + span)),
            5 => {
                let copy = octets[at..at + span].to_vec();
                octets.splice(at..at, copy);
            }
            _ => {
                let to = random.below(octets.len());
                octets.swap(at, to);
            }
        }
    }
}

/// As [`mutate`], without changing the length.
pub(crate) fn mutate_in_place(octets: &mut [u8], random: &mut Random) {
    for _ in 0..=random.below(6) {
        let at = random.below(octets.len());
        match random.below(3) {
            0 => octets[at] = random.octet(),
            1 => octets[at] ^= 1 << random.below(8),
            _ => octets[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        }
    }
}

/// The inputs of `tests/corpus/<area>`, by file name.
pub(crate) fn corpus(area: &str) -> Vec<(String, Vec<u8>)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root
        .ancestors()
        .map(|folder| folder.join("tests/corpus").join(area))
        .find(|folder| folder.is_dir())
        .unwrap_or_else(|| panic!("there is no tests/corpus/{area}"));
    let mut inputs: Vec<(String, Vec<u8>)> = std::fs::read_dir(&folder)
        .expect("the corpus")
        .map(|file| {
            let path = file.expect("a file").path();
            let octets = std::fs::read(&path).expect("readable");
            let hex = path.extension().is_some_and(|extension| extension == "hex");
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, if hex { from_hex(&octets) } else { octets })
        })
        .collect();
    inputs.sort();
    inputs
}

fn from_hex(text: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(text).expect("text");
    let digits: Vec<u8> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.chars().filter_map(|digit| digit.to_digit(16)))
        .map(|digit| u8::try_from(digit).expect("below 16"))
        .collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
