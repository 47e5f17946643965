//! A few hundred seeds for every `cargo test`; `scripts/sim`, which `scripts/test` calls, runs 10,000.

use pollux_sim::{Cryptography, Scenario, run};

fn all(seeds: core::ops::Range<u64>, cryptography: Cryptography) {
    for seed in seeds {
        let outcome = run(Scenario { seed, cryptography, trace: false });
        let replay = if cryptography == Cryptography::Real { " --real" } else { "" };
        assert!(outcome.is_ok(), "seed {seed}: {outcome:?}\nreplay it with: scripts/sim {seed}{replay}");
    }
}

#[test]
fn every_invariant_holds_for_many_seeds() {
    all(0..300, Cryptography::Null);
}

#[test]
fn the_real_provider_holds_them_too() {
    all(0..10, Cryptography::Real);
}

#[test]
fn a_seed_is_one_run_and_no_other() {
    let once = || format!("{:?}", run(Scenario { seed: 7, cryptography: Cryptography::Null, trace: false }));
    assert_eq!(once(), once());
}
