//! Outcomes of a power cut: every choice that a disk may make.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bytes::{File, SECTOR, Sector, sector_of};
use super::chance::{Choice, Mood, random};
use super::names::{SimNames, keep_reachable};
use super::world::World;

impl World {
    /// Cuts the power: synced data survives, `choice` decides about the rest.
    pub(super) fn power_cut(&mut self, choice: &mut Choice<'_>) {
        let names = surviving(&self.names, choice);
        self.names.settle(names);
        let mut lost = Vec::new();
        let stale = std::mem::take(&mut self.stale);
        for file in self.files.values_mut().filter(|file| file.is_unsettled()) {
            let file = Arc::make_mut(file);
            settle(file, &stale, &mut lost, choice);
        }
        self.stale = stale;
        self.keep_stale(lost);
    }
}

/// Returns the names that survive. The two names of a rename survive or vanish together.
fn surviving(names: &SimNames, choice: &mut Choice<'_>) -> BTreeMap<String, Option<u64>> {
    let SimNames { current, durable, .. } = names;
    let mut left = durable.clone();
    let mut changed: BTreeSet<&String> = current.keys().chain(durable.keys()).collect();
    changed.retain(|name| current.get(*name) != durable.get(*name));
    let mut renamed = BTreeMap::new();
    for from in changed.iter().filter(|name| !current.contains_key(**name)) {
        let file = durable.get(*from).copied().flatten();
        let to = changed.iter().find(|to| {
            file.is_some()
                && current.get(**to).copied().flatten() == file
                && !durable.contains_key(**to)
        });
        renamed.extend(to.map(|to| (*to, *from)));
    }
    let sources: BTreeSet<&String> = renamed.values().copied().collect();
    for name in changed.into_iter().filter(|name| !sources.contains(name)) {
        if choice.of(2) == 0 {
            continue;
        }
        match current.get(name) {
            Some(file) => left.insert(name.clone(), *file),
            None => left.remove(name),
        };
        if let Some(from) = renamed.get(name) {
            left.remove(*from);
        }
    }
    keep_reachable(&mut left);
    left
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
