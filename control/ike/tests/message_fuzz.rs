//! Seeded random and mutated messages through the reader: the header, the payload chain, each payload, and what
//! lies inside SK. Seeds are messages of our own and those in `tests/corpus/ike`.

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;
mod support;

use harness::{Random, fuzz};
use pollux_ike::message::{Encrypted, Header, Message, PayloadType, Payloads};
use support::{ToyCipher, drain, init, inner, read, sealed};

/// Rounds of each target in an ordinary test run: a million and a quarter in all, in about two seconds.
const ROUNDS: u64 = 250_000;

fn corpus() -> Vec<Vec<u8>> {
    let ours = [init(), sealed(&ToyCipher { block_len: 1 }), sealed(&ToyCipher { block_len: 16 })];
    ours.into_iter().chain(harness::corpus("ike").into_iter().map(|(_, octets)| octets)).collect()
}

/// Half of the time the header tells the truth about the length, so that more is looked at.
fn mutate(octets: &mut Vec<u8>, random: &mut Random) {
    harness::mutate(octets, random);
    if random.once_in(2) && octets.len() >= Header::LEN {
        let len = u32::try_from(octets.len()).expect("short");
        octets[24..28].copy_from_slice(&len.to_be_bytes());
    }
}

#[test]
fn fuzz_mutated_messages() {
    let corpus = corpus();
    let cipher = ToyCipher { block_len: 1 };
    let mut parsed = 0u64;
    let rounds = fuzz(ROUNDS, |random| {
        let mut octets = corpus[random.below(corpus.len())].clone();
        mutate(&mut octets, random);
        let Ok(message) = Message::parse(&octets) else { return };
        parsed += 1;
        // Views overlap, but each octet is seen a few times at most.
        assert!(drain(&message.payloads) <= 64 * octets.len());
        if let Some(encrypted) = message.encrypted {
            let _ = encrypted.open(&cipher, &mut octets);
        }
    });
    assert!(
        rounds == 1 || parsed > rounds / 100,
        "only {parsed} messages got through the header: the harness is blunt"
    );
}

#[test]
fn fuzz_headers() {
    fuzz(ROUNDS, |random| {
        let len = random.below(Header::LEN + 8);
        let octets = random.octets(len);
        let Ok(header) = Header::parse(&octets) else { return assert!(len < Header::LEN) };
        let mut written = Vec::new();
        header.write(&mut written);
        // All but the flags that the RFC has no meaning for.
        assert_eq!((&written[..19], &written[20..]), (&octets[..19], &octets[20..Header::LEN]));
    });
}

#[test]
fn fuzz_mutated_insides() {
    let (first, whole) = inner();
    fuzz(ROUNDS, |random| {
        let mut octets = whole.clone();
        mutate(&mut octets, random);
        let _ = Payloads::parse(first, &octets).map(|payloads| drain(&payloads));
    });
}

#[test]
fn fuzz_random_bodies_of_every_payload() {
    fuzz(ROUNDS, |random| {
        let kind = PayloadType::KNOWN[random.below(PayloadType::KNOWN.len())];
        let len = random.below(80);
        let mut octets = vec![0, 0, 0, u8::try_from(len + 4).expect("short")];
        // Small numbers are counts and lengths that nearly fit.
        octets.extend(
            (0..len).map(|_| if random.below(2) == 0 { random.octet() } else { random.octet() & 0x0f }),
        );
        let _ = Payloads::parse(kind, &octets).map(|payloads| drain(&payloads));
    });
}

#[test]
fn fuzz_random_datagrams() {
    fuzz(ROUNDS, |random| {
        let len = random.below(200);
        let mut octets: Vec<u8> = (0..len).map(|_| random.octet()).collect();
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
fn fuzz_encrypted_framing() {
    fuzz(ROUNDS, |random| {
        let mut octets = sealed(&ToyCipher { block_len: 16 });
        octets[16] = if random.below(2) == 0 { 46 } else { 53 };
        mutate(&mut octets, random);
        let Ok(Message { encrypted: Some(Encrypted { content, .. }), .. }) = Message::parse(&octets) else {
            return;
        };
        assert!(content <= octets.len());
    });
}
