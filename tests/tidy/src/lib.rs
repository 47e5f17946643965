//! The repository's own lint.
