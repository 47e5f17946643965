//! The repository's own lint: what no other tool checks, in about a second and with no dependency.
//!
//! Each check is a function from the repository to findings; `main` prints them and fails if there are
//! any. Exceptions stand beside the check that they weaken, each with its reason.
#![forbid(unsafe_code)]

mod banned;
mod docs;
mod drop_reasons;
mod edges;
mod json;
mod length;
mod packages;
mod repo;
mod unsafe_code;

use std::process::ExitCode;

use repo::Repo;

/// One thing that is wrong, as `path:line: text`.
type Finding = String;

type Check = (&'static str, fn(&Repo) -> Vec<Finding>);

const CHECKS: &[Check] = &[
    ("file and function length", length::check),
    ("crate edges", edges::check),
    ("unsafe only where listed", unsafe_code::check),
    ("banned words and calls", banned::check),
    ("drop reasons", drop_reasons::check),
    ("links in the documentation", docs::check),
    ("licences and duplicate dependencies", packages::check),
];

fn main() -> ExitCode {
    let repo = match Repo::open() {
        Ok(repo) => repo,
        Err(error) => {
            eprintln!("tidy: {error}");
            return ExitCode::from(2);
        }
    };
    let mut findings = 0;
    for (name, check) in CHECKS {
        let found = check(&repo);
        println!("{:<4} {name}", if found.is_empty() { "ok" } else { "FAIL" });
        findings += found.len();
        for finding in found {
            println!("     {finding}");
        }
    }
    println!("tidy: {} files, {findings} findings", repo.files().len());
    if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
