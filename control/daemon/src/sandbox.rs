//! What control gives up once its sockets are there: every right but that to bind the IKE ports again at a
//! reload, core dumps, whatever a program that it started could gain, and all system calls but those of a
//! process that talks over sockets and reads its own files.

use anyhow::Context;
use nix::libc;
use pollux_sandbox::seccomp::{Allowed, Rules};
use pollux_sandbox::{CapabilitySet, privileges};

/// Ports 500 and 4500.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// What control may ask of the kernel; it starts no program, makes no memory executable, and changes nothing
/// of the machine.
const CONTROL: Rules = Rules { calls: ALLOWED, without_exec: ALLOWED_WITHOUT_EXEC };

/// Gives up the rest, for good. Threads that exist already are not touched: call it before there are any.
pub(crate) fn enter() -> anyhow::Result<()> {
    privileges::close_memory().context("closing this process's memory to others")?;
    privileges::keep_only(KEPT).context("giving up privileges")?;
    CONTROL.confine().context("giving up system calls")
}

/// With any arguments.
const ALLOWED: &[Allowed] = &[
    (libc::SYS_socket, "the IKE sockets at a reload; the data plane's sockets"),
    (libc::SYS_socketpair, "the runtime's own wake-up for signals"),
    (libc::SYS_bind, "the IKE sockets at a reload"),
    (libc::SYS_listen, "the socket of the operator's command"),
    (libc::SYS_connect, "to the data plane's sockets, again and again while it is away"),
    (libc::SYS_accept4, "the operator's command"),
    (libc::SYS_shutdown, "the end of a connection"),
    (libc::SYS_getsockname, "our own address"),
    (libc::SYS_getpeername, "whose connection it is"),
    (libc::SYS_getsockopt, "a peer's credentials; a socket's error"),
    (libc::SYS_setsockopt, "where a datagram came to; buffers"),
    (libc::SYS_sendto, "answers; the data plane's doorbell"),
    (libc::SYS_sendmsg, "IKE from the right address; attaching to the data plane"),
    (libc::SYS_sendmmsg, "several at once, where a library does so"),
    (libc::SYS_recvfrom, "requests; the doorbell"),
    (libc::SYS_recvmsg, "IKE with the address that it came to; the ring's descriptor"),
    (libc::SYS_read, "files, sockets, eventfds"),
    (libc::SYS_pread64, "files"),
    (libc::SYS_readv, "the same in pieces"),
    (libc::SYS_write, "files, sockets, eventfds, the log"),
    (libc::SYS_writev, "the same in pieces"),
    (libc::SYS_close, "what is done with"),
    (libc::SYS_openat, "the configuration and its secrets at a reload; the key log"),
    (libc::SYS_statx, "who may read the secrets"),
    (libc::SYS_fstat, "the size of a file"),
    (libc::SYS_newfstatat, "the same, as the C library spells it"),
    (libc::SYS_ftruncate, "the log, whose oldest lines go"),
    (libc::SYS_lseek, "reading a file whole"),
    (libc::SYS_unlinkat, "our socket, at the end"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "the same, as older C libraries spell it"),
    (libc::SYS_fcntl, "sockets that do not block; what a descriptor is"),
    (libc::SYS_ioctl, "the same, as the standard library asks for it; whether the log is a terminal"),
    (libc::SYS_dup, "a descriptor for the runtime"),
    (libc::SYS_epoll_create1, "the runtime"),
    (libc::SYS_epoll_ctl, "the runtime"),
    (libc::SYS_epoll_pwait, "the runtime"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, "the runtime"),
    (libc::SYS_eventfd2, "the runtime"),
    (libc::SYS_ppoll, "waiting for the data plane while attaching"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "the same, as older C libraries spell it"),
    (libc::SYS_clone3, "the runtime's threads for what blocks"),
    (libc::SYS_clone, "the same, as older C libraries spell it"),
    (libc::SYS_set_robust_list, "a new thread"),
    (libc::SYS_rseq, "a new thread registers with the scheduler"),
    (libc::SYS_prctl, "a new thread's name"),
    (libc::SYS_sched_getaffinity, "the size of a new thread's stack; how many cores there are"),
    (libc::SYS_sched_yield, "gives way"),
    (libc::SYS_sigaltstack, "a new thread's signal stack"),
    (libc::SYS_prlimit64, "the size of a new thread's stack"),
    (libc::SYS_futex, "locks; joining"),
    (libc::SYS_munmap, "memory that is given back; rings of a data plane that has gone"),
    (libc::SYS_mremap, "the allocator grows a large block"),
    (libc::SYS_madvise, "the allocator gives pages back"),
    (libc::SYS_brk, "the allocator asks for memory"),
    (libc::SYS_clock_gettime, "the clock, where the kernel has no vDSO for it"),
    (libc::SYS_clock_nanosleep, "short sleeps"),
    (libc::SYS_nanosleep, "short sleeps, as older C libraries spell it"),
    (libc::SYS_restart_syscall, "a sleep that a signal has interrupted"),
    (libc::SYS_getrandom, "keys, nonces, SPIs"),
    (libc::SYS_geteuid, "whether a peer is of our user"),
    (libc::SYS_getpid, "to raise a signal at itself when it aborts"),
    (libc::SYS_gettid, "the same"),
    (libc::SYS_tgkill, "the same"),
    (libc::SYS_rt_sigaction, "the same"),
    (libc::SYS_rt_sigprocmask, "threads of the C library block signals while they begin and end"),
    (libc::SYS_rt_sigreturn, "the end of a signal handler"),
    (libc::SYS_exit, "a thread's end"),
    (libc::SYS_exit_group, "the end of all"),
];

/// Only without `PROT_EXEC`, their third argument.
const ALLOWED_WITHOUT_EXEC: &[Allowed] = &[
    (libc::SYS_mmap, "the allocator; the rings that we share with the data plane; a new thread's stack"),
    (libc::SYS_mprotect, "the allocator grows a thread's arena"),
];

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::PermissionDenied;

    use super::*;

    #[test]
    fn a_confined_control_has_sockets_files_and_threads_but_starts_nothing() {
        let confined = std::thread::spawn(|| {
            enter().expect("giving up is allowed");
            let file = std::fs::read_to_string("/proc/self/status").is_ok();
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").is_ok();
            let thread = std::thread::spawn(|| ()).join().is_ok();
            let program = std::process::Command::new("true").spawn().map(drop).map_err(|error| error.kind());
            (file, socket, thread, program)
        });
        assert_eq!(confined.join().expect("no panic"), (true, true, true, Err(PermissionDenied)));
    }

    #[test]
    fn every_system_call_is_listed_once_with_a_reason() {
        assert_eq!(CONTROL.faults(), []);
    }
}
