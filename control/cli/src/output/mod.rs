//! Two renderers of one model: tables for people, JSON for programs.

mod table;

use anyhow::Result;
use serde::Serialize;

pub(crate) use table::Table;

/// Prints `model` as one JSON document.
pub(crate) fn json<T: Serialize>(model: &T) -> Result<()> {
    println!("{}", serde_json::to_string(model)?);
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
