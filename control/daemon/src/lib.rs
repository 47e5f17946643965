//! The control-plane process.
