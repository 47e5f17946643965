use super::*;
use crate::message::ProposalSpec;
use crate::negotiate::proposal::{accept_esp, accept_ike, choose_esp, choose_ike, offer, offers_ke};

/// What the peer would read of `proposals`.
fn body(proposals: &[ProposalSpec<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    crate::message::payload::sa::write(proposals, &mut out);
    out
}

fn ike(text: &str) -> Proposal {
    Proposal::parse_ike(text).expect(text)
}

fn esp(text: &str) -> Proposal {
    Proposal::parse_esp(text).expect(text)
}

#[test]
fn proposals_are_printed_as_they_were_written() {
    for text in [
        "aes256gcm16-prfsha384-ecp384",
        "aes128gcm16-aes256gcm16-prfsha256-prfsha512-x25519-modp4096",
        "aes256-prfsha256-sha256-modp2048",
        "chacha20poly1305-prfsha256-x25519",
    ] {
        assert_eq!(ike(text).to_string(), text);
    }
    for text in [
        "aes256gcm16-esn-noesn",
        "aes128-sha256-ecp256-noesn",
        "null-sha512-esn",
        "chacha20poly1305-x25519-modpnone-esn-noesn",
    ] {
        assert_eq!(esp(text).to_string(), text);
    }
}

#[test]
fn proposals_gain_what_swanctl_users_leave_out() {
    assert_eq!(ike("aes256-sha384-modp2048").to_string(), "aes256-prfsha384-sha384-modp2048");
    assert_eq!(esp("aes256gcm16").to_string(), "aes256gcm16-esn-noesn");
    assert_eq!(esp(" AES256GCM - Curve25519 ").to_string(), "aes256gcm16-x25519-esn-noesn");
    assert_eq!(esp("aes-sha2_256").to_string(), "aes128-sha256-esn-noesn");
}

#[test]
fn default_proposals_offer_esn_and_no_esn() {
    let text = describe(&Proposal::default_esp());
    assert_eq!(text, "aes256gcm16-aes192gcm16-aes128gcm16-esn-noesn, aes256-aes192-aes128-sha256-esn-noesn");
    let ike = Proposal::default_ike();
    assert!(ike.iter().all(|proposal| proposal.ke_methods().count() == KeMethod::ALL.len()));
    for proposal in ike {
        assert_eq!(Proposal::parse_ike(&proposal.to_string()), Ok(proposal));
    }
}

#[test]
fn every_esp_suite_can_be_configured_and_agreed_on() {
    for &suite in EspSuite::ALL {
        let ours = [esp(suite.name())];
        let body = body(&offer(&ours, &[0xc0, 0, 0, 1]));
        let theirs = Sa::parse(&body).expect("well-formed");
        let chosen = choose_esp(&ours, &theirs, None, true).expect("agreed");
        assert_eq!(chosen.agreement.suite, suite);
        assert!(chosen.agreement.esn);
        assert_eq!(chosen.esp_spi().map(pollux_abi::Spi::get), Some(0xc000_0001));
    }
}

#[test]
fn mistakes_are_named_with_their_mend() {
    let rows = [
        (Protocol::Ike, "", "the proposal is empty"),
        (Protocol::Ike, "aes256gcm16--x25519", "the proposal is empty"),
        (
            Protocol::Ike,
            "3des-sha1-modp1024",
            "`3des` does not exist here (64-bit blocks; RFC 8221: SHOULD NOT, RFC 8247: MAY): use aes256gcm16, or aes256 with sha256",
        ),
        (
            Protocol::Esp,
            "aes128-md5",
            "`md5` does not exist here (RFC 8247 and RFC 8221: MUST NOT): use sha256",
        ),
        (
            Protocol::Esp,
            "aes128gcm16-modp1024",
            "`modp1024` does not exist here (RFC 8247: SHOULD NOT): use modp2048 or x25519",
        ),
        (Protocol::Ike, "aes256gcm16-x25519", "the IKE proposal has no PRF: add one, such as `prfsha256`"),
        (
            Protocol::Ike,
            "aes256-sha256",
            "the IKE proposal has no key exchange method: add one, such as `x25519`",
        ),
        (
            Protocol::Ike,
            "sha256-x25519",
            "the IKE proposal has no encryption algorithm: add one, such as `aes256gcm16`",
        ),
        (Protocol::Esp, "aes256", "the ESP proposal has no integrity algorithm: add one, such as `sha256`"),
        (
            Protocol::Esp,
            "aes256gcm16-prfsha256",
            "`prfsha256` has no place in an ESP proposal: it belongs into proposals",
        ),
        (
            Protocol::Ike,
            "aes256-sha256-x25519-esn",
            "`esn` has no place in an IKE proposal: it belongs into esp_proposals",
        ),
        (
            Protocol::Ike,
            "aes128gmac-prfsha256-x25519",
            "`aes128gmac` has no place in an IKE proposal: use aes256gcm16, or aes256 with sha256",
        ),
        (
            Protocol::Esp,
            "aes256gcm16-sha256",
            "`sha256` is an integrity algorithm, and aes256gcm16 authenticates by itself: leave it out",
        ),
        (
            Protocol::Esp,
            "aes256gcm16-aes256-sha256",
            "combined modes such as aes256gcm16 and ciphers that need an integrity algorithm cannot share a proposal: write two",
        ),
    ];
    for (protocol, text, expected) in rows {
        let parsed = match protocol {
            Protocol::Ike => Proposal::parse_ike(text),
            _ => Proposal::parse_esp(text),
        };
        assert_eq!(parsed.expect_err(text).to_string(), expected, "{text}");
    }
    let unknown = Proposal::parse_esp("rot13").expect_err("unknown").to_string();
    assert!(
        unknown.starts_with("`rot13` is no algorithm of ESP proposals; known are aes128gcm16, "),
        "{unknown}"
    );
}

#[test]
fn absent_algorithms_have_no_keyword_of_their_own() {
    for (weak, ..) in ABSENT {
        for known in [known(Protocol::Ike), known(Protocol::Esp)] {
            assert!(!known.split(", ").any(|keyword| keyword == *weak), "{weak}");
        }
    }
}

#[test]
fn our_order_decides_between_proposals() {
    let ours = [ike("aes256gcm16-prfsha384-ecp384"), ike("aes128-sha256-modp2048")];
    let theirs = [ike("aes128-sha256-modp2048"), ike("aes128gcm16-aes256gcm16-prfsha384-x25519-ecp384")];
    let body = body(&offer(&theirs, &[]));
    let theirs = Sa::parse(&body).expect("well-formed");
    let chosen = choose_ike(&ours, &theirs, None, 0).expect("agreed");
    assert_eq!(chosen.number, 2);
    assert_eq!(chosen.agreement.encryption, Encryption::Aes256Gcm16);
    assert_eq!(chosen.agreement.ke, KeMethod::Ecp384);
    assert_eq!(chosen.agreement.integrity, None);
    assert_eq!(chosen.transforms.len(), 3);
}

#[test]
fn the_value_that_the_peer_sent_already_is_used_where_it_can_be() {
    let ours = [ike("aes256gcm16-prfsha256-x25519-ecp256-modp2048")];
    let theirs = [ike("aes256gcm16-prfsha256-modp2048-ecp256-ecp521")];
    let body = body(&offer(&theirs, &[]));
    let theirs = Sa::parse(&body).expect("well-formed");
    let ke = |sent| choose_ike(&ours, &theirs, sent, 0).expect("agreed").agreement.ke;
    assert_eq!(ke(Some(KeMethod::Modp2048)), KeMethod::Modp2048);
    // Neither x25519, which they do not offer, nor ecp521, which we do not: INVALID_KE_PAYLOAD with ours.
    assert_eq!(ke(Some(KeMethod::Ecp521)), KeMethod::Ecp256);
    assert_eq!(ke(None), KeMethod::Ecp256);
    assert!(offers_ke(&ours, KeMethod::Modp2048));
    assert!(!offers_ke(&ours, KeMethod::Ecp521), "an INVALID_KE_PAYLOAD cannot make us weaker");
}

#[test]
fn an_answer_is_read_by_the_one_who_offered() {
    let ours = Proposal::default_ike();
    let body_of_offer = body(&offer(&ours, &[]));
    let peer = [ike("aes128-aes256-sha512-ecp521")];
    let offered = Sa::parse(&body_of_offer).expect("well-formed");
    let chosen = choose_ike(&peer, &offered, None, 0).expect("agreed");
    let answer = body(&[chosen.answer(Protocol::Ike, &[])]);
    let answer = Sa::parse(&answer).expect("well-formed");
    let accepted = accept_ike(&ours, &answer, 0).expect("one of ours");
    assert_eq!(accepted.agreement, chosen.agreement);
    assert_eq!((accepted.number, accepted.agreement.ke), (2, KeMethod::Ecp521));
    assert_eq!(accept_ike(&[ike("aes256gcm16-prfsha256-x25519")], &answer, 0), None, "never offered");
    assert_eq!(accept_ike(&ours, &answer, 8), None, "no SPI of 8 octets");
    assert_eq!(accept_ike(&ours, &offered, 0), None, "an answer is one proposal, one transform a type");
}

#[test]
fn perfect_forward_secrecy_is_agreed_on_or_refused() {
    let spi = [0xc0, 0, 0, 1];
    let rows = [
        ("neither", "aes256gcm16", "aes256gcm16", Some(None)),
        ("both", "aes256gcm16-x25519", "aes256gcm16-ecp256-x25519", Some(Some(KeMethod::X25519))),
        ("we insist", "aes256gcm16-x25519", "aes256gcm16", None),
        ("they insist", "aes256gcm16", "aes256gcm16-x25519", None),
        ("we would like", "aes256gcm16-x25519-modpnone", "aes256gcm16", Some(None)),
        ("they would like", "aes256gcm16", "aes256gcm16-x25519-modpnone", Some(None)),
        (
            "both would like",
            "aes256gcm16-x25519-modpnone",
            "aes256gcm16-x25519-modpnone",
            Some(Some(KeMethod::X25519)),
        ),
    ];
    for (what, ours, theirs, expected) in rows {
        let (ours, theirs) = ([esp(ours)], [esp(theirs)]);
        let body = body(&offer(&theirs, &spi));
        let theirs = Sa::parse(&body).expect("well-formed");
        let chosen = choose_esp(&ours, &theirs, None, false);
        assert_eq!(chosen.as_ref().map(|chosen| chosen.agreement.ke), expected, "{what}");
        if let Some(chosen) = chosen {
            let answer = self::body(&[chosen.answer(Protocol::Esp, &spi)]);
            let answer = Sa::parse(&answer).expect("well-formed");
            assert!(accept_esp(&ours, &answer, false).is_some(), "{what}");
        }
        let without = [ours[0].without_ke()];
        assert!(choose_esp(&without, &theirs, None, true).is_some(), "{what}: IKE_AUTH has no key exchange");
    }
}

#[test]
fn sequence_numbers_follow_what_both_can() {
    let spi = [0xc0, 0, 0, 1];
    for (ours, theirs, expected) in [
        ("aes256gcm16", "aes256gcm16", Some(true)),
        ("aes256gcm16", "aes256gcm16-noesn", Some(false)),
        ("aes256gcm16-noesn", "aes256gcm16", Some(false)),
        ("aes256gcm16-esn", "aes256gcm16-noesn", None),
    ] {
        let body = body(&offer(&[esp(theirs)], &spi));
        let chosen = choose_esp(&[esp(ours)], &Sa::parse(&body).expect("well-formed"), None, true);
        assert_eq!(chosen.map(|chosen| chosen.agreement.esn), expected, "{ours} with {theirs}");
    }
    // RFC 7296 §3.3.3: ESN is mandatory in a proposal for ESP, and an answer holds what was offered and no more.
    let silent = [Transform::with_key_bits(TransformType::Encryption, 20, 256)];
    let body = body(&[ProposalSpec { number: 1, protocol: Protocol::Esp, spi: &spi, transforms: &silent }]);
    let silent = Sa::parse(&body).expect("well-formed");
    for ours in ["aes256gcm16", "aes256gcm16-noesn", "aes256gcm16-esn"] {
        assert_eq!(choose_esp(&[esp(ours)], &silent, None, true), None, "as responder, {ours}");
        assert_eq!(accept_esp(&[esp(ours)], &silent, true), None, "as initiator, {ours}");
    }
}

#[test]
fn an_answer_names_the_proposal_that_it_chose() {
    let ours = [ike("aes256gcm16-prfsha256-x25519"), ike("aes128gcm16-prfsha256-x25519")];
    for (number, accepted) in [(0, false), (1, false), (2, true), (3, false)] {
        let transforms = ours[1].transforms();
        let body = body(&[ProposalSpec { number, protocol: Protocol::Ike, spi: &[], transforms }]);
        let answer = Sa::parse(&body).expect("well-formed");
        assert_eq!(accept_ike(&ours, &answer, 0).is_some(), accepted, "{number}");
    }
}

#[test]
fn the_numbers_of_an_offer_count_up_from_one() {
    let list = ike("aes256gcm16-prfsha256-x25519");
    let numbered = |numbers: &[u8]| {
        let spec = |&number: &u8| ProposalSpec {
            number,
            protocol: Protocol::Ike,
            spi: &[],
            transforms: list.transforms(),
        };
        let specs: Vec<_> = numbers.iter().map(spec).collect();
        Sa::parse(&body(&specs)).expect("well-formed").check_numbers().is_ok()
    };
    let all: Vec<u8> = (1..=u8::MAX).collect();
    assert!(numbered(&[1]) && numbered(&[1, 2, 3]) && numbered(&all));
    for wrong in [&[0][..], &[2], &[1, 1], &[1, 3], &[2, 1], &[1, 2, 2], &[0, 1, 2]] {
        assert!(!numbered(wrong), "{wrong:?}");
    }
    assert!(!numbered(&[&all[..], &[0]].concat()), "there are 255 numbers");
}

#[test]
fn proposals_with_unknown_parts_are_passed_over() {
    let ours = [ike("aes256gcm16-prfsha256-x25519")];
    let base = ours[0].transforms().to_vec();
    let chosen = |extra: &[Transform]| {
        let transforms = [&base[..], extra].concat();
        let body =
            body(&[ProposalSpec { number: 1, protocol: Protocol::Ike, spi: &[], transforms: &transforms }]);
        choose_ike(&ours, &Sa::parse(&body).expect("well-formed"), None, 0)
    };
    let additional = |id| Transform::new(TransformType::AdditionalKe1, id);
    assert!(chosen(&[]).is_some());
    assert!(chosen(&[Transform::new(TransformType::Encryption, 4711)]).is_some(), "an unknown alternative");
    assert!(chosen(&[Transform::new(TransformType::Unknown(99), 1)]).is_none(), "an unknown type");
    assert!(chosen(&[additional(36)]).is_none(), "a second key exchange that is demanded");
    let optional = chosen(&[additional(36), additional(0)]).expect("a second key exchange that is not");
    assert!(optional.transforms.contains(&additional(0)), "is answered with none");
    assert!(chosen(&[Transform::new(TransformType::Integrity, 0)]).is_some(), "GCM with integrity none");
    assert!(
        chosen(&[Transform::new(TransformType::Integrity, 12)]).is_none(),
        "GCM with an integrity algorithm"
    );
}

#[test]
fn wrong_protocols_and_spis_are_passed_over() {
    let (of_ike, of_esp) = ([ike("aes256gcm16-prfsha256-x25519")], [esp("aes256gcm16")]);
    for (spi, ike_fits, esp_fits) in
        [(&[][..], true, false), (&[1; 4][..], false, true), (&[1; 8][..], false, false)]
    {
        let as_ike = body(&offer(&of_ike, spi));
        let as_esp = body(&offer(&of_esp, spi));
        let (as_ike, as_esp) = (Sa::parse(&as_ike).expect("fine"), Sa::parse(&as_esp).expect("fine"));
        assert_eq!(choose_ike(&of_ike, &as_ike, None, 0).is_some(), ike_fits);
        assert_eq!(choose_esp(&of_esp, &as_esp, None, true).is_some(), esp_fits);
        assert_eq!(choose_ike(&of_ike, &as_esp, None, 0), None);
        assert_eq!(choose_esp(&of_esp, &as_ike, None, true), None);
    }
}

#[test]
fn what_a_peer_offers_reads_as_words() {
    let spi = [0xc0, 0, 0, 1];
    let weak = [
        Transform::new(TransformType::Encryption, 3),
        Transform::new(TransformType::Prf, 2),
        Transform::new(TransformType::Integrity, 2),
        Transform::new(TransformType::KeyExchange, 2),
        Transform::with_key_bits(TransformType::Encryption, 77, 192),
    ];
    let specs = [
        ProposalSpec { number: 1, protocol: Protocol::Ike, spi: &[], transforms: &weak },
        ProposalSpec { number: 2, protocol: Protocol::Esp, spi: &spi, transforms: &[] },
    ];
    let body_of_specs = body(&specs);
    let sa = Sa::parse(&body_of_specs).expect("well-formed");
    assert_eq!(describe_sa(&sa), "3des-prfsha1-sha1-modp1024-ENCR:77(192 bits), nothing");
    let many = vec![weak[0]; 200];
    let specs = [ProposalSpec { number: 1, protocol: Protocol::Ike, spi: &[], transforms: &many }; 30];
    let body = body(&specs);
    assert!(describe_sa(&Sa::parse(&body).expect("well-formed")).len() < 2000);
}
