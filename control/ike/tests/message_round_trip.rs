//! What the writer writes, the reader reads: every payload, every value.

mod support;

use std::net::{Ipv4Addr, Ipv6Addr};

use pollux_abi::{PortRange, Spi, TrafficSelector};
use pollux_ike::crypto::{Encryption, Iv};
use pollux_ike::message::{
    Auth, AuthMethod, Cert, CertEncoding, CfgAttribute, CfgType, Eap, ExchangeType, IdType, Ke, Message,
    Notify, NotifyType, OpenError, PayloadType, Payloads, ProposalSpec, Protocol, Transform, TransformType,
    Writer,
};
use pollux_pair::Seeded;
use proptest::collection::vec;
use proptest::prelude::*;
use support::{ToyCipher, header};

fn octets(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), len)
}

fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u16>(), any::<Option<u16>>()).prop_map(|(kind, id, key_bits)| Transform {
        key_bits,
        ..Transform::new(TransformType::from_wire(kind), id)
    })
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let ports = prop_oneof![
        any::<(u16, u16)>().prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) }),
        Just(PortRange::OPAQUE),
    ];
    let addresses = prop_oneof![
        any::<(u32, u32)>()
            .prop_map(|(a, b)| (Ipv4Addr::from(a.min(b)).into(), Ipv4Addr::from(a.max(b)).into())),
        any::<(u128, u128)>()
            .prop_map(|(a, b)| (Ipv6Addr::from(a.min(b)).into(), Ipv6Addr::from(a.max(b)).into())),
    ];
    (addresses, any::<u8>(), ports).prop_map(|((first, last), protocol, ports)| {
        let protocol = (protocol != 0).then_some(protocol);
        TrafficSelector::new(first, last, protocol, ports).expect("in order")
    })
}

/// Writes one message and hands its payloads to `check`.
fn written(
    write: impl FnOnce(&mut Writer),
    check: impl FnOnce(&Payloads<'_>) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut writer = Writer::new(&header(ExchangeType::IkeSaInit, false));
    write(&mut writer);
    let message = writer.finish().expect("all lengths fit");
    let parsed = Message::parse(&message);
    prop_assert!(parsed.is_ok(), "{parsed:?}");
    check(&parsed.expect("just looked").payloads)
}

proptest! {
    #[test]
    fn sa_is_read_as_written(
        proposals in vec((any::<u8>(), any::<u8>(), octets(0..9), vec(transform(), 0..12)), 1..6)
    ) {
        let specs: Vec<ProposalSpec<'_>> = proposals
            .iter()
            .map(|(number, protocol, spi, transforms)| ProposalSpec {
                number: *number,
                protocol: Protocol::from_wire(*protocol),
                spi,
                transforms,
            })
            .collect();
        written(|writer| { writer.sa(&specs); }, |payloads| {
            let read: Vec<_> = payloads.sa.expect("an SA payload").proposals().collect();
            prop_assert_eq!(read.len(), specs.len());
            for (read, spec) in read.iter().zip(&specs) {
                prop_assert_eq!((read.number, read.protocol, read.spi), (spec.number, spec.protocol, spec.spi));
                prop_assert_eq!(read.transforms().collect::<Vec<_>>(), spec.transforms);
            }
            Ok(())
        })?;
    }

    #[test]
    fn ke_and_nonce_are_read_as_written(
        method in any::<u16>(), public in octets(1..600), nonce in octets(16..257)
    ) {
        written(|writer| { writer.ke(Ke { method, public: &public }).nonce(&nonce); }, |payloads| {
            prop_assert_eq!(payloads.ke, Some(Ke { method, public: &public }));
            prop_assert_eq!(payloads.nonce, Some(&nonce[..]));
            Ok(())
        })?;
    }

    #[test]
    fn identities_are_read_as_written(name in octets(1..300), address in any::<[u8; 16]>()) {
        written(|writer| { writer.id_i(IdType::KeyId, &name).id_r(IdType::Ipv6Addr, &address); }, |payloads| {
            let (id_i, id_r) = (payloads.id_i.expect("IDi"), payloads.id_r.expect("IDr"));
            prop_assert_eq!((id_i.kind, id_i.data), (IdType::KeyId, &name[..]));
            prop_assert_eq!((id_r.kind, id_r.data), (IdType::Ipv6Addr, &address[..]));
            let mut signed = vec![11, 0, 0, 0];
            signed.extend_from_slice(&name);
            prop_assert_eq!(id_i.signed_octets(), &signed[..]);
            Ok(())
        })?;
    }

    #[test]
    fn auth_and_certificates_are_read_as_written(
        method in any::<u8>(), data in octets(0..300), first in octets(0..300), second in octets(0..300)
    ) {
        let method = AuthMethod::from_wire(method);
        let cert = |data| Cert { encoding: CertEncoding::X509Signature, data };
        let write = |writer: &mut Writer| {
            writer.cert(cert(&first)).auth(Auth { method, data: &data });
            writer.cert(cert(&second)).cert_request(cert(&first));
        };
        written(write, |payloads| {
            prop_assert_eq!(payloads.auth, Some(Auth { method, data: &data }));
            prop_assert_eq!(payloads.certs().collect::<Vec<_>>(), [cert(&first), cert(&second)]);
            prop_assert_eq!(payloads.cert_requests().collect::<Vec<_>>(), [cert(&first)]);
            Ok(())
        })?;
    }

    #[test]
    fn notifies_are_read_as_written(
        list in vec((any::<u16>(), octets(0..20), octets(0..64)), 0..20), spi in any::<[u8; 4]>()
    ) {
        let mut notifies: Vec<Notify<'_>> = list
            .iter()
            .map(|(kind, spi, data)| Notify {
                protocol: Protocol::Esp, spi, kind: NotifyType::from_wire(*kind), data
            })
            .collect();
        notifies.push(Notify::about_esp(NotifyType::RekeySa, &spi));
        let write = |writer: &mut Writer| for notify in &notifies { writer.notify(*notify); };
        written(write, |payloads| {
            prop_assert_eq!(payloads.notifies().collect::<Vec<_>>(), notifies.clone());
            let rekey = payloads.notifies().last().expect("the last one");
            prop_assert_eq!(rekey.esp_spi(), Spi::new(u32::from_be_bytes(spi)));
            Ok(())
        })?;
    }

    #[test]
    fn deletes_are_read_as_written(list in vec(256u32.., 0..50)) {
        let spis: Vec<Spi> = list.iter().filter_map(|spi| Spi::new(*spi)).collect();
        written(|writer| { writer.delete_esp(&spis).delete_ike(); }, |payloads| {
            let deletes: Vec<_> = payloads.deletes().collect();
            prop_assert_eq!(deletes.len(), 2);
            prop_assert_eq!(deletes[0].protocol, Protocol::Esp);
            prop_assert_eq!(deletes[0].esp_spis().collect::<Vec<_>>(), spis.clone());
            prop_assert_eq!((deletes[1].protocol, deletes[1].esp_spis().count()), (Protocol::Ike, 0));
            Ok(())
        })?;
    }

    #[test]
    fn traffic_selectors_are_read_as_written(of_i in vec(selector(), 1..40), of_r in vec(selector(), 1..9)) {
        written(|writer| { writer.ts_i(&of_i).ts_r(&of_r); }, |payloads| {
            prop_assert_eq!(payloads.ts_i.expect("TSi").selectors().collect::<Vec<_>>(), of_i.clone());
            prop_assert_eq!(payloads.ts_r.expect("TSr").selectors().collect::<Vec<_>>(), of_r.clone());
            Ok(())
        })?;
    }

    #[test]
    fn configuration_and_eap_are_read_as_written(
        list in vec((0u16..0x8000, octets(0..40)), 0..12), code in any::<u8>(), identifier in any::<u8>(),
        data in octets(0..200)
    ) {
        let attributes: Vec<_> = list.iter().map(|(kind, value)| CfgAttribute { kind: *kind, value }).collect();
        let eap = Eap { code, identifier, data: &data };
        written(|writer| { writer.cp(CfgType::Reply, &attributes).eap(eap); }, |payloads| {
            let cp = payloads.cp.expect("CP");
            prop_assert_eq!(cp.kind, CfgType::Reply);
            prop_assert_eq!(cp.attributes().collect::<Vec<_>>(), attributes.clone());
            prop_assert_eq!(payloads.eap, Some(eap));
            Ok(())
        })?;
    }

    #[test]
    fn sealed_messages_open_to_what_was_written(
        nonce in octets(16..257), block_len in prop_oneof![Just(1usize), Just(16)], seed in any::<u64>()
    ) {
        let cipher = ToyCipher { block_len };
        let mut writer = Writer::encrypted(&header(ExchangeType::CreateChildSa, true), &cipher);
        writer.nonce(&nonce).vendor_id(b"last");
        let iv = Iv::new(Encryption::Aes256Gcm16, seed, &mut Seeded::new(seed));
        let mut message = writer.seal(&cipher, &iv).expect("fits");
        let parsed = Message::parse(&message).expect("a message");
        prop_assert_eq!(parsed.payloads.kinds().collect::<Vec<_>>(), [PayloadType::Sk]);
        let encrypted = parsed.encrypted.expect("an SK payload");
        let mut tampered = message.clone();
        let at = usize::try_from(seed).unwrap_or(0) % tampered.len();
        tampered[at] ^= 1;
        prop_assert!(matches!(encrypted.open(&cipher, &mut tampered), Err(OpenError::Crypto(_))));
        let plain = encrypted.open(&cipher, &mut message).expect("opens");
        let payloads = Payloads::parse(encrypted.first, plain).expect("payloads");
        prop_assert_eq!(payloads.nonce, Some(&nonce[..]));
        prop_assert_eq!(payloads.vendor_ids().collect::<Vec<_>>(), [b"last"]);
    }
}

#[test]
fn a_sealed_message_may_be_empty() {
    let cipher = ToyCipher { block_len: 16 };
    let iv = Iv::new(Encryption::Aes256Gcm16, 0, &mut Seeded::new(0));
    let writer = Writer::encrypted(&header(ExchangeType::Informational, false), &cipher);
    let mut message = writer.seal(&cipher, &iv).expect("fits");
    let encrypted = Message::parse(&message).expect("a message").encrypted.expect("an SK payload");
    assert_eq!(encrypted.first, PayloadType::None);
    let plain = encrypted.open(&cipher, &mut message).expect("opens");
    assert_eq!(Payloads::parse(encrypted.first, plain).expect("payloads").kinds().count(), 0);
}

#[test]
fn payloads_that_do_not_fit_their_length_are_an_error() {
    let long = vec![0; 70_000];
    let mut writer = Writer::new(&header(ExchangeType::IkeAuth, false));
    writer.vendor_id(&long);
    let error = writer.finish().expect_err("too long");
    assert_eq!(error.to_string(), "payload V of 70004 octets does not fit a length of 16 bits");
    let cipher = ToyCipher { block_len: 1 };
    let mut writer = Writer::encrypted(&header(ExchangeType::IkeAuth, false), &cipher);
    writer.vendor_id(&long[..65_000]).vendor_id(&long[..65_000]);
    let iv = Iv::new(Encryption::Aes256Gcm16, 0, &mut Seeded::new(0));
    assert!(writer.seal(&cipher, &iv).is_err());
}
