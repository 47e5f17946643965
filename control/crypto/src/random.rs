//! Randomness of the operating system.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use pollux_ike::crypto::Rng;

/// Draws from aws-lc's generator, which the kernel seeds.
#[derive(Debug, Default)]
pub struct OsRng(SystemRandom);

impl OsRng {
    /// The generator of this thread.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Rng for OsRng {
    fn fill(&mut self, out: &mut [u8]) {
        // aws-lc aborts the process rather than return without randomness.
        self.0.fill(out).expect("aws-lc's RAND_bytes has no failure to report");
    }
}
