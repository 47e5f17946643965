//! Control: it attaches, commands, and goes.

use pollux_abi::command::{Command, CommandError, Direction, PolicySpec, SaSpec};
use pollux_abi::event::SaStats;
use pollux_abi::{Event, KeyMaterial, LostThing, SaId, Ticket, wipe_stack};
use pollux_ebpf::IpNet;
use pollux_esp::CompiledPolicies;
use pollux_esp::policy::POLICIES_MAX;
use pollux_shm::{HandshakeError, RingBroken};
use pollux_worker::housekeeping::ToWorker;
use pollux_worker::monotonic_ns;

use super::Housekeeper;
use crate::pairs;
use crate::registry::RegistryError;

/// Commands that are carried out between two looks at everything else.
const COMMANDS_PER_LOOK: usize = 256;

/// Events that wait for room in control's ring before no more commands are read.
const EVENTS_PENDING_MAX: usize = 1024;

/// A list of policies on its way into force.
pub(super) struct Commit {
    /// Whom to tell; nobody where the process that asked has gone: its ticket may be another one of the next.
    ticket: Option<Ticket>,
    policies: Vec<PolicySpec>,
    pairs: Vec<(IpNet, IpNet)>,
    /// Workers that still use the old list.
    waiting: usize,
}

impl Housekeeper {
    /// Lets a control process attach, and notices when one has gone.
    pub(super) fn attend_control(&mut self) {
        if self.attachment.as_ref().is_some_and(|attachment| !attachment.is_alive()) {
            self.let_control_go("it hung up");
        }
        if self.commit.is_some() {
            // The list of a process that has gone comes into force first: the next one reads the state that stays.
            return self.take_ike_sockets();
        }
        match self.listener.accept(&self.attach_reply, self.attachment.as_ref()) {
            Ok(None) => {}
            Ok(Some((attachment, mut rings))) => {
                tracing::info!(pid = attachment.pid(), uid = attachment.uid(), "control-attached");
                self.attachment = Some(attachment);
                self.ring = rings.pop();
                self.events.clear();
                self.next_policies = None;
                for (worker, ring) in self.workers.iter_mut().zip(rings) {
                    worker.send(ToWorker::Ring(Box::new(ring)));
                }
            }
            Err(error @ (HandshakeError::Refused { .. } | HandshakeError::NoHello { .. })) => {
                tracing::warn!(%error, "control-refused");
            }
            Err(error) => tracing::error!(%error, "attach-failed"),
        }
        self.take_ike_sockets();
    }

    /// Hangs up. What it has installed stays in force.
    pub(super) fn let_control_go(&mut self, reason: &str) {
        let Some(attachment) = self.attachment.take() else { return };
        tracing::info!(pid = attachment.pid(), reason, "control-detached");
        self.ring = None;
        self.events.clear();
        self.next_policies = None;
        if let Some(commit) = &mut self.commit {
            commit.ticket = None;
        }
        self.tell_all(|| ToWorker::RingGone);
    }

    /// Carries out what control has written, and writes what it is to hear.
    pub(super) fn read_commands(&mut self) {
        for _ in 0..COMMANDS_PER_LOOK {
            // A commit is a barrier: what comes after it must not be carried out before.
            if self.commit.is_some() || self.events.len() >= EVENTS_PENDING_MAX {
                break;
            }
            match self.carry_out_next() {
                Ok(None) => break,
                // At once: values with unused octets would carry what lies on the stack into tables.
                Ok(Some(had_keys)) if had_keys => wipe_stack(),
                Ok(Some(_)) => {}
                Err(error) => {
                    self.let_control_go(&error.to_string());
                    return;
                }
            }
        }
        self.store_counters();
        self.write_events();
    }

    /// In a frame of its own, which is over before the stack is wiped: whether keys came with the command, where there
    /// was one.
    #[inline(never)]
    fn carry_out_next(&mut self) -> Result<Option<bool>, RingBroken> {
        let Some(ring) = self.ring.as_mut() else { return Ok(None) };
        let Some(slot) = ring.commands.read()? else { return Ok(None) };
        let (ticket, command) = Command::decode(&slot);
        let had_keys = command.as_ref().is_ok_and(Command::has_keys);
        self.carry_out(ticket, command);
        Ok(Some(had_keys))
    }

    /// Brings the reservations of manual SAs that were just noted to the disk, before control hears of them
    /// and their owners use them.
    fn store_counters(&mut self) {
        if std::mem::take(&mut self.counters_noted)
            && let Err(error) = self.checkpoints.sync()
        {
            tracing::error!(%error, "counter-file-not-written");
        }
    }

    fn write_events(&mut self) {
        let Some(ring) = self.ring.as_mut() else { return };
        let mut written = false;
        while let Some(event) = self.events.front() {
            if ring.events.write(&event.encode()).is_err() {
                break;
            }
            self.events.pop_front();
            written = true;
        }
        if written {
            ring.events.wake();
        }
    }

    fn carry_out(&mut self, ticket: Ticket, command: Result<Command, CommandError>) {
        let result = match command {
            Err(error) => Err(error),
            Ok(Command::PolicyCommit) => match self.begin_commit(ticket) {
                // Acknowledged when every worker has it.
                Ok(()) => return,
                Err(error) => Err(error),
            },
            Ok(command) => self.carry_out_now(ticket, command),
        };
        self.events.push_back(Event::Ack { ticket, result });
    }

    fn carry_out_now(&mut self, ticket: Ticket, command: Command) -> Result<u32, CommandError> {
        match command {
            Command::SaAdd(spec, keys) => self.add_sa(spec, &keys),
            Command::SaReplace(spec, keys) => self.replace_sa(spec, keys.as_ref()),
            Command::SaDelete(id) => self.delete_sa(id),
            Command::SaQuery(id) => self.query_sa(ticket, id),
            Command::PolicyBegin => {
                self.next_policies = Some(Vec::new());
                Ok(0)
            }
            Command::PolicyAdd(policy) => {
                let list = self.next_policies.as_mut().ok_or(CommandError::Field)?;
                if list.len() >= POLICIES_MAX {
                    return Err(CommandError::Full);
                }
                list.push(policy);
                Ok(0)
            }
            Command::Barrier => Ok(0),
            Command::SaRoute(_) | Command::PolicyCommit => Err(CommandError::Kind),
        }
    }

    fn check(&self, spec: &SaSpec, keys: Option<&KeyMaterial>) -> Result<(), CommandError> {
        if usize::from(spec.owner.0) >= self.workers.len() {
            return Err(CommandError::Owner);
        }
        if spec.index.0 >= self.attach_reply.sa_capacity {
            return Err(CommandError::Index);
        }
        if keys.is_none_or(|keys| keys.fits(spec.suite)) { Ok(()) } else { Err(CommandError::KeyLength) }
    }

    fn add_sa(&mut self, spec: SaSpec, keys: &KeyMaterial) -> Result<u32, CommandError> {
        self.check(&spec, Some(keys))?;
        let (id, spi, inbound) = (spec.id, spec.spi, spec.direction == Direction::Inbound);
        let key = &self.attach_reply.fingerprint_key;
        let slot = self.registry.add(spec, keys, key, &mut self.checkpoints).map_err(refusal)?;
        self.counters_noted |= slot.is_some();
        if inbound && let Err(error) = self.steering.add_spi(spi) {
            tracing::error!(%error, %spi, "spi-not-steered");
            self.registry.remove(id);
            return Err(CommandError::Kernel);
        }
        Ok(slot.unwrap_or(0))
    }

    fn replace_sa(&mut self, spec: SaSpec, keys: Option<&KeyMaterial>) -> Result<u32, CommandError> {
        self.check(&spec, keys)?;
        let key = &self.attach_reply.fingerprint_key;
        let slot = self.registry.replace(spec, keys, key, &mut self.checkpoints).map_err(refusal)?;
        self.counters_noted |= slot.is_some();
        Ok(slot.unwrap_or(0))
    }

    fn delete_sa(&mut self, id: SaId) -> Result<u32, CommandError> {
        let gone = self.registry.remove(id).ok_or(CommandError::Unknown)?;
        let spi = gone.spec.spi;
        if gone.spec.direction == Direction::Inbound
            && let Err(error) = self.steering.remove_spi(spi)
        {
            tracing::error!(%error, %spi, "spi-not-removed");
            return Err(CommandError::Kernel);
        }
        Ok(0)
    }

    fn query_sa(&mut self, ticket: Ticket, id: SaId) -> Result<u32, CommandError> {
        let spec = &self.registry.get(id).ok_or(CommandError::Unknown)?.spec;
        let row = self.sa_counters.row(spec.direction, spec.index).ok_or(CommandError::Unknown)?;
        let used_ns = row.last_used_ns.value();
        let idle_ns = if used_ns == 0 { u64::MAX } else { monotonic_ns().saturating_sub(used_ns) };
        let stats = SaStats {
            packets: row.packets.value(),
            bytes: row.bytes.value(),
            idle_ns,
            highest_seq: row.highest_seq.value(),
        };
        self.events.push_back(Event::SaStats { ticket, stats });
        Ok(0)
    }

    /// Brings a new list under way. First everything is held that the old or the new list holds, then the
    /// workers change over, and only then is let go what the new list does not hold.
    fn begin_commit(&mut self, ticket: Ticket) -> Result<(), CommandError> {
        let policies = self.next_policies.take().ok_or(CommandError::Field)?;
        let mut compiled = Vec::new();
        for _ in &self.workers {
            compiled.push(CompiledPolicies::compile(&policies).map_err(|error| {
                tracing::error!(%error, "policies-not-compiled");
                CommandError::Field
            })?);
        }
        let pairs = pairs::held(&policies);
        let mut both = self.pairs.clone();
        both.extend(&pairs);
        both.sort_unstable();
        both.dedup();
        self.hold(both).map_err(|()| CommandError::Kernel)?;
        self.commit = Some(Commit { ticket: Some(ticket), policies, pairs, waiting: self.workers.len() });
        for (worker, compiled) in self.workers.iter_mut().zip(compiled) {
            worker.send(ToWorker::Policies(Box::new(compiled)));
        }
        Ok(())
    }

    /// A worker has changed over to the new list.
    pub(super) fn note_policies_in_force(&mut self) {
        let Some(mut commit) = self.commit.take() else { return };
        commit.waiting -= 1;
        if commit.waiting != 0 {
            self.commit = Some(commit);
            return;
        }
        let count = u32::try_from(commit.policies.len()).unwrap_or(u32::MAX);
        self.policies = commit.policies;
        let result = self.hold(commit.pairs).map(|()| count).map_err(|()| CommandError::Kernel);
        tracing::info!(policies = count, pairs = self.pairs.len(), "policies-in-force");
        if let Some(ticket) = commit.ticket {
            self.events.push_back(Event::Ack { ticket, result });
        }
    }

    /// Makes the XDP program and the kernel's routes hold these pairs.
    fn hold(&mut self, pairs: Vec<(IpNet, IpNet)>) -> Result<(), ()> {
        if let Err(error) = self.steering.set_protected(&pairs) {
            tracing::error!(%error, "protected-pairs-not-written");
            return Err(());
        }
        self.pairs = pairs;
        // Which of our own addresses lie inside the pairs has changed with them.
        if let Err(error) = self.steering.set_local_addrs(&self.mirror.addresses()) {
            tracing::error!(%error, "local-addresses-not-written");
            return Err(());
        }
        self.write_locks()
    }

    fn write_locks(&mut self) -> Result<(), ()> {
        let host = self.host_link();
        let addresses = self.mirror.addresses();
        let restored = self.locks.apply(&mut self.rtnl, &self.pairs, host, &addresses).map_err(|error| {
            tracing::error!(%error, "kernel-routes-not-written");
        })?;
        self.report_lost(LostThing::Rules, restored.rules);
        self.report_lost(LostThing::Routes, restored.routes);
        Ok(())
    }

    /// Puts the kernel's locks in force anew: addresses and interfaces take routes away when they go.
    pub(super) fn renew_locks(&mut self) {
        if !self.pairs.is_empty() {
            // The reason is in the log, and the next change tries again.
            let _ = self.write_locks();
        }
    }
}

fn refusal(error: RegistryError) -> CommandError {
    match error {
        RegistryError::Command(error) => error,
        RegistryError::Checkpoint(error) => {
            tracing::error!(%error, "counter-file-refused");
            CommandError::Full
        }
    }
}
