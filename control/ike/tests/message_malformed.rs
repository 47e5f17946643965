//! A table of bad input: each row is refused for the reason that it names.

mod support;

use pollux_ike::message::{
    ExchangeType, Header, Malformed, Message, NotifyType, PAYLOADS_MAX, PayloadType, Payloads, Writer,
};
use support::{ToyCipher, drain, header, init, inner, read, sealed};

/// One payload with this body, alone in a chain.
fn alone(kind: PayloadType, body: &[u8]) -> Result<usize, Malformed> {
    let octets = payload(PayloadType::None, 0, body);
    Payloads::parse(kind, &octets).map(|payloads| drain(&payloads))
}

fn payload(next: PayloadType, flags: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len() + 4).expect("short");
    let mut octets = vec![next.to_wire(), flags];
    octets.extend_from_slice(&len.to_be_bytes());
    octets.extend_from_slice(body);
    octets
}

/// A message in clear from raw payloads.
fn message(first: PayloadType, payloads: &[u8]) -> Vec<u8> {
    let mut header = header(ExchangeType::IkeSaInit, false);
    header.first = first;
    header.length = u32::try_from(Header::LEN + payloads.len()).expect("short");
    let mut octets = Vec::new();
    header.write(&mut octets);
    octets.extend_from_slice(payloads);
    octets
}

#[test]
fn every_truncation_is_refused() {
    for whole in [init(), sealed(&ToyCipher { block_len: 1 })] {
        assert!(Message::parse(&whole).is_ok());
        for len in 0..whole.len() {
            // As the network cuts it, and as a liar who fixes the header's length does.
            assert!(Message::parse(&whole[..len]).is_err(), "{len} octets");
            if len < Header::LEN {
                continue;
            }
            let mut fixed = whole[..len].to_vec();
            fixed[24..28].copy_from_slice(&u32::try_from(len).expect("short").to_be_bytes());
            assert!(Message::parse(&fixed).is_err(), "{len} octets, length fixed");
        }
    }
    let (first, whole) = inner();
    for len in 0..whole.len() {
        assert!(Payloads::parse(first, &whole[..len]).is_err(), "{len} octets inside");
    }
    assert!(Payloads::parse(first, &whole).is_ok());
}

#[test]
fn every_wrong_length_is_refused_or_harmless() {
    let whole = init();
    for at in 0..whole.len() {
        for value in [0, 1, 3, 0x7f, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[at] = value;
            read(&changed);
        }
    }
    let (first, whole) = inner();
    for at in 0..whole.len() {
        for value in [0, 1, 3, 0x7f, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[at] = value;
            let _ = Payloads::parse(first, &changed).map(|payloads| drain(&payloads));
        }
    }
}

#[test]
fn header_errors_name_what_is_wrong() {
    let whole = init();
    let mut longer = whole.clone();
    longer.push(0);
    let claimed = u32::try_from(whole.len()).expect("short");
    assert_eq!(Message::parse(&longer), Err(Malformed::MessageLength { claimed, actual: whole.len() + 1 }));
    let mut version_3 = whole.clone();
    version_3[17] = 0x30;
    assert_eq!(Message::parse(&version_3), Err(Malformed::MajorVersion(3)));
    assert_eq!(Malformed::MajorVersion(3).notify(), NotifyType::InvalidMajorVersion);
    let mut minor = whole;
    minor[17] = 0x27;
    assert!(Message::parse(&minor).is_ok(), "the minor version is ignored");
    assert_eq!(Message::parse(&[]), Err(Malformed::Header { len: 0 }));
}

#[test]
fn chains_end_where_the_message_does() {
    let kind = PayloadType::Vendor;
    // A payload of length 0 would be found again and again.
    assert_eq!(
        Message::parse(&message(kind, &[43, 0, 0, 0])),
        Err(Malformed::PayloadLength { kind, claimed: 0, left: 4 })
    );
    assert_eq!(
        Message::parse(&message(kind, &[0, 0, 0, 9, 1])),
        Err(Malformed::PayloadLength { kind, claimed: 9, left: 5 })
    );
    assert_eq!(Message::parse(&message(kind, &[0, 0])), Err(Malformed::Chain { kind, left: 2 }));
    let after_the_end = [payload(PayloadType::None, 0, b"x"), vec![1, 2, 3]].concat();
    assert_eq!(
        Message::parse(&message(kind, &after_the_end)),
        Err(Malformed::Chain { kind: PayloadType::None, left: 3 })
    );
    let many: Vec<u8> = payload(kind, 0, &[]).repeat(PAYLOADS_MAX + 1);
    assert_eq!(Message::parse(&message(kind, &many)), Err(Malformed::TooManyPayloads { max: PAYLOADS_MAX }));
}

#[test]
fn unknown_payloads_are_skipped_unless_critical() {
    let unknown = PayloadType::Unknown(200);
    let nonce = payload(PayloadType::None, 0, &[5; 16]);
    let skipped = [payload(PayloadType::Nonce, 0, b"?"), nonce.clone()].concat();
    assert_eq!(Message::parse(&message(unknown, &skipped)).map(|m| m.payloads.nonce.is_some()), Ok(true));
    let critical = [payload(PayloadType::Nonce, 0x80, b"?"), nonce].concat();
    let error = Message::parse(&message(unknown, &critical)).expect_err("critical");
    assert_eq!(error, Malformed::UnknownCritical(200));
    assert_eq!(error.notify(), NotifyType::UnsupportedCriticalPayload);
    // A payload that we know is taken whatever its critical bit says.
    let known = payload(PayloadType::None, 0x80, &[5; 16]);
    assert!(Message::parse(&message(PayloadType::Nonce, &known)).is_ok());
}

#[test]
fn payloads_that_appear_once_are_refused_twice() {
    let twice = |kind: PayloadType, body: &[u8]| {
        let octets = [payload(kind, 0, body), payload(PayloadType::None, 0, body)].concat();
        assert_eq!(Payloads::parse(kind, &octets), Err(Malformed::Repeated(kind)));
    };
    let sa = [0, 0, 0, 16, 1, 1, 0, 1, 0, 0, 0, 8, 4, 0, 0, 31];
    let ts = [1, 0, 0, 0, 7, 0, 0, 16, 0, 0, 255, 255, 10, 0, 0, 0, 10, 0, 0, 255];
    twice(PayloadType::Sa, &sa);
    twice(PayloadType::Ke, &[0, 31, 0, 0, 1]);
    twice(PayloadType::Nonce, &[0; 16]);
    twice(PayloadType::IdI, &[2, 0, 0, 0, b'a']);
    twice(PayloadType::IdR, &[2, 0, 0, 0, b'a']);
    twice(PayloadType::Auth, &[2, 0, 0, 0, 1]);
    twice(PayloadType::TsI, &ts);
    twice(PayloadType::TsR, &ts);
    twice(PayloadType::Cp, &[1, 0, 0, 0]);
    twice(PayloadType::Eap, &[3, 0, 0, 4]);
}

#[test]
fn encrypted_payloads_come_last_and_never_nest() {
    let sk = payload(PayloadType::Nonce, 0, &[0; 40]);
    let parsed = message(PayloadType::Sk, &sk);
    let parsed = Message::parse(&parsed).expect("framing alone is looked at");
    assert_eq!(parsed.encrypted.map(|encrypted| encrypted.first), Some(PayloadType::Nonce));
    let behind = [sk.clone(), payload(PayloadType::None, 0, &[0; 16])].concat();
    assert_eq!(
        Message::parse(&message(PayloadType::Sk, &behind)),
        Err(Malformed::Chain { kind: PayloadType::None, left: 20 })
    );
    assert_eq!(Payloads::parse(PayloadType::Sk, &sk), Err(Malformed::Nested(PayloadType::Sk)));
    let bad = Malformed::Field { kind: PayloadType::Skf, field: "fragment number", value: 3 };
    let skf = payload(PayloadType::None, 0, &[0, 3, 0, 2, 0, 0]);
    assert_eq!(Message::parse(&message(PayloadType::Skf, &skf)), Err(bad));
}

#[test]
fn padding_longer_than_the_content_is_refused() {
    let cipher = ToyCipher { block_len: 1 };
    let mut writer = Writer::encrypted(&header(ExchangeType::Informational, false), &cipher);
    writer.vendor_id(&[]);
    let iv = pollux_ike::crypto::Iv::new(
        pollux_ike::crypto::Encryption::Aes128Gcm16,
        0,
        &mut pollux_pair::Seeded::new(0),
    );
    let sealed = writer.seal(&cipher, &iv).expect("fits");
    let encrypted = Message::parse(&sealed).expect("a message").encrypted.expect("an SK payload");
    let mut again = sealed.clone();
    let content = encrypted.content;
    let plain_len = pollux_ike::crypto::SkCipher::open(&cipher, &mut again, content).expect("opens").len();
    let pad_at = content + 8 + plain_len - 1;
    for (pad_len, fits) in [(0, true), (4, true), (5, false), (255, false)] {
        let mut message = again.clone();
        message[pad_at] = pad_len;
        pollux_ike::crypto::SkCipher::seal(&cipher, &iv, &mut message, content).expect("fits");
        assert_eq!(encrypted.open(&cipher, &mut message).is_ok(), fits, "{pad_len} octets of padding");
    }
}

#[test]
fn insides_that_contradict_themselves_are_refused() {
    use PayloadType as P;
    const TRANSFORM: [u8; 8] = [0, 0, 0, 8, 4, 0, 0, 31];
    let proposal = |last: u8, len: u8, spi_len: u8, count: u8, rest: &[u8]| {
        [&[last, 0, 0, len, 1, 1, spi_len, count][..], rest].concat()
    };
    let selector = |kind: u8, len: u8, ports: [u8; 4], rest: &[u8]| {
        [&[1, 0, 0, 0, kind, 0, 0, len][..], &ports[..], rest].concat()
    };
    let any = [0, 0, 255, 255];
    let rows: &[(&str, P, Vec<u8>, bool)] = &[
        ("a proposal with one transform", P::Sa, proposal(0, 16, 0, 1, &TRANSFORM), true),
        ("no proposal", P::Sa, vec![], false),
        ("a proposal that announces another", P::Sa, proposal(2, 16, 0, 1, &TRANSFORM), false),
        ("an unknown last substructure", P::Sa, proposal(1, 16, 0, 1, &TRANSFORM), false),
        ("a proposal longer than the payload", P::Sa, proposal(0, 17, 0, 1, &TRANSFORM), false),
        ("a proposal shorter than its header", P::Sa, proposal(0, 3, 0, 1, &TRANSFORM), false),
        ("octets after the last proposal", P::Sa, proposal(0, 8, 0, 0, &TRANSFORM), false),
        ("an SPI longer than the proposal", P::Sa, proposal(0, 16, 9, 1, &TRANSFORM), false),
        ("fewer transforms than counted", P::Sa, proposal(0, 16, 0, 2, &TRANSFORM), false),
        ("more transforms than counted", P::Sa, proposal(0, 16, 0, 0, &TRANSFORM), false),
        (
            "a transform that announces another",
            P::Sa,
            proposal(0, 16, 0, 1, &[3, 0, 0, 8, 4, 0, 0, 31]),
            false,
        ),
        ("a transform of length 0", P::Sa, proposal(0, 16, 0, 1, &[0, 0, 0, 0, 4, 0, 0, 31]), false),
        ("an attribute cut off", P::Sa, proposal(0, 18, 0, 1, &[0, 0, 0, 10, 1, 0, 0, 20, 128, 14]), false),
        (
            "a long attribute cut off",
            P::Sa,
            proposal(0, 20, 0, 1, &[0, 0, 0, 12, 1, 0, 0, 20, 0, 14, 0, 9]),
            false,
        ),
        ("a key exchange without a value", P::Ke, vec![0, 31, 0, 0], false),
        ("a key exchange cut off", P::Ke, vec![0, 31, 0], false),
        ("a nonce of 16 octets", P::Nonce, vec![0; 16], true),
        ("a nonce of 15 octets", P::Nonce, vec![0; 15], false),
        ("a nonce of 256 octets", P::Nonce, vec![0; 256], true),
        ("a nonce of 257 octets", P::Nonce, vec![0; 257], false),
        ("an IPv4 identity of 5 octets", P::IdI, vec![1, 0, 0, 0, 1, 2, 3, 4, 5], false),
        ("an IPv6 identity of 4 octets", P::IdR, vec![5, 0, 0, 0, 1, 2, 3, 4], false),
        ("a name without a letter", P::IdR, vec![2, 0, 0, 0], false),
        ("nobody", P::IdI, vec![13, 0, 0, 0], true),
        ("an AUTH without a header", P::Auth, vec![2, 0, 0], false),
        ("a certificate without an encoding", P::Cert, vec![], false),
        ("a notify cut off", P::Notify, vec![0, 0, 64], false),
        ("a notify whose SPI is cut off", P::Notify, vec![3, 4, 64, 9, 1, 2, 3], false),
        ("a delete of an IKE SA", P::Delete, vec![1, 0, 0, 0], true),
        ("a delete of an IKE SA with an SPI", P::Delete, vec![1, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1], false),
        ("a delete with SPIs of 3 octets", P::Delete, vec![3, 3, 0, 1, 1, 2, 3], false),
        ("a delete with fewer SPIs than counted", P::Delete, vec![3, 4, 0, 2, 1, 2, 3, 4], false),
        ("a delete with more SPIs than counted", P::Delete, vec![3, 4, 0, 0, 1, 2, 3, 4], false),
        ("a selector", P::TsI, selector(7, 16, any, &[10, 0, 0, 0, 10, 0, 0, 255]), true),
        ("a selector of an unknown type", P::TsI, selector(99, 8, any, &[]), true),
        ("no selector", P::TsI, vec![0, 0, 0, 0], false),
        ("addresses in the wrong order", P::TsI, selector(7, 16, any, &[10, 0, 0, 9, 10, 0, 0, 1]), false),
        (
            "ports in the wrong order",
            P::TsI,
            selector(7, 16, [0, 9, 0, 1], &[10, 0, 0, 0, 10, 0, 0, 1]),
            false,
        ),
        (
            "a selector of the wrong length",
            P::TsR,
            selector(7, 17, any, &[10, 0, 0, 0, 10, 0, 0, 1, 0]),
            false,
        ),
        ("an IPv6 selector cut off", P::TsR, selector(8, 16, any, &[10, 0, 0, 0, 10, 0, 0, 1]), false),
        ("a selector of length 0", P::TsR, selector(7, 0, any, &[10, 0, 0, 0, 10, 0, 0, 1]), false),
        ("fewer selectors than counted", P::TsR, vec![2, 0, 0, 0, 99, 0, 0, 4], false),
        ("more selectors than counted", P::TsR, vec![1, 0, 0, 0, 99, 0, 0, 4, 99, 0, 0, 4], false),
        ("a configuration attribute cut off", P::Cp, vec![1, 0, 0, 0, 0, 1, 0, 4, 1], false),
        ("an EAP packet of another length", P::Eap, vec![1, 1, 0, 9, 1], false),
    ];
    for (what, kind, body, fits) in rows {
        let read = alone(*kind, body);
        assert_eq!(read.is_ok(), *fits, "{what}: {read:?}");
        if let Err(error) = read {
            assert_eq!(error.notify(), NotifyType::InvalidSyntax, "{what}");
        }
    }
}

#[test]
fn transforms_with_unknown_attributes_are_marked() {
    let body = [
        0, 0, 0, 28, 1, 1, 0, 1, // proposal
        0, 0, 0, 20, 1, 0, 0, 20, // transform ENCR 20
        0x80, 14, 1, 0, // key length 256
        0, 99, 0, 4, 1, 2, 3, 4, // an attribute of four octets that nobody knows
    ];
    let octets = payload(PayloadType::None, 0, &body);
    let payloads = Payloads::parse(PayloadType::Sa, &octets).expect("well-formed");
    let proposal = payloads.sa.expect("an SA payload").proposals().next().expect("a proposal");
    let transform = proposal.transforms().next().expect("a transform");
    assert_eq!((transform.key_bits, transform.unknown_attribute), (Some(256), true));
}
