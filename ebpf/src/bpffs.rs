//! Our own bpffs, and what lies in it.
//!
//! A bpffs mounted inside `ip netns exec` dies with that command's mount namespace, and the pinned program
//! with it: the gateway would fail open. So ours is mounted in the initial mount namespace, that of process 1,
//! under the run directory, and shown in the caller's namespace as well where that is another one. Where the
//! namespace of process 1 is closed to us, that of our topmost readable ancestor takes its place.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use pollux_abi::IfIndex;
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::error::SteerError;

/// `f_type` of a bpffs, from linux/magic.h.
const BPF_FS_MAGIC: rustix::fs::FsWord = 0xcafe_4a11;

/// Folder of the mount point in the run directory.
const MOUNT_POINT: &str = "bpf";

/// Where pins of link files begin; the ifindex follows.
const LINK_PREFIX: &str = "link-";

/// Mounts our bpffs at `<run_dir>/bpf` unless it is there already, and returns that path.
///
/// `run_dir` has to exist, at the same path in the initial mount namespace. Linux 5.2 or later.
pub fn mount_own(run_dir: &Path) -> Result<PathBuf, SteerError> {
    let point = run_dir.join(MOUNT_POINT);
    let tree = in_initial_namespace(|| {
        create_dir(&point)?;
        if !is_bpffs(&point)? {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("bpf"), &point, Some("bpf"), flags, Some("mode=0700"))
                .map_err(|errno| failed("cannot mount a bpffs at", &point, errno.into()))?;
        }
        open_tree(CWD, &point, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
            .map_err(|errno| failed("cannot open the bpffs at", &point, errno.into()))
    })?;
    // The mount reaches this namespace by itself where propagation is on.
    if !is_bpffs(&point)? {
        show_here(&tree, &point)?;
    }
    Ok(point)
}

/// Unmounts what [`mount_own`] mounted; pins go with the last mount. Nothing mounted is fine.
pub fn unmount(run_dir: &Path) -> Result<(), SteerError> {
    let point = run_dir.join(MOUNT_POINT);
    let unmount_here = || {
        while point.exists() && is_bpffs(&point)? {
            umount2(&point, MntFlags::MNT_DETACH)
                .map_err(|errno| failed("cannot unmount", &point, errno.into()))?;
        }
        match fs::remove_dir(&point) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(failed("cannot remove", &point, source))
            }
            _ => Ok(()),
        }
    };
    if in_own_namespace()? {
        unmount_here()?;
    }
    in_initial_namespace(unmount_here)
}

/// Whether `path` lies on a bpffs.
pub fn is_bpffs(path: &Path) -> Result<bool, SteerError> {
    let stat = rustix::fs::statfs(path).map_err(|errno| failed("cannot stat", path, errno.into()))?;
    Ok(stat.f_type == BPF_FS_MAGIC)
}

/// Puts a clone of the initial namespace's mount onto the same path of this namespace.
fn show_here(tree: &OwnedFd, point: &Path) -> Result<(), SteerError> {
    create_dir(point)?;
    move_mount(tree, "", CWD, point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|errno| failed("cannot show the bpffs at", point, errno.into()))
}

/// Runs `work` in the initial mount namespace: on a thread of its own, since the namespace of a thread that
/// shares its working directory with others cannot be changed.
fn in_initial_namespace<T: Send>(
    work: impl FnOnce() -> Result<T, SteerError> + Send,
) -> Result<T, SteerError> {
    if !in_own_namespace()? {
        return work();
    }
    let enter = || -> io::Result<()> {
        let initial = File::open(mount_namespace_of(lasting_process()))?;
        unshare(CloneFlags::CLONE_FS)?;
        setns(initial, CloneFlags::CLONE_NEWNS)?;
        Ok(())
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter().map_err(|source| SteerError::MountNamespace { source })?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether this thread's mount namespace is another one than that which [`lasting_process`] lives in.
fn in_own_namespace() -> Result<bool, SteerError> {
    let inode = |path: &Path| {
        rustix::fs::stat(path)
            .map(|stat| stat.st_ino)
            .map_err(|errno| failed("cannot stat", path, errno.into()))
    };
    Ok(inode(Path::new("/proc/thread-self/ns/mnt"))? != inode(&mount_namespace_of(lasting_process()))?)
}

/// Process 1, or our topmost ancestor whose namespaces we may see.
fn lasting_process() -> u32 {
    let is_open = |pid: u32| rustix::fs::stat(mount_namespace_of(pid)).is_ok();
    if is_open(1) {
        return 1;
    }
    let parents =
        std::iter::successors(Some(std::process::id()), |pid| parent_of(*pid).filter(|pid| is_open(*pid)));
    parents.last().unwrap_or_else(std::process::id)
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn mount_namespace_of(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/mnt"))
}

/// Names the calling thread's network namespace: its inode, which fits 32 bits.
pub(crate) fn net_namespace() -> Result<u32, SteerError> {
    let path = Path::new("/proc/thread-self/ns/net");
    let stat = rustix::fs::stat(path).map_err(|errno| failed("cannot stat", path, errno.into()))?;
    u32::try_from(stat.st_ino).map_err(|error| failed("strange inode of", path, io::Error::other(error)))
}

/// The folders of every ABI version under `pin_dir`.
pub(crate) fn version_dirs(pin_dir: &Path) -> Result<Vec<PathBuf>, SteerError> {
    let is_version = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix('v'));
        name.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    if !pin_dir.exists() {
        return Ok(Vec::new());
    }
    Ok(list(pin_dir)?.into_iter().filter(is_version).collect())
}

/// The paths in `dir`.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>, SteerError> {
    let entries =
        fs::read_dir(dir).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    entries.map_err(|source| failed("cannot list", dir, source))
}

/// Where the link of an interface is pinned.
pub(crate) fn link_pin(dir: &Path, ifindex: IfIndex) -> PathBuf {
    dir.join(format!("{LINK_PREFIX}{ifindex}"))
}

pub(crate) fn is_link_pin(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(LINK_PREFIX))
}

fn create_dir(path: &Path) -> Result<(), SteerError> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(failed("cannot create", path, source))
        }
        _ => Ok(()),
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> SteerError {
    SteerError::File { what, path: path.to_owned(), source }
}
