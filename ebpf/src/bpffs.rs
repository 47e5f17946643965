//! Our own bpffs, and what lies in it.
//!
//! A bpffs mounted inside `ip netns exec` dies with that command's mount namespace, and the pinned program
//! with it: the gateway would fail open. So ours is mounted in the initial mount namespace, that of process 1,
//! under the run directory, and shown in the caller's namespace as well where that is another one. Where the
//! namespace of process 1 is closed to us or has another directory at that path, as in a container or a changed
//! root, that of our topmost ancestor which sees ours takes its place.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chroot, fchdir};
use pollux_abi::IfIndex;
use rustix::fs::{CWD, Mode, OFlags};
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
/// `run_dir` has to exist. Linux 5.2 or later.
pub fn mount_own(run_dir: &Path) -> Result<PathBuf, SteerError> {
    let point = run_dir.join(MOUNT_POINT);
    let tree = in_lasting_namespace(run_dir, || {
        create_dir(&point)?;
        if !is_bpffs(&point)? {
            let folder = open_point(&point)?;
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("bpf"), &descriptor_path(&folder), Some("bpf"), flags, Some("mode=0700"))
                .map_err(|errno| failed("cannot mount a bpffs at", &point, errno.into()))?;
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        open_tree(CWD, &point, flags)
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
    if outlives_us(run_dir)?.is_some() {
        unmount_here()?;
    }
    in_lasting_namespace(run_dir, unmount_here)
}

/// Opens the mount point itself. A link that somebody has put there is refused: what it leads to would get the
/// mount.
fn open_point(point: &Path) -> Result<OwnedFd, SteerError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(point, flags, Mode::empty())
        .map_err(|errno| failed("cannot open as a directory that is no link", point, errno.into()))
}

/// A path that leads to what is open, whatever lies at its name by now.
fn descriptor_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()))
}

/// Whether `path` lies on a bpffs.
pub fn is_bpffs(path: &Path) -> Result<bool, SteerError> {
    let stat = rustix::fs::statfs(path).map_err(|errno| failed("cannot stat", path, errno.into()))?;
    Ok(stat.f_type == BPF_FS_MAGIC)
}

/// Puts a clone of the lasting namespace's mount onto the same path of this namespace.
fn show_here(tree: &OwnedFd, point: &Path) -> Result<(), SteerError> {
    create_dir(point)?;
    let folder = open_point(point)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", &folder, "", flags)
        .map_err(|errno| failed("cannot show the bpffs at", point, errno.into()))
}

/// Runs `work` in the mount namespace of the process that [`outlives_us`]: on a thread of its own, since the namespace of a thread
/// that shares its working directory with others cannot be changed.
fn in_lasting_namespace<T: Send>(
    run_dir: &Path,
    work: impl FnOnce() -> Result<T, SteerError> + Send,
) -> Result<T, SteerError> {
    let Some(lasting) = outlives_us(run_dir)? else { return work() };
    let enter = || -> io::Result<()> {
        let namespace = File::open(mount_namespace_of(lasting))?;
        let root = File::open(root_of(lasting))?;
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        // setns leads to the namespace's own root; the process may have changed its.
        fchdir(root)?;
        chroot(".")?;
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

/// Process 1, or our topmost ancestor, that we may look into and that finds our run directory at the same path; none if
/// that shares this thread's mount namespace, or if nobody else sees the directory.
fn outlives_us(run_dir: &Path) -> Result<Option<u32>, SteerError> {
    let directory = |path: &Path| {
        rustix::fs::stat(path)
            .map(|stat| (stat.st_dev, stat.st_ino))
            .map_err(|errno| failed("cannot stat", path, errno.into()))
    };
    let ours = directory(run_dir)?;
    let relative = run_dir.strip_prefix("/").unwrap_or(run_dir);
    let sees_ours = |pid: &u32| directory(&root_of(*pid).join(relative)).is_ok_and(|theirs| theirs == ours);
    let ancestors = std::iter::successors(Some(std::process::id()), |pid| parent_of(*pid));
    let Some(lasting) = Some(1).filter(sees_ours).or_else(|| ancestors.filter(sees_ours).last()) else {
        return Ok(None);
    };
    let theirs = directory(&mount_namespace_of(lasting))?;
    Ok(Some(lasting)
        .filter(|_| !directory(Path::new("/proc/thread-self/ns/mnt")).is_ok_and(|here| here == theirs)))
}

fn root_of(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root"))
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
