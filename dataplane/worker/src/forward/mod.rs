//! From destination to frame: next hop, neighbour, link-layer header.
//!
//! A direct-mapped cache from destination to header answers for nearly every packet; behind it stand the
//! forwarding table and the neighbour table. What has no resolved neighbour waits, bounded, while the
//! kernel asks for it.

pub mod fib;
pub mod neighbour;
mod waiting;

use std::net::IpAddr;

use pollux_abi::DropReason;
use pollux_esp::take_hop;
use pollux_packet::ethernet::{self, HEADER_LEN, Mac};
use pollux_packet::{Burst, Flow, IpVersion, Meta, Packet, PortSlot, Role, Verdict, hint};

use crate::ports::{PacketSink, PortEntry, host_slot};
use fib::{Fib, NextHop};
use neighbour::{NeighbourKey, NeighbourTable};
pub(crate) use waiting::Waiting;

/// Neighbours of one worker at most. As many as the kernel's own tables hold when their default limit
/// (`gc_thresh3` of 1,024) was raised sixteenfold.
pub const NEIGHBOURS_MAX: usize = 16_384;

/// Destinations in the cache; 64 octets each, a megabyte in all, of which only what is in use takes room in L2.
const CACHE_LEN: usize = 16_384;

/// After so long every cached destination is looked up anew, so that neighbours in use are confirmed.
const REFRESH_NS: u64 = 10_000_000_000;

/// The kernel is told of a neighbour in use no more often than this.
const USE_INTERVAL_NS: u64 = 5_000_000_000;

/// In [`Meta::port`]: the packet has to wait for its neighbour.
const WAITS: PortSlot = PortSlot(u8::MAX);

/// In [`Meta::port`]: the packet came out of a tunnel and would leave to the wan: policy decides first.
const AGAIN: PortSlot = PortSlot(u8::MAX - 1);

/// How a packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    slot: PortSlot,
    role: Role,
    mtu: u16,
    header: [u8; HEADER_LEN],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    Way(Way),
    Waits(NeighbourKey),
    Drop(DropReason),
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Cached {
    destination: u128,
    epoch: u32,
    version: IpVersion,
    way: Way,
}

const _: () = assert!(size_of::<Cached>() == 64, "one cache line for each destination");

/// What a packet is when it comes to be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Sealed by this worker: its outer header leaves by a port of ours or not at all.
    Sealed,
    /// It came out of a tunnel.
    Opened,
    /// It travels in clear, because a policy says so.
    Clear,
    /// It travels in clear and comes from the host stack.
    Own,
    /// An ICMP error of ours.
    Reply,
}

impl Kind {
    #[inline]
    const fn of(meta: &Meta) -> Self {
        match (meta.verdict, meta.role) {
            (Verdict::Reply(_), _) => Self::Reply,
            (Verdict::Forward, Role::Wan) => Self::Opened,
            (Verdict::Forward, Role::Lan | Role::Host) => Self::Sealed,
            (_, Role::Host) => Self::Own,
            (_, Role::Wan | Role::Lan) => Self::Clear,
        }
    }
}

/// Next hops, neighbours, and packets that wait for them.
pub struct Forwarder {
    fib: Box<Fib>,
    neighbours: NeighbourTable,
    cache: Box<[Cached]>,
    epoch: u32,
    refreshed_ns: u64,
    now_ns: u64,
    pub(crate) waiting: Waiting,
    in_use: arrayvec::ArrayVec<NeighbourKey, USES_MAX>,
}

/// Neighbours in use that can be told of in one round.
const USES_MAX: usize = 64;

impl Default for Forwarder {
    fn default() -> Self {
        let none = Way { slot: WAITS, role: Role::Wan, mtu: 0, header: [0; HEADER_LEN] };
        let empty = Cached { destination: 0, epoch: 0, version: IpVersion::V4, way: none };
        Self {
            fib: Box::new(Fib::compile(&[])),
            neighbours: NeighbourTable::new(NEIGHBOURS_MAX),
            cache: vec![empty; CACHE_LEN].into_boxed_slice(),
            epoch: 1,
            refreshed_ns: 0,
            now_ns: 0,
            waiting: Waiting::default(),
            in_use: arrayvec::ArrayVec::new(),
        }
    }
}

impl Forwarder {
    /// Takes the time of the round.
    pub(crate) fn begin(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        if now_ns.wrapping_sub(self.refreshed_ns) >= REFRESH_NS {
            self.refreshed_ns = now_ns;
            self.forget_ways();
        }
    }

    /// Puts other routes in force and gives back the old ones.
    #[expect(clippy::unnecessary_box_returns, reason = "the old box is freed by the housekeeper, not here")]
    pub(crate) fn install(&mut self, fib: Box<Fib>) -> Box<Fib> {
        self.forget_ways();
        core::mem::replace(&mut self.fib, fib)
    }

    /// Learns a neighbour; false where the table is full.
    pub(crate) fn learn(&mut self, key: NeighbourKey, mac: Mac) -> bool {
        self.forget_ways();
        self.neighbours.insert(key, mac)
    }

    /// Forgets a neighbour.
    pub(crate) fn forget(&mut self, key: &NeighbourKey) {
        self.forget_ways();
        self.neighbours.remove(key);
    }

    /// Forgets all neighbours behind a port.
    pub(crate) fn forget_port(&mut self, slot: PortSlot) {
        self.forget_ways();
        self.neighbours.remove_port(slot);
    }

    /// Empties the cache: a port, a route or a neighbour has changed.
    pub(crate) fn forget_ways(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Neighbours that the kernel is to be told of.
    pub(crate) fn take_in_use(&mut self) -> Option<NeighbourKey> {
        self.in_use.pop()
    }

    /// MTU of the port that leads to `destination`; `None` where none of ours does.
    pub(crate) fn path_mtu(&self, destination: IpAddr, ports: &[PortEntry]) -> Option<u16> {
        match self.fib.lookup(destination) {
            NextHop::OnLink(slot) | NextHop::Via(slot, _) => {
                ports.get(usize::from(slot.0)).map(|entry| entry.facts.mtu)
            }
            NextHop::Local | NextHop::Kernel | NextHop::Unreachable => None,
        }
    }

    /// Sends every packet of the burst on its way. What has to be asked about anew comes into `again`.
    pub(crate) fn forward(
        &mut self,
        burst: &mut Burst,
        ports: &mut [PortEntry],
        sink: &mut PacketSink<'_>,
        again: &mut Burst,
    ) {
        for meta in burst.metas() {
            hint::prefetch(&self.cache[cache_slot(meta.flow.destination_bits())]);
        }
        for (packet, meta) in burst.iter_mut() {
            self.direct(packet, meta, ports);
        }
        let Some(first) = burst.metas().first().map(|meta| meta.port) else { return };
        let is_sent = |meta: &Meta| meta.port == first && !matches!(meta.verdict, Verdict::Drop(_));
        if usize::from(first.0) < ports.len() && burst.metas().iter().all(is_sent) {
            note_host(&ports[usize::from(first.0)], burst.len(), sink);
            ports[usize::from(first.0)].send(burst, sink);
            return;
        }
        burst.take_dropped(|packet, reason| sink.drop(packet, reason));
        for (packet, mut meta) in burst.drain() {
            match meta.port {
                WAITS => self.wait(packet, meta, ports, sink),
                AGAIN => {
                    // What was forwarded loses a hop to the outbound half; what is ours does not.
                    meta.role = if Kind::of(&meta) == Kind::Reply { Role::Host } else { Role::Lan };
                    meta.verdict = Verdict::Pending;
                    if let Err(packet) = again.push(packet, meta) {
                        sink.drop(packet, DropReason::NoPolicy);
                    }
                }
                slot => {
                    if let Some(entry) = ports.get_mut(usize::from(slot.0)) {
                        note_host(entry, 1, sink);
                        entry.queue(packet, meta, sink);
                    } else {
                        sink.drop(packet, DropReason::PortDown);
                    }
                }
            }
        }
    }

    /// Sends the packets that waited for `key`, which has been learned or given up.
    pub(crate) fn release(&mut self, key: &NeighbourKey, ports: &mut [PortEntry], sink: &mut PacketSink<'_>) {
        let known = self.neighbours.lookup(key).is_some();
        while let Some((mut packet, mut meta)) = self.waiting.take_for(key) {
            if known {
                self.direct(&mut packet, &mut meta, ports);
            } else {
                meta.drop_for(DropReason::NoNeighbour);
            }
            match (meta.verdict, ports.get_mut(usize::from(meta.port.0))) {
                (Verdict::Drop(reason), _) => sink.drop(packet, reason),
                (_, Some(entry)) => entry.queue(packet, meta, sink),
                (_, None) => sink.drop(packet, DropReason::NoNeighbour),
            }
        }
    }

    /// Drops what has waited too long.
    pub(crate) fn expire(&mut self, sink: &mut PacketSink<'_>) {
        while let Some(packet) = self.waiting.take_expired(self.now_ns) {
            sink.drop(packet, DropReason::NoNeighbour);
        }
    }

    /// Decides on the packet's port and writes its link header, or marks what else is to be done with it.
    #[inline]
    fn direct(&mut self, packet: &mut Packet, meta: &mut Meta, ports: &[PortEntry]) {
        let kind = Kind::of(meta);
        let way = match self.resolve(&meta.flow, kind == Kind::Sealed, ports) {
            // A copy would be read back before it has settled: the header is copied once, to its place.
            Ok(at) => &self.cache[at].way,
            Err(None) => {
                meta.port = WAITS;
                return;
            }
            Err(Some(reason)) => {
                let bypassed = meta.verdict == Verdict::Bypass && reason == DropReason::NoRoute;
                meta.drop_for(if bypassed { DropReason::Bypassed } else { reason });
                return;
            }
        };
        if way.role == Role::Wan && matches!(kind, Kind::Opened | Kind::Reply) {
            meta.port = AGAIN;
            return;
        }
        if packet.len() > usize::from(way.mtu) {
            refuse(packet, meta, ports, DropReason::TooBig);
            return;
        }
        // The host stack takes a hop itself from what it forwards, and what it sent has none taken.
        let forwarded = matches!(kind, Kind::Opened | Kind::Clear) && way.role != Role::Host;
        if forwarded && !take_hop(packet.data_mut(), meta.flow.version) {
            refuse(packet, meta, ports, DropReason::TtlExpired);
            return;
        }
        match packet.push_front(HEADER_LEN) {
            Some(room) => room.copy_from_slice(&way.header),
            None => meta.drop_for(DropReason::NoHeadroom),
        }
        meta.port = way.slot;
    }

    /// Where in the cache the way is; or why the packet is dropped, and `None` where it waits.
    #[inline]
    fn resolve(
        &mut self,
        flow: &Flow,
        outer: bool,
        ports: &[PortEntry],
    ) -> Result<usize, Option<DropReason>> {
        let destination = flow.destination_bits();
        let at = cache_slot(destination);
        let cached = &self.cache[at];
        if cached.epoch == self.epoch
            && cached.destination == destination
            && cached.version == flow.version
            && !(outer && cached.way.role == Role::Host)
        {
            return Ok(at);
        }
        match self.look_up(flow, outer, ports) {
            Resolution::Way(way) => {
                self.cache[at] = Cached { destination, epoch: self.epoch, version: flow.version, way };
                Ok(at)
            }
            Resolution::Waits(_) => Err(None),
            Resolution::Drop(reason) => Err(Some(reason)),
        }
    }

    #[cold]
    fn look_up(&mut self, flow: &Flow, outer: bool, ports: &[PortEntry]) -> Resolution {
        let destination = flow.destination();
        let (slot, neighbour) = match self.fib.lookup(destination) {
            NextHop::Unreachable => return Resolution::Drop(DropReason::NoRoute),
            NextHop::Local | NextHop::Kernel if outer => return Resolution::Drop(DropReason::NoRoute),
            NextHop::Local | NextHop::Kernel => match host_slot(ports) {
                Some(slot) => (slot, destination),
                None => return Resolution::Drop(DropReason::NoRoute),
            },
            NextHop::OnLink(slot) => (slot, destination),
            NextHop::Via(slot, router) => (slot, router),
        };
        let Some(entry) = ports.get(usize::from(slot.0)) else {
            return Resolution::Drop(DropReason::PortDown);
        };
        if !entry.facts.up || entry.port.is_none() {
            return Resolution::Drop(DropReason::PortDown);
        }
        let key = NeighbourKey { port: slot, address: neighbour };
        let Some(mac) = entry.facts.peer.or_else(|| self.neighbour(&key)) else {
            return Resolution::Waits(key);
        };
        Resolution::Way(Way {
            slot,
            role: entry.role,
            mtu: entry.facts.mtu,
            header: ethernet::header(mac, entry.facts.mac, ethertype(flow.version)),
        })
    }

    /// A known neighbour; now and then the kernel is told that it is in use.
    fn neighbour(&mut self, key: &NeighbourKey) -> Option<Mac> {
        let (mac, used_ns) = self.neighbours.lookup_mut(key)?;
        if *used_ns == 0 || self.now_ns.wrapping_sub(*used_ns) >= USE_INTERVAL_NS {
            // Where the list is full, the next look-up tells.
            if self.in_use.try_push(*key).is_ok() {
                *used_ns = self.now_ns.max(1);
            }
        }
        Some(mac)
    }

    #[cold]
    fn wait(&mut self, packet: Packet, mut meta: Meta, ports: &mut [PortEntry], sink: &mut PacketSink<'_>) {
        let is_sealed = Kind::of(&meta) == Kind::Sealed;
        let Resolution::Waits(key) = self.look_up(&meta.flow, is_sealed, ports) else {
            sink.drop(packet, DropReason::NoNeighbour);
            return;
        };
        meta.port = key.port;
        let added = self.waiting.add(key, packet, meta, self.now_ns);
        if added.ask && self.in_use.try_push(key).is_err() {
            self.waiting.not_asked(&key);
        }
        sink.counters.waited.add(1);
        if let Some(packet) = added.dropped {
            sink.drop(packet, DropReason::NeighbourQueueFull);
        }
    }
}

/// Where a packet that came out of a tunnel, or that a policy lets pass in clear, can't go on, the host stack knows what
/// to do: it answers the sender, through
/// the tunnel again, or cuts the packet. All else is dropped, and so is this without a host port.
#[cold]
fn refuse(packet: &mut Packet, meta: &mut Meta, ports: &[PortEntry], reason: DropReason) {
    let answered = matches!(Kind::of(meta), Kind::Opened | Kind::Clear);
    let host =
        host_slot(ports).filter(|_| answered).and_then(|slot| Some((slot, ports.get(usize::from(slot.0))?)));
    let Some((slot, entry)) = host else { return meta.drop_for(reason) };
    let Some(mac) = entry.facts.peer else { return meta.drop_for(reason) };
    if !entry.facts.up || entry.port.is_none() || packet.len() > usize::from(entry.facts.mtu) {
        return meta.drop_for(reason);
    }
    match packet.push_front(HEADER_LEN) {
        Some(room) => {
            room.copy_from_slice(&ethernet::header(mac, entry.facts.mac, ethertype(meta.flow.version)));
            meta.port = slot;
        }
        None => meta.drop_for(DropReason::NoHeadroom),
    }
}

const fn ethertype(version: IpVersion) -> u16 {
    match version {
        IpVersion::V4 => ethernet::IPV4,
        IpVersion::V6 => ethernet::IPV6,
    }
}

fn note_host(entry: &PortEntry, packets: usize, sink: &PacketSink<'_>) {
    if entry.role == Role::Host {
        sink.counters.to_host.add(packets as u64);
    }
}

#[inline]
fn cache_slot(destination: u128) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "both halves are folded into the hash")]
    let folded = (destination as u64) ^ ((destination >> 64) as u64).rotate_left(29);
    #[expect(clippy::cast_possible_truncation, reason = "the top bits of the product, which fit")]
    let slot = (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - CACHE_LEN.ilog2())) as usize;
    slot
}
