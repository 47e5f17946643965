//! IKEv2 without sockets, clock, randomness, runtime or cryptography.
