//! What control asks of the data plane, and its form in a ring slot.
//!
//! SA commands go to the owner's ring (with keys), to the housekeeper's ring (with keys, which it
//! keeps as fingerprints only) and, as [`Command::SaRoute`], to every worker that may receive packets
//! of the SA and has to hand them over. Policies go to the housekeeper alone: it compiles one copy
//! for each worker, because compiling allocates and a worker does not.

use core::net::IpAddr;

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
use zeroize::Zeroize;

use crate::dscp::{DfMark, DscpMark, EcnMode};
use crate::ids::{PolicyId, Reqid, SaId, SaIndex, Spi, Ticket, WorkerId};
use crate::key::KeyMaterial;
use crate::layout::COMMAND_SLOT_LEN;
use crate::selector::{SelectorPair, Selectors};
use crate::suite::EspSuite;

mod wire;

/// Which way an SA or policy works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Packets that arrive under ESP.
    Inbound,
    /// Packets that leave under ESP.
    Outbound,
}

/// UDP ports of ESP-in-UDP (RFC 3948), ours and the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EncapPorts {
    /// Our port, 4500 as a rule.
    pub local: u16,
    /// The peer's port; inbound any source port is accepted for a known SPI.
    pub remote: u16,
}

/// Limits of an SA; 0 is no limit. The data plane enforces them, whether there is a control process or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// An event at so many octets.
    pub soft_bytes: u64,
    /// The SA stops at so many octets.
    pub hard_bytes: u64,
    /// An event at so many packets.
    pub soft_packets: u64,
    /// The SA stops at so many packets.
    pub hard_packets: u64,
    /// An event at so many seconds of age.
    pub soft_age: u32,
    /// The SA stops at so many seconds of age. A manual SA's age counts over all lives of the process.
    pub hard_age: u32,
}

/// [`SaSpec::checkpoint`] of a manual SA on its way to the housekeeper: "find or make its slot".
pub const CHECKPOINT_WANTED: u32 = u32::MAX - 1;

/// All there is to say of an SA but its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaSpec {
    /// Control's name for the SA.
    pub id: SaId,
    /// Inbound or outbound.
    pub direction: Direction,
    /// Its place in the table of its direction, on every worker.
    pub index: SaIndex,
    /// SPI.
    pub spi: Spi,
    /// Cipher and ICV.
    pub suite: EspSuite,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Replay window in packets, 32 to 65,536, or 0 for none; unused outbound.
    pub window_packets: u32,
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// UDP encapsulation.
    pub encap: Option<EncapPorts>,
    /// Ties the SA to policies.
    pub reqid: Reqid,
    /// The one worker that holds the keys.
    pub owner: WorkerId,
    /// Outer DSCP (outbound).
    pub dscp: DscpMark,
    /// ECN across the tunnel.
    pub ecn: EcnMode,
    /// Outer DF (outbound, IPv4).
    pub df: DfMark,
    /// Limits.
    pub lifetimes: Lifetimes,
    /// First outbound sequence number, at least 1; inbound the highest number already seen, or 0.
    pub seq_start: u64,
    /// First IV of an outbound SA. Negotiated keys: equal to `seq_start`. Manual keys: drawn at random.
    pub iv_start: u64,
    /// Slot of the counter file (manual SAs only). To the housekeeper control says
    /// [`CHECKPOINT_WANTED`]; its acknowledgement's value is the slot that the owner is told, and the
    /// owner continues from what the slot holds where that is beyond `seq_start`.
    pub checkpoint: Option<u32>,
    /// Our side of the traffic.
    pub local_ts: Selectors,
    /// The peer's side of the traffic.
    pub remote_ts: Selectors,
}

/// Replay windows that an inbound SA may have, in packets.
pub const WINDOW_PACKETS: core::ops::RangeInclusive<u32> = 32..=65_536;

impl SaSpec {
    /// Whether there is such a replay window. Without one, the upper half of extended sequence numbers can't be told
    /// (RFC 4303 §3.4.3, appendix A2).
    pub fn has_sound_window(&self) -> bool {
        WINDOW_PACKETS.contains(&self.window_packets) || (self.window_packets == 0 && !self.esn)
    }
}

/// What a worker that does not own an SA knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaRoute {
    /// The SA.
    pub id: SaId,
    /// Inbound or outbound.
    pub direction: Direction,
    /// Its place in the table.
    pub index: SaIndex,
    /// SPI.
    pub spi: Spi,
    /// Ties the SA to policies.
    pub reqid: Reqid,
    /// Where its packets go.
    pub owner: WorkerId,
    /// Our side of the traffic.
    pub local_ts: Selectors,
    /// The peer's side of the traffic.
    pub remote_ts: Selectors,
}

/// What happens to packets that a policy matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyAction {
    /// ESP under an SA with this reqid.
    Protect(Reqid),
    /// In clear.
    Bypass,
    /// Dropped.
    Discard,
}

impl PolicyAction {
    /// The reqid of the SAs that protect, where that is what the policy says.
    pub const fn reqid(self) -> Option<Reqid> {
        match self {
            Self::Protect(reqid) => Some(reqid),
            Self::Bypass | Self::Discard => None,
        }
    }
}

/// One entry of the Security Policy Database (RFC 4301 §4.4.1). Order is the order of adding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicySpec {
    /// Control's name for it.
    pub id: PolicyId,
    /// Which traffic it is about.
    pub direction: Direction,
    /// Which packets.
    pub selectors: SelectorPair,
    /// What to do.
    pub action: PolicyAction,
}

/// One command. Every command is acknowledged by [`crate::Event::Ack`] with its ticket.
#[derive(Debug)]
pub enum Command {
    /// Installs an SA. The newest outbound SA of a reqid is the one that is used.
    SaAdd(SaSpec, KeyMaterial),
    /// Gives an installed SA other outer addresses or marks, and other keys where there are some: without, it keeps those
    /// that it has, with their slot of the counter file. Counters and window go on.
    SaReplace(SaSpec, Option<KeyMaterial>),
    /// Tells a worker who owns an SA.
    SaRoute(SaRoute),
    /// Removes an SA from a worker's tables.
    SaDelete(SaId),
    /// Asks for an SA's counters ([`crate::Event::SaStats`]); housekeeper only.
    SaQuery(SaId),
    /// Starts a new policy list; the old one stays in force until the commit. Housekeeper only.
    PolicyBegin,
    /// Appends to the new list. Housekeeper only.
    PolicyAdd(PolicySpec),
    /// Puts the new list in force everywhere. Housekeeper only.
    PolicyCommit,
    /// Does nothing but acknowledge: all earlier commands of this ring have been carried out.
    Barrier,
}

/// Why a command was refused. The number goes into the acknowledgement.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[repr(u16)]
pub enum CommandError {
    /// The slot's kind is unknown or not for this ring.
    #[error("the command's kind is unknown, or not for this ring")]
    Kind = 1,
    /// A field has a value that it cannot have.
    #[error("a field of the command has a value that it cannot have")]
    Field = 2,
    /// Keys of the wrong length.
    #[error("the key material's length does not fit the suite")]
    KeyLength = 3,
    /// The index is taken, resting or beyond the table.
    #[error("the table index is taken, resting or beyond the table")]
    Index = 4,
    /// Another SA has this SPI.
    #[error("another inbound SA has this SPI")]
    SpiInUse = 5,
    /// No such SA or policy.
    #[error("no such SA")]
    Unknown = 6,
    /// A table is full.
    #[error("the table is full")]
    Full = 7,
    /// The owner is no worker of this data plane.
    #[error("the owner is no worker of this data plane")]
    Owner = 8,
    /// A system call failed while putting the command into force (housekeeper).
    #[error("the kernel refused a part of it; the data plane's log says which")]
    Kernel = 9,
    /// The suite is not available in this build or on this CPU.
    #[error("the data plane does not do this suite")]
    Suite = 10,
}

impl CommandError {
    /// The number in an acknowledgement.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The error with this number.
    pub const fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            1 => Self::Kind,
            2 => Self::Field,
            3 => Self::KeyLength,
            4 => Self::Index,
            5 => Self::SpiInUse,
            6 => Self::Unknown,
            7 => Self::Full,
            8 => Self::Owner,
            9 => Self::Kernel,
            10 => Self::Suite,
            _ => return None,
        })
    }
}

/// A command as it lies in a ring. Copy it out, then [`Command::decode`]; wiped when dropped.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct CommandSlot {
    bytes: [u8; COMMAND_SLOT_LEN],
}

impl CommandSlot {
    /// A slot of zeros, which decodes to an error.
    pub const fn zeroed() -> Self {
        Self { bytes: [0; COMMAND_SLOT_LEN] }
    }
}

impl Drop for CommandSlot {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl Command {
    /// Whether keys came with it.
    pub const fn has_keys(&self) -> bool {
        matches!(self, Self::SaAdd(..) | Self::SaReplace(_, Some(_)))
    }

    /// The slot for this command.
    pub fn encode(&self, ticket: Ticket) -> CommandSlot {
        let mut slot = CommandSlot::zeroed();
        wire::encode(self, ticket, &mut slot.bytes);
        slot
    }

    /// The command in `slot`, every field checked. The ticket is returned even where the rest is wrong.
    pub fn decode(slot: &CommandSlot) -> (Ticket, Result<Self, CommandError>) {
        wire::decode(&slot.bytes)
    }
}

#[cfg(test)]
mod tests;
