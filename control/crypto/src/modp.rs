//! Key exchange in the MODP groups 14, 15 and 16 (RFC 3526), in constant time.

use core::fmt;

use crypto_bigint::modular::{ConstMontyForm, ConstMontyParams};
use crypto_bigint::{Encoding, U384, U2048, U3072, U4096, Uint, const_monty_params};
use pollux_ike::crypto::{CryptoError, KeMethod, KeyExchange, Rng, Secret};
use zeroize::{Zeroize, Zeroizing};

/// Bits of a private exponent: more than twice the strength of group 16 (RFC 3526 §8), and used for all.
const EXPONENT_BITS: u32 = U384::BITS;

/// A group's arithmetic, whatever its size.
struct Group {
    /// `generator^exponent`.
    public: fn(&U384) -> Vec<u8>,
    /// `peer^exponent`; `None` where the peer's value is not between 2 and p - 2 (RFC 6989 §2.1).
    shared: fn(&U384, &[u8]) -> Option<Vec<u8>>,
}

fn group(method: KeMethod) -> Option<Group> {
    fn of<P: ConstMontyParams<LIMBS>, const LIMBS: usize>() -> Group
    where
        Uint<LIMBS>: Encoding,
    {
        Group { public: public::<P, LIMBS>, shared: shared::<P, LIMBS> }
    }
    match method {
        KeMethod::Modp2048 => Some(of::<Modp2048, { U2048::LIMBS }>()),
        KeMethod::Modp3072 => Some(of::<Modp3072, { U3072::LIMBS }>()),
        KeMethod::Modp4096 => Some(of::<Modp4096, { U4096::LIMBS }>()),
        KeMethod::X25519 | KeMethod::Ecp256 | KeMethod::Ecp384 | KeMethod::Ecp521 => None,
    }
}

/// A private exponent and its public value.
pub(crate) struct Modp {
    method: KeMethod,
    group: Group,
    exponent: Zeroizing<U384>,
    public: Vec<u8>,
}

impl Modp {
    /// Draws a private exponent from `rng`.
    pub(crate) fn generate(method: KeMethod, rng: &mut dyn Rng) -> Result<Self, CryptoError> {
        let group = group(method).ok_or(CryptoError::Unsupported("a curve as a MODP group"))?;
        let mut octets = Zeroizing::new([0; U384::BYTES]);
        rng.fill(&mut *octets);
        let exponent = Zeroizing::new(U384::from_be_slice(&*octets));
        let public = (group.public)(&exponent);
        Ok(Self { method, group, exponent, public })
    }
}

impl KeyExchange for Modp {
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
        (self.group.shared)(&self.exponent, peer_public).map(Secret::new).ok_or(refused)
    }
}

impl fmt::Debug for Modp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Modp").field("method", &self.method).finish_non_exhaustive()
    }
}

fn public<P: ConstMontyParams<LIMBS>, const LIMBS: usize>(exponent: &U384) -> Vec<u8>
where
    Uint<LIMBS>: Encoding,
{
    let generator = ConstMontyForm::<P, LIMBS>::new(&Uint::from_u8(2));
    let value = generator.pow_bounded_exp(exponent, EXPONENT_BITS).retrieve();
    Encoding::to_be_bytes(&value).as_ref().to_vec()
}

fn shared<P: ConstMontyParams<LIMBS>, const LIMBS: usize>(exponent: &U384, peer: &[u8]) -> Option<Vec<u8>>
where
    Uint<LIMBS>: Encoding,
{
    let peer = Uint::<LIMBS>::from_be_slice(peer);
    let prime = P::PARAMS.modulus().get();
    // Public values are no secret: no need for constant time.
    if peer <= Uint::ONE || peer >= prime.wrapping_sub(&Uint::ONE) {
        return None;
    }
    let mut value =
        ConstMontyForm::<P, LIMBS>::new(&peer).pow_bounded_exp(exponent, EXPONENT_BITS).retrieve();
    let mut octets = Encoding::to_be_bytes(&value);
    value.zeroize();
    let secret = octets.as_ref().to_vec();
    octets.as_mut().zeroize();
    Some(secret)
}

const_monty_params!(
    Modp2048,
    U2048,
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
         EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
         EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
         83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
         E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
         15728E5A8AACAA68FFFFFFFFFFFFFFFF",
    "The 2048-bit MODP group's prime (RFC 3526)."
);

const_monty_params!(
    Modp3072,
    U3072,
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
         EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
         EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
         83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
         E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
         15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
         ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
         BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
    "The 3072-bit MODP group's prime (RFC 3526)."
);

const_monty_params!(
    Modp4096,
    U4096,
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
         EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
         EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
         83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
         E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
         15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
         ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
         BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7\
         88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6\
         287C59474E6BC05D99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9\
         93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF",
    "The 4096-bit MODP group's prime (RFC 3526)."
);

#[cfg(test)]
mod tests;
