//! What is installed, as far as the housekeeper has to know it: for the operator, and for a control
//! process that attaches anew. Keys are kept as fingerprints only.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use pollux_abi::command::{CommandError, Direction, SaSpec};
use pollux_abi::{Checkpoint, KeyMaterial, SaId, SaIndex, Spi, WorkerId};
use pollux_config::api::{Fingerprint, fingerprint};
use pollux_shm::{CheckpointError, CheckpointFile};
use sha2::{Digest, Sha256};

/// An SA that control has installed.
#[derive(Clone, Debug)]
pub struct Installed {
    /// All there is to say of it but its keys.
    pub spec: SaSpec,
    /// Of its keys.
    pub fingerprint: Fingerprint,
    /// When it was installed; of a manual SA, when its key was, in this life of the process or an earlier one.
    pub since: Instant,
    /// Whether its owner knows that the soft and the hard limit by age are reached.
    told: [bool; 2],
}

/// The SAs, by control's names for them.
#[derive(Debug, Default)]
pub struct Registry {
    sas: HashMap<SaId, Installed>,
    /// Taken table indices: outbound or not, and the index.
    indices: HashSet<(bool, SaIndex)>,
    /// SPIs of inbound SAs.
    spis: HashSet<Spi>,
}

impl Registry {
    /// Notes a new SA; returns its slot of the counter file, where it wants one.
    pub fn add(
        &mut self,
        mut spec: SaSpec,
        keys: &KeyMaterial,
        key: &[u8; 32],
        checkpoints: &mut CheckpointFile,
    ) -> Result<Option<u32>, RegistryError> {
        if self.sas.contains_key(&spec.id) {
            return Err(RegistryError::Command(CommandError::Index));
        }
        let place = place(&spec);
        if self.indices.contains(&place) {
            return Err(RegistryError::Command(CommandError::Index));
        }
        let inbound = spec.direction == Direction::Inbound;
        if inbound && self.spis.contains(&spec.spi) {
            return Err(RegistryError::Command(CommandError::SpiInUse));
        }
        spec.checkpoint = slot(&spec, keys, checkpoints)?;
        let checkpoint = spec.checkpoint;
        if !inbound && let Some(checkpoint) = at(checkpoints, checkpoint) {
            checkpoint.begin(spec.seq_start);
        }
        self.indices.insert(place);
        if inbound {
            self.spis.insert(spec.spi);
        }
        let since = first_installed(at(checkpoints, checkpoint));
        self.put(spec, keys, key, since);
        Ok(checkpoint)
    }

    /// Notes other keys, addresses or marks of an SA. Other keys have a slot of their own, and begin there; without
    /// keys it keeps those that it has.
    pub fn replace(
        &mut self,
        mut spec: SaSpec,
        keys: Option<&KeyMaterial>,
        key: &[u8; 32],
        checkpoints: &mut CheckpointFile,
    ) -> Result<Option<u32>, RegistryError> {
        let Some(old) = self.sas.get(&spec.id) else {
            return Err(RegistryError::Command(CommandError::Unknown));
        };
        let same_place =
            (old.spec.direction, old.spec.index, old.spec.spi) == (spec.direction, spec.index, spec.spi);
        if !same_place {
            return Err(RegistryError::Command(CommandError::Field));
        }
        let (since, before) = (old.since, old.spec.checkpoint);
        let Some(keys) = keys else {
            if old.spec.suite != spec.suite || before.is_some() != spec.checkpoint.is_some() {
                return Err(RegistryError::Command(CommandError::Field));
            }
            spec.checkpoint = before;
            let old = old.clone();
            self.sas.insert(spec.id, Installed { spec, told: [false; 2], ..old });
            return Ok(before);
        };
        spec.checkpoint = slot(&spec, keys, checkpoints)?;
        if spec.checkpoint != before
            && spec.direction == Direction::Outbound
            && let Some(checkpoint) = at(checkpoints, spec.checkpoint)
        {
            checkpoint.begin(spec.seq_start);
        }
        let checkpoint = spec.checkpoint;
        // Other keys begin a life of their own.
        let since = if checkpoint == before { since } else { first_installed(at(checkpoints, checkpoint)) };
        self.put(spec, keys, key, since);
        Ok(checkpoint)
    }

    fn put(&mut self, spec: SaSpec, keys: &KeyMaterial, key: &[u8; 32], since: Instant) {
        let fingerprint = fingerprint(key, spec.suite, keys);
        self.sas.insert(spec.id, Installed { spec, fingerprint, since, told: [false; 2] });
    }

    /// SAs that have reached a limit by age since the last call: owner, name, and whether the limit is the hard one.
    pub fn aged(&mut self, now: Instant) -> Vec<(WorkerId, SaId, bool)> {
        let mut aged = Vec::new();
        for (&id, installed) in &mut self.sas {
            let limits = &installed.spec.lifetimes;
            let age = now.saturating_duration_since(installed.since).as_secs();
            for (hard, limit) in [(false, limits.soft_age), (true, limits.hard_age)] {
                let told = &mut installed.told[usize::from(hard)];
                if limit != 0 && age >= u64::from(limit) && !*told {
                    *told = true;
                    aged.push((installed.spec.owner, id, hard));
                }
            }
        }
        aged
    }

    /// Forgets an SA.
    pub fn remove(&mut self, id: SaId) -> Option<Installed> {
        let gone = self.sas.remove(&id)?;
        self.indices.remove(&place(&gone.spec));
        if gone.spec.direction == Direction::Inbound {
            self.spis.remove(&gone.spec.spi);
        }
        Some(gone)
    }

    /// An SA by its name.
    pub fn get(&self, id: SaId) -> Option<&Installed> {
        self.sas.get(&id)
    }

    /// All SAs, by name.
    pub fn sorted(&self) -> Vec<&Installed> {
        let mut all: Vec<&Installed> = self.sas.values().collect();
        all.sort_unstable_by_key(|installed| installed.spec.id);
        all
    }

    /// How many SAs of a direction there are.
    pub fn count(&self, direction: Direction) -> u32 {
        let count = self.sas.values().filter(|installed| installed.spec.direction == direction).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

fn at(checkpoints: &CheckpointFile, slot: Option<u32>) -> Option<&'static Checkpoint> {
    checkpoints.checkpoints().get(usize::try_from(slot?).ok()?)
}

/// Seconds since 1970 at the beginning of 2026: a clock that says less has not been set yet.
const CLOCK_IS_SET: u32 = 1_767_225_600;

/// When the key in this slot was first installed; now, where there is no slot or nobody knows. A clock that has been
/// set back makes no key younger than new, and one that was not set yet makes none old.
fn first_installed(checkpoint: Option<&Checkpoint>) -> Instant {
    let now = Instant::now();
    let Some(checkpoint) = checkpoint else { return now };
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    let Some(born) = checkpoint.born().filter(|&born| born >= CLOCK_IS_SET) else {
        checkpoint.set_born(seconds);
        return now;
    };
    now.checked_sub(Duration::from_secs(u64::from(seconds.saturating_sub(born)))).unwrap_or(now)
}

fn place(spec: &SaSpec) -> (bool, SaIndex) {
    (spec.direction == Direction::Outbound, spec.index)
}

/// Why an SA was not noted.
#[derive(Debug)]
pub enum RegistryError {
    /// For control.
    Command(CommandError),
    /// The counter file.
    Checkpoint(CheckpointError),
}

/// The slot of the counter file for an SA that wants one: the same for the same keys in the same place, so
/// that deleting an SA and adding it again continues its sequence.
fn slot(
    spec: &SaSpec,
    keys: &KeyMaterial,
    checkpoints: &mut CheckpointFile,
) -> Result<Option<u32>, RegistryError> {
    if spec.checkpoint.is_none() {
        return Ok(None);
    }
    let mut digest = Sha256::new();
    digest.update(b"pollux key life\0");
    digest.update([u8::from(spec.direction == Direction::Outbound)]);
    digest.update(spec.spi.to_be_bytes());
    digest.update(spec.suite.code().to_le_bytes());
    digest.update(keys.as_bytes());
    checkpoints.slot_for(digest.finalize().into()).map(Some).map_err(RegistryError::Checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_abi::command::{EncapPorts, Lifetimes};
    use pollux_abi::dscp::{DfMark, DscpMark, EcnMode};
    use pollux_abi::{EspSuite, Reqid, Selectors};
    use std::net::IpAddr;
    use std::path::PathBuf;

    struct Files(PathBuf);

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn counters(name: &str) -> (Files, CheckpointFile) {
        let folder = std::env::temp_dir().join(format!("pollux-registry-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = CheckpointFile::open(&folder.join("counters")).expect("a counter file");
        (Files(folder), file)
    }

    fn spec(id: u64, index: u32, spi: u32) -> SaSpec {
        SaSpec {
            id: SaId(id),
            direction: Direction::Inbound,
            index: SaIndex(index),
            spi: Spi::new(spi).expect("not reserved"),
            suite: EspSuite::Aes128Gcm16,
            esn: false,
            window_packets: 64,
            local: [192, 0, 2, 1].into(),
            remote: [192, 0, 2, 2].into(),
            encap: Some(EncapPorts { local: 4500, remote: 4500 }),
            reqid: Reqid(1),
            owner: WorkerId(0),
            dscp: DscpMark::Copy,
            ecn: EcnMode::Normal,
            df: DfMark::Copy,
            lifetimes: Lifetimes::default(),
            seq_start: 0,
            iv_start: 1,
            checkpoint: Some(u32::MAX),
            local_ts: Selectors::default(),
            remote_ts: Selectors::default(),
        }
    }

    fn keys(octet: u8) -> KeyMaterial {
        KeyMaterial::new(&[octet; 20]).expect("a key")
    }

    #[test]
    fn an_index_an_spi_and_a_name_are_given_once() {
        let (_files, mut file) = counters("once");
        let mut registry = Registry::default();
        let mut add = |registry: &mut Registry, spec| registry.add(spec, &keys(1), &[0; 32], &mut file);
        assert!(add(&mut registry, spec(1, 1, 0x100)).is_ok());
        let refused =
            |result| matches!(result, Err(RegistryError::Command(error)) if error != CommandError::Full);
        assert!(refused(add(&mut registry, spec(1, 2, 0x200))), "the name");
        assert!(refused(add(&mut registry, spec(2, 1, 0x200))), "the index");
        assert!(refused(add(&mut registry, spec(2, 2, 0x100))), "the SPI");
        assert!(registry.remove(SaId(1)).is_some());
        assert!(add(&mut registry, spec(2, 1, 0x100)).is_ok(), "all free again");
        assert_eq!((registry.count(Direction::Inbound), registry.count(Direction::Outbound)), (1, 0));
    }

    #[test]
    fn the_age_of_a_key_counts_over_every_life_and_is_told_once() {
        let (_files, mut file) = counters("age");
        let mut registry = Registry::default();
        let aging = SaSpec {
            lifetimes: Lifetimes { soft_age: 5, hard_age: 10, ..Lifetimes::default() },
            ..spec(1, 1, 0x100)
        };
        let slot = registry.add(aging.clone(), &keys(1), &[0; 32], &mut file).expect("added");
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert_eq!(registry.aged(later(4)), []);
        assert_eq!(registry.aged(later(6)), [(WorkerId(0), SaId(1), false)]);
        assert_eq!(registry.aged(later(11)), [(WorkerId(0), SaId(1), true)]);
        assert_eq!(registry.aged(later(12)), [], "once");
        // Another life, eight seconds later as the clock on the wall has it.
        let born = at(&file, slot).and_then(Checkpoint::born).expect("noted");
        at(&file, slot).expect("a slot").set_born(born - 8);
        let mut registry = Registry::default();
        let same = registry.add(aging.clone(), &keys(1), &[0; 32], &mut file).expect("added");
        assert_eq!(same, slot);
        assert_eq!(registry.aged(later(3)).len(), 2, "eleven seconds of age");
        // Noted by a clock that had not been set: the key is not fifty years old.
        at(&file, slot).expect("a slot").set_born(1_000);
        let mut unset = Registry::default();
        unset.add(aging.clone(), &keys(1), &[0; 32], &mut file).expect("added");
        assert_eq!(unset.aged(later(3)), []);
        at(&file, slot).expect("a slot").set_born(born - 8);
        // Other keys begin anew; other marks do not.
        registry.replace(aging.clone(), Some(&keys(1)), &[0; 32], &mut file).expect("replaced");
        assert_eq!(registry.aged(later(3)).len(), 2, "told again: the owner has the SA anew");
        registry.replace(aging, Some(&keys(2)), &[0; 32], &mut file).expect("replaced");
        assert_eq!(registry.aged(later(3)), []);
    }

    #[test]
    fn numbers_of_an_outbound_sa_are_reserved_before_its_owner_knows_of_it() {
        let (_files, mut file) = counters("begin");
        let mut registry = Registry::default();
        let out = SaSpec { direction: Direction::Outbound, seq_start: 7, ..spec(1, 1, 0x100) };
        let slot = registry.add(out.clone(), &keys(1), &[0; 32], &mut file).expect("added");
        let first = at(&file, slot).expect("a manual SA");
        assert_eq!((first.start(), first.reserved()), (7, 7 + 2 * Checkpoint::STEP));
        let slot = registry.replace(out, Some(&keys(2)), &[0; 32], &mut file).expect("replaced");
        let second = at(&file, slot).expect("a manual SA");
        assert_eq!(second.start(), 7, "other keys have numbers of their own");
        assert_eq!(second.reserved(), second.start() + 2 * Checkpoint::STEP);
    }

    #[test]
    fn the_counters_of_a_key_outlive_its_sa() {
        let (_files, mut file) = counters("life");
        let mut registry = Registry::default();
        let slot = registry.add(spec(1, 1, 0x100), &keys(1), &[0; 32], &mut file).expect("added");
        let at = |slot: Option<u32>| usize::try_from(slot.expect("a manual SA")).expect("small");
        file.checkpoints()[at(slot)].authenticate(77);
        registry.remove(SaId(1));
        let again = registry.add(spec(1, 1, 0x100), &keys(1), &[0; 32], &mut file).expect("added");
        assert_eq!(slot, again, "the same key in the same place");
        let before = registry.get(SaId(1)).expect("there").fingerprint;
        let other =
            registry.replace(spec(1, 1, 0x100), Some(&keys(2)), &[0; 32], &mut file).expect("replaced");
        assert_ne!(other, slot);
        assert_eq!(file.checkpoints()[at(other)].authenticated(), 0, "other keys begin another window");
        assert_ne!(registry.get(SaId(1)).expect("there").fingerprint, before);
        // Without keys, what is known of those that it has stays.
        let known = registry.get(SaId(1)).expect("there").clone();
        let moved = SaSpec { remote: [192, 0, 2, 9].into(), ..spec(1, 1, 0x100) };
        assert_eq!(registry.replace(moved, None, &[0; 32], &mut file).expect("replaced"), other);
        let now = registry.get(SaId(1)).expect("there");
        assert_eq!(
            (now.fingerprint, now.since, now.spec.checkpoint),
            (known.fingerprint, known.since, other)
        );
        assert_eq!(now.spec.remote, IpAddr::from([192, 0, 2, 9]));
        for other in [
            SaSpec { suite: EspSuite::Aes256Gcm16, ..spec(1, 1, 0x100) },
            SaSpec { checkpoint: None, ..spec(1, 1, 0x100) },
        ] {
            let refused = registry.replace(other, None, &[0; 32], &mut file);
            assert!(matches!(refused, Err(RegistryError::Command(CommandError::Field))));
        }
        let elsewhere = registry.replace(spec(1, 9, 0x100), Some(&keys(2)), &[0; 32], &mut file);
        assert!(matches!(elsewhere, Err(RegistryError::Command(CommandError::Field))));
    }
}
