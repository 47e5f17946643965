//! How the data plane tells which keys it holds without telling the keys.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use pollux_abi::{EspSuite, KeyMaterial};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;

/// The first 16 octets of HMAC-SHA2-256 over suite and key material.
///
/// The HMAC key is drawn by the data plane at start and told to the attached control process alone, so
/// that a fingerprint in a log cannot be searched for weak keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

/// The fingerprint of `material` under the data plane's `key`.
///
/// # Panics
/// Never: HMAC takes a key of any length.
pub fn fingerprint(key: &[u8; 32], suite: EspSuite, material: &KeyMaterial) -> Fingerprint {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(&suite.code().to_le_bytes());
    mac.update(material.as_bytes());
    let tag = mac.finalize().into_bytes();
    let mut octets = [0; 16];
    octets.copy_from_slice(&tag[..16]);
    Fingerprint(octets)
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        crate::values::hex(&text)
            .and_then(|octets| octets.as_slice().try_into().ok())
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("a fingerprint is 32 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_differ_by_suite_keys_and_data_plane() {
        let material = KeyMaterial::new(&[7; 20]).expect("fits");
        let other = KeyMaterial::new(&[8; 20]).expect("fits");
        let print = fingerprint(&[1; 32], EspSuite::Aes128Gcm16, &material);
        assert_eq!(print, fingerprint(&[1; 32], EspSuite::Aes128Gcm16, &material));
        assert_ne!(print, fingerprint(&[1; 32], EspSuite::Aes128Gcm8, &material));
        assert_ne!(print, fingerprint(&[1; 32], EspSuite::Aes128Gcm16, &other));
        assert_ne!(print, fingerprint(&[2; 32], EspSuite::Aes128Gcm16, &material));
    }

    #[test]
    fn fingerprint_survives_json() {
        let material = KeyMaterial::new(&[7; 20]).expect("fits");
        let print = fingerprint(&[1; 32], EspSuite::Aes128Gcm16, &material);
        let text = serde_json::to_string(&print).expect("serialises");
        assert_eq!(serde_json::from_str::<Fingerprint>(&text).expect("parses"), print);
        assert!(serde_json::from_str::<Fingerprint>("\"12\"").is_err());
    }
}
