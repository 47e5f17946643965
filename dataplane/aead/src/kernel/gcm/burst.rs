//! The walk over a burst of AES-GCM packets: equals side by side, the rest one by one.

use super::open::{OpenGroup, open_one};
use super::seal::{SealGroup, seal_one};
use super::{Item, vectors};
use crate::burst::{BURST, OpenJob, SealJob};
use crate::ct::icv_matches;
use crate::kernel::isa::{Isa, Task};
use crate::key::Key;
use crate::packet::{HEADER_LEN, Text, header, implicit_iv};
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
        for (index, job) in self.jobs.iter().enumerate() {
            if job.key.on_gcm_kernel() {
                order.add::<I>(index, job.key.suite.layout().path, job.text());
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
    // AES-192 is rare: its packets go one by one, which spares a third of the code.
    let mut alone = first;
    if const { ROUNDS != 12 } {
        alone = first + SHORT;
        seal_list::<I, ROUNDS, 4, 1>(isa, jobs, order.of(first));
        if const { I::IN_FLIGHT == 8 } {
            seal_list::<I, ROUNDS, 4, 2>(isa, jobs, order.of(first + 1));
            seal_list::<I, ROUNDS, 2, 3>(isa, jobs, order.of(first + 2));
            seal_list::<I, ROUNDS, 2, 4>(isa, jobs, order.of(first + 3));
        } else {
            seal_list::<I, ROUNDS, 2, 2>(isa, jobs, order.of(first + 1));
            seal_list::<I, ROUNDS, 1, 3>(isa, jobs, order.of(first + 2));
            seal_list::<I, ROUNDS, 1, 4>(isa, jobs, order.of(first + 3));
        }
    }
    for &index in (alone..=first + SHORT).flat_map(|class| order.of(class)) {
        let job = &mut jobs[usize::from(index)];
        let tag = seal_one::<I, ROUNDS>(isa, &mut job.item());
        job.write_icv(&tag);
    }
}

/// Packets of `R` vectors, `N` at a time.
#[inline(always)]
fn seal_list<I: Isa, const ROUNDS: usize, const N: usize, const R: usize>(
    isa: I,
    jobs: &mut [SealJob<'_>],
    list: &[u8],
) {
    let (groups, rest) = list.as_chunks::<N>();
    for group in groups {
        let mut group = jobs.get_disjoint_mut(group.map(usize::from)).expect(DISJOINT);
        let mut items = group.each_mut().map(|job| job.item());
        let tags = isa.enter(SealGroup::<ROUNDS, N, R> { items: items.each_mut() });
        for (job, tag) in group.into_iter().zip(&tags) {
            job.write_icv(tag);
        }
    }
    for &index in rest {
        let job = &mut jobs[usize::from(index)];
        let [tag] = isa.enter(SealGroup::<ROUNDS, 1, R> { items: [&mut job.item()] });
        job.write_icv(&tag);
    }
}

const DISJOINT: &str = "an index is in one list, once";

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
            if job.key.on_gcm_kernel() {
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
    // AES-192 is rare: its packets go one by one, which spares a third of the code.
    let mut alone = first;
    if const { ROUNDS != 12 } {
        alone = first + SHORT;
        open_list::<I, ROUNDS, 4, 1>(isa, jobs, verdicts, order.of(first));
        if const { I::IN_FLIGHT == 8 } {
            open_list::<I, ROUNDS, 4, 2>(isa, jobs, verdicts, order.of(first + 1));
            open_list::<I, ROUNDS, 2, 3>(isa, jobs, verdicts, order.of(first + 2));
            open_list::<I, ROUNDS, 2, 4>(isa, jobs, verdicts, order.of(first + 3));
        } else {
            open_list::<I, ROUNDS, 2, 2>(isa, jobs, verdicts, order.of(first + 1));
            open_list::<I, ROUNDS, 1, 3>(isa, jobs, verdicts, order.of(first + 2));
            open_list::<I, ROUNDS, 1, 4>(isa, jobs, verdicts, order.of(first + 3));
        }
    }
    for &index in (alone..=first + SHORT).flat_map(|class| order.of(class)) {
        let index = usize::from(index);
        let job = &mut jobs[index];
        let tag = open_one::<I, ROUNDS>(isa, &mut job.item());
        verdicts[index] = job.check_icv(&tag);
    }
}

/// Packets of `R` vectors, `N` at a time.
#[inline(always)]
fn open_list<I: Isa, const ROUNDS: usize, const N: usize, const R: usize>(
    isa: I,
    jobs: &mut [OpenJob<'_>],
    verdicts: &mut [Verdict],
    list: &[u8],
) {
    let (groups, rest) = list.as_chunks::<N>();
    for indices in groups {
        let mut group = jobs.get_disjoint_mut(indices.map(usize::from)).expect(DISJOINT);
        let mut items = group.each_mut().map(|job| job.item());
        let tags = isa.enter(OpenGroup::<ROUNDS, N, R> { items: items.each_mut() });
        for ((job, tag), &index) in group.into_iter().zip(&tags).zip(indices) {
            verdicts[usize::from(index)] = job.check_icv(tag);
        }
    }
    for &index in rest {
        let index = usize::from(index);
        let job = &mut jobs[index];
        let [tag] = isa.enter(OpenGroup::<ROUNDS, 1, R> { items: [&mut job.item()] });
        verdicts[index] = job.check_icv(&tag);
    }
}

impl SealJob<'_> {
    /// The kernel's view of the packet; writes the explicit IV.
    #[inline(always)]
    pub(crate) fn item(&mut self) -> Item<'_> {
        let text = self.text();
        let iv = if text.start == HEADER_LEN {
            implicit_iv(header(self.packet), self.key.esn, self.seq_high)
        } else {
            self.packet[HEADER_LEN..HEADER_LEN + 8].copy_from_slice(&self.iv.to_be_bytes());
            self.iv
        };
        Item::new(self.key, self.packet, text, self.seq_high, iv)
    }

    #[inline(always)]
    pub(crate) fn write_icv(&mut self, tag: &[u8; 16]) {
        let len = usize::from(self.key.suite.layout().icv_len);
        let at = self.packet.len() - len;
        // Constant lengths are stores; a variable one would be a call.
        match len {
            16 => self.packet[at..at + 16].copy_from_slice(tag),
            12 => self.packet[at..at + 12].copy_from_slice(&tag[..12]),
            _ => self.packet[at..at + 8].copy_from_slice(&tag[..8]),
        }
    }
}

impl OpenJob<'_> {
    /// The kernel's view of a packet that [`Text::locate`] has accepted.
    #[inline(always)]
    pub(crate) fn item(&mut self) -> Item<'_> {
        let layout = self.key.suite.layout();
        let text =
            Text { start: layout.text_start.into(), end: self.packet.len() - usize::from(layout.icv_len) };
        let iv = if text.start == HEADER_LEN {
            implicit_iv(header(self.packet), self.key.esn, self.seq_high)
        } else {
            let mut iv = [0; 8];
            iv.copy_from_slice(&self.packet[HEADER_LEN..HEADER_LEN + 8]);
            u64::from_be_bytes(iv)
        };
        Item::new(self.key, self.packet, text, self.seq_high, iv)
    }

    /// Compares, and zeroes the text of a packet that is not authentic.
    #[inline(always)]
    pub(crate) fn check_icv(&mut self, tag: &[u8; 16]) -> Verdict {
        let layout = self.key.suite.layout();
        let (text, icv) = self.packet.split_at_mut(self.packet.len() - usize::from(layout.icv_len));
        if icv_matches(tag, icv) {
            Verdict::Authentic
        } else {
            wipe(&mut text[usize::from(layout.text_start)..]);
            Verdict::BadIcv
        }
    }
}

/// Out of line: the rare case must not weigh on the loop.
#[cold]
#[inline(never)]
fn wipe(text: &mut [u8]) {
    text.fill(0);
}

impl<'a> Item<'a> {
    #[inline(always)]
    fn new(key: &'a Key, packet: &'a mut [u8], text: Text, seq_high: u32, iv: u64) -> Self {
        let header = u64::from_be_bytes(header(packet));
        let (aad, aad_bits) = if key.esn {
            let spi_and_high = (header >> 32 << 32) | u64::from(seq_high);
            ((u128::from(spi_and_high) << 64) | (u128::from(header << 32)), 96)
        } else {
            (u128::from(header) << 64, 64)
        };
        let salt = u32::from_be_bytes(key.salt);
        let first = (u128::from(salt) << 96) | (u128::from(iv) << 32) | 1;
        Item { tables: &key.tables, first, aad, aad_bits, packet, text }
    }
}
