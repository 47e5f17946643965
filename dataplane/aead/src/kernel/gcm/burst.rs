//! The walk over a burst of AES-GCM packets: those of as many vectors after each other.

use super::long::Long;
use super::short::Short;
use super::{Jobs, LENGTHS, NonceAad, One, Packet, PacketText, SplitNonceAad, TEXT_MAX, vectors};
use crate::burst::{BURST, NO_ROOM, OpenJob, SealJob};
use crate::kernel;
use crate::kernel::isa::{Isa, Task};
use crate::key::{Key, Tables};
use crate::packet::{HEADER_LEN, PacketClass, Text, header};
use crate::verdict::OpenVerdict;

/// The class of each job of a burst: what it can share a loop with.
///
/// One octet a job and a vector compare for each class: counted lists would chain every job to the one before
/// through memory, twelve cycles each.
pub(crate) struct Order {
    classes: [u8; BURST],
    /// The low octet of each packet's length in words, which tells the lengths of a class apart.
    lengths: [u8; BURST],
}

/// What the jobs of a burst have between them. SplitNonceAad from [`Order`], whose arrays are in memory, it is in registers.
#[derive(Clone, Copy)]
struct Seen {
    /// A bit for each class that has jobs.
    classes: u32,
    /// Whether a job has another key than the first.
    many_keys: bool,
    /// Whether a job has a key of another kind than the first.
    many_kinds: bool,
    /// Whether all jobs are ours.
    all: bool,
}

/// The ways of a packet through an instruction set, by its length: in up to six vectors, in three narrow ones, or longer.
const WAYS: usize = 8;

/// In three narrow vectors.
const NARROW: usize = 6;

/// The way of a text of so many octets, where short ones may go through narrow vectors or not.
#[inline(always)]
fn way<I: Isa>(text_len: usize, narrow: bool) -> usize {
    // Of two wide vectors a quarter would be padding.
    if narrow && vectors::<I::Narrow>(text_len) == 3 {
        return NARROW;
    }
    let vectors = vectors::<I>(text_len);
    if vectors > I::SHORT { WAYS - 1 } else { vectors - 1 }
}

/// Where a job belongs.
enum JobClass {
    /// In a class of ours.
    In { class: u8, text: Text },
    /// Not with the AES-GCM kernels.
    Elsewhere,
    /// Nowhere: there is no text in it.
    Malformed(OpenVerdict),
}

impl JobClass {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "there are 24 classes")]
    fn of<I: Isa>(key: &Key, packet_len: usize, narrow: bool) -> Self {
        if !key.on_gcm_kernel() || packet_len > TEXT_MAX {
            return Self::Elsewhere;
        }
        match Text::locate(key.layout, packet_len) {
            Ok(text) => {
                let class = key.layout.path as usize * WAYS + way::<I>(text.end - text.start, narrow);
                Self::In { class: class as u8, text }
            }
            Err(malformed) => Self::Malformed(malformed),
        }
    }
}

/// No job of ours.
const NONE: u8 = u8::MAX;

impl Order {
    #[inline(always)]
    fn new() -> Self {
        Self { classes: [NONE; BURST], lengths: [0; BURST] }
    }

    /// Finds the place of each job. Apart from the kernels, whose needs would push its few numbers out of registers.
    #[inline(never)]
    #[expect(clippy::cast_possible_truncation, reason = "the low octet")]
    fn find<'k, I: Isa, P: EspJob<'k>>(&mut self, jobs: &mut [P], outs: &mut [P::Out], narrow: bool) -> Seen {
        let mut seen = Seen { classes: 0, many_keys: false, many_kinds: false, all: true };
        let Some(job) = jobs.first_mut() else { return seen };
        let (first, len) = (job.key(), job.packet().len());
        let mut many_lens = false;
        for job in &mut *jobs {
            seen.many_keys |= !std::ptr::eq(job.key(), first);
            seen.many_kinds |= job.key().kind != first.kind;
            many_lens |= job.packet().len() != len;
        }
        if !seen.many_kinds && !many_lens {
            // Flows of media are like that, and one look is enough.
            match JobClass::of::<I>(first, len, narrow) {
                JobClass::In { class, text } => {
                    for job in jobs {
                        job.prepare(text);
                    }
                    self.classes = [class; BURST];
                    seen.classes = 1 << class;
                }
                JobClass::Elsewhere => seen.all = false,
                JobClass::Malformed(verdict) => outs[..jobs.len()].fill(P::malformed(verdict)),
            }
            return seen;
        }
        for ((index, job), out) in jobs.iter_mut().enumerate().zip(outs) {
            let key = if seen.many_kinds { job.key() } else { first };
            match JobClass::of::<I>(key, job.packet().len(), narrow) {
                JobClass::In { class, text } => {
                    job.prepare(text);
                    self.classes[index] = class;
                    self.lengths[index] = (text.end >> 2) as u8;
                    seen.classes |= 1 << class;
                }
                JobClass::Elsewhere => seen.all = false,
                JobClass::Malformed(verdict) => *out = P::malformed(verdict),
            }
        }
        seen
    }

    /// Runs all jobs, class by class.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "there are 24 classes")]
    fn run<'k, I: Isa, P: Packet<'k>>(&self, isa: I, seen: Seen, jobs: &mut [P], outs: &mut [P::Out]) {
        for class in Jobs(seen.classes.into()) {
            let (path, way) = (class / WAYS, class % WAYS);
            let there = u64::MAX >> (BURST - jobs.len());
            let class = Jobs(isa.equal(&self.classes, class as u8) & there);
            let many = (seen.many_keys, seen.many_kinds);
            match path {
                0 => run_class::<I, P, 10>(isa, jobs, outs, class, way, &self.lengths, many),
                1 => run_class::<I, P, 12>(isa, jobs, outs, class, way, &self.lengths, many),
                _ => run_class::<I, P, 14>(isa, jobs, outs, class, way, &self.lengths, many),
            }
        }
    }
}

/// Packets that go the same way.
#[inline(always)]
fn run_class<'k, I: Isa, P: Packet<'k>, const ROUNDS: usize>(
    isa: I,
    jobs: &mut [P],
    outs: &mut [P::Out],
    class: Jobs,
    way: usize,
    lengths: &[u8; BURST],
    many: (bool, bool),
) {
    match way {
        0 => isa.enter(Short::<_, ROUNDS, 1>::new(jobs, outs, class, lengths, many)),
        1 => isa.enter(Short::<_, ROUNDS, 2>::new(jobs, outs, class, lengths, many)),
        2 => isa.enter(Short::<_, ROUNDS, 3>::new(jobs, outs, class, lengths, many)),
        3 => isa.enter(Short::<_, ROUNDS, 4>::new(jobs, outs, class, lengths, many)),
        4 => isa.enter(Short::<_, ROUNDS, 5>::new(jobs, outs, class, lengths, many)),
        5 => isa.enter(Short::<_, ROUNDS, 6>::new(jobs, outs, class, lengths, many)),
        NARROW => match isa.narrow() {
            Some(isa) => isa.enter(Short::<_, ROUNDS, 3>::new(jobs, outs, class, lengths, many)),
            None => isa.enter(Short::<_, ROUNDS, 2>::new(jobs, outs, class, lengths, many)),
        },
        _ => isa.enter(Long::<_, ROUNDS>::new(jobs, outs, class, many.0)),
    }
}

/// Seals the AES-GCM jobs of a burst; others are left alone.
pub(crate) struct SealBurst<'j, 'a> {
    pub(crate) jobs: &'j mut [SealJob<'a>],
}

impl Task for SealBurst<'_, '_> {
    /// Whether there were no others.
    type Out = bool;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> bool {
        let mut order = Order::new();
        let seen = order.find::<I, _>(self.jobs, &mut [(); BURST], isa.narrow().is_some());
        order.run(isa, seen, self.jobs, &mut [(); BURST]);
        seen.all
    }
}

/// Opens the AES-GCM jobs of a burst; others are left alone.
pub(crate) struct OpenBurst<'j, 'a> {
    pub(crate) jobs: &'j mut [OpenJob<'a>],
    pub(crate) verdicts: &'j mut [OpenVerdict],
}

impl Task for OpenBurst<'_, '_> {
    /// Whether there were no others.
    type Out = bool;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> bool {
        let Self { jobs, verdicts } = self;
        let mut order = Order::new();
        let seen = order.find::<I, _>(jobs, verdicts, isa.narrow().is_some());
        order.run(isa, seen, jobs, verdicts);
        seen.all
    }
}

/// One item outside of a burst, with the number of rounds still to be looked up; the tag that it has or ought to have.
pub(crate) struct Detached<'i, 'a, const SEALS: bool> {
    pub(crate) one: &'i mut One<'a, SEALS>,
    pub(crate) rounds: usize,
}

impl<const SEALS: bool> Task for Detached<'_, '_, SEALS> {
    type Out = [u8; 16];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [u8; 16] {
        let way = way::<I>(self.one.item.text.end - self.one.item.text.start, isa.narrow().is_some());
        let (jobs, mut tags, class) = (std::slice::from_mut(self.one), [[0; 16]], Jobs(1));
        match self.rounds {
            10 => run_class::<I, _, 10>(isa, jobs, &mut tags, class, way, &[0; BURST], (false, false)),
            12 => run_class::<I, _, 12>(isa, jobs, &mut tags, class, way, &[0; BURST], (false, false)),
            _ => run_class::<I, _, 14>(isa, jobs, &mut tags, class, way, &[0; BURST], (false, false)),
        }
        tags[0]
    }
}

/// A job of a burst.
trait EspJob<'k>: Packet<'k> {
    /// The SA's key context.
    fn key(&self) -> &'k Key;

    /// Done before any vector of a packet is loaded.
    fn prepare(&mut self, _: Text) {}

    /// What comes of it where no text can be found.
    fn malformed(verdict: OpenVerdict) -> Self::Out;
}

impl<'k> EspJob<'k> for SealJob<'k> {
    #[inline(always)]
    fn key(&self) -> &'k Key {
        self.key
    }

    /// Early, so that no vector load of the packet has to wait for this store.
    #[inline(always)]
    fn prepare(&mut self, text: Text) {
        self.write_iv(text);
    }

    /// A mistake of the caller, who laid the packet out.
    #[inline(always)]
    fn malformed(_: OpenVerdict) {
        panic!("{NO_ROOM}");
    }
}

impl<'k> EspJob<'k> for OpenJob<'k> {
    #[inline(always)]
    fn key(&self) -> &'k Key {
        self.key
    }

    #[inline(always)]
    fn malformed(verdict: OpenVerdict) -> OpenVerdict {
        verdict
    }
}

/// How the kernels see a job.
macro_rules! packet_of_job {
    () => {
        #[inline(always)]
        fn form(&self) -> PacketClass {
            PacketClass::of(self.key, self.packet)
        }

        #[inline(always)]
        fn is_of(&self, form: &PacketClass) -> bool {
            form.is_of(self.key, self.packet)
        }

        #[inline(always)]
        fn item(&mut self, form: PacketClass) -> PacketText<'_> {
            PacketText::new(self.key, self.packet, form, self.seq_high)
        }

        #[inline(always)]
        fn packet(&mut self) -> &mut [u8] {
            self.packet
        }

        #[inline(always)]
        fn tables(&self) -> &'k Tables {
            &self.key.tables
        }

        #[inline(always)]
        fn prefetch<const ROUNDS: usize>(&self) {
            kernel::prefetch_rest::<ROUNDS>(self.key);
        }
    };
}

impl<'k> Packet<'k> for SealJob<'k> {
    type Out = ();

    const SEALS: bool = true;

    const ESP: bool = true;

    packet_of_job!();

    #[inline(always)]
    fn finish<I: Isa>(isa: I, window: &mut I::Window<'_>, tag: I::Block, _: I::Block) {
        isa.put_icv(window, tag);
    }

    #[inline(always)]
    fn refused((): ()) -> bool {
        false
    }
}

impl<'k> Packet<'k> for OpenJob<'k> {
    type Out = OpenVerdict;

    const SEALS: bool = false;

    const ESP: bool = true;

    packet_of_job!();

    #[inline(always)]
    fn finish<I: Isa>(isa: I, window: &mut I::Window<'_>, tag: I::Block, received: I::Block) -> OpenVerdict {
        if isa.icv_matches(window, tag, received) { OpenVerdict::Authentic } else { OpenVerdict::BadIcv }
    }

    #[inline(always)]
    fn refused(verdict: OpenVerdict) -> bool {
        verdict != OpenVerdict::Authentic
    }
}

impl SealJob<'_> {
    /// Writes the explicit IV, if the suite has one.
    #[inline(always)]
    pub(crate) fn write_iv(&mut self, text: Text) {
        if text.start != HEADER_LEN {
            self.packet[HEADER_LEN..HEADER_LEN + 8].copy_from_slice(&self.iv.to_be_bytes());
        }
    }
}

impl<'a> PacketText<'a> {
    /// A packet that is long enough, with its explicit IV in place.
    #[inline(always)]
    fn new(key: &'a Key, packet: &'a mut [u8], form: PacketClass, seq_high: u32) -> Self {
        let PacketClass { text, esn, .. } = form;
        let lengths =
            LENGTHS.get(text.end.wrapping_sub(text.start)).map(|lengths| &lengths[usize::from(esn)]);
        let beside = if form.is_sent() {
            NonceAad::Sent
        } else {
            let header = u64::from_le_bytes(header(packet));
            let (spi, sequence, high) = (header & 0xffff_ffff, header >> 32, u64::from(seq_high.to_be()));
            let aad = if esn { [spi | (high << 32), sequence] } else { [header, 0] };
            if text.start == HEADER_LEN {
                let (iv, aad_bits) = if esn { (high | (sequence << 32), 96) } else { (sequence << 32, 64) };
                NonceAad::SplitNonceAad(SplitNonceAad { iv, salt: 0, aad, aad_bits })
            } else {
                NonceAad::Extended { aad }
            }
        };
        PacketText { beside, lengths, tables: &key.tables, packet, text }
    }

    /// Nonce and AAD, wherever they are.
    pub(crate) fn apart(&self) -> SplitNonceAad {
        let number = |at: usize| {
            let octets =
                self.packet[at..].first_chunk().expect("SPI, sequence number and IV come before a text");
            u64::from_le_bytes(*octets)
        };
        let aad_bits = self.beside.aad_bits();
        match self.beside {
            NonceAad::Sent => {
                SplitNonceAad { iv: number(HEADER_LEN), salt: 0, aad: [number(0), 0], aad_bits }
            }
            NonceAad::Extended { aad } => SplitNonceAad { iv: number(HEADER_LEN), salt: 0, aad, aad_bits },
            NonceAad::SplitNonceAad(apart) => apart,
        }
    }
}
