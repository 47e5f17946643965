//! Key contexts: everything that is derived once from an SA's keying material.

use std::fmt;

use zeroize::Zeroize;

use crate::dispatch::Engine;
use crate::kernel;
use crate::kernel::gcm::Derive;
use crate::kernel::portable::Portable;
use crate::suite::{Layout, Path, Suite};

/// Round keys of AES-256: the most any key has.
pub(crate) const ROUND_KEYS_MAX: usize = 15;

/// Powers of the hash key that a context keeps: as many blocks as a kernel hashes before it reduces.
pub(crate) const POWERS: usize = 16;

/// What the x86 kernels read of a key.
///
/// The kernels share one layout, so that any of them can run any key: round keys in AES order, then H¹⁶ down to
/// H¹ (each times x, byte-reversed), so that a vector of the last powers is one aligned load. The first round key has
/// the salt added to it, which is where a nonce would bring it.
/// ChaCha20 keeps its 32 octets of key in the first two round keys.
#[repr(C, align(16))]
#[derive(Zeroize)]
pub(crate) struct Tables {
    pub(crate) round_keys: [[u8; 16]; ROUND_KEYS_MAX],
    pub(crate) powers: [[u8; 16]; POWERS],
}

impl Tables {
    pub(crate) const EMPTY: Self = Self { round_keys: [[0; 16]; ROUND_KEYS_MAX], powers: [[0; 16]; POWERS] };
}

/// The key context of one SA in one direction.
///
/// 576 octets on nine cache lines, of which a short AES-128-GCM packet touches five. It is zeroized on drop,
/// cannot be cloned, and `Debug` prints nothing of it. Moving a value leaves its bytes behind as every move in
/// Rust does: keep keys where they are made, in the table of SAs.
#[repr(C, align(64))]
pub struct Key {
    // hot, read
    pub(crate) salt: [u8; 4],
    pub(crate) layout: Layout,
    pub(crate) esn: bool,
    /// Asked for each packet, so that it must not be on a line of its own.
    pub(crate) bursts: Bursts,
    pub(crate) kind: Kind,
    pub(crate) tables: Tables,
    // cold
    pub(crate) suite: Suite,
    pub(crate) engine: Engine,
    /// What is not AES-GCM or ChaCha20 on a kernel of ours.
    pub(crate) portable: Option<Box<Portable>>,
}

/// Suite, extended sequence numbers and kernel in one number: keys of one kind are handled alike.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(u32);

/// Which of our kernels takes a key's packets many at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bursts {
    Gcm,
    ChaCha,
    /// None: they are done one by one.
    No,
}

const _: () = assert!(size_of::<Key>() <= 640);
const _: () = assert!(std::mem::offset_of!(Key, tables) == 16);
// H¹⁶…H¹ must start on a cache line for the aligned loads of the wide kernels.
const _: () = assert!((16 + 16 * ROUND_KEYS_MAX).is_multiple_of(64));

/// Keying material that does not fit the suite.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The cipher key has another length than the suite's.
    #[error("{suite} takes a cipher key of {expected} octets, not {actual}")]
    CipherKeyLength {
        /// The suite.
        suite: Suite,
        /// What it takes.
        expected: usize,
        /// What was given.
        actual: usize,
    },
    /// The salt has another length than the suite's.
    #[error("{suite} takes a salt of {expected} octets, not {actual}")]
    SaltLength {
        /// The suite.
        suite: Suite,
        /// What it takes.
        expected: usize,
        /// What was given.
        actual: usize,
    },
    /// The integrity key has another length than the suite's.
    #[error("{suite} takes an integrity key of {expected} octets, not {actual}")]
    AuthKeyLength {
        /// The suite.
        suite: Suite,
        /// What it takes.
        expected: usize,
        /// What was given.
        actual: usize,
    },
}

impl Key {
    /// The context of one SA: `enc` is the cipher key without the salt, `auth` the integrity key; both may be
    /// empty where the suite has none. `esn` says whether the SA has extended sequence numbers.
    ///
    /// # Errors
    /// A [`KeyError`] tells which of the three has a length that the suite does not take.
    pub fn new(
        engine: Engine,
        suite: Suite,
        esn: bool,
        enc: &[u8],
        salt: &[u8],
        auth: &[u8],
    ) -> Result<Self, KeyError> {
        let (expected, actual) = (suite.key_len(), enc.len());
        if expected != actual {
            return Err(KeyError::CipherKeyLength { suite, expected, actual });
        }
        let (expected, actual) = (suite.auth_key_len(), auth.len());
        if expected != actual {
            return Err(KeyError::AuthKeyLength { suite, expected, actual });
        }
        let (expected, actual) = (suite.salt_len(), salt.len());
        if expected != actual {
            return Err(KeyError::SaltLength { suite, expected, actual });
        }
        let layout = suite.layout();
        let mut key = Self {
            salt: [0; 4],
            layout,
            esn,
            bursts: Bursts::No,
            kind: Kind(0),
            tables: Tables::EMPTY,
            suite,
            engine,
            portable: None,
        };
        key.salt[..salt.len()].copy_from_slice(salt);
        let derived = match layout.path {
            Path::Gcm128 | Path::Gcm192 | Path::Gcm256 | Path::Gmac => {
                kernel::run(engine, Derive { key: enc, salt: key.salt, tables: &mut key.tables })
            }
            Path::ChaCha => {
                let halves = key.tables.round_keys[..2].as_flattened_mut();
                (engine != Engine::portable()).then(|| halves.copy_from_slice(enc))
            }
            Path::Portable => None,
        };
        if derived.is_none() {
            key.portable = Some(Box::new(Portable::new(suite, enc, auth)));
        }
        key.bursts = match layout.path {
            _ if derived.is_none() => Bursts::No,
            Path::Gcm128 | Path::Gcm192 | Path::Gcm256 => Bursts::Gcm,
            Path::ChaCha => Bursts::ChaCha,
            Path::Gmac | Path::Portable => Bursts::No,
        };
        key.kind = Kind(u32::from_le_bytes([suite as u8, esn.into(), key.bursts as u8, 0]));
        Ok(key)
    }

    /// The suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Asks the CPU for what a burst looks at first; worth it a burst early where the table of SAs is larger than
    /// L2. The burst itself asks for the rest of a key while it works on the packets before.
    #[inline]
    pub fn prefetch(&self) {
        kernel::prefetch_first(self);
    }

    /// Whether the SA has extended sequence numbers.
    pub fn esn(&self) -> bool {
        self.esn
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.salt.zeroize();
        self.tables.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("suite", &self.suite)
            .field("material", &"[redacted]")
            .finish_non_exhaustive()
    }
}
