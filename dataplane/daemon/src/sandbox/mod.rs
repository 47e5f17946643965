//! What the process gives up once it is set up, so that whoever takes it over finds little to use.

pub mod privileges;
pub mod seccomp;
