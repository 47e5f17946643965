//! One AF_XDP socket with its four rings: receive, send, take back, wake.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use pollux_packet::{Burst, Meta};
use pollux_shm::{CursorError, Mapping};
use rustix::io::Errno;
use rustix::net::sockopt as net_option;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING,
    XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpOptionsFlags, XdpRingOffset, XdpUmemReg,
    XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use thiserror::Error;

use crate::port::{CopyMode, Port, PortInfo, PortState, PortStats, Requested};
use crate::xsk::frames::FramePool;
use crate::xsk::options::{ModeChoice, RingSizes, XskConfig};
use crate::xsk::ring::{ConsumerRing, ProducerRing};
use crate::xsk::syscall::{self, IntOption};
use crate::xsk::umem::{FrameLocation, Umem};

/// Why there is no socket.
#[derive(Debug, Error)]
#[error("AF_XDP socket on {name} queue {queue}: {what}: {source}{}", fix(*.source))]
pub struct XskError {
    /// The interface.
    pub name: String,
    /// Its queue.
    pub queue: u32,
    /// What failed.
    pub what: &'static str,
    /// With what.
    #[source]
    pub source: Errno,
}

fn fix(errno: Errno) -> &'static str {
    match errno {
        Errno::BUSY => "; another AF_XDP socket has this queue: stop the process that owns it",
        Errno::PERM => "; run as root, or with CAP_NET_RAW and CAP_IPC_LOCK",
        Errno::NODEV | Errno::NXIO => "; the interface is gone",
        Errno::INVAL => {
            "; the interface may not have this queue (ethtool -l), or a ring size is no power of two"
        }
        Errno::OPNOTSUPP => "; the driver cannot do zero-copy: ask for \"auto\" or \"copy\"",
        Errno::NOBUFS | Errno::NOMEM => "; raise the limit of locked memory (ulimit -l) or lower the frames",
        _ => "",
    }
}

/// A port on one queue of a device. Made by the housekeeper, put into the XSKMAP by its descriptor, then
/// moved to the worker that owns the queue. Frames enter its rings at the first [`Port::reclaim`].
///
/// A new socket for the same queue can be bound only when this one is dropped: rings and descriptor go
/// together, and nothing else keeps either alive.
#[derive(Debug)]
pub struct XskPort {
    open_socket: Option<OpenSocket>,
    place: Option<FrameLocation>,
    state: PortState,
    stats: PortStats,
    config: XskConfig,
    effective: Effective,
}

/// What exists while the socket is open. The rings unmap before the descriptor closes.
#[derive(Debug)]
struct OpenSocket {
    rx: ConsumerRing<2>,
    tx: ProducerRing<2>,
    fill: ProducerRing<1>,
    completion: ConsumerRing<1>,
    fd: Arc<OwnedFd>,
}

/// What binding brought.
#[derive(Clone, Debug)]
struct Effective {
    copy_mode: CopyMode,
    reason: String,
    shared_umem: bool,
    tx_budget: u32,
    busy_poll: bool,
}

impl XskPort {
    /// Opens and binds a socket, in the network namespace of the calling thread.
    ///
    /// The UMEM's registration is shared with a living socket of the same mode. It cannot be shared across
    /// modes (a veth pair would force its copying on the NIC), so the first socket of either mode registers.
    pub fn open(umem: &Umem, config: XskConfig) -> Result<Self, XskError> {
        let modes: &[CopyMode] = match config.mode {
            ModeChoice::Auto => &[CopyMode::ZeroCopy, CopyMode::Copy],
            ModeChoice::ZeroCopy => &[CopyMode::ZeroCopy],
            ModeChoice::Copy => &[CopyMode::Copy],
        };
        let mut refused = None;
        for &mode in modes {
            match bind_patiently(umem, &config, mode) {
                Ok((open_socket, shared_umem)) => {
                    return Ok(Self::bound(umem, config, open_socket, shared_umem, refused));
                }
                Err(error) if error.source == Errno::OPNOTSUPP || error.source == Errno::INVAL => {
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| failure(&config, "no mode to bind in")(Errno::INVAL)))
    }

    fn bound(
        umem: &Umem,
        config: XskConfig,
        open_socket: OpenSocket,
        shared_umem: bool,
        refused: Option<XskError>,
    ) -> Self {
        let options = net_option::xdp_options(&*open_socket.fd).unwrap_or(XdpOptionsFlags::empty());
        let zero_copy = options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        let copy_mode = if zero_copy { CopyMode::ZeroCopy } else { CopyMode::Copy };
        umem.add_socket(&open_socket.fd, copy_mode);
        let budget = config.tx_budget;
        let tx_budget = syscall::set(&*open_socket.fd, IntOption::MaxTxSkbBudget, budget)
            .map_or(TX_BUDGET_DEFAULT, |()| budget);
        let busy_poll = config.busy_poll.is_some_and(|poll| {
            syscall::set(&*open_socket.fd, IntOption::PreferBusyPoll, 1)
                .and_then(|()| syscall::set(&*open_socket.fd, IntOption::BusyPoll, poll.usecs))
                .and_then(|()| syscall::set(&*open_socket.fd, IntOption::BusyPollBudget, poll.budget))
                .is_ok()
        });
        let reason = refused.map_or_else(String::new, |error| format!("zero-copy: {}", error.source));
        let effective = Effective { copy_mode, reason, shared_umem, tx_budget, busy_poll };
        Self {
            open_socket: Some(open_socket),
            place: None,
            state: PortState::Up,
            stats: PortStats::default(),
            config,
            effective,
        }
    }

    /// The socket, for the XSKMAP; `None` once closed.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.open_socket.as_ref().map(|open_socket| open_socket.fd.as_fd())
    }

    /// What it was made from: all that is needed to make another for the same queue.
    pub fn config(&self) -> &XskConfig {
        &self.config
    }

    /// A ring that makes no sense any more: nothing can be done with the socket but to close it.
    #[cold]
    fn give_up(&mut self) {
        self.state = PortState::Dead;
    }

    fn note_send(&mut self, result: Result<(), Errno>) {
        self.stats.kicks += 1;
        match result {
            Ok(()) => self.state = PortState::Up,
            // Sent what it could; the rest goes with the next kick.
            Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => {}
            Err(Errno::NETDOWN | Errno::NXIO | Errno::NODEV) => self.state = PortState::Down,
            Err(_) => self.stats.kick_errors += 1,
        }
    }
}

impl Port for XskPort {
    fn rx_burst(&mut self, pool: &mut FramePool, meta: &Meta, burst: &mut Burst) -> usize {
        let (Some(open_socket), Some(place)) = (self.open_socket.as_mut(), self.place) else { return 0 };
        let want = u32::try_from(burst.room()).unwrap_or(0);
        let Ok(count) = open_socket.rx.available(want) else {
            self.give_up();
            return 0;
        };
        let mut received = 0;
        for k in 0..count {
            let [address, len_and_options] = open_socket.rx.read(k);
            #[expect(clippy::cast_possible_truncation, reason = "the length is the lower half of the word")]
            let len = len_and_options as u32;
            match pool.receive(address, len, place) {
                Some(packet) => {
                    self.stats.rx_bytes += u64::from(len);
                    received += 1;
                    if let Err(packet) = burst.push(packet, *meta) {
                        pool.put(packet);
                    }
                }
                None => self.stats.rx_bad_descriptors += 1,
            }
        }
        if count != 0 {
            open_socket.rx.release(count);
            self.stats.rx_packets += received as u64;
        }
        received
    }

    fn tx_burst(&mut self, pool: &mut FramePool, burst: &mut Burst) -> usize {
        let (Some(open_socket), Some(place)) = (self.open_socket.as_mut(), self.place) else { return 0 };
        let want = u32::try_from(burst.len()).unwrap_or(0);
        let Ok(count) = open_socket.tx.reserve(want) else {
            self.give_up();
            return 0;
        };
        self.stats.tx_full += u64::from(want - count);
        let (mut written, mut left) = (0, count);
        take_front(burst, count as usize, |packet| {
            left -= 1;
            // The kernel refuses an empty descriptor and never completes it: its frame would be lost.
            if packet.is_empty() {
                pool.put(packet);
                return;
            }
            if let Some((address, len)) = pool.lend(packet, place) {
                open_socket.tx.write(written, [address, u64::from(len)]);
                written += 1;
                self.stats.tx_bytes += u64::from(len);
            }
        });
        open_socket.tx.commit(written);
        self.stats.tx_packets += u64::from(written);
        (count - left) as usize
    }

    fn reclaim(&mut self, pool: &mut FramePool) -> usize {
        let Some(open_socket) = self.open_socket.as_mut() else { return 0 };
        if self.place.is_none() {
            self.place = pool.open_place();
        }
        let Some(place) = self.place else { return 0 };
        let least = FILL_MIN.min(self.config.rings.fill);
        let done = take_completed(open_socket, pool, place)
            .and_then(|done| fill(open_socket, pool, place, least).map(|()| done));
        if done.is_err() {
            self.give_up();
        }
        done.unwrap_or(0)
    }

    fn kick(&mut self) {
        for _ in 0..SENDS_PER_KICK {
            let Some(open_socket) = &self.open_socket else { return };
            if !open_socket.tx.needs_wakeup() || open_socket.tx.outstanding().unwrap_or(0) == 0 {
                break;
            }
            let result = rustix::net::send(&*open_socket.fd, &[], SendFlags::DONTWAIT).map(|_| ());
            self.note_send(result);
            // More than one budget is queued.
            if result != Err(Errno::AGAIN) {
                break;
            }
        }
        let Some(open_socket) = &self.open_socket else { return };
        let zero_copy = self.effective.copy_mode == CopyMode::ZeroCopy;
        if self.effective.busy_poll || (zero_copy && open_socket.fill.needs_wakeup()) {
            self.stats.kicks += 1;
            let mut nothing = [0_u8; 0];
            // The answer is of no interest: packets show in the ring.
            let _ = rustix::net::recv(&*open_socket.fd, &mut nothing, RecvFlags::DONTWAIT);
        }
    }

    fn state(&self) -> PortState {
        self.state
    }

    fn info(&self) -> PortInfo {
        let napi_id = self
            .open_socket
            .as_ref()
            .map(|open_socket| syscall::get(&*open_socket.fd, IntOption::IncomingNapiId).unwrap_or(0));
        let asked_us = self.config.busy_poll.map_or(0, |poll| poll.usecs);
        let (got_us, reason) = match (self.effective.busy_poll, napi_id) {
            (false, _) if asked_us != 0 => (0, "the kernel refused the socket options"),
            (true, Some(0) | None) => (0, "the NAPI id is 0: this driver does not poll from sockets"),
            (true, Some(_)) => (asked_us, ""),
            (false, _) => (0, ""),
        };
        PortInfo {
            name: self.config.name.clone(),
            kind: "af_xdp",
            queue: self.config.queue.0,
            copy_mode: Some(Requested {
                requested: self.config.mode,
                effective: self.effective.copy_mode,
                reason: self.effective.reason.clone(),
            }),
            napi_id,
            busy_poll_us: Some(Requested {
                requested: asked_us,
                effective: got_us,
                reason: reason.to_owned(),
            }),
            tx_budget: Some(Requested {
                requested: self.config.tx_budget,
                effective: self.effective.tx_budget,
                reason: String::new(),
            }),
            need_wakeup: true,
            shared_umem: self.effective.shared_umem,
            rings: Some(self.config.rings),
        }
    }

    fn stats(&self) -> PortStats {
        let mut stats = self.stats;
        if let Some(xsk) = self
            .open_socket
            .as_ref()
            .and_then(|open_socket| net_option::xdp_statistics(&*open_socket.fd).ok())
        {
            stats.xsk_rx_dropped = xsk.rx_dropped;
            stats.xsk_rx_invalid_descs = xsk.rx_invalid_descs;
            stats.xsk_tx_invalid_descs = xsk.tx_invalid_descs;
            stats.xsk_rx_ring_full = xsk.rx_ring_full.unwrap_or(0);
            stats.xsk_rx_fill_ring_empty = xsk.rx_fill_ring_empty_descs.unwrap_or(0);
            stats.xsk_tx_ring_empty = xsk.tx_ring_empty_descs.unwrap_or(0);
        }
        stats
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket()
    }

    fn close(&mut self, pool: &mut FramePool) {
        self.stats = self.stats();
        self.state = PortState::Dead;
        // First the socket, so that the kernel lets go of the frames; then the frames.
        self.open_socket = None;
        if let Some(place) = self.place.take() {
            pool.close_place(place);
        }
    }
}

/// Takes the first `count` packets out of `burst`, in order; the others move up.
pub(crate) fn take_front(burst: &mut Burst, count: usize, mut sink: impl FnMut(pollux_packet::Packet)) {
    if count >= burst.len() {
        burst.drain().for_each(|(packet, _)| sink(packet));
        return;
    }
    let mut old = core::mem::take(burst);
    for (k, (packet, meta)) in old.drain().enumerate() {
        if k < count {
            sink(packet);
        } else if let Err(packet) = burst.push(packet, meta) {
            sink(packet);
        }
    }
}

fn take_completed(
    open_socket: &mut OpenSocket,
    pool: &mut FramePool,
    place: FrameLocation,
) -> Result<usize, CursorError> {
    let mut done = 0;
    loop {
        let count = open_socket.completion.available(BATCH)?;
        if count == 0 {
            return Ok(done);
        }
        for k in 0..count {
            let [address] = open_socket.completion.read(k);
            done += usize::from(pool.complete(address, place));
        }
        open_socket.completion.release(count);
    }
}

/// Gives free frames to the fill ring, at `least` so many at a time, but never the last few of the pool.
fn fill(
    open_socket: &mut OpenSocket,
    pool: &mut FramePool,
    place: FrameLocation,
    least: u32,
) -> Result<(), CursorError> {
    loop {
        let spare = pool.ledger().free.saturating_sub(RESERVE);
        let count = open_socket.fill.reserve(spare.min(BATCH))?;
        if count < least {
            return Ok(());
        }
        let mut written = 0;
        for _ in 0..count {
            let Some(address) = pool.lend_free(place) else { break };
            open_socket.fill.write(written, [address]);
            written += 1;
        }
        open_socket.fill.commit(written);
    }
}

/// Binds, and waits for the queue where an earlier socket was closed a moment ago: the kernel lets go of it
/// in a work item of its own.
fn bind_patiently(umem: &Umem, config: &XskConfig, mode: CopyMode) -> Result<(OpenSocket, bool), XskError> {
    let mut lender = umem.living_socket(mode);
    for _ in 0..BIND_TRIES {
        match bind(umem, config, mode, lender.as_deref()) {
            Err(error) if error.source == Errno::BUSY => std::thread::sleep(BIND_PAUSE),
            // The lender's device has just gone; or the lender has this very queue, which binding alone
            // will call busy.
            Err(error) if lender.is_some() && matches!(error.source, Errno::BADF | Errno::INVAL) => {
                lender = None;
            }
            other => return other.map(|open_socket| (open_socket, lender.is_some())),
        }
    }
    bind(umem, config, mode, lender.as_deref()).map(|open_socket| (open_socket, lender.is_some()))
}

fn bind(
    umem: &Umem,
    config: &XskConfig,
    mode: CopyMode,
    lender: Option<&OwnedFd>,
) -> Result<OpenSocket, XskError> {
    let error = |what| failure(config, what);
    let RingSizes { rx, tx, fill, completion } = config.rings;
    let family = AddressFamily::XDP;
    let fd = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .map_err(error("creating"))?;
    if lender.is_none() {
        let (addr, len) = umem.area();
        let chunk_size = umem.info().frame_len;
        let flags = XdpUmemRegFlags::empty();
        let registration = XdpUmemReg { addr, len, chunk_size, headroom: 0, flags, tx_metadata_len: 0 };
        net_option::set_xdp_umem_reg(&fd, registration).map_err(error("registering the UMEM"))?;
    }
    net_option::set_xdp_umem_fill_ring_size(&fd, fill).map_err(error("sizing the fill ring"))?;
    net_option::set_xdp_umem_completion_ring_size(&fd, completion)
        .map_err(error("sizing the completion ring"))?;
    net_option::set_xdp_rx_ring_size(&fd, rx).map_err(error("sizing the receive ring"))?;
    net_option::set_xdp_tx_ring_size(&fd, tx).map_err(error("sizing the transmit ring"))?;
    let offsets = net_option::xdp_mmap_offsets(&fd).map_err(error("asking for ring offsets"))?;
    let map = |offsets: &XdpRingOffset, slots: u32, slot_len: usize, page_offset: u64| {
        let len = usize::try_from(offsets.desc).unwrap_or(0) + slots as usize * slot_len;
        Mapping::new(&fd, len, page_offset, true).map_err(error("mapping a ring"))
    };
    let misplaced = || error("finding a ring in its mapping")(Errno::PROTO);
    let open_socket = OpenSocket {
        rx: ConsumerRing::new(map(&offsets.rx, rx, 16, XDP_PGOFF_RX_RING)?, &offsets.rx, rx)
            .ok_or_else(misplaced)?,
        tx: ProducerRing::new(map(&offsets.tx, tx, 16, XDP_PGOFF_TX_RING)?, &offsets.tx, tx)
            .ok_or_else(misplaced)?,
        fill: ProducerRing::new(map(&offsets.fr, fill, 8, XDP_UMEM_PGOFF_FILL_RING)?, &offsets.fr, fill)
            .ok_or_else(misplaced)?,
        completion: ConsumerRing::new(
            map(&offsets.cr, completion, 8, XDP_UMEM_PGOFF_COMPLETION_RING)?,
            &offsets.cr,
            completion,
        )
        .ok_or_else(misplaced)?,
        fd: Arc::new(fd),
    };
    let flags = match (lender, mode) {
        // Any other flag beside this one is EINVAL; mode and wake-up are the lender's.
        (Some(_), _) => SocketAddrXdpFlags::XDP_SHARED_UMEM,
        (None, CopyMode::Copy) => SocketAddrXdpFlags::XDP_COPY | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP,
        (None, CopyMode::ZeroCopy) => {
            SocketAddrXdpFlags::XDP_ZEROCOPY | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP
        }
    };
    let addr = SocketAddrXdp::new(flags, config.ifindex.0, config.queue.0);
    match lender {
        Some(lender) => {
            let addr = SocketAddrXdpWithSharedUmem { addr, shared_umem_fd: lender.as_fd() };
            rustix::net::bind(&*open_socket.fd, &addr)
        }
        None => rustix::net::bind(&*open_socket.fd, &addr),
    }
    .map_err(error("binding"))?;
    Ok(open_socket)
}

fn failure(config: &XskConfig, what: &'static str) -> impl Fn(Errno) -> XskError + use<> {
    let (name, queue) = (config.name.clone(), config.queue.0);
    move |source| XskError { name: name.clone(), queue, what, source }
}

/// Descriptors handled between two looks at an index.
const BATCH: u32 = 64;
/// Fewer are not worth touching the kernel's cache line for.
const FILL_MIN: u32 = 16;
/// Frames that no fill ring takes, so that a worker can always make a packet of its own.
const RESERVE: u32 = 64;
/// One call moves 32 descriptors where the budget cannot be raised: these move a burst per port and round.
const SENDS_PER_KICK: u32 = 8;
/// `TX_BATCH_SIZE` of the kernel.
const TX_BUDGET_DEFAULT: u32 = 32;
const BIND_TRIES: u32 = 50;
const BIND_PAUSE: Duration = Duration::from_millis(20);
