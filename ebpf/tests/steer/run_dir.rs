//! A bpffs for one test.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use pollux_ebpf::{Steering, bpffs};

/// A run directory with our bpffs in it; unmounted and removed at the end, also of a failed test.
pub(crate) struct RunDir {
    pub(crate) path: PathBuf,
    pub(crate) pins: PathBuf,
}

impl RunDir {
    /// `None`, with a printed reason, where rights are lacking.
    pub(crate) fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            println!("skipped: BPF needs root");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pollux-ebpf-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a run directory");
        match bpffs::mount_own(&path) {
            Ok(pins) => Some(Self { path, pins }),
            Err(error) => {
                println!("skipped: {error}");
                std::fs::remove_dir_all(&path).expect("an empty run directory");
                None
            }
        }
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        for disposition in [Steering::remove_all(&self.pins), bpffs::unmount(&self.path)] {
            if let Err(error) = disposition {
                eprintln!("{error}");
            }
        }
        if let Err(error) = std::fs::remove_dir(&self.path) {
            eprintln!("{}: {error}", self.path.display());
        }
    }
}
