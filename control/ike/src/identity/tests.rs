use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Option<(IdType, Vec<u8>)> {
    Identity::parse(text).map(|id| (id.id_type, id.value))
}

#[test]
fn identities_read_and_print_as_operators_write_them() {
    for (text, id_type) in [
        ("192.0.2.1", IdType::Ipv4Addr),
        ("2001:db8::1", IdType::Ipv6Addr),
        ("gw.example", IdType::Fqdn),
        ("a@gw.example", IdType::Rfc822Addr),
        ("keyid:phone", IdType::KeyId),
        ("fqdn:192.0.2.1", IdType::Fqdn),
        ("keyid:#00ff", IdType::KeyId),
        ("asn1dn:#300d310b3009060355040613024445", IdType::DerAsn1Dn),
    ] {
        let identity = Identity::parse(text).expect("an identity");
        assert_eq!((identity.id_type(), identity.to_string().as_str()), (id_type, text));
    }
}

#[test]
fn types_are_those_of_swanctl_and_libreswan_and_never_a_part_of_the_value() {
    for (text, id_type, value) in [
        ("fqdn:gw.example", IdType::Fqdn, &b"gw.example"[..]),
        ("dns:gw.example", IdType::Fqdn, b"gw.example"),
        ("@gw.example", IdType::Fqdn, b"gw.example"),
        ("@203.0.113.9", IdType::Fqdn, b"203.0.113.9"),
        ("email:a@gw.example", IdType::Rfc822Addr, b"a@gw.example"),
        ("userfqdn:a@gw.example", IdType::Rfc822Addr, b"a@gw.example"),
        ("EMAIL:sip:a@gw.example", IdType::Rfc822Addr, b"sip:a@gw.example"),
        ("@@a@gw.example", IdType::Rfc822Addr, b"a@gw.example"),
        ("keyid:phone", IdType::KeyId, b"phone"),
        ("keyid:a=b:c", IdType::KeyId, b"a=b:c"),
        ("keyid:#00Ff", IdType::KeyId, &[0, 255]),
        ("@#00ff", IdType::KeyId, &[0, 255]),
        ("ipv4:203.0.113.9", IdType::Ipv4Addr, &[203, 0, 113, 9]),
        ("ipv6:::1", IdType::Ipv6Addr, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("asn1dn:#3000", IdType::DerAsn1Dn, &[0x30, 0]),
    ] {
        assert_eq!(read(text), Some((id_type, value.to_vec())), "{text}");
    }
    for text in [
        "",
        "@",
        "@@",
        "@#",
        "@#0",
        "fqdn:",
        "email:gw.example",
        "keyid:",
        "keyid:#0g",
        "ipv4:gw.example",
        "ipv4:::1",
        "ipv6:192.0.2.1",
        "ipv4:#00",
        "asn1dn:C=DE, O=x",
        "C=DE, O=x",
        "xmppaddr:a@b",
        "foo:bar",
        "sip:a@gw.example",
        "@[text]",
        "@~3000",
        "%any",
        "#00ff",
        "*",
        "*.example",
        "a*b.example",
        "a b",
        "g\u{fc}.example",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
}

#[test]
fn patterns_rank_the_exact_identity_above_the_wildcard() {
    let phone = Identity::parse("p1.phones.example").expect("an identity");
    let rank = |text| IdentityPattern::parse(text).expect("a pattern").rank(&phone);
    assert_eq!(rank("P1.phones.EXAMPLE"), Some(2));
    assert_eq!(rank("*.phones.example"), Some(1));
    assert_eq!(rank("%any"), Some(0));
    assert_eq!(rank("p2.phones.example"), None);
    assert_eq!(rank("192.0.2.1"), None);
}

//= RFC 4301 §4.4.3.1: a pattern of names matches names of its own type.
#[test]
fn patterns_match_their_own_type_alone() {
    let [name, user, address] = [IdType::Fqdn, IdType::Rfc822Addr, IdType::Ipv4Addr]
        .map(|id_type| move |value: &str| Identity::new(id_type, value.as_bytes()).expect("short enough"));
    for (pattern, identity, matches) in [
        ("*.example", name("x.example"), true),
        ("*.example", user("x@y.example"), false),
        ("*@y.example", user("x@y.example"), true),
        ("*@y.example", name("x@y.example"), false),
        ("@*.example", name("x.example"), true),
        ("fqdn:*.example", name("x.example"), true),
        ("email:*.example", user("x@y.example"), true),
        ("email:*.example", name("y.example"), false),
        ("*.113.9", address("k\0q\t"), false),
        ("203.0.113.9", name("203.0.113.9"), false),
        ("@203.0.113.9", name("203.0.113.9"), true),
    ] {
        let parsed = IdentityPattern::parse(pattern).expect("a pattern");
        assert_eq!(parsed.rank(&identity).is_some(), matches, "{pattern} and {identity}");
        assert_eq!(IdentityPattern::parse(&parsed.to_string()), Some(parsed), "{pattern}");
    }
    for text in ["*.*.example", "a*.example", "ipv4:*", "foo:*.example", "foo:*@x.example", "*=x", "%none"] {
        assert_eq!(IdentityPattern::parse(text), None, "{text}");
    }
}

#[test]
fn identities_with_the_same_text_and_different_types_are_shown_with_them() {
    let shown = |id_type, value: &[u8]| Identity::new(id_type, value).expect("short enough").to_string();
    assert_eq!(shown(IdType::Ipv4Addr, &[203, 0, 113, 9]), "203.0.113.9");
    assert_eq!(shown(IdType::Fqdn, b"203.0.113.9"), "fqdn:203.0.113.9");
    assert_eq!(shown(IdType::Rfc822Addr, b"gw.example"), "email:#67772e6578616d706c65");
    assert_eq!(shown(IdType::Fqdn, b"a@gw.example"), "fqdn:a@gw.example");
    assert_eq!(shown(IdType::Fqdn, b"a\x1b[2J"), "fqdn:#611b5b324a");
}

proptest! {
    #[test]
    fn what_is_shown_reads_as_the_same_identity(
        id_type in proptest::sample::select(TYPES.iter().map(|(_, id_type)| *id_type).collect::<Vec<_>>()),
        value in prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..40),
            "[a-z@.:#*%=~\\[0-9]{1,12}".prop_map(String::into_bytes),
        ],
    ) {
        let len = match id_type { IdType::Ipv4Addr => Some(4), IdType::Ipv6Addr => Some(16), _ => None };
        let value = len.map_or_else(|| value.clone(), |len| value.iter().copied().cycle().take(len).collect());
        let identity = Identity::new(id_type, &value).expect("short enough");
        prop_assert_eq!(Identity::parse(&identity.to_string()), Some(identity));
    }
}
