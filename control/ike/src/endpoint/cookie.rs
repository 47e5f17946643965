//! Stateless cookies against floods of IKE_SA_INIT (RFC 7296 §2.6).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::admission::Mark;
use crate::crypto::{CryptoError, Prf, Provider, Rng, Secret, constant_time_eq, draw};
use crate::message::IkeSpi;
use crate::time::Instant;

/// The secret that cookies are made with, and the one before it.
#[derive(Debug, Default)]
pub(crate) struct Cookies {
    current: Option<Generation>,
    previous: Option<Generation>,
}

#[derive(Debug)]
struct Generation {
    number: u8,
    since: Instant,
    secret: Secret,
}

/// What a cookie is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) nonce: &'a [u8],
    pub(crate) source: SocketAddr,
    pub(crate) spi_i: IkeSpi,
}

impl Cookies {
    /// The cookie for a request: the secret's number, and a MAC of what the request will say again.
    pub(crate) fn make(
        &mut self,
        provider: &dyn Provider,
        rng: &mut dyn Rng,
        now: Instant,
        claim: Claim<'_>,
    ) -> Result<Vec<u8>, CryptoError> {
        self.rotate(rng, now);
        let current = self.current.as_ref().ok_or(CryptoError::Internal("cookies"))?;
        let mut cookie = vec![current.number];
        cookie.extend_from_slice(&mac(provider, &current.secret, claim)?);
        Ok(cookie)
    }

    /// Whether `cookie` is one that we made for this claim, not long ago.
    pub(crate) fn holds(
        &self,
        provider: &dyn Provider,
        now: Instant,
        claim: Claim<'_>,
        cookie: &[u8],
    ) -> bool {
        let Some((&number, shown)) = cookie.split_first() else { return false };
        [&self.current, &self.previous].into_iter().flatten().any(|generation| {
            generation.number == number
                && now.since(generation.since) < ROTATE_EVERY * 2
                && mac(provider, &generation.secret, claim).is_ok_and(|mac| constant_time_eq(&mac, shown))
        })
    }

    /// A short keyed hash of a claim, under the secret that cookies are made with now; `None` before the first.
    /// After a rotation the marks of before mean nothing any more: two minutes are longer than a late copy takes.
    pub(crate) fn mark(&self, provider: &dyn Provider, claim: Claim<'_>) -> Option<Mark> {
        let current = self.current.as_ref()?;
        let mac = mac(provider, &current.secret, claim).ok()?;
        mac.first_chunk().copied()
    }

    fn rotate(&mut self, rng: &mut dyn Rng, now: Instant) {
        let old = match &self.current {
            Some(current) if now.since(current.since) < ROTATE_EVERY => return,
            Some(current) => current.number,
            None => 0,
        };
        self.previous = self.current.take();
        let secret = Secret::new(draw::<32>(rng).to_vec());
        self.current = Some(Generation { number: old.wrapping_add(1), since: now, secret });
    }
}

fn mac(provider: &dyn Provider, secret: &Secret, claim: Claim<'_>) -> Result<[u8; 32], CryptoError> {
    let mut out = [0; 32];
    let (port, spi_i) = (claim.source.port().to_be_bytes(), claim.spi_i.to_be_bytes());
    let key = secret.as_bytes();
    match claim.source.ip() {
        IpAddr::V4(v4) => {
            let parts: [&[u8]; 4] = [claim.nonce, &v4.octets(), &port, &spi_i];
            provider.prf(Prf::HmacSha256, key, &parts, &mut out)?;
        }
        IpAddr::V6(v6) => {
            let parts: [&[u8]; 4] = [claim.nonce, &v6.octets(), &port, &spi_i];
            provider.prf(Prf::HmacSha256, key, &parts, &mut out)?;
        }
    }
    Ok(out)
}

/// A secret serves for two minutes and is accepted for two more: longer than any initiator waits.
const ROTATE_EVERY: Duration = Duration::from_mins(2);
