//! `pollux events` and `pollux log`.

use std::io::BufRead;

use anyhow::Result;
use pollux_config::Paths;
use pollux_config::api::{ControlRequest, EventRecord};

use crate::output;
use crate::output::say;
use crate::socket::{control, open};

/// Prints events until the reader or control goes.
pub(crate) fn follow(paths: &Paths, past: u32, json: bool) -> Result<()> {
    let reader = open(&paths.control_socket(), "control", &ControlRequest::Events { past })?;
    reader.get_ref().set_read_timeout(None)?;
    for line in reader.lines() {
        let record: EventRecord = serde_json::from_str(&line?)?;
        print(&record, json)?;
    }
    Ok(())
}

/// Prints past events.
pub(crate) fn log(paths: &Paths, lines: u32, json: bool) -> Result<()> {
    let records: Vec<EventRecord> = control(paths, &ControlRequest::Log { lines })?;
    if json {
        return output::json(&records);
    }
    records.iter().try_for_each(|record| print(record, false))
}

fn print(record: &EventRecord, json: bool) -> Result<()> {
    if json {
        return output::json(record);
    }
    let seconds = record.time_ms / 1_000;
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    say!(
        "{hour:02}:{minute:02}:{second:02}.{:03} {:<5} {:<22} {}",
        record.time_ms % 1_000,
        record.level,
        record.event,
        record.text
    );
    Ok(())
}
