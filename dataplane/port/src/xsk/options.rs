//! What a socket is asked to be.

use core::fmt;

use pollux_abi::{IfIndex, QueueId};

/// Whether the device shall reach into the UMEM itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModeChoice {
    /// Zero-copy where the device can, else copy.
    #[default]
    Auto,
    /// Zero-copy or nothing.
    ZeroCopy,
    /// Copy, also where the device could do without.
    Copy,
}

impl fmt::Display for ModeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
        })
    }
}

/// Slots in the four rings, each a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// Received and not yet fetched.
    pub rx: u32,
    /// To send.
    pub tx: u32,
    /// Frames to receive into.
    pub fill: u32,
    /// Frames that have been sent.
    pub completion: u32,
}

impl Default for RingSizes {
    /// At 1 Mpps 2,048 slots are 2 ms of a worker's absence.
    fn default() -> Self {
        Self { rx: 2048, tx: 2048, fill: 2048, completion: 2048 }
    }
}

/// Polling of the device from within the socket's system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// Microseconds per receive.
    pub usecs: u32,
    /// Packets per poll.
    pub budget: u32,
}

/// All there is to say of a socket before it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XskConfig {
    /// The interface's name, for people.
    pub name: String,
    /// The interface, in the network namespace of the calling thread.
    pub ifindex: IfIndex,
    /// Its queue.
    pub queue: QueueId,
    /// Zero-copy or copy.
    pub mode: ModeChoice,
    /// Sizes of the rings.
    pub rings: RingSizes,
    /// Polling of the device by the socket. Off as a rule: it does nothing where the NAPI id is 0 (veth).
    pub busy_poll: Option<BusyPoll>,
    /// Descriptors that one copy-mode send takes.
    pub tx_budget: u32,
}

impl XskConfig {
    /// The defaults for one queue.
    pub fn new(name: &str, ifindex: IfIndex, queue: QueueId) -> Self {
        Self {
            name: name.to_owned(),
            ifindex,
            queue,
            mode: ModeChoice::Auto,
            rings: RingSizes::default(),
            busy_poll: None,
            tx_budget: 256,
        }
    }
}
