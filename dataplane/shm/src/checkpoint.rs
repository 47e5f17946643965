//! The counter file: what outlives a data-plane process of each manual SA.
//!
//! ```text
//!   0       header: magic, version, slots                    64 octets
//!   64      per slot: id of 32 octets, seal over it          64 octets each
//!   …       per slot: the checkpoint itself                  64 octets each, one writer each
//! ```
//!
//! The file belongs to the data plane alone: mode 0600, locked while in use. It is mapped shared, so that
//! what a worker stores survives a kill at any instruction. Its blocks are allocated before it is mapped: a
//! store to a hole of a full file system would end the process with SIGBUS. The id is a digest of all that
//! makes a key life (its owner computes it); delete + add of the same key finds its old slot again.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pollux_abi::Checkpoint;
use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
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
    /// The file system or a quota has no room for it.
    #[error(
        "the counter file {path} needs {needed} octets, and its file system has no room for them ({source}); \
             free some, or give [paths] another state_dir"
    )]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// Octets of the whole file.
        needed: u64,
        /// `ENOSPC` or `EDQUOT`.
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
    used: Arc<AtomicUsize>,
    checkpoints: &'static [Checkpoint],
}

impl CheckpointFile {
    /// Slots of a new file: 131,072 octets of ids and counters per 1,024 keys.
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
        let fresh = len == 0 || is_begun(&file, len);
        if fresh {
            len = file_len(Self::SLOTS) as u64;
        }
        allocate(&file, len, fresh).map_err(|source| match source {
            Errno::NOSPC | Errno::DQUOT => {
                CheckpointError::NoSpace { path: path.to_owned(), needed: len, source }
            }
            source => call("allocating", source),
        })?;
        if fresh && let Some(folder) = path.parent() {
            let folder =
                rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            folder.and_then(rustix::fs::fsync).map_err(|e| call("writing out the folder of", e))?;
        }
        let damaged = |what: String| CheckpointError::Damaged { path: path.to_owned(), what };
        let len = usize::try_from(len).map_err(|_| damaged("it is too long".into()))?;
        let map = || Mapping::new(file.as_fd(), len, 0, false).map_err(|e| call("mapping", e));
        let ids = map()?;
        let slots = header(&ids).map_err(&damaged)?;
        if file_len(slots) != len {
            return Err(damaged(format!("{len} octets where {slots} slots need {}", file_len(slots))));
        }
        let by_id = read_ids(&ids, slots).map_err(&damaged)?;
        let checkpoints = map()?
            .leak_checkpoints(counters_at(slots), slots as usize)
            .ok_or_else(|| damaged("its counters lie outside of it".into()))?;
        if let Some(slot) = checkpoints[..by_id.len()].iter().position(|checkpoint| !checkpoint.take_over()) {
            // What is mapped holds the file open, and would hold the lock with it.
            let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
            return Err(damaged(format!("the counters in slot {slot} do not match their check sums")));
        }
        let used = Arc::new(AtomicUsize::new(by_id.len()));
        Ok(Self { path: path.to_owned(), file, ids, by_id, used, checkpoints })
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
        checkpoint.clear();
        for (word, octets) in words.iter().zip(id.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*octets), Ordering::Relaxed);
        }
        // Last: a kill before this leaves the slot free.
        words[SEAL_WORD].store(seal(&id), Ordering::Release);
        self.by_id.insert(id, slot);
        self.used.store(self.by_id.len(), Ordering::Release);
        Ok(slot)
    }

    /// Key lives in the file.
    pub fn used(&self) -> usize {
        self.by_id.len()
    }

    /// Writes the counters to storage, for a crash of the machine; a crash of the process needs none.
    /// Blocks for as long as the storage takes.
    pub fn sync(&self) -> Result<(), CheckpointError> {
        sync(&self.file, &self.path)
    }

    /// A second handle, for a thread that brings reservations to storage while workers go on.
    pub fn writer(&self) -> Result<CheckpointWriter, CheckpointError> {
        let file = rustix::io::fcntl_dupfd_cloexec(&self.file, 0).map_err(|source| {
            CheckpointError::Call { what: "duplicating the descriptor of", path: self.path.clone(), source }
        })?;
        Ok(CheckpointWriter {
            path: self.path.clone(),
            file,
            used: Arc::clone(&self.used),
            checkpoints: self.checkpoints,
            stored: Vec::new(),
        })
    }
}

/// What brings reservations to storage a step before they are used.
#[derive(Debug)]
pub struct CheckpointWriter {
    path: PathBuf,
    file: OwnedFd,
    used: Arc<AtomicUsize>,
    checkpoints: &'static [Checkpoint],
    /// What storage has of each slot's reservation.
    stored: Vec<u64>,
}

/// What [`CheckpointWriter::advance`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advance {
    /// Reservations that were brought to storage.
    pub written: u32,
    /// Those of them that came late: numbers of the step may have been in use before.
    pub late: u32,
}

impl CheckpointWriter {
    /// Writes out, if a reservation has moved since the last call. Blocks for as long as the storage takes.
    pub fn advance(&mut self) -> Result<Advance, CheckpointError> {
        let used = self.used.load(Ordering::Acquire).min(self.checkpoints.len());
        // What is new was written out when it was given out.
        let new = self.stored.len();
        self.stored
            .extend(self.checkpoints.get(new..used).unwrap_or_default().iter().map(Checkpoint::reserved));
        let mut done = Advance::default();
        let mut moved = Vec::new();
        for ((slot, checkpoint), stored) in self.checkpoints.iter().enumerate().zip(&self.stored) {
            let reserved = checkpoint.reserved();
            if reserved != *stored {
                done.written += 1;
                // Two steps are reserved where an SA begins; later a step ahead is promised, and the one before is in use.
                let begun = checkpoint.start() >= *stored;
                done.late += u32::from(!begun && reserved > stored.saturating_add(Checkpoint::STEP));
                moved.push((slot, reserved));
            }
        }
        if !moved.is_empty() {
            sync(&self.file, &self.path)?;
            for (slot, reserved) in moved {
                self.stored[slot] = reserved;
            }
        }
        Ok(done)
    }
}

fn sync(file: &OwnedFd, path: &Path) -> Result<(), CheckpointError> {
    rustix::fs::fdatasync(file).map_err(|source| CheckpointError::Call {
        what: "writing out",
        path: path.to_owned(),
        source,
    })
}

/// Whether the file is one that was begun and got no further than its header: making it ran out of space, or
/// was interrupted.
fn is_begun(file: &OwnedFd, len: u64) -> bool {
    let mut header = [0; HEADER_LEN];
    len == HEADER_LEN as u64
        && rustix::io::pread(file, &mut header, 0) == Ok(HEADER_LEN)
        && header[..8] == MAGIC_VERSION.to_le_bytes()
}

/// Gives the file all its blocks, so that no store into its mapping can fail. A fresh one gets its length
/// last, in one piece.
fn allocate(file: &OwnedFd, len: u64, fresh: bool) -> Result<(), Errno> {
    if fresh {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&MAGIC_VERSION.to_le_bytes());
        header[8..16].copy_from_slice(&u64::from(CheckpointFile::SLOTS).to_le_bytes());
        rustix::io::pwrite(file, &header, 0)?;
    }
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, len) {
        // File systems that cannot allocate take zeros, or what is there already.
        Err(Errno::OPNOTSUPP) => rewrite(file, len)?,
        other => other?,
    }
    if fresh {
        rustix::fs::ftruncate(file, len)?;
        rustix::fs::fsync(file)?;
    }
    Ok(())
}

/// Writes each block of the file with what it holds.
fn rewrite(file: &OwnedFd, len: u64) -> Result<(), Errno> {
    let mut at = 0;
    while at < len {
        let mut block = [0; 4096];
        let want = block.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
        // What lies behind the end of the file reads as nothing, and stays zero.
        rustix::io::pread(file, &mut block[..want], at)?;
        at += rustix::io::pwrite(file, &block[..want], at)? as u64;
    }
    Ok(())
}

/// Checks the header; returns the number of slots.
fn header(map: &Mapping) -> Result<u32, String> {
    let words = map.words(0, 2).ok_or("it is shorter than its header")?;
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
const MAGIC_VERSION: u64 = 0x504f_4c58_4354_5202;
/// Bounds what a damaged header can make us map.
const SLOTS_MAX: u32 = 1 << 22;
const _: () = assert!(size_of::<Checkpoint>() == 64);

#[cfg(test)]
mod tests;
