//! Which kernel runs: what the CPU has, what the operator asks for, and the name of the outcome.

use std::fmt;
use std::str::FromStr;

#[cfg(target_arch = "x86_64")]
use crate::kernel::{aesni::Aesni, vaes256::Vaes256, vaes512::Vaes512};

/// The instruction sets that have a kernel of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// VAES and VPCLMULQDQ on 512-bit vectors (Ice Lake, Zen 4 and later).
    Vaes512,
    /// VAES and VPCLMULQDQ on 256-bit vectors (Alder Lake, Zen 3).
    Vaes256,
    /// AES-NI and PCLMULQDQ (every x86 server since 2011).
    Aesni,
    /// The RustCrypto crates, which bring ARMv8's instructions with them.
    Portable,
}

impl EngineKind {
    /// Every kind, the fastest first: the order in which `auto` tries them.
    pub const ALL: [Self; 4] = [Self::Vaes512, Self::Vaes256, Self::Aesni, Self::Portable];

    /// Whether this build has it: see `build.rs`.
    const fn is_built(self) -> bool {
        match self {
            Self::Vaes512 => cfg!(kernel = "vaes512"),
            Self::Vaes256 => cfg!(kernel = "vaes256"),
            Self::Aesni => cfg!(kernel = "aesni"),
            Self::Portable => true,
        }
    }

    /// The word for it in the configuration, in the start-up line and in `pollux status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vaes512 => "vaes512",
            Self::Vaes256 => "vaes256",
            Self::Aesni => "aesni",
            Self::Portable => "portable",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for EngineKind {
    type Err = EngineError;

    fn from_str(name: &str) -> Result<Self, EngineError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| EngineError::UnknownName { name: name.to_owned() })
    }
}

/// What the operator asks for: `aead = "auto"` or the name of one kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EngineChoice {
    /// The fastest kernel that this CPU runs.
    #[default]
    Auto,
    /// This kernel or an error.
    Only(EngineKind),
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Only(kind) => kind.fmt(f),
        }
    }
}

impl FromStr for EngineChoice {
    type Err = EngineError;

    fn from_str(name: &str) -> Result<Self, EngineError> {
        if name == "auto" { Ok(Self::Auto) } else { name.parse().map(Self::Only) }
    }
}

/// Why no engine could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The name is not one of ours.
    #[error("unknown AEAD kernel {name:?}: one of auto, vaes512, vaes256, aesni, portable")]
    UnknownName {
        /// What was asked for.
        name: String,
    },
    /// The build was made for the kernel of another machine alone.
    #[error("AEAD kernel {kind} is not in this build, which was made with POLLUX_AEAD_KERNELS=native")]
    NotBuilt {
        /// The kernel that was asked for.
        kind: EngineKind,
    },
    /// The kernel exists and this CPU, or the hypervisor above it, lacks instructions that it needs.
    #[error("AEAD kernel {kind} needs CPU features that are missing here: {}", missing.join(", "))]
    MissingFeatures {
        /// The kernel that was asked for.
        kind: EngineKind,
        /// The features, as `/proc/cpuinfo` spells them.
        missing: Vec<&'static str>,
    },
}

/// A kernel that is known to run on this CPU.
///
/// The value is the proof: it can only be made by [`Engine::select`], which asks the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine(pub(crate) Proof);

/// The proof that the CPU has what a kernel needs, one per kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    #[cfg(target_arch = "x86_64")]
    Vaes512(Vaes512),
    #[cfg(target_arch = "x86_64")]
    Vaes256(Vaes256),
    #[cfg(target_arch = "x86_64")]
    Aesni(Aesni),
    Portable,
}

impl Engine {
    /// The kernel asked for, or with [`EngineChoice::Auto`] the fastest that this CPU runs.
    ///
    /// # Errors
    /// [`EngineError::MissingFeatures`] names the instructions that the forced kernel lacks; `Auto` never fails.
    pub fn select(choice: EngineChoice) -> Result<Self, EngineError> {
        match choice {
            EngineChoice::Only(kind) => Self::forced(kind),
            EngineChoice::Auto => Ok(EngineKind::ALL
                .into_iter()
                .find_map(|kind| Self::forced(kind).ok())
                .unwrap_or(Self::portable())),
        }
    }

    /// The engine that runs everywhere.
    pub const fn portable() -> Self {
        Self(Proof::Portable)
    }

    /// Every engine that this CPU runs, the fastest first: what benchmarks iterate over.
    pub fn available() -> impl Iterator<Item = Self> {
        EngineKind::ALL.into_iter().filter_map(|kind| Self::forced(kind).ok())
    }

    /// What [`Engine::available`] has, and the ways that its kernels have for other CPUs: what tests iterate over.
    #[cfg(target_arch = "x86_64")]
    pub fn variants() -> impl Iterator<Item = Self> {
        let others =
            [Vaes512::detect_otherwise().map(Proof::Vaes512), Aesni::detect_without_avx().map(Proof::Aesni)];
        let others = others.into_iter().flatten().map(Self).filter(|engine| engine.kind().is_built());
        Self::available().chain(others)
    }

    /// What [`Engine::available`] has: what tests iterate over.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn variants() -> impl Iterator<Item = Self> {
        Self::available()
    }

    #[cfg(target_arch = "x86_64")]
    fn forced(kind: EngineKind) -> Result<Self, EngineError> {
        if !kind.is_built() {
            return Err(EngineError::NotBuilt { kind });
        }
        let proof = match kind {
            EngineKind::Vaes512 => Vaes512::detect().map(Proof::Vaes512),
            EngineKind::Vaes256 => Vaes256::detect().map(Proof::Vaes256),
            EngineKind::Aesni => Aesni::detect().map(Proof::Aesni),
            EngineKind::Portable => Ok(Proof::Portable),
        };
        proof.map(Self).map_err(|missing| EngineError::MissingFeatures { kind, missing })
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn forced(kind: EngineKind) -> Result<Self, EngineError> {
        match kind {
            EngineKind::Portable => Ok(Self::portable()),
            _ => Err(EngineError::MissingFeatures { kind, missing: vec!["x86_64"] }),
        }
    }

    /// Which kernel this is.
    pub const fn kind(self) -> EngineKind {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Proof::Vaes512(_) => EngineKind::Vaes512,
            #[cfg(target_arch = "x86_64")]
            Proof::Vaes256(_) => EngineKind::Vaes256,
            #[cfg(target_arch = "x86_64")]
            Proof::Aesni(_) => EngineKind::Aesni,
            Proof::Portable => EngineKind::Portable,
        }
    }

    /// The kernel's name, as the configuration and the status line spell it.
    pub const fn name(self) -> &'static str {
        self.kind().name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_display_and_parse() {
        for choice in EngineKind::ALL.map(EngineChoice::Only).into_iter().chain([EngineChoice::Auto]) {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!(matches!("sse9".parse::<EngineChoice>(), Err(EngineError::UnknownName { .. })));
    }

    #[test]
    fn a_forced_kernel_is_that_kernel_or_names_what_is_missing() {
        for kind in EngineKind::ALL {
            match Engine::select(EngineChoice::Only(kind)) {
                Ok(engine) => assert_eq!(engine.kind(), kind),
                Err(EngineError::MissingFeatures { kind: refused, missing }) => {
                    assert_eq!(refused, kind);
                    assert!(!missing.is_empty());
                }
                Err(EngineError::NotBuilt { kind: refused }) => {
                    assert_eq!(refused, kind);
                    assert!(!kind.is_built());
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn auto_takes_the_first_available() {
        let auto = Engine::select(EngineChoice::Auto).map(Engine::kind);
        assert_eq!(auto.ok(), Engine::available().next().map(Engine::kind));
    }
}
