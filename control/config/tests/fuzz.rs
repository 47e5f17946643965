//! Configuration text as users write it, spoilt: it is read or refused with mistakes that say where, and never
//! does anything else.

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;

use std::path::Path;

use harness::{Random, corpus, fuzz, mutate};

/// Rounds of an ordinary test run: about a second.
const ROUNDS: u64 = 4_000;

/// Values that users write where others belong.
const VALUES: &[&str] = &[
    "0",
    "-1",
    "4294967296",
    "1.5",
    "true",
    "\"\"",
    "\"10.1.0.0/16\"",
    "\"10.1.0.0/33\"",
    "\"::/0\"",
    "\"fd01::/64[udp/16384-32767]\"",
    "\"[udp/9-1]\"",
    "\"aes128gcm16\"",
    "\"aes256gcm16-ecp384\"",
    "\"1h\"",
    "\"99999999999999999999d\"",
    "[]",
    "[1, \"a\"]",
    "{ a = 1 }",
    "\"\u{7f}ü\"",
    "nan",
];

/// A text with some lines dropped, doubled, swapped or given another value, or with octets changed.
fn spoil(text: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..=random.below(3) {
        if lines.is_empty() {
            break;
        }
        let at = random.below(lines.len());
        match random.below(6) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            2 => {
                let to = random.below(lines.len());
                lines.swap(at, to);
            }
            3 | 4 => {
                if let Some((key, _)) = lines[at].split_once('=') {
                    lines[at] = format!("{key}= {}", random.pick(VALUES));
                }
            }
            _ => {
                let mut octets = std::mem::take(&mut lines[at]).into_bytes();
                mutate(&mut octets, random);
                lines[at] = String::from_utf8_lossy(&octets).into_owned();
            }
        }
    }
    lines.join("\n")
}

#[test]
fn fuzz_configuration_text() {
    let corpus = corpus("config");
    let file = Path::new("/etc/pollux/pollux.toml");
    let (mut read, mut refused) = (0_u64, 0_u64);
    let rounds = fuzz(ROUNDS, |random| {
        let (_, octets) = random.pick(&corpus);
        let text = spoil(std::str::from_utf8(octets).expect("the corpus is text"), random);
        match pollux_config::parse(file, &text) {
            Ok(_) => read += 1,
            Err(problems) => {
                refused += 1;
                assert!(!problems.0.is_empty(), "refused without a mistake:\n{text}");
                let last = u32::try_from(text.lines().count()).expect("short") + 1;
                for problem in &problems.0 {
                    assert!(problem.line <= last, "{problem}: there are only {last} lines");
                    assert!(!problem.reason.is_empty() && !problem.fix.is_empty(), "{problem}");
                    assert!(!problem.to_string().contains('\n'), "more than a line: {problem}");
                }
            }
        }
    });
    assert!(rounds == 1 || read > 0 && refused > 0, "{read} read, {refused} refused: the harness is blunt");
}

#[test]
fn every_text_of_the_corpus_is_without_mistakes() {
    for (name, octets) in corpus("config") {
        let text = String::from_utf8(octets).expect("text");
        let read = pollux_config::parse(Path::new("/etc/pollux/pollux.toml"), &text);
        assert!(
            read.is_ok(),
            "{name}: {}",
            read.map_or_else(|problems| problems.to_string(), |_| String::new())
        );
    }
}
