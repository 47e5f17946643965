//! Network namespaces, peers and oracles for end-to-end tests.
