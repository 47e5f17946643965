//! From typed payloads to a message: the mirror of the reader.

use pollux_abi::{Spi, TrafficSelector};
use thiserror::Error;

use super::payload::{
    auth::Auth,
    cert::Cert,
    cp::{self, CfgAttribute},
    delete,
    eap::Eap,
    id::write_id,
    ke::Ke,
    notify::Notify,
    sa::{self, ProposalSpec},
    ts,
};
use super::reader::PAYLOAD_HEADER_LEN;
use super::{CfgType, Header, IdType, PayloadType};
use crate::crypto::{CryptoError, Iv, SkCipher};

/// Why a message could not be written.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum WriteError {
    /// A payload does not fit its 16-bit length.
    #[error("payload {kind} of {octets} octets does not fit a length of 16 bits")]
    TooLong {
        /// Which payload.
        kind: PayloadType,
        /// Octets with its header.
        octets: usize,
    },
    /// Sealing failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// Builds a chain of payloads, in clear or inside an encrypted payload.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    /// Where the type of the next payload goes.
    next_at: usize,
    too_long: Option<WriteError>,
}

impl Writer {
    /// A message in clear.
    pub fn new(header: &Header) -> Self {
        let mut out = Vec::with_capacity(512);
        header.write(&mut out);
        Self { out, next_at: 16, too_long: None }
    }

    /// The chain inside an encrypted payload; finish it with [`Self::seal`].
    ///
    /// The message is laid out in its final place: nothing is moved when it is sealed.
    pub fn encrypted(header: &Header, cipher: &dyn SkCipher) -> Self {
        let mut writer = Self::new(header);
        writer.out[writer.next_at] = PayloadType::Sk.to_wire();
        writer.next_at = writer.out.len();
        writer.out.resize(writer.out.len() + PAYLOAD_HEADER_LEN + cipher.iv_len(), 0);
        writer
    }

    /// SA.
    pub fn sa(&mut self, proposals: &[ProposalSpec<'_>]) -> &mut Self {
        self.payload(PayloadType::Sa, |out| sa::write(proposals, out))
    }

    /// KE.
    pub fn ke(&mut self, ke: Ke<'_>) -> &mut Self {
        self.payload(PayloadType::Ke, |out| ke.write(out))
    }

    /// Nonce.
    pub fn nonce(&mut self, nonce: &[u8]) -> &mut Self {
        self.payload(PayloadType::Nonce, |out| out.extend_from_slice(nonce))
    }

    /// IDi.
    pub fn id_i(&mut self, kind: IdType, data: &[u8]) -> &mut Self {
        self.payload(PayloadType::IdI, |out| write_id(kind, data, out))
    }

    /// IDr.
    pub fn id_r(&mut self, kind: IdType, data: &[u8]) -> &mut Self {
        self.payload(PayloadType::IdR, |out| write_id(kind, data, out))
    }

    /// AUTH.
    pub fn auth(&mut self, auth: Auth<'_>) -> &mut Self {
        self.payload(PayloadType::Auth, |out| auth.write(out))
    }

    /// CERT.
    pub fn cert(&mut self, cert: Cert<'_>) -> &mut Self {
        self.payload(PayloadType::Cert, |out| cert.write(out))
    }

    /// CERTREQ.
    pub fn cert_request(&mut self, request: Cert<'_>) -> &mut Self {
        self.payload(PayloadType::CertReq, |out| request.write(out))
    }

    /// N.
    pub fn notify(&mut self, notify: Notify<'_>) -> &mut Self {
        self.payload(PayloadType::Notify, |out| notify.write(out))
    }

    /// D that closes the IKE SA.
    pub fn delete_ike(&mut self) -> &mut Self {
        self.payload(PayloadType::Delete, delete::write_ike)
    }

    /// D that closes ESP SAs, by the SPIs of our inbound halves.
    pub fn delete_esp(&mut self, spis: &[Spi]) -> &mut Self {
        self.payload(PayloadType::Delete, |out| delete::write_esp(spis, out))
    }

    /// V.
    pub fn vendor_id(&mut self, id: &[u8]) -> &mut Self {
        self.payload(PayloadType::Vendor, |out| out.extend_from_slice(id))
    }

    /// TSi.
    pub fn ts_i(&mut self, selectors: &[TrafficSelector]) -> &mut Self {
        self.payload(PayloadType::TsI, |out| ts::write(selectors, out))
    }

    /// TSr.
    pub fn ts_r(&mut self, selectors: &[TrafficSelector]) -> &mut Self {
        self.payload(PayloadType::TsR, |out| ts::write(selectors, out))
    }

    /// CP.
    pub fn cp(&mut self, kind: CfgType, attributes: &[CfgAttribute<'_>]) -> &mut Self {
        self.payload(PayloadType::Cp, |out| cp::write(kind, attributes, out))
    }

    /// EAP.
    pub fn eap(&mut self, eap: Eap<'_>) -> &mut Self {
        self.payload(PayloadType::Eap, |out| eap.write(out))
    }

    fn payload(&mut self, kind: PayloadType, body: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.out.len();
        self.out[self.next_at] = kind.to_wire();
        self.out.extend_from_slice(&[0; PAYLOAD_HEADER_LEN]);
        body(&mut self.out);
        self.close(start, kind, self.out.len() - start);
        self
    }

    fn close(&mut self, start: usize, kind: PayloadType, octets: usize) {
        match u16::try_from(octets) {
            Ok(len) => self.out[start + 2..start + 4].copy_from_slice(&len.to_be_bytes()),
            Err(_) => self.too_long = self.too_long.or(Some(WriteError::TooLong { kind, octets })),
        }
        self.next_at = start;
    }

    /// The message in clear.
    pub fn finish(mut self) -> Result<Vec<u8>, WriteError> {
        self.write_length();
        self.too_long.map_or(Ok(self.out), Err)
    }

    /// Pads, encrypts and authenticates a message that [`Self::encrypted`] has begun.
    pub fn seal(mut self, cipher: &dyn SkCipher, iv: &Iv) -> Result<Vec<u8>, WriteError> {
        let content = Header::LEN + PAYLOAD_HEADER_LEN;
        let plain_at = content + cipher.iv_len();
        let block = cipher.block_len();
        let unpadded = self.out.len() - plain_at + 1;
        let pad_len = unpadded.next_multiple_of(block) - unpadded;
        self.out.resize(self.out.len() + pad_len, 0);
        // A block is at most 16 octets.
        self.out.push(u8::try_from(pad_len).unwrap_or(0));
        self.out.resize(self.out.len() + cipher.icv_len(), 0);
        let octets = self.out.len() - Header::LEN;
        self.close(Header::LEN, PayloadType::Sk, octets);
        self.write_length();
        if let Some(error) = self.too_long {
            return Err(error);
        }
        cipher.seal(iv, &mut self.out, content)?;
        Ok(self.out)
    }

    fn write_length(&mut self) {
        // A message whose payloads all fit 16 bits can still be long; UDP bounds it far below 32 bits.
        let len = u32::try_from(self.out.len()).unwrap_or(u32::MAX);
        self.out[24..28].copy_from_slice(&len.to_be_bytes());
    }
}
