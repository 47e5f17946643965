//! From a datagram to typed payloads: one bounded walk along the chain, nothing copied.

use super::payload::{
    auth::Auth, cert::Cert, cp::Cp, delete::Delete, eap::Eap, id::Id, ke::Ke, nonce, notify::Notify, sa::Sa,
    sk::Encrypted, ts::Ts,
};
use super::{Header, Malformed, NotifyType, PayloadType};

/// Payloads in one chain. An IKE_AUTH with a long certificate chain and many notifies has about thirty.
pub const PAYLOADS_MAX: usize = 96;

/// Octets of the generic payload header (RFC 7296 §3.2).
pub(super) const PAYLOAD_HEADER_LEN: usize = 4;
pub(super) const CRITICAL: u8 = 0x80;

/// One payload of a chain, not looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawPayload<'a> {
    /// Its type.
    pub kind: PayloadType,
    /// What follows; in an encrypted payload, the first payload inside.
    pub next: PayloadType,
    /// Whether a receiver that does not know it must refuse the message.
    pub critical: bool,
    /// Without its generic header.
    pub body: &'a [u8],
}

/// A walk along a chain of payloads. Ends after the first error.
///
/// Every step takes at least four octets, so no chain loops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    next: PayloadType,
    rest: &'a [u8],
    left: usize,
}

impl<'a> Chain<'a> {
    /// The chain in `octets` that begins with a payload of type `first`.
    pub const fn new(first: PayloadType, octets: &'a [u8]) -> Self {
        Self { next: first, rest: octets, left: PAYLOADS_MAX }
    }

    fn step(&mut self) -> Result<RawPayload<'a>, Malformed> {
        let kind = self.next;
        let left = self.rest.len();
        if self.left == 0 {
            return Err(Malformed::TooManyPayloads { max: PAYLOADS_MAX });
        }
        self.left -= 1;
        let Some(&[next, flags, l0, l1]) = self.rest.first_chunk::<PAYLOAD_HEADER_LEN>() else {
            return Err(Malformed::Chain { kind, left });
        };
        let claimed = u16::from_be_bytes([l0, l1]);
        let Some((body, rest)) = self.rest.split_at_checked(usize::from(claimed)) else {
            return Err(Malformed::PayloadLength { kind, claimed, left });
        };
        let Some(body) = body.get(PAYLOAD_HEADER_LEN..) else {
            return Err(Malformed::PayloadLength { kind, claimed, left });
        };
        let next = PayloadType::from_wire(next);
        // The next payload that an encrypted payload names is the first one inside it: it is the last here.
        self.next = if matches!(kind, PayloadType::Sk | PayloadType::Skf) { PayloadType::None } else { next };
        self.rest = rest;
        Ok(RawPayload { kind, next, critical: flags & CRITICAL != 0, body })
    }
}

impl<'a> Iterator for Chain<'a> {
    type Item = Result<RawPayload<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == PayloadType::None {
            let left = core::mem::take(&mut self.rest).len();
            return (left != 0).then_some(Err(Malformed::Chain { kind: PayloadType::None, left }));
        }
        let step = self.step();
        if step.is_err() {
            *self = Self::new(PayloadType::None, &[]);
        }
        Some(step)
    }
}

/// The payloads of a message, or of the inside of an encrypted payload, all of them checked.
///
/// Those that may appear once have a field; the others are walked again when asked for. Payloads of an
/// unknown type are skipped, unless they are critical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payloads<'a> {
    chain: Chain<'a>,
    /// SA.
    pub sa: Option<Sa<'a>>,
    /// KE.
    pub ke: Option<Ke<'a>>,
    /// Nonce.
    pub nonce: Option<&'a [u8]>,
    /// IDi.
    pub id_i: Option<Id<'a>>,
    /// IDr.
    pub id_r: Option<Id<'a>>,
    /// AUTH.
    pub auth: Option<Auth<'a>>,
    /// TSi.
    pub ts_i: Option<Ts<'a>>,
    /// TSr.
    pub ts_r: Option<Ts<'a>>,
    /// CP.
    pub cp: Option<Cp<'a>>,
    /// EAP.
    pub eap: Option<Eap<'a>>,
}

impl<'a> Payloads<'a> {
    /// Reads the chain inside an encrypted payload.
    pub fn parse(first: PayloadType, octets: &'a [u8]) -> Result<Self, Malformed> {
        Self::walk(first, octets, |payload| Err(Malformed::Nested(payload.kind)))
    }

    fn walk(
        first: PayloadType,
        octets: &'a [u8],
        mut encrypted: impl FnMut(RawPayload<'a>) -> Result<(), Malformed>,
    ) -> Result<Self, Malformed> {
        let chain = Chain::new(first, octets);
        let mut payloads = Self {
            chain: chain.clone(),
            sa: None,
            ke: None,
            nonce: None,
            id_i: None,
            id_r: None,
            auth: None,
            ts_i: None,
            ts_r: None,
            cp: None,
            eap: None,
        };
        for payload in chain {
            let payload = payload?;
            match payload.kind {
                PayloadType::Sk | PayloadType::Skf => encrypted(payload)?,
                _ => payloads.take(payload)?,
            }
        }
        Ok(payloads)
    }

    fn take(&mut self, payload: RawPayload<'a>) -> Result<(), Malformed> {
        let RawPayload { kind, body, critical, .. } = payload;
        match kind {
            PayloadType::Sa => once(kind, &mut self.sa, Sa::parse(body)?),
            PayloadType::Ke => once(kind, &mut self.ke, Ke::parse(body)?),
            PayloadType::Nonce => once(kind, &mut self.nonce, nonce::parse(body)?),
            PayloadType::IdI => once(kind, &mut self.id_i, Id::parse(kind, body)?),
            PayloadType::IdR => once(kind, &mut self.id_r, Id::parse(kind, body)?),
            PayloadType::Auth => once(kind, &mut self.auth, Auth::parse(body)?),
            PayloadType::TsI => once(kind, &mut self.ts_i, Ts::parse(kind, body)?),
            PayloadType::TsR => once(kind, &mut self.ts_r, Ts::parse(kind, body)?),
            PayloadType::Cp => once(kind, &mut self.cp, Cp::parse(body)?),
            PayloadType::Eap => once(kind, &mut self.eap, Eap::parse(body)?),
            PayloadType::Notify => Notify::parse(body).map(drop),
            PayloadType::Delete => Delete::parse(body).map(drop),
            PayloadType::Cert | PayloadType::CertReq => Cert::parse(kind, body).map(drop),
            PayloadType::Unknown(number) if critical => Err(Malformed::UnknownCritical(number)),
            PayloadType::Vendor
            | PayloadType::Unknown(_)
            | PayloadType::None
            | PayloadType::Sk
            | PayloadType::Skf => Ok(()),
        }
    }

    fn bodies(&self, kind: PayloadType) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        // Sound already: `walk` has seen the chain to its end.
        let sound = self.chain.clone().map_while(Result::ok);
        sound.filter(move |payload| payload.kind == kind).map(|payload| payload.body)
    }

    /// All notifies, in order.
    pub fn notifies(&self) -> impl Iterator<Item = Notify<'a>> + use<'a> {
        self.bodies(PayloadType::Notify).filter_map(|body| Notify::parse(body).ok())
    }

    /// The first notify of a type.
    pub fn notify(&self, kind: NotifyType) -> Option<Notify<'a>> {
        self.notifies().find(|notify| notify.kind == kind)
    }

    /// Whether there is a notify of a type.
    pub fn has_notify(&self, kind: NotifyType) -> bool {
        self.notify(kind).is_some()
    }

    /// The first notify that is an error.
    pub fn error(&self) -> Option<Notify<'a>> {
        self.notifies().find(|notify| notify.kind.is_error())
    }

    /// All Delete payloads, in order.
    pub fn deletes(&self) -> impl Iterator<Item = Delete<'a>> + use<'a> {
        self.bodies(PayloadType::Delete).filter_map(|body| Delete::parse(body).ok())
    }

    /// All certificates, in order: the sender's own first.
    pub fn certs(&self) -> impl Iterator<Item = Cert<'a>> + use<'a> {
        self.bodies(PayloadType::Cert).filter_map(|body| Cert::parse(PayloadType::Cert, body).ok())
    }

    /// All certificate requests, in order.
    pub fn cert_requests(&self) -> impl Iterator<Item = Cert<'a>> + use<'a> {
        self.bodies(PayloadType::CertReq).filter_map(|body| Cert::parse(PayloadType::CertReq, body).ok())
    }

    /// All vendor ids, in order.
    pub fn vendor_ids(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.bodies(PayloadType::Vendor)
    }

    /// The types of all payloads, in order; for traces.
    pub fn kinds(&self) -> impl Iterator<Item = PayloadType> + use<'a> {
        self.chain.clone().map_while(Result::ok).map(|payload| payload.kind)
    }
}

fn once<T>(kind: PayloadType, place: &mut Option<T>, payload: T) -> Result<(), Malformed> {
    match place.replace(payload) {
        None => Ok(()),
        Some(_) => Err(Malformed::Repeated(kind)),
    }
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    /// Payloads in clear. In a message with an encrypted payload they are of no use to anyone.
    pub payloads: Payloads<'a>,
    /// The encrypted payload, which is the last one.
    pub encrypted: Option<Encrypted>,
}

impl<'a> Message<'a> {
    /// Reads a datagram without its non-ESP marker.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let header = Header::parse(datagram)?;
        if header.major != Header::MAJOR {
            return Err(Malformed::MajorVersion(header.major));
        }
        if usize::try_from(header.length) != Ok(datagram.len()) {
            return Err(Malformed::MessageLength { claimed: header.length, actual: datagram.len() });
        }
        let mut encrypted = None;
        let payloads = Payloads::walk(header.first, &datagram[Header::LEN..], |payload| {
            // The last payload: its body ends where the message does.
            let content = datagram.len() - payload.body.len();
            encrypted = Some(Encrypted::parse(payload.kind, payload.next, payload.body, content)?);
            Ok(())
        })?;
        Ok(Self { header, payloads, encrypted })
    }
}
