//! The walk over a burst of AES-GCM packets: equals side by side, the rest one by one.

use super::open::{OpenGroup, open_one};
use super::seal::{SealGroup, seal_one};
use super::{Item, Packet, TEXT_MAX, vectors};
use crate::burst::{BURST, OpenJob, SealJob};
use crate::kernel::isa::{Isa, Task};
use crate::key::{Key, Tables};
use crate::packet::{HEADER_LEN, Text};
use crate::suite::Path;
use crate::verdict::Verdict;

/// The class of each job of a burst: what it can share a loop with.
///
/// One octet a job and a vector compare for each class: counted lists would chain every job to the one before
/// through memory, twelve cycles each.
pub(crate) struct Order {
    classes: [u8; BURST],
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
        Self { classes: [NONE; BURST] }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "there are 15 classes")]
    fn add<I: Isa>(&mut self, index: usize, path: Path, text: Text) {
        let class = path as usize * PER_KEY_LEN + vectors::<I>(text.end - text.start).min(SHORT + 1) - 1;
        self.classes[index] = class as u8;
    }

    /// The jobs of packets of so many vectors, or longer ones with `SHORT + 1`.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "there are 15 classes")]
    fn of<I: Isa>(&self, isa: I, path: Path, vectors: usize) -> Jobs {
        Jobs(isa.equal(&self.classes, (path as usize * PER_KEY_LEN + vectors - 1) as u8))
    }
}

/// Jobs of a burst, a bit for each.
#[derive(Clone, Copy)]
struct Jobs(u64);

impl Jobs {
    /// Takes out the first `N`, if there are so many.
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<[usize; N]> {
        if (self.0.count_ones() as usize) < N {
            return None;
        }
        let mut indices = [0; N];
        for index in &mut indices {
            *index = self.0.trailing_zeros() as usize;
            self.0 &= self.0 - 1;
        }
        Some(indices)
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
        for (index, job) in self.jobs.iter_mut().enumerate() {
            if job.key.on_gcm_kernel() && job.packet.len() <= TEXT_MAX {
                let text = job.text();
                // Early, so that no vector load of the packet has to wait for this store.
                job.write_iv(text);
                order.add::<I>(index, job.key.suite.layout().path, text);
            } else {
                all = false;
            }
        }
        seal_class::<I, 10>(isa, self.jobs, &order, Path::Gcm128);
        seal_class::<I, 12>(isa, self.jobs, &order, Path::Gcm192);
        seal_class::<I, 14>(isa, self.jobs, &order, Path::Gcm256);
        all
    }
}

#[inline(always)]
fn seal_class<I: Isa, const ROUNDS: usize>(isa: I, jobs: &mut [SealJob<'_>], order: &Order, path: Path) {
    let mut alone = 0;
    for vectors in 1..=SHORT + 1 {
        let mut class = order.of(isa, path, vectors);
        // AES-192 is rare: its packets go one by one, which spares a third of the code.
        if const { ROUNDS != 12 } {
            match vectors {
                1 => seal_groups::<I, ROUNDS, 2, 1>(isa, jobs, &mut class),
                2 => seal_groups::<I, ROUNDS, 2, 2>(isa, jobs, &mut class),
                3 if const { I::IN_FLIGHT == 8 } => seal_groups::<I, ROUNDS, 2, 3>(isa, jobs, &mut class),
                4 if const { I::IN_FLIGHT == 8 } => seal_groups::<I, ROUNDS, 2, 4>(isa, jobs, &mut class),
                _ => {}
            }
        }
        alone |= class.0;
    }
    let mut alone = Jobs(alone);
    while let Some([index]) = alone.take::<1>() {
        let job = &mut jobs[index];
        let len = job.packet.len() - outside(job.key);
        seal_one::<I, _, ROUNDS>(isa, job, len);
    }
}

/// Packets of `R` vectors, `N` at a time, as long as there are so many.
#[inline(always)]
fn seal_groups<I: Isa, const ROUNDS: usize, const N: usize, const R: usize>(
    isa: I,
    jobs: &mut [SealJob<'_>],
    class: &mut Jobs,
) {
    while let Some(indices) = class.take::<N>() {
        let packets =
            jobs.get_disjoint_mut(indices).expect("a job's bit is taken once, and each is in the burst");
        isa.enter(SealGroup::<_, ROUNDS, N, R>::new(packets));
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
        for (index, job) in jobs.iter().enumerate() {
            if job.key.on_gcm_kernel() && job.packet.len() <= TEXT_MAX {
                match Text::locate(job.key.suite, job.packet.len()) {
                    Ok(text) => order.add::<I>(index, job.key.suite.layout().path, text),
                    Err(malformed) => verdicts[index] = malformed,
                }
            } else {
                all = false;
            }
        }
        open_class::<I, 10>(isa, jobs, verdicts, &order, Path::Gcm128);
        open_class::<I, 12>(isa, jobs, verdicts, &order, Path::Gcm192);
        open_class::<I, 14>(isa, jobs, verdicts, &order, Path::Gcm256);
        all
    }
}

#[inline(always)]
fn open_class<I: Isa, const ROUNDS: usize>(
    isa: I,
    jobs: &mut [OpenJob<'_>],
    verdicts: &mut [Verdict],
    order: &Order,
    path: Path,
) {
    let mut alone = 0;
    for vectors in 1..=SHORT + 1 {
        let mut class = order.of(isa, path, vectors);
        // AES-192 is rare: its packets go one by one, which spares a third of the code.
        if const { ROUNDS != 12 } {
            match vectors {
                1 => open_groups::<I, ROUNDS, 2, 1>(isa, jobs, verdicts, &mut class),
                2 => open_groups::<I, ROUNDS, 2, 2>(isa, jobs, verdicts, &mut class),
                3 if const { I::IN_FLIGHT == 8 } => {
                    open_groups::<I, ROUNDS, 2, 3>(isa, jobs, verdicts, &mut class);
                }
                4 if const { I::IN_FLIGHT == 8 } => {
                    open_groups::<I, ROUNDS, 2, 4>(isa, jobs, verdicts, &mut class);
                }
                _ => {}
            }
        }
        alone |= class.0;
    }
    let mut alone = Jobs(alone);
    while let Some([index]) = alone.take::<1>() {
        let job = &mut jobs[index];
        let len = job.packet.len() - outside(job.key);
        verdicts[index] = open_one::<I, _, ROUNDS>(isa, job, len);
    }
}

/// Packets of `R` vectors, `N` at a time, as long as there are so many.
#[inline(always)]
fn open_groups<I: Isa, const ROUNDS: usize, const N: usize, const R: usize>(
    isa: I,
    jobs: &mut [OpenJob<'_>],
    verdicts: &mut [Verdict],
    class: &mut Jobs,
) {
    while let Some(indices) = class.take::<N>() {
        let packets =
            jobs.get_disjoint_mut(indices).expect("a job's bit is taken once, and each is in the burst");
        let outs = isa.enter(OpenGroup::<_, ROUNDS, N, R>::new(packets));
        for (index, verdict) in indices.into_iter().zip(outs) {
            verdicts[index] = verdict;
        }
    }
}

/// Octets of a packet that are not text.
#[inline(always)]
fn outside(key: &Key) -> usize {
    let layout = key.suite.layout();
    usize::from(layout.text_start) + usize::from(layout.icv_len)
}

impl<'k> Packet<'k> for SealJob<'k> {
    type Out = ();

    #[inline(always)]
    fn item(&mut self) -> Item<'_> {
        Item::new(self.key, self.packet, self.seq_high)
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
    fn finish<I: Isa>(isa: I, window: &mut I::Window<'_>, tag: I::Block, _: I::Block) {
        isa.put_icv(window, tag);
    }
}

impl<'k> Packet<'k> for OpenJob<'k> {
    type Out = Verdict;

    #[inline(always)]
    fn item(&mut self) -> Item<'_> {
        Item::new(self.key, self.packet, self.seq_high)
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
    fn finish<I: Isa>(isa: I, window: &mut I::Window<'_>, tag: I::Block, received: I::Block) -> Verdict {
        if isa.icv_matches(window, tag, received) {
            Verdict::Authentic
        } else {
            isa.wipe(window);
            Verdict::BadIcv
        }
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
    fn new(key: &'a Key, packet: &'a mut [u8], seq_high: u32) -> Self {
        let layout = key.suite.layout();
        let text = Text { start: layout.text_start.into(), end: packet.len() - usize::from(layout.icv_len) };
        let [header, sent_iv, ..] = *packet.as_chunks::<8>().0 else {
            unreachable!("a text has at least 4 octets")
        };
        let header = u64::from_le_bytes(header);
        let (spi, sequence, high) = (header & 0xffff_ffff, header >> 32, u64::from(seq_high.to_be()));
        let iv = if text.start == HEADER_LEN {
            let high = if key.esn { high } else { 0 };
            high | (sequence << 32)
        } else {
            u64::from_le_bytes(sent_iv)
        };
        let (aad, aad_bits) = if key.esn { ([spi | (high << 32), sequence], 96) } else { ([header, 0], 64) };
        Item { iv, aad, aad_bits, salt: u32::from_le_bytes(key.salt), tables: &key.tables, packet, text }
    }
}
