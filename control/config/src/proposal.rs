//! Proposal strings as swanctl users write them: which keywords exist and which combinations do.
//!
//! What a proposal means on the wire is decided by `pollux-ike`, which has the same grammar: a property test in the
//! control daemon, the one crate that sees both, holds the two together.

use pollux_abi::EspSuite;
use toml::de::DeValue;

use crate::values::{Wrong, closest, text};

/// Which list a proposal stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Ike,
    Esp,
}

/// What a keyword is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Combined(&'static str),
    Cipher(&'static str),
    Integrity(&'static str),
    Prf(&'static str),
    Group,
    SequenceNumbers,
}

/// Ciphers of IKE. Those of ESP are the data plane's.
const IKE_CIPHERS: &[(&str, Part)] = &[
    ("aes256gcm16", Part::Combined("aes256gcm16")),
    ("aes192gcm16", Part::Combined("aes192gcm16")),
    ("aes128gcm16", Part::Combined("aes128gcm16")),
    ("chacha20poly1305", Part::Combined("chacha20poly1305")),
    ("aes256", Part::Cipher("aes256")),
    ("aes192", Part::Cipher("aes192")),
    ("aes128", Part::Cipher("aes128")),
];

const PRFS: &[&str] = &["prfsha256", "prfsha384", "prfsha512"];
const INTEGRITIES: &[&str] = &["sha256", "sha384", "sha512"];
const GROUPS: &[&str] = &["x25519", "ecp256", "ecp384", "ecp521", "modp2048", "modp3072", "modp4096"];
/// Keywords of ESP alone, beside its ciphers.
const ESP_ALONE: &[(&str, Part)] =
    &[("esn", Part::SequenceNumbers), ("noesn", Part::SequenceNumbers), ("modpnone", Part::Group)];

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

const AEAD: &str = "write aes256gcm16 or chacha20poly1305";
const SHA2: &str = "write sha256, sha384 or sha512";
const PRF_SHA2: &str = "write prfsha256, prfsha384 or prfsha512";
const GROUP: &str = "write x25519, ecp256 or modp2048";

/// Algorithms that do not exist here, why, and what to write in their place.
const ABSENT: &[(&str, &str, &str)] = &[
    ("des", "RFC 8247 and RFC 8221: MUST NOT", AEAD),
    ("3des", "64-bit blocks; RFC 8221: SHOULD NOT, RFC 8247: MAY", AEAD),
    ("blowfish", "64-bit blocks; deprecated by RFC 9395", AEAD),
    ("blowfish128", "64-bit blocks; deprecated by RFC 9395", AEAD),
    ("blowfish256", "64-bit blocks; deprecated by RFC 9395", AEAD),
    ("cast128", "64-bit blocks; deprecated by RFC 9395", AEAD),
    ("idea", "64-bit blocks; deprecated by RFC 9395", AEAD),
    ("rc5", "deprecated by RFC 9395", AEAD),
    ("md5", "RFC 8247 and RFC 8221: MUST NOT", SHA2),
    ("md5_128", "deprecated by RFC 9395", SHA2),
    ("sha", "SHA-1; RFC 8247 and RFC 8221: MUST-, on its way out", SHA2),
    ("sha1", "SHA-1; RFC 8247 and RFC 8221: MUST-, on its way out", SHA2),
    ("sha1_160", "SHA-1; not in RFC 8247 or RFC 8221", SHA2),
    ("sha256_96", "RFC 4868 truncates to 128 bits", SHA2),
    ("aesxcbc", "RFC 8247 and RFC 8221: for constrained devices", SHA2),
    ("prfmd5", "RFC 8247: MUST NOT", PRF_SHA2),
    ("prfsha1", "SHA-1; RFC 8247: MUST-, on its way out", PRF_SHA2),
    ("prfaesxcbc", "RFC 8247: for constrained devices", PRF_SHA2),
    ("modp768", "RFC 8247: MUST NOT", GROUP),
    ("modp1024", "RFC 8247: SHOULD NOT", GROUP),
    ("modp1536", "RFC 8247: SHOULD NOT", GROUP),
    ("modp1024s160", "RFC 8247: MUST NOT", GROUP),
    ("modp2048s224", "RFC 8247: SHOULD NOT", GROUP),
    ("modp2048s256", "RFC 8247: SHOULD NOT", GROUP),
    ("ecp192", "not in RFC 8247", GROUP),
    ("ecp224", "not in RFC 8247", GROUP),
];

/// Every keyword and spelling of IKE and ESP proposals, those of [`ABSENT`] too.
pub(crate) fn keywords() -> Vec<&'static str> {
    let mut words = [known(Protocol::Ike), known(Protocol::Esp)].concat();
    words.extend(ALIASES.iter().map(|(alias, _)| alias));
    words.extend(ABSENT.iter().map(|(word, ..)| word));
    words.sort_unstable();
    words.dedup();
    words
}

/// An IKE proposal: cipher, integrity or PRF, group.
pub(crate) fn ike(value: &DeValue<'_>) -> Result<String, Wrong> {
    const FIX: &str = "write for example \"aes256gcm16-prfsha384-ecp384\" or \"aes128-sha256-curve25519\"";
    proposal(value, Protocol::Ike, |parts| {
        let has = |wanted: fn(&Part) -> bool| parts.iter().any(wanted);
        let integrity = has(|part| matches!(part, Part::Integrity(_)));
        let wrong = wrong_cipher(
            parts,
            "names integrity beside a cipher that has its own; the PRF is written prfsha256",
        )
        .or_else(|| {
            let prf = integrity || has(|part| matches!(part, Part::Prf(_)));
            (!prf).then_some("names no PRF")
        })
        .or_else(|| (!has(|part| *part == Part::Group)).then_some("names no key exchange group"));
        wrong.map(|reason| (reason.to_owned(), FIX))
    })
}

/// An ESP proposal: cipher, integrity where the cipher has none, group for PFS, ESN.
pub(crate) fn esp(value: &DeValue<'_>) -> Result<String, Wrong> {
    const FIX: &str =
        "write for example \"aes256gcm16-ecp384\", \"aes128gcm16\" or \"aes128-sha256-curve25519\"";
    proposal(value, Protocol::Esp, |parts| {
        let wrong = wrong_cipher(parts, "names integrity beside a cipher that has its own");
        let wrong = wrong.map(ToOwned::to_owned).or_else(|| no_suite(parts));
        wrong.map(|reason| (reason, FIX))
    })
}

fn proposal(
    value: &DeValue<'_>,
    protocol: Protocol,
    wrong: impl Fn(&[Part]) -> Option<(String, &'static str)>,
) -> Result<String, Wrong> {
    let written = text(value)?;
    if written == "default" {
        return Ok(written);
    }
    match wrong(&parts(&written, protocol)?) {
        None => Ok(written),
        Some((reason, fix)) => Err(Wrong::new(format!("`{written}` {reason}"), fix)),
    }
}

/// What is wrong with a proposal's cipher and integrity; `both` where there is one integrity too many.
fn wrong_cipher(parts: &[Part], both: &'static str) -> Option<&'static str> {
    let has = |wanted: fn(&Part) -> bool| parts.iter().any(wanted);
    let combined = has(|part| matches!(part, Part::Combined(_)));
    let cipher = has(|part| matches!(part, Part::Cipher(_)));
    let integrity = has(|part| matches!(part, Part::Integrity(_)));
    match (combined, cipher, integrity) {
        (false, false, _) => Some("names no cipher"),
        (true, true, _) => {
            Some("mixes ciphers with their own integrity and ciphers without: write two proposals")
        }
        (_, true, false) => Some("names a cipher without integrity"),
        (true, false, true) => Some(both),
        _ => None,
    }
}

/// A pair of cipher and integrity that the data plane does not have.
fn no_suite(parts: &[Part]) -> Option<String> {
    let ciphers = parts.iter().filter_map(|part| match part {
        Part::Cipher(name) => Some(*name),
        _ => None,
    });
    let missing = |cipher: &'static str| {
        parts.iter().find_map(|part| match part {
            Part::Integrity(name) if EspSuite::from_name(&format!("{cipher}-{name}")).is_none() => {
                Some(format!("asks for {cipher} with {name}, and the data plane has no such suite"))
            }
            _ => None,
        })
    };
    ciphers.into_iter().find_map(missing)
}

fn parts(written: &str, protocol: Protocol) -> Result<Vec<Part>, Wrong> {
    written.split('-').map(|word| part(word.trim(), written, protocol)).collect()
}

fn part(word: &str, written: &str, protocol: Protocol) -> Result<Part, Wrong> {
    if word.is_empty() {
        return Err(Wrong::new(
            format!("`{written}` has an empty place"),
            "write keywords with one `-` between them",
        ));
    }
    let lower = word.to_ascii_lowercase();
    if let Some((_, reason, instead)) = ABSENT.iter().find(|(absent, ..)| *absent == lower) {
        return Err(Wrong::new(format!("`{word}` in `{written}` does not exist here ({reason})"), *instead));
    }
    let name = ALIASES.iter().find(|(alias, _)| *alias == lower).map_or(lower.as_str(), |&(_, name)| name);
    if let Some(part) = lookup(name, protocol) {
        return Ok(part);
    }
    let (other, place, fix) = match protocol {
        Protocol::Ike if cipher(name, Protocol::Esp).is_some() => (
            Protocol::Esp,
            "is a cipher of ESP alone",
            "write aes256gcm16, chacha20poly1305 or aes256-sha256",
        ),
        Protocol::Ike => (Protocol::Esp, "is about ESP", "move it to esp_proposals"),
        Protocol::Esp => (Protocol::Ike, "is about IKE", "move it to the connection's proposals"),
    };
    if lookup(name, other).is_some() {
        return Err(Wrong::new(format!("`{word}` in `{written}` {place}"), fix));
    }
    let known = known(protocol);
    let fix = match closest(&lower, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known: {}", known.join(", ")),
    };
    Err(Wrong::new(format!("`{word}` in `{written}` is no algorithm"), fix))
}

fn lookup(name: &str, protocol: Protocol) -> Option<Part> {
    let among = |list: &'static [&'static str]| list.iter().copied().find(|known| *known == name);
    cipher(name, protocol)
        .or_else(|| among(INTEGRITIES).map(Part::Integrity))
        .or_else(|| among(GROUPS).map(|_| Part::Group))
        .or_else(|| match protocol {
            Protocol::Ike => among(PRFS).map(Part::Prf),
            Protocol::Esp => ESP_ALONE.iter().find(|(known, _)| *known == name).map(|(_, part)| *part),
        })
}

fn cipher(name: &str, protocol: Protocol) -> Option<Part> {
    match protocol {
        Protocol::Ike => IKE_CIPHERS.iter().find(|(known, _)| *known == name).map(|(_, part)| *part),
        Protocol::Esp => EspSuite::ALL
            .iter()
            .copied()
            .map(of_suite)
            .find(|(known, _)| *known == name)
            .map(|(_, part)| part),
    }
}

/// The cipher of a suite of the data plane.
fn of_suite(suite: EspSuite) -> (&'static str, Part) {
    let name = suite.name().split('-').next().unwrap_or_default();
    (name, if suite.integrity_id() == 0 { Part::Combined(name) } else { Part::Cipher(name) })
}

/// Our spellings of one protocol's keywords.
fn known(protocol: Protocol) -> Vec<&'static str> {
    let mut known: Vec<&'static str> = Vec::new();
    match protocol {
        Protocol::Ike => {
            known.extend(IKE_CIPHERS.iter().map(|(name, _)| name));
            known.extend(PRFS);
        }
        Protocol::Esp => {
            for (name, _) in EspSuite::ALL.iter().copied().map(of_suite) {
                // Each cipher stands in several suites.
                if !known.contains(&name) {
                    known.push(name);
                }
            }
            known.extend(ESP_ALONE.iter().map(|(name, _)| name));
        }
    }
    known.extend(INTEGRITIES);
    known.extend(GROUPS);
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ike_text(written: &str) -> Result<String, Wrong> {
        ike(&DeValue::String(written.into()))
    }

    fn esp_text(written: &str) -> Result<String, Wrong> {
        esp(&DeValue::String(written.into()))
    }

    #[test]
    fn proposals_of_swanctl_users_pass() {
        for written in [
            "aes256gcm16-prfsha384-ecp384",
            "aes128-sha256-modp3072",
            "aes256gcm16-aes128gcm16-prfsha256-x25519",
            "chacha20poly1305-prfsha256-x25519",
            "AES256GCM - PRFSHA256 - Curve25519",
            "aes-sha2_256-prfsha256-modp2048",
        ] {
            assert_eq!(ike_text(written), Ok(written.to_owned()));
        }
        for written in [
            "aes128gcm16",
            "chacha20poly1305-x25519",
            "aes256gcm16-ecp384-esn-noesn",
            "aes256-sha512-curve25519",
            "aes128gcm96",
            "null-sha256-modpnone",
            "default",
        ] {
            assert_eq!(esp_text(written), Ok(written.to_owned()));
        }
    }

    #[test]
    fn incomplete_absent_mixed_and_unknown_proposals_are_refused() {
        for written in [
            "aes128",
            "aes128-sha1-modp2048",
            "aes256gcm16-ecp384",
            "prfsha256-ecp256",
            "aes256gmc16",
            "aes128-sha256-x25519-esn",
            "aes256gcm16-aes256-sha256-x25519",
            "aes256gcm16--prfsha256-x25519",
            "aes256gcm16-prfsha256-x25519-modpnone",
            "aes128gcm12-prfsha256-x25519",
            "",
        ] {
            assert!(ike_text(written).is_err(), "{written}");
        }
        for written in [
            "aes128",
            "3des-sha256",
            "aes128gcm16-sha256",
            "aes128gcm16-prfsha256",
            "aes128gcm16-aes128-sha256",
        ] {
            assert!(esp_text(written).is_err(), "{written}");
        }
    }

    #[test]
    fn what_is_absent_is_said_with_the_words_of_the_rfc() {
        for (written, reason) in [
            ("3des-sha256-modp2048", "RFC 8247: MAY"),
            ("aes128-sha1-modp2048", "RFC 8247 and RFC 8221: MUST-"),
            ("aes128-sha256-modp1024", "RFC 8247: SHOULD NOT"),
            ("aes128-sha256-modp768", "RFC 8247: MUST NOT"),
            ("aes128-aesxcbc-modp2048", "for constrained devices"),
        ] {
            let wrong = ike_text(written).expect_err(written);
            assert!(wrong.reason.contains(reason), "{}", wrong.reason);
        }
    }
}
