//! Commands as octets: one fixed layout, written and read by mirror-image functions.

use super::{
    Command, CommandError, Direction, EncapPorts, Lifetimes, PolicyAction, PolicySpec, SaRoute, SaSpec,
};
use crate::dscp::{DfMark, Dscp, DscpMark, EcnMode};
use crate::ids::{PolicyId, Reqid, SaIndex, Spi, Ticket, WorkerId};
use crate::key::KeyMaterial;
use crate::layout::{SELECTORS_MAX, WORKERS_MAX};
use crate::selector::{PortRange, SelectorPair, Selectors, TrafficSelector};
use crate::suite::EspSuite;
use crate::wire::{Reader, Writer};

const SA_ADD: u16 = 1;
const SA_REPLACE: u16 = 2;
const SA_ROUTE: u16 = 3;
const SA_DELETE: u16 = 4;
const SA_QUERY: u16 = 5;
const POLICY_BEGIN: u16 = 6;
const POLICY_ADD: u16 = 7;
const POLICY_COMMIT: u16 = 8;
const BARRIER: u16 = 9;

pub(super) fn encode(command: &Command, ticket: Ticket, bytes: &mut [u8]) {
    let mut w = Writer::new(bytes);
    w.u64(ticket.0);
    match command {
        Command::SaAdd(spec, key) => {
            w.u16(SA_ADD);
            w.sa(spec, key.as_bytes());
        }
        Command::SaReplace(spec, key) => {
            w.u16(SA_REPLACE);
            w.sa(spec, key.as_ref().map_or(&[], KeyMaterial::as_bytes));
        }
        Command::SaRoute(route) => {
            w.u16(SA_ROUTE);
            w.u64(route.id.0);
            w.direction(route.direction);
            w.u32(route.index.0);
            w.u32(route.spi.get());
            w.u32(route.reqid.0);
            w.u16(route.owner.0);
            w.selectors(&route.local_ts);
            w.selectors(&route.remote_ts);
        }
        Command::SaDelete(id) => {
            w.u16(SA_DELETE);
            w.u64(id.0);
        }
        Command::SaQuery(id) => {
            w.u16(SA_QUERY);
            w.u64(id.0);
        }
        Command::PolicyBegin => w.u16(POLICY_BEGIN),
        Command::PolicyAdd(policy) => {
            w.u16(POLICY_ADD);
            w.policy(policy);
        }
        Command::PolicyCommit => w.u16(POLICY_COMMIT),
        Command::Barrier => w.u16(BARRIER),
    }
}

pub(super) fn decode(bytes: &[u8]) -> (Ticket, Result<Command, CommandError>) {
    let mut r = Reader::new(bytes);
    let Some(ticket) = r.u64() else { return (Ticket(0), Err(CommandError::Kind)) };
    let command = match r.u16() {
        Some(SA_ADD) => {
            r.sa().and_then(|(spec, key)| Ok(Command::SaAdd(spec, key.ok_or(CommandError::KeyLength)?)))
        }
        Some(SA_REPLACE) => r.sa().map(|(spec, key)| Command::SaReplace(spec, key)),
        Some(SA_ROUTE) => r.route().map(Command::SaRoute).ok_or(CommandError::Field),
        Some(SA_DELETE) => r.sa_id().map(Command::SaDelete).ok_or(CommandError::Field),
        Some(SA_QUERY) => r.sa_id().map(Command::SaQuery).ok_or(CommandError::Field),
        Some(POLICY_BEGIN) => Ok(Command::PolicyBegin),
        Some(POLICY_ADD) => r.policy().map(Command::PolicyAdd).ok_or(CommandError::Field),
        Some(POLICY_COMMIT) => Ok(Command::PolicyCommit),
        Some(BARRIER) => Ok(Command::Barrier),
        _ => Err(CommandError::Kind),
    };
    (Ticket(ticket), command)
}

impl Writer<'_> {
    fn direction(&mut self, direction: Direction) {
        self.u8(match direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        });
    }

    fn selector(&mut self, selector: &TrafficSelector) {
        self.address(selector.first());
        self.address(selector.last());
        self.u8(u8::from(selector.protocol.is_some()));
        self.u8(selector.protocol.unwrap_or_default());
        self.u16(selector.ports.first);
        self.u16(selector.ports.last);
    }

    fn selectors(&mut self, selectors: &Selectors) {
        let list = selectors.as_slice();
        #[expect(clippy::cast_possible_truncation, reason = "at most SELECTORS_MAX")]
        self.u8(list.len() as u8);
        for selector in list {
            self.selector(selector);
        }
    }

    fn sa(&mut self, spec: &SaSpec, key: &[u8]) {
        self.u64(spec.id.0);
        self.direction(spec.direction);
        self.u32(spec.index.0);
        self.u32(spec.spi.get());
        self.u16(spec.suite.code());
        self.u8(u8::from(spec.esn));
        self.u32(spec.window_packets);
        self.address(spec.local);
        self.address(spec.remote);
        self.u8(u8::from(spec.encap.is_some()));
        self.u16(spec.encap.map_or(0, |ports| ports.local));
        self.u16(spec.encap.map_or(0, |ports| ports.remote));
        self.u32(spec.reqid.0);
        self.u16(spec.owner.0);
        self.u8(match spec.dscp {
            DscpMark::Copy => 0xff,
            DscpMark::Fixed(dscp) => dscp.get(),
        });
        self.u8(match spec.ecn {
            EcnMode::Normal => 0,
            EcnMode::Off => 1,
        });
        self.u8(match spec.df {
            DfMark::Copy => 0,
            DfMark::Set => 1,
            DfMark::Clear => 2,
        });
        for limit in [
            spec.lifetimes.soft_bytes,
            spec.lifetimes.hard_bytes,
            spec.lifetimes.soft_packets,
            spec.lifetimes.hard_packets,
        ] {
            self.u64(limit);
        }
        self.u32(spec.lifetimes.soft_age);
        self.u32(spec.lifetimes.hard_age);
        self.u64(spec.seq_start);
        self.u64(spec.iv_start);
        self.u32(spec.checkpoint.map_or(u32::MAX, |slot| slot));
        #[expect(clippy::cast_possible_truncation, reason = "at most MATERIAL_MAX")]
        self.u8(key.len() as u8);
        self.put(key);
        self.selectors(&spec.local_ts);
        self.selectors(&spec.remote_ts);
    }

    fn policy(&mut self, policy: &PolicySpec) {
        self.u32(policy.id.0);
        self.direction(policy.direction);
        let (action, reqid) = match policy.action {
            PolicyAction::Protect(reqid) => (1, reqid.0),
            PolicyAction::Bypass => (2, 0),
            PolicyAction::Discard => (3, 0),
        };
        self.u8(action);
        self.u32(reqid);
        self.selector(&policy.selectors.local);
        self.selector(&policy.selectors.remote);
    }
}

impl Reader<'_> {
    fn direction(&mut self) -> Option<Direction> {
        match self.u8()? {
            1 => Some(Direction::Inbound),
            2 => Some(Direction::Outbound),
            _ => None,
        }
    }

    fn owner(&mut self) -> Option<WorkerId> {
        self.u16().filter(|&owner| owner < WORKERS_MAX).map(WorkerId)
    }

    fn selector(&mut self) -> Option<TrafficSelector> {
        let (first, last) = (self.address()?, self.address()?);
        let (has_protocol, protocol) = (self.flag()?, self.u8()?);
        let ports = PortRange { first: self.u16()?, last: self.u16()? };
        if ports.first > ports.last && ports != PortRange::OPAQUE {
            return None;
        }
        TrafficSelector::new(first, last, has_protocol.then_some(protocol), ports)
    }

    fn selectors(&mut self) -> Option<Selectors> {
        let len = usize::from(self.u8()?);
        let mut list = [TrafficSelector::any_v4(); SELECTORS_MAX];
        for selector in list.get_mut(..len)? {
            *selector = self.selector()?;
        }
        Selectors::new(&list[..len])
    }

    fn route(&mut self) -> Option<SaRoute> {
        Some(SaRoute {
            id: self.sa_id()?,
            direction: self.direction()?,
            index: SaIndex(self.u32()?),
            spi: Spi::new(self.u32()?)?,
            reqid: Reqid(self.u32()?),
            owner: self.owner()?,
            local_ts: self.selectors()?,
            remote_ts: self.selectors()?,
        })
    }

    fn dscp_mark(&mut self) -> Option<DscpMark> {
        match self.u8()? {
            0xff => Some(DscpMark::Copy),
            value => Dscp::new(value).map(DscpMark::Fixed),
        }
    }

    fn ecn_mode(&mut self) -> Option<EcnMode> {
        match self.u8()? {
            0 => Some(EcnMode::Normal),
            1 => Some(EcnMode::Off),
            _ => None,
        }
    }

    fn df_mark(&mut self) -> Option<DfMark> {
        match self.u8()? {
            0 => Some(DfMark::Copy),
            1 => Some(DfMark::Set),
            2 => Some(DfMark::Clear),
            _ => None,
        }
    }

    #[expect(clippy::option_option, reason = "outer: the field can be read; inner: the SA has encapsulation")]
    fn encap(&mut self) -> Option<Option<EncapPorts>> {
        let present = self.flag()?;
        let ports = EncapPorts { local: self.u16()?, remote: self.u16()? };
        if present && (ports.local == 0 || ports.remote == 0) {
            return None;
        }
        Some(present.then_some(ports))
    }

    fn sa(&mut self) -> Result<(SaSpec, Option<KeyMaterial>), CommandError> {
        let (spec, key) = self.sa_fields().ok_or(CommandError::Field)?;
        if key.as_ref().is_some_and(|key| !key.fits(spec.suite)) {
            return Err(CommandError::KeyLength);
        }
        let families_differ = spec.local.is_ipv4() != spec.remote.is_ipv4();
        let bad_window = spec.direction == Direction::Inbound && !spec.has_sound_window();
        let bad_start = spec.direction == Direction::Outbound && spec.seq_start == 0;
        let no_selectors = spec.local_ts.as_slice().is_empty() || spec.remote_ts.as_slice().is_empty();
        if families_differ || bad_window || bad_start || no_selectors {
            return Err(CommandError::Field);
        }
        Ok((spec, key))
    }

    fn sa_fields(&mut self) -> Option<(SaSpec, Option<KeyMaterial>)> {
        let mut spec = SaSpec {
            id: self.sa_id()?,
            direction: self.direction()?,
            index: SaIndex(self.u32()?),
            spi: Spi::new(self.u32()?)?,
            suite: EspSuite::from_code(self.u16()?)?,
            esn: self.flag()?,
            window_packets: self.u32()?,
            local: self.address()?,
            remote: self.address()?,
            encap: self.encap()?,
            reqid: Reqid(self.u32()?),
            owner: self.owner()?,
            dscp: self.dscp_mark()?,
            ecn: self.ecn_mode()?,
            df: self.df_mark()?,
            lifetimes: Lifetimes {
                soft_bytes: self.u64()?,
                hard_bytes: self.u64()?,
                soft_packets: self.u64()?,
                hard_packets: self.u64()?,
                soft_age: self.u32()?,
                hard_age: self.u32()?,
            },
            seq_start: self.u64()?,
            iv_start: self.u64()?,
            checkpoint: Some(self.u32()?).filter(|&slot| slot != u32::MAX),
            local_ts: Selectors::default(),
            remote_ts: Selectors::default(),
        };
        let key_len = usize::from(self.u8()?);
        let key = match self.slice(key_len)? {
            [] => None,
            octets => Some(KeyMaterial::new(octets)?),
        };
        spec.local_ts = self.selectors()?;
        spec.remote_ts = self.selectors()?;
        Some((spec, key))
    }

    fn policy(&mut self) -> Option<PolicySpec> {
        let id = PolicyId(self.u32()?);
        let direction = self.direction()?;
        let (action, reqid) = (self.u8()?, Reqid(self.u32()?));
        let action = match action {
            1 => PolicyAction::Protect(reqid),
            2 => PolicyAction::Bypass,
            3 => PolicyAction::Discard,
            _ => return None,
        };
        let selectors = SelectorPair { local: self.selector()?, remote: self.selector()? };
        if selectors.local.is_ipv4() != selectors.remote.is_ipv4() {
            return None;
        }
        Some(PolicySpec { id, direction, selectors, action })
    }
}
