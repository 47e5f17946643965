//! The program on real interfaces: veth pairs in network namespaces that live as long as one test.
//!
//! ```text
//!   private network namespace of the test's thread
//!   vb 10.1.0.5 ── veth ── va   XDP program, role lan, pair 10.1.0.0/16 ↔ 10.2.0.0/16, no AF_XDP socket
//!      └ 10.2.0.9 is on va by a static neighbour entry: each datagram must end as drop_no_xsk
//! ```
//!
//! Needs root; without it each test says `skipped`.

#[path = "steer/run_dir.rs"]
mod run_dir;

use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use pollux_abi::IfIndex;
use pollux_ebpf::{Capacity, Mode, ModeChoice, Port, Role, SteerError, Steering, XdpVerdict};

use crate::run_dir::RunDir;

/// Chosen here, so that a device made anew has the number of the one before.
const VA: IfIndex = IfIndex(50);
const LO: IfIndex = IfIndex(1);

/// Where the datagrams go that only a tunnel may carry.
const THERE: &str = "10.2.0.9:9";

#[test]
fn a_veth_gets_driver_mode_and_the_program_outlives_its_loader() {
    in_own_network(|run| {
        make_veth(1_500);
        let mut steering = protecting(run);
        let attached = steering.attach(VA, "va", Role::Lan, ModeChoice::Auto).expect("veth has driver mode");
        assert_eq!((attached.mode, attached.reason), (Mode::Driver, None));
        assert!(!attached.reused_link && !attached.multi_buffer);
        assert_eq!(shown_mode("va"), Some(Mode::Driver));
        let port = Port { ifindex: VA, role: Role::Lan, mode: Some(Mode::Driver) };
        assert_eq!(steering.ports().expect("ports"), [port]);
        drop(steering);

        let socket = sender();
        for _ in 0..10 {
            socket.send(b"in clear").expect("the link is up");
        }
        let steering = Steering::open(&run.pins, Capacity::default()).expect("the same maps");
        assert!(settles(|| frames(&steering, XdpVerdict::DropNoXsk) == 10), "dropped after the loader's end");
        assert_eq!(frames(&steering, XdpVerdict::PassOther), 0);
    });
}

#[test]
fn a_restart_replaces_the_program_without_letting_a_frame_by() {
    in_own_network(|run| {
        make_veth(1_500);
        let mut steering = protecting(run);
        steering.attach(VA, "va", Role::Lan, ModeChoice::Auto).expect("veth has driver mode");
        let socket = sender();
        let done = AtomicBool::new(false);
        let sent = std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let mut sent = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    sent += u64::from(socket.send(b"in clear").is_ok());
                    std::thread::sleep(Duration::from_micros(20));
                }
                sent
            });
            for _ in 0..5 {
                drop(std::mem::replace(&mut steering, protecting(run)));
                let attached = steering.attach(VA, "va", Role::Lan, ModeChoice::Auto).expect("replaces");
                assert!(attached.reused_link);
                assert_eq!(attached.mode, Mode::Driver);
                std::thread::sleep(Duration::from_millis(30));
            }
            done.store(true, Ordering::Relaxed);
            flood.join().expect("the sender")
        });
        assert!(sent > 500, "only {sent} datagrams");
        assert!(
            settles(|| frames(&steering, XdpVerdict::DropNoXsk) == sent),
            "{} of {sent} were judged",
            frames(&steering, XdpVerdict::DropNoXsk)
        );
        assert_eq!(frames(&steering, XdpVerdict::PassOther), 0);
    });
}

#[test]
fn a_device_without_driver_mode_gets_generic_mode_and_a_reason() {
    in_own_network(|run| {
        let mut steering = protecting(run);
        let refused = steering.attach(LO, "lo", Role::Lan, ModeChoice::Driver);
        assert!(matches!(refused, Err(SteerError::Attach { mode: Mode::Driver, .. })));
        assert_eq!(shown_mode("lo"), None);

        let attached = steering.attach(LO, "lo", Role::Lan, ModeChoice::Auto).expect("every device has it");
        assert_eq!(attached.mode, Mode::Generic);
        let reason = attached.reason.expect("a reason");
        assert!(reason.contains("not supported"), "{reason}");
        assert_eq!(attached.switched_off, ["gro"]);
        assert_eq!(shown_mode("lo"), Some(Mode::Generic));

        let again = protecting(run).attach(LO, "lo", Role::Lan, ModeChoice::Auto).expect("replaces");
        assert_eq!((again.mode, again.reused_link), (Mode::Generic, true));
        assert!(again.reason.is_some());
        assert!(again.switched_off.is_empty(), "it is off already");
    });
}

#[test]
fn another_mode_than_the_pinned_one_is_attached_anew() {
    in_own_network(|run| {
        make_veth(1_500);
        let mut steering = protecting(run);
        let generic = steering.attach(VA, "va", Role::Lan, ModeChoice::Generic).expect("generic mode");
        assert_eq!(
            (generic.mode, generic.reason),
            (Mode::Generic, None),
            "what was asked for needs no reason"
        );
        let driver = steering.attach(VA, "va", Role::Lan, ModeChoice::Driver).expect("driver mode");
        assert_eq!((driver.mode, driver.reused_link), (Mode::Driver, false));
        assert_eq!(shown_mode("va"), Some(Mode::Driver));
    });
}

#[test]
fn a_large_mtu_gets_the_program_for_several_buffers() {
    in_own_network(|run| {
        make_veth(9_000);
        for reused in [false, true] {
            let attached = protecting(run).attach(VA, "va", Role::Lan, ModeChoice::Auto).expect("with frags");
            assert_eq!((attached.mode, attached.multi_buffer), (Mode::Driver, true));
            assert_eq!(attached.reused_link, reused);
        }
    });
}

#[test]
fn a_device_made_anew_gets_a_new_link() {
    in_own_network(|run| {
        for _ in 0..2 {
            make_veth(1_500);
            let attached = protecting(run).attach(VA, "va", Role::Lan, ModeChoice::Auto).expect("attaches");
            assert!(!attached.reused_link);
            assert_eq!(shown_mode("va"), Some(Mode::Driver));
            command("ip link del va");
        }
    });
}

#[test]
fn a_device_of_another_namespace_with_the_same_number_is_another_device() {
    in_own_network(|run| {
        make_veth(1_500);
        protecting(run).attach(VA, "va", Role::Lan, ModeChoice::Auto).expect("attaches");
        std::thread::scope(|scope| {
            let elsewhere = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("it worked before");
                make_veth(1_500);
                let attached =
                    protecting(run).attach(VA, "va", Role::Lan, ModeChoice::Auto).expect("attaches");
                assert!(!attached.reused_link);
                assert_eq!(shown_mode("va"), Some(Mode::Driver));
            });
            elsewhere.join().expect("the other namespace's assertions");
        });
        assert!(settles(|| shown_mode("va").is_none()), "one ifindex has one link");
    });
}

#[test]
fn a_program_of_someone_else_is_left_alone() {
    in_own_network(|run| {
        make_veth(1_500);
        protecting(run).attach(VA, "va", Role::Lan, ModeChoice::Auto).expect("attaches");
        let Some(other) = RunDir::new() else { return };
        let refused = protecting(&other).attach(VA, "va", Role::Wan, ModeChoice::Auto);
        assert!(matches!(refused, Err(SteerError::Occupied { mode: Mode::Driver, .. })), "{refused:?}");
        assert_eq!(shown_mode("va"), Some(Mode::Driver));
    });
}

#[test]
fn the_cure_names_the_mode_of_a_program_of_someone_else() {
    in_own_network(|run| {
        make_veth(1_500);
        protecting(run).attach(VA, "va", Role::Lan, ModeChoice::Generic).expect("attaches");
        let Some(other) = RunDir::new() else { return };
        for choice in [ModeChoice::Auto, ModeChoice::Driver, ModeChoice::Generic] {
            let refused = protecting(&other).attach(VA, "va", Role::Wan, choice).expect_err("it is occupied");
            let said = refused.to_string();
            assert!(
                said.contains("in generic mode: `ip link set dev va xdpgeneric off`"),
                "{choice:?}: {said}"
            );
        }
    });
}

#[test]
fn detaching_one_port_and_removing_all_leave_nothing_behind() {
    in_own_network(|run| {
        make_veth(1_500);
        let mut steering = protecting(run);
        steering.attach(VA, "va", Role::Lan, ModeChoice::Auto).expect("attaches");
        steering.attach(LO, "lo", Role::Wan, ModeChoice::Auto).expect("attaches");
        steering.detach(VA).expect("detaches");
        assert!(settles(|| shown_mode("va").is_none()));
        assert_eq!(shown_mode("lo"), Some(Mode::Generic));
        assert_eq!(steering.ports().expect("ports").len(), 1);
        drop(steering);

        Steering::remove_all(&run.pins).expect("removes");
        assert!(settles(|| shown_mode("lo").is_none()));
        assert_eq!(
            std::fs::read_dir(&run.pins).expect("the bpffs").filter_map(Result::ok).filter(is_ours).count(),
            0
        );
        Steering::remove_all(&run.pins).expect("nothing to remove is fine");
    });
}

#[test]
fn a_bpffs_mounted_from_another_mount_namespace_outlives_it() {
    let Some(run) = RunDir::new() else { return };
    pollux_ebpf::bpffs::unmount(&run.path).expect("unmounts");
    assert!(!run.pins.exists());
    std::thread::scope(|scope| {
        let elsewhere = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("root may");
            command("mount --make-rprivate /");
            let pins = pollux_ebpf::bpffs::mount_own(&run.path).expect("mounts");
            Steering::open(&pins, Capacity::default()).expect("pins its maps");
        });
        elsewhere.join().expect("the other namespace's assertions");
    });
    assert!(pollux_ebpf::bpffs::is_bpffs(&run.pins).expect("the mount point"));
    assert!(run.pins.join("v2/verdicts").exists());
}

#[test]
fn a_run_directory_that_only_this_mount_namespace_has_gets_its_bpffs_here() {
    let Some(run) = RunDir::new() else { return };
    std::thread::scope(|scope| {
        let container = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("root may");
            command("mount --make-rprivate /");
            command(&format!("mount -t tmpfs tmpfs {}", run.path.display()));
            let own = run.path.join("own");
            std::fs::create_dir(&own).expect("a folder on the new mount");
            let pins = pollux_ebpf::bpffs::mount_own(&own).expect("mounts");
            Steering::open(&pins, Capacity::default()).expect("pins its maps");
            pollux_ebpf::bpffs::unmount(&own).expect("unmounts");
            assert!(!pins.exists());
        });
        container.join().expect("the container's assertions");
    });
    assert!(!run.path.join("own").exists(), "the other mount namespaces have seen nothing of it");
}

/// Runs a test on a thread with a network namespace of its own, which ends with the thread.
fn in_own_network(test: impl FnOnce(&RunDir) + Send) {
    let Some(run) = RunDir::new() else { return };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => {
                command("ip link set lo up");
                test(&run);
            }
            Err(errno) => println!("skipped: no network namespace: {errno}"),
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A program that protects 10.1.0.0/16 ↔ 10.2.0.0/16, not attached yet.
fn protecting(run: &RunDir) -> Steering {
    let mut steering = Steering::open(&run.pins, Capacity::default()).expect("the program loads");
    let prefix = |text: &str| text.parse().expect("a prefix");
    steering.set_protected(&[(prefix("10.1.0.0/16"), prefix("10.2.0.0/16"))]).expect("a pair");
    steering
}

fn make_veth(mtu: u32) {
    command(&format!("ip link add va index {VA} mtu {mtu} type veth peer name vb mtu {mtu}"));
    command("ip addr add 10.1.0.5/24 dev vb");
    command("ip link set va address 02:00:00:00:00:0a up");
    command("ip link set vb up");
    command("ip route add 10.2.0.0/16 dev vb");
    command("ip neigh add 10.2.0.9 lladdr 02:00:00:00:00:0a nud permanent dev vb");
}

fn sender() -> UdpSocket {
    let socket = UdpSocket::bind("10.1.0.5:0").expect("our address");
    socket.connect(THERE).expect("a route");
    socket
}

fn frames(steering: &Steering, verdict: XdpVerdict) -> u64 {
    let counts = steering.verdicts().expect("counters");
    counts.iter().filter(|count| count.verdict == verdict).map(|count| count.frames).sum()
}

/// The mode that iproute2 sees.
fn shown_mode(device: &str) -> Option<Mode> {
    let output = Command::new("ip").args(["link", "show", "dev", device]).output().expect("iproute2 runs");
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("xdpgeneric") {
        Some(Mode::Generic)
    } else {
        text.contains("xdp").then_some(Mode::Driver)
    }
}

fn command(line: &str) {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command");
    let status = Command::new(program).args(words).status().expect("the command runs");
    assert!(status.success(), "{line}");
}

/// Whether `holds` comes true within two seconds: the kernel frees links and handles frames in the background.
fn settles(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    holds()
}

/// The kernel puts `maps.debug` and `progs.debug` into each bpffs; the rest is ours.
fn is_ours(entry: &std::fs::DirEntry) -> bool {
    entry.file_name().to_str().is_some_and(|name| name.starts_with('v'))
}
