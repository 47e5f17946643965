//! Key exchange on curves: X25519 (RFC 8031) and the NIST curves (RFC 5903).

use aws_lc_rs::agreement::{
    self, Algorithm, ECDH_P256, ECDH_P384, ECDH_P521, PrivateKey, UnparsedPublicKey, X25519,
};
use pollux_ike::crypto::{CryptoError, KeMethod, KeyExchange, Rng, Secret};
use zeroize::Zeroizing;

/// Octets of a P-521 scalar, the longest.
const SCALAR_LEN_MAX: usize = 66;
/// The mark of an uncompressed point (SEC 1 §2.3.3), which IKEv2 leaves out.
const UNCOMPRESSED: u8 = 4;
/// Draws until a scalar lies below the curve's order. Each succeeds with a probability above one half, so a
/// generator that fails so often is broken.
const DRAWS_MAX: u32 = 128;

/// A private key and its public value.
#[derive(Debug)]
pub(crate) struct Ecdh {
    method: KeMethod,
    private: PrivateKey,
    public: Vec<u8>,
}

/// One curve as aws-lc names it; `None` for MODP groups.
struct Curve {
    algorithm: &'static Algorithm,
    scalar_len: usize,
    /// Bits of the scalar's first octet that can be set.
    top_mask: u8,
}

fn curve(method: KeMethod) -> Option<Curve> {
    let (algorithm, scalar_len, top_mask) = match method {
        KeMethod::X25519 => (&X25519, 32, 0xff),
        KeMethod::Ecp256 => (&ECDH_P256, 32, 0xff),
        KeMethod::Ecp384 => (&ECDH_P384, 48, 0xff),
        KeMethod::Ecp521 => (&ECDH_P521, SCALAR_LEN_MAX, 0x01),
        KeMethod::Modp2048 | KeMethod::Modp3072 | KeMethod::Modp4096 => return None,
    };
    Some(Curve { algorithm, scalar_len, top_mask })
}

impl Ecdh {
    /// Draws a private key from `rng`.
    pub(crate) fn generate(method: KeMethod, rng: &mut dyn Rng) -> Result<Self, CryptoError> {
        let curve = curve(method).ok_or(CryptoError::Unsupported("a MODP group as a curve"))?;
        let mut scalar = Zeroizing::new([0; SCALAR_LEN_MAX]);
        for _ in 0..DRAWS_MAX {
            let scalar = &mut scalar[..curve.scalar_len];
            rng.fill(scalar);
            scalar[0] &= curve.top_mask;
            if let Some(private) = Self::from_scalar(method, curve.algorithm, scalar)? {
                return Ok(private);
            }
        }
        Err(CryptoError::Internal("drawing a private key: the randomness is none"))
    }

    /// `None` where the scalar is zero or not below the curve's order.
    fn from_scalar(
        method: KeMethod,
        algorithm: &'static Algorithm,
        scalar: &[u8],
    ) -> Result<Option<Self>, CryptoError> {
        if scalar.iter().all(|octet| *octet == 0) {
            return Ok(None);
        }
        let Ok(private) = PrivateKey::from_private_key(algorithm, scalar) else { return Ok(None) };
        let public = private.compute_public_key();
        let public = public.map_err(|_| CryptoError::Internal("computing a public key"))?;
        let public = match method {
            KeMethod::X25519 => public.as_ref().to_vec(),
            _ => public.as_ref()[1..].to_vec(),
        };
        Ok(Some(Self { method, private, public }))
    }
}

impl KeyExchange for Ecdh {
    fn method(&self) -> KeMethod {
        self.method
    }

    fn public(&self) -> &[u8] {
        &self.public
    }

    fn finish(self: Box<Self>, peer_public: &[u8]) -> Result<Secret, CryptoError> {
        let refused = CryptoError::PublicValue(self.method);
        if peer_public.len() != self.method.public_len() {
            return Err(refused);
        }
        let mut point = [UNCOMPRESSED; 1 + 2 * SCALAR_LEN_MAX];
        let value = if self.method == KeMethod::X25519 {
            peer_public
        } else {
            point[1..=peer_public.len()].copy_from_slice(peer_public);
            &point[..=peer_public.len()]
        };
        // aws-lc checks that the point is on the curve (RFC 6989 §2.3), and refuses an all-zero X25519
        // secret (RFC 8031 §3).
        let peer = UnparsedPublicKey::new(self.private.algorithm(), value);
        agreement::agree(&self.private, peer, refused, |shared| Ok(Secret::new(shared.to_vec())))
    }
}

#[cfg(test)]
mod tests;
