//! Changes of the protected pairs under traffic, without a moment in which a packet that is protected
//! before and after the change could pass.
//!
//! The program reads the pair set first and the two tries afterwards. An update therefore goes:
//!
//! 1. a set that is closed over old and new prefixes, for old and new pairs, replaces the old one; the kernel
//!    returns only once no program holds the old one;
//! 2. new prefixes enter the tries: whatever class a lookup returns now, the set knows it;
//! 3. stale prefixes leave the tries: lookups fall back to wider prefixes, which the set knows too;
//! 4. the set closed over the new prefixes alone replaces the first. A program that still holds a stale class
//!    also holds the set of step 1, since it read that one before.
//!
//! A loader that dies in between leaves more protected than asked, and the next one starts from there.

use std::collections::{BTreeSet, HashMap, HashSet};

use ipnet::IpNet;

use crate::abi::CLASS_WIDE;
use crate::error::SteerError;
use crate::maps::{Maps, Prefixes};
use crate::pairs::{Pair, canonical, closure, is_narrow};

/// Makes `pairs` the protected ones; `capacity` is that of each trie.
pub(crate) fn update(maps: &mut Maps, pairs: &[Pair], capacity: u32) -> Result<(), SteerError> {
    let wanted = canonical(pairs)?;
    let present = Present::read(maps)?;

    let mut locals = Side::plan("local", &present.locals, wanted.iter().map(|pair| pair.0), capacity)?;
    let mut remotes = Side::plan("remote", &present.remotes, wanted.iter().map(|pair| pair.1), capacity)?;
    let both: HashSet<Pair> = present.pairs.union(&wanted).copied().collect();
    let during = closure(&both, &locals.all(), &remotes.all())?;
    let after = closure(&wanted, &locals.wanted, &remotes.wanted)?;
    if after == present.pairs && locals.is_unchanged() && remotes.is_unchanged() && !present.has_strays {
        return Ok(());
    }
    locals.number_new(&present.classes);
    remotes.number_new(&present.classes);

    if during != present.pairs || present.has_strays {
        replace(maps, &during, &locals, &remotes)?;
    }
    locals.add(&mut maps.locals)?;
    remotes.add(&mut maps.remotes)?;
    locals.remove(&mut maps.locals)?;
    remotes.remove(&mut maps.remotes)?;
    if after != during {
        replace(maps, &after, &locals, &remotes)?;
    }
    Ok(())
}

/// The pairs in the maps.
pub(crate) fn held(maps: &Maps) -> Result<Vec<Pair>, SteerError> {
    Ok(Present::read(maps)?.pairs.into_iter().collect())
}

fn replace(maps: &mut Maps, set: &HashSet<Pair>, locals: &Side, remotes: &Side) -> Result<(), SteerError> {
    let classes = set
        .iter()
        .filter_map(|(local, remote)| Some([*locals.classes.get(local)?, *remotes.classes.get(remote)?]));
    maps.replace_pairs(classes, set.len())
}

/// What the maps hold, perhaps from an earlier process.
struct Present {
    locals: HashMap<IpNet, u32>,
    remotes: HashMap<IpNet, u32>,
    /// The closed set, as prefixes.
    pairs: HashSet<Pair>,
    /// Whether the set names classes that no trie returns: a change was cut short.
    has_strays: bool,
    /// Every class in use, in a trie or in the set.
    classes: HashSet<u32>,
}

impl Present {
    fn read(maps: &Maps) -> Result<Self, SteerError> {
        let locals = maps.locals.classes()?;
        let remotes = maps.remotes.classes()?;
        let class_pairs = maps.pair_set()?.unwrap_or_default();
        let classes =
            locals.values().chain(remotes.values()).chain(class_pairs.iter().flatten()).copied().collect();

        let local_of: HashMap<u32, IpNet> = locals.iter().map(|(prefix, class)| (*class, *prefix)).collect();
        let remote_of: HashMap<u32, IpNet> =
            remotes.iter().map(|(prefix, class)| (*class, *prefix)).collect();
        let mut pairs = HashSet::with_capacity(class_pairs.len());
        let mut has_strays = false;
        for [local, remote] in class_pairs {
            match (local_of.get(&local), remote_of.get(&remote)) {
                (Some(local), Some(remote)) => {
                    pairs.insert((*local, *remote));
                }
                _ => has_strays = true,
            }
        }
        Ok(Self { locals, remotes, pairs, has_strays, classes })
    }
}

/// One side's change of prefixes.
struct Side {
    /// Classes of old and new prefixes.
    classes: HashMap<IpNet, u32>,
    wanted: BTreeSet<IpNet>,
    new: Vec<IpNet>,
    stale: Vec<IpNet>,
}

impl Side {
    fn plan(
        side: &'static str,
        present: &HashMap<IpNet, u32>,
        wanted: impl Iterator<Item = IpNet>,
        capacity: u32,
    ) -> Result<Self, SteerError> {
        let wanted: BTreeSet<IpNet> = wanted.collect();
        let new: Vec<IpNet> = wanted.iter().filter(|prefix| !present.contains_key(prefix)).copied().collect();
        let stale = present.keys().filter(|prefix| !wanted.contains(prefix)).copied().collect();
        for is_v4 in [true, false] {
            let of_family = |prefix: &&IpNet| matches!(prefix, IpNet::V4(_)) == is_v4;
            let needed = present.keys().filter(of_family).count() + new.iter().filter(of_family).count();
            if needed > capacity as usize {
                return Err(SteerError::TooManyPrefixes { side, needed, capacity });
            }
        }
        Ok(Self { classes: present.clone(), wanted, new, stale })
    }

    /// Old and new prefixes.
    fn all(&self) -> BTreeSet<IpNet> {
        self.classes.keys().chain(&self.wanted).copied().collect()
    }

    fn is_unchanged(&self) -> bool {
        self.new.is_empty() && self.stale.is_empty()
    }

    /// Gives the new prefixes numbers that nothing uses. The exchange of the set, which precedes their way
    /// into the trie, waits for programs that may still hold such a number from an earlier prefix.
    fn number_new(&mut self, used: &HashSet<u32>) {
        let free =
            (1..CLASS_WIDE).filter(|class| !used.contains(class) && !used.contains(&(class | CLASS_WIDE)));
        let class = |(prefix, number): (IpNet, u32)| {
            (prefix, if is_narrow(&prefix) { number } else { number | CLASS_WIDE })
        };
        self.classes.extend(self.new.iter().copied().zip(free).map(class));
    }

    fn add(&self, trie: &mut Prefixes) -> Result<(), SteerError> {
        self.new.iter().try_for_each(|prefix| {
            self.classes.get(prefix).map_or(Ok(()), |class| trie.insert(*prefix, *class))
        })
    }

    fn remove(&self, trie: &mut Prefixes) -> Result<(), SteerError> {
        self.stale.iter().try_for_each(|prefix| trie.remove(*prefix))
    }
}
