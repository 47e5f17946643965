//! Samples of every payload, a toy cipher, and a reader that touches every accessor.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pollux_abi::{PortRange, Spi, TrafficSelector};
use pollux_ike::crypto::{CryptoError, Encryption, Iv, SkCipher};
use pollux_ike::message::{
    Auth, AuthMethod, Cert, CertEncoding, CfgAttribute, CfgType, Eap, ExchangeType, Flags, Header, IdType,
    IkeSpi, Ke, Message, MessageId, Notify, NotifyType, Payloads, ProposalSpec, Protocol, Transform,
    TransformType, Writer,
};
use pollux_pair::Seeded;

/// Adds up octets and turns them by their place: wrong octets are found, and nothing is hidden.
#[derive(Debug)]
pub(crate) struct ToyCipher {
    pub(crate) block_len: usize,
}

const TOY_IV_LEN: usize = 8;
const TOY_ICV_LEN: usize = 4;

fn toy_sum(octets: &[u8]) -> [u8; TOY_ICV_LEN] {
    let sum = octets.iter().fold(7u32, |sum, octet| sum.rotate_left(5).wrapping_add(u32::from(*octet)));
    sum.to_be_bytes()
}

impl SkCipher for ToyCipher {
    fn iv_len(&self) -> usize {
        TOY_IV_LEN
    }

    fn icv_len(&self) -> usize {
        TOY_ICV_LEN
    }

    fn block_len(&self) -> usize {
        self.block_len
    }

    fn seal(&self, iv: &Iv, message: &mut [u8], content: usize) -> Result<(), CryptoError> {
        message[content..content + TOY_IV_LEN].copy_from_slice(iv.as_bytes());
        let covered = message.len() - TOY_ICV_LEN;
        for octet in &mut message[content + TOY_IV_LEN..covered] {
            *octet ^= 0x5a;
        }
        let icv = toy_sum(&message[..covered]);
        message[covered..].copy_from_slice(&icv);
        Ok(())
    }

    fn open<'m>(&self, message: &'m mut [u8], content: usize) -> Result<&'m mut [u8], CryptoError> {
        let covered = message.len().checked_sub(TOY_ICV_LEN).ok_or(CryptoError::Authentication)?;
        if toy_sum(&message[..covered]) != message[covered..] || content + TOY_IV_LEN > covered {
            return Err(CryptoError::Authentication);
        }
        let plain = &mut message[content + TOY_IV_LEN..covered];
        for octet in &mut *plain {
            *octet ^= 0x5a;
        }
        Ok(plain)
    }
}

pub(crate) fn header(exchange: ExchangeType, response: bool) -> Header {
    let flags = Flags { initiator: !response, higher_version: false, response };
    let spi = |octet| IkeSpi::from_be_bytes([octet; 8]);
    Header::new(spi(1), spi(if response { 2 } else { 0 }), exchange, flags, MessageId(0))
}

pub(crate) fn transforms() -> Vec<Transform> {
    vec![
        Transform::with_key_bits(TransformType::Encryption, 20, 256),
        Transform::new(TransformType::Prf, 5),
        Transform::new(TransformType::KeyExchange, 31),
    ]
}

pub(crate) fn selectors() -> Vec<TrafficSelector> {
    let v4 = |text: &str| IpAddr::V4(text.parse::<Ipv4Addr>().expect("an address"));
    let v6 = |text: &str| IpAddr::V6(text.parse::<Ipv6Addr>().expect("an address"));
    let ports = PortRange { first: 5060, last: 5061 };
    vec![
        TrafficSelector::new(v4("10.1.0.0"), v4("10.1.0.255"), Some(17), ports).expect("a range"),
        TrafficSelector::new(v6("2001:db8::"), v6("2001:db8::ff"), None, PortRange::ANY).expect("a range"),
        TrafficSelector::new(v4("192.0.2.1"), v4("192.0.2.9"), Some(6), PortRange::OPAQUE).expect("a range"),
    ]
}

/// IKE_SA_INIT as an initiator sends it.
pub(crate) fn init() -> Vec<u8> {
    let list = transforms();
    let proposal = ProposalSpec { number: 1, protocol: Protocol::Ike, spi: &[], transforms: &list };
    let second = ProposalSpec { number: 2, ..proposal };
    let mut writer = Writer::new(&header(ExchangeType::IkeSaInit, false));
    writer
        .sa(&[proposal, second])
        .ke(Ke { method: 31, public: &[9; 32] })
        .nonce(&[7; 32])
        .notify(Notify::new(NotifyType::NatDetectionSourceIp, &[1; 20]))
        .notify(Notify::new(NotifyType::NatDetectionDestinationIp, &[2; 20]))
        .notify(Notify::new(NotifyType::FragmentationSupported, &[]))
        .vendor_id(b"a vendor");
    writer.finish().expect("all lengths fit")
}

/// Every payload that lives inside SK, in one chain of type and octets; no exchange has them all.
pub(crate) fn write_all(writer: &mut Writer) {
    let list = [
        Transform::with_key_bits(TransformType::Encryption, 20, 128),
        Transform::new(TransformType::SequenceNumbers, 1),
        Transform::new(TransformType::SequenceNumbers, 0),
    ];
    let spi = [0xc0, 0, 1, 2];
    let attributes = [CfgAttribute { kind: 1, value: &[10, 0, 0, 1] }, CfgAttribute { kind: 3, value: &[] }];
    writer
        .id_i(IdType::Fqdn, b"a.example")
        .cert(Cert { encoding: CertEncoding::HashAndUrl, data: b"twenty octets of hasha.example/c" })
        .cert_request(Cert { encoding: CertEncoding::X509Signature, data: &[4; 20] })
        .id_r(IdType::Ipv4Addr, &[192, 0, 2, 1])
        .auth(Auth { method: AuthMethod::SharedKey, data: &[3; 32] })
        .cp(CfgType::Request, &attributes)
        .notify(Notify::about_esp(NotifyType::RekeySa, &spi))
        .notify(Notify::new(NotifyType::InitialContact, &[]))
        .sa(&[ProposalSpec { number: 1, protocol: Protocol::Esp, spi: &spi, transforms: &list }])
        .ts_i(&selectors())
        .ts_r(&selectors())
        .eap(Eap { code: 1, identifier: 9, data: &[1] })
        .delete_esp(&[Spi::new(0x1234_5678).expect("no reserved value")])
        .delete_ike()
        .vendor_id(b"v");
}

/// The chain of [`write_all`] in clear, as what an SK payload has inside: type of the first, and octets.
pub(crate) fn inner() -> (pollux_ike::message::PayloadType, Vec<u8>) {
    let mut writer = Writer::new(&header(ExchangeType::IkeAuth, false));
    write_all(&mut writer);
    let message = writer.finish().expect("all lengths fit");
    let first = Header::parse(&message).expect("a header").first;
    (first, message[Header::LEN..].to_vec())
}

/// The same chain sealed.
pub(crate) fn sealed(cipher: &dyn SkCipher) -> Vec<u8> {
    let mut writer = Writer::encrypted(&header(ExchangeType::IkeAuth, false), cipher);
    write_all(&mut writer);
    let iv = Iv::new(Encryption::Aes128Gcm16, 1, &mut Seeded::new(1));
    writer.seal(cipher, &iv).expect("all lengths fit")
}

/// Touches everything there is to read; returns how much it was, so that nothing is optimised away.
pub(crate) fn drain(payloads: &Payloads<'_>) -> usize {
    let mut octets = 0;
    if let Some(sa) = payloads.sa {
        for proposal in sa.proposals() {
            octets += proposal.spi.len() + proposal.transforms().count();
        }
        octets += pollux_ike::negotiate::syntax::describe_sa(&sa).len();
    }
    octets += payloads.ke.map_or(0, |ke| ke.public.len());
    octets += payloads.nonce.map_or(0, <[u8]>::len);
    for id in [payloads.id_i, payloads.id_r].into_iter().flatten() {
        octets += id.data.len() + id.signed_octets().len();
    }
    octets += payloads.auth.map_or(0, |auth| auth.data.len());
    for ts in [payloads.ts_i, payloads.ts_r].into_iter().flatten() {
        octets += ts.selectors().count();
        octets += pollux_ike::negotiate::selector::narrow(&selectors(), ts.selectors()).len();
    }
    octets += payloads.cp.map_or(0, |cp| cp.attributes().map(|attribute| attribute.value.len() + 1).sum());
    octets += payloads.eap.map_or(0, |eap| eap.data.len());
    for notify in payloads.notifies() {
        octets += notify.data.len() + usize::from(notify.esp_spi().is_some());
    }
    octets += payloads.deletes().map(|delete| delete.esp_spis().count()).sum::<usize>();
    octets += payloads.certs().chain(payloads.cert_requests()).map(|cert| cert.data.len()).sum::<usize>();
    octets + payloads.vendor_ids().map(<[u8]>::len).sum::<usize>() + payloads.kinds().count()
}

/// Reads a datagram as far as it goes.
pub(crate) fn read(datagram: &[u8]) -> usize {
    Message::parse(datagram).map_or(0, |message| drain(&message.payloads))
}
