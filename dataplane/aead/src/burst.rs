//! The burst: jobs, and the walk over them.

use crate::dispatch::Engine;
use crate::kernel::portable::Context;
use crate::key::Key;
use crate::packet::Text;
use crate::verdict::Verdict;

/// One packet to be sealed.
#[derive(Debug)]
pub struct SealJob<'a> {
    /// The SA's key context.
    pub key: &'a Key,
    /// The ESP packet from the first octet of the SPI to the last octet of the ICV. SPI and the low half of the
    /// sequence number are written, and the plaintext (payload, padding, pad length, next header) lies after the
    /// IV field. IV and ICV are filled in here.
    pub packet: &'a mut [u8],
    /// The high half of the sequence number: part of what is authenticated where the SA has ESN, else ignored.
    pub seq_high: u32,
    /// The IV: never the same twice under one key. It goes out as 8 octets, or for CBC encrypted to 16, which
    /// makes it unpredictable (NIST SP 800-38A, appendix C). Implicit-IV suites ignore it.
    pub iv: u64,
}

/// One packet to be opened.
#[derive(Debug)]
pub struct OpenJob<'a> {
    /// The SA's key context.
    pub key: &'a Key,
    /// The ESP packet from the first octet of the SPI to the last octet of the ICV.
    pub packet: &'a mut [u8],
    /// The high half of the sequence number, as the receiver infers it; ignored where the SA has no ESN.
    pub seq_high: u32,
}

impl Engine {
    /// Seals every packet in place: IV, ciphertext and ICV are written.
    ///
    /// Keys, suites and lengths may be mixed at will; the engine finds the order that suits its kernels. Bursts
    /// of up to 64 are what it is made for; longer ones are cut.
    ///
    /// # Panics
    /// Where a packet has no room for header, IV, ICV and one aligned block, or where its text is not aligned:
    /// a mistake of the caller, who laid it out.
    pub fn seal_burst(self, jobs: &mut [SealJob<'_>]) {
        for job in jobs {
            let text = Text::locate(job.key.suite, job.packet.len())
                .expect("the packet to be sealed has room for IV, ICV and aligned text");
            job.key.portable.seal(job.key.context(job.seq_high), job.packet, text, job.iv);
        }
    }

    /// Opens every packet in place and tells of each what became of it.
    ///
    /// A packet whose ICV is wrong has its text zeroed before this returns.
    ///
    /// # Panics
    /// Where there are fewer verdicts than jobs.
    pub fn open_burst(self, jobs: &mut [OpenJob<'_>], verdicts: &mut [Verdict]) {
        assert!(verdicts.len() >= jobs.len(), "a verdict for every job");
        for (job, verdict) in jobs.iter_mut().zip(verdicts) {
            *verdict = match Text::locate(job.key.suite, job.packet.len()) {
                Ok(text) => job.key.portable.open(job.key.context(job.seq_high), job.packet, text),
                Err(malformed) => malformed,
            };
        }
    }
}

impl Key {
    fn context(&self, seq_high: u32) -> Context {
        Context { suite: self.suite, salt: self.salt, esn: self.esn, seq_high }
    }
}
