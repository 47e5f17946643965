//! The key tree of an IKE SA: SKEYSEED and what grows from it (RFC 7296 §2.14, §2.15, §2.17, §2.18).

use pollux_abi::{EspSuite, KeyMaterial};

use super::protect::Protect;
use crate::crypto::{CryptoError, Integrity, Prf, Provider, Secret, prf_plus};
use crate::event::KeyLog;
use crate::message::IkeSpi;
use crate::negotiate::IkeAgreement;

/// What stays of the tree once the ciphers are keyed.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) prf: Prf,
    sk_d: Secret,
    sk_pi: Secret,
    sk_pr: Secret,
}

/// Where SKEYSEED comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seed<'a> {
    /// `prf(Ni | Nr, g^ir)`.
    Initial,
    /// `prf(SK_d (old), g^ir (new) | Ni | Nr)`, with the old SA's PRF.
    Rekey(&'a Keys),
}

/// What both ends have contributed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contributions<'a> {
    pub(crate) shared: &'a Secret,
    pub(crate) nonce_i: &'a [u8],
    pub(crate) nonce_r: &'a [u8],
    pub(crate) spi_i: IkeSpi,
    pub(crate) spi_r: IkeSpi,
}

/// Grows the tree and keys both ciphers. `initiator`: whether we began this IKE SA.
pub(crate) fn grow(
    provider: &dyn Provider,
    suite: IkeAgreement,
    seed: Seed<'_>,
    from: Contributions<'_>,
    initiator: bool,
    log: Option<&mut dyn FnMut(KeyLog)>,
) -> Result<(Keys, Protect), CryptoError> {
    let Contributions { shared, nonce_i, nonce_r, spi_i, spi_r } = from;
    let skeyseed = match seed {
        Seed::Initial => {
            let nonces = Secret::new([nonce_i, nonce_r].concat());
            output(provider, suite.prf, nonces.as_bytes(), &[shared.as_bytes()])?
        }
        Seed::Rekey(old) => {
            output(provider, old.prf, old.sk_d.as_bytes(), &[shared.as_bytes(), nonce_i, nonce_r])?
        }
    };
    let prf_len = suite.prf.len();
    let auth_len = suite.integrity.map_or(0, Integrity::key_len);
    let encr_len = suite.encryption.key_material_len();
    let material = Secret::filled(3 * prf_len + 2 * auth_len + 2 * encr_len, |out| {
        let seed: [&[u8]; 4] = [nonce_i, nonce_r, &spi_i.to_be_bytes(), &spi_r.to_be_bytes()];
        prf_plus(provider, suite.prf, skeyseed.as_bytes(), &seed, out)
    })?;
    let mut rest = material.as_bytes();
    let mut take = |len: usize| {
        let (head, tail) = rest.split_at(len.min(rest.len()));
        rest = tail;
        head
    };
    let sk_d = take(prf_len);
    let (sk_ai, sk_ar) = (take(auth_len), take(auth_len));
    let (sk_ei, sk_er) = (take(encr_len), take(encr_len));
    let (sk_pi, sk_pr) = (take(prf_len), take(prf_len));
    if let Some(log) = log {
        log(KeyLog::Ike {
            spi_i,
            spi_r,
            sk_ei: sk_ei.to_vec(),
            sk_er: sk_er.to_vec(),
            sk_ai: sk_ai.to_vec(),
            sk_ar: sk_ar.to_vec(),
            encryption: suite.encryption,
            integrity: suite.integrity,
        });
    }
    let cipher = |encryption, integrity| {
        provider.sk_cipher(suite.encryption, encryption, suite.integrity.map(|alg| (alg, integrity)))
    };
    let (of_i, of_r) = (cipher(sk_ei, sk_ai)?, cipher(sk_er, sk_ar)?);
    let (ours, theirs) = if initiator { (of_i, of_r) } else { (of_r, of_i) };
    let secret = |octets: &[u8]| Secret::new(octets.to_vec());
    let keys = Keys { prf: suite.prf, sk_d: secret(sk_d), sk_pi: secret(sk_pi), sk_pr: secret(sk_pr) };
    Ok((keys, Protect::new(suite.encryption, ours, theirs)))
}

impl Keys {
    /// Keys of a Child SA, of the exchange's initiator to its responder and back (RFC 7296 §2.17).
    ///
    /// `shared` is there with PFS only.
    pub(crate) fn child(
        &self,
        provider: &dyn Provider,
        suite: EspSuite,
        shared: Option<&Secret>,
        nonce_i: &[u8],
        nonce_r: &[u8],
    ) -> Result<(Box<KeyMaterial>, Box<KeyMaterial>), CryptoError> {
        let one = suite.material_len();
        let material = Secret::filled(2 * one, |out| {
            let shared = shared.map_or(&[][..], Secret::as_bytes);
            prf_plus(provider, self.prf, self.sk_d.as_bytes(), &[shared, nonce_i, nonce_r], out)
        })?;
        let (of_i, of_r) = material.as_bytes().split_at(one);
        let fits =
            |octets| KeyMaterial::boxed(octets).ok_or(CryptoError::Length { what: "KEYMAT", len: one });
        Ok((fits(of_i)?, fits(of_r)?))
    }

    /// The AUTH value of a pre-shared key (RFC 7296 §2.15).
    ///
    /// `first_message` is the signer's IKE_SA_INIT message, `nonce` the other side's, `id` the signer's ID
    /// payload without its generic header.
    pub(crate) fn psk_auth(
        &self,
        provider: &dyn Provider,
        of_initiator: bool,
        key: &[u8],
        first_message: &[u8],
        nonce: &[u8],
        id: &[u8],
    ) -> Result<Secret, CryptoError> {
        let sk_p = if of_initiator { &self.sk_pi } else { &self.sk_pr };
        let maced_id = output(provider, self.prf, sk_p.as_bytes(), &[id])?;
        let padded = output(provider, self.prf, key, &[b"Key Pad for IKEv2"])?;
        output(provider, self.prf, padded.as_bytes(), &[first_message, nonce, maced_id.as_bytes()])
    }
}

fn output(provider: &dyn Provider, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Result<Secret, CryptoError> {
    Secret::filled(prf.len(), |out| provider.prf(prf, key, parts, out))
}
