//! The rings of one attachment: commands with tickets, back-pressure, events.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;

use pollux_abi::layout::RING_SLOTS;
use pollux_abi::{Command, CommandSlot, Event, Ticket, WorkerId};
use pollux_shm::{AttachError, AttachReply, ControlRing, Doorbell, RingBroken, RingError, Session};

/// Which ring: a worker's or the housekeeper's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ring {
    /// A worker's.
    Worker(WorkerId),
    /// The last one.
    Housekeeper,
}

/// One attachment's rings, without its descriptors.
pub(crate) struct Rings {
    pub(crate) attach_reply: AttachReply,
    each: Vec<ControlRing>,
    /// Commands that wait for room, per ring. A slot is wiped when it is dropped, and stays where it is until then.
    waiting: Vec<VecDeque<Box<CommandSlot>>>,
    tickets: u64,
}

impl fmt::Debug for Rings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiting.iter().map(VecDeque::len).sum::<usize>();
        f.debug_struct("Rings")
            .field("rings", &self.each.len())
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}

/// What to wait on: the doorbell, and the connection whose hang-up is the data plane's death.
#[derive(Debug)]
pub(crate) struct Descriptors {
    pub(crate) doorbell: Doorbell,
    pub(crate) connection: OwnedFd,
}

impl Rings {
    /// Attaches; blocks for at most five seconds.
    pub(crate) fn attach(socket: &Path) -> Result<(Self, Descriptors), AttachError> {
        let Session { attach_reply, rings, doorbell, connection } = Session::attach(socket)?;
        let waiting = rings.iter().map(|_| VecDeque::new()).collect();
        Ok((Self { attach_reply, each: rings, waiting, tickets: 0 }, Descriptors { doorbell, connection }))
    }

    /// The workers.
    pub(crate) fn workers(&self) -> impl Iterator<Item = WorkerId> + use<> {
        (0..self.attach_reply.workers).map(WorkerId)
    }

    /// Writes a command, or queues it until there is room.
    pub(crate) fn send(&mut self, ring: Ring, command: &Command) -> Result<Ticket, RingBroken> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let at = match ring {
            Ring::Worker(worker) => usize::from(worker.0),
            Ring::Housekeeper => usize::from(self.attach_reply.workers),
        };
        let (Some(ring), Some(waiting)) = (self.each.get_mut(at), self.waiting.get_mut(at)) else {
            return Err(RingBroken);
        };
        let slot = command.encode(ticket);
        if waiting.is_empty() {
            match ring.commands.write(&slot) {
                Ok(()) => return Ok(ticket),
                Err(RingError::Full) => {}
                Err(RingError::Broken(broken)) => return Err(broken),
            }
        }
        waiting.push_back(Box::new(slot));
        Ok(ticket)
    }

    /// Writes what has waited, as far as there is room, and wakes readers that sleep.
    pub(crate) fn flush(&mut self) -> Result<(), RingBroken> {
        for (ring, waiting) in self.each.iter_mut().zip(&mut self.waiting) {
            while let Some(slot) = waiting.front() {
                match ring.commands.write(slot) {
                    Ok(()) => drop(waiting.pop_front()),
                    Err(RingError::Full) => break,
                    Err(RingError::Broken(broken)) => return Err(broken),
                }
            }
            ring.commands.wake();
        }
        Ok(())
    }

    /// All events that wait, at most a ring's worth of each ring. What cannot be decoded is counted.
    pub(crate) fn events(&mut self, out: &mut Vec<Event>) -> Result<u32, RingBroken> {
        let mut unreadable = 0;
        for ring in &mut self.each {
            ring.events.awake();
            for _ in 0..RING_SLOTS {
                let Some(slot) = ring.events.read()? else { break };
                match Event::decode(&slot) {
                    Some(event) => out.push(event),
                    None => unreadable += 1,
                }
            }
        }
        Ok(unreadable)
    }

    /// Says that we are about to wait on the doorbell; false if an event waits already.
    pub(crate) fn prepare_sleep(&mut self) -> bool {
        let mut sleep = true;
        for ring in &mut self.each {
            sleep &= ring.events.prepare_sleep();
        }
        sleep
    }
}
