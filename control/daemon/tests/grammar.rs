//! One grammar of proposals: what the file's check accepts the core's parser accepts, and the reverse.

use std::path::Path;

use pollux_ike::negotiate::{Proposal, syntax};
use pollux_ike::{Identity, IdentityPattern};
use proptest::prelude::*;
use proptest::sample::select;

/// Whether `pollux check` takes these proposals.
fn checked(ike: &str, esp: &str) -> bool {
    let text = format!(
        "[dataplane]\nwan = \"w\"\nlan = \"l\"\n[[connection]]\nname = \"c\"\nproposals = \"{ike}\"\n\
         [connection.children.n]\nlocal_ts = \"10.1.0.0/16\"\nremote_ts = \"10.2.0.0/16\"\nesp_proposals = \"{esp}\"\n"
    );
    pollux_config::parse(Path::new("test.toml"), &text).is_ok()
}

const GOOD_IKE: &str = "aes256gcm16-prfsha384-x25519";
const GOOD_ESP: &str = "aes256gcm16";

#[test]
fn both_know_the_same_words() {
    let of_check: Vec<String> =
        pollux_config::proposal_keywords().into_iter().map(ToOwned::to_owned).collect();
    assert_eq!(of_check, syntax::keywords());
    assert!(checked(GOOD_IKE, GOOD_ESP));
}

/// Whether `pollux check` takes an identity of that end, and so whether the words of the line are about it.
fn identity_checked(end: &str, id: &str) -> Result<(), String> {
    let text = format!(
        "[dataplane]\nwan = \"w\"\nlan = \"l\"\n[[connection]]\nname = \"c\"\n[connection.{end}]\nid = '{id}'\n\
         [connection.children.n]\nlocal_ts = \"10.1.0.0/16\"\nremote_ts = \"10.2.0.0/16\"\n"
    );
    pollux_config::parse(Path::new("test.toml"), &text).map(drop).map_err(|problems| problems.to_string())
}

#[test]
fn identities_that_are_refused_are_refused_with_the_mistake() {
    for (id, said) in [
        ("fqnd:gw.example", "did you mean `fqdn:`?"),
        ("xmppaddr:a@b", "is no type of identities"),
        ("sip:alice@gw.example", "is no type of identities"),
        ("ipv4:gw.example", "write ipv4:192.0.2.1"),
        ("C=DE, O=x", "write asn1dn:# and its DER octets"),
        ("asn1dn:C=DE", "write asn1dn:# and its DER octets"),
        ("keyid:#0g", "pairs of hexadecimal digits"),
        ("email:gw.example", "write user@name"),
        ("@[gw]", "only libreswan has"),
        ("gw .example", "has a blank"),
        ("g\u{fc}.example", "xn--"),
        ("a*.example", "in its midst"),
    ] {
        let problems = identity_checked("remote", id).expect_err(id);
        assert!(problems.contains(said) && problems.lines().count() == 1, "{id}: {problems}");
    }
}

/// Texts that are often identities.
fn identity() -> impl Strategy<Value = String> {
    const TYPES: &[&str] = &[
        "",
        "fqdn:",
        "email:",
        "USERFQDN:",
        "rfc822:",
        "keyid:",
        "dns:",
        "ipv4:",
        "ipv6:",
        "asn1dn:",
        "foo:",
        "@",
        "@@",
        "@#",
        "keyid:#",
    ];
    const VALUES: &[&str] = &[
        "gw.example",
        "a@gw.example",
        "192.0.2.1",
        "::1",
        "00ff",
        "#c0000201",
        "%any",
        "*",
        "*.example",
        "*@x",
        "C=DE",
        "[x]",
        "~00",
        "",
    ];
    let value = prop_oneof![select(VALUES).prop_map(ToOwned::to_owned), "[a-z@.:#*%=~ \u{fc}\\[0-9]{0,6}"];
    (select(TYPES), value).prop_map(|(kind, value)| format!("{kind}{value}"))
}

/// A word of the grammar, now and then written otherwise, or none.
fn word() -> impl Strategy<Value = String> {
    let words: Vec<String> = syntax::keywords();
    prop_oneof![
        12 => select(words.clone()),
        2 => select(words.clone()).prop_map(|word| word.to_uppercase()),
        2 => select(words.clone()).prop_map(|word| format!(" {word}  ")),
        1 => select(words).prop_map(|word| word[..word.len() - 1].to_owned()),
        1 => select(vec![String::new(), " ".to_owned(), "default".to_owned(), "rot13".to_owned()]),
    ]
}

/// Words that often make a proposal of `protocol`, in any order.
fn likely(ike: bool) -> impl Strategy<Value = Vec<String>> {
    let list = |words: &[&str]| select(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let cipher = list(&["aes256gcm16", "aes128", "aes192", "AES", "chacha20poly1305", "null", "aes256gcm"]);
    let prf = list(&["prfsha256", "sha256", "sha384", "sha2_512", "prfsha512"]);
    let last = if ike {
        list(&["x25519", "ecp256", "modp2048"])
    } else {
        list(&["esn", "noesn", "modpnone", "x25519"])
    };
    (cipher, prop::option::of(prf), prop::option::of(last), prop::collection::vec(word(), 0..2)).prop_map(
        |(cipher, prf, last, more)| {
            let mut words = vec![cipher];
            words.extend(prf);
            words.extend(last);
            words.extend(more);
            words
        },
    )
}

fn any_words(ike: bool) -> impl Strategy<Value = Vec<String>> {
    prop_oneof![prop::collection::vec(word(), 1..6), likely(ike)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn identities_are_accepted_by_both_or_by_neither(id in identity()) {
        let (ours, theirs) = (Identity::parse(&id), IdentityPattern::parse(&id));
        prop_assert_eq!(identity_checked("local", &id).is_ok(), ours.is_some(), "`{}`: {:?}", id, ours);
        prop_assert_eq!(identity_checked("remote", &id).is_ok(), theirs.is_some(), "`{}`: {:?}", id, theirs);
    }

    #[test]
    fn ike_proposals_are_accepted_by_both_or_by_neither(words in any_words(true)) {
        let text = words.join("-");
        let by_core = text == "default" || Proposal::parse_ike(&text).is_ok();
        prop_assert_eq!(checked(&text, GOOD_ESP), by_core, "`{}`: {:?}", text, Proposal::parse_ike(&text));
    }

    #[test]
    fn esp_proposals_are_accepted_by_both_or_by_neither(words in any_words(false)) {
        let text = words.join("-");
        let by_core = text == "default" || Proposal::parse_esp(&text).is_ok();
        prop_assert_eq!(checked(GOOD_IKE, &text), by_core, "`{}`: {:?}", text, Proposal::parse_esp(&text));
    }
}
