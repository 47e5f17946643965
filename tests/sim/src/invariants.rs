//! What must hold, in one place.
//!
//! At every moment:
//! 1. no panic (the runner sees to it), and no deadline that comes back for ever;
//! 2. no message id used twice with other octets, in any life of any IKE SA ([`Watch::sent`]);
//! 3. no (key, IV) pair used twice, and no ESP key installed twice ([`pollux_pair::NullCrypto`],
//!    [`crate::data_plane`]);
//! 4. no unbounded state, and no index that disagrees with its table ([`bounded`]);
//! 5. in a calm or lossy world: a Child SA, once up, is never without a working pair ([`Watch::packet`]).
//!
//! When all has been calm for long ([`converged`]):
//! 6. both ends have the same IKE SAs and the same Child SAs, and at least one of each child;
//! 7. each Child SA carries traffic both ways, under the same keys;
//! 8. the data planes hold the SAs of these Child SAs and nothing else, and no SPI is leaked.

use std::collections::{BTreeMap, BTreeSet};

use pollux_abi::command::Direction;
use pollux_abi::{SaId, Spi};
use pollux_ike::Instant;
use pollux_ike::endpoint::IkeStatus;
use pollux_ike::event::{DownReason, Event};
use pollux_ike::message::{ExchangeType, Message};

use crate::gateway::Gateway;
use crate::scenario::FaultProfile;

/// IKE SAs that one gateway may have at once: two ends that begin again and again while old ones time out.
const IKE_SAS_MAX: usize = 48;

/// What is remembered of a run.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    sent: BTreeMap<(usize, u32, [u8; 16], u32, bool), u64>,
    /// Children that have been up at both ends, by reqid.
    pub(crate) up: BTreeSet<u32>,
    /// Whether something happened that may cost packets.
    pub(crate) excused: bool,
    /// Packets that found no SA, there or here.
    pub(crate) lost: u64,
    /// Packets that arrived.
    pub(crate) delivered: u64,
    /// Rekeys of Child SAs and IKE SAs.
    pub(crate) rekeys: (u64, u64),
}

impl Watch {
    /// A datagram leaves. IKE_SA_INIT may change under one id, by cookies and other groups; refusals in clear
    /// belong to no IKE SA.
    pub(crate) fn sent(&mut self, end: usize, life: u32, bytes: &[u8]) -> Result<(), String> {
        let message = Message::parse(bytes).map_err(|error| error.to_string())?;
        let header = message.header;
        if header.exchange == ExchangeType::IkeSaInit || message.encrypted.is_none() {
            return Ok(());
        }
        let mut spis = [0; 16];
        spis[..8].copy_from_slice(&header.spi_i.to_be_bytes());
        spis[8..].copy_from_slice(&header.spi_r.to_be_bytes());
        let print =
            bytes.iter().fold(7u64, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3));
        let key = (end, life, spis, header.id.0, header.flags.response);
        let known = *self.sent.entry(key).or_insert(print);
        if known == print {
            Ok(())
        } else {
            Err(format!("message id {} of {spis:02x?} is used twice", header.id))
        }
    }

    /// An event of an endpoint.
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::IkeDown { reason, .. } if *reason != DownReason::Replaced => self.excused = true,
            Event::ChildDown { reason, replaced, .. } => {
                self.excused |=
                    *reason == DownReason::DataPlane || !replaced && *reason != DownReason::Replaced;
            }
            Event::ChildRekeyed { .. } => self.rekeys.0 += 1,
            Event::IkeRekeyed { .. } => self.rekeys.1 += 1,
            _ => {}
        }
    }

    /// A packet was sealed and opened, or was not.
    pub(crate) fn packet(&mut self, profile: FaultProfile, reqid: u32, arrived: bool) -> Result<(), String> {
        if arrived {
            self.delivered += 1;
            return Ok(());
        }
        self.lost += 1;
        if profile == FaultProfile::Chaos || self.excused || !self.up.contains(&reqid) {
            return Ok(());
        }
        Err(format!("a packet of reqid {reqid} found no working pair of SAs"))
    }
}

/// 4: state does not grow.
pub(crate) fn bounded(gateway: &Gateway, now: Instant) -> Result<(), String> {
    let sas = gateway.endpoint.status(now).len();
    if sas > IKE_SAS_MAX {
        return Err(format!("{sas} IKE SAs"));
    }
    gateway.endpoint.audit().map_err(|index| format!("an index is wrong: {index}"))?;
    Ok(())
}

/// 6 to 8: what both ends have when all is calm.
pub(crate) fn converged(gateways: &[Gateway; 2], now: Instant) -> Result<(), String> {
    let [a, b] = [0, 1].map(|end| gateways[end].endpoint.status(now));
    let spis =
        |list: &[IkeStatus]| -> BTreeSet<_> { list.iter().map(|ike| (ike.spi_i, ike.spi_r)).collect() };
    if spis(&a) != spis(&b) || a.iter().chain(&b).any(|ike| ike.state != "ESTABLISHED") {
        return Err(format!("the ends have other IKE SAs: {a:#?} and {b:#?}"));
    }
    if a.is_empty() {
        return Err("there is no IKE SA".to_owned());
    }
    let pairs = |list: &[IkeStatus], swap: bool| -> BTreeSet<(Spi, Spi, u32)> {
        let children = list.iter().flat_map(|ike| &ike.children);
        children
            .map(|child| {
                let (ours, theirs) = (child.sa.spi_in, child.sa.spi_out);
                let (first, second) = if swap { (theirs, ours) } else { (ours, theirs) };
                (first, second, child.sa.reqid.0)
            })
            .collect()
    };
    if pairs(&a, false) != pairs(&b, true) {
        return Err(format!("the ends have other Child SAs: {a:#?} and {b:#?}"));
    }
    for (end, list) in [&a, &b].into_iter().enumerate() {
        for child in list.iter().flat_map(|ike| &ike.children) {
            if child.state != "INSTALLED" || !child.outbound {
                return Err(format!("end {end}: a Child SA is not at rest: {child:?}"));
            }
        }
        for reqid in gateways[end].reqids() {
            let up = list.iter().flat_map(|ike| &ike.children).any(|child| child.sa.reqid == reqid);
            if !up {
                return Err(format!("end {end}: no Child SA of reqid {reqid}"));
            }
        }
        tables(&gateways[end], list).map_err(|what| format!("end {end}: {what}"))?;
    }
    keys(gateways)
}

/// 8: nothing is left over.
fn tables(gateway: &Gateway, list: &[IkeStatus]) -> Result<(), String> {
    let children = || list.iter().flat_map(|ike| &ike.children);
    let known: BTreeSet<SaId> = children().flat_map(|child| [child.sa.inbound, child.sa.outbound]).collect();
    let held: BTreeSet<SaId> = gateway.data_plane.table.keys().copied().collect();
    if known != held {
        return Err(format!("the data plane holds {held:?}, the endpoint knows {known:?}"));
    }
    let given = gateway.data_plane.allocator.given();
    let used = gateway.data_plane.inbound_spis();
    if given == used { Ok(()) } else { Err(format!("SPIs given: {given:?}, in use: {used:?}")) }
}

/// 7: what one end seals, the other opens.
fn keys(gateways: &[Gateway; 2]) -> Result<(), String> {
    for end in 0..2 {
        let of = |end: usize, direction: Direction| {
            let table = gateways[end].data_plane.table.values();
            table.map(|entry| &entry.install).filter(move |install| install.direction == direction)
        };
        for ours in of(end, Direction::Outbound) {
            let opened = of(1 - end, Direction::Inbound).any(|theirs| {
                theirs.spi == ours.spi
                    && theirs.keys.as_bytes() == ours.keys.as_bytes()
                    && (theirs.suite, theirs.esn) == (ours.suite, ours.esn)
            });
            if !opened {
                return Err(format!("what end {end} seals under {} the other does not open", ours.spi));
            }
        }
    }
    Ok(())
}
