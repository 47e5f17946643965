//! Proof that the CPU has what this kernel needs.

use std::arch::is_x86_feature_detected;

/// The proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aesni(());

impl Aesni {
    /// Asks the CPU; the error names what is missing.
    pub(crate) fn detect() -> Result<Self, Vec<&'static str>> {
        let features = [
            ("aes", is_x86_feature_detected!("aes")),
            ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
            ("ssse3", is_x86_feature_detected!("ssse3")),
            ("sse4.1", is_x86_feature_detected!("sse4.1")),
        ];
        let missing: Vec<_> = features.iter().filter(|(_, has)| !has).map(|(name, _)| *name).collect();
        if missing.is_empty() { Ok(Self(())) } else { Err(missing) }
    }
}
