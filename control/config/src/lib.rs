//! One configuration schema for both processes and pollux check.
