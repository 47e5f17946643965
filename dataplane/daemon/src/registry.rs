//! What is installed, as far as the housekeeper has to know it: for the operator, and for a control
//! process that attaches anew. Keys are kept as fingerprints only.

use std::collections::HashMap;
use std::time::Instant;

use pollux_abi::command::{CommandError, Direction, SaSpec};
use pollux_abi::{KeyMaterial, SaId, Spi};
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
    /// When it was installed.
    pub since: Instant,
}

/// The SAs, by control's names for them.
#[derive(Debug, Default)]
pub struct Registry {
    sas: HashMap<SaId, Installed>,
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
        let taken = |other: &Installed| {
            other.spec.direction == spec.direction
                && (other.spec.index == spec.index
                    || (spec.direction == Direction::Inbound && other.spec.spi == spec.spi))
        };
        if let Some(other) = self.sas.values().find(|other| taken(other)) {
            let error =
                if other.spec.index == spec.index { CommandError::Index } else { CommandError::SpiInUse };
            return Err(RegistryError::Command(error));
        }
        spec.checkpoint = slot(&spec, keys, checkpoints)?;
        let checkpoint = spec.checkpoint;
        self.put(spec, keys, key, Instant::now());
        Ok(checkpoint)
    }

    /// Notes other keys, addresses or marks of an SA; its counters go on in the slot of the new keys.
    pub fn replace(
        &mut self,
        mut spec: SaSpec,
        keys: &KeyMaterial,
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
        spec.checkpoint = slot(&spec, keys, checkpoints)?;
        let table = checkpoints.checkpoints();
        let at = |slot: Option<u32>| slot.and_then(|slot| table.get(usize::try_from(slot).ok()?));
        if let (Some(before), Some(after)) = (at(before), at(spec.checkpoint))
            && !core::ptr::eq(before, after)
        {
            after.reserve(before.reserved().max(after.reserved()));
            after.authenticate(before.authenticated().max(after.authenticated()));
        }
        let checkpoint = spec.checkpoint;
        self.put(spec, keys, key, since);
        Ok(checkpoint)
    }

    fn put(&mut self, spec: SaSpec, keys: &KeyMaterial, key: &[u8; 32], since: Instant) {
        let fingerprint = fingerprint(key, spec.suite, keys);
        self.sas.insert(spec.id, Installed { spec, fingerprint, since });
    }

    /// Forgets an SA.
    pub fn remove(&mut self, id: SaId) -> Option<Installed> {
        self.sas.remove(&id)
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

    /// Whether an inbound SA has this SPI.
    pub fn has_inbound(&self, spi: Spi) -> bool {
        self.sas.values().any(|one| one.spec.direction == Direction::Inbound && one.spec.spi == spi)
    }
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
