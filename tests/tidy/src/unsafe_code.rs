//! `unsafe` stands only in the files that own rings, memory and intrinsics, and every crate says so.

use crate::Finding;
use crate::repo::Repo;

/// Files and folders that may contain `unsafe`, with what they own.
const LISTED: &[(&str, &str)] = &[
    ("dataplane/shm/src/map.rs", "mapping of shared memory"),
    ("dataplane/shm/src/cursor.rs", "ring indices in shared memory"),
    ("dataplane/packet/src/hint.rs", "prefetch and TSC"),
    ("dataplane/aead/src/kernel/", "cipher intrinsics"),
    ("dataplane/port/src/xsk/syscall.rs", "socket options and mmap of AF_XDP"),
    ("dataplane/port/src/xsk/ring.rs", "AF_XDP rings"),
    ("dataplane/port/src/xsk/umem.rs", "UMEM frames"),
    ("ebpf/src/ethtool.rs", "SIOCETHTOOL"),
    ("ebpf/src/guard/sys.rs", "bpf(2)"),
    ("bench/harness/src/peer/", "peers written in C"),
];

pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in repo.rust().filter(|file| !file.path.starts_with("tests/tidy/")) {
        let listed = LISTED.iter().any(|(path, _)| file.path.starts_with(path));
        for (number, line) in file.lines() {
            let code = line.split("//").next().unwrap_or_default();
            let is_use = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|word| code.contains(word));
            if is_use && !listed && !file.is_test() {
                findings.push(format!("{}:{number}: unsafe in a file that is not listed", file.path));
            }
        }
    }
    for file in repo.rust() {
        let is_root = file.path.ends_with("src/lib.rs") || file.path.ends_with("src/main.rs");
        let says =
            file.text.contains("#![forbid(unsafe_code)]") || file.text.contains("#![deny(unsafe_code)]");
        if is_root && !says && !file.path.starts_with("bench/") {
            findings.push(format!("{}:1: says neither forbid(unsafe_code) nor deny(unsafe_code)", file.path));
        }
    }
    findings
}
