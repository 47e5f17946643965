//! A model of one data plane: tables, answers that may be late, refused or lost, and ESP without octets.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use pollux_abi::command::{CommandError, Direction};
use pollux_abi::event::SaStats;
use pollux_abi::{SaId, SaIndex, Spi, TrafficSelector};
use pollux_ike::Instant;
use pollux_ike::endpoint::{Command, LiveSa, SaAllocator, SaCommand, SaInstall};
use pollux_pair::Seeded;

/// How a data plane fails. Chances are per mille of an installation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) refuse: u64,
    pub(crate) late: u64,
    pub(crate) lose_answer: u64,
}

/// SPIs and names of SAs, shared with the endpoint that draws them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allocator(Arc<Mutex<Ledger>>);

#[derive(Debug, Default)]
struct Ledger {
    given: BTreeSet<Spi>,
    next_index: u32,
    next_id: u64,
}

/// Table entries of the model; as many Child SAs never exist unless some leak.
const CAPACITY: usize = 256;

impl Allocator {
    fn with<T: Default>(&self, act: impl FnOnce(&mut Ledger) -> T) -> T {
        self.0.lock().map_or_else(|_| T::default(), |mut ledger| act(&mut ledger))
    }

    /// SPIs that are given and not free again.
    pub(crate) fn given(&self) -> BTreeSet<Spi> {
        self.with(|ledger| ledger.given.clone())
    }

    fn free(&self, spi: Spi) {
        self.with(|ledger| {
            ledger.given.remove(&spi);
        });
    }

    /// What a new control process, or a new data plane, starts with.
    pub(crate) fn restart(&self, given: BTreeSet<Spi>) {
        self.with(|ledger| ledger.given = given);
    }
}

impl SaAllocator for Allocator {
    fn inbound_spi(&mut self, random: u32) -> Option<Spi> {
        self.with(|ledger| {
            if ledger.given.len() >= CAPACITY {
                return None;
            }
            ledger.next_index = (ledger.next_index + 1) % 65_536;
            let spi = Spi::with_index(SaIndex(ledger.next_index), 16, random)?;
            ledger.given.insert(spi).then_some(spi)
        })
    }

    fn release(&mut self, spi: Spi) {
        self.free(spi);
    }

    fn sa_id(&mut self) -> SaId {
        self.with(|ledger| {
            ledger.next_id += 1;
            SaId(ledger.next_id)
        })
    }
}

/// An SA in the table.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) install: Box<SaInstall>,
    /// In which order it came: the newest outbound one is used.
    pub(crate) order: u64,
    pub(crate) last_used: Option<Instant>,
}

/// A packet under way: which SA sealed it.
#[derive(Clone, Debug)]
pub(crate) struct EspPacket {
    pub(crate) spi: Spi,
    keys: Vec<u8>,
    /// Inner source and destination.
    inner: (IpAddr, IpAddr),
    /// Outer source and destination; port 0 for plain ESP.
    pub(crate) outer: (SocketAddr, SocketAddr),
}

/// What happened to a packet that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// Decrypted, under this SA.
    Yes {
        sa: SaId,
        /// The first one of its SA is an event.
        first: bool,
        /// It came from elsewhere than the SA's traffic goes to.
        moved: bool,
    },
    /// Nobody here has that SPI and key.
    No,
}

/// The data plane.
#[derive(Debug)]
pub(crate) struct DataPlane {
    pub(crate) table: BTreeMap<SaId, Entry>,
    pub(crate) faults: Faults,
    pub(crate) allocator: Allocator,
    pub(crate) up: bool,
    /// Every key that was ever installed, by direction: none comes twice.
    keys: BTreeSet<(bool, Vec<u8>)>,
    order: u64,
    rng: Seeded,
}

impl DataPlane {
    pub(crate) fn new(rng: Seeded) -> Self {
        Self {
            table: BTreeMap::new(),
            faults: Faults::default(),
            allocator: Allocator::default(),
            up: true,
            keys: BTreeSet::new(),
            order: 0,
            rng,
        }
    }

    /// Carries out a command. The answer, and how long it takes, if there is one.
    pub(crate) fn command(
        &mut self,
        now: Instant,
        command: SaCommand,
    ) -> Result<Option<(Duration, Command)>, String> {
        match command {
            SaCommand::Install(install) => self.install(install),
            SaCommand::Remove { id, spi, direction } => {
                if direction == Direction::Inbound {
                    self.allocator.free(spi);
                }
                self.table.remove(&id);
                Ok(None)
            }
            SaCommand::Query { id } => {
                let Some(entry) = self.table.get(&id).filter(|_| self.up) else { return Ok(None) };
                let idle = entry
                    .last_used
                    .map_or(u64::MAX, |at| u64::try_from(now.since(at).as_nanos()).unwrap_or(u64::MAX));
                let stats = SaStats { idle_ns: idle, ..SaStats::default() };
                Ok(Some((self.quickly(), Command::SaStats { sa: id, stats })))
            }
            SaCommand::Move { id, local, remote, encap } => {
                if let Some(entry) = self.table.get_mut(&id) {
                    entry.install.local = local;
                    entry.install.remote = remote;
                    entry.install.encap = encap;
                }
                Ok(None)
            }
        }
    }

    fn install(&mut self, install: Box<SaInstall>) -> Result<Option<(Duration, Command)>, String> {
        let (sa, inbound) = (install.id, install.direction == Direction::Inbound);
        if !self.up {
            return Ok(None);
        }
        if !self.keys.insert((inbound, install.keys.as_bytes().to_vec())) {
            return Err(format!("keys of SA {sa} were installed before"));
        }
        if inbound && !self.allocator.given().contains(&install.spi) {
            return Err(format!("SPI {} of SA {sa} is not allocated", install.spi));
        }
        if self.rng.per_mille(self.faults.refuse) {
            let error = if self.rng.per_mille(500) { CommandError::Full } else { CommandError::Kernel };
            return Ok(Some((self.quickly(), Command::SaRefused { sa, error })));
        }
        self.order += 1;
        let entry = Entry { install, order: self.order, last_used: None };
        if self.table.insert(sa, entry).is_some() {
            return Err(format!("SA {sa} was installed twice"));
        }
        if self.rng.per_mille(self.faults.lose_answer) {
            return Ok(None);
        }
        let late = self.rng.per_mille(self.faults.late);
        let wait = if late { Duration::from_millis(self.rng.between(400, 900)) } else { self.quickly() };
        Ok(Some((wait, Command::SaInstalled { sa })))
    }

    fn quickly(&mut self) -> Duration {
        Duration::from_micros(self.rng.between(20, 2_000))
    }

    /// Seals a packet under the newest outbound SA for it; `None` where there is none.
    pub(crate) fn seal(&mut self, inner: (IpAddr, IpAddr)) -> Option<EspPacket> {
        let outbound = self.table.values().filter(|entry| {
            let install = &entry.install;
            install.direction == Direction::Outbound && carries(install, inner)
        });
        let install = &outbound.max_by_key(|entry| entry.order)?.install;
        let outer = match install.encap {
            Some(ports) => (ports.local, ports.remote),
            None => (0, 0),
        };
        Some(EspPacket {
            spi: install.spi,
            keys: install.keys.as_bytes().to_vec(),
            inner,
            outer: (SocketAddr::new(install.local, outer.0), SocketAddr::new(install.remote, outer.1)),
        })
    }

    /// Opens a packet that comes from `source` here.
    pub(crate) fn open(&mut self, now: Instant, packet: &EspPacket, source: SocketAddr) -> Opened {
        let (from, to) = packet.inner;
        let inbound = self.table.iter_mut().find(|(_, entry)| {
            entry.install.direction == Direction::Inbound
                && entry.install.spi == packet.spi
                && entry.install.keys.as_bytes() == packet.keys
                && carries(&entry.install, (to, from))
        });
        match inbound {
            Some((&sa, entry)) => {
                let first = entry.last_used.replace(now).is_none();
                let port = entry.install.encap.map_or(0, |ports| ports.remote);
                let moved = source != SocketAddr::new(entry.install.remote, port);
                Opened::Yes { sa, first, moved }
            }
            None => Opened::No,
        }
    }

    /// It dies: tables and keys are gone.
    pub(crate) fn die(&mut self) {
        self.up = false;
        self.table.clear();
        self.allocator.restart(BTreeSet::new());
    }

    /// What a new control process finds.
    pub(crate) fn live(&self, now: Instant) -> Vec<LiveSa> {
        let live = self.table.iter().map(|(&id, entry)| LiveSa {
            id,
            direction: entry.install.direction,
            spi: entry.install.spi,
            reqid: entry.install.reqid,
            local: entry.install.local,
            remote: entry.install.remote,
            encap: entry.install.encap,
            idle_ns: entry
                .last_used
                .map_or(u64::MAX, |at| u64::try_from(now.since(at).as_nanos()).unwrap_or(u64::MAX)),
        });
        live.collect()
    }

    /// SPIs of inbound SAs in the table.
    pub(crate) fn inbound_spis(&self) -> BTreeSet<Spi> {
        let inbound = self.table.values().filter(|entry| entry.install.direction == Direction::Inbound);
        inbound.map(|entry| entry.install.spi).collect()
    }
}

/// Whether an SA is for a packet, by its address on our side and its address on the peer's.
fn carries(install: &SaInstall, (ours, theirs): (IpAddr, IpAddr)) -> bool {
    let has =
        |list: &[TrafficSelector], address| list.iter().any(|selector| selector.contains_address(address));
    has(&install.local_ts, ours) && has(&install.remote_ts, theirs)
}
