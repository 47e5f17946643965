//! One harness for test and fuzzing: seeded random and mutated messages through the reader.
//!
//! `cargo test` runs a fixed number of rounds; `POLLUX_FUZZ_SECONDS=600 cargo test -p pollux-ike --test
//! message_fuzz` goes on for so long from a seed of the clock, which a failure prints. Seeds are messages of
//! our own and those in `tests/corpus/ike`, one message in hexadecimal digits a file.

mod support;

use std::time::{Duration, Instant, SystemTime};

use pollux_ike::message::{Encrypted, Header, Message, PayloadType, Payloads};
use support::{SplitMix, ToyCipher, drain, init, inner, read, sealed};

/// Rounds of each target in an ordinary test run: a million and a quarter in all, in about two seconds.
const ROUNDS: u64 = 250_000;

fn corpus() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/corpus/ike");
    let mut list = vec![init(), sealed(&ToyCipher { block_len: 1 }), sealed(&ToyCipher { block_len: 16 })];
    for file in std::fs::read_dir(folder).expect("the corpus") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let octet = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).expect("digits");
            u8::from_str_radix(text, 16).expect("digits")
        };
        list.push(digits.chunks_exact(2).map(octet).collect());
    }
    list
}

/// Runs `target` with one seeded generator after another.
fn fuzz(mut target: impl FnMut(&mut SplitMix)) {
    let long_run = std::env::var("POLLUX_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let Some(seconds) = long_run else {
        for seed in 0..ROUNDS {
            target(&mut SplitMix(seed));
        }
        return;
    };
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let first = u64::try_from(clock.as_nanos() & u128::from(u64::MAX)).expect("masked");
    let (start, mut rounds) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        for seed in (first + rounds..).take(1000) {
            let outcome =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&mut SplitMix(seed))));
            assert!(outcome.is_ok(), "seed {seed}");
        }
        rounds += 1000;
    }
    println!("{rounds} rounds from seed {first}");
}

/// Changes, doubles, drops or swaps some octets.
fn mutate(octets: &mut Vec<u8>, rng: &mut SplitMix) {
    for _ in 0..=rng.below(4) {
        if octets.is_empty() {
            return;
        }
        let at = rng.below(octets.len());
        let span = (rng.below(12) + 1).min(octets.len() - at);
        match rng.below(6) {
            0 => octets[at] = rng.octet(),
            1 => octets[at] ^= 1 << rng.below(8),
            2 => octets.truncate(at),
            3 => drop(octets.drain(at..at + span)),
            4 => {
                let copy = octets[at..at + span].to_vec();
                octets.splice(at..at, copy);
            }
            _ => {
                let to = rng.below(octets.len());
                octets.swap(at, to);
            }
        }
    }
    // Half of the time the header tells the truth about the length, so that more is looked at.
    if rng.below(2) == 0 && octets.len() >= Header::LEN {
        let len = u32::try_from(octets.len()).expect("short");
        octets[24..28].copy_from_slice(&len.to_be_bytes());
    }
}

#[test]
fn mutated_messages_never_panic_and_stay_bounded() {
    let corpus = corpus();
    let cipher = ToyCipher { block_len: 1 };
    let mut parsed = 0u64;
    fuzz(|rng| {
        let mut octets = corpus[rng.below(corpus.len())].clone();
        mutate(&mut octets, rng);
        let Ok(message) = Message::parse(&octets) else { return };
        parsed += 1;
        // Views overlap, but each octet is seen a few times at most.
        assert!(drain(&message.payloads) <= 64 * octets.len());
        if let Some(encrypted) = message.encrypted {
            let _ = encrypted.open(&cipher, &mut octets);
        }
    });
    assert!(parsed > ROUNDS / 100, "only {parsed} messages got through the header: the harness is blunt");
}

#[test]
fn mutated_insides_never_panic() {
    let (first, whole) = inner();
    fuzz(|rng| {
        let mut octets = whole.clone();
        mutate(&mut octets, rng);
        let _ = Payloads::parse(first, &octets).map(|payloads| drain(&payloads));
    });
}

#[test]
fn random_bodies_of_every_payload_never_panic() {
    fuzz(|rng| {
        let kind = PayloadType::KNOWN[rng.below(PayloadType::KNOWN.len())];
        let len = rng.below(80);
        let mut octets = vec![0, 0, 0, u8::try_from(len + 4).expect("short")];
        // Small numbers are counts and lengths that nearly fit.
        octets.extend((0..len).map(|_| if rng.below(2) == 0 { rng.octet() } else { rng.octet() & 0x0f }));
        let _ = Payloads::parse(kind, &octets).map(|payloads| drain(&payloads));
    });
}

#[test]
fn random_datagrams_never_panic() {
    fuzz(|rng| {
        let len = rng.below(200);
        let mut octets: Vec<u8> = (0..len).map(|_| rng.octet()).collect();
        if let Some(version) = octets.get_mut(17) {
            *version = 0x20;
        }
        if let Some(place) = octets.get_mut(24..28) {
            place.copy_from_slice(&u32::try_from(len).expect("short").to_be_bytes());
        }
        read(&octets);
    });
}

#[test]
fn the_corpus_parses() {
    for message in corpus() {
        let parsed = Message::parse(&message);
        assert!(parsed.is_ok(), "{parsed:?}");
    }
}

#[test]
fn encrypted_framing_stays_inside_the_message() {
    fuzz(|rng| {
        let mut octets = sealed(&ToyCipher { block_len: 16 });
        octets[16] = if rng.below(2) == 0 { 46 } else { 53 };
        mutate(&mut octets, rng);
        let Ok(Message { encrypted: Some(Encrypted { content, .. }), .. }) = Message::parse(&octets) else {
            return;
        };
        assert!(content <= octets.len());
    });
}
