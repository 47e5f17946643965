//! What the two Pollux processes share of a machine: memory (sealed memfds, mappings, ring indices, the
//! handshake), the run directory, and the way in which they log.
//!
//! Not in this crate: commands and events themselves (`pollux-abi`), threads, a clock, a
//! runtime. Nothing here blocks but [`Session::attach`]; nothing allocates after set-up.
//!
//! ```text
//!   handshake  Unix socket, SO_PEERCRED, version ──SCM_RIGHTS──► memfd + one doorbell per ring
//!      │
//!   layout of the rings in the memfd          checkpoint file (state directory, data plane alone)
//!      │                                        │
//!    spsc     typed slots, wiped after read     │
//!      │                                        │
//!    cursor   index rules, also under AF_XDP    │
//!      └───────────────┬────────────────────────┘
//!                     map      the only unsafe code: a mapping seen as atomic words
//!                      │
//!                    memfd     create, huge pages, seal
//! ```
//!
//! Promises. The peer of a ring is outside input: whatever it writes into the shared memory, whenever
//! it does, the reader copies slots out word by word, checks the indices before each use and reports a
//! ring as [`RingBroken`] rather than follow an impossible index. A hostile control process can make
//! its own rings useless and nothing else: doorbells are datagram sockets, because the two ends of a socket
//! pair share no file status flags, while both holders of an eventfd do.
#![deny(unsafe_code)]

pub mod checkpoint;
pub mod cursor;
pub mod doorbell;
pub mod handshake;
pub mod log;
pub mod map;
pub mod memfd;
pub mod run_dir;
pub mod spsc;

pub use checkpoint::{Advance, CheckpointError, CheckpointFile, CheckpointWriter};
pub use cursor::{ConsumerCursor, CursorError, ProducerCursor};
pub use doorbell::{Doorbell, DoorbellRinger};
pub use handshake::{AttachError, AttachReply, Attachment, HandshakeError, Listener, Session, send_sockets};
pub use map::Mapping;
pub use memfd::{Memfd, Pages};
pub use run_dir::{RunDir, RunDirError, SocketPlace};
pub use spsc::{
    ControlRing, DataplaneRing, RingBroken, RingError, SetupError, SharedRings, SlotReader, SlotWriter,
};
