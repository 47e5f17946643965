//! SK payloads of one IKE SA: sealing with IVs that never repeat, opening in place (RFC 7296 §3.14).

use crate::crypto::{Encryption, Iv, Rng, SkCipher};
use crate::message::{Encrypted, Header, OpenError, WriteError, Writer};

/// The ciphers of both directions.
#[derive(Debug)]
pub(crate) struct Protect {
    encryption: Encryption,
    ours: Box<dyn SkCipher>,
    theirs: Box<dyn SkCipher>,
    /// Messages sealed so far: the IV of combined modes. A repeated message is sent as it was, so the
    /// number grows with every new one, and 64 bits outlast every message id.
    sealed: u64,
}

impl Protect {
    pub(crate) fn new(encryption: Encryption, ours: Box<dyn SkCipher>, theirs: Box<dyn SkCipher>) -> Self {
        Self { encryption, ours, theirs, sealed: 0 }
    }

    /// Builds a message whose payloads `body` writes.
    pub(crate) fn seal(
        &mut self,
        rng: &mut dyn Rng,
        header: &Header,
        body: impl FnOnce(&mut Writer),
    ) -> Result<Vec<u8>, WriteError> {
        let mut writer = Writer::encrypted(header, &*self.ours);
        body(&mut writer);
        let iv = Iv::new(self.encryption, self.sealed, rng);
        self.sealed += 1;
        writer.seal(&*self.ours, &iv)
    }

    /// Authenticates and decrypts a message; the payloads inside.
    pub(crate) fn open<'m>(
        &self,
        encrypted: &Encrypted,
        message: &'m mut [u8],
    ) -> Result<&'m [u8], OpenError> {
        encrypted.open(&*self.theirs, message)
    }
}
