//! What a worker may ask of the kernel: a list of system calls, each with its reason. Anything else fails with
//! `EPERM`.
//!
//! The list is Rust, not a file: the reason is a field that can't be left out, and the numbers come from `libc`.
//! It is short because a worker's life is rings in shared memory; it opens nothing, starts nothing, and
//! changes nothing of the machine.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use thiserror::Error;

/// Why a thread could not be confined. It goes on unconfined.
#[derive(Debug, Error)]
pub enum SeccompError {
    /// The filter could not be made or put in force.
    #[error(transparent)]
    Filter(#[from] seccompiler::Error),
    /// The filter could not be made.
    #[error(transparent)]
    Backend(#[from] seccompiler::BackendError),
}

/// A system call that a worker makes, and why.
type Allowed = (i64, &'static str);

/// With any arguments.
const ALLOWED: &[Allowed] = &[
    (libc::SYS_sendto, "makes the kernel send what lies in a transmit ring; wakes another thread"),
    (libc::SYS_recvfrom, "makes the kernel fill a receive ring; empties its own bell"),
    (libc::SYS_ppoll, "sleeps on its sockets and its bell where it may (idle = adaptive)"),
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

/// Confines the calling thread, for good. It needs `no_new_privs`, or the right to do without.
pub fn confine_worker() -> Result<(), SeccompError> {
    Ok(apply_filter(&filter()?)?)
}

fn filter() -> Result<BpfProgram, SeccompError> {
    let no_exec = SeccompCondition::new(
        2,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(u64::from(libc::PROT_EXEC.unsigned_abs())),
        0,
    )?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|&(number, _)| (number, Vec::new())).collect();
    for &(number, _) in ALLOWED_WITHOUT_EXEC {
        rules.insert(number, vec![SeccompRule::new(vec![no_exec.clone()])?]);
    }
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::PermissionDenied;

    use super::*;

    #[test]
    fn a_confined_thread_works_but_opens_and_starts_nothing() {
        let confined = std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).expect("anyone may");
            confine_worker().expect("a filter that the kernel takes");
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
    fn every_system_call_is_listed_once_with_a_reason() {
        let mut seen = std::collections::BTreeSet::new();
        for (number, reason) in ALLOWED.iter().chain(ALLOWED_WITHOUT_EXEC) {
            assert!(seen.insert(number), "{number} is listed twice");
            assert!(reason.len() > 5, "{number}: {reason}");
        }
    }
}
