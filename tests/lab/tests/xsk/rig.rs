//! Two veth pairs in a network namespace of the thread's own, with the XDP program on every end.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use pollux_abi::{IfIndex, QueueId};
use pollux_ebpf::{Capacity, Mode, ModeChoice as XdpChoice, Role, Steering, bpffs};
use pollux_port::{ModeChoice, Umem, XskConfig, XskPort};

pub(crate) struct Rig {
    queues: u32,
    steering: RefCell<Steering>,
}

/// A run directory with a bpffs, gone at the end of a failed test too.
struct RunDir {
    path: PathBuf,
    pins: PathBuf,
}

impl Drop for RunDir {
    fn drop(&mut self) {
        for outcome in [Steering::remove_all(&self.pins), bpffs::unmount(&self.path)] {
            if let Err(error) = outcome {
                eprintln!("{error}");
            }
        }
        let _ = std::fs::remove_dir(&self.path);
    }
}

impl Rig {
    /// Runs `test` on g0–d0 and d1–g1, each end with `queues` queues.
    pub(crate) fn run(queues: u32, test: impl FnOnce(&Self) + Send) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if let Some(reason) = pollux_lab::skip::reason(&["ip"]) {
            println!("skipped: {reason}");
            return;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pollux-xsk-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a run directory");
        let pins = match bpffs::mount_own(&path) {
            Ok(pins) => pins,
            Err(error) => {
                println!("skipped: {error}");
                std::fs::remove_dir_all(&path).expect("an empty run directory");
                return;
            }
        };
        let dir = RunDir { path, pins };
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
                Ok(()) => test(&Self::new(queues, &dir)),
                Err(errno) => println!("skipped: no network namespace: {errno}"),
            });
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    fn new(queues: u32, dir: &RunDir) -> Self {
        let mut steering = Steering::open(&dir.pins, Capacity::default()).expect("the program loads");
        let prefix = |text: &str| text.parse().expect("a prefix");
        steering.set_protected(&[(prefix("10.1.0.0/16"), prefix("10.2.0.0/16"))]).expect("a pair");
        let rig = Self { queues, steering: RefCell::new(steering) };
        sh("ip link set lo up");
        rig.pair(0);
        rig.pair(1);
        rig
    }

    /// Makes g`k`–d`k`, quiet (no IPv6 of its own), with the program on both ends.
    pub(crate) fn pair(&self, k: u32) {
        let queues = format!("numrxqueues {0} numtxqueues {0}", self.queues);
        sh(&format!("ip link add g{k} {queues} type veth peer name d{k} {queues}"));
        for device in [format!("g{k}"), format!("d{k}")] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "1").expect("sysctl");
            sh(&format!("ip link set {device} up"));
            let ifindex = IfIndex(if_nametoindex(device.as_str()).expect("it was just made"));
            let attached = self
                .steering
                .borrow_mut()
                .attach(ifindex, &device, Role::Lan, XdpChoice::Auto)
                .expect("veth has driver mode");
            assert_eq!(attached.mode, Mode::Driver);
        }
    }

    /// A port on a queue of a device, with frames sent to it by the program.
    pub(crate) fn open(&self, umem: &Umem, device: &str, queue: u32, mode: ModeChoice) -> XskPort {
        self.try_open(umem, device, queue, mode).expect("a socket")
    }

    pub(crate) fn try_open(
        &self,
        umem: &Umem,
        device: &str,
        queue: u32,
        mode: ModeChoice,
    ) -> Result<XskPort, String> {
        // An interface that is gone is the kernel's to refuse.
        let ifindex = IfIndex(if_nametoindex(device).unwrap_or(999_999));
        let config = XskConfig { mode, ..XskConfig::new(device, ifindex, QueueId(queue)) };
        let port = XskPort::open(umem, config).map_err(|error| error.to_string())?;
        let socket = port.socket().expect("just opened");
        self.steering.borrow_mut().set_xsk(ifindex, QueueId(queue), socket).expect("a place in the map");
        Ok(port)
    }
}

/// Runs a command line in the thread's network namespace.
pub(crate) fn sh(line: &str) {
    let status = Command::new("sh").args(["-ec", line]).status().expect("sh runs");
    assert!(status.success(), "{line}");
}

/// Whether `done` comes true within two seconds.
pub(crate) fn settles(mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(2);
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// A UDP frame from 10.1.0.5 to 10.2.0.9 that carries `number`, `len` octets long.
pub(crate) fn frame_of(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x0a]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0x0b]);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&u16::try_from(len - 14).expect("it fits").to_be_bytes());
    frame[22..24].copy_from_slice(&[64, 17]);
    frame[26..30].copy_from_slice(&Ipv4Addr::new(10, 1, 0, 5).octets());
    frame[30..34].copy_from_slice(&Ipv4Addr::new(10, 2, 0, 9).octets());
    frame[34..38].copy_from_slice(&[0x27, 0x10, 0x27, 0x11]);
    frame[38..40].copy_from_slice(&u16::try_from(len - 34).expect("it fits").to_be_bytes());
    frame[42..46].copy_from_slice(&number.to_be_bytes());
    frame[46..].fill(number.to_be_bytes()[3]);
    frame
}

/// The number that such a frame carries; `None` for other frames.
pub(crate) fn number_of(frame: &[u8]) -> Option<u32> {
    if frame.get(26..34)? != [10, 1, 0, 5, 10, 2, 0, 9] {
        return None;
    }
    Some(u32::from_be_bytes(*frame.get(42..)?.first_chunk()?))
}
