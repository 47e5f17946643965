//! The files that git tracks, or would track, read once.

use std::path::PathBuf;
use std::process::Command;

/// One text file of the repository.
pub(crate) struct File {
    /// Path from the repository's root, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

impl File {
    /// The file's ending, without the dot.
    pub(crate) fn extension(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(_, extension)| extension)
    }

    /// Numbered lines, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Whether the whole file is test code by its place.
    pub(crate) fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// The part of a Rust file before its test module.
    pub(crate) fn code(&self) -> &str {
        self.text.split_once("#[cfg(test)]\nmod ").map_or(&self.text, |(code, _)| code)
    }
}

/// The repository.
pub(crate) struct Repo {
    root: PathBuf,
    files: Vec<File>,
}

impl Repo {
    /// Reads the repository that the current directory is in.
    pub(crate) fn open() -> Result<Self, String> {
        let root = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?.trim());
        let list =
            git(&["-C", &root.to_string_lossy(), "ls-files", "--cached", "--others", "--exclude-standard"])?;
        let files = list
            .lines()
            .filter_map(|path| {
                let text = std::fs::read_to_string(root.join(path)).ok()?;
                Some(File { path: path.to_owned(), text })
            })
            .collect();
        Ok(Self { root, files })
    }

    /// All text files.
    pub(crate) fn files(&self) -> &[File] {
        &self.files
    }

    /// The Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.extension() == "rs")
    }

    /// The file at `path`.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether anything is at `path`.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The root folder.
    pub(crate) fn root(&self) -> &std::path::Path {
        &self.root
    }
}

fn git(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git").args(arguments).output().map_err(|error| format!("git: {error}"))?;
    if !output.status.success() {
        return Err(format!("git: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("git: {error}"))
}
