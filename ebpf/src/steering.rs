//! The loaded program and its maps: what the data plane tells it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::MapError;
use ipnet::IpNet;
use pollux_abi::{IfIndex, QueueId, Spi};

use crate::abi::{
    ABI_VERSION, LOCAL_INSIDE, Mode, PORT_SLOTS, PortEntry, QUEUES_PER_PORT, Role, SPI_TOP_BITS,
    SPI_TOP_SHIFT,
};
use crate::bpffs;
use crate::error::SteerError;
use crate::maps::{Maps, absent_is_fine};
use crate::object::{self, Capacity};
use crate::pairs::is_inside;
use crate::protect;
use crate::verdicts::VerdictCount;

/// The XDP program with its maps, loaded and pinned. Dropping it leaves maps and attached programs in place:
/// the frames of a dead data plane go on being dropped, not passed.
pub struct Steering {
    pub(crate) ebpf: Ebpf,
    pub(crate) maps: Maps,
    pub(crate) dir: PathBuf,
    pub(crate) capacity: Capacity,
    /// Local sides of the protected pairs, which say what "inside" is.
    local_prefixes: Vec<IpNet>,
}

/// A declared interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its index, in the network namespace that it was declared from.
    pub ifindex: IfIndex,
    /// What it is to the gateway.
    pub role: Role,
    /// How it is attached; `None` if it is only declared.
    pub mode: Option<Mode>,
}

impl Steering {
    /// Loads the program over the maps pinned in `pin_dir`, a folder on a bpffs (see [`bpffs::mount_own`]).
    ///
    /// Maps of an earlier process are taken over with their contents if they fit `capacity`, and made anew
    /// if not. Nothing is attached or detached; an earlier program goes on until [`Self::attach`].
    pub fn open(pin_dir: &Path, capacity: Capacity) -> Result<Self, SteerError> {
        if !bpffs::is_bpffs(pin_dir)? {
            return Err(SteerError::NotBpffs { path: pin_dir.to_owned() });
        }
        let dir = version_dir(pin_dir);
        match fs::create_dir(&dir) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(SteerError::File { what: "cannot create", path: dir, source });
            }
            _ => {}
        }
        let mut ebpf = object::load(&dir, &capacity)?;
        let maps = Maps::take(&mut ebpf)?;
        let local_prefixes = maps.locals.classes()?.into_keys().collect();
        let mut steering = Self { ebpf, maps, dir, capacity, local_prefixes };
        steering.program(PROGRAM)?;
        Ok(steering)
    }

    /// Declares an interface of the calling thread's network namespace, or changes its role, so that
    /// [`Self::set_xsk`] can be called before [`Self::attach`].
    pub fn add_port(&mut self, ifindex: IfIndex, role: Role) -> Result<(), SteerError> {
        let netns = bpffs::net_namespace()?;
        let (slot, mode, mac) = match self.port_entry(ifindex)? {
            Some(entry) if entry.netns == netns => (entry.slot, entry.mode, entry.mac),
            Some(entry) => (entry.slot, None, [0; 6]),
            None => (self.free_slot(ifindex)?, None, [0; 6]),
        };
        self.write_port(ifindex, PortEntry { netns, slot, role, mode, mac })
    }

    /// Tells a declared port's MAC address: from then on, frames to another unicast address pass to the
    /// kernel untouched. Until then, and with an address of zeros, every frame is for us.
    pub fn set_mac(&mut self, ifindex: IfIndex, mac: [u8; 6]) -> Result<(), SteerError> {
        let entry = self.port_entry(ifindex)?.ok_or(SteerError::UnknownPort { ifindex })?;
        self.write_port(ifindex, PortEntry { mac, ..entry })
    }

    /// Every declared interface, also those of an earlier process.
    pub fn ports(&self) -> Result<Vec<Port>, SteerError> {
        let port = |(ifindex, entry): (u32, PortEntry)| Port {
            ifindex: IfIndex(ifindex),
            role: entry.role,
            mode: entry.mode,
        };
        Ok(self.port_entries()?.into_iter().map(port).collect())
    }

    /// Directs the frames that `queue` of a declared port receives to an AF_XDP socket bound to that queue.
    pub fn set_xsk(
        &mut self,
        ifindex: IfIndex,
        queue: QueueId,
        socket: BorrowedFd<'_>,
    ) -> Result<(), SteerError> {
        let key = self.xsk_key(ifindex, queue)?;
        self.maps.xsks.set(key, socket, 0).map_err(SteerError::map("xsks"))
    }

    /// Takes a socket out; what is meant for it is dropped from then on. A closed socket leaves by itself.
    pub fn clear_xsk(&mut self, ifindex: IfIndex, queue: QueueId) -> Result<(), SteerError> {
        let key = self.xsk_key(ifindex, queue)?;
        absent_is_fine(self.maps.xsks.unset(key)).map_err(SteerError::map("xsks"))
    }

    /// Makes `addresses` the gateway's own: those of every interface, also of `lo` and `pollux0`.
    pub fn set_local_addrs(&mut self, addresses: &[IpAddr]) -> Result<(), SteerError> {
        let present = self.maps.local_addrs.entries()?;
        for &address in addresses {
            let flags = self.address_flags(address);
            if present.get(&address) != Some(&flags) {
                self.maps.local_addrs.insert(address, flags)?;
            }
        }
        let wanted: HashSet<IpAddr> = addresses.iter().copied().collect();
        for &address in present.keys().filter(|address| !wanted.contains(address)) {
            self.maps.local_addrs.remove(address)?;
        }
        Ok(())
    }

    /// Whether any address of the gateway is known, perhaps from an earlier process.
    pub fn has_local_addrs(&self) -> Result<bool, SteerError> {
        Ok(!self.maps.local_addrs.entries()?.is_empty())
    }

    /// Makes `pairs` of (local, remote) prefixes the protected ones, of both IP versions in one list.
    ///
    /// Under traffic, what is protected before and after the change is protected all the while. Host bits
    /// are ignored, duplicates and overlaps are fine.
    pub fn set_protected(&mut self, pairs: &[(IpNet, IpNet)]) -> Result<(), SteerError> {
        // Addresses first: what is inside by the old or the new pairs is so while they change.
        self.local_prefixes.extend(pairs.iter().map(|(local, _)| local.trunc()));
        self.flag_addresses()?;
        protect::update(&mut self.maps, pairs, self.capacity.prefixes)?;
        self.local_prefixes = pairs.iter().map(|(local, _)| local.trunc()).collect();
        self.flag_addresses()
    }

    /// Says of each address of the gateway whether it lies inside.
    fn flag_addresses(&mut self) -> Result<(), SteerError> {
        for (address, flags) in self.maps.local_addrs.entries()? {
            let wanted = self.address_flags(address);
            if wanted != flags {
                self.maps.local_addrs.insert(address, wanted)?;
            }
        }
        Ok(())
    }

    /// The pairs that are held at the moment, also those of an earlier process: all that [`Self::set_protected`] was
    /// told, and what follows from it for prefixes inside others.
    pub fn protected(&self) -> Result<Vec<(IpNet, IpNet)>, SteerError> {
        protect::held(&self.maps)
    }

    /// Accepts ESP in UDP with this inbound SPI; one that begins with the bits 11 is accepted anyway.
    pub fn add_spi(&mut self, spi: Spi) -> Result<(), SteerError> {
        if spi.get() >> SPI_TOP_SHIFT == SPI_TOP_BITS {
            return Ok(());
        }
        self.maps.spis.insert(spi.get(), 1, 0).map_err(SteerError::map("spis"))
    }

    /// Takes back [`Self::add_spi`].
    pub fn remove_spi(&mut self, spi: Spi) -> Result<(), SteerError> {
        absent_is_fine(self.maps.spis.remove(&spi.get())).map_err(SteerError::map("spis"))
    }

    /// The SPIs of [`Self::add_spi`], also those of an earlier process.
    pub fn spis(&self) -> Result<Vec<Spi>, SteerError> {
        let spis = self.maps.spis.keys().collect::<Result<Vec<u32>, _>>().map_err(SteerError::map("spis"))?;
        Ok(spis.into_iter().filter_map(Spi::new).collect())
    }

    /// Every verdict counter of every role, zeros included.
    pub fn verdicts(&self) -> Result<Vec<VerdictCount>, SteerError> {
        self.maps.verdicts()
    }

    /// Detaches every program and removes every map that any version of Pollux pinned under `pin_dir`.
    pub fn remove_all(pin_dir: &Path) -> Result<(), SteerError> {
        for dir in bpffs::version_dirs(pin_dir)? {
            let (links, maps): (Vec<_>, Vec<_>) =
                bpffs::list(&dir)?.into_iter().partition(|path| bpffs::is_link_pin(path));
            for path in links.into_iter().chain(maps) {
                object::unpin(path)?;
            }
            fs::remove_dir(&dir).map_err(|source| SteerError::File {
                what: "cannot remove",
                path: dir,
                source,
            })?;
        }
        Ok(())
    }

    pub(crate) fn port_entry(&self, ifindex: IfIndex) -> Result<Option<PortEntry>, SteerError> {
        match self.maps.ports.get(&ifindex.0, 0) {
            Ok(value) => Ok(PortEntry::decode(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(SteerError::Map { map: "ports", source }),
        }
    }

    pub(crate) fn write_port(&mut self, ifindex: IfIndex, entry: PortEntry) -> Result<(), SteerError> {
        self.maps.ports.insert(ifindex.0, entry.encode(), 0).map_err(SteerError::map("ports"))
    }

    /// Forgets a port: its sockets leave the XSKMAP, so that the slot's next user starts without any.
    pub(crate) fn remove_port(&mut self, ifindex: IfIndex) -> Result<(), SteerError> {
        let Some(entry) = self.port_entry(ifindex)? else { return Ok(()) };
        let first = u32::from(entry.slot) * QUEUES_PER_PORT;
        for key in first..first + QUEUES_PER_PORT {
            absent_is_fine(self.maps.xsks.unset(key)).map_err(SteerError::map("xsks"))?;
        }
        absent_is_fine(self.maps.ports.remove(&ifindex.0)).map_err(SteerError::map("ports"))
    }

    fn port_entries(&self) -> Result<Vec<(u32, PortEntry)>, SteerError> {
        let entries =
            self.maps.ports.iter().collect::<Result<Vec<_>, _>>().map_err(SteerError::map("ports"))?;
        Ok(entries
            .into_iter()
            .filter_map(|(ifindex, value)| Some((ifindex, PortEntry::decode(value)?)))
            .collect())
    }

    fn free_slot(&self, ifindex: IfIndex) -> Result<u16, SteerError> {
        let taken: HashSet<u16> = self.port_entries()?.into_iter().map(|(_, entry)| entry.slot).collect();
        (0..PORT_SLOTS)
            .filter_map(|slot| u16::try_from(slot).ok())
            .find(|slot| !taken.contains(slot))
            .ok_or(SteerError::TooManyPorts { ifindex })
    }

    fn xsk_key(&self, ifindex: IfIndex, queue: QueueId) -> Result<u32, SteerError> {
        if queue.0 >= QUEUES_PER_PORT {
            return Err(SteerError::QueueOutOfRange { ifindex, queue });
        }
        let entry = self.port_entry(ifindex)?.ok_or(SteerError::UnknownPort { ifindex })?;
        Ok(u32::from(entry.slot) * QUEUES_PER_PORT + queue.0)
    }

    fn address_flags(&self, address: IpAddr) -> u32 {
        if is_inside(address, &self.local_prefixes) { LOCAL_INSIDE } else { 0 }
    }
}

/// Where this version's pins lie.
pub(crate) fn version_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join(format!("v{ABI_VERSION}"))
}

/// The program for frames that lie in one buffer, which is what AF_XDP without `XDP_USE_SG` takes.
pub(crate) const PROGRAM: &str = "steer";
/// The same for frames in several buffers.
pub(crate) const PROGRAM_FRAGS: &str = "steer_frags";
