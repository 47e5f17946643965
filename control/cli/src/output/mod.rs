//! Two renderers of one model: tables for people, JSON for programs.

mod table;

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::process;

use anyhow::Result;
use serde::Serialize;

pub(crate) use table::Table;

/// How a shell reports the end of a program by SIGPIPE.
const CLOSED_PIPE: i32 = 128 + 13;

/// Prints a line, as `println!` does, but ends where nobody reads it or there is no room for it.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($text)*))) };
}
pub(crate) use say;

/// Prints text. Where the reader of a pipe is gone the program ends as others do, without a word; where the device is
/// full it says so.
pub(crate) fn print(text: Arguments<'_>) {
    if let Err(error) = stdout().write_fmt(text) {
        if error.kind() == ErrorKind::BrokenPipe {
            process::exit(CLOSED_PIPE);
        }
        complain(format_args!("standard output: {error}"));
        process::exit(1);
    }
}

/// Prints an error; where even that can't be written the exit status tells.
pub(crate) fn complain(text: Arguments<'_>) {
    let _ = writeln!(stderr(), "pollux: {text}");
}

/// Prints `model` as one JSON document.
pub(crate) fn json<T: Serialize>(model: &T) -> Result<()> {
    say!("{}", serde_json::to_string(model)?);
    Ok(())
}

/// `-` for what is not there.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Seconds as people read them: `3d4h`, `2h05m`, `45s`.
pub(crate) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        for (seconds, text) in [(0, "0s"), (45, "45s"), (61, "1m01s"), (7_500, "2h05m"), (273_600, "3d4h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
