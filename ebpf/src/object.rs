//! The compiled object, loaded over the pinned maps where they fit and over fresh ones where they do not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{MapError, MapInfo, MapType};
use aya::{Ebpf, EbpfLoader};

use crate::abi::{PORT_SLOTS, QUEUES_PER_PORT, Role};
use crate::error::SteerError;
use crate::verdicts::Verdict;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.o"));

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
struct Shape {
    name: &'static str,
    map_type: MapType,
    key_size: u32,
    value_size: u32,
    entries: u32,
}

/// Every map of the object. The five of protected pairs come first: they are only of use together.
fn shapes(capacity: &Capacity) -> [Shape; 11] {
    let shape = |name, map_type, key_size, value_size, entries| Shape {
        name,
        map_type,
        key_size,
        value_size,
        entries,
    };
    [
        shape("pairs", MapType::ArrayOfMaps, 4, 4, 1),
        shape("local_prefixes4", MapType::LpmTrie, 8, 4, capacity.prefixes),
        shape("remote_prefixes4", MapType::LpmTrie, 8, 4, capacity.prefixes),
        shape("local_prefixes6", MapType::LpmTrie, 20, 4, capacity.prefixes),
        shape("remote_prefixes6", MapType::LpmTrie, 20, 4, capacity.prefixes),
        shape("ports", MapType::Hash, 4, 8, PORT_SLOTS),
        shape("xsks", MapType::XskMap, 4, 4, PORT_SLOTS * QUEUES_PER_PORT),
        shape("local_addrs4", MapType::Hash, 4, 4, capacity.local_addrs),
        shape("local_addrs6", MapType::Hash, 16, 4, capacity.local_addrs),
        shape("spis", MapType::Hash, 4, 1, capacity.spis),
        shape("verdicts", MapType::PerCpuArray, 4, 8, Role::COUNT * Verdict::COUNT),
    ]
}

/// How many of [`shapes`], from the first, live and die together.
const PAIR_MAPS: usize = 5;

/// Loads the object with its maps pinned in `dir`.
pub(crate) fn load(dir: &Path, capacity: &Capacity) -> Result<Ebpf, SteerError> {
    let shapes = shapes(capacity);
    remove_misfits(dir, &shapes)?;
    let mut loader = EbpfLoader::new();
    for shape in &shapes {
        loader.map_max_entries(shape.name, shape.entries).map_pin_path(shape.name, dir.join(shape.name));
    }
    Ok(loader.load(OBJECT)?)
}

/// Unpins maps that the object cannot use. aya would take them for good whatever their size; the program
/// on the interfaces keeps its own until it is replaced.
fn remove_misfits(dir: &Path, shapes: &[Shape]) -> Result<(), SteerError> {
    let (pairs, others) = shapes.split_at(PAIR_MAPS);
    if !pairs.iter().all(|shape| fits(dir, shape)) {
        for shape in pairs {
            unpin(dir.join(shape.name))?;
        }
    }
    for shape in others.iter().filter(|shape| !fits(dir, shape)) {
        unpin(dir.join(shape.name))?;
    }
    Ok(())
}

fn fits(dir: &Path, shape: &Shape) -> bool {
    let matches = |info: MapInfo| -> Result<bool, MapError> {
        Ok(info.map_type()? == shape.map_type
            && info.key_size() == shape.key_size
            && info.value_size() == shape.value_size
            && info.max_entries() == shape.entries)
    };
    MapInfo::from_pin(dir.join(shape.name)).and_then(matches).unwrap_or(false)
}

/// Removes a pin; whether there was one.
pub(crate) fn unpin(path: PathBuf) -> Result<bool, SteerError> {
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(SteerError::File { what: "cannot unpin", path, source }),
    }
}
