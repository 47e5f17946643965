//! Cores and NUMA nodes: which worker runs where.

use std::fs;
use std::io;
use std::path::Path;

use pollux_abi::CoreId;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this process may run on, in order.
pub fn allowed_cores() -> io::Result<Vec<CoreId>> {
    let set = sched_getaffinity(None)?;
    let cores = (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core));
    Ok(cores.filter_map(|core| u32::try_from(core).ok()).map(CoreId).collect())
}

/// Cores for `workers` workers: the configured ones, or the last ones allowed, so that core 0 with its
/// interrupts is taken last. More workers than cores share.
pub fn choose(workers: u16, configured: &[u32], allowed: &[CoreId]) -> Vec<CoreId> {
    let configured: Vec<CoreId> = configured.iter().copied().map(CoreId).collect();
    let from_the_end: Vec<CoreId> = allowed.iter().rev().copied().collect();
    let source = if configured.is_empty() { from_the_end } else { configured };
    source.iter().copied().cycle().take(if source.is_empty() { 0 } else { usize::from(workers) }).collect()
}

/// Pins the calling thread.
pub fn pin(core: CoreId) -> io::Result<()> {
    let mut set = CpuSet::new();
    let index = usize::try_from(core.0).unwrap_or(usize::MAX);
    if index >= CpuSet::MAX_CPU {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    set.set(index);
    Ok(sched_setaffinity(None, &set)?)
}

/// Lets the calling thread run on any of `cores`.
pub fn spread(cores: &[CoreId]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(usize::try_from(core.0).unwrap_or(0));
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// The NUMA node of a core; `None` where the kernel does not say.
pub fn numa_node(core: CoreId) -> Option<u32> {
    let folder = Path::new("/sys/devices/system/cpu").join(format!("cpu{core}"));
    fs::read_dir(folder)
        .ok()?
        .flatten()
        .find_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_take_the_last_cores_and_share_when_there_are_too_few() {
        let allowed = [CoreId(0), CoreId(1), CoreId(5)];
        assert_eq!(choose(2, &[], &allowed), [CoreId(5), CoreId(1)]);
        assert_eq!(choose(4, &[], &allowed), [CoreId(5), CoreId(1), CoreId(0), CoreId(5)]);
        assert_eq!(choose(2, &[3, 4], &allowed), [CoreId(3), CoreId(4)]);
        assert_eq!(choose(2, &[], &[]), []);
    }

    #[test]
    fn a_pinned_thread_runs_where_it_was_pinned() {
        let allowed = allowed_cores().expect("affinity can be read");
        let last = *allowed.last().expect("a core");
        let seen = std::thread::spawn(move || {
            pin(last).expect("an allowed core can be taken");
            allowed_cores().expect("affinity can be read")
        });
        assert_eq!(seen.join().expect("no panic"), [last]);
        assert!(pin(CoreId(u32::MAX)).is_err());
    }
}
