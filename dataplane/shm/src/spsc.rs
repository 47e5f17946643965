//! The command and event rings: typed slots in a sealed memfd, one writer and one reader each.
//!
//! ```text
//!   0      header: magic, version, rings, slots            (written once; only control reads it)
//!   4096   ring 0: command indices │ command slots │ event indices │ event slots
//!   …      ring k: worker k's; the last one is the housekeeper's
//! ```
//!
//! Each side keeps its index to itself and merely publishes it, so that nothing a peer writes can move
//! it. A slot is copied out word by word and wiped before its place is given back: keys stay in shared
//! memory for as long as it takes to read them.

use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pollux_abi::layout::{ABI_VERSION, MAGIC, RING_SLOTS, WORKERS_MAX};
use pollux_abi::{CommandSlot, EventSlot};
use rustix::io::Errno;
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::cursor::{ConsumerCursor, ProducerCursor};
use crate::doorbell::{Doorbell, DoorbellRinger};
use crate::map::Mapping;
use crate::memfd::{Memfd, MemfdError, Pages};

/// The peer has published an index that it cannot have reached; the ring is given up.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the ring's other side published an impossible index; the ring is no longer used")]
pub struct RingBroken;

/// Why a slot could not be written.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RingError {
    /// Every slot waits to be read.
    #[error("the ring is full")]
    Full,
    /// See [`RingBroken`].
    #[error(transparent)]
    Broken(#[from] RingBroken),
}

/// Why the shared memory could not be set up.
#[derive(Debug, Error)]
pub enum SetupError {
    /// No such number of rings.
    #[error("{rings} rings asked for; there can be 1 to {max}")]
    Rings {
        /// Asked for.
        rings: u16,
        /// Most.
        max: u16,
    },
    /// The memory file.
    #[error(transparent)]
    Memfd(#[from] MemfdError),
    /// Mapping it or making a doorbell.
    #[error("{what} failed: {source}")]
    Call {
        /// What.
        what: &'static str,
        /// With what.
        #[source]
        source: Errno,
    },
    /// The header in the memory is not what the welcome said.
    #[error("the shared memory's header does not match what was agreed")]
    Header,
}

/// A worker's or the housekeeper's end of its two rings.
#[derive(Debug)]
pub struct DataplaneRing {
    /// Commands from control.
    pub commands: SlotReader<CommandSlot>,
    /// Events for control.
    pub events: SlotWriter<EventSlot>,
    /// Rings when control has written to a ring whose reader sleeps.
    pub doorbell: Doorbell,
    // Kept so that the doorbell never hangs up when the control process dies: a closed ringer would make every
    // `poll` return at once.
    _rope: DoorbellRinger,
}

/// Control's end of the two rings of a worker, or of the housekeeper.
#[derive(Debug)]
pub struct ControlRing {
    /// Commands to the data plane.
    pub commands: SlotWriter<CommandSlot>,
    /// Events from the data plane.
    pub events: SlotReader<EventSlot>,
}

/// The data plane's side of fresh shared memory: its own ends, and what to hand to control.
#[derive(Debug)]
pub struct SharedRings {
    /// One per worker, then the housekeeper's.
    pub rings: Vec<DataplaneRing>,
    /// The sealed memory.
    pub(crate) memfd: Memfd,
    /// Control's doorbell, then one ringer per ring: descriptors for control.
    pub(crate) fds: Vec<OwnedFd>,
}

impl SharedRings {
    /// Makes memory and doorbells for `workers` workers and the housekeeper.
    pub fn create(workers: u16) -> Result<Self, SetupError> {
        let rings = ring_count(workers)?;
        let memfd = Memfd::create("pollux-rings", memory_len(rings), Pages::Normal)?;
        let map = Arc::new(map(&memfd, memory_len(rings))?);
        memfd.seal()?;
        write_header(&map, rings)?;
        let (control_bell, control_rope) = pair()?;
        let mut fds = vec![control_bell.into_fd()];
        let mut ends = Vec::with_capacity(usize::from(rings));
        for k in 0..rings {
            let (doorbell, ringer) = pair()?;
            let clone = ringer
                .try_clone()
                .map_err(|source| SetupError::Call { what: "copying a doorbell", source })?;
            fds.push(clone.into_fd());
            let events_rope = control_rope
                .try_clone()
                .map_err(|source| SetupError::Call { what: "copying a doorbell", source })?;
            ends.push(DataplaneRing {
                commands: SlotReader::new(&map, command_ring_at(k))?,
                events: SlotWriter::new(&map, event_ring_at(k), events_rope)?,
                doorbell,
                _rope: ringer,
            });
        }
        Ok(Self { rings: ends, memfd, fds })
    }

    /// Control's ends, over memory and ropes that came with a welcome.
    pub(crate) fn open(
        workers: u16,
        memory: OwnedFd,
        ropes: Vec<OwnedFd>,
    ) -> Result<Vec<ControlRing>, SetupError> {
        let rings = ring_count(workers)?;
        if ropes.len() != usize::from(rings) {
            return Err(SetupError::Header);
        }
        let memfd = Memfd::from_peer(memory, memory_len(rings))?;
        let map = Arc::new(map(&memfd, memory_len(rings))?);
        check_header(&map, rings)?;
        (0..rings)
            .zip(ropes)
            .map(|(k, ringer)| {
                Ok(ControlRing {
                    commands: SlotWriter::new(&map, command_ring_at(k), DoorbellRinger::from_peer(ringer))?,
                    events: SlotReader::new(&map, event_ring_at(k))?,
                })
            })
            .collect()
    }
}

/// The writing end of a ring of `S`.
pub struct SlotWriter<S> {
    ring: Ring<S>,
    cursor: ProducerCursor,
    ringer: DoorbellRinger,
    broken: bool,
}

impl<S: IntoBytes + FromBytes + Immutable> SlotWriter<S> {
    fn new(map: &Arc<Mapping>, at: usize, ringer: DoorbellRinger) -> Result<Self, SetupError> {
        let cursor = ProducerCursor::new(RING_SLOTS, 0).ok_or(SetupError::Header)?;
        Ok(Self { ring: Ring::new(map, at)?, cursor, ringer, broken: false })
    }

    /// Writes and publishes one slot. The reader is not woken: see [`Self::wake`].
    pub fn write(&mut self, slot: &S) -> Result<(), RingError> {
        if self.room()? == 0 {
            return Err(RingError::Full);
        }
        let octets = slot.as_bytes().as_chunks::<8>().0;
        for (word, octets) in self.ring.slot(self.cursor.slot(0)).iter().zip(octets) {
            word.store(u64::from_ne_bytes(*octets), Ordering::Relaxed);
        }
        self.cursor.commit(self.ring.word(PRODUCER_AT), 1);
        Ok(())
    }

    /// How many slots can be written before the reader has to read.
    pub fn room(&mut self) -> Result<u32, RingBroken> {
        if self.broken {
            return Err(RingBroken);
        }
        self.cursor.reserve(self.ring.word(CONSUMER_AT), RING_SLOTS).map_err(|_| {
            self.broken = true;
            RingBroken
        })
    }

    /// Wakes the reader if it sleeps. Once after a batch of writes; a system call only if it does sleep.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.ring.word(SLEEPING_AT).load(Ordering::Relaxed) != 0 {
            self.ringer.pull();
        }
    }
}

/// The reading end of a ring of `S`.
pub struct SlotReader<S> {
    ring: Ring<S>,
    cursor: ConsumerCursor,
    broken: bool,
}

impl<S: IntoBytes + FromBytes + Immutable> SlotReader<S> {
    fn new(map: &Arc<Mapping>, at: usize) -> Result<Self, SetupError> {
        let cursor = ConsumerCursor::new(RING_SLOTS, 0).ok_or(SetupError::Header)?;
        Ok(Self { ring: Ring::new(map, at)?, cursor, broken: false })
    }

    /// Copies the next slot out, wipes it and gives its place back.
    pub fn read(&mut self) -> Result<Option<S>, RingBroken> {
        if self.waiting()? == 0 {
            return Ok(None);
        }
        let mut slot = S::new_zeroed();
        let octets = slot.as_mut_bytes().as_chunks_mut::<8>().0;
        for (word, octets) in self.ring.slot(self.cursor.slot(0)).iter().zip(octets) {
            *octets = word.load(Ordering::Relaxed).to_ne_bytes();
            word.store(0, Ordering::Relaxed);
        }
        self.cursor.release(self.ring.word(CONSUMER_AT), 1);
        Ok(Some(slot))
    }

    /// Whether a slot waits: 0 or 1.
    fn waiting(&mut self) -> Result<u32, RingBroken> {
        if self.broken {
            return Err(RingBroken);
        }
        self.cursor.available(self.ring.word(PRODUCER_AT), 1).map_err(|_| {
            self.broken = true;
            RingBroken
        })
    }

    /// Says that the reader is about to block; false if a slot waits, and then it must not.
    ///
    /// A broken ring never holds the reader up. After blocking, call [`Self::awake`].
    pub fn prepare_sleep(&mut self) -> bool {
        self.ring.word(SLEEPING_AT).store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let sleep = self.waiting() != Ok(1);
        if !sleep {
            self.awake();
        }
        sleep
    }

    /// Says that the reader polls again and needs no waking.
    pub fn awake(&mut self) {
        self.ring.word(SLEEPING_AT).store(0, Ordering::Relaxed);
    }
}

impl<S> fmt::Debug for SlotWriter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ring, cursor, broken, .. } = self;
        f.debug_struct("SlotWriter")
            .field("at", &ring.at)
            .field("cursor", cursor)
            .field("broken", broken)
            .finish()
    }
}

impl<S> fmt::Debug for SlotReader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ring, cursor, broken } = self;
        f.debug_struct("SlotReader")
            .field("at", &ring.at)
            .field("cursor", cursor)
            .field("broken", broken)
            .finish()
    }
}

/// One ring's words. Its places have been checked when it was made.
struct Ring<S> {
    map: Arc<Mapping>,
    at: usize,
    slot: PhantomData<fn() -> S>,
}

impl<S> Ring<S> {
    fn new(map: &Arc<Mapping>, at: usize) -> Result<Self, SetupError> {
        map.words(at, ring_len::<S>() / 8).ok_or(SetupError::Header)?;
        Ok(Self { map: Arc::clone(map), at, slot: PhantomData })
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        self.map.word32(self.at + offset).expect("`new` has seen the whole ring inside the mapping")
    }

    fn slot(&self, slot: u32) -> &[AtomicU64] {
        let at = self.at + SLOTS_AT + slot as usize * size_of::<S>();
        self.map.words(at, size_of::<S>() / 8).expect("`new` has seen the whole ring inside the mapping")
    }
}

const PRODUCER_AT: usize = 0;
const CONSUMER_AT: usize = 128;
const SLEEPING_AT: usize = 256;
const SLOTS_AT: usize = 512;
const HEADER_LEN: usize = 4096;

const fn ring_len<S>() -> usize {
    SLOTS_AT + size_of::<S>() * RING_SLOTS as usize
}

const PAIR_LEN: usize = (ring_len::<CommandSlot>() + ring_len::<EventSlot>()).next_multiple_of(4096);

fn command_ring_at(k: u16) -> usize {
    HEADER_LEN + PAIR_LEN * usize::from(k)
}

fn event_ring_at(k: u16) -> usize {
    command_ring_at(k) + ring_len::<CommandSlot>()
}

fn memory_len(rings: u16) -> usize {
    command_ring_at(rings)
}

fn ring_count(workers: u16) -> Result<u16, SetupError> {
    if workers == 0 || workers > WORKERS_MAX {
        return Err(SetupError::Rings { rings: workers.saturating_add(1), max: WORKERS_MAX + 1 });
    }
    Ok(workers + 1)
}

fn map(memfd: &Memfd, len: usize) -> Result<Mapping, SetupError> {
    Mapping::new(memfd, len, 0, false)
        .map_err(|source| SetupError::Call { what: "mapping the shared memory", source })
}

fn pair() -> Result<(Doorbell, DoorbellRinger), SetupError> {
    Doorbell::pair().map_err(|source| SetupError::Call { what: "making a doorbell", source })
}

fn header_words(rings: u16) -> [u32; 4] {
    [MAGIC, ABI_VERSION, u32::from(rings), RING_SLOTS]
}

fn write_header(map: &Mapping, rings: u16) -> Result<(), SetupError> {
    for (k, value) in header_words(rings).into_iter().enumerate() {
        map.word32(4 * k).ok_or(SetupError::Header)?.store(value, Ordering::Relaxed);
    }
    Ok(())
}

fn check_header(map: &Mapping, rings: u16) -> Result<(), SetupError> {
    for (k, value) in header_words(rings).into_iter().enumerate() {
        if map.word32(4 * k).ok_or(SetupError::Header)?.load(Ordering::Relaxed) != value {
            return Err(SetupError::Header);
        }
    }
    Ok(())
}

const _: () = assert!(size_of::<CommandSlot>().is_multiple_of(8) && size_of::<EventSlot>().is_multiple_of(8));
const _: () = assert!(ring_len::<CommandSlot>().is_multiple_of(128));

#[cfg(test)]
mod tests;
