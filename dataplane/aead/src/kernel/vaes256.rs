//! Proof that the CPU has what this kernel needs.

use std::arch::is_x86_feature_detected;

/// The proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vaes256(());

impl Vaes256 {
    /// Asks the CPU; the error names what is missing.
    pub(crate) fn detect() -> Result<Self, Vec<&'static str>> {
        let features = [
            ("avx2", is_x86_feature_detected!("avx2")),
            ("aes", is_x86_feature_detected!("aes")),
            ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
            ("vaes", is_x86_feature_detected!("vaes")),
            ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
        ];
        let missing: Vec<_> = features.iter().filter(|(_, has)| !has).map(|(name, _)| *name).collect();
        if missing.is_empty() { Ok(Self(())) } else { Err(missing) }
    }
}
