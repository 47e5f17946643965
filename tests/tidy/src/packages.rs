//! Licences of everything that is linked in, and crates that come in more than one version.

use std::collections::BTreeMap;
use std::process::Command;

use crate::Finding;
use crate::json::Value;
use crate::repo::Repo;

/// Licences that go with ours; an expression is fine where one of its alternatives is here.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that may come twice, with the reason.
const DUPLICATES: &[(&str, &str)] = &[
    ("getrandom", "ring, a peer in the benchmarks, is behind the rest"),
    ("syn", "procedural macros, at build time only; the newest are ahead of the rest"),
    ("untrusted", "ring and aws-lc-rs, peers in the benchmarks, differ"),
];

pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let metadata = match metadata(repo) {
        Ok(metadata) => metadata,
        Err(error) => return vec![error],
    };
    let mut findings = Vec::new();
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata.get("packages").items() {
        let (name, version) = (package.get("name").text(), package.get("version").text());
        versions.entry(name.to_owned()).or_default().push(version.to_owned());
        let licence = package.get("license").text();
        if !acceptable(licence) {
            findings.push(format!("Cargo.lock: {name} {version} has the licence `{licence}`"));
        }
    }
    for (name, versions) in versions {
        let excused = DUPLICATES.iter().any(|(excused, _)| *excused == name);
        if versions.len() > 1 && !excused {
            findings.push(format!("Cargo.lock: {name} comes as {}", versions.join(" and ")));
        }
    }
    findings
}

fn metadata(repo: &Repo) -> Result<Value, String> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(repo.root())
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Value::parse(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| "cargo metadata: not JSON".to_owned())
}

/// An SPDX expression: every part of an AND, any part of an OR.
fn acceptable(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let plain = expression.replace(['(', ')'], "");
    plain.split(" AND ").all(|part| part.split(" OR ").any(|licence| LICENCES.contains(&licence.trim())))
}
