//! Every drop reason is raised in code, seen in a test and explained; a reason that never happens misleads.

use crate::Finding;
use crate::repo::Repo;

const LIST: &str = "dataplane/abi/src/drop_reason.rs";
const DOC: &str = "docs/counters.md";

pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let Some(list) = repo.file(LIST) else { return vec![format!("{LIST}: missing")] };
    let reasons = list.text.lines().filter_map(|line| {
        let (variant, rest) = line.trim().split_once(", \"")?;
        let (name, rest) = rest.split_once('"')?;
        (rest.ends_with(';') && variant.chars().all(char::is_alphanumeric)).then_some((variant, name))
    });
    let mut findings = Vec::new();
    for (variant, name) in reasons {
        if !repo.file(DOC).is_some_and(|doc| doc.text.contains(&format!("| `{name}` |"))) {
            findings.push(format!("{DOC}: `{name}` is missing"));
        }
        let word = format!("DropReason::{variant}");
        let names = |text: &str| {
            text.match_indices(&word).any(|(at, _)| {
                text[at + word.len()..]
                    .chars()
                    .next()
                    .is_none_or(|next| !next.is_alphanumeric() && next != '_')
            })
        };
        let mut raised = false;
        let mut tested = false;
        for file in repo.rust().filter(|file| file.path.starts_with("dataplane/") && file.path != LIST) {
            if file.is_test() {
                tested |= names(&file.text);
            } else {
                raised |= names(file.code());
                tested |= names(&file.text[file.code().len()..]);
            }
        }
        if !raised {
            findings.push(format!("{LIST}: {variant} is never raised"));
        }
        if !tested {
            findings.push(format!("{LIST}: {variant} is in no test"));
        }
    }
    findings
}
