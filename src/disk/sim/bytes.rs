//! Bytes of one file of a simulated disk, as the running system sees them and as the platter holds
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chance::random;

pub(super) const SECTOR: usize = 512;

pub(super) type Sector = [u8; SECTOR];

/// Bytes of a file, in the cache and on the platter.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) cache: Arc<Vec<u8>>,
    /// Shares its memory with the cache while both are equal.
    pub(super) platter: Arc<Vec<u8>>,
    /// Versions of each sector written since the last sync, oldest first.
    pub(super) dirty: BTreeMap<usize, Vec<Sector>>,
    /// Lengths of the file since the last sync.
    pub(super) lengths: Vec<usize>,
    /// Sectors that a failed sync forgot: clean in the cache, but never written.
    pub(super) forgotten: BTreeSet<usize>,
    /// Sectors that occupy space.
    pub(super) allocated: BTreeSet<usize>,
    /// True if the file was extended since the last sync.
    pub(super) is_extended: bool,
}

/// Returns the content of a sector, padded with zeros beyond the end of the file.
pub(super) fn sector_of(bytes: &[u8], sector: usize) -> Sector {
    let mut held = [0; SECTOR];
    let at = sector * SECTOR;
    if let Some(bytes) = bytes.get(at..bytes.len().min(at + SECTOR)) {
        held[..bytes.len()].copy_from_slice(bytes);
    }
    held
}

impl File {
    /// Returns true if a power cut could change the file, or leave it in more than one way.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.dirty.is_empty() || !self.lengths.is_empty() || !self.forgotten.is_empty()
    }

    /// Writes into the cache while free sectors last, and returns the number of bytes written. A
    /// unit that does not fit is not written at all, not even over sectors that exist.
    pub(super) fn write(&mut self, bytes: &[u8], at: usize, mut room: usize, unit: usize) -> usize {
        let mut end = at + bytes.len();
        let mut from = at;
        while from < end {
            let to = end.min((from / unit + 1) * unit);
            let new = |sector: &usize| !self.allocated.contains(sector);
            let new: Vec<usize> = (from / SECTOR..to.div_ceil(SECTOR)).filter(new).collect();
            if new.len() > room {
                end = from;
                break;
            }
            room -= new.len();
            self.allocated.extend(new);
            from = to;
        }
        let cache = Arc::make_mut(&mut self.cache);
        if cache.len() < end {
            cache.resize(end, 0);
            self.lengths.push(end);
        }
        cache[at..end].copy_from_slice(&bytes[..end - at]);
        for sector in at / SECTOR..end.div_ceil(SECTOR) {
            self.touch(sector);
        }
        end - at
    }

    pub(super) fn set_len(&mut self, new: usize) {
        let old = self.cache.len();
        Arc::make_mut(&mut self.cache).resize(new, 0);
        self.lengths.push(new);
        self.is_extended = new > old;
        if new < old {
            self.allocated.retain(|sector| sector * SECTOR < new);
            for sector in new / SECTOR..old.div_ceil(SECTOR) {
                self.touch(sector);
            }
        }
    }

    fn touch(&mut self, sector: usize) {
        let now = sector_of(&self.cache, sector);
        self.dirty.entry(sector).or_default().push(now);
        self.forgotten.remove(&sector);
    }

    /// Writes the dirty sectors to the platter; what a failed sync forgot remains forgotten.
    pub(super) fn sync(&mut self) {
        let length = self.cache.len();
        let platter = Arc::make_mut(&mut self.platter);
        platter.resize(length, 0);
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            let at = sector * SECTOR;
            let end = length.min(at + SECTOR);
            if at < end
                && let Some(last) = versions.last()
            {
                platter[at..end].copy_from_slice(&last[..end - at]);
            }
        }
        self.lengths.clear();
    }

    /// Fails a sync: marks the pages clean without writing them; the cache still shows them.
    pub(super) fn forget(&mut self, chance: &mut u64) {
        let end_of_file = self.cache.len();
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            if sector * SECTOR >= end_of_file {
                // The truncation of a file is not a page, and is not forgotten.
                self.dirty.insert(sector, versions);
                continue;
            }
            // The system may have written back some of it before, in the background.
            let at = sector * SECTOR;
            let end = self.platter.len().min(at + SECTOR);
            let way = random(chance) as usize % (versions.len() + 1);
            if at < end
                && let Some(written) = versions.get(way)
            {
                Arc::make_mut(&mut self.platter)[at..end].copy_from_slice(&written[..end - at]);
            }
            self.forgotten.insert(sector);
        }
    }

    /// Drops the clean pages of the cache; the next read finds what the platter holds.
    pub(super) fn evict(&mut self) {
        for sector in std::mem::take(&mut self.forgotten) {
            let at = sector * SECTOR;
            let end = self.cache.len().min(at + SECTOR);
            if at < end {
                let held = sector_of(&self.platter, sector);
                Arc::make_mut(&mut self.cache)[at..end].copy_from_slice(&held[..end - at]);
            }
        }
    }

    /// Restarts the machine with these bytes on the platter.
    pub(super) fn come_back_as(&mut self, left: Vec<u8>) {
        self.cache = Arc::new(left);
        self.platter = Arc::clone(&self.cache);
        self.dirty.clear();
        self.lengths.clear();
        self.forgotten.clear();
    }
}
