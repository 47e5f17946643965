//! The burst: jobs, and the walk over them.

use arrayvec::ArrayVec;

use crate::ct::icv_matches;
use crate::dispatch::Engine;
use crate::kernel;
use crate::kernel::chacha::{AnyAad, ChaChaBurst, View};
use crate::kernel::gcm::{
    Absorb, Detached, Huge, NonceAad, One, OpenBurst, Packet, PacketText, SealBurst, SplitNonceAad, TEXT_MAX,
    aes_rounds,
};
use crate::kernel::isa::Task;
use crate::kernel::portable::Context;
use crate::key::{Bursts, Key};
use crate::packet::{Aad, HEADER_LEN, PacketClass, Text, header, implicit_iv};
use crate::suite::Path;
use crate::verdict::OpenVerdict;

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

/// What is wrong with a packet to be sealed in which no text can be found.
pub(crate) const NO_ROOM: &str = "a packet to be sealed has room for IV, ICV and aligned text";

/// Jobs that are sorted and run together; longer bursts are cut.
pub(crate) const BURST: usize = 64;

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
        for jobs in jobs.chunks_mut(BURST) {
            let all_done = kernel::run(self, SealBurst { jobs }) == Some(true);
            if !all_done {
                self.seal_others(jobs);
            }
        }
    }

    /// Seals what the AES-GCM kernels have left.
    #[inline(never)]
    fn seal_others(self, jobs: &mut [SealJob<'_>]) {
        let mut views: ArrayVec<View<'_>, BURST> = ArrayVec::new();
        for job in jobs {
            match self.route(job.key, job.packet.len()) {
                Route::Gcm => {}
                Route::ChaCha => views.push(job.view()),
                Route::Alone => job.seal_alone(),
            }
        }
        kernel::run(self, ChaChaBurst { views: &mut views, seal: true });
    }

    /// Opens every packet in place and tells of each what became of it.
    ///
    /// A packet whose ICV is wrong has its text zeroed before this returns.
    ///
    /// # Panics
    /// Where there are fewer verdicts than jobs.
    pub fn open_burst(self, jobs: &mut [OpenJob<'_>], verdicts: &mut [OpenVerdict]) {
        assert!(verdicts.len() >= jobs.len(), "a verdict for every job");
        for (jobs, verdicts) in jobs.chunks_mut(BURST).zip(verdicts.chunks_mut(BURST)) {
            let all_done = kernel::run(self, OpenBurst { jobs, verdicts }) == Some(true);
            if !all_done {
                self.open_others(jobs, verdicts);
            }
        }
    }

    /// Opens what the AES-GCM kernels have left.
    #[inline(never)]
    fn open_others(self, jobs: &mut [OpenJob<'_>], verdicts: &mut [OpenVerdict]) {
        let mut views: ArrayVec<View<'_>, BURST> = ArrayVec::new();
        let mut places: ArrayVec<usize, BURST> = ArrayVec::new();
        for (place, job) in jobs.iter_mut().enumerate() {
            match self.route(job.key, job.packet.len()) {
                Route::Gcm => {}
                Route::ChaCha => match Text::locate(job.key.layout, job.packet.len()) {
                    Ok(text) => {
                        views.push(job.view(text));
                        places.push(place);
                    }
                    Err(malformed) => verdicts[place] = malformed,
                },
                Route::Alone => verdicts[place] = job.open_alone(),
            }
        }
        kernel::run(self, ChaChaBurst { views: &mut views, seal: false });
        for (place, view) in places.into_iter().zip(&views) {
            verdicts[place] = view.verdict;
        }
    }

    /// Who runs a job with this key and so many octets of packet.
    fn route(self, key: &Key, len: usize) -> Route {
        match key.bursts {
            _ if self == Self::portable() => Route::Alone,
            Bursts::Gcm if len <= TEXT_MAX => Route::Gcm,
            Bursts::ChaCha => Route::ChaCha,
            Bursts::Gcm | Bursts::No => Route::Alone,
        }
    }
}

/// The ways through a burst.
enum Route {
    Gcm,
    ChaCha,
    Alone,
}

impl SealJob<'_> {
    /// Where the text lies.
    #[inline(always)]
    pub(crate) fn text(&self) -> Text {
        Text::locate(self.key.layout, self.packet.len()).expect(NO_ROOM)
    }

    /// The packet in its parts, for ChaCha20-Poly1305; writes the explicit IV.
    #[inline]
    fn view(&mut self) -> View<'_> {
        let text = self.text();
        self.write_iv(text);
        View::new(self.key, self.packet, text, self.seq_high)
    }

    /// Seals a packet that no burst kernel takes.
    fn seal_alone(&mut self) {
        let text = self.text();
        if let Some(portable) = &self.key.portable {
            portable.seal(self.key.context(self.seq_high), self.packet, text, self.iv);
        } else {
            self.write_iv(text);
            let key = self.key;
            if key.layout.path == Path::ChaCha {
                key.on_own_kernel(ChaChaBurst { views: &mut [self.view()], seal: true });
                return;
            }
            let seq_high = self.seq_high;
            let form = PacketClass::of(key, self.packet);
            let mut item = self.item(form);
            if key.layout.path == Path::Gmac {
                item = key.gmac_item(item, seq_high);
            }
            let tag = key.seal_item(item);
            let at = self.packet.len() - key.suite.icv_len();
            self.packet[at..].copy_from_slice(&tag[..key.suite.icv_len()]);
        }
    }
}

impl OpenJob<'_> {
    /// The packet in its parts, for ChaCha20-Poly1305.
    fn view(&mut self, text: Text) -> View<'_> {
        View::new(self.key, self.packet, text, self.seq_high)
    }

    /// Opens a packet that no burst kernel takes.
    fn open_alone(&mut self) -> OpenVerdict {
        let text = match Text::locate(self.key.layout, self.packet.len()) {
            Ok(text) => text,
            Err(malformed) => return malformed,
        };
        if let Some(portable) = &self.key.portable {
            portable.open(self.key.context(self.seq_high), self.packet, text)
        } else {
            let key = self.key;
            if key.layout.path == Path::ChaCha {
                let mut views = [self.view(text)];
                key.on_own_kernel(ChaChaBurst { views: &mut views, seal: false });
                return views[0].verdict;
            }
            let seq_high = self.seq_high;
            let form = PacketClass::of(key, self.packet);
            let mut item = self.item(form);
            if key.layout.path == Path::Gmac {
                item = key.gmac_item(item, seq_high);
            }
            let tag = key.open_item(item);
            let (body, icv) = self.packet.split_at_mut(text.end);
            if icv_matches(&tag, icv) {
                OpenVerdict::Authentic
            } else {
                body[text.start..].fill(0);
                OpenVerdict::BadIcv
            }
        }
    }
}

impl<'a> View<'a> {
    /// A packet with its IV in place.
    #[inline]
    fn new(key: &'a Key, packet: &'a mut [u8], text: Text, seq_high: u32) -> Self {
        let header = header(packet);
        let (body, icv) = packet.split_at_mut(text.end);
        let (front, text) = body.split_at_mut(text.start);
        let iv = match front[HEADER_LEN..].as_chunks::<8>().0 {
            [sent, ..] => u64::from_be_bytes(*sent),
            [] => implicit_iv(header, key.esn, seq_high),
        };
        View {
            key: key.chacha_key(),
            nonce: (u32::from_le_bytes(key.salt), iv.to_be()),
            aad: AnyAad::Esp(Aad::new(header, key.esn, seq_high)),
            text,
            icv,
            verdict: OpenVerdict::Malformed,
        }
    }
}

impl Key {
    /// Seals `text` with a nonce and AAD of the caller's choice and returns the full tag: the suite's cipher
    /// outside of ESP, through the same kernel. `None` where the suite is not a combined mode.
    pub fn seal_detached(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> Option<[u8; 16]> {
        if let Some(portable) = &self.portable {
            return portable.seal_detached(nonce, aad, text);
        }
        if self.layout.path == Path::ChaCha {
            let mut tag = [0; 16];
            let mut views = [self.view(nonce, aad, text, &mut tag)];
            self.on_own_kernel(ChaChaBurst { views: &mut views, seal: true });
            return Some(tag);
        }
        Some(self.seal_item(self.item(nonce, aad, text)))
    }

    /// The reverse of [`Key::seal_detached`]; `tag` may be truncated. Where it is wrong, `text` is zeroed.
    pub fn open_detached(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Option<OpenVerdict> {
        if self.portable.is_none() && self.layout.path == Path::ChaCha && (1..=16).contains(&tag.len()) {
            let mut received = [0; 16];
            received[..tag.len()].copy_from_slice(tag);
            let mut views = [self.view(nonce, aad, text, &mut received[..tag.len()])];
            self.on_own_kernel(ChaChaBurst { views: &mut views, seal: false });
            return Some(views[0].verdict);
        }
        let computed = match &self.portable {
            Some(portable) => portable.open_detached(nonce, aad, text)?,
            None => self.open_item(self.item(nonce, aad, text)),
        };
        if !tag.is_empty() && tag.len() <= computed.len() && icv_matches(&computed, tag) {
            return Some(OpenVerdict::Authentic);
        }
        text.fill(0);
        Some(OpenVerdict::BadIcv)
    }

    /// Whether a burst kernel of ours takes this key.
    #[inline(always)]
    pub(crate) fn on_gcm_kernel(&self) -> bool {
        self.bursts == Bursts::Gcm
    }

    /// The key of ChaCha20, in the place of two round keys.
    fn chacha_key(&self) -> &[[u8; 16]; 2] {
        self.tables.round_keys.first_chunk().expect("there are more round keys than two")
    }

    fn view<'a>(
        &'a self,
        nonce: &[u8; 12],
        aad: &'a [u8],
        text: &'a mut [u8],
        icv: &'a mut [u8],
    ) -> View<'a> {
        let [s0, s1, s2, s3, iv @ ..] = *nonce;
        let (key, nonce) =
            (self.chacha_key(), (u32::from_le_bytes([s0, s1, s2, s3]), u64::from_le_bytes(iv)));
        View { key, nonce, aad: AnyAad::Other(aad), text, icv, verdict: OpenVerdict::Malformed }
    }

    fn item<'a>(&'a self, nonce: &[u8; 12], aad: &[u8], text: &'a mut [u8]) -> PacketText<'a> {
        let [s0, s1, s2, s3, iv @ ..] = *nonce;
        PacketText {
            beside: NonceAad::SplitNonceAad(SplitNonceAad {
                iv: u64::from_le_bytes(iv),
                salt: u32::from_le_bytes([s0, s1, s2, s3]) ^ u32::from_le_bytes(self.salt),
                aad: halves(self.on_own_kernel(Absorb { tables: &self.tables, aad: [aad, &[]] })),
                aad_bits: 8 * aad.len() as u64,
            }),
            lengths: None,
            tables: &self.tables,
            text: Text { start: 0, end: text.len() },
            packet: text,
        }
    }

    /// Makes the whole of a packet AAD, which is how GMAC authenticates what it does not encrypt: SPI, sequence
    /// number, IV and payload are one string.
    //= RFC 4543 §3.3
    fn gmac_item<'a>(&self, item: PacketText<'a>, seq_high: u32) -> PacketText<'a> {
        let end = item.text.end;
        let mut first = [0; 16];
        // With ESN, the first block takes four octets of IV behind the longer sequence number.
        let (first_len, rest) = if self.esn {
            first[..12].copy_from_slice(Aad::new(header(item.packet), true, seq_high).as_slice());
            first[12..].copy_from_slice(&item.packet[8..12]);
            (16, 12)
        } else {
            (0, 0)
        };
        let aad = [&first[..first_len], &item.packet[rest..end]];
        let aad_bits = 8 * (first_len + end - rest) as u64;
        let aad = halves(self.on_own_kernel(Absorb { tables: item.tables, aad }));
        let beside = NonceAad::SplitNonceAad(SplitNonceAad { aad, aad_bits, ..item.apart() });
        PacketText { beside, lengths: None, text: Text { start: end, end }, ..item }
    }

    fn seal_item(&self, item: PacketText<'_>) -> [u8; 16] {
        let rounds = aes_rounds(self.suite.key_len());
        if item.text.end - item.text.start > TEXT_MAX {
            return self.on_own_kernel(Huge { item, rounds, seal: true });
        }
        let form = PacketClass::new(self, item.packet.len(), item.text);
        self.on_own_kernel(Detached { one: &mut One::<true> { item, form }, rounds })
    }

    fn open_item(&self, item: PacketText<'_>) -> [u8; 16] {
        let rounds = aes_rounds(self.suite.key_len());
        if item.text.end - item.text.start > TEXT_MAX {
            return self.on_own_kernel(Huge { item, rounds, seal: false });
        }
        let form = PacketClass::new(self, item.packet.len(), item.text);
        self.on_own_kernel(Detached { one: &mut One::<false> { item, form }, rounds })
    }

    fn on_own_kernel<T: Task>(&self, task: T) -> T::Out {
        kernel::run(self.engine, task).expect("a key without a portable half was derived by a kernel")
    }

    fn context(&self, seq_high: u32) -> Context {
        Context { suite: self.suite, salt: self.salt, esn: self.esn, seq_high }
    }
}

/// The halves of a number as its big-endian form lies in memory.
#[expect(clippy::cast_possible_truncation, reason = "the low half")]
fn halves(number: u128) -> [u64; 2] {
    let swapped = number.swap_bytes();
    [swapped as u64, (swapped >> 64) as u64]
}
