//! What strangers may cost: half-open IKE SAs by source and in all (RFC 7296 §2.6).
//!
//! A source address that anyone can forge must not count against the host that has it. So only half-open IKE SAs
//! whose request brought our cookie count against the hard limits; the others are few, because a cookie is demanded
//! from the third of a source on and beyond a number in all. Configured peers have slots of their own.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::config::Limits;
use crate::message::IkeSpi;
use crate::time::Instant;

/// The stranger that a half-open IKE SA is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stranger {
    pub(crate) source: SocketAddr,
    pub(crate) spi_i: IkeSpi,
    /// Another nonce from the same address, port and SPI is another request.
    pub(crate) nonce: Arc<[u8]>,
    /// Whether it brought our cookie: then it is where it says.
    pub(crate) proven: bool,
}

/// Peers that are sent an unauthenticated notify in one second at most.
const HINTS_MAX: usize = 16;

/// Counts of half-open IKE SAs that peers began.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    all: Count,
    /// By IPv4 address, IPv6 /64, and IPv6 /48.
    sources: BTreeMap<Block, Count>,
    demanded: Demanded,
    dropped: u64,
    told: Option<Instant>,
    told_stranger: Option<Instant>,
    /// Peers that were sent a hint in the second that began then.
    hinted: (Option<Instant>, BTreeSet<IpAddr>),
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    proven: u32,
    unproven: u32,
}

impl Count {
    const fn total(self) -> u32 {
        self.proven + self.unproven
    }

    fn of(&mut self, proven: bool) -> &mut u32 {
        if proven { &mut self.proven } else { &mut self.unproven }
    }
}

/// Addresses that one owner has at will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Block {
    V4(IpAddr),
    V6Net64(Ipv6Addr),
    V6Net48(Ipv6Addr),
}

/// The blocks of an address, the narrowest first.
fn blocks(source: IpAddr) -> impl Iterator<Item = Block> {
    let net =
        |address: Ipv6Addr, len: u32| Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - len)));
    let (narrow, wide) = match source {
        IpAddr::V4(_) => (Block::V4(source), None),
        IpAddr::V6(v6) => (Block::V6Net64(net(v6, 64)), Some(Block::V6Net48(net(v6, 48)))),
    };
    core::iter::once(narrow).chain(wide)
}

/// What becomes of an IKE_SA_INIT request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// It may make state.
    Yes,
    /// It may make state if it brings our cookie.
    WithCookie,
    /// It is dropped.
    No,
}

/// Whose request is judged, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) source: IpAddr,
    /// It brought our cookie.
    pub(crate) proven: bool,
    /// The source is the address of a configured peer.
    pub(crate) is_peer: bool,
    /// A cookie was demanded of this very request: a late copy without one may not overtake the one with it.
    pub(crate) demanded: bool,
}

impl Admission {
    /// Judges a request.
    pub(crate) fn judge(&self, limits: &Limits, request: Request) -> Admitted {
        let mut counts = blocks(request.source).map(|block| self.count(block));
        let narrow = counts.next().unwrap_or_default();
        let wide = counts.next();
        if !request.proven {
            let cookie = request.demanded
                || self.all.total() >= limits.cookie_threshold
                || narrow.total() >= COOKIE_FROM
                || wide.is_some_and(|wide| wide.total() >= COOKIE_FROM_WIDE);
            return if cookie { Admitted::WithCookie } else { Admitted::Yes };
        }
        let reserved = request.is_peer && narrow.proven < RESERVED_FOR_PEER;
        let per_source = limits.half_open_per_source;
        let within = self.all.proven < limits.half_open_max
            && narrow.proven < per_source
            && wide.is_none_or(|wide| wide.proven < per_source.saturating_mul(2));
        if reserved || within { Admitted::Yes } else { Admitted::No }
    }

    fn count(&self, block: Block) -> Count {
        self.sources.get(&block).copied().unwrap_or_default()
    }

    /// A half-open IKE SA is made.
    pub(crate) fn opened(&mut self, stranger: &Stranger) {
        *self.all.of(stranger.proven) += 1;
        for block in blocks(stranger.source.ip()) {
            *self.sources.entry(block).or_default().of(stranger.proven) += 1;
        }
    }

    /// A half-open IKE SA is established or gone.
    pub(crate) fn closed(&mut self, stranger: &Stranger) {
        let less = |count: &mut u32| *count = count.saturating_sub(1);
        less(self.all.of(stranger.proven));
        for block in blocks(stranger.source.ip()) {
            if let Some(count) = self.sources.get_mut(&block) {
                less(count.of(stranger.proven));
                if count.total() == 0 {
                    self.sources.remove(&block);
                }
            }
        }
    }

    /// Half-open IKE SAs now.
    pub(crate) const fn half_open(&self) -> u32 {
        self.all.total()
    }

    /// The requests that a cookie was demanded of.
    pub(crate) const fn demanded(&mut self) -> &mut Demanded {
        &mut self.demanded
    }

    /// Whether the operator may be told of a stranger now: once in [`TELL_EVERY`].
    pub(crate) fn may_tell(&mut self, now: Instant) -> bool {
        if self.told_stranger.is_some_and(|told| now < told + TELL_EVERY) {
            return false;
        }
        self.told_stranger = Some(now);
        true
    }

    /// Whether a peer may be told now, without authentication, that there is no such SA: once a second, and some peers
    /// in each second.
    pub(crate) fn may_hint(&mut self, now: Instant, peer: IpAddr) -> bool {
        let (since, peers) = &mut self.hinted;
        if since.is_none_or(|since| now >= since + TELL_EVERY) {
            *since = Some(now);
            peers.clear();
        }
        peers.len() < HINTS_MAX && peers.insert(peer)
    }

    /// Counts a dropped request; the number dropped, once in [`TELL_EVERY`].
    pub(crate) fn dropped(&mut self, now: Instant) -> Option<u64> {
        self.dropped += 1;
        if self.told.is_some_and(|told| now < told + TELL_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(core::mem::take(&mut self.dropped))
    }
}

/// Requests that a cookie was demanded of, by their cookie's octets: bounded, the oldest goes first. What falls out
/// under a flood is no loss, since every request needs a cookie then.
#[derive(Debug, Default)]
pub(crate) struct Demanded {
    order: VecDeque<Mark>,
    marks: BTreeSet<Mark>,
}

/// A keyed hash of source, SPI and nonce.
pub(crate) type Mark = [u8; 16];

impl Demanded {
    /// Remembers a request.
    pub(crate) fn add(&mut self, mark: Mark) {
        if self.marks.insert(mark) {
            self.order.push_back(mark);
            if self.order.len() > DEMANDED_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.marks.remove(&oldest);
            }
        }
    }

    /// Whether a cookie was demanded of it.
    pub(crate) fn has(&self, mark: &Mark) -> bool {
        self.marks.contains(mark)
    }
}

/// Half-open IKE SAs that a source has without a cookie.
const COOKIE_FROM: u32 = 2;
/// The same of an IPv6 /48, which is a whole site.
const COOKIE_FROM_WIDE: u32 = 16;
/// Half-open IKE SAs that the address of a configured peer has whatever the others do: a few handshakes, should it
/// have restarted in the middle of some.
const RESERVED_FOR_PEER: u32 = 8;
/// Requests that are remembered for their demanded cookie: those of some seconds.
const DEMANDED_MAX: usize = 4_096;
/// Once a second is enough to see a flood and too little to fill a disk.
const TELL_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
#[path = "admission/tests.rs"]
mod tests;
