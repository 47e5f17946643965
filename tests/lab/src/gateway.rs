//! A Pollux gateway: its two processes and its configuration.
