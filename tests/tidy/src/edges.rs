//! Which of our crates may depend on which: a promise that a crate makes is kept by its manifest.

use crate::Finding;
use crate::repo::Repo;

/// Manifest, and all of our crates that its `[dependencies]` may name.
const ALLOWED: &[(&str, &[&str])] = &[
    ("dataplane/abi", &[]),
    ("dataplane/shm", &["pollux-abi"]),
    ("dataplane/packet", &["pollux-abi"]),
    ("dataplane/aead", &[]),
    ("dataplane/esp", &["pollux-abi", "pollux-packet", "pollux-aead"]),
    ("dataplane/port", &["pollux-abi", "pollux-shm", "pollux-packet"]),
    (
        "dataplane/worker",
        &["pollux-abi", "pollux-shm", "pollux-packet", "pollux-esp", "pollux-port", "pollux-aead"],
    ),
    (
        "dataplane/daemon",
        &[
            "pollux-abi",
            "pollux-shm",
            "pollux-packet",
            "pollux-aead",
            "pollux-esp",
            "pollux-port",
            "pollux-worker",
            "pollux-ebpf",
            "pollux-config",
            "pollux-sandbox",
        ],
    ),
    ("dataplane/sandbox", &[]),
    ("ebpf", &["pollux-abi"]),
    ("control/config", &["pollux-abi"]),
    ("control/ike", &["pollux-abi"]),
    ("control/crypto", &["pollux-ike", "pollux-abi"]),
    (
        "control/daemon",
        &["pollux-abi", "pollux-shm", "pollux-ike", "pollux-crypto", "pollux-config", "pollux-sandbox"],
    ),
    ("control/cli", &["pollux-abi", "pollux-shm", "pollux-config"]),
];

/// Crates of others that a folder must not depend on, with the reason.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("control/ike", "tokio", "the core is sans-IO"),
    ("control/ike", "rand", "randomness comes in from outside"),
    ("control/ike", "aws-lc-rs", "cryptography comes in through the provider"),
    ("dataplane/", "tokio", "the data plane has no runtime"),
    ("dataplane/worker", "aya", "the worker runs unprivileged"),
    ("", "pollux-lab", "nothing depends on the tests"),
    ("", "pollux-sim", "nothing depends on the tests"),
    ("dataplane/", "pollux-pair", "it is for tests and benchmarks of the control plane"),
    ("control/", "pollux-pair", "it provides no security, and is for tests alone"),
];

pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in
        repo.files().iter().filter(|file| file.path.ends_with("Cargo.toml") && file.path != "Cargo.toml")
    {
        let folder = file.path.trim_end_matches("/Cargo.toml");
        let dependencies = dependencies(&file.text);
        if let Some((_, allowed)) = ALLOWED.iter().find(|(path, _)| *path == folder) {
            for name in dependencies.iter().filter(|name| name.starts_with("pollux-")) {
                if !allowed.contains(name) {
                    findings.push(format!("{}: must not depend on {name}", file.path));
                }
            }
        }
        for (path, name, reason) in FORBIDDEN {
            if folder.starts_with(path) && dependencies.contains(name) {
                findings.push(format!("{}: must not depend on {name}: {reason}", file.path));
            }
        }
    }
    findings
}

/// Names in the manifest's `[dependencies]` table.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]" || line.ends_with(".dependencies]");
        } else if inside && !line.trim().is_empty() && !line.starts_with('#') {
            names.extend(line.split(['.', '=', ' ']).next());
        }
    }
    names
}
