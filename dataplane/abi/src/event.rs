//! What the data plane tells control, and its form in a ring slot.

use core::net::IpAddr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::command::CommandError;
use crate::ids::{PolicyId, SaId, Spi, Ticket};
use crate::layout::EVENT_SLOT_LEN;
use crate::wire::{Reader, Writer};

/// Which limit of an SA was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LimitKind {
    /// Octets.
    Bytes = 1,
    /// Packets.
    Packets = 2,
    /// Sequence numbers.
    Sequence = 3,
    /// Age.
    Age = 4,
}

/// What of the data plane's own another program had taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LostThing {
    /// Policy routing rules.
    Rules = 1,
    /// Routes of our tables.
    Routes = 2,
    /// The XDP program of a port.
    XdpProgram = 3,
    /// A program of the guard at the exit.
    Guard = 4,
    /// `pollux0`, or that it is up.
    HostPort = 5,
    /// Settings of `pollux0`.
    Settings = 6,
}

impl LostThing {
    /// The words for the operator.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Rules => "routing rules (ip rule)",
            Self::Routes => "routes of our tables",
            Self::XdpProgram => "the XDP program of a port",
            Self::Guard => "a program of the guard",
            Self::HostPort => "pollux0",
            Self::Settings => "settings of pollux0",
        }
    }

    const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Rules,
            2 => Self::Routes,
            3 => Self::XdpProgram,
            4 => Self::Guard,
            5 => Self::HostPort,
            6 => Self::Settings,
            _ => return None,
        })
    }
}

/// A snapshot of an SA's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaStats {
    /// Packets sealed, or opened and authenticated.
    pub packets: u64,
    /// Octets of inner packets.
    pub bytes: u64,
    /// Nanoseconds since the last packet; `u64::MAX` before the first.
    pub idle_ns: u64,
    /// Highest sequence number sent or authenticated.
    pub highest_seq: u64,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A command was carried out, or why not. `value` is what the command returns: the counter-file slot.
    Ack {
        /// The command's ticket.
        ticket: Ticket,
        /// What became of it.
        result: Result<u32, CommandError>,
    },
    /// Answer to a query.
    SaStats {
        /// The query's ticket.
        ticket: Ticket,
        /// The counters.
        stats: SaStats,
    },
    /// An SA reached a soft or hard limit.
    Lifetime {
        /// The SA.
        sa: SaId,
        /// Hard limit: the SA has stopped.
        hard: bool,
        /// Which limit.
        limit: LimitKind,
    },
    /// The first packet authenticated under an inbound SA: the peer has the SA and uses it.
    FirstPacket {
        /// The SA.
        sa: SaId,
    },
    /// Many replayed or too old packets in a short time.
    ReplayBurst {
        /// The SA.
        sa: SaId,
        /// How many since the last such event.
        count: u32,
    },
    /// ESP with an SPI that nobody here has. Rate-limited.
    UnknownSpi {
        /// The SPI as it came, reserved values included.
        spi: u32,
        /// Outer source.
        source: IpAddr,
        /// How many since the last such event.
        count: u32,
    },
    /// A policy protects a packet, and there is no SA for it. Rate-limited.
    WantedSa {
        /// The policy.
        policy: PolicyId,
        /// Inner source.
        source: IpAddr,
        /// Inner destination.
        destination: IpAddr,
        /// Inner protocol.
        protocol: u8,
        /// Inner source port.
        source_port: u16,
        /// Inner destination port.
        destination_port: u16,
    },
    /// An authenticated packet came from another outer address or port than the SA's remote.
    PeerMoved {
        /// The SA.
        sa: SaId,
        /// New outer source.
        source: IpAddr,
        /// New outer source port; 0 without UDP encapsulation.
        port: u16,
    },
    /// Another program had removed something of ours; it is back.
    Restored {
        /// What.
        what: LostThing,
        /// How many.
        count: u32,
    },
}

/// An event as it lies in a ring.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct EventSlot {
    bytes: [u8; EVENT_SLOT_LEN],
}

impl EventSlot {
    /// A slot of zeros, which decodes to nothing.
    pub const fn zeroed() -> Self {
        Self { bytes: [0; EVENT_SLOT_LEN] }
    }
}

const ACK: u8 = 1;
const SA_STATS: u8 = 2;
const LIFETIME: u8 = 3;
const FIRST_PACKET: u8 = 4;
const REPLAY_BURST: u8 = 5;
const UNKNOWN_SPI: u8 = 6;
const WANTED_SA: u8 = 7;
const PEER_MOVED: u8 = 8;
const RESTORED: u8 = 9;

impl Event {
    /// The slot for this event.
    pub fn encode(&self) -> EventSlot {
        let mut slot = EventSlot::zeroed();
        let mut w = Writer::new(&mut slot.bytes);
        match *self {
            Self::Ack { ticket, result } => {
                w.u8(ACK);
                w.u64(ticket.0);
                w.u16(result.map_or_else(CommandError::code, |_| 0));
                w.u32(result.unwrap_or_default());
            }
            Self::SaStats { ticket, stats } => {
                w.u8(SA_STATS);
                for value in [ticket.0, stats.packets, stats.bytes, stats.idle_ns, stats.highest_seq] {
                    w.u64(value);
                }
            }
            Self::Lifetime { sa, hard, limit } => {
                w.u8(LIFETIME);
                w.u64(sa.0);
                w.put(&[u8::from(hard), limit as u8]);
            }
            Self::FirstPacket { sa } => {
                w.u8(FIRST_PACKET);
                w.u64(sa.0);
            }
            Self::ReplayBurst { sa, count } => {
                w.u8(REPLAY_BURST);
                w.u64(sa.0);
                w.u32(count);
            }
            Self::UnknownSpi { spi, source, count } => {
                w.u8(UNKNOWN_SPI);
                w.u32(spi);
                w.address(source);
                w.u32(count);
            }
            Self::WantedSa { policy, source, destination, protocol, source_port, destination_port } => {
                w.u8(WANTED_SA);
                w.u32(policy.0);
                w.address(source);
                w.address(destination);
                w.u8(protocol);
                w.u16(source_port);
                w.u16(destination_port);
            }
            Self::PeerMoved { sa, source, port } => {
                w.u8(PEER_MOVED);
                w.u64(sa.0);
                w.address(source);
                w.u16(port);
            }
            Self::Restored { what, count } => {
                w.u8(RESTORED);
                w.u8(what as u8);
                w.u32(count);
            }
        }
        slot
    }

    /// The event in `slot`, or `None` for a slot that no correct data plane writes.
    pub fn decode(slot: &EventSlot) -> Option<Self> {
        let mut r = Reader::new(&slot.bytes);
        Some(match r.u8()? {
            ACK => {
                let ticket = Ticket(r.u64()?);
                let (code, value) = (r.u16()?, r.u32()?);
                let result = if code == 0 { Ok(value) } else { Err(CommandError::from_code(code)?) };
                Self::Ack { ticket, result }
            }
            SA_STATS => Self::SaStats {
                ticket: Ticket(r.u64()?),
                stats: SaStats {
                    packets: r.u64()?,
                    bytes: r.u64()?,
                    idle_ns: r.u64()?,
                    highest_seq: r.u64()?,
                },
            },
            LIFETIME => {
                let (sa, hard) = (r.sa_id()?, r.u8()? == 1);
                let limit = match r.u8()? {
                    1 => LimitKind::Bytes,
                    2 => LimitKind::Packets,
                    3 => LimitKind::Sequence,
                    4 => LimitKind::Age,
                    _ => return None,
                };
                Self::Lifetime { sa, hard, limit }
            }
            FIRST_PACKET => Self::FirstPacket { sa: r.sa_id()? },
            REPLAY_BURST => Self::ReplayBurst { sa: r.sa_id()?, count: r.u32()? },
            UNKNOWN_SPI => Self::UnknownSpi { spi: r.u32()?, source: r.address()?, count: r.u32()? },
            WANTED_SA => Self::WantedSa {
                policy: PolicyId(r.u32()?),
                source: r.address()?,
                destination: r.address()?,
                protocol: r.u8()?,
                source_port: r.u16()?,
                destination_port: r.u16()?,
            },
            PEER_MOVED => Self::PeerMoved { sa: r.sa_id()?, source: r.address()?, port: r.u16()? },
            RESTORED => Self::Restored { what: LostThing::from_u8(r.u8()?)?, count: r.u32()? },
            _ => return None,
        })
    }

    /// The SPI of an [`Event::UnknownSpi`], where it is not a reserved value.
    pub const fn unknown_spi(&self) -> Option<Spi> {
        match self {
            Self::UnknownSpi { spi, .. } => Spi::new(*spi),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_event_survives_the_slot() {
        let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
        let v4: IpAddr = Ipv4Addr::LOCALHOST.into();
        let stats = SaStats { packets: 1, bytes: 2, idle_ns: u64::MAX, highest_seq: 4 };
        for event in [
            Event::Ack { ticket: Ticket(1), result: Ok(7) },
            Event::Ack { ticket: Ticket(2), result: Err(CommandError::Full) },
            Event::SaStats { ticket: Ticket(3), stats },
            Event::Lifetime { sa: SaId(4), hard: true, limit: LimitKind::Sequence },
            Event::FirstPacket { sa: SaId(5) },
            Event::ReplayBurst { sa: SaId(6), count: 9 },
            Event::UnknownSpi { spi: 3, source: v6, count: 1 },
            Event::WantedSa {
                policy: PolicyId(1),
                source: v6,
                destination: v4,
                protocol: 17,
                source_port: 1,
                destination_port: 2,
            },
            Event::PeerMoved { sa: SaId(1), source: v4, port: 4500 },
        ] {
            assert_eq!(Event::decode(&event.encode()), Some(event));
        }
        assert_eq!(Event::decode(&EventSlot::zeroed()), None);
    }

    proptest! {
        #[test]
        fn random_slots_never_panic(bytes in proptest::collection::vec(any::<u8>(), EVENT_SLOT_LEN)) {
            let mut slot = EventSlot::zeroed();
            slot.bytes.copy_from_slice(&bytes);
            let _ = Event::decode(&slot);
        }
    }
}
