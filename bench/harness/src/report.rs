//! Tables for people, JSON for programs, files for the record.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::run::Machine;

/// A table of aligned columns: the first is text, the others are numbers.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these heads.
    pub fn new<S: Into<String>>(heads: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![heads.into_iter().map(Into::into).collect()] }
    }

    /// One more row.
    pub fn push<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// As text, columns two spaces apart.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// What every benchmark takes on its command line.
#[derive(Args)]
pub struct Output {
    /// Fewer rows and rounds: ends within 40 seconds.
    #[arg(long)]
    pub quick: bool,
    /// One JSON object per row instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Write the rows to bench/results as well.
    #[arg(long)]
    pub save: bool,
}

impl Output {
    /// Prints the rows, by `table` unless JSON was asked for, and saves them if asked to.
    pub fn give<R: Serialize>(
        &self,
        name: &str,
        machine: &Machine,
        rows: &[R],
        table: impl FnOnce(&Machine, &[R]),
    ) -> Result<()> {
        if self.json {
            for row in rows {
                println!("{}", serde_json::to_string(row)?);
            }
        } else {
            table(machine, rows);
        }
        if self.save {
            eprintln!("saved {}", save(name, machine, rows)?.display());
        }
        Ok(())
    }
}

/// Writes `bench/results/NAME-DATE.json`: where it was measured, and the rows.
fn save<R: Serialize>(name: &str, machine: &Machine, rows: &[R]) -> Result<PathBuf> {
    #[derive(Serialize)]
    struct File<'a, R> {
        machine: &'a Machine,
        rows: &'a [R],
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(format!("{name}-{}.json", machine.date));
    // One row a line: a run that replaces another shows in a diff.
    let head = serde_json::to_string(&File::<R> { machine, rows: &[] })?;
    let rows = rows.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?.join(",\n");
    let text = head.replace("\"rows\":[]}", &format!("\"rows\":[\n{rows}\n]}}\n"));
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_flush_right_under_their_heads() {
        let mut table = Table::new(["engine", "ns"]);
        table.push(["a", "1.0"]);
        table.push(["longer name", "100.0"]);
        assert_eq!(table.render(), "engine          ns\na              1.0\nlonger name  100.0\n");
    }
}
