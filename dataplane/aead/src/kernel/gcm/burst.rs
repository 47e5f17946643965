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

/// Jobs of one burst, by index, sorted by what they can share a loop with.
pub(crate) struct Order {
    lists: [[u8; BURST]; CLASSES],
    lens: [u8; CLASSES],
}

/// Three key lengths, times the vectors of a short packet or "long".
const CLASSES: usize = 3 * PER_KEY_LEN;
const PER_KEY_LEN: usize = SHORT + 1;

/// The most vectors of a packet that runs beside others.
const SHORT: usize = 4;

impl Order {
    #[inline(always)]
    fn new() -> Self {
        Self { lists: [[0; BURST]; CLASSES], lens: [0; CLASSES] }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a burst has at most 64 jobs")]
    fn add<I: Isa>(&mut self, index: usize, path: Path, text: Text) {
        let class = path as usize * PER_KEY_LEN + vectors::<I>(text.end - text.start).min(SHORT + 1) - 1;
        let len = &mut self.lens[class];
        self.lists[class][usize::from(*len) % BURST] = index as u8;
        *len += 1;
    }

    #[inline(always)]
    fn of(&self, class: usize) -> &[u8] {
        &self.lists[class][..usize::from(self.lens[class])]
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
    let first = path as usize * PER_KEY_LEN;
    let mut alone = [order.of(first), order.of(first + 1), order.of(first + 2), order.of(first + 3)];
    // AES-192 is rare: its packets go one by one, which spares a third of the code.
    if const { ROUNDS != 12 } {
        alone[0] = seal_groups::<I, ROUNDS, 4, 1>(isa, jobs, alone[0]);
        if const { I::IN_FLIGHT == 8 } {
            alone[1] = seal_groups::<I, ROUNDS, 2, 2>(isa, jobs, alone[1]);
            alone[2] = seal_groups::<I, ROUNDS, 2, 3>(isa, jobs, alone[2]);
            alone[3] = seal_groups::<I, ROUNDS, 2, 4>(isa, jobs, alone[3]);
        } else {
            alone[1] = seal_groups::<I, ROUNDS, 2, 2>(isa, jobs, alone[1]);
        }
    }
    for list in alone.into_iter().chain([order.of(first + SHORT)]) {
        for &index in list {
            let job = &mut jobs[usize::from(index)];
            let len = job.packet.len() - outside(job.key);
            seal_one::<I, _, ROUNDS>(isa, job, len);
        }
    }
}

/// Packets of `R` vectors, `N` at a time; what is left over.
#[inline(always)]
fn seal_groups<'o, I: Isa, const ROUNDS: usize, const N: usize, const R: usize>(
    isa: I,
    jobs: &mut [SealJob<'_>],
    list: &'o [u8],
) -> &'o [u8] {
    let (groups, rest) = list.as_chunks::<N>();
    for indices in groups {
        let packets = jobs.get_disjoint_mut(indices.map(usize::from)).expect(DISJOINT);
        isa.enter(SealGroup::<_, ROUNDS, N, R>::new(packets));
    }
    rest
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
    let first = path as usize * PER_KEY_LEN;
    let mut alone = [order.of(first), order.of(first + 1), order.of(first + 2), order.of(first + 3)];
    if const { ROUNDS != 12 } {
        alone[0] = open_groups::<I, ROUNDS, 4, 1>(isa, jobs, verdicts, alone[0]);
        if const { I::IN_FLIGHT == 8 } {
            alone[1] = open_groups::<I, ROUNDS, 2, 2>(isa, jobs, verdicts, alone[1]);
            alone[2] = open_groups::<I, ROUNDS, 2, 3>(isa, jobs, verdicts, alone[2]);
            alone[3] = open_groups::<I, ROUNDS, 2, 4>(isa, jobs, verdicts, alone[3]);
        } else {
            alone[1] = open_groups::<I, ROUNDS, 2, 2>(isa, jobs, verdicts, alone[1]);
        }
    }
    for list in alone.into_iter().chain([order.of(first + SHORT)]) {
        for &index in list {
            let index = usize::from(index);
            let job = &mut jobs[index];
            let len = job.packet.len() - outside(job.key);
            verdicts[index] = open_one::<I, _, ROUNDS>(isa, job, len);
        }
    }
}

/// Packets of `R` vectors, `N` at a time; what is left over.
#[inline(always)]
fn open_groups<'o, I: Isa, const ROUNDS: usize, const N: usize, const R: usize>(
    isa: I,
    jobs: &mut [OpenJob<'_>],
    verdicts: &mut [Verdict],
    list: &'o [u8],
) -> &'o [u8] {
    let (groups, rest) = list.as_chunks::<N>();
    for indices in groups {
        let packets = jobs.get_disjoint_mut(indices.map(usize::from)).expect(DISJOINT);
        let outs = isa.enter(OpenGroup::<_, ROUNDS, N, R>::new(packets));
        for (&index, verdict) in indices.iter().zip(outs) {
            verdicts[usize::from(index)] = verdict;
        }
    }
    rest
}

/// Octets of a packet that are not text.
#[inline(always)]
fn outside(key: &Key) -> usize {
    let layout = key.suite.layout();
    usize::from(layout.text_start) + usize::from(layout.icv_len)
}

const DISJOINT: &str = "an index is in one list, once";

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
    fn finish<I: Isa>(isa: I, window: &mut I::Window<'_>, tag: I::Block) {
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
    fn finish<I: Isa>(isa: I, window: &mut I::Window<'_>, tag: I::Block) -> Verdict {
        if isa.icv_matches(window, tag) {
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
