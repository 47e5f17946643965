//! Choosing a proposal (RFC 7296 §2.7, §3.3.6).
//!
//! Ours are tried in their order, and for each of ours theirs in their order: our preference decides.
//! Of each transform type the first of ours that they have is taken, except the key exchange method, where
//! the one that they have already sent a public value for goes first, which saves a round trip.

use pollux_abi::EspSuite;

use crate::crypto::{Encryption, Integrity, KeMethod, Prf};
use crate::message::{ProposalSpec, ProposalView, Protocol, Sa, Transform, TransformType};

/// Transform id that means "none of this type".
pub(super) const NONE: u16 = 0;
/// Transform ids of type ESN.
pub(super) const NO_ESN: u16 = 0;
/// Extended sequence numbers.
pub(super) const ESN: u16 = 1;

/// One proposal of the configuration: for each transform type the alternatives, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub(super) protocol: Protocol,
    pub(super) transforms: Vec<Transform>,
}

/// What an IKE SA works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeAgreement {
    /// Encryption of SK payloads.
    pub encryption: Encryption,
    /// Integrity of SK payloads; `None` for combined modes.
    pub integrity: Option<Integrity>,
    /// PRF.
    pub prf: Prf,
    /// Key exchange.
    pub ke: KeMethod,
}

/// What a Child SA works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspAgreement {
    /// Cipher and ICV.
    pub suite: EspSuite,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Key exchange of its own (perfect forward secrecy).
    pub ke: Option<KeMethod>,
}

/// A chosen proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<A> {
    /// Its number in the peer's SA payload; the answer repeats it.
    pub number: u8,
    /// The peer's SPI: empty in IKE_SA_INIT, 8 octets in an IKE rekey, 4 for ESP.
    pub spi: Vec<u8>,
    /// What was agreed on.
    pub agreement: A,
    /// One transform of each type: the answer.
    pub transforms: Vec<Transform>,
}

impl<A> Chosen<A> {
    /// The answer's only proposal, with our SPI.
    pub fn answer<'a>(&'a self, protocol: Protocol, spi: &'a [u8]) -> ProposalSpec<'a> {
        ProposalSpec { number: self.number, protocol, spi, transforms: &self.transforms }
    }
}

impl Chosen<EspAgreement> {
    /// The peer's SPI as ESP has it; `None` for a reserved value.
    pub fn esp_spi(&self) -> Option<pollux_abi::Spi> {
        let octets: [u8; 4] = self.spi.as_slice().try_into().ok()?;
        pollux_abi::Spi::new(u32::from_be_bytes(octets))
    }
}

impl Proposal {
    /// IKE or ESP.
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// All alternatives, by type.
    pub fn transforms(&self) -> &[Transform] {
        &self.transforms
    }

    /// The key exchange methods, best first. What we initiate with sends a value of the first one.
    pub fn ke_methods(&self) -> impl Iterator<Item = KeMethod> + '_ {
        of_type(&self.transforms, TransformType::KeyExchange).filter_map(|ke| KeMethod::from_id(ke.id))
    }

    /// The same without key exchange: what goes into IKE_AUTH (RFC 7296 §1.2).
    #[must_use]
    pub fn without_ke(&self) -> Self {
        let mut proposal = self.clone();
        proposal.transforms.retain(|transform| transform.kind != TransformType::KeyExchange);
        proposal
    }
}

/// The proposals of an SA payload of ours, numbered from 1. `spi` is empty in IKE_SA_INIT.
pub fn offer<'a>(proposals: &'a [Proposal], spi: &'a [u8]) -> Vec<ProposalSpec<'a>> {
    let numbered = (1..=u8::MAX).zip(proposals);
    let spec = |(number, proposal): (u8, &'a Proposal)| ProposalSpec {
        number,
        protocol: proposal.protocol,
        spi,
        transforms: &proposal.transforms,
    };
    numbered.map(spec).collect()
}

/// Whether any of `proposals` has this method: an INVALID_KE_PAYLOAD may not make us take another one.
pub fn offers_ke(proposals: &[Proposal], method: KeMethod) -> bool {
    proposals.iter().any(|proposal| proposal.ke_methods().any(|ours| ours == method))
}

/// Responder, IKE: the first of ours that the peer offers too.
///
/// `sent` is the method of the peer's KE payload. Where the agreement has another one, the answer is
/// INVALID_KE_PAYLOAD with that one's number (RFC 7296 §1.3). `spi_len` is 0 in IKE_SA_INIT and 8 in a rekey.
pub fn choose_ike(
    ours: &[Proposal],
    theirs: &Sa<'_>,
    sent: Option<KeMethod>,
    spi_len: usize,
) -> Option<Chosen<IkeAgreement>> {
    choose(ours, theirs, |ours, theirs| {
        let fits = theirs.protocol == Protocol::Ike && theirs.spi.len() == spi_len;
        if fits { match_ike(ours, theirs, sent) } else { None }
    })
}

/// Responder, ESP: the first of ours that the peer offers too. In IKE_AUTH pass [`Proposal::without_ke`].
///
/// `sent` is the method of the peer's KE payload, as for [`choose_ike`]; in IKE_AUTH, where `in_auth` is
/// set, a key exchange that the peer offers all the same is passed over.
pub fn choose_esp(
    ours: &[Proposal],
    theirs: &Sa<'_>,
    sent: Option<KeMethod>,
    in_auth: bool,
) -> Option<Chosen<EspAgreement>> {
    choose(ours, theirs, |ours, theirs| {
        let fits = theirs.protocol == Protocol::Esp && theirs.spi.len() == 4;
        if fits { match_esp(ours, theirs, sent, in_auth) } else { None }
    })
}

/// Initiator, IKE: what the responder chose, if it is one of ours and unambiguous.
pub fn accept_ike(ours: &[Proposal], theirs: &Sa<'_>, spi_len: usize) -> Option<Chosen<IkeAgreement>> {
    let ours = answered(ours, theirs)?;
    choose_ike(core::slice::from_ref(ours), theirs, None, spi_len)
}

/// Initiator, ESP: what the responder chose, if it is one of ours and unambiguous.
pub fn accept_esp(ours: &[Proposal], theirs: &Sa<'_>, in_auth: bool) -> Option<Chosen<EspAgreement>> {
    let ours = answered(ours, theirs)?;
    choose_esp(core::slice::from_ref(ours), theirs, None, in_auth)
}

/// The proposal of ours that an answer has chosen by its number: the answer is one proposal with at most one transform
/// of each type (RFC 7296 §3.3.1, §3.3.6).
fn answered<'a>(ours: &'a [Proposal], sa: &Sa<'_>) -> Option<&'a Proposal> {
    let mut proposals = sa.proposals();
    let (Some(only), None) = (proposals.next(), proposals.next()) else { return None };
    let mut seen = 0u64;
    let once = only.transforms().all(|transform| {
        let bit = 1u64.checked_shl(u32::from(transform.kind.to_wire())).unwrap_or(0);
        let fresh = bit != 0 && seen & bit == 0;
        seen |= bit;
        fresh
    });
    let place = usize::from(only.number).checked_sub(1)?;
    ours.get(place).filter(|_| once)
}

fn choose<A>(
    ours: &[Proposal],
    theirs: &Sa<'_>,
    matching: impl Fn(&Proposal, &ProposalView<'_>) -> Option<(A, Vec<Transform>)>,
) -> Option<Chosen<A>> {
    ours.iter().find_map(|ours| {
        theirs.proposals().find_map(|theirs| {
            let (agreement, transforms) = matching(ours, &theirs)?;
            Some(Chosen { number: theirs.number, spi: theirs.spi.to_vec(), agreement, transforms })
        })
    })
}

fn match_ike(
    ours: &Proposal,
    theirs: &ProposalView<'_>,
    sent: Option<KeMethod>,
) -> Option<(IkeAgreement, Vec<Transform>)> {
    let theirs: Vec<Transform> = theirs.transforms().collect();
    let mut answer = refusable(&theirs, TransformType::SequenceNumbers)?;
    let (encryption, integrity) =
        of_type(&ours.transforms, TransformType::Encryption).find_map(|encryption| {
            let known = Encryption::from_id(encryption.id, encryption.key_bits)?;
            let Agreed(integrity) = match_integrity(ours, &theirs, encryption, known.is_combined())?;
            Some((encryption, integrity))
        })?;
    let prf = first_common(&ours.transforms, &theirs, TransformType::Prf)?;
    let Agreed(ke) = match_ke(ours, &theirs, sent)?;
    let agreement = IkeAgreement {
        encryption: Encryption::from_id(encryption.id, encryption.key_bits)?,
        integrity: integrity.and_then(|transform| Integrity::from_id(transform.id)),
        prf: Prf::from_id(prf.id)?,
        ke: KeMethod::from_id(ke?.id)?,
    };
    answer.extend([Some(encryption), Some(prf), integrity, ke].into_iter().flatten());
    Some((agreement, answer))
}

fn match_esp(
    ours: &Proposal,
    theirs: &ProposalView<'_>,
    sent: Option<KeMethod>,
    in_auth: bool,
) -> Option<(EspAgreement, Vec<Transform>)> {
    let mut theirs: Vec<Transform> = theirs.transforms().collect();
    if in_auth {
        theirs.retain(|transform| transform.kind != TransformType::KeyExchange);
    }
    let mut answer = refusable(&theirs, TransformType::Prf)?;
    let (encryption, integrity, suite) =
        of_type(&ours.transforms, TransformType::Encryption).find_map(|encryption| {
            let combined = is_combined_esp(encryption.id);
            let Agreed(integrity) = match_integrity(ours, &theirs, encryption, combined)?;
            let suite = esp_suite(encryption, integrity.map_or(NONE, |transform| transform.id))?;
            Some((encryption, integrity, suite))
        })?;
    let numbers = first_common(&ours.transforms, &theirs, TransformType::SequenceNumbers)?;
    let Agreed(ke) = match_ke(ours, &theirs, sent)?;
    let method = match ke {
        Some(transform) if transform.id != NONE => Some(KeMethod::from_id(transform.id)?),
        _ => None,
    };
    answer.extend([Some(encryption), integrity, ke, Some(numbers)].into_iter().flatten());
    Some((EspAgreement { suite, esn: numbers.id == ESN, ke: method }, answer))
}

/// Theirs has to be taken or refused as a whole: a type that we do not know, or that has no place in this
/// protocol, is bearable only where "none" is among the alternatives, and is then answered with it.
fn refusable(theirs: &[Transform], foreign: TransformType) -> Option<Vec<Transform>> {
    let mut answer: Vec<Transform> = Vec::new();
    for transform in theirs {
        let known = matches!(
            transform.kind,
            TransformType::Encryption
                | TransformType::Prf
                | TransformType::Integrity
                | TransformType::KeyExchange
                | TransformType::SequenceNumbers
        );
        if known && transform.kind != foreign {
            continue;
        }
        let none = Transform::new(transform.kind, NONE);
        if !theirs.contains(&none) {
            return None;
        }
        if !answer.contains(&none) {
            answer.push(none);
        }
    }
    Some(answer)
}

/// What both sides agreed on for a type: one transform, or that none is needed.
struct Agreed(Option<Transform>);

impl Agreed {
    const NOTHING: Self = Self(None);

    const fn on(transform: Transform) -> Self {
        Self(Some(transform))
    }
}

/// The integrity transform that goes with `encryption`; `None` where they do not offer the pair.
fn match_integrity(
    ours: &Proposal,
    theirs: &[Transform],
    encryption: Transform,
    combined: bool,
) -> Option<Agreed> {
    if !theirs.contains(&encryption) {
        return None;
    }
    if !combined {
        return first_common(&ours.transforms, theirs, TransformType::Integrity).map(Agreed::on);
    }
    let none = Transform::new(TransformType::Integrity, NONE);
    if theirs.contains(&none) {
        return Some(Agreed::on(none));
    }
    of_type(theirs, TransformType::Integrity).next().is_none().then_some(Agreed::NOTHING)
}

/// The key exchange transform; `None` where there is no agreement.
fn match_ke(ours: &Proposal, theirs: &[Transform], sent: Option<KeMethod>) -> Option<Agreed> {
    let kind = TransformType::KeyExchange;
    let sent = sent.map(|method| Transform::new(kind, method.id()));
    if let Some(sent) = sent.filter(|sent| ours.transforms.contains(sent) && theirs.contains(sent)) {
        return Some(Agreed::on(sent));
    }
    let none = Transform::new(kind, NONE);
    let has = |list: &[Transform]| of_type(list, kind).next().is_some();
    match (has(&ours.transforms), has(theirs)) {
        (false, false) => Some(Agreed::NOTHING),
        (false, true) => theirs.contains(&none).then_some(Agreed::on(none)),
        (true, false) => ours.transforms.contains(&none).then_some(Agreed::NOTHING),
        (true, true) => first_common(&ours.transforms, theirs, kind).map(Agreed::on),
    }
}

fn first_common(ours: &[Transform], theirs: &[Transform], kind: TransformType) -> Option<Transform> {
    of_type(ours, kind).find(|transform| theirs.contains(transform))
}

pub(super) fn of_type(list: &[Transform], kind: TransformType) -> impl Iterator<Item = Transform> + '_ {
    list.iter().copied().filter(move |transform| transform.kind == kind)
}

pub(super) fn esp_suite(encryption: Transform, integrity: u16) -> Option<EspSuite> {
    EspSuite::ALL.iter().copied().find(|suite| {
        suite.encryption_id() == encryption.id
            && suite.integrity_id() == integrity
            && esp_key_bits(*suite) == encryption.key_bits
    })
}

/// The Key Length attribute of a suite: none where the algorithm has one length only (RFC 7296 §3.3.5).
pub(super) fn esp_key_bits(suite: EspSuite) -> Option<u16> {
    const NULL: u16 = 11;
    const CHACHA20_POLY1305: u16 = 28;
    const CHACHA20_POLY1305_IIV: u16 = 31;
    match suite.encryption_id() {
        NULL | CHACHA20_POLY1305 | CHACHA20_POLY1305_IIV => None,
        _ => u16::try_from(suite.key_len() * 8).ok(),
    }
}

pub(super) fn is_combined_esp(id: u16) -> bool {
    EspSuite::ALL.iter().any(|suite| suite.encryption_id() == id && suite.integrity_id() == NONE)
}
