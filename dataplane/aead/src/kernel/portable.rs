//! Every suite on the RustCrypto crates: what runs where no kernel of ours does.

use aes::{Aes128, Aes192, Aes256};
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::AeadInOut;
use cipher::consts::U16;
use cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser,
    InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper,
};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use hmac::{Hmac, Mac};
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use crate::ct::icv_matches;
use crate::packet::{Aad, HEADER_LEN, Text, header, implicit_iv, nonce};
use crate::suite::{Family, Sha2, Suite};
use crate::verdict::OpenVerdict;

/// A key as the RustCrypto crates keep it; each of them zeroizes its own on drop.
pub(crate) enum Portable {
    Gcm(Aes, GHash),
    ChaCha(ChaCha20Poly1305),
    CbcHmac(Aes, KeyedHmac),
    NullHmac(KeyedHmac),
}

/// AES of any key length.
pub(crate) enum Aes {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

/// HMAC with its key already absorbed.
pub(crate) enum KeyedHmac {
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

/// What a packet needs besides its octets.
#[derive(Clone, Copy)]
pub(crate) struct Context {
    pub(crate) suite: Suite,
    pub(crate) salt: [u8; 4],
    pub(crate) esn: bool,
    pub(crate) seq_high: u32,
}

impl Portable {
    /// The lengths of `enc` and `auth` are those of the suite.
    pub(crate) fn new(suite: Suite, enc: &[u8], auth: &[u8]) -> Self {
        match suite.family() {
            Family::Gcm { .. } | Family::Gmac => {
                let aes = Aes::new(enc);
                let mut hash_key = [0; 16];
                aes.encrypt(&mut hash_key);
                let hash = GHash::new(&hash_key.into());
                zeroize::Zeroize::zeroize(&mut hash_key);
                Self::Gcm(aes, hash)
            }
            Family::ChaCha { .. } => Self::ChaCha(
                ChaCha20Poly1305::new_from_slice(enc).expect("the key has the suite's 32 octets"),
            ),
            Family::CbcHmac => Self::CbcHmac(Aes::new(enc), KeyedHmac::new(suite, auth)),
            Family::NullHmac => Self::NullHmac(KeyedHmac::new(suite, auth)),
        }
    }

    /// Seals one packet whose text lies at `text`; the explicit IV is written here.
    pub(crate) fn seal(&self, context: Context, packet: &mut [u8], text: Text, iv: u64) {
        match self {
            Self::CbcHmac(aes, _) => {
                let mut block = [0; 16];
                block[8..].copy_from_slice(&iv.to_be_bytes());
                aes.encrypt(&mut block);
                packet[HEADER_LEN..text.start].copy_from_slice(&block);
                aes.cbc_encrypt(&block, &mut packet[text.start..text.end]);
            }
            _ if text.start > HEADER_LEN => packet[HEADER_LEN..text.start].copy_from_slice(&iv.to_be_bytes()),
            _ => {}
        }
        let icv = self.icv(context, packet, text, Crypt::Seal);
        let len = packet.len() - text.end;
        packet[text.end..].copy_from_slice(&icv[..len]);
    }

    /// Opens one packet; its text is plaintext afterwards or zero.
    pub(crate) fn open(&self, context: Context, packet: &mut [u8], text: Text) -> OpenVerdict {
        // ChaCha20-Poly1305 of the crate checks before it decrypts; the other families are checked here.
        if let Self::ChaCha(cipher) = self {
            let header = header(packet);
            let nonce = context.nonce(packet, text);
            let aad = Aad::new(header, context.esn, context.seq_high);
            let (body, icv) = packet.split_at_mut(text.end);
            let mut tag = [0; 16];
            tag.copy_from_slice(icv);
            let opened = cipher.decrypt_inout_detached(
                &nonce.into(),
                aad.as_slice(),
                (&mut body[text.start..]).into(),
                &tag.into(),
            );
            if opened.is_err() {
                body[text.start..].fill(0);
            }
            return if opened.is_ok() { OpenVerdict::Authentic } else { OpenVerdict::BadIcv };
        }
        let icv = self.icv(context, packet, text, Crypt::Check);
        if !icv_matches(&icv, &packet[text.end..]) {
            packet[text.start..text.end].fill(0);
            return OpenVerdict::BadIcv;
        }
        match self {
            Self::Gcm(aes, _) if !matches!(context.suite.family(), Family::Gmac) => {
                let nonce = context.nonce(packet, text);
                aes.ctr(&nonce, &mut packet[text.start..text.end]);
            }
            Self::CbcHmac(aes, _) => {
                let mut iv = [0; 16];
                iv.copy_from_slice(&packet[HEADER_LEN..text.start]);
                aes.cbc_decrypt(&iv, &mut packet[text.start..text.end]);
            }
            _ => {}
        }
        OpenVerdict::Authentic
    }

    /// The ICV of a packet, padded to the longest; the combined modes encrypt first where asked to.
    fn icv(&self, context: Context, packet: &mut [u8], text: Text, crypt: Crypt) -> [u8; 32] {
        let header = header(packet);
        let aad = Aad::new(header, context.esn, context.seq_high);
        let mut icv = [0; 32];
        match self {
            Self::Gcm(aes, hash) if matches!(context.suite.family(), Family::Gmac) => {
                // RFC 4543 §3.3: SPI, sequence number, IV and payload are one string of AAD.
                let nonce = context.nonce(packet, text);
                icv[..16].copy_from_slice(&gcm_tag(
                    aes,
                    hash,
                    &nonce,
                    [aad.as_slice(), &packet[8..text.end]],
                    &[],
                ));
            }
            Self::Gcm(aes, hash) => {
                let nonce = context.nonce(packet, text);
                let body = &mut packet[text.start..text.end];
                if let Crypt::Seal = crypt {
                    aes.ctr(&nonce, body);
                }
                icv[..16].copy_from_slice(&gcm_tag(aes, hash, &nonce, [aad.as_slice(), &[]], body));
            }
            Self::ChaCha(cipher) => {
                let nonce = context.nonce(packet, text);
                let body = &mut packet[text.start..text.end];
                icv[..16].copy_from_slice(&chacha_seal(cipher, &nonce, aad.as_slice(), body));
            }
            Self::CbcHmac(_, hmac) | Self::NullHmac(hmac) => {
                // RFC 4303 §2.2.1: the high half of an ESN is authenticated after the payload, and not sent.
                let high = context.seq_high.to_be_bytes();
                icv = hmac.mac(&packet[..text.end], if context.esn { &high } else { &[] });
            }
        }
        icv
    }

    /// Seals with a nonce and AAD of the caller's choice; `None` where the suite is not a combined mode.
    pub(crate) fn seal_detached(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> Option<[u8; 16]> {
        match self {
            Self::Gcm(aes, hash) => {
                aes.ctr(nonce, text);
                Some(gcm_tag(aes, hash, nonce, [aad, &[]], text))
            }
            Self::ChaCha(cipher) => Some(chacha_seal(cipher, nonce, aad, text)),
            Self::CbcHmac(..) | Self::NullHmac(_) => None,
        }
    }

    /// Decrypts unseen and returns the tag that the text ought to have had; the caller compares.
    pub(crate) fn open_detached(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> Option<[u8; 16]> {
        match self {
            Self::Gcm(aes, hash) => {
                let tag = gcm_tag(aes, hash, nonce, [aad, &[]], text);
                aes.ctr(nonce, text);
                Some(tag)
            }
            Self::ChaCha(cipher) => {
                // The crate gives a tag only when sealing: decrypt by sealing, then seal again for the tag.
                chacha_seal(cipher, nonce, aad, text);
                let mut plain = Zeroizing::new(text.to_vec());
                Some(chacha_seal(cipher, nonce, aad, &mut plain))
            }
            Self::CbcHmac(..) | Self::NullHmac(_) => None,
        }
    }
}

/// Whether [`Portable::icv`] encrypts before it hashes.
#[derive(Clone, Copy)]
enum Crypt {
    Seal,
    Check,
}

impl Context {
    fn nonce(self, packet: &[u8], text: Text) -> [u8; 12] {
        let iv = match <[u8; 8]>::try_from(&packet[HEADER_LEN..text.start]) {
            Ok(sent) => u64::from_be_bytes(sent),
            Err(_) => implicit_iv(header(packet), self.esn, self.seq_high),
        };
        nonce(self.salt, iv)
    }
}

impl Aes {
    fn new(key: &[u8]) -> Self {
        const LEN: &str = "the key has one of AES's three lengths";
        match key.len() {
            16 => Self::Aes128(Aes128::new_from_slice(key).expect(LEN)),
            24 => Self::Aes192(Aes192::new_from_slice(key).expect(LEN)),
            _ => Self::Aes256(Aes256::new_from_slice(key).expect(LEN)),
        }
    }

    fn encrypt(&self, block: &mut [u8; 16]) {
        let block = block.into();
        match self {
            Self::Aes128(aes) => aes.encrypt_block(block),
            Self::Aes192(aes) => aes.encrypt_block(block),
            Self::Aes256(aes) => aes.encrypt_block(block),
        }
    }

    /// Counter mode of GCM: the text starts at counter 2.
    fn ctr(&self, nonce: &[u8; 12], text: &mut [u8]) {
        fn run<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>>(
            aes: &C,
            nonce: &[u8; 12],
            text: &mut [u8],
        ) {
            let core = ctr::CtrCore::<&C, ctr::flavors::Ctr32BE>::inner_iv_init(
                aes,
                &counter_block(nonce, 2).into(),
            );
            StreamCipherCoreWrapper::from_core(core).apply_keystream(text);
        }
        match self {
            Self::Aes128(aes) => run(aes, nonce, text),
            Self::Aes192(aes) => run(aes, nonce, text),
            Self::Aes256(aes) => run(aes, nonce, text),
        }
    }

    fn cbc_encrypt(&self, iv: &[u8; 16], text: &mut [u8]) {
        fn run<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>>(
            aes: &C,
            iv: &[u8; 16],
            text: &mut [u8],
        ) {
            let (blocks, _) = Array::<u8, U16>::slice_as_chunks_mut(text);
            cbc::Encryptor::inner_iv_init(aes, iv.into()).encrypt_blocks(blocks);
        }
        match self {
            Self::Aes128(aes) => run(aes, iv, text),
            Self::Aes192(aes) => run(aes, iv, text),
            Self::Aes256(aes) => run(aes, iv, text),
        }
    }

    fn cbc_decrypt(&self, iv: &[u8; 16], text: &mut [u8]) {
        fn run<C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>>(
            aes: &C,
            iv: &[u8; 16],
            text: &mut [u8],
        ) {
            let (blocks, _) = Array::<u8, U16>::slice_as_chunks_mut(text);
            cbc::Decryptor::inner_iv_init(aes, iv.into()).decrypt_blocks(blocks);
        }
        match self {
            Self::Aes128(aes) => run(aes, iv, text),
            Self::Aes192(aes) => run(aes, iv, text),
            Self::Aes256(aes) => run(aes, iv, text),
        }
    }
}

impl KeyedHmac {
    fn new(suite: Suite, auth: &[u8]) -> Self {
        const ANY: &str = "HMAC takes keys of any length";
        match suite.sha2() {
            Some(Sha2::Sha384) => Self::Sha384(Hmac::new_from_slice(auth).expect(ANY)),
            Some(Sha2::Sha512) => Self::Sha512(Hmac::new_from_slice(auth).expect(ANY)),
            _ => Self::Sha256(Hmac::new_from_slice(auth).expect(ANY)),
        }
    }

    /// The first half of the hash over both strings (RFC 4868 §2.3 truncates to half).
    fn mac(&self, packet: &[u8], tail: &[u8]) -> [u8; 32] {
        fn run<M: Mac + Clone>(keyed: &M, packet: &[u8], tail: &[u8], icv: &mut [u8]) {
            let full = keyed.clone().chain_update(packet).chain_update(tail).finalize().into_bytes();
            icv.copy_from_slice(&full[..icv.len()]);
        }
        let mut icv = [0; 32];
        match self {
            Self::Sha256(keyed) => run(keyed, packet, tail, &mut icv[..16]),
            Self::Sha384(keyed) => run(keyed, packet, tail, &mut icv[..24]),
            Self::Sha512(keyed) => run(keyed, packet, tail, &mut icv),
        }
        icv
    }
}

fn counter_block(nonce: &[u8; 12], counter: u32) -> [u8; 16] {
    let mut block = [0; 16];
    block[..12].copy_from_slice(nonce);
    block[12..].copy_from_slice(&counter.to_be_bytes());
    block
}

/// GHASH of AAD (two strings, one after the other) and ciphertext, encrypted with the first counter block.
fn gcm_tag(aes: &Aes, keyed: &GHash, nonce: &[u8; 12], aad: [&[u8]; 2], text: &[u8]) -> [u8; 16] {
    let mut hash = keyed.clone();
    // The second string starts inside a block where the first is not a multiple of 16.
    let [first, second] = aad;
    let whole = first.len() / 16 * 16;
    hash.update_padded(&first[..whole]);
    let mut bridge = [0; 16];
    let head = first.len() - whole;
    bridge[..head].copy_from_slice(&first[whole..]);
    let taken = second.len().min(16 - head);
    bridge[head..head + taken].copy_from_slice(&second[..taken]);
    hash.update_padded(&bridge[..head + taken]);
    hash.update_padded(&second[taken..]);
    hash.update_padded(text);
    let mut lengths = [0; 16];
    lengths[..8].copy_from_slice(&((first.len() + second.len()) as u64 * 8).to_be_bytes());
    lengths[8..].copy_from_slice(&(text.len() as u64 * 8).to_be_bytes());
    hash.update(&[lengths.into()]);
    let mut mask = counter_block(nonce, 1);
    aes.encrypt(&mut mask);
    let digest: [u8; 16] = hash.finalize().into();
    std::array::from_fn(|i| digest[i] ^ mask[i])
}

fn chacha_seal(cipher: &ChaCha20Poly1305, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; 16] {
    cipher
        .encrypt_inout_detached(nonce.into(), aad, text.into())
        .expect("the text is shorter than 256 GiB")
        .into()
}
