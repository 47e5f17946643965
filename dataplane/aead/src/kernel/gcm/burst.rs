//! The walk over a burst of AES-GCM packets: those of as many vectors after each other.

use super::long::Long;
use super::short::Short;
use super::{Front, Item, Jobs, LENGTHS, One, Packet, TEXT_MAX, vectors};
use crate::burst::{BURST, OpenJob, SealJob};
use crate::kernel;
use crate::kernel::isa::{Isa, Task};
use crate::key::{Key, Tables};
use crate::packet::{Form, HEADER_LEN, Text};
use crate::verdict::Verdict;

/// The class of each job of a burst: what it can share a loop with.
///
/// One octet a job and a vector compare for each class: counted lists would chain every job to the one before
/// through memory, twelve cycles each.
pub(crate) struct Order {
    classes: [u8; BURST],
    /// The low octet of each packet's length in words, which tells the lengths of a class apart.
    lengths: [u8; BURST],
    /// A bit for each class that has jobs.
    present: u32,
    /// Whether a job has another key than the first.
    many_keys: bool,
}

/// Three key lengths, times the vectors of a short packet or "long".
const PER_KEY_LEN: usize = SHORT + 1;

/// The most vectors of a packet that runs beside others.
const SHORT: usize = 4;

/// No job of ours.
const NONE: u8 = u8::MAX;

impl Order {
    #[inline(always)]
    fn new() -> Self {
        Self { classes: [NONE; BURST], lengths: [0; BURST], present: 0, many_keys: false }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low octet; there are 15 classes")]
    fn add<I: Isa>(&mut self, index: usize, key: &Key, first: &Key, text: Text) {
        self.lengths[index] = (text.end >> 2) as u8;
        self.many_keys |= !std::ptr::eq(key, first);
        let class =
            key.layout.path as usize * PER_KEY_LEN + vectors::<I>(text.end - text.start).min(SHORT + 1) - 1;
        self.classes[index] = class as u8;
        self.present |= 1 << class;
    }

    /// Runs all jobs, class by class.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "there are 15 classes")]
    fn run<'k, I: Isa, P: Packet<'k>>(&self, isa: I, jobs: &mut [P], outs: &mut [P::Out]) {
        for class in Jobs(self.present.into()) {
            let (path, vectors) = (class / PER_KEY_LEN, class % PER_KEY_LEN + 1);
            let (class, many_keys) = (Jobs(isa.equal(&self.classes, class as u8)), self.many_keys);
            match path {
                0 => run_class::<I, P, 10>(isa, jobs, outs, class, vectors, &self.lengths, many_keys),
                1 => run_class::<I, P, 12>(isa, jobs, outs, class, vectors, &self.lengths, many_keys),
                _ => run_class::<I, P, 14>(isa, jobs, outs, class, vectors, &self.lengths, many_keys),
            }
        }
    }
}

/// Packets of so many vectors each, or longer ones with `SHORT + 1`.
#[inline(always)]
fn run_class<'k, I: Isa, P: Packet<'k>, const ROUNDS: usize>(
    isa: I,
    jobs: &mut [P],
    outs: &mut [P::Out],
    class: Jobs,
    vectors: usize,
    lengths: &[u8; BURST],
    many_keys: bool,
) {
    match vectors {
        1 => isa.enter(Short::<_, ROUNDS, 1>::new(jobs, outs, class, lengths, many_keys)),
        2 => isa.enter(Short::<_, ROUNDS, 2>::new(jobs, outs, class, lengths, many_keys)),
        3 => isa.enter(Short::<_, ROUNDS, 3>::new(jobs, outs, class, lengths, many_keys)),
        4 => isa.enter(Short::<_, ROUNDS, 4>::new(jobs, outs, class, lengths, many_keys)),
        _ => isa.enter(Long::<_, ROUNDS>::new(jobs, outs, class, many_keys)),
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
        let mut all = true;
        let Some(first) = self.jobs.first().map(|job| job.key) else { return true };
        for (index, job) in self.jobs.iter_mut().enumerate() {
            if job.key.on_gcm_kernel() && job.packet.len() <= TEXT_MAX {
                let text = job.text();
                // Early, so that no vector load of the packet has to wait for this store.
                job.write_iv(text);
                order.add::<I>(index, job.key, first, text);
            } else {
                all = false;
            }
        }
        order.run(isa, self.jobs, &mut [(); BURST]);
        all
    }
}

/// Opens the AES-GCM jobs of a burst; others are left alone.
pub(crate) struct OpenBurst<'j, 'a> {
    pub(crate) jobs: &'j mut [OpenJob<'a>],
    pub(crate) verdicts: &'j mut [Verdict],
}

impl Task for OpenBurst<'_, '_> {
    /// Whether there were no others.
    type Out = bool;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> bool {
        let Self { jobs, verdicts } = self;
        let mut order = Order::new();
        let mut all = true;
        let Some(first) = jobs.first().map(|job| job.key) else { return true };
        for (index, job) in jobs.iter().enumerate() {
            if job.key.on_gcm_kernel() && job.packet.len() <= TEXT_MAX {
                match Text::locate(job.key.layout, job.packet.len()) {
                    Ok(text) => order.add::<I>(index, job.key, first, text),
                    Err(malformed) => verdicts[index] = malformed,
                }
            } else {
                all = false;
            }
        }
        order.run(isa, jobs, verdicts);
        all
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
        let vectors = vectors::<I>(self.one.item.text.end - self.one.item.text.start).min(SHORT + 1);
        let (jobs, mut tags, class) = (std::slice::from_mut(self.one), [[0; 16]], Jobs(1));
        match self.rounds {
            10 => run_class::<I, _, 10>(isa, jobs, &mut tags, class, vectors, &[0; BURST], false),
            12 => run_class::<I, _, 12>(isa, jobs, &mut tags, class, vectors, &[0; BURST], false),
            _ => run_class::<I, _, 14>(isa, jobs, &mut tags, class, vectors, &[0; BURST], false),
        }
        tags[0]
    }
}

/// How the kernels see a job.
macro_rules! packet_of_job {
    () => {
        #[inline(always)]
        fn form(&self) -> Form {
            Form::of(self.key, self.packet)
        }

        #[inline(always)]
        fn is_of(&self, form: &Form) -> bool {
            form.is_of(self.key, self.packet)
        }

        #[inline(always)]
        fn item(&mut self, form: Form) -> Item<'_> {
            Item::new(self.key, self.packet, form, self.seq_high)
        }

        #[inline(always)]
        fn tables(&self) -> &'k Tables {
            &self.key.tables
        }

        #[inline(always)]
        fn prefetch(&self) {
            kernel::prefetch_rest(self.key);
        }
    };
}

impl<'k> Packet<'k> for SealJob<'k> {
    type Out = ();

    const SEALS: bool = true;

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
    type Out = Verdict;

    const SEALS: bool = false;

    packet_of_job!();

    #[inline(always)]
    fn finish<I: Isa>(isa: I, window: &mut I::Window<'_>, tag: I::Block, received: I::Block) -> Verdict {
        if isa.icv_matches(window, tag, received) { Verdict::Authentic } else { Verdict::BadIcv }
    }

    #[inline(always)]
    fn refused(verdict: Verdict) -> bool {
        verdict != Verdict::Authentic
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

impl<'a> Item<'a> {
    /// A packet that is long enough, with its explicit IV in place.
    #[inline(always)]
    fn new(key: &'a Key, packet: &'a mut [u8], form: Form, seq_high: u32) -> Self {
        let Form { text, esn, .. } = form;
        let lengths =
            LENGTHS.get(text.end.wrapping_sub(text.start)).map(|lengths| &lengths[usize::from(esn)]);
        let tables = &key.tables;
        if text.start != HEADER_LEN && !esn {
            // Nothing of it is asked for, since all of it is where it was sent.
            let (iv, aad) = (0, [0, 0]);
            return Item {
                iv,
                salt: 0,
                aad,
                aad_bits: 64,
                lengths,
                front: Front::Sent,
                tables,
                packet,
                text,
            };
        }
        let [header, sent_iv, ..] = *packet.as_chunks::<8>().0 else {
            unreachable!("a text has at least 4 octets")
        };
        let header = u64::from_le_bytes(header);
        let (spi, sequence, high) = (header & 0xffff_ffff, header >> 32, u64::from(seq_high.to_be()));
        let (front, iv) = if text.start == HEADER_LEN {
            let high = if esn { high } else { 0 };
            (Front::Other, high | (sequence << 32))
        } else {
            (Front::Extended, u64::from_le_bytes(sent_iv))
        };
        let (aad, aad_bits) = if esn { ([spi | (high << 32), sequence], 96) } else { ([header, 0], 64) };
        Item { iv, salt: 0, aad, aad_bits, lengths, front, tables, packet, text }
    }
}
