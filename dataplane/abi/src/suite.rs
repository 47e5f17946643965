//! ESP transforms with their IANA numbers and sizes.

use core::fmt;

macro_rules! suites {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, encr $encr:literal, integ $integ:literal,
        key $key:literal, salt $salt:literal, auth $auth:literal, iv $iv:literal, icv $icv:literal, block $block:literal;)*) => {
        /// One ESP suite: cipher, key size and ICV size.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum EspSuite { $($(#[$doc])* $variant = $code,)* }

        impl EspSuite {
            /// Every suite, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The suite with this code in a ring slot.
            pub const fn from_code(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// Its name as swanctl users write it in `esp_proposals`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// IKEv2 Encryption Algorithm transform id (IANA).
            pub const fn encryption_id(self) -> u16 {
                match self { $(Self::$variant => $encr,)* }
            }

            /// IKEv2 Integrity Algorithm transform id (IANA); 0 for combined modes.
            pub const fn integrity_id(self) -> u16 {
                match self { $(Self::$variant => $integ,)* }
            }

            /// Octets of encryption key, without salt.
            pub const fn key_len(self) -> usize {
                match self { $(Self::$variant => $key,)* }
            }

            /// Octets of salt that follow the encryption key in KEYMAT.
            pub const fn salt_len(self) -> usize {
                match self { $(Self::$variant => $salt,)* }
            }

            /// Octets of integrity key.
            pub const fn auth_key_len(self) -> usize {
                match self { $(Self::$variant => $auth,)* }
            }

            /// Octets of IV on the wire.
            pub const fn iv_len(self) -> usize {
                match self { $(Self::$variant => $iv,)* }
            }

            /// Octets of ICV on the wire.
            pub const fn icv_len(self) -> usize {
                match self { $(Self::$variant => $icv,)* }
            }

            /// What payload, padding and trailer together are a multiple of.
            pub const fn block_len(self) -> usize {
                match self { $(Self::$variant => $block,)* }
            }
        }
    };
}

suites! {
    /// AES-GCM, 128-bit key, 16-octet ICV (RFC 4106).
    Aes128Gcm16 = 1, "aes128gcm16", encr 20, integ 0, key 16, salt 4, auth 0, iv 8, icv 16, block 4;
    /// AES-GCM, 192-bit key, 16-octet ICV (RFC 4106).
    Aes192Gcm16 = 2, "aes192gcm16", encr 20, integ 0, key 24, salt 4, auth 0, iv 8, icv 16, block 4;
    /// AES-GCM, 256-bit key, 16-octet ICV (RFC 4106).
    Aes256Gcm16 = 3, "aes256gcm16", encr 20, integ 0, key 32, salt 4, auth 0, iv 8, icv 16, block 4;
    /// AES-GCM, 128-bit key, 12-octet ICV (RFC 4106).
    Aes128Gcm12 = 4, "aes128gcm12", encr 19, integ 0, key 16, salt 4, auth 0, iv 8, icv 12, block 4;
    /// AES-GCM, 256-bit key, 12-octet ICV (RFC 4106).
    Aes256Gcm12 = 5, "aes256gcm12", encr 19, integ 0, key 32, salt 4, auth 0, iv 8, icv 12, block 4;
    /// AES-GCM, 128-bit key, 8-octet ICV (RFC 4106).
    Aes128Gcm8 = 6, "aes128gcm8", encr 18, integ 0, key 16, salt 4, auth 0, iv 8, icv 8, block 4;
    /// AES-GCM, 256-bit key, 8-octet ICV (RFC 4106).
    Aes256Gcm8 = 7, "aes256gcm8", encr 18, integ 0, key 32, salt 4, auth 0, iv 8, icv 8, block 4;
    /// AES-GCM with implicit IV, 128-bit key (RFC 8750).
    Aes128GcmIiv = 8, "aes128gcm16iiv", encr 30, integ 0, key 16, salt 4, auth 0, iv 0, icv 16, block 4;
    /// AES-GCM with implicit IV, 256-bit key (RFC 8750).
    Aes256GcmIiv = 9, "aes256gcm16iiv", encr 30, integ 0, key 32, salt 4, auth 0, iv 0, icv 16, block 4;
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305 = 10, "chacha20poly1305", encr 28, integ 0, key 32, salt 4, auth 0, iv 8, icv 16, block 4;
    /// ChaCha20-Poly1305 with implicit IV (RFC 8750).
    ChaCha20Poly1305Iiv = 11, "chacha20poly1305iiv", encr 31, integ 0, key 32, salt 4, auth 0, iv 0, icv 16, block 4;
    /// AES-GMAC, 128-bit key: integrity without confidentiality (RFC 4543).
    Aes128Gmac = 12, "aes128gmac", encr 21, integ 0, key 16, salt 4, auth 0, iv 8, icv 16, block 4;
    /// AES-GMAC, 256-bit key (RFC 4543).
    Aes256Gmac = 13, "aes256gmac", encr 21, integ 0, key 32, salt 4, auth 0, iv 8, icv 16, block 4;
    /// AES-CBC-128 with HMAC-SHA2-256-128 (RFC 3602, RFC 4868).
    Aes128CbcSha256 = 14, "aes128-sha256", encr 12, integ 12, key 16, salt 0, auth 32, iv 16, icv 16, block 16;
    /// AES-CBC-192 with HMAC-SHA2-256-128.
    Aes192CbcSha256 = 15, "aes192-sha256", encr 12, integ 12, key 24, salt 0, auth 32, iv 16, icv 16, block 16;
    /// AES-CBC-256 with HMAC-SHA2-256-128.
    Aes256CbcSha256 = 16, "aes256-sha256", encr 12, integ 12, key 32, salt 0, auth 32, iv 16, icv 16, block 16;
    /// AES-CBC-128 with HMAC-SHA2-384-192.
    Aes128CbcSha384 = 17, "aes128-sha384", encr 12, integ 13, key 16, salt 0, auth 48, iv 16, icv 24, block 16;
    /// AES-CBC-256 with HMAC-SHA2-384-192.
    Aes256CbcSha384 = 18, "aes256-sha384", encr 12, integ 13, key 32, salt 0, auth 48, iv 16, icv 24, block 16;
    /// AES-CBC-128 with HMAC-SHA2-512-256.
    Aes128CbcSha512 = 19, "aes128-sha512", encr 12, integ 14, key 16, salt 0, auth 64, iv 16, icv 32, block 16;
    /// AES-CBC-256 with HMAC-SHA2-512-256.
    Aes256CbcSha512 = 20, "aes256-sha512", encr 12, integ 14, key 32, salt 0, auth 64, iv 16, icv 32, block 16;
    /// No encryption, HMAC-SHA2-256-128 (RFC 2410): 3GPP IMS phones.
    NullSha256 = 21, "null-sha256", encr 11, integ 12, key 0, salt 0, auth 32, iv 0, icv 16, block 4;
    /// No encryption, HMAC-SHA2-384-192.
    NullSha384 = 22, "null-sha384", encr 11, integ 13, key 0, salt 0, auth 48, iv 0, icv 24, block 4;
    /// No encryption, HMAC-SHA2-512-256.
    NullSha512 = 23, "null-sha512", encr 11, integ 14, key 0, salt 0, auth 64, iv 0, icv 32, block 4;
    /// AES-GCM, 192-bit key, 12-octet ICV (RFC 4106).
    Aes192Gcm12 = 24, "aes192gcm12", encr 19, integ 0, key 24, salt 4, auth 0, iv 8, icv 12, block 4;
    /// AES-GCM, 192-bit key, 8-octet ICV (RFC 4106).
    Aes192Gcm8 = 25, "aes192gcm8", encr 18, integ 0, key 24, salt 4, auth 0, iv 8, icv 8, block 4;
    /// AES-GCM with implicit IV, 192-bit key (RFC 8750).
    Aes192GcmIiv = 26, "aes192gcm16iiv", encr 30, integ 0, key 24, salt 4, auth 0, iv 0, icv 16, block 4;
    /// AES-GMAC, 192-bit key (RFC 4543).
    Aes192Gmac = 27, "aes192gmac", encr 21, integ 0, key 24, salt 4, auth 0, iv 8, icv 16, block 4;
    /// AES-CBC-192 with HMAC-SHA2-384-192.
    Aes192CbcSha384 = 28, "aes192-sha384", encr 12, integ 13, key 24, salt 0, auth 48, iv 16, icv 24, block 16;
    /// AES-CBC-192 with HMAC-SHA2-512-256.
    Aes192CbcSha512 = 29, "aes192-sha512", encr 12, integ 14, key 24, salt 0, auth 64, iv 16, icv 32, block 16;
}

impl EspSuite {
    /// The suite's code in a ring slot.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The suite that swanctl users write so; `None` for an unknown name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|suite| suite.name() == name)
    }

    /// Octets of key material in all: key, salt and integrity key.
    pub const fn material_len(self) -> usize {
        self.key_len() + self.salt_len() + self.auth_key_len()
    }

    /// Whether the IV is the sequence number and not sent (RFC 8750).
    pub const fn has_implicit_iv(self) -> bool {
        matches!(self.encryption_id(), 30 | 31)
    }
}

impl fmt::Display for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_lead_back_to_their_suite() {
        for &suite in EspSuite::ALL {
            assert_eq!(EspSuite::from_code(suite.code()), Some(suite));
            assert_eq!(EspSuite::from_name(suite.name()), Some(suite));
            assert!(suite.material_len() <= crate::key::MATERIAL_MAX);
        }
        assert_eq!(EspSuite::from_code(0), None);
    }
}
