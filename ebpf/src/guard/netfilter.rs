//! The netfilter program: its object relocated by hand, since aya has no such type of program.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use aya_obj::Object;
use aya_obj::btf::Btf;
use aya_obj::generated::bpf_insn;

use super::sys;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard_nf.o"));

const PROGRAM: &str = "guard_netfilter";

/// Loads the program over the maps pinned in `dir`, with the offsets of the running kernel's structures.
pub(super) fn load(dir: &Path) -> io::Result<OwnedFd> {
    let mut object = Object::parse(OBJECT).map_err(io::Error::other)?;
    let kernel = Btf::from_sys_fs().map_err(io::Error::other)?;
    object.relocate_btf(&kernel).map_err(io::Error::other)?;
    let declared = object.maps.clone();
    let mut maps = Vec::new();
    for (name, map) in &declared {
        maps.push((name.as_str(), sys::open_pin(&dir.join(name))?, map));
    }
    let text = HashSet::new();
    object
        .relocate_maps(maps.iter().map(|(name, fd, map)| (*name, fd.as_fd().as_raw_fd(), *map)), &text)
        .map_err(io::Error::other)?;
    object.relocate_calls(&text).map_err(io::Error::other)?;
    let program = object.programs.get(PROGRAM).ok_or_else(|| io::Error::other("no program in the object"))?;
    let function = object
        .functions
        .get(&program.function_key())
        .ok_or_else(|| io::Error::other("no function in the object"))?;
    let instructions: Vec<u8> = function.instructions.iter().copied().flat_map(encode).collect();
    sys::load_netfilter(&instructions)
}

/// The instruction as `struct bpf_insn` lies in memory.
fn encode(instruction: bpf_insn) -> [u8; 8] {
    let (dst, src) = (instruction.dst_reg(), instruction.src_reg());
    let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    let [o0, o1] = instruction.off.to_ne_bytes();
    let [i0, i1, i2, i3] = instruction.imm.to_ne_bytes();
    [instruction.code, registers, o0, o1, i0, i1, i2, i3]
}
