//! The engines of `pollux-aead`.

use arrayvec::ArrayVec;
use pollux_aead::{Engine, Key, OpenJob, OpenVerdict, SealJob, Suite};

use super::{Contender, KEY, Pool, SALT};

/// Packets in a burst, as the data plane forms them.
const BURST: usize = 32;

/// One engine with its keys.
pub struct Ours {
    engine: Engine,
    keys: Vec<Key>,
}

impl Ours {
    /// With so many contexts.
    pub fn new(engine: Engine, suite: Suite, contexts: usize) -> anyhow::Result<Self> {
        let key = || Key::new(engine, suite, false, &KEY[..suite.key_len()], &SALT, &[]);
        Ok(Self { engine, keys: (0..contexts).map(|_| key()).collect::<Result<_, _>>()? })
    }

    /// As the SA lookup of the data plane does it: ask for the keys of the burst after this one.
    #[inline]
    fn prefetch(&self, sas: &[u32]) {
        for &sa in sas {
            self.keys[sa as usize].prefetch();
        }
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn seal(&mut self, pool: &mut Pool, sas: &[u32]) {
        let mut packets = pool.packets().enumerate();
        for (burst, sas_of_burst) in sas.chunks(BURST).enumerate() {
            self.prefetch(next_burst(sas, burst));
            let mut jobs: ArrayVec<SealJob<'_>, BURST> = ArrayVec::new();
            for (&sa, (i, packet)) in sas_of_burst.iter().zip(&mut packets) {
                jobs.push(SealJob { key: &self.keys[sa as usize], packet, seq_high: 0, iv: i as u64 });
            }
            self.engine.seal_burst(&mut jobs);
        }
    }

    fn open(&mut self, pool: &mut Pool, sas: &[u32]) -> usize {
        let mut packets = pool.packets();
        let mut authentic = 0;
        for (burst, sas_of_burst) in sas.chunks(BURST).enumerate() {
            self.prefetch(next_burst(sas, burst));
            let mut jobs: ArrayVec<OpenJob<'_>, BURST> = ArrayVec::new();
            for (&sa, packet) in sas_of_burst.iter().zip(&mut packets) {
                jobs.push(OpenJob { key: &self.keys[sa as usize], packet, seq_high: 0 });
            }
            let mut verdicts = [OpenVerdict::Malformed; BURST];
            self.engine.open_burst(&mut jobs, &mut verdicts);
            authentic += verdicts.iter().filter(|&&verdict| verdict == OpenVerdict::Authentic).count();
        }
        authentic
    }
}

fn next_burst(sas: &[u32], burst: usize) -> &[u32] {
    sas.chunks(BURST).nth(burst + 1).unwrap_or_default()
}
