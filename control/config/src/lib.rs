//! One configuration schema for both processes and `pollux check`.
//!
//! ```text
//!   pollux.toml  ─► document (spans) ─► read/* (sections, values) ─► check (across sections) ─► Config
//!   secrets.toml ─► owner and mode   ─► secrets                   ─► check                   ─► Secrets
//!   api: the types of both daemons' sockets
//! ```
//!
//! Every mistake is reported, not only the first, each as one line `FILE:LINE: key: reason; fix`. A
//! configuration with a mistake yields no [`Config`] at all, so nothing can be half applied.
//!
//! The crate has no sockets and no threads. It reads the two files that it is told and nothing else.
//! No panic on any input.
#![forbid(unsafe_code)]

pub mod api;
mod check;
mod document;
mod model;
mod model_ike;
mod problem;
mod proposal;
mod read;
mod secrets;
mod values;

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub use model::*;
pub use problem::{Problem, Problems};
pub use secrets::{Psk, Secrets};

/// A selector as swanctl and our own lists write it, such as `10.1.0.0/16[udp/16384-32767]`; `None` where it is
/// none.
pub fn parse_selector(written: &str) -> Option<pollux_abi::TrafficSelector> {
    values::parse_selector(written).ok()
}

/// Every keyword and spelling that the check knows in `proposals` and `esp_proposals`, those that it refuses by name
/// too: for the test that holds it against the core's grammar.
pub fn proposal_keywords() -> Vec<&'static str> {
    proposal::keywords()
}

/// Reads a configuration without its secrets: all that the data plane may know.
pub fn load(file: &Path) -> Result<Config, Problems> {
    parse(file, &text_of(file)?)
}

fn text_of(file: &Path) -> Result<String, Problems> {
    let unreadable = |error: std::io::Error| {
        Problems::of_file(file, format!("can't be read: {error}"), "name a file that exists and is readable")
    };
    let mut opened = std::fs::File::open(file).map_err(unreadable)?;
    let about = opened.metadata().map_err(unreadable)?;
    if about.is_file() && about.mode() & 0o002 != 0 {
        return Err(Problems::of_file(
            file,
            format!(
                "everybody may write it (mode {:o}), and it decides what leaves in clear",
                about.mode() & 0o777
            ),
            format!("chmod o-w {}", file.display()),
        ));
    }
    let mut octets = Vec::new();
    opened.read_to_end(&mut octets).map_err(unreadable)?;
    String::from_utf8(octets).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        not_utf8(file, error.as_bytes(), valid)
    })
}

/// A file in another encoding than TOML's, which is valid up to an octet.
fn not_utf8(file: &Path, octets: &[u8], valid: usize) -> Problems {
    let line = octets.iter().take(valid).filter(|&&octet| octet == b'\n').count() + 1;
    let is_utf16 = octets.starts_with(&[0xff, 0xfe]) || octets.starts_with(&[0xfe, 0xff]);
    let (is, encoding) =
        if is_utf16 { ("is UTF-16", "UTF-16") } else { ("is not UTF-8 here, perhaps Latin-1", "LATIN1") };
    let mut problems = Problems::of_file(
        file,
        format!("{is}, and TOML is UTF-8"),
        format!("save it as UTF-8: iconv -f {encoding} -t UTF-8 {}", file.display()),
    );
    for problem in &mut problems.0 {
        problem.line = u32::try_from(line).unwrap_or(u32::MAX);
    }
    problems
}

/// Reads where a gateway is to be found, and nothing else: a mistake elsewhere in the file must not hide a running
/// gateway, nor keep it from being taken down.
pub fn load_places(file: &Path) -> Result<Places, Problems> {
    read::places(file, &text_of(file)?)
}

/// Reads a configuration with its secrets: all that control needs.
///
/// Every mistake of both files is in the error.
pub fn load_with_secrets(file: &Path) -> Result<(Config, Secrets), Problems> {
    let config = load(file)?;
    let secrets = secrets::load(&config)?;
    Ok((config, secrets))
}

/// The configuration in `text`; `file` is its name in messages, and what relative paths are relative to.
pub fn parse(file: &Path, text: &str) -> Result<Config, Problems> {
    read::config(file, text)
}
