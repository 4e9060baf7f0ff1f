//! Outcomes of a power cut: every choice that a disk may make, at random or enumerated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::names::keep_reachable;
use super::world::{File, SECTOR, Sector, World, sector_of};

/// Decides between several ways.
pub(super) enum Choice<'a> {
    /// Random choice in a mood: even odds would never let everything survive, or nothing.
    Chance(&'a mut u64, Mood),
    /// Enumerated combination, as a number in mixed radix.
    Nth(u128),
    /// Product of the numbers of ways, to count the combinations.
    Count(u128),
}

/// Character of the random choices in one power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Everything,
    Nothing,
    Any,
}

/// Returns the next number of a generator: xorshift64*, Vigna 2016.
pub(super) fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33
}

impl<'a> Choice<'a> {
    pub(super) fn by_chance(state: &'a mut u64) -> Self {
        let mood = match random(state) % 8 {
            0 => Mood::Everything,
            1 => Mood::Nothing,
            _ => Mood::Any,
        };
        Self::Chance(state, mood)
    }

    /// Chooses one of `ways`. The first means that nothing new survives, the last that the newest
    /// version does.
    fn of(&mut self, ways: usize) -> usize {
        match self {
            Self::Chance(_, Mood::Everything) => ways - 1,
            Self::Chance(_, Mood::Nothing) => 0,
            Self::Chance(state, Mood::Any) => match random(state) % 4 {
                0 => random(state) as usize % ways,
                even if even % 2 == 0 => 0,
                _ => ways - 1,
            },
            Self::Nth(rest) => {
                let digit = *rest % ways as u128;
                *rest /= ways as u128;
                digit as usize
            }
            Self::Count(product) => {
                *product = product.saturating_mul(ways as u128);
                0
            }
        }
    }
}

impl World {
    /// Cuts the power: synced data survives, `choice` decides about the rest.
    pub(super) fn power_cut(&mut self, choice: &mut Choice<'_>) {
        let names = self.surviving_names(choice);
        self.settle_names(names);
        let mut lost = Vec::new();
        let stale = std::mem::take(&mut self.stale);
        for file in self.files.values_mut().filter(|file| file.is_unsettled()) {
            let file = Arc::make_mut(file);
            settle(file, &stale, &mut lost, choice);
        }
        self.stale = stale;
        self.keep_stale(lost);
    }

    /// Returns the names that survive. The two names of a rename survive or vanish together.
    fn surviving_names(&self, choice: &mut Choice<'_>) -> BTreeMap<String, Option<u64>> {
        let mut names = self.durable_names.clone();
        let mut changed: BTreeSet<&String> =
            self.names.keys().chain(self.durable_names.keys()).collect();
        changed.retain(|name| self.names.get(*name) != self.durable_names.get(*name));
        let mut renamed = BTreeMap::new();
        for from in changed.iter().filter(|name| !self.names.contains_key(**name)) {
            let file = self.durable_names.get(*from).copied().flatten();
            let to = changed.iter().find(|to| {
                file.is_some()
                    && self.names.get(**to).copied().flatten() == file
                    && !self.durable_names.contains_key(**to)
            });
            renamed.extend(to.map(|to| (*to, *from)));
        }
        let left: BTreeSet<&String> = renamed.values().copied().collect();
        for name in changed.into_iter().filter(|name| !left.contains(name)) {
            if choice.of(2) == 0 {
                continue;
            }
            match self.names.get(name) {
                Some(file) => names.insert(name.clone(), *file),
                None => names.remove(name),
            };
            if let Some(from) = renamed.get(name) {
                names.remove(*from);
            }
        }
        keep_reachable(&mut names);
        names
    }
}

/// Returns the possible contents of a sector: the last synced one, and every version written since;
/// the newest last.
fn ways(old: Sector, versions: &[Sector]) -> Vec<Sector> {
    let mut ways: Vec<Sector> = vec![old];
    for version in versions {
        ways.retain(|way| way != version);
        ways.push(*version);
    }
    ways
}

/// Decides the length of a file and the content of its sectors. Where the length survives without
/// the bytes, stale bytes may show.
fn settle(file: &mut File, stale: &[Sector], lost: &mut Vec<Sector>, choice: &mut Choice<'_>) {
    let synced = file.platter.len();
    let mut lengths = vec![synced];
    for length in &file.lengths {
        lengths.retain(|way| way != length);
        lengths.push(*length);
    }
    let length = lengths[choice.of(lengths.len())];
    let mut left = file.platter.to_vec();
    left.resize(length.max(synced), 0);
    let shows_stale = match choice {
        Choice::Chance(state, Mood::Any) => !stale.is_empty() && random(state).is_multiple_of(4),
        _ => false,
    };
    for (sector, versions) in &file.dirty {
        let old = sector_of(&file.platter, *sector);
        let ways = ways(old, versions);
        let mut survivor = ways[choice.of(ways.len())];
        lost.extend(ways.into_iter().filter(|way| *way != survivor));
        let at = sector * SECTOR;
        if let Choice::Chance(state, _) = choice
            && shows_stale
            && at >= synced
            && survivor == old
        {
            survivor = stale[random(state) as usize % stale.len()];
        }
        let end = left.len().min(at + SECTOR);
        if at < end {
            left[at..end].copy_from_slice(&survivor[..end - at]);
        }
    }
    left.truncate(length);
    file.come_back_as(left);
}
