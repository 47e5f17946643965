//! The trait that every port has, and what a port tells of itself.

use core::fmt;
use std::os::fd::BorrowedFd;

use pollux_packet::{Burst, Meta};

use crate::xsk::frames::FramePool;
use crate::xsk::options::{ModeChoice, RingSizes};

/// A place that bursts come from and go to. One worker owns it and lends it its pool at each call.
///
/// A round is: `rx_burst` on each port, the stages, `tx_burst` as often as there is something for the
/// port, then one `kick` and one `reclaim`.
pub trait Port {
    /// Appends received packets to `burst`, as many as it has room for; returns how many. Each gets a copy
    /// of `meta`.
    fn rx_burst(&mut self, pool: &mut FramePool, meta: &Meta, burst: &mut Burst) -> usize;

    /// Queues packets from the front of `burst`, in order; returns how many. What finds no place stays in
    /// `burst`. Nothing leaves before [`Self::kick`].
    fn tx_burst(&mut self, pool: &mut FramePool, burst: &mut Burst) -> usize;

    /// Takes back frames whose packets have left, and gives the port frames to receive into; returns how
    /// many were taken back.
    fn reclaim(&mut self, pool: &mut FramePool) -> usize;

    /// Makes the port send what is queued and receive where it needs telling. At most a few system calls.
    fn kick(&mut self);

    /// Whether packets can be sent.
    fn state(&self) -> PortState;

    /// What was asked for and what was got.
    fn info(&self) -> PortInfo;

    /// Counters since the port was made. May be a system call.
    fn stats(&self) -> PortStats;

    /// A descriptor that becomes readable when packets wait, for a worker that blocks. That of a device
    /// which is gone is in error at all times: leave it out of the set unless the port is up.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Gives every frame back to `pool` and closes the port; it receives and sends nothing afterwards.
    fn close(&mut self, pool: &mut FramePool);
}

/// Whether packets can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// They can.
    Up,
    /// The device is down or gone: drop what is for it. A device that comes back under the same interface
    /// index makes the port [`PortState::Up`] again at the next successful kick.
    Down,
    /// Closed, or its rings made no sense any more: close it and make a new one.
    Dead,
}

/// Whether the kernel copies between UMEM and device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMode {
    /// It copies.
    Copy,
    /// The device reads and writes the UMEM.
    ZeroCopy,
}

impl fmt::Display for CopyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Copy => "copy",
            Self::ZeroCopy => "zero-copy",
        })
    }
}

/// A thing that was asked for beside the thing that was got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested<W, G> {
    /// What was requested.
    pub requested: W,
    /// What is in effect.
    pub effective: G,
    /// Why it is not the same; empty where it is.
    pub reason: String,
}

/// What a port is, for people and for `ports --json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// The interface's name, or the file's.
    pub name: String,
    /// `af_xdp`, `memory`, `pcap`, …
    pub kind: &'static str,
    /// Device queue.
    pub queue: u32,
    /// Zero-copy or copy (AF_XDP only).
    pub copy_mode: Option<Requested<ModeChoice, CopyMode>>,
    /// NAPI id of the queue; 0 where the device has none or no packet has come yet (AF_XDP only).
    pub napi_id: Option<u32>,
    /// Socket busy-polling, in microseconds; `got` is 0 where it has no effect (AF_XDP only).
    pub busy_poll_us: Option<Requested<u32, u32>>,
    /// Descriptors that one copy-mode system call sends; the kernel's 32 where it cannot be set.
    pub tx_budget: Option<Requested<u32, u32>>,
    /// Whether the kernel says when it wants to be woken.
    pub need_wakeup: bool,
    /// Whether this socket uses the UMEM that an earlier one registered.
    pub shared_umem: bool,
    /// Slots in the four rings (AF_XDP only).
    pub rings: Option<RingSizes>,
}

impl PortInfo {
    /// A port that is no AF_XDP socket.
    pub(crate) fn plain(name: String, kind: &'static str) -> Self {
        Self {
            name,
            kind,
            queue: 0,
            copy_mode: None,
            napi_id: None,
            busy_poll_us: None,
            tx_budget: None,
            need_wakeup: false,
            shared_umem: false,
            rings: None,
        }
    }
}

impl fmt::Display for PortInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} queue {}: {}", self.name, self.queue, self.kind)?;
        if let Some(mode) = &self.copy_mode {
            write!(f, ", {} (requested: {})", mode.effective, mode.requested)?;
            if !mode.reason.is_empty() {
                write!(f, " because {}", mode.reason)?;
            }
        }
        if let Some(napi) = self.napi_id {
            write!(f, ", NAPI id {napi}")?;
        }
        if let Some(busy) = &self.busy_poll_us
            && busy.requested != 0
        {
            write!(f, ", busy-poll {} µs (requested: {} µs)", busy.effective, busy.requested)?;
            if !busy.reason.is_empty() {
                write!(f, " because {}", busy.reason)?;
            }
        }
        if let Some(budget) = &self.tx_budget {
            write!(f, ", {} descriptors per send (requested: {})", budget.effective, budget.requested)?;
        }
        if let Some(rings) = &self.rings {
            write!(
                f,
                ", rings rx {} tx {} fill {} completion {}",
                rings.rx, rings.tx, rings.fill, rings.completion
            )?;
        }
        if self.shared_umem {
            f.write_str(", shared UMEM")?;
        }
        Ok(())
    }
}

/// Counters of a port. Those with `xsk_` come from the kernel's statistics of the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Octets received.
    pub rx_bytes: u64,
    /// Packets queued for sending.
    pub tx_packets: u64,
    /// Octets queued for sending.
    pub tx_bytes: u64,
    /// Packets that found the transmit ring full.
    pub tx_full: u64,
    /// Descriptors from the kernel that named no frame of ours.
    pub rx_bad_descriptors: u64,
    /// System calls to send or to wake.
    pub kicks: u64,
    /// Those that failed for another reason than a busy device.
    pub kick_errors: u64,
    /// Dropped by the kernel for another reason than the next ones.
    pub xsk_rx_dropped: u64,
    /// Dropped by the kernel because a descriptor of the fill ring was invalid.
    pub xsk_rx_invalid_descs: u64,
    /// Dropped by the kernel because the receive ring was full.
    pub xsk_rx_ring_full: u64,
    /// Times the kernel found no frame to receive into: the worker had stalled, or the pool is too small.
    pub xsk_rx_fill_ring_empty: u64,
    /// Descriptors to send that the kernel refused.
    pub xsk_tx_invalid_descs: u64,
    /// Times the kernel found nothing to send.
    pub xsk_tx_ring_empty: u64,
}
