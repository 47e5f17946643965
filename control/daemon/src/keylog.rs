//! Negotiated keys for tshark: only where the configuration asks for it, which no gateway in earnest does.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pollux_abi::EspSuite;
use pollux_ike::crypto::{Encryption, Integrity};
use pollux_ike::event::KeyLog;

/// Appends one line: the name of tshark's table, then the record that it takes.
pub(crate) fn append(file: &Path, keys: &KeyLog) -> std::io::Result<()> {
    let line = match keys {
        // tshark's table has no name for it, and a line that it cannot read spoils the others.
        KeyLog::Ike { encryption: Encryption::ChaCha20Poly1305, .. } => return Ok(()),
        KeyLog::Ike { spi_i, spi_r, sk_ei, sk_er, sk_ai, sk_ar, encryption, integrity } => format!(
            "ikev2_decryption_table {spi_i},{spi_r},{},{},\"{}\",{},{},\"{}\"\n",
            hex(sk_ei),
            hex(sk_er),
            ike_cipher(*encryption),
            hex(sk_ai),
            hex(sk_ar),
            ike_integrity(*integrity)
        ),
        KeyLog::Esp { spi, source, destination, suite, material } => {
            let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
            let encryption = suite.key_len() + suite.salt_len();
            let (encryption, integrity) = material.split_at_checked(encryption).unwrap_or((material, &[]));
            format!(
                "esp_sa \"{family}\",\"{source}\",\"{destination}\",\"{spi}\",\"{}\",\"0x{}\",\"{}\",\"0x{}\"\n",
                esp_cipher(*suite),
                hex(encryption),
                esp_integrity(*suite),
                hex(integrity)
            )
        }
    };
    // Never through a link: the file may be in a folder where others may make some.
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
    options.open(file)?.write_all(line.as_bytes())
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

fn ike_cipher(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::Aes128Gcm16 => "AES-GCM-128 with 16 octet ICV [RFC5282]",
        Encryption::Aes192Gcm16 => "AES-GCM-192 with 16 octet ICV [RFC5282]",
        Encryption::Aes256Gcm16 => "AES-GCM-256 with 16 octet ICV [RFC5282]",
        Encryption::ChaCha20Poly1305 => "ChaCha20 with Poly1305 [RFC7634]",
        Encryption::Aes128Cbc => "AES-CBC-128 [RFC3602]",
        Encryption::Aes192Cbc => "AES-CBC-192 [RFC3602]",
        Encryption::Aes256Cbc => "AES-CBC-256 [RFC3602]",
    }
}

fn ike_integrity(integrity: Option<Integrity>) -> &'static str {
    match integrity {
        None => "NONE [RFC4306]",
        Some(Integrity::HmacSha256) => "HMAC_SHA2_256_128 [RFC4868]",
        Some(Integrity::HmacSha384) => "HMAC_SHA2_384_192 [RFC4868]",
        Some(Integrity::HmacSha512) => "HMAC_SHA2_512_256 [RFC4868]",
    }
}

fn esp_cipher(suite: EspSuite) -> &'static str {
    match (suite.encryption_id(), suite.icv_len()) {
        (18, _) => "AES-GCM with 8 octet ICV [RFC4106]",
        (19, _) => "AES-GCM with 12 octet ICV [RFC4106]",
        (20, _) => "AES-GCM with 16 octet ICV [RFC4106]",
        (12, _) => "AES-CBC [RFC3602]",
        (28, _) => "ChaCha20 with Poly1305 [RFC7634]",
        _ => "NULL",
    }
}

fn esp_integrity(suite: EspSuite) -> &'static str {
    match suite.integrity_id() {
        12 => "HMAC-SHA-256-128 [RFC4868]",
        13 => "HMAC-SHA-384-192 [RFC4868]",
        14 => "HMAC-SHA-512-256 [RFC4868]",
        _ => "NULL",
    }
}
