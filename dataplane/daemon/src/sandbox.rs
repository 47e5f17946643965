//! What the process gives up once it is set up, so that whoever takes it over finds little to use: the
//! housekeeper keeps what following the kernel takes; a worker keeps no capability, because an AF_XDP socket
//! that is open asks for none, and few system calls, because its life is rings in shared memory. It opens
//! nothing, starts nothing, and changes nothing of the machine.

use pollux_sandbox::seccomp::{Allowed, Rules};
use pollux_sandbox::{CapabilitySet, privileges};

/// What the housekeeper needs for as long as it runs.
pub const HOUSEKEEPER: CapabilitySet = CapabilitySet::NET_ADMIN // routes, neighbours, links, offloads, XDP links
    .union(CapabilitySet::NET_RAW) // AF_XDP sockets, when a port comes back
    .union(CapabilitySet::BPF) // changes to the XDP program's maps
    .union(CapabilitySet::IPC_LOCK); // registering the UMEM again pins its pages

/// What a worker may ask of the kernel.
pub const WORKER: Rules = Rules { calls: ALLOWED, without_exec: ALLOWED_WITHOUT_EXEC };

/// Takes from the calling thread what a worker does not need.
///
/// # Errors
/// What the kernel refused, in words.
pub fn confine_worker() -> Result<(), String> {
    privileges::keep_only(CapabilitySet::empty())
        .map_err(|error| format!("giving up privileges: {error}"))?;
    WORKER.confine().map_err(|error| format!("giving up system calls: {error}"))
}

/// With any arguments.
const ALLOWED: &[Allowed] = &[
    (libc::SYS_sendto, "makes the kernel send what lies in a transmit ring; wakes another thread"),
    (libc::SYS_recvfrom, "makes the kernel fill a receive ring; empties its own doorbell"),
    (libc::SYS_ppoll, "sleeps on its sockets and its doorbell where it may (idle = adaptive)"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "the same, as older C libraries spell it"),
    (libc::SYS_read, "empties an eventfd"),
    (libc::SYS_write, "rings an eventfd; the message of a panic"),
    (libc::SYS_getsockopt, "an AF_XDP socket's statistics and error"),
    (libc::SYS_setsockopt, "unbinds a socket that is closed"),
    (libc::SYS_close, "closes a socket whose port has gone"),
    (libc::SYS_munmap, "its rings with it; memory that the allocator gives back"),
    (libc::SYS_madvise, "the allocator gives pages back"),
    (libc::SYS_brk, "the allocator asks for memory, between bursts"),
    (libc::SYS_mremap, "the allocator grows a large block"),
    (libc::SYS_futex, "locks of the standard library; being joined"),
    (libc::SYS_sched_yield, "gives way where cores are shared"),
    (libc::SYS_clock_gettime, "the clock, where the kernel has no vDSO for it"),
    (libc::SYS_clock_nanosleep, "short sleeps"),
    (libc::SYS_nanosleep, "short sleeps, as older C libraries spell it"),
    (libc::SYS_restart_syscall, "a sleep that a signal has interrupted"),
    (libc::SYS_getrandom, "seeds of hash tables"),
    (libc::SYS_gettid, "its own number, for the statistics"),
    (libc::SYS_getpid, "to raise a signal at itself when it aborts"),
    (libc::SYS_tgkill, "the same"),
    (libc::SYS_rt_sigaction, "the same"),
    (libc::SYS_rt_sigprocmask, "threads of the C library block signals while they end"),
    (libc::SYS_rt_sigreturn, "the end of a signal handler"),
    (libc::SYS_sigaltstack, "the standard library takes its signal stack down when a thread ends"),
    (libc::SYS_rseq, "the C library registers with the scheduler"),
    (libc::SYS_exit, "its end"),
    (libc::SYS_exit_group, "the end of all, by abort"),
];

/// Only without `PROT_EXEC`, their third argument.
const ALLOWED_WITHOUT_EXEC: &[Allowed] = &[
    (libc::SYS_mmap, "the allocator asks for memory"),
    (libc::SYS_mprotect, "the allocator grows a thread's arena"),
];

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::PermissionDenied;

    use super::*;

    #[test]
    fn a_confined_thread_works_but_opens_and_starts_nothing() {
        let confined = std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).expect("anyone may");
            WORKER.confine().expect("a filter that the kernel takes");
            let memory: Vec<u32> = (0..1_000_000).collect();
            std::thread::yield_now();
            std::thread::sleep(std::time::Duration::from_millis(1));
            let opened = std::fs::File::open("/proc/self/status").map(drop).map_err(|error| error.kind());
            let started = std::process::Command::new("true").spawn().map(drop).map_err(|error| error.kind());
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").map(drop).map_err(|error| error.kind());
            (memory[1_000], opened, started, socket)
        });
        let refused = Err(PermissionDenied);
        assert_eq!(confined.join().expect("no panic"), (1_000, refused, refused, refused));
        assert!(std::fs::File::open("/proc/self/status").is_ok(), "other threads are not confined");
    }

    #[test]
    fn a_worker_that_cannot_be_confined_says_why() {
        let reason = std::thread::spawn(|| {
            // A filter that refuses further filters stands for a kernel without them.
            privileges::keep_only(CapabilitySet::empty()).expect("giving up is allowed");
            WORKER.confine().expect("a filter that the kernel takes");
            confine_worker()
        });
        let reason = reason.join().expect("no panic").expect_err("prctl and capset are refused");
        assert!(reason.starts_with("giving up "), "{reason}");
    }

    #[test]
    fn every_system_call_is_listed_once_with_a_reason() {
        assert_eq!(WORKER.faults(), []);
    }
}
