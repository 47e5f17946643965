//! A TOML document as sections and fields that know their line and report mistakes about themselves.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Problem, Problems};
use crate::values::{Wrong, closest};

/// Collects the mistakes of one file, and where its keys stand.
pub(crate) struct Report {
    file: PathBuf,
    line_starts: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    places: RefCell<HashMap<String, u32>>,
}

impl Report {
    pub(crate) fn new(file: &Path, text: &str) -> Self {
        let line_starts = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|&(_, octet)| octet == b'\n').map(|(at, _)| at + 1))
            .collect();
        let (problems, warnings, places) = Default::default();
        Self { file: file.to_owned(), line_starts, problems, warnings, places }
    }

    fn line(&self, span: &Range<usize>) -> u32 {
        let line = self.line_starts.partition_point(|&start| start <= span.start);
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    /// Adds a mistake on a line.
    pub(crate) fn add(
        &self,
        line: u32,
        key: impl Into<String>,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.problems.borrow_mut().push(Problem {
            file: self.file.clone(),
            line,
            key: key.into(),
            reason: reason.into(),
            fix: fix.into(),
        });
    }

    /// Adds a mistake about a key that was read, or about its section where the key isn't there.
    pub(crate) fn add_at(&self, section: &str, key: &str, reason: impl Into<String>, fix: impl Into<String>) {
        let path = format!("{section}.{key}");
        let places = self.places.borrow();
        let line = places.get(&path).or_else(|| places.get(section)).copied().unwrap_or_default();
        self.add(line, path, reason, fix);
    }

    /// Adds what is legal about a key and seldom meant.
    pub(crate) fn warn_at(
        &self,
        section: &str,
        key: &str,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let key = format!("{section}.{key}");
        let places = self.places.borrow();
        let line = places.get(&key).or_else(|| places.get(section)).copied().unwrap_or_default();
        let (file, reason, fix) = (self.file.clone(), reason.into(), fix.into());
        self.warnings.borrow_mut().push(Problem { file, line, key, reason, fix });
    }

    /// Whether a mistake about this key is on the list.
    pub(crate) fn has_problem_about(&self, key: &str) -> bool {
        self.problems.borrow().iter().any(|problem| problem.key == key)
    }

    /// Whether there is a mistake about a key that begins so.
    pub(crate) fn has_problem_below(&self, prefix: &str) -> bool {
        self.problems.borrow().iter().any(|problem| problem.key.starts_with(prefix))
    }

    /// Every syntax error of the text as a mistake.
    pub(crate) fn add_syntax(&self, errors: &[toml::de::Error]) {
        for error in errors {
            let line = error.span().map_or(0, |span| self.line(&span));
            let reason = error.message().lines().next().unwrap_or("not TOML").to_owned();
            let fix = if reason.contains("duplicate key") {
                "keep one of the two"
            } else {
                "write it as TOML: KEY = VALUE, text in double quotes, tables as [dataplane] or [[sa]]"
            };
            self.add(line, "", reason, fix);
        }
    }

    /// What is legal and seldom meant.
    pub(crate) fn take_warnings(&self) -> Vec<Problem> {
        self.warnings.take()
    }

    /// What was found, in the order of lines.
    pub(crate) fn into_problems(self) -> Problems {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        problems.dedup();
        Problems(problems)
    }
}

/// One table of the document. Each key that is asked for is known; [`Self::finish`] reports the others.
pub(crate) struct Section<'r, 'd> {
    report: &'r Report,
    table: &'d DeTable<'d>,
    path: String,
    line: u32,
    known: RefCell<Vec<&'static str>>,
}

impl<'r, 'd> Section<'r, 'd> {
    pub(crate) fn root(report: &'r Report, table: &'d DeTable<'d>) -> Self {
        Self { report, table, path: String::new(), line: 1, known: RefCell::default() }
    }

    fn new(report: &'r Report, value: &'d Spanned<DeValue<'d>>, path: String) -> Option<Self> {
        let line = report.line(&value.span());
        report.places.borrow_mut().insert(path.clone(), line);
        let Some(table) = value.get_ref().as_table() else {
            report.add(line, path.clone(), "is not a table", format!("write it as [{path}]"));
            return None;
        };
        Some(Self { report, table, path, line, known: RefCell::default() })
    }

    pub(crate) fn report(&self) -> &'r Report {
        self.report
    }

    pub(crate) fn line(&self) -> u32 {
        self.line
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Adds a mistake about one of this section's keys.
    pub(crate) fn wrong(&self, key: &str, reason: impl Into<String>, fix: impl Into<String>) {
        if self.path.is_empty() {
            self.report.add(self.line, key, reason, fix);
        } else {
            self.report.add_at(&self.path, key, reason, fix);
        }
    }

    /// Adds what is legal about one of this section's keys and seldom meant.
    pub(crate) fn warn(&self, key: &str, reason: impl Into<String>, fix: impl Into<String>) {
        let path = self.path_of(key);
        let line =
            self.table.get_key_value(key).map_or(self.line, |(found, _)| self.report.line(&found.span()));
        self.report.warnings.borrow_mut().push(Problem {
            file: self.report.file.clone(),
            line,
            key: path,
            reason: reason.into(),
            fix: fix.into(),
        });
    }

    fn value(&self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.known.borrow_mut().push(key);
        let (found, value) = self.table.get_key_value(key)?;
        let line = self.report.line(&found.span());
        self.report.places.borrow_mut().insert(self.path_of(key), line);
        Some(value)
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// A key's value, where it is there and right.
    pub(crate) fn optional<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&DeValue<'d>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.value(key)?;
        match parse(value.get_ref()) {
            Ok(parsed) => Some(parsed),
            Err(wrong) => {
                self.wrong(key, wrong.reason, wrong.fix);
                None
            }
        }
    }

    /// A key's value, or `default`, also where the value is wrong (which is reported).
    pub(crate) fn or<T>(
        &self,
        key: &'static str,
        default: T,
        parse: impl Fn(&DeValue<'d>) -> Result<T, Wrong>,
    ) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// A key that must be there; `fix` shows how to write it.
    pub(crate) fn required<T>(
        &self,
        key: &'static str,
        fix: &str,
        parse: impl Fn(&DeValue<'d>) -> Result<T, Wrong>,
    ) -> Option<T> {
        if !self.has(key) {
            self.report.add(self.line, self.path_of(key), "is missing", fix);
            return None;
        }
        self.optional(key, parse)
    }

    /// A table below this one.
    pub(crate) fn section(&self, key: &'static str) -> Option<Self> {
        Section::new(self.report, self.value(key)?, self.path_of(key))
    }

    /// The tables of an array `[[key]]`. A table's path is its name, or its number from 1.
    pub(crate) fn sections(&self, key: &'static str) -> Vec<Self> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(key, "is a single table, and there may be several", format!("write it as [[{key}]]"));
            return Vec::new();
        };
        array
            .iter()
            .enumerate()
            .filter_map(|(index, item)| {
                let name = item
                    .get_ref()
                    .as_table()
                    .and_then(|table| table.get("name"))
                    .and_then(|name| name.get_ref().as_str())
                    .map_or_else(|| (index + 1).to_string(), str::to_owned);
                Section::new(self.report, item, format!("{}.{name}", self.path_of(key)))
            })
            .collect()
    }

    /// The tables below this one, whatever their names, in the order of the file.
    pub(crate) fn named_sections(&self) -> Vec<(String, Self)> {
        let mut sections: Vec<(String, Self)> = self
            .table
            .iter()
            .filter_map(|(name, value)| {
                let section = Section::new(self.report, value, self.path_of(name.get_ref()))?;
                Some((name.get_ref().to_string(), section))
            })
            .collect();
        sections.sort_by_key(|(_, section)| section.line);
        sections
    }

    /// As [`Self::named_sections`], and what is no table is passed over.
    pub(crate) fn named_tables(&self) -> Vec<(String, Self)> {
        let mut tables: Vec<(String, Self)> = self
            .table
            .iter()
            .filter(|(_, value)| value.get_ref().is_table())
            .filter_map(|(name, value)| {
                let section = Section::new(self.report, value, self.path_of(name.get_ref()))?;
                Some((name.get_ref().to_string(), section))
            })
            .collect();
        tables.sort_by_key(|(_, section)| section.line);
        tables
    }

    /// Every key with its value and line, whatever its name.
    pub(crate) fn entries(&self) -> Vec<(&'d str, &'d DeValue<'d>)> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, _) in &entries {
            let line = self.report.line(&key.span());
            self.report.places.borrow_mut().insert(self.path_of(key.get_ref()), line);
        }
        entries.into_iter().map(|(key, value)| (key.get_ref().as_ref(), value.get_ref())).collect()
    }

    /// Reports the keys that nobody asked for.
    pub(crate) fn finish(self) {
        let known = self.known.borrow();
        for (key, _) in self.table {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let fix = match closest(name, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", sorted(&known)),
            };
            self.report.add(self.report.line(&key.span()), self.path_of(name), "is not a known key", fix);
        }
    }
}

fn sorted(known: &[&str]) -> String {
    let mut names = known.to_vec();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}
