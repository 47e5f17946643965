//! The UMEM: one stretch of memory for all packets of the process, and custody of its frames.
//!
//! [`Custody`] is what makes handing out `&'static mut` chunks sound: it notes for every frame whether it
//! is in its keeping and where, gives a chunk out only while that is so, and takes one back only by value.
#![allow(unsafe_code, reason = "turns frame numbers into slices of the mapped memory")]

use core::ptr::NonNull;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pollux_packet::{FrameId, Packet};
use pollux_shm::memfd::MemfdError;
use pollux_shm::{Mapping, Memfd, Pages};
use rustix::io::Errno;
use thiserror::Error;

use crate::port::{CopyMode, Requested};
use crate::xsk::frames::FramePool;

/// What the UMEM shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UmemConfig {
    /// Frames for all workers together.
    pub frames: u32,
    /// Octets in a frame: 2048 or 4096, as the kernel wants it.
    pub frame_len: u32,
    /// Pages of 2 MiB, if there are any.
    pub huge_pages: bool,
}

impl Default for UmemConfig {
    fn default() -> Self {
        Self { frames: 8192, frame_len: 4096, huge_pages: true }
    }
}

/// What the UMEM is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UmemInfo {
    /// Frames.
    pub frames: u32,
    /// Octets in a frame.
    pub frame_len: u32,
    /// Pages asked for and got.
    pub pages: Requested<Pages, Pages>,
}

impl core::fmt::Display for UmemInfo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = |pages| match pages {
            Pages::Normal => "4 KiB",
            Pages::Huge2M => "2 MiB",
        };
        let mib = (u64::from(self.frames) * u64::from(self.frame_len)) >> 20;
        let Requested { requested, effective, reason } = &self.pages;
        write!(
            f,
            "UMEM: {} frames of {} octets ({mib} MiB) on pages of {}",
            self.frames,
            self.frame_len,
            name(*effective)
        )?;
        if reason.is_empty() {
            Ok(())
        } else {
            write!(f, " (requested: {}) because {reason}", name(*requested))
        }
    }
}

/// Why there is no UMEM.
#[derive(Debug, Error)]
pub enum UmemError {
    /// The sizes make none.
    #[error("a UMEM of {frames} frames of {frame_len} octets cannot be: frames must be 1 to {max}, of 2048 or 4096 octets", max = FRAMES_MAX)]
    Size {
        /// Frames asked for.
        frames: u32,
        /// Octets asked for.
        frame_len: u32,
    },
    /// More frames for a pool than are left.
    #[error("{wanted} frames asked for, {left} are left in the UMEM; raise its number of frames")]
    TooFew {
        /// What was requested.
        wanted: u32,
        /// Left.
        left: u32,
    },
    /// No memory file.
    #[error(transparent)]
    Memfd(#[from] MemfdError),
    /// It could not be mapped.
    #[error("mapping {len_bytes} octets for packets: {source}; lower the number of frames")]
    Map {
        /// Octets.
        len_bytes: usize,
        /// With what.
        #[source]
        source: Errno,
    },
}

/// The UMEM. Clones are the same one. Its memory stays mapped for the life of the process.
#[derive(Clone, Debug)]
pub struct Umem(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    memory: Memory,
    info: UmemInfo,
    /// The first frame of each pool given out so far, and the first free one.
    bounds: Mutex<Vec<u32>>,
    /// Sockets whose registration others can share, for as long as they live.
    sockets: Mutex<Vec<(Weak<OwnedFd>, CopyMode)>>,
}

/// The mapped memory: where frames lie.
#[derive(Clone, Copy, Debug)]
struct Memory {
    base: NonNull<u8>,
    frames: u32,
    /// Octets in a frame are two to this power.
    shift: u32,
}

// SAFETY: `Memory` is an address range that is mapped for the life of the process; what may be read or
// written through it, and by whom, is what `Custody` keeps.
unsafe impl Send for Memory {}
// SAFETY: as above; `&Memory` gives access to numbers only.
unsafe impl Sync for Memory {}

impl Umem {
    /// Maps the memory, on huge pages if asked and possible.
    pub fn new(config: UmemConfig) -> Result<Self, UmemError> {
        let UmemConfig { frames, frame_len, huge_pages } = config;
        if frames == 0 || frames > FRAMES_MAX || ![2048, 4096].contains(&frame_len) {
            return Err(UmemError::Size { frames, frame_len });
        }
        let len = frames as usize * frame_len as usize;
        let requested = if huge_pages { Pages::Huge2M } else { Pages::Normal };
        let mut pages = Requested { requested, effective: requested, reason: String::new() };
        let mapping = match map(len, requested) {
            Ok(mapping) => mapping,
            Err(error) if huge_pages => {
                pages.effective = Pages::Normal;
                pages.reason = format!("{error}; raise vm.nr_hugepages by {}", len.div_ceil(2 << 20));
                map(len, Pages::Normal)?
            }
            Err(error) => return Err(error),
        };
        let memory = Memory { base: mapping.base(), frames, shift: frame_len.trailing_zeros() };
        // Packets are `'static`: the memory must outlive each of them, and the last may be anywhere.
        core::mem::forget(mapping);
        let info = UmemInfo { frames, frame_len, pages };
        let (bounds, sockets) = (Mutex::new(vec![0]), Mutex::default());
        Ok(Self(Arc::new(Shared { memory, info, bounds, sockets })))
    }

    /// What was got.
    pub fn info(&self) -> &UmemInfo {
        &self.0.info
    }

    /// The next `frames` frames, as the pool of a worker. Each frame belongs to one pool for good.
    pub fn pool(&self, frames: u32) -> Result<FramePool, UmemError> {
        let mut bounds = self.0.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        let first = bounds.last().copied().unwrap_or(0);
        let left = self.0.info.frames - first;
        if frames == 0 || frames > left {
            return Err(UmemError::TooFew { wanted: frames, left });
        }
        bounds.push(first + frames);
        let custody = Custody::new(self.0.memory, first, frames);
        Ok(FramePool::new(custody, first, frames))
    }

    /// Which pool, by the order of [`Self::pool`], a frame is at home in.
    pub fn home_of(&self, frame: &FrameId) -> Option<usize> {
        let bounds = self.0.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        bounds.windows(2).position(|pair| (pair[0]..pair[1]).contains(&frame.index()))
    }

    /// Address and length, as the kernel registers them.
    pub(crate) fn area(&self) -> (u64, u64) {
        let Memory { base, frames, shift } = self.0.memory;
        (base.as_ptr().expose_provenance() as u64, u64::from(frames) << shift)
    }

    /// A living socket of this mode, whose registration can be shared.
    pub(crate) fn living_socket(&self, mode: CopyMode) -> Option<Arc<OwnedFd>> {
        let mut sockets = self.0.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.retain(|(socket, _)| socket.strong_count() > 0);
        sockets.iter().filter(|(_, of)| *of == mode).find_map(|(socket, _)| socket.upgrade())
    }

    /// Remembers a bound socket.
    pub(crate) fn add_socket(&self, socket: &Arc<OwnedFd>, mode: CopyMode) {
        let mut sockets = self.0.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.push((Arc::downgrade(socket), mode));
    }
}

/// Where a frame is, as one pool sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct FrameLocation(u8);

impl FrameLocation {
    /// In somebody's hand, or in another pool's custody.
    const ELSEWHERE: Self = Self(0);
    /// On the pool's free list.
    pub(crate) const FREE: Self = Self(1);
    /// At home elsewhere, waiting to be sent there.
    pub(crate) const FOREIGN: Self = Self(2);
    /// The first of the sockets.
    const FIRST_SOCKET: u8 = 3;

    /// In the rings of one of a pool's sockets; `None` if it has too many.
    pub(crate) fn socket(index: usize) -> Option<Self> {
        let index = u8::try_from(index).ok()?;
        Some(Self(index.checked_add(Self::FIRST_SOCKET)?))
    }
}

/// Which frames one pool keeps, and where.
#[derive(Debug)]
pub(crate) struct Custody {
    memory: Memory,
    places: Box<[FrameLocation]>,
}

impl Custody {
    /// Custody of `count` frames from `first`, all free. Only [`Umem::pool`] calls this, once per range.
    fn new(memory: Memory, first: u32, count: u32) -> Self {
        let mut places = vec![FrameLocation::ELSEWHERE; memory.frames as usize].into_boxed_slice();
        places[first as usize..(first + count) as usize].fill(FrameLocation::FREE);
        Self { memory, places }
    }

    /// Gives a frame out with the window `head..head + len`, if it is at `from`.
    #[inline]
    pub(crate) fn give_out(
        &mut self,
        index: u32,
        from: FrameLocation,
        head: u16,
        len: u16,
    ) -> Option<Packet> {
        let place = self.places.get_mut(index as usize)?;
        if *place != from || from == FrameLocation::ELSEWHERE {
            return None;
        }
        *place = FrameLocation::ELSEWHERE;
        let chunk = self.memory.chunk(index);
        // SAFETY: the frame lies inside the mapping, as `places` has one entry for each frame. Nobody else
        // has it: it was in this custody, which it enters by value only and of which it is struck here, and
        // no two custodies begin with the same frame. The kernel writes to frames in its rings alone, and
        // a frame leaves such a place only when the kernel has returned it or its socket is closed.
        let bytes: &'static mut [u8] = unsafe { &mut *chunk };
        Some(Packet::from_parts(bytes, FrameId::new(index), head, head.saturating_add(len)))
    }

    /// Takes a packet's frame into custody at `to`. A packet that lies in no frame of this UMEM comes back.
    #[inline]
    pub(crate) fn take_in(&mut self, packet: Packet, to: FrameLocation) -> Result<Taken, Packet> {
        let (bytes, frame, head, tail) = packet.into_parts();
        let index = frame.index();
        let here = (index as usize) < self.places.len() && core::ptr::eq(self.memory.chunk(index), bytes);
        if !here || self.places[index as usize] != FrameLocation::ELSEWHERE {
            return Err(Packet::from_parts(bytes, frame, head, tail));
        }
        self.places[index as usize] = to;
        let address = (u64::from(index) << self.memory.shift) + u64::from(head);
        Ok(Taken { index, address, len: tail - head })
    }

    /// Moves a frame from one place in this custody to another; false if it is not there.
    #[inline]
    pub(crate) fn shift(&mut self, index: u32, from: FrameLocation, to: FrameLocation) -> bool {
        match self.places.get_mut(index as usize) {
            Some(place) if *place == from => {
                *place = to;
                true
            }
            _ => false,
        }
    }

    /// All frames at `place`.
    pub(crate) fn at(&self, place: FrameLocation) -> impl Iterator<Item = u32> {
        (0..).zip(&self.places).filter(move |(_, at)| **at == place).map(|(index, _)| index)
    }

    /// The frame that a UMEM address lies in, and how far in.
    #[inline]
    pub(crate) fn locate(&self, address: u64) -> Option<(u32, u16)> {
        let index = u32::try_from(address >> self.memory.shift).ok()?;
        let offset = u16::try_from(address & ((1 << self.memory.shift) - 1)).ok()?;
        (index < self.memory.frames).then_some((index, offset))
    }

    /// Octets in a frame.
    pub(crate) fn frame_len(&self) -> u16 {
        1 << self.memory.shift
    }

    /// The UMEM address of a frame.
    #[inline]
    pub(crate) fn address(&self, index: u32) -> u64 {
        u64::from(index) << self.memory.shift
    }

    /// Frames in the UMEM.
    pub(crate) fn frames(&self) -> u32 {
        self.memory.frames
    }
}

/// A frame that has come into custody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Its number.
    pub(crate) index: u32,
    /// UMEM address of the packet in it.
    pub(crate) address: u64,
    /// Octets of the packet.
    pub(crate) len: u16,
}

impl Memory {
    /// Address range of a frame; meaningless from `frames` on.
    #[inline]
    fn chunk(&self, index: u32) -> *mut [u8] {
        let at = self.base.as_ptr().wrapping_add((index as usize) << self.shift);
        core::ptr::slice_from_raw_parts_mut(at, 1 << self.shift)
    }
}

fn map(len_bytes: usize, pages: Pages) -> Result<Mapping, UmemError> {
    let memfd = Memfd::create("pollux-umem", len_bytes, pages)?;
    let mapping = Mapping::new(&memfd, memfd.len_bytes(), 0, true)
        .map_err(|source| UmemError::Map { len_bytes, source })?;
    memfd.seal()?;
    Ok(mapping)
}

/// Four GiB of packets at 4,096 octets each; more is a mistake in the configuration.
const FRAMES_MAX: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn umem(frames: u32) -> Umem {
        Umem::new(UmemConfig { frames, frame_len: 2048, huge_pages: false }).expect("umem")
    }

    fn custody(frames: u32) -> Custody {
        Custody::new(umem(frames).0.memory, 0, frames)
    }

    #[test]
    fn frame_is_given_out_once_and_taken_in_once() {
        let mut custody = custody(4);
        let packet = custody.give_out(2, FrameLocation::FREE, 256, 100).expect("free");
        assert!(custody.give_out(2, FrameLocation::FREE, 0, 0).is_none());
        assert!(custody.give_out(4, FrameLocation::FREE, 0, 0).is_none());
        assert!(custody.give_out(2, FrameLocation::ELSEWHERE, 0, 0).is_none());
        let taken = custody.take_in(packet, FrameLocation::FREE).expect("ours");
        assert_eq!(taken, Taken { index: 2, address: 2 * 2048 + 256, len: 100 });
    }

    #[test]
    fn forged_frame_numbers_are_turned_back() {
        let mut custody = custody(4);
        let forged: &'static mut [u8] = Box::leak(vec![0; 2048].into_boxed_slice());
        let forged = Packet::empty(forged, FrameId::new(1), 0);
        assert!(custody.take_in(forged, FrameLocation::FREE).is_err());
        let (bytes, _, _, _) = custody.give_out(1, FrameLocation::FREE, 0, 0).expect("free").into_parts();
        let renamed = Packet::empty(bytes, FrameId::new(3), 0);
        let renamed = custody.take_in(renamed, FrameLocation::FREE).expect_err("it is not frame 3");
        let (bytes, _, _, _) = renamed.into_parts();
        let beyond = Packet::empty(bytes, FrameId::new(u32::MAX), 0);
        assert!(custody.take_in(beyond, FrameLocation::FREE).is_err());
    }

    #[test]
    fn last_frame_ends_with_the_mapping() {
        let mut custody = custody(2);
        let mut packet = custody.give_out(1, FrameLocation::FREE, 0, 2048).expect("free");
        packet.data_mut()[2047] = 0xaa;
        assert_eq!((packet.tailroom(), packet.len()), (0, 2048));
        assert_eq!(custody.locate(2 * 2048 - 1), Some((1, 2047)));
        assert_eq!(custody.locate(2 * 2048), None);
        assert_eq!(custody.locate(u64::MAX), None);
    }

    #[test]
    fn pools_never_overlap_and_homes_are_known() {
        let umem = umem(10);
        let (mut one, mut two) = (umem.pool(6).expect("room"), umem.pool(4).expect("room"));
        assert!(matches!(umem.pool(1), Err(UmemError::TooFew { wanted: 1, left: 0 })));
        let mut seen = Vec::new();
        while let Some(packet) = one.alloc(0) {
            assert_eq!(umem.home_of(packet.frame()), Some(0));
            seen.push(packet.frame().index());
        }
        while let Some(packet) = two.alloc(0) {
            assert_eq!(umem.home_of(packet.frame()), Some(1));
            seen.push(packet.frame().index());
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn missing_huge_pages_fall_back_with_their_reason() {
        // Four GiB of huge pages are on no machine that runs this test.
        let config = UmemConfig { frames: 1024, frame_len: 4096, huge_pages: true };
        let info = Umem::new(config).expect("umem").info().clone();
        assert_eq!(info.pages.requested, Pages::Huge2M);
        assert_eq!(
            info.pages.effective == Pages::Normal,
            info.pages.reason.contains("vm.nr_hugepages"),
            "{info}"
        );
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (frames, frame_len) in [(0, 4096), (16, 1000), (16, 8192), (FRAMES_MAX + 1, 4096)] {
            let config = UmemConfig { frames, frame_len, huge_pages: false };
            assert!(matches!(Umem::new(config), Err(UmemError::Size { .. })));
        }
    }
}
