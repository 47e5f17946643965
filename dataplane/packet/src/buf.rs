//! One packet: a frame of the UMEM and the window in it that holds the packet's octets.

use core::fmt;

/// The index of a UMEM chunk. Neither `Copy` nor `Clone`: who holds it owns the chunk.
#[derive(Debug, PartialEq, Eq)]
pub struct FrameId(u32);

impl FrameId {
    /// The token of chunk `index`. Only the owner of the frame ledger makes these, once per chunk.
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The chunk's index.
    pub const fn index(&self) -> u32 {
        self.0
    }
}

/// A packet in its frame. It owns the frame; dropping it leaks the frame, which the ledger shows.
pub struct Packet {
    bytes: &'static mut [u8],
    frame: FrameId,
    head: u16,
    tail: u16,
}

impl Packet {
    /// The packet that lies at `head..tail` of a chunk. A window that does not lie inside the chunk (or
    /// beyond 65,535 octets) is cut to what does.
    pub fn from_parts(bytes: &'static mut [u8], frame: FrameId, head: u16, tail: u16) -> Self {
        let end = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let tail = tail.min(end);
        Self { bytes, frame, head: head.min(tail), tail }
    }

    /// An empty packet with `headroom` octets before it.
    pub fn empty(bytes: &'static mut [u8], frame: FrameId, headroom: u16) -> Self {
        Self::from_parts(bytes, frame, headroom, headroom)
    }

    /// The chunk, its token, and where the window begins and ends.
    pub fn into_parts(self) -> (&'static mut [u8], FrameId, u16, u16) {
        (self.bytes, self.frame, self.head, self.tail)
    }

    /// The frame it lies in.
    pub const fn frame(&self) -> &FrameId {
        &self.frame
    }

    /// Where the window begins in the chunk.
    pub const fn head(&self) -> u16 {
        self.head
    }

    /// Octets in the window.
    #[inline]
    pub const fn len(&self) -> usize {
        (self.tail - self.head) as usize
    }

    /// Whether the window is empty.
    pub const fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// The packet's octets.
    #[inline]
    pub fn data(&self) -> &[u8] {
        &self.bytes[usize::from(self.head)..usize::from(self.tail)]
    }

    /// The packet's octets.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[usize::from(self.head)..usize::from(self.tail)]
    }

    /// Free octets before the window.
    #[inline]
    pub const fn headroom(&self) -> usize {
        self.head as usize
    }

    /// Free octets after the window.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.bytes.len().min(usize::from(u16::MAX)) - usize::from(self.tail)
    }

    /// Grows the window by `count` octets at the front and gives them; `None`, and no change, without room.
    #[inline]
    #[must_use = "without room nothing was pushed"]
    pub fn push_front(&mut self, count: usize) -> Option<&mut [u8]> {
        let head = usize::from(self.head).checked_sub(count)?;
        let old = usize::from(core::mem::replace(&mut self.head, u16::try_from(head).ok()?));
        self.bytes.get_mut(head..old)
    }

    /// Shrinks the window by `count` octets at the front; false, and no change, where it holds fewer.
    #[inline]
    #[must_use = "a packet that is too short was not changed"]
    pub fn pull_front(&mut self, count: usize) -> bool {
        match u16::try_from(count) {
            Ok(count) if count <= self.tail - self.head => {
                self.head += count;
                true
            }
            _ => false,
        }
    }

    /// Grows the window by `count` octets at the back and gives them; `None`, and no change, without room.
    #[inline]
    #[must_use = "without room nothing was pushed"]
    pub fn push_back(&mut self, count: usize) -> Option<&mut [u8]> {
        if count > self.tailroom() {
            return None;
        }
        let old = usize::from(self.tail);
        self.tail = u16::try_from(old + count).ok()?;
        self.bytes.get_mut(old..old + count)
    }

    /// Cuts the window to `len` octets; a shorter one stays as it is.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if let Ok(len) = u16::try_from(len)
            && len < self.tail - self.head
        {
            self.tail = self.head + len;
        }
    }

    /// Empties the window and puts it `headroom` octets into the chunk.
    pub fn reset(&mut self, headroom: u16) {
        let end = u16::try_from(self.bytes.len()).unwrap_or(u16::MAX);
        self.head = headroom.min(end);
        self.tail = self.head;
    }

    /// Appends `octets`; false, and no change, without room.
    #[must_use = "without room nothing was written"]
    pub fn extend(&mut self, octets: &[u8]) -> bool {
        self.push_back(octets.len()).is_some_and(|room| {
            room.copy_from_slice(octets);
            true
        })
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("frame", &self.frame.0)
            .field("head", &self.head)
            .field("tail", &self.tail)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chunk: usize, head: u16, tail: u16) -> Packet {
        Packet::from_parts(Box::leak(vec![0; chunk].into_boxed_slice()), FrameId::new(7), head, tail)
    }

    #[test]
    fn window_outside_its_chunk_is_cut() {
        let cut = packet(100, 90, 200);
        assert_eq!((cut.head(), cut.len()), (90, 10));
        let nothing = packet(100, 300, 200);
        assert_eq!((nothing.len(), nothing.tailroom()), (0, 0));
        let large = packet(70_000, 0, u16::MAX);
        assert_eq!((large.len(), large.tailroom()), (65_535, 0));
    }

    #[test]
    fn window_never_leaves_its_chunk() {
        let mut packet = packet(100, 20, 40);
        assert!(packet.push_front(21).is_none());
        assert_eq!(packet.push_front(20).map(|room| room.len()), Some(20));
        assert!(packet.push_back(61).is_none());
        assert_eq!(packet.push_back(60).map(|room| room.len()), Some(60));
        assert_eq!(packet.len(), 100);
        assert!(!packet.pull_front(101));
        assert!(packet.pull_front(100));
        assert!(packet.is_empty());
        packet.reset(10);
        assert!(packet.extend(b"abc"));
        packet.truncate(9);
        assert_eq!(packet.data(), b"abc");
        packet.truncate(1);
        assert_eq!(packet.data(), b"a");
        let (bytes, frame, head, tail) = packet.into_parts();
        assert_eq!((bytes.len(), frame.index(), head, tail), (100, 7, 10, 11));
    }
}
