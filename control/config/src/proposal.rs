//! Proposal strings as swanctl users write them: which keywords exist and which combinations do.
//!
//! What a proposal means on the wire is decided by `pollux-ike`; this list and its parser are held
//! together by a test in the control daemon, the one crate that sees both.

use pollux_abi::EspSuite;
use toml::de::DeValue;

use crate::values::{Wrong, closest, text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Combined,
    Cipher,
    Integrity,
    Prf,
    Group,
    Esn,
}

/// Keywords of IKE and ESP alike.
const KEYWORDS: &[(&str, Part)] = &[
    ("aes128gcm16", Part::Combined),
    ("aes192gcm16", Part::Combined),
    ("aes256gcm16", Part::Combined),
    ("aes128gcm128", Part::Combined),
    ("aes192gcm128", Part::Combined),
    ("aes256gcm128", Part::Combined),
    ("aes128gcm", Part::Combined),
    ("aes192gcm", Part::Combined),
    ("aes256gcm", Part::Combined),
    ("aes", Part::Cipher),
    ("aes128", Part::Cipher),
    ("aes192", Part::Cipher),
    ("aes256", Part::Cipher),
    ("sha256", Part::Integrity),
    ("sha384", Part::Integrity),
    ("sha512", Part::Integrity),
    ("prfsha256", Part::Prf),
    ("prfsha384", Part::Prf),
    ("prfsha512", Part::Prf),
    ("modp2048", Part::Group),
    ("modp3072", Part::Group),
    ("modp4096", Part::Group),
    ("ecp256", Part::Group),
    ("ecp384", Part::Group),
    ("ecp521", Part::Group),
    ("curve25519", Part::Group),
    ("x25519", Part::Group),
];

/// Keywords of ESP alone, beside the data plane's combined suites.
const ESP_KEYWORDS: &[(&str, Part)] =
    &[("esn", Part::Esn), ("noesn", Part::Esn), ("modpnone", Part::Group), ("null", Part::Cipher)];

/// Algorithms that RFC 8247 and RFC 8221 rule out; they do not exist here.
const WEAK: &[&str] = &[
    "des",
    "3des",
    "blowfish",
    "cast128",
    "rc5",
    "md5",
    "sha",
    "sha1",
    "modp768",
    "modp1024",
    "modp1536",
    "prfmd5",
    "prfsha1",
    "modp1024s160",
    "modp2048s224",
    "modp2048s256",
    "idea",
];

/// An IKE proposal: cipher, integrity or PRF, group.
pub(crate) fn ike(value: &DeValue<'_>) -> Result<String, Wrong> {
    const FIX: &str = "write for example \"aes256gcm16-prfsha384-ecp384\" or \"aes128-sha256-curve25519\"";
    proposal(value, false, FIX, |parts| {
        let has = |part| parts.contains(&part);
        wrong_cipher(parts, "names integrity beside a cipher that has its own; the PRF is written prfsha256")
            .or_else(|| (!has(Part::Prf) && !has(Part::Integrity)).then_some("names no PRF"))
            .or_else(|| (!has(Part::Group)).then_some("names no key exchange group"))
    })
}

/// An ESP proposal: cipher, integrity where the cipher has none, group for PFS, ESN.
pub(crate) fn esp(value: &DeValue<'_>) -> Result<String, Wrong> {
    const FIX: &str =
        "write for example \"aes256gcm16-ecp384\", \"aes128gcm16\" or \"aes128-sha256-curve25519\"";
    proposal(value, true, FIX, |parts| {
        let names_prf = || {
            let has = parts.contains(&Part::Prf);
            has.then_some("names a PRF, which belongs to the connection's proposals")
        };
        wrong_cipher(parts, "names integrity beside a cipher that has its own").or_else(names_prf)
    })
}

fn proposal(
    value: &DeValue<'_>,
    esp: bool,
    fix: &'static str,
    wrong: impl Fn(&[Part]) -> Option<&'static str>,
) -> Result<String, Wrong> {
    let written = text(value)?;
    if written == "default" {
        return Ok(written);
    }
    match wrong(&parts(&written, esp)?) {
        None => Ok(written),
        Some(reason) => Err(Wrong::new(format!("`{written}` {reason}"), fix)),
    }
}

/// What is wrong with a proposal's cipher and integrity; `both` where there is one integrity too many.
fn wrong_cipher(parts: &[Part], both: &'static str) -> Option<&'static str> {
    let has = |part| parts.contains(&part);
    match (has(Part::Combined), has(Part::Cipher), has(Part::Integrity)) {
        (false, false, _) => Some("names no cipher"),
        (_, true, false) => Some("names a cipher without integrity"),
        (true, false, true) => Some(both),
        _ => None,
    }
}

fn parts(written: &str, esp: bool) -> Result<Vec<Part>, Wrong> {
    let mut known = KEYWORDS.to_vec();
    if esp {
        known.extend_from_slice(ESP_KEYWORDS);
        let combined = EspSuite::ALL.iter().filter(|suite| suite.integrity_id() == 0);
        known.extend(combined.map(|suite| (suite.name(), Part::Combined)));
    }
    let mut names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    names.dedup();
    written
        .split('-')
        .map(|word| {
            if let Some((_, part)) = known.iter().find(|(name, _)| *name == word) {
                return Ok(*part);
            }
            if matches!(word, "esn" | "noesn") {
                return Err(Wrong::new(
                    format!("`{word}` in `{written}` is about ESP"),
                    "move it to esp_proposals",
                ));
            }
            if WEAK.contains(&word) {
                return Err(Wrong::new(
                    format!("`{word}` in `{written}` is too weak (RFC 8247) and does not exist here"),
                    "write for example aes256gcm16, sha256, curve25519",
                ));
            }
            let fix = match closest(word, &names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known: {}", names.join(", ")),
            };
            Err(Wrong::new(format!("`{word}` in `{written}` is no algorithm"), fix))
        })
        .collect()
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
        ] {
            assert_eq!(ike_text(written), Ok(written.to_owned()));
        }
        for written in [
            "aes128gcm16",
            "chacha20poly1305-x25519",
            "aes256gcm16-ecp384-esn-noesn",
            "aes256-sha512-curve25519",
            "default",
        ] {
            assert_eq!(esp_text(written), Ok(written.to_owned()));
        }
    }

    #[test]
    fn incomplete_weak_and_unknown_proposals_are_refused() {
        for written in [
            "aes128",
            "aes128-sha1-modp2048",
            "aes256gcm16-ecp384",
            "prfsha256-ecp256",
            "aes256gmc16",
            "aes128-sha256-x25519-esn",
            "",
        ] {
            assert!(ike_text(written).is_err(), "{written}");
        }
        for written in ["aes128", "3des-sha256", "aes128gcm16-sha256", "aes128gcm16-prfsha256"] {
            assert!(esp_text(written).is_err(), "{written}");
        }
    }
}
