//! The maps, typed. Addresses lie in them as on the wire, everything else in host order.

use std::collections::HashMap;
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{ArrayOfMaps, HashMap as BpfHash, Map, MapData, MapError, PerCpuArray, XskMap};
use ipnet::IpNet;

use crate::abi::Role;
use crate::error::SteerError;
use crate::verdicts::{VerdictCount, XdpVerdict};

/// A set of class pairs: what the program finds in map `pairs`.
pub(crate) type PairSet = BpfHash<MapData, [u32; 2], u8>;

/// `BPF_F_NO_PREALLOC`, which the program's declaration of a set has too; sets of other flags do not fit.
const NO_PREALLOC: u32 = 1;

/// Handles of every map, taken out of the object.
pub(crate) struct Maps {
    pub(crate) ports: BpfHash<MapData, u32, [u8; 16]>,
    pub(crate) xsks: XskMap<MapData>,
    pub(crate) local_addrs: LocalAddrs,
    pub(crate) spis: BpfHash<MapData, u32, u8>,
    pub(crate) locals: Prefixes,
    pub(crate) remotes: Prefixes,
    pairs: ArrayOfMaps<MapData, PairSet>,
    /// The set in `pairs`: to open it by its number takes `CAP_SYS_ADMIN`, which is given up after set-up.
    live: Option<PairSet>,
    verdicts: PerCpuArray<MapData, u64>,
}

impl Maps {
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, SteerError> {
        let local_addrs = LocalAddrs { v4: take(ebpf, "local_addrs4")?, v6: take(ebpf, "local_addrs6")? };
        let locals = Prefixes { v4: take(ebpf, "local_prefixes4")?, v6: take(ebpf, "local_prefixes6")? };
        let remotes = Prefixes { v4: take(ebpf, "remote_prefixes4")?, v6: take(ebpf, "remote_prefixes6")? };
        let mut maps = Self {
            ports: take(ebpf, "ports")?,
            xsks: take(ebpf, "xsks")?,
            local_addrs,
            spis: take(ebpf, "spis")?,
            locals,
            remotes,
            pairs: take(ebpf, "pairs")?,
            live: None,
            verdicts: take(ebpf, "verdicts")?,
        };
        match maps.pairs.get(&0, 0) {
            Ok(set) => maps.live = Some(set),
            Err(MapError::KeyNotFound) => maps.replace_pairs(std::iter::empty(), 0)?,
            Err(source) => return Err(SteerError::Map { map: "pairs", source }),
        }
        Ok(maps)
    }

    /// The class pairs that the program sees; `None` where none was ever written.
    pub(crate) fn pair_set(&self) -> Result<Option<Vec<[u32; 2]>>, SteerError> {
        let Some(set) = &self.live else { return Ok(None) };
        set.keys().collect::<Result<_, _>>().map(Some).map_err(SteerError::map("pairs"))
    }

    /// Exchanges the whole set of class pairs. When this returns, no program works on the old set any more:
    /// the kernel waits for them after an update of a map of maps.
    pub(crate) fn replace_pairs(
        &mut self,
        classes: impl Iterator<Item = [u32; 2]>,
        count: usize,
    ) -> Result<(), SteerError> {
        let entries = u32::try_from(count.max(1)).map_err(|_| SteerError::TooManyPairs)?;
        let mut set = PairSet::create(entries, NO_PREALLOC).map_err(SteerError::map("pairs"))?;
        for class_pair in classes {
            set.insert(class_pair, 1, 0).map_err(SteerError::map("pairs"))?;
        }
        self.pairs.set(0, &set, 0).map_err(SteerError::map("pairs"))?;
        self.live = Some(set);
        Ok(())
    }

    pub(crate) fn verdicts(&self) -> Result<Vec<VerdictCount>, SteerError> {
        let roles = std::iter::once(None).chain(Role::ALL.into_iter().map(Some));
        let mut counts = Vec::with_capacity((Role::COUNT * XdpVerdict::COUNT) as usize);
        for role in roles {
            for verdict in XdpVerdict::ALL {
                let per_cpu =
                    self.verdicts.get(&verdict.counter(role), 0).map_err(SteerError::map("verdicts"))?;
                counts.push(VerdictCount { role, verdict, frames: per_cpu.iter().sum() });
            }
        }
        Ok(counts)
    }
}

/// A map out of the object, as the type that the caller asks for.
pub(crate) fn take<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, SteerError> {
    let map = ebpf.take_map(name).ok_or(SteerError::Missing { name })?;
    M::try_from(map).map_err(SteerError::map(name))
}

/// Removing what is not there is no failure.
pub(crate) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}

/// The gateway's own addresses with their flags.
pub(crate) struct LocalAddrs {
    v4: BpfHash<MapData, [u8; 4], u32>,
    v6: BpfHash<MapData, [u8; 16], u32>,
}

impl LocalAddrs {
    pub(crate) fn entries(&self) -> Result<HashMap<IpAddr, u32>, SteerError> {
        let v4 = self.v4.iter().map(|entry| entry.map(|(address, flags)| (address.into(), flags)));
        let v6 = self.v6.iter().map(|entry| entry.map(|(address, flags)| (address.into(), flags)));
        v4.chain(v6).collect::<Result<_, _>>().map_err(SteerError::map("local_addrs"))
    }

    pub(crate) fn insert(&mut self, address: IpAddr, flags: u32) -> Result<(), SteerError> {
        match address {
            IpAddr::V4(address) => self.v4.insert(address.octets(), flags, 0),
            IpAddr::V6(address) => self.v6.insert(address.octets(), flags, 0),
        }
        .map_err(SteerError::map("local_addrs"))
    }

    pub(crate) fn remove(&mut self, address: IpAddr) -> Result<(), SteerError> {
        absent_is_fine(match address {
            IpAddr::V4(address) => self.v4.remove(&address.octets()),
            IpAddr::V6(address) => self.v6.remove(&address.octets()),
        })
        .map_err(SteerError::map("local_addrs"))
    }
}

/// The tries of one side: prefix → class.
pub(crate) struct Prefixes {
    v4: LpmTrie<MapData, [u8; 4], u32>,
    v6: LpmTrie<MapData, [u8; 16], u32>,
}

impl Prefixes {
    pub(crate) fn classes(&self) -> Result<HashMap<IpNet, u32>, SteerError> {
        let v4 = self
            .v4
            .iter()
            .map(|entry| entry.map(|(key, class)| (key.prefix_len(), key.data().into(), class)));
        let v6 = self
            .v6
            .iter()
            .map(|entry| entry.map(|(key, class)| (key.prefix_len(), key.data().into(), class)));
        let mut classes = HashMap::new();
        for entry in v4.chain(v6) {
            let (prefix_len, address, class): (u32, IpAddr, u32) =
                entry.map_err(SteerError::map("prefixes"))?;
            let prefix = u8::try_from(prefix_len).ok().and_then(|len| IpNet::new(address, len).ok());
            // The kernel refuses lengths beyond the address, so there is always a prefix.
            classes.extend(prefix.map(|prefix| (prefix, class)));
        }
        Ok(classes)
    }

    pub(crate) fn insert(&mut self, prefix: IpNet, class: u32) -> Result<(), SteerError> {
        let len = u32::from(prefix.prefix_len());
        match prefix {
            IpNet::V4(prefix) => self.v4.insert(&Key::new(len, prefix.network().octets()), class, 0),
            IpNet::V6(prefix) => self.v6.insert(&Key::new(len, prefix.network().octets()), class, 0),
        }
        .map_err(SteerError::map("prefixes"))
    }

    pub(crate) fn remove(&mut self, prefix: IpNet) -> Result<(), SteerError> {
        let len = u32::from(prefix.prefix_len());
        absent_is_fine(match prefix {
            IpNet::V4(prefix) => self.v4.remove(&Key::new(len, prefix.network().octets())),
            IpNet::V6(prefix) => self.v6.remove(&Key::new(len, prefix.network().octets())),
        })
        .map_err(SteerError::map("prefixes"))
    }
}
