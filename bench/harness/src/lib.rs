//! Benchmarks: ours against a peer, interleaved in one run.
