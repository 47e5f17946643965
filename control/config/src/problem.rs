//! A mistake in the configuration: one line that says where, what and how to fix it.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

/// One mistake of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0 where the whole file is meant.
    pub line: u32,
    /// The key with the tables that it lies in, as `sa.to-b.spi`.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", Escaped(&self.file.display().to_string()))?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", Escaped(&self.key))?;
        }
        write!(f, " {}; {}", Escaped(&self.reason), Escaped(&self.fix))
    }
}

/// Text out of a file, one line of it: what would move a terminal's cursor or change its colours is spelled out.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) }
        })
    }
}

/// Every mistake that was found, in the order of the files' lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// A single mistake about a whole file.
    pub fn of_file(file: &Path, reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self(vec![Problem {
            file: file.to_owned(),
            line: 0,
            key: String::new(),
            reason: reason.into(),
            fix: fix.into(),
        }])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
