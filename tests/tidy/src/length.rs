//! A file has at most 600 lines, a function at most 70.

use crate::Finding;
use crate::repo::{File, Repo};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that may be longer, with the reason.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[
    ("dataplane/abi/src/event.rs", "encode", "one arm for each event, three lines an arm"),
    ("control/ike/tests/message_malformed.rs", "insides_that_contradict_themselves_are_refused", "a table"),
];

pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in repo.files() {
        if !matches!(file.extension(), "rs" | "c" | "h" | "sh" | "py") && !file.path.starts_with("scripts/") {
            continue;
        }
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{}: {lines} lines; at most {FILE_LINES_MAX}", file.path));
        }
    }
    for file in repo.rust() {
        findings.extend(long_functions(file));
    }
    findings
}

/// Formatted code ends a function at the first closing brace in the column of its first line.
fn long_functions(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines: Vec<&str> = file.text.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let closes = |candidate: &&str| {
            candidate.len() - candidate.trim_start().len() == indent
                && candidate.trim_start().starts_with('}')
        };
        let declaration_only = line.trim_end().ends_with(';') || line.trim_end().ends_with('}');
        if declaration_only {
            continue;
        }
        let length = lines[start..].iter().position(closes).map_or(0, |end| end + 1);
        let excused =
            LONG_FUNCTIONS.iter().any(|(path, function, _)| *path == file.path && *function == name);
        if length > FUNCTION_LINES_MAX && !excused {
            findings.push(format!(
                "{}:{}: fn {name} has {length} lines; at most {FUNCTION_LINES_MAX}",
                file.path,
                start + 1
            ));
        }
    }
    findings
}

fn function_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let modifiers = ["pub ", "pub(crate) ", "pub(super) ", "const ", "unsafe ", "async ", "extern \"C\" "];
    let mut rest = line;
    while let Some(shorter) = modifiers.iter().find_map(|modifier| rest.strip_prefix(modifier)) {
        rest = shorter;
    }
    let name = rest.strip_prefix("fn ")?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(&name[..end])
}
