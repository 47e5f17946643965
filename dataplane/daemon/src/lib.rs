//! The data-plane process.
