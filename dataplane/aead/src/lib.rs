//! AEAD over bursts of ESP packets.
//!
//! An [`Engine`] is a kernel that this CPU runs, a [`Key`] one SA's derived keys, a burst some [`SealJob`]s or
//! [`OpenJob`]s with any mix of keys, suites and lengths. The crate has no sockets, no clock, no randomness and no
//! idea of SAs: IVs and sequence numbers come with the jobs. Nothing is allocated after [`Key::new`], nothing
//! blocks, and no secret decides a branch or an address.
//!
//! ```text
//! burst ── order by key length and vectors ─┬─ AES-GCM, few vectors: AES beside the last one's GHASH ┐
//!                                           ├─ AES-GCM, longer: GHASH beside AES, or a batch behind ─┤
//!                                           ├─ ChaCha20-Poly1305: a block a lane, a hash a lane ─────┼─ ICVs,
//!                                           └─ the rest: RustCrypto (GMAC: our GHASH) ───────────────┘  verdicts
//!
//! kernel/gcm, kernel/chacha   the algorithms, once, in safe code over the trait kernel/isa.rs
//! kernel/{vaes512,vl256,vaes256,aesni,ifma}.rs   the intrinsics; with the loads and stores of kernel/masked.rs,
//!     kernel/window2.rs, kernel/blocks.rs and kernel/prefetch.rs the only unsafe code
//! ```
//!
//! Every build has all kernels, unless `POLLUX_AEAD_KERNELS=native` is set while it is made: then it has the portable
//! one and the fastest that the building machine runs, which takes an eighth of the time to compile.
#![doc = include_str!("../docs/kernels.md")]
#![deny(unsafe_code)]

mod burst;
mod ct;
mod dispatch;
mod kernel;
mod key;
mod packet;
mod suite;
mod verdict;

pub use burst::{OpenJob, SealJob};
pub use dispatch::{Engine, EngineChoice, EngineError, EngineKind};
pub use key::{Key, KeyError};
pub use suite::{Suite, UnknownSuite};
pub use verdict::OpenVerdict;
