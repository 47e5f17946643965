//! Packets on their way to the worker that owns their SA, and frames on their way home.
//!
//! For each ordered pair of workers there are two bounded queues. Packets that find theirs full are
//! dropped, for they would only wait; frames never do, because a queue holds all that one worker has.

use pollux_abi::WorkerId;
use pollux_packet::{Meta, Packet};
use pollux_port::FramePool;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::housekeeping::Waker;

/// Packets that wait for another worker at most: eight bursts, about what it takes off in one round of a
/// busy gateway.
pub const HANDOVER_LEN: usize = 512;

/// A packet and what is known of it.
pub(crate) type Handed = (Packet, Meta);

/// One worker's ends of the queues to and from another.
pub struct Neighbouring {
    to: Producer<Handed>,
    from: Consumer<Handed>,
    home_to: Producer<Packet>,
    home_from: Consumer<Packet>,
    waker: Waker,
    pushed: bool,
}

/// All queues of one worker; the place of a worker among them is its id, and its own place is empty.
pub struct Handover {
    others: Vec<Option<Neighbouring>>,
    frames_per_worker: u32,
}

/// The queues between workers. `wakers` has one for each worker; every worker has `frames_per_worker`
/// frames, in the order of the UMEM.
pub fn mesh(wakers: &[Waker], frames_per_worker: u32) -> Result<Vec<Handover>, rustix::io::Errno> {
    let count = wakers.len();
    let mut all: Vec<Handover> = (0..count)
        .map(|_| Handover { others: (0..count).map(|_| None).collect(), frames_per_worker })
        .collect();
    for a in 0..count {
        for b in a + 1..count {
            let (to_b, from_a) = RingBuffer::new(HANDOVER_LEN);
            let (to_a, from_b) = RingBuffer::new(HANDOVER_LEN);
            // Frames of `a` that `b` has, and the reverse.
            let (home_to_a, home_from_b) = RingBuffer::new(frames_per_worker as usize);
            let (home_to_b, home_from_a) = RingBuffer::new(frames_per_worker as usize);
            all[a].others[b] = Some(Neighbouring {
                to: to_b,
                from: from_b,
                home_to: home_to_b,
                home_from: home_from_b,
                waker: wakers[b].try_clone()?,
                pushed: false,
            });
            all[b].others[a] = Some(Neighbouring {
                to: to_a,
                from: from_a,
                home_to: home_to_a,
                home_from: home_from_a,
                waker: wakers[a].try_clone()?,
                pushed: false,
            });
        }
    }
    Ok(all)
}

impl Handover {
    /// No other workers.
    pub fn alone() -> Self {
        Self { others: vec![None], frames_per_worker: u32::MAX }
    }

    /// Puts a packet into the owner's queue; gives it back when that is full or there is no such worker.
    pub(crate) fn give(&mut self, owner: WorkerId, packet: Packet, meta: Meta) -> Result<(), Packet> {
        let Some(Some(other)) = self.others.get_mut(usize::from(owner.0)) else { return Err(packet) };
        match other.to.push((packet, meta)) {
            Ok(()) => {
                other.pushed = true;
                Ok(())
            }
            Err(rtrb::PushError::Full((packet, _))) => Err(packet),
        }
    }

    /// Takes what another worker has handed over, at most as much as `take` has room for.
    pub(crate) fn take_from(&mut self, other: usize) -> Option<Handed> {
        self.others.get_mut(other)?.as_mut()?.from.pop().ok()
    }

    /// How many workers there are.
    pub(crate) fn workers(&self) -> usize {
        self.others.len()
    }

    /// Sends frames that are at home elsewhere there, takes ours in, and wakes whom that concerns.
    pub fn exchange_frames(&mut self, pool: &mut FramePool) {
        while let Some(packet) = pool.take_foreign() {
            let home = (packet.frame().index() / self.frames_per_worker) as usize;
            let Some(Some(other)) = self.others.get_mut(home) else {
                pool.put(packet);
                break;
            };
            if let Err(rtrb::PushError::Full(packet)) = other.home_to.push(packet) {
                pool.put(packet);
                break;
            }
            // Its ports may have no frame left to receive into, and then nothing else would wake it.
            other.pushed = true;
        }
        for other in self.others.iter_mut().flatten() {
            while let Ok(packet) = other.home_from.pop() {
                pool.put(packet);
            }
            if core::mem::take(&mut other.pushed) {
                other.waker.wake();
            }
        }
    }

    /// Whether something waits to be taken.
    pub(crate) fn is_waiting(&self) -> bool {
        self.others.iter().flatten().any(|other| other.from.slots() != 0 || other.home_from.slots() != 0)
    }

    /// Packets and frames in the queues that this worker reads: part of the frame ledger.
    pub(crate) fn queued(&self) -> usize {
        self.others.iter().flatten().map(|other| other.from.slots() + other.home_from.slots()).sum()
    }
}
