//! From the document's sections to the model, one section a file.

mod connection;
mod dataplane;
mod sa;

use std::path::Path;

use toml::de::DeTable;

use crate::check;
use crate::document::{Report, Section};
use crate::model::{CONTROL_DIR, Config, Paths, Places};
use crate::problem::Problems;
use crate::values;

/// Reads and checks a whole configuration.
pub(crate) fn config(file: &Path, text: &str) -> Result<Config, Problems> {
    let report = Report::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    report.add_syntax(&errors);
    let config = if errors.is_empty() {
        let root = Section::root(&report, document.get_ref());
        let mut config = read(file, &root);
        root.finish();
        if let Some(config) = &mut config {
            check::across(&report, config);
            config.warnings = report.take_warnings();
        }
        config
    } else {
        None
    };
    let problems = report.into_problems();
    match config {
        Some(config) if problems.0.is_empty() => Ok(config),
        _ => Err(problems),
    }
}

/// Reads folders and namespace alone.
pub(crate) fn places(file: &Path, text: &str) -> Result<Places, Problems> {
    let report = Report::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    report.add_syntax(&errors);
    let root = Section::root(&report, document.get_ref());
    let netns = root.section("dataplane").and_then(|section| dataplane::netns(&section));
    let places = Places { file: file.to_owned(), paths: paths(file, &root), netns };
    let problems = report.into_problems();
    if problems.0.is_empty() { Ok(places) } else { Err(problems) }
}

fn read(file: &Path, root: &Section<'_, '_>) -> Option<Config> {
    let paths = paths(file, root);
    let dataplane = dataplane::dataplane(root);
    let control = dataplane::control(root);
    let sas = root.sections("sa").into_iter().filter_map(sa::sa).collect();
    let policies = root.sections("policy").into_iter().filter_map(sa::policy).collect();
    let connections = root.sections("connection").into_iter().filter_map(connection::connection).collect();
    Some(Config {
        file: file.to_owned(),
        paths,
        dataplane: dataplane?,
        control,
        sas,
        policies,
        connections,
        warnings: Vec::new(),
    })
}

/// Octets of a Unix socket's path, with its end mark (unix(7)).
const SUN_PATH: usize = 108;

fn paths(file: &Path, root: &Section<'_, '_>) -> Paths {
    let mut paths =
        Paths { run_dir: "/run/pollux".into(), state_dir: "/var/lib/pollux".into(), secrets: None };
    let Some(section) = root.section("paths") else { return paths };
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    if let Some(run_dir) = section.optional("run_dir", values::absolute) {
        // The longest of the sockets below it (sun_path, with its end mark).
        let longest = run_dir.join(CONTROL_DIR).join("control.sock").as_os_str().len();
        if longest >= SUN_PATH {
            section.wrong(
                "run_dir",
                format!("is {} octets too long for the path of a socket", longest + 1 - SUN_PATH),
                "write a shorter path, such as \"/run/pollux-a\"",
            );
        }
        paths.run_dir = run_dir;
    }
    if let Some(state_dir) = section.optional("state_dir", values::absolute) {
        paths.state_dir = state_dir;
    }
    paths.secrets = section.optional("secrets", values::text).map(|secrets| folder.join(secrets));
    section.finish();
    paths
}
