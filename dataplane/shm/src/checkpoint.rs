//! The counter file: what outlives a data-plane process of each manual SA.
//!
//! ```text
//!   0       header: magic, version, slots                    64 octets
//!   64      per slot: id of 32 octets, seal over it          64 octets each
//!   …       per slot: the checkpoint itself                  64 octets each, one writer each
//! ```
//!
//! The file belongs to the data plane alone: mode 0600, locked while in use. It is mapped shared, so that
//! what a worker stores survives a kill at any instruction. The id is a digest of all that makes a key
//! life (its owner computes it); delete + add of the same key finds its old slot again.

use core::sync::atomic::Ordering;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use pollux_abi::Checkpoint;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

use crate::map::Mapping;

/// Why the counter file cannot be used.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// A system call failed.
    #[error("{what} the counter file {path}: {source}")]
    Call {
        /// What.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// With what.
        #[source]
        source: Errno,
    },
    /// Another data plane has it.
    #[error(
        "the counter file {path} is in use by another data plane; give this one a state directory of its own"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Its owner or mode would let others change it.
    #[error(
        "the counter file {path} can be written by others (mode {mode:04o}, owner {uid}); \
             find out who wrote it, then: chown root {path} && chmod 600 {path}"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner.
        uid: u32,
    },
    /// It is not what this program wrote.
    #[error(
        "the counter file {path} is damaged: {what}; move it away and give the manual SAs new keys \
             (their sequence numbers would start again, and peers may drop what they take for replays)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Every slot is taken.
    #[error(
        "the counter file {path} holds {slots} manual keys already; stop the data plane, give \
             the manual SAs new keys and move the file away"
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// Its slots.
        slots: u32,
    },
}

/// The counter file, open and locked.
#[derive(Debug)]
pub struct CheckpointFile {
    path: PathBuf,
    // The lock ends with the process: the counters stay mapped, and their mapping holds the file open.
    file: OwnedFd,
    ids: Mapping,
    by_id: HashMap<[u8; 32], u32>,
    checkpoints: &'static [Checkpoint],
}

impl CheckpointFile {
    /// Slots of a new file: 131,072 octets of ids and counters per 1,024 keys, sparse until used.
    pub const SLOTS: u32 = 65_536;

    /// Opens the file at `path`, or makes it with [`Self::SLOTS`] slots. The counters stay mapped for the
    /// rest of the process's life.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let call = |what, source| CheckpointError::Call { what, path: path.to_owned(), source };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| call("opening", e))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(CheckpointError::InUse { path: path.to_owned() }),
            other => other.map_err(|e| call("locking", e))?,
        }
        let stat = rustix::fs::fstat(&file).map_err(|e| call("asking for the size of", e))?;
        let (mode, uid) = (stat.st_mode & 0o7777, stat.st_uid);
        if mode & 0o022 != 0 || (uid != 0 && uid != rustix::process::geteuid().as_raw()) {
            return Err(CheckpointError::Exposed { path: path.to_owned(), mode, uid });
        }
        let mut len = u64::try_from(stat.st_size).unwrap_or(0);
        let fresh = len == 0;
        if fresh {
            len = file_len(Self::SLOTS) as u64;
            rustix::fs::ftruncate(&file, len).map_err(|e| call("sizing", e))?;
        }
        let damaged = |what: String| CheckpointError::Damaged { path: path.to_owned(), what };
        let len = usize::try_from(len).map_err(|_| damaged("it is too long".into()))?;
        let map = || Mapping::new(file.as_fd(), len, 0, false).map_err(|e| call("mapping", e));
        let ids = map()?;
        let slots = header(&ids, fresh).map_err(&damaged)?;
        if file_len(slots) != len {
            return Err(damaged(format!("{len} octets where {slots} slots need {}", file_len(slots))));
        }
        let by_id = read_ids(&ids, slots).map_err(&damaged)?;
        let checkpoints = map()?
            .leak_checkpoints(counters_at(slots), slots as usize)
            .ok_or_else(|| damaged("its counters lie outside of it".into()))?;
        Ok(Self { path: path.to_owned(), file, ids, by_id, checkpoints })
    }

    /// All counters, by slot. Each has one writer: the SA's owner.
    pub fn checkpoints(&self) -> &'static [Checkpoint] {
        self.checkpoints
    }

    /// The slot of the key life with this id: the one it always had, or a free one with counters at 0.
    pub fn slot_for(&mut self, id: [u8; 32]) -> Result<u32, CheckpointError> {
        if let Some(&slot) = self.by_id.get(&id) {
            return Ok(slot);
        }
        let full = || CheckpointError::Full {
            path: self.path.clone(),
            slots: u32::try_from(self.checkpoints.len()).unwrap_or(u32::MAX),
        };
        // Slots are given out in order and never taken back.
        let slot = u32::try_from(self.by_id.len()).map_err(|_| full())?;
        let checkpoint = self.checkpoints.get(slot as usize).ok_or_else(full)?;
        let words = self.ids.words(id_at(slot), ID_WORDS).ok_or_else(full)?;
        checkpoint.reserve(0);
        checkpoint.authenticate(0);
        for (word, octets) in words.iter().zip(id.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*octets), Ordering::Relaxed);
        }
        // Last: a kill before this leaves the slot free.
        words[SEAL_WORD].store(seal(&id), Ordering::Release);
        self.by_id.insert(id, slot);
        Ok(slot)
    }

    /// Key lives in the file.
    pub fn used(&self) -> usize {
        self.by_id.len()
    }

    /// Writes the counters to storage, for a crash of the machine; a crash of the process needs none.
    /// Blocks for as long as the storage takes.
    pub fn sync(&self) -> Result<(), CheckpointError> {
        rustix::fs::fdatasync(&self.file).map_err(|source| CheckpointError::Call {
            what: "writing out",
            path: self.path.clone(),
            source,
        })
    }
}

/// Checks the header, or writes it into a fresh file; returns the number of slots.
fn header(map: &Mapping, fresh: bool) -> Result<u32, String> {
    let words = map.words(0, 2).ok_or("it is shorter than its header")?;
    if fresh {
        words[1].store(u64::from(CheckpointFile::SLOTS), Ordering::Relaxed);
        words[0].store(MAGIC_VERSION, Ordering::Release);
    }
    let magic = words[0].load(Ordering::Acquire);
    if magic != MAGIC_VERSION {
        return Err(format!("it begins with {magic:#018x}, not {MAGIC_VERSION:#018x}"));
    }
    let slots = words[1].load(Ordering::Relaxed);
    u32::try_from(slots)
        .ok()
        .filter(|slots| (1..=SLOTS_MAX).contains(slots))
        .ok_or_else(|| format!("it claims {slots} slots"))
}

fn read_ids(map: &Mapping, slots: u32) -> Result<HashMap<[u8; 32], u32>, String> {
    let mut by_id = HashMap::new();
    for slot in 0..slots {
        let words = map.words(id_at(slot), ID_WORDS).ok_or("its ids lie outside of it")?;
        let sealed = words[SEAL_WORD].load(Ordering::Acquire);
        if sealed == 0 {
            // Free from here on; a torn entry that a kill left is overwritten when the slot is given out.
            if let Some(used) = (slot..slots).find(|&later| sealed_at(map, later)) {
                return Err(format!("slot {used} is used though slot {slot} before it is free"));
            }
            break;
        }
        let mut id = [0; 32];
        for (octets, word) in id.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *octets = word.load(Ordering::Relaxed).to_le_bytes();
        }
        if sealed != seal(&id) {
            return Err(format!("the id in slot {slot} does not match its check sum"));
        }
        if let Some(other) = by_id.insert(id, slot) {
            return Err(format!("slots {other} and {slot} have the same id"));
        }
    }
    Ok(by_id)
}

fn sealed_at(map: &Mapping, slot: u32) -> bool {
    map.words(id_at(slot), ID_WORDS).is_some_and(|words| words[SEAL_WORD].load(Ordering::Relaxed) != 0)
}

/// FNV-1a, never 0. It finds damage; nobody but the data plane can write the file anyway.
fn seal(id: &[u8; 32]) -> u64 {
    let hash = id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
    });
    hash | 1
}

fn id_at(slot: u32) -> usize {
    HEADER_LEN + ID_LEN * slot as usize
}

fn counters_at(slots: u32) -> usize {
    id_at(slots)
}

fn file_len(slots: u32) -> usize {
    counters_at(slots) + size_of::<Checkpoint>() * slots as usize
}

const HEADER_LEN: usize = 64;
const ID_LEN: usize = 64;
const ID_WORDS: usize = ID_LEN / 8;
const SEAL_WORD: usize = 4;
/// "POLXCTR" and the version of this layout.
const MAGIC_VERSION: u64 = 0x504f_4c58_4354_5201;
/// Bounds what a damaged header can make us map.
const SLOTS_MAX: u32 = 1 << 22;
const _: () = assert!(size_of::<Checkpoint>() == 64);

#[cfg(test)]
mod tests;
