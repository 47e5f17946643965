use crypto_bigint::{Limb, NonZero};

use super::*;
use crate::AwsLc;
use crate::testing::{Fixed, hex};

const METHODS: [KeMethod; 3] = [KeMethod::Modp2048, KeMethod::Modp3072, KeMethod::Modp4096];

/// Room for the longest prime and some bits more.
type Wide = Uint<{ U4096::LIMBS + 8 }>;

/// `bits` bits of pi behind its integer part, by Machin's formula.
fn pi(bits: u32) -> Wide {
    const GUARD_BITS: u32 = 64;
    let one = Wide::ONE.shl(bits + GUARD_BITS);
    let divided =
        |value: &Wide, by: u32| value.div_rem_limb(NonZero::new(Limb::from(by)).expect("no zero")).0;
    let arctan_of_inverse = |x: u32| {
        let mut term = divided(&one, x);
        let (mut sum, mut n) = (term, 3);
        while term != Wide::ZERO {
            term = divided(&term, x * x);
            let part = divided(&term, n);
            sum = if n % 4 == 3 { sum.wrapping_sub(&part) } else { sum.wrapping_add(&part) };
            n += 2;
        }
        sum
    };
    let quarter = arctan_of_inverse(5).shl(2).wrapping_sub(&arctan_of_inverse(239));
    quarter.shl(2).shr(GUARD_BITS)
}

#[test]
fn primes_are_those_of_rfc_3526() {
    // 2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi] + k), with k as §3 to §5 say.
    for (n, k, prime) in [
        (2048, 124_476u32, Modp2048::PARAMS.modulus().get().resize()),
        (3072, 1_690_314, Modp3072::PARAMS.modulus().get().resize()),
        (4096, 240_904, Modp4096::PARAMS.modulus().get().resize()),
    ] {
        let middle = pi(n - 130).wrapping_add(&Wide::from(k)).shl(64);
        let ends = Wide::ONE.shl(n).wrapping_sub(&Wide::ONE.shl(n - 64)).wrapping_sub(&Wide::ONE);
        assert_eq!(ends.wrapping_add(&middle), prime, "group of {n} bits");
    }
}

#[test]
fn powers_are_those_of_pythons_pow() {
    // SHA-1 of pow(2, x, p) and of pow(2, x*y, p), with x = bytes(range(1, 49)), y = bytes(range(101, 149)).
    let rows = [
        ("5b9314aec83b858ebe927469ad7404683b06f16b", "7469493de55582d3faf31f33a915e3729c50f635"),
        ("6d18a8978762f3590c0fb187fc46f5c2b9f89615", "2a1b5aad95faa82937c8f1e199fbeaed9b6d7ca6"),
        ("7206d266826ca56b16a090e05337474632ecf42f", "ad908089d04a4150b24d630d6544fd8a998c9ac2"),
    ];
    let sha1 = |octets: &[u8]| pollux_ike::crypto::Provider::sha1(&AwsLc, &[octets]).to_vec();
    for (method, (public, shared)) in METHODS.into_iter().zip(rows) {
        let ours = Modp::generate(method, &mut Fixed((1..49).collect())).expect("a group");
        let theirs = Modp::generate(method, &mut Fixed((101..149).collect())).expect("a group");
        assert_eq!(ours.public().len(), method.public_len());
        assert_eq!(sha1(ours.public()), hex(public), "{method}");
        let of_ours = theirs.public().to_vec();
        let of_theirs = Box::new(theirs).finish(ours.public()).expect("in range");
        let of_ours = Box::new(ours).finish(&of_ours).expect("in range");
        assert_eq!(of_ours.as_bytes(), of_theirs.as_bytes(), "{method}");
        assert_eq!(sha1(of_ours.as_bytes()), hex(shared), "{method}");
    }
}

#[test]
fn public_values_that_give_the_secret_away_are_refused() {
    for (method, prime) in [
        (METHODS[0], Modp2048::PARAMS.modulus().get().to_be_bytes().as_ref().to_vec()),
        (METHODS[1], Modp3072::PARAMS.modulus().get().to_be_bytes().as_ref().to_vec()),
        (METHODS[2], Modp4096::PARAMS.modulus().get().to_be_bytes().as_ref().to_vec()),
    ] {
        let last = method.public_len() - 1;
        let small = |value: u8| {
            let mut octets = vec![0; method.public_len()];
            octets[last] = value;
            octets
        };
        let below = |by: u8| {
            let mut octets = prime.clone();
            octets[last] -= by;
            octets
        };
        let finish = |peer: &[u8]| {
            Box::new(Modp::generate(method, &mut Fixed(vec![7; 48])).expect("a group")).finish(peer).is_ok()
        };
        for (what, peer, fits) in [
            ("0", small(0), false),
            ("1", small(1), false),
            ("2", small(2), true),
            ("p - 2", below(2), true),
            ("p - 1", below(1), false),
            ("p", prime.clone(), false),
            ("all ones", vec![0xff; method.public_len()], false),
            ("an octet less", small(2)[1..].to_vec(), false),
            ("an octet more", [vec![0], small(2)].concat(), false),
        ] {
            assert_eq!(finish(&peer), fits, "{method}: {what}");
        }
    }
}
