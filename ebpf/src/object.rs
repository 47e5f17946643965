//! The compiled object, loaded over the pinned maps where they fit and over fresh ones where they do not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{MapError, MapInfo, MapType};
use aya::{Ebpf, EbpfLoader};

use crate::abi::{PORT_SLOTS, QUEUES_PER_PORT, Role};
use crate::error::SteerError;
use crate::guard::{GuardLayer, GuardVerdict};
use crate::verdicts::XdpVerdict;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.o"));
static GUARD: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard.o"));

/// Sizes of the maps that grow with the configuration. Pinned maps of other sizes are not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Different prefixes on each side (local, remote) and of each IP version.
    pub prefixes: u32,
    /// Addresses of the gateway, of each IP version.
    pub local_addrs: u32,
    /// Inbound SPIs of manual SAs that do not begin with our bits.
    pub spis: u32,
}

impl Default for Capacity {
    /// Room for 10,000 tunnels and, while the configuration changes, for as many again. Entries cost memory
    /// only once used.
    fn default() -> Self {
        Self { prefixes: 32_768, local_addrs: 4_096, spis: 32_768 }
    }
}

/// A map as the program needs it.
#[derive(Clone, Copy)]
struct MapSpec {
    name: &'static str,
    map_type: MapType,
    key_size: u32,
    value_size: u32,
    entries: u32,
}

/// Every map of the object. The five of protected pairs come first: they are only of use together.
fn map_specs(capacity: &Capacity) -> [MapSpec; 14] {
    let spec = |name, map_type, key_size, value_size, entries| MapSpec {
        name,
        map_type,
        key_size,
        value_size,
        entries,
    };
    [
        spec("pairs", MapType::ArrayOfMaps, 4, 4, 1),
        spec("local_prefixes4", MapType::LpmTrie, 8, 4, capacity.prefixes),
        spec("remote_prefixes4", MapType::LpmTrie, 8, 4, capacity.prefixes),
        spec("local_prefixes6", MapType::LpmTrie, 20, 4, capacity.prefixes),
        spec("remote_prefixes6", MapType::LpmTrie, 20, 4, capacity.prefixes),
        spec("ports", MapType::Hash, 4, 16, PORT_SLOTS),
        spec("xsks", MapType::XskMap, 4, 4, PORT_SLOTS * QUEUES_PER_PORT),
        spec("local_addrs4", MapType::Hash, 4, 4, capacity.local_addrs),
        spec("local_addrs6", MapType::Hash, 16, 4, capacity.local_addrs),
        spec("spis", MapType::Hash, 4, 1, capacity.spis),
        spec("verdicts", MapType::PerCpuArray, 4, 8, Role::COUNT * XdpVerdict::COUNT),
        spec("guard_sockets", MapType::Hash, 8, 4, GUARD_SOCKETS),
        spec("host_links", MapType::Hash, 4, 1, HOST_LINKS),
        spec("guard_counts", MapType::PerCpuArray, 4, 8, GuardVerdict::COUNT * GuardLayer::COUNT),
    ]
}

/// How many of [`map_specs`], from the first, live and die together.
const PAIR_MAPS: usize = 5;

/// AF_XDP and IKE sockets that the guard can know, and ends of `pollux0`.
const GUARD_SOCKETS: u32 = 4_096;
const HOST_LINKS: u32 = 4;

/// Loads the XDP object with its maps pinned in `dir`.
pub(crate) fn load(dir: &Path, capacity: &Capacity) -> Result<Ebpf, SteerError> {
    load_object(OBJECT, dir, capacity)
}

/// Loads the guard's object over the same maps.
pub(crate) fn load_guard(dir: &Path, capacity: &Capacity) -> Result<Ebpf, SteerError> {
    load_object(GUARD, dir, capacity)
}

fn load_object(object: &[u8], dir: &Path, capacity: &Capacity) -> Result<Ebpf, SteerError> {
    let map_specs = map_specs(capacity);
    remove_misfits(dir, &map_specs)?;
    let mut loader = EbpfLoader::new();
    for spec in &map_specs {
        loader.map_max_entries(spec.name, spec.entries).map_pin_path(spec.name, dir.join(spec.name));
    }
    Ok(loader.load(object)?)
}

/// Unpins maps that the object cannot use. aya would take them for good whatever their size; the program
/// on the interfaces keeps its own until it is replaced.
fn remove_misfits(dir: &Path, map_specs: &[MapSpec]) -> Result<(), SteerError> {
    let (pairs, others) = map_specs.split_at(PAIR_MAPS);
    if !pairs.iter().all(|spec| fits(dir, spec)) {
        for spec in pairs {
            unpin(dir.join(spec.name))?;
        }
    }
    for spec in others.iter().filter(|spec| !fits(dir, spec)) {
        unpin(dir.join(spec.name))?;
    }
    Ok(())
}

fn fits(dir: &Path, spec: &MapSpec) -> bool {
    let matches = |info: MapInfo| -> Result<bool, MapError> {
        Ok(info.map_type()? == spec.map_type
            && info.key_size() == spec.key_size
            && info.value_size() == spec.value_size
            && info.max_entries() == spec.entries)
    };
    MapInfo::from_pin(dir.join(spec.name)).and_then(matches).unwrap_or(false)
}

/// Removes a pin; whether there was one.
pub(crate) fn unpin(path: PathBuf) -> Result<bool, SteerError> {
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(SteerError::File { what: "cannot unpin", path, source }),
    }
}
