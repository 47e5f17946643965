//! Words that stand for unfinished work, and calls that a folder's promise rules out.

use crate::Finding;
use crate::repo::{File, Repo};

/// Anywhere in Rust code.
const UNFINISHED: &[&str] = &["todo!(", "unimplemented!(", "dbg!(", "FIXME", "TODO", "XXX"];

/// In the crates that promise to have no clock, randomness or socket.
const SANS_IO: &[&str] =
    &["Instant::now", "SystemTime::now", "UdpSocket", "TcpStream", "rand::", "getrandom"];
const SANS_IO_CRATES: &[&str] = &["control/ike/src/", "dataplane/esp/src/", "dataplane/packet/src/"];

/// On the packet path.
const PER_PACKET: &[&str] =
    &["HashMap", "BTreeMap", "Mutex", "RwLock", "fetch_add", "println!", "tracing::", "Arc::clone"];
const PACKET_PATH: &[&str] = &[
    "dataplane/esp/src/inbound/",
    "dataplane/esp/src/outbound/",
    "dataplane/esp/src/replay/",
    "dataplane/packet/src/",
    "dataplane/port/src/xsk/ring.rs",
    "dataplane/worker/src/round.rs",
];

/// In any text file: names that belong to one machine or to a service.
const PRIVATE: &[&str] = &["/root/", "/work/"];

pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in repo.rust().filter(|file| !file.path.starts_with("tests/tidy/")) {
        findings.extend(find(file, &file.text, UNFINISHED, "reads as unfinished"));
        if SANS_IO_CRATES.iter().any(|folder| file.path.starts_with(folder)) && !file.is_test() {
            findings.extend(find(file, file.code(), SANS_IO, "the crate promises to do without"));
        }
        if PACKET_PATH.iter().any(|folder| file.path.starts_with(folder)) && !file.is_test() {
            findings.extend(find(file, file.code(), PER_PACKET, "not on the packet path"));
        }
    }
    for file in repo.files().iter().filter(|file| !file.path.starts_with("tests/tidy/")) {
        findings.extend(find(file, &file.text, PRIVATE, "a path of one machine"));
    }
    findings
}

fn find(file: &File, text: &str, words: &[&str], why: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(word) = words.iter().find(|word| line.contains(**word)) {
            findings.push(format!("{}:{}: `{word}`: {why}", file.path, index + 1));
        }
    }
    findings
}
