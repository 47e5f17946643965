//! Commands and messages: from control's ring and from the housekeeper, and what goes back.

use std::net::IpAddr;

use pollux_abi::command::{Command, CommandError, Direction};
use pollux_abi::{Event, SaIndex, Ticket, wipe_stack};
use pollux_packet::PortSlot;
use pollux_shm::{DataplaneRing, RingError};

use crate::early;
use crate::housekeeping::{BoxedPort, FromWorker, ToWorker};
use crate::worker::Worker;

/// Commands that are carried out in one round: each may expand a key, a microsecond or two.
const COMMANDS_PER_ROUND: usize = 16;

/// Messages of the housekeeper that are carried out in one round.
const MESSAGES_PER_ROUND: usize = 16;

/// Events that are passed on in one round.
const EVENTS_PER_ROUND: usize = 16;

/// What the ring had.
enum Next {
    None,
    Done { had_keys: bool },
    Broken,
}

impl Worker {
    /// Carries out a few commands of control. Whatever they say, only the ring can suffer.
    pub(crate) fn read_commands(&mut self) {
        let Some(mut ring) = self.ring.take() else { return };
        let mut broken = false;
        for _ in 0..COMMANDS_PER_ROUND {
            // An acknowledgement needs its place before the command is carried out.
            if self.events.is_full() {
                break;
            }
            match self.carry_out_next(&mut ring) {
                Next::None => break,
                // At once: values with unused octets would carry what lies on the stack into tables.
                Next::Done { had_keys } if had_keys => wipe_stack(),
                Next::Done { .. } => {}
                Next::Broken => {
                    broken = true;
                    break;
                }
            }
        }
        if broken {
            self.retire(FromWorker::RetiredRing(Some(ring)));
            self.retire(FromWorker::RingBroken);
        } else {
            self.ring = Some(ring);
        }
    }

    /// In a frame of its own, which is over before the stack is wiped.
    #[inline(never)]
    fn carry_out_next(&mut self, ring: &mut DataplaneRing) -> Next {
        match ring.commands.read() {
            Ok(Some(slot)) => {
                let (ticket, command) = Command::decode(&slot);
                let had_keys = command.as_ref().is_ok_and(Command::has_keys);
                let result = command.and_then(|command| self.carry_out(command));
                self.counters.commands.add(1);
                self.events.push(Event::Ack { ticket, result });
                Next::Done { had_keys }
            }
            Ok(None) => Next::None,
            Err(_) => Next::Broken,
        }
    }

    fn carry_out(&mut self, command: Command) -> Result<u32, CommandError> {
        let outbound = match &command {
            Command::SaAdd(spec, _) | Command::SaReplace(spec, _)
                if spec.direction == Direction::Outbound && spec.owner == self.engine.worker() =>
            {
                Some((spec.index, spec.remote))
            }
            _ => None,
        };
        let brings_sa = early::brings_sa(&command);
        let result = self.engine.apply(self.now_ns, command);
        self.sa_came |= brings_sa && result.is_ok();
        if let (Ok(_), Some((index, remote))) = (&result, outbound) {
            self.tell_mtu(index, remote);
        }
        result
    }

    fn tell_mtu(&mut self, index: SaIndex, remote: IpAddr) {
        if let Some(mtu) = self.forwarder.path_mtu(remote, &self.ports) {
            self.engine.set_mtu(index, mtu);
        }
    }

    /// A route or a port has changed: every outbound SA learns its path's MTU anew.
    fn tell_mtus(&mut self) {
        let mut remotes = core::mem::take(&mut self.remotes);
        remotes.clear();
        // Never more than were allocated for: the table holds no more SAs.
        let room = remotes.capacity();
        remotes.extend(self.engine.outbound_remotes().take(room));
        for &(index, remote) in &remotes {
            self.tell_mtu(index, remote);
        }
        self.remotes = remotes;
    }

    /// Passes events on to control, acknowledgements first.
    pub(crate) fn write_events(&mut self) {
        self.engine.tell_overdue(self.now_ns);
        for _ in 0..EVENTS_PER_ROUND {
            if self.events.is_full() {
                break;
            }
            let Some(event) = self.engine.poll_event() else { break };
            self.events.push(event);
        }
        if self.events.is_empty() {
            return;
        }
        let Some(ring) = self.ring.as_mut() else {
            // Nobody listens: a new control process reads the state itself.
            self.counters.events_lost.add(self.events.len() as u64);
            self.events.clear();
            return;
        };
        let mut written = 0;
        for event in &self.events {
            match ring.events.write(&event.encode()) {
                Ok(()) => written += 1,
                Err(RingError::Full | RingError::Broken(_)) => break,
            }
        }
        if written != 0 {
            self.events.drain(..written);
            ring.events.wake();
        }
    }

    /// Takes in what the housekeeper has sent.
    pub(crate) fn read_housekeeper(&mut self) {
        for _ in 0..MESSAGES_PER_ROUND {
            // A message may send a box back, and a broken ring one more with a word.
            if self.retired.remaining_capacity() < 3 {
                break;
            }
            let Ok(message) = self.housekeeper.to_worker.pop() else { break };
            self.take_in(message);
        }
    }

    fn take_in(&mut self, message: ToWorker) {
        match message {
            ToWorker::Fib(fib) => {
                let old = self.forwarder.install(fib);
                self.retire(FromWorker::RetiredFib(old));
                self.tell_mtus();
            }
            ToWorker::Policies(policies) => {
                let old = self.engine.install_policies(policies);
                self.retire(FromWorker::RetiredPolicies(old));
            }
            ToWorker::Ring(ring) => self.attach(Some(ring)),
            ToWorker::RingGone => self.attach(None),
            ToWorker::Neighbour(key, mac) => {
                if !self.forwarder.learn(key, mac) {
                    self.counters.neighbours_refused.add(1);
                }
                let mut sink = Self::sink(&mut self.pool, &self.counters);
                self.forwarder.release(&key, &mut self.ports, &mut sink);
            }
            ToWorker::NeighbourGone { key, failed } => {
                self.forwarder.forget(&key);
                if failed {
                    let mut sink = Self::sink(&mut self.pool, &self.counters);
                    self.forwarder.release(&key, &mut self.ports, &mut sink);
                }
            }
            ToWorker::Facts(slot, facts) => {
                if let Some(entry) = self.ports.get_mut(usize::from(slot.0)) {
                    entry.facts = facts;
                }
                self.forwarder.forget_ways();
                self.tell_mtus();
            }
            ToWorker::Port(slot, port) => self.exchange_port(slot, Some(port)),
            ToWorker::PortGone(slot) => self.exchange_port(slot, None),
            ToWorker::ErrorSource(address) => self.engine.set_error_source(address),
            ToWorker::Age { sa, hard } => self.engine.reach_age(sa, hard),
            ToWorker::Explain(flow, direction) => {
                let explanation = self.engine.explain(&flow, direction);
                self.retire(FromWorker::Explained(flow, explanation));
            }
            ToWorker::Stop => self.stopping = true,
        }
    }

    fn attach(&mut self, ring: Option<Box<DataplaneRing>>) {
        let old = core::mem::replace(&mut self.ring, ring);
        // Acknowledgements of the old process's commands mean nothing to the new one.
        self.events.clear();
        self.retire(FromWorker::RetiredRing(old));
    }

    fn exchange_port(&mut self, slot: PortSlot, port: Option<BoxedPort>) {
        let Some(entry) = self.ports.get_mut(usize::from(slot.0)) else { return };
        if let Some(mut old) = core::mem::replace(&mut entry.port, port) {
            old.close(&mut self.pool);
            self.retire(FromWorker::RetiredPort(slot, old));
        }
        self.forwarder.forget_port(slot);
    }

    /// Sends something back. There is room: messages are taken in only while there is.
    fn retire(&mut self, message: FromWorker) {
        self.told = true;
        if let Err(rtrb::PushError::Full(message)) = self.housekeeper.from_worker.push(message) {
            let kept = self.retired.try_push(message);
            debug_assert!(kept.is_ok(), "read_housekeeper leaves room for what it sends back");
        }
    }

    /// Offers again what found no room, and tells of neighbours in use.
    pub(crate) fn tell_housekeeper(&mut self) {
        while let Some(message) = self.retired.pop_at(0) {
            if let Err(rtrb::PushError::Full(message)) = self.housekeeper.from_worker.push(message) {
                self.retired.insert(0, message);
                return;
            }
        }
        while let Some(key) = self.forwarder.take_in_use() {
            self.told = true;
            if self.housekeeper.from_worker.push(FromWorker::Use(key)).is_err() {
                // The housekeeper is behind; the next look-up tells it again.
                break;
            }
        }
        if core::mem::take(&mut self.told) {
            self.housekeeper.housekeeper.wake();
        }
    }

    /// A command that needs no ring, as tests and benchmarks give it.
    pub fn command(&mut self, now_ns: u64, command: Command) -> Result<u32, CommandError> {
        self.now_ns = now_ns;
        self.carry_out(command)
    }

    /// The ticket of the oldest acknowledgement that control's ring had no room for yet.
    pub fn oldest_pending(&self) -> Option<Ticket> {
        self.events.iter().find_map(|event| match event {
            Event::Ack { ticket, .. } => Some(*ticket),
            _ => None,
        })
    }
}
