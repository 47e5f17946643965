//! Proposals as swanctl users write them, and as the log shows them.
//!
//! `aes256gcm16-prfsha384-ecp384`: keywords of any type in any order, each a further alternative of its type.
//! What RFC 8247 (IKE) and RFC 8221 (ESP) call MUST NOT or SHOULD NOT does not exist here, nor do SHA-1 (MUST-), 3DES,
//! and what they want of constrained devices alone; the error quotes them and names the replacement. The configuration's
//! check has the same grammar.

use core::fmt;

use pollux_abi::EspSuite;
use thiserror::Error;

use super::proposal::{ESN, NO_ESN, NONE, Proposal, esp_key_bits, esp_suite, is_combined_esp, of_type};
use crate::crypto::{Encryption, Integrity, KeMethod, Prf};
use crate::message::{Protocol, Sa, Transform, TransformType};

/// Why a proposal string is none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SyntaxError {
    /// A keyword that we do not know.
    #[error("`{keyword}` is no algorithm of {protocol} proposals; known are {known}")]
    Unknown {
        /// The keyword.
        keyword: String,
        /// IKE or ESP.
        protocol: Protocol,
        /// All keywords.
        known: String,
    },
    /// An algorithm that is not to be used any more, or not by a gateway.
    #[error("`{keyword}` does not exist here ({reason}): use {instead}")]
    Absent {
        /// The keyword.
        keyword: String,
        /// Why, with the words of the RFC.
        reason: &'static str,
        /// What to use in its place.
        instead: &'static str,
    },
    /// An algorithm of the other protocol.
    #[error("`{keyword}` has no place in an {protocol} proposal: {fix}")]
    Misplaced {
        /// The keyword.
        keyword: String,
        /// IKE or ESP.
        protocol: Protocol,
        /// What to do.
        fix: &'static str,
    },
    /// A type of which there must be at least one.
    #[error("the {protocol} proposal has no {missing}: add one, such as `{such_as}`")]
    Missing {
        /// IKE or ESP.
        protocol: Protocol,
        /// What is missing.
        missing: &'static str,
        /// An example.
        such_as: &'static str,
    },
    /// Combined modes and others in one proposal.
    #[error(
        "combined modes such as aes256gcm16 and ciphers that need an integrity algorithm cannot share a proposal: write two"
    )]
    Mixed,
    /// An integrity algorithm beside a combined mode.
    #[error("`{keyword}` is an integrity algorithm, and {cipher} authenticates by itself: {fix}")]
    NeedlessIntegrity {
        /// The keyword.
        keyword: String,
        /// The combined mode.
        cipher: String,
        /// What to do.
        fix: &'static str,
    },
    /// A pair of cipher and integrity that the data plane does not have.
    #[error("the data plane has no suite of {cipher} and {integrity}")]
    NoSuite {
        /// Encryption.
        cipher: String,
        /// Integrity.
        integrity: String,
    },
    /// No keyword at all.
    #[error("the proposal is empty")]
    Empty,
}

/// Algorithms that do not exist here, why, and what to use in their place.
const ABSENT: &[(&str, &str, &str)] = &[
    ("des", "RFC 8247 and RFC 8221: MUST NOT", "aes256gcm16"),
    ("3des", "64-bit blocks; RFC 8221: SHOULD NOT, RFC 8247: MAY", "aes256gcm16, or aes256 with sha256"),
    ("blowfish", "64-bit blocks; deprecated by RFC 9395", "aes256gcm16, or aes256 with sha256"),
    ("blowfish128", "64-bit blocks; deprecated by RFC 9395", "aes256gcm16, or aes256 with sha256"),
    ("blowfish256", "64-bit blocks; deprecated by RFC 9395", "aes256gcm16, or aes256 with sha256"),
    ("cast128", "64-bit blocks; deprecated by RFC 9395", "aes256gcm16, or aes256 with sha256"),
    ("idea", "64-bit blocks; deprecated by RFC 9395", "aes256gcm16"),
    ("rc5", "deprecated by RFC 9395", "aes256gcm16"),
    ("md5", "RFC 8247 and RFC 8221: MUST NOT", "sha256"),
    ("md5_128", "deprecated by RFC 9395", "sha256"),
    ("sha", "SHA-1; RFC 8247 and RFC 8221: MUST-, on its way out", "sha256"),
    ("sha1", "SHA-1; RFC 8247 and RFC 8221: MUST-, on its way out", "sha256"),
    ("sha1_160", "SHA-1; not in RFC 8247 or RFC 8221", "sha256"),
    ("sha256_96", "RFC 4868 truncates to 128 bits", "sha256"),
    ("aesxcbc", "RFC 8247 and RFC 8221: for constrained devices", "sha256"),
    ("prfmd5", "RFC 8247: MUST NOT", "prfsha256"),
    ("prfsha1", "SHA-1; RFC 8247: MUST-, on its way out", "prfsha256"),
    ("prfaesxcbc", "RFC 8247: for constrained devices", "prfsha256"),
    ("modp768", "RFC 8247: MUST NOT", "modp2048 or x25519"),
    ("modp1024", "RFC 8247: SHOULD NOT", "modp2048 or x25519"),
    ("modp1536", "RFC 8247: SHOULD NOT", "modp2048 or x25519"),
    ("modp1024s160", "RFC 8247: MUST NOT", "modp2048 or x25519"),
    ("modp2048s224", "RFC 8247: SHOULD NOT", "modp2048 or x25519"),
    ("modp2048s256", "RFC 8247: SHOULD NOT", "modp2048 or x25519"),
    ("ecp192", "not in RFC 8247", "ecp256 or x25519"),
    ("ecp224", "not in RFC 8247", "ecp256 or x25519"),
];

/// Every keyword and spelling of IKE and ESP proposals, those that are refused by name too: for the test that holds
/// the configuration's check against this grammar.
pub fn keywords() -> Vec<String> {
    let of_protocols = [known(Protocol::Ike), known(Protocol::Esp)].join(", ");
    let known = of_protocols.split(", ").map(ToOwned::to_owned);
    let aliases = ALIASES.iter().map(|(alias, _)| (*alias).to_owned());
    let absent = ABSENT.iter().map(|(word, ..)| (*word).to_owned());
    let mut words: Vec<String> = known.chain(aliases).chain(absent).collect();
    words.sort_unstable();
    words.dedup();
    words
}

impl Proposal {
    /// An IKE proposal.
    pub fn parse_ike(text: &str) -> Result<Self, SyntaxError> {
        let mut proposal = Self::read(Protocol::Ike, text)?;
        proposal.check_ike()?;
        proposal.in_order();
        Ok(proposal)
    }

    /// An ESP proposal. One that names neither `esn` nor `noesn` offers both, ESN first.
    pub fn parse_esp(text: &str) -> Result<Self, SyntaxError> {
        let mut proposal = Self::read(Protocol::Esp, text)?;
        proposal.check_esp()?;
        if !proposal.has(TransformType::SequenceNumbers) {
            for id in [ESN, NO_ESN] {
                proposal.add(Transform::new(TransformType::SequenceNumbers, id));
            }
        }
        proposal.in_order();
        Ok(proposal)
    }

    /// What is offered and accepted for an IKE SA where the configuration says nothing.
    pub fn default_ike() -> Vec<Self> {
        let ciphers: [&[Encryption]; 2] = [
            &[
                Encryption::Aes256Gcm16,
                Encryption::Aes192Gcm16,
                Encryption::Aes128Gcm16,
                Encryption::ChaCha20Poly1305,
            ],
            &[Encryption::Aes256Cbc, Encryption::Aes192Cbc, Encryption::Aes128Cbc],
        ];
        let proposal = |ciphers: &[Encryption]| {
            let mut proposal = Self { protocol: Protocol::Ike, transforms: Vec::new() };
            for &cipher in ciphers {
                proposal.add(encryption(cipher));
                if !cipher.is_combined() {
                    for &integrity in Integrity::ALL {
                        proposal.add(Transform::new(TransformType::Integrity, integrity.id()));
                    }
                }
            }
            for &prf in Prf::ALL {
                proposal.add(Transform::new(TransformType::Prf, prf.id()));
            }
            for &method in KeMethod::ALL {
                proposal.add(Transform::new(TransformType::KeyExchange, method.id()));
            }
            proposal.in_order();
            proposal
        };
        ciphers.into_iter().map(proposal).collect()
    }

    /// What is offered and accepted for a Child SA where the configuration says nothing: no key exchange of
    /// its own, extended sequence numbers and not.
    pub fn default_esp() -> Vec<Self> {
        let suites: [&[EspSuite]; 2] = [
            &[EspSuite::Aes256Gcm16, EspSuite::Aes192Gcm16, EspSuite::Aes128Gcm16],
            &[EspSuite::Aes256CbcSha256, EspSuite::Aes192CbcSha256, EspSuite::Aes128CbcSha256],
        ];
        let proposal = |suites: &[EspSuite]| {
            let mut proposal = Self { protocol: Protocol::Esp, transforms: Vec::new() };
            for &suite in suites {
                proposal.add(esp_encryption(suite));
                if suite.integrity_id() != NONE {
                    proposal.add(Transform::new(TransformType::Integrity, suite.integrity_id()));
                }
            }
            for id in [ESN, NO_ESN] {
                proposal.add(Transform::new(TransformType::SequenceNumbers, id));
            }
            proposal.in_order();
            proposal
        };
        suites.into_iter().map(proposal).collect()
    }

    fn read(protocol: Protocol, text: &str) -> Result<Self, SyntaxError> {
        let mut proposal = Self { protocol, transforms: Vec::new() };
        for keyword in text.split('-').map(str::trim) {
            if keyword.is_empty() {
                return Err(SyntaxError::Empty);
            }
            let keyword = keyword.to_ascii_lowercase();
            proposal.add(transform(protocol, &keyword)?);
        }
        Ok(proposal)
    }

    fn add(&mut self, transform: Transform) {
        if !self.transforms.contains(&transform) {
            self.transforms.push(transform);
        }
    }

    fn has(&self, kind: TransformType) -> bool {
        of_type(&self.transforms, kind).next().is_some()
    }

    /// By type, and inside a type as written: what strongSwan and the RFC's examples send.
    fn in_order(&mut self) {
        self.transforms.sort_by_key(|transform| transform.kind);
    }

    fn missing(&self, missing: &'static str, such_as: &'static str) -> SyntaxError {
        SyntaxError::Missing { protocol: self.protocol, missing, such_as }
    }

    /// Either all combined or none; integrity exactly for those that need it.
    fn check_integrity(
        &self,
        combined: impl Fn(u16) -> bool,
        fix: &'static str,
    ) -> Result<bool, SyntaxError> {
        let ciphers = || of_type(&self.transforms, TransformType::Encryption);
        let Some(first) = ciphers().next() else {
            return Err(self.missing("encryption algorithm", "aes256gcm16"));
        };
        let is_combined = combined(first.id);
        if ciphers().any(|cipher| combined(cipher.id) != is_combined) {
            return Err(SyntaxError::Mixed);
        }
        match of_type(&self.transforms, TransformType::Integrity).next() {
            Some(integrity) if is_combined => Err(SyntaxError::NeedlessIntegrity {
                keyword: keyword(self.protocol, &integrity),
                cipher: keyword(self.protocol, &first),
                fix,
            }),
            None if !is_combined => Err(self.missing("integrity algorithm", "sha256")),
            _ => Ok(is_combined),
        }
    }

    fn check_ike(&mut self) -> Result<(), SyntaxError> {
        let combined = |id| Encryption::ALL.iter().any(|cipher| cipher.id() == id && cipher.is_combined());
        let combined = self.check_integrity(combined, "name a PRF such as `prfsha256` in its place")?;
        if !self.has(TransformType::Prf) {
            if combined {
                return Err(self.missing("PRF", "prfsha256"));
            }
            let integrity: Vec<_> = of_type(&self.transforms, TransformType::Integrity).collect();
            for prf in integrity.iter().filter_map(|transform| Integrity::from_id(transform.id)) {
                self.add(Transform::new(TransformType::Prf, prf.prf().id()));
            }
        }
        if !self.has(TransformType::KeyExchange) {
            return Err(self.missing("key exchange method", "x25519"));
        }
        Ok(())
    }

    fn check_esp(&self) -> Result<(), SyntaxError> {
        let combined = self.check_integrity(is_combined_esp, "leave it out")?;
        if combined {
            return Ok(());
        }
        for cipher in of_type(&self.transforms, TransformType::Encryption) {
            for integrity in of_type(&self.transforms, TransformType::Integrity) {
                if esp_suite(cipher, integrity.id).is_none() {
                    return Err(SyntaxError::NoSuite {
                        cipher: keyword(self.protocol, &cipher),
                        integrity: keyword(self.protocol, &integrity),
                    });
                }
            }
        }
        Ok(())
    }
}

/// As swanctl users write it.
impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(self.protocol, self.transforms.iter().copied()))
    }
}

/// Our proposals as one piece of text for the log.
pub fn describe(proposals: &[Proposal]) -> String {
    let list: Vec<String> = proposals.iter().map(Proposal::to_string).collect();
    list.join(", ")
}

/// The peer's proposals as one piece of text for the log, cut short where a peer sends very many.
pub fn describe_sa(sa: &Sa<'_>) -> String {
    /// A line stays readable, whatever a peer sends.
    const PROPOSALS_SHOWN_MAX: usize = 8;
    const TRANSFORMS_SHOWN_MAX: usize = 40;
    let shown = sa.proposals().take(PROPOSALS_SHOWN_MAX);
    let list = shown.map(|proposal| {
        let mut text = join(proposal.protocol, proposal.transforms().take(TRANSFORMS_SHOWN_MAX));
        if proposal.transforms().count() > TRANSFORMS_SHOWN_MAX {
            text.push_str("-…");
        }
        if text.is_empty() { "nothing".to_owned() } else { text }
    });
    let mut text = list.collect::<Vec<_>>().join(", ");
    if sa.proposals().count() > PROPOSALS_SHOWN_MAX {
        text.push_str(", …");
    }
    text
}

/// Chosen transforms as swanctl users write them.
pub fn describe_transforms(protocol: Protocol, transforms: &[Transform]) -> String {
    join(protocol, transforms.iter().copied())
}

fn join(protocol: Protocol, transforms: impl Iterator<Item = Transform>) -> String {
    let keywords: Vec<String> = transforms.map(|transform| keyword(protocol, &transform)).collect();
    keywords.join("-")
}

fn encryption(cipher: Encryption) -> Transform {
    Transform { key_bits: cipher.key_bits(), ..Transform::new(TransformType::Encryption, cipher.id()) }
}

fn esp_encryption(suite: EspSuite) -> Transform {
    Transform {
        key_bits: esp_key_bits(suite),
        ..Transform::new(TransformType::Encryption, suite.encryption_id())
    }
}

/// The name of a suite's cipher alone: `aes128` of `aes128-sha256`.
fn cipher_name(suite: EspSuite) -> &'static str {
    suite.name().split('-').next().unwrap_or_default()
}

/// Other spellings that swanctl takes, and ours for them.
const ALIASES: &[(&str, &str)] = &[
    ("aes", "aes128"),
    ("aes128gcm128", "aes128gcm16"),
    ("aes192gcm128", "aes192gcm16"),
    ("aes256gcm128", "aes256gcm16"),
    ("aes128gcm96", "aes128gcm12"),
    ("aes192gcm96", "aes192gcm12"),
    ("aes256gcm96", "aes256gcm12"),
    ("aes128gcm64", "aes128gcm8"),
    ("aes192gcm64", "aes192gcm8"),
    ("aes256gcm64", "aes256gcm8"),
    ("aes128gcm", "aes128gcm16"),
    ("aes192gcm", "aes192gcm16"),
    ("aes256gcm", "aes256gcm16"),
    ("chacha20poly1305compat", "chacha20poly1305"),
    ("sha2_256", "sha256"),
    ("sha2_384", "sha384"),
    ("sha2_512", "sha512"),
    ("sha256_128", "sha256"),
    ("sha384_192", "sha384"),
    ("sha512_256", "sha512"),
    ("curve25519", "x25519"),
    ("nullencr", "null"),
];

fn transform(protocol: Protocol, keyword: &str) -> Result<Transform, SyntaxError> {
    if let Some(&(_, reason, instead)) = ABSENT.iter().find(|(absent, ..)| *absent == keyword) {
        return Err(SyntaxError::Absent { keyword: keyword.to_owned(), reason, instead });
    }
    let name = ALIASES.iter().find(|(alias, _)| *alias == keyword).map_or(keyword, |&(_, name)| name);
    let of_protocol = match protocol {
        Protocol::Ike => ike_transform(name),
        _ => esp_transform(name),
    };
    if let Some(transform) = of_protocol.or_else(|| shared_transform(name)) {
        return Ok(transform);
    }
    let misplaced = |fix| Err(SyntaxError::Misplaced { keyword: keyword.to_owned(), protocol, fix });
    match protocol {
        Protocol::Ike if matches!(name, "esn" | "noesn" | "modpnone") => {
            misplaced("it belongs into esp_proposals")
        }
        Protocol::Ike if esp_transform(name).is_some() => misplaced("use aes256gcm16, or aes256 with sha256"),
        Protocol::Esp if ike_transform(name).is_some() => misplaced("it belongs into proposals"),
        _ => Err(SyntaxError::Unknown { keyword: keyword.to_owned(), protocol, known: known(protocol) }),
    }
}

fn ike_transform(name: &str) -> Option<Transform> {
    let cipher = Encryption::ALL.iter().copied().find(|cipher| cipher.name() == name).map(encryption);
    cipher.or_else(|| {
        let prf = Prf::ALL.iter().find(|prf| prf.name() == name)?;
        Some(Transform::new(TransformType::Prf, prf.id()))
    })
}

fn esp_transform(name: &str) -> Option<Transform> {
    if let Some(&suite) = EspSuite::ALL.iter().find(|suite| cipher_name(**suite) == name) {
        return Some(esp_encryption(suite));
    }
    match name {
        "esn" => Some(Transform::new(TransformType::SequenceNumbers, ESN)),
        "noesn" => Some(Transform::new(TransformType::SequenceNumbers, NO_ESN)),
        "modpnone" => Some(Transform::new(TransformType::KeyExchange, NONE)),
        _ => None,
    }
}

fn shared_transform(name: &str) -> Option<Transform> {
    let integrity = Integrity::ALL.iter().find(|integrity| integrity.name() == name);
    let integrity = integrity.map(|integrity| Transform::new(TransformType::Integrity, integrity.id()));
    integrity.or_else(|| {
        let method = KeMethod::ALL.iter().find(|method| method.name() == name)?;
        Some(Transform::new(TransformType::KeyExchange, method.id()))
    })
}

fn known(protocol: Protocol) -> String {
    let mut names: Vec<&str> = Vec::new();
    let esp = protocol != Protocol::Ike;
    if esp {
        names.extend(EspSuite::ALL.iter().map(|suite| cipher_name(*suite)));
    } else {
        names.extend(Encryption::ALL.iter().map(|cipher| cipher.name()));
        names.extend(Prf::ALL.iter().map(|prf| prf.name()));
    }
    names.extend(Integrity::ALL.iter().map(|integrity| integrity.name()));
    names.extend(KeMethod::ALL.iter().map(|method| method.name()));
    if esp {
        names.extend(["modpnone", "esn", "noesn"]);
    }
    // Each cipher stands in several suites.
    let mut once: Vec<&str> = Vec::with_capacity(names.len());
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    once.join(", ")
}

/// Weak and foreign algorithms that peers still offer, so that the log shows a word and not a number.
const FOREIGN: &[(TransformType, u16, &str)] = &[
    (TransformType::Encryption, 2, "des"),
    (TransformType::Encryption, 3, "3des"),
    (TransformType::Encryption, 7, "blowfish"),
    (TransformType::Encryption, 11, "null"),
    (TransformType::Encryption, 13, "aesctr"),
    (TransformType::Encryption, 14, "aesccm8"),
    (TransformType::Encryption, 15, "aesccm12"),
    (TransformType::Encryption, 16, "aesccm16"),
    (TransformType::Encryption, 18, "aesgcm8"),
    (TransformType::Encryption, 19, "aesgcm12"),
    (TransformType::Encryption, 20, "aesgcm16"),
    (TransformType::Encryption, 23, "camellia"),
    (TransformType::Encryption, 28, "chacha20poly1305"),
    (TransformType::Integrity, 0, "nointeg"),
    (TransformType::Integrity, 1, "md5"),
    (TransformType::Integrity, 2, "sha1"),
    (TransformType::Integrity, 5, "aesxcbc"),
    (TransformType::Integrity, 8, "aescmac"),
    (TransformType::Prf, 1, "prfmd5"),
    (TransformType::Prf, 2, "prfsha1"),
    (TransformType::Prf, 4, "prfaesxcbc"),
    (TransformType::Prf, 8, "prfaescmac"),
    (TransformType::KeyExchange, 0, "modpnone"),
    (TransformType::KeyExchange, 1, "modp768"),
    (TransformType::KeyExchange, 2, "modp1024"),
    (TransformType::KeyExchange, 5, "modp1536"),
    (TransformType::KeyExchange, 17, "modp6144"),
    (TransformType::KeyExchange, 18, "modp8192"),
    (TransformType::KeyExchange, 22, "modp1024s160"),
    (TransformType::KeyExchange, 23, "modp2048s224"),
    (TransformType::KeyExchange, 24, "modp2048s256"),
    (TransformType::KeyExchange, 25, "ecp192"),
    (TransformType::KeyExchange, 26, "ecp224"),
    (TransformType::KeyExchange, 27, "ecp224bp"),
    (TransformType::KeyExchange, 28, "ecp256bp"),
    (TransformType::KeyExchange, 29, "ecp384bp"),
    (TransformType::KeyExchange, 30, "ecp512bp"),
    (TransformType::KeyExchange, 32, "x448"),
    (TransformType::KeyExchange, 35, "mlkem512"),
    (TransformType::KeyExchange, 36, "mlkem768"),
    (TransformType::KeyExchange, 37, "mlkem1024"),
];

fn keyword(protocol: Protocol, transform: &Transform) -> String {
    let ours = match (protocol, transform.kind) {
        (Protocol::Ike, TransformType::Encryption) => {
            Encryption::from_id(transform.id, transform.key_bits).map(Encryption::name)
        }
        (_, TransformType::Encryption) => {
            EspSuite::ALL.iter().copied().find(|suite| esp_encryption(*suite) == *transform).map(cipher_name)
        }
        (_, TransformType::Prf) => Prf::from_id(transform.id).map(Prf::name),
        (_, TransformType::Integrity) => Integrity::from_id(transform.id).map(Integrity::name),
        (_, TransformType::KeyExchange) => KeMethod::from_id(transform.id).map(KeMethod::name),
        (_, TransformType::SequenceNumbers) => Some(if transform.id == ESN { "esn" } else { "noesn" }),
        _ => None,
    };
    if let Some(name) = ours {
        return name.to_owned();
    }
    let foreign = FOREIGN.iter().find(|(kind, id, _)| *kind == transform.kind && *id == transform.id);
    let name = match foreign {
        Some((.., name)) => (*name).to_owned(),
        None => format!("{}:{}", transform.kind, transform.id),
    };
    match transform.key_bits {
        Some(bits) => format!("{name}({bits} bits)"),
        None => name,
    }
}

#[cfg(test)]
mod tests;
