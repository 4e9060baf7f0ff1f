//! The state of a simulated disk: names and files, each as the running system sees it and as the platter
//! has it, and what goes wrong when.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::Fault;
use super::cut::random;
use crate::sync::thread;

pub(super) const SECTOR: usize = 512;
/// What is lost in a power cut is remembered so far, to show up where nothing was written yet.
const STALE_SECTORS_MAX: usize = 64;

pub(super) type Sector = [u8; SECTOR];

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) random: u64,
    pub(super) calls: u64,
    pub(super) syncs: u64,
    /// Syncs of file data wait until this is over.
    pub(super) held: bool,
    /// The names of the threads that have called.
    pub(super) callers: BTreeSet<String>,
    pub(super) faults: BTreeMap<u64, Fault>,
    pub(super) faults_fired: u64,
    pub(super) stopped: bool,
    pub(super) threads: bool,
    pub(super) capacity: u64,
    /// Space is given in pieces of so many bytes: sectors, or pages.
    pub(super) unit: usize,
    pub(super) files: BTreeMap<u64, Arc<File>>,
    pub(super) next_file: u64,
    /// How many have a file open, by its id.
    pub(super) handles: BTreeMap<u64, usize>,
    /// Names as the running system sees them; a directory has no file.
    pub(super) names: BTreeMap<String, Option<u64>>,
    /// Names that a power cut cannot take away.
    pub(super) durable_names: BTreeMap<String, Option<u64>>,
    /// The lock files that somebody holds.
    pub(super) locked: BTreeSet<String>,
    /// What lay somewhere on the platter once.
    pub(super) stale: Vec<Sector>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) cache: Arc<Vec<u8>>,
    pub(super) platter: Vec<u8>,
    /// What each sector was made to hold since the last sync, oldest first.
    pub(super) dirty: BTreeMap<usize, Vec<Sector>>,
    /// The lengths that it had since the last sync.
    pub(super) lengths: Vec<usize>,
    /// Sectors that a failed sync forgot: clean in the cache, and never written.
    pub(super) forgotten: BTreeSet<usize>,
    /// Sectors that take up space.
    allocated: BTreeSet<usize>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            calls: 0,
            syncs: 0,
            held: false,
            callers: BTreeSet::new(),
            faults: BTreeMap::new(),
            faults_fired: 0,
            stopped: false,
            threads: false,
            capacity: u64::MAX,
            unit: if seed.is_multiple_of(2) { SECTOR } else { 4096 },
            files: BTreeMap::new(),
            next_file: 1,
            handles: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            locked: BTreeSet::new(),
            stale: Vec::new(),
        }
    }

    /// Nothing is locked, nothing fails.
    pub(super) fn reset(&mut self) {
        self.locked.clear();
        self.handles.clear();
        self.stopped = false;
        self.held = false;
        self.faults.clear();
    }

    /// A new process: nothing is locked, nothing fails. What a failed sync forgot may have left the cache.
    pub(super) fn restart(&mut self) {
        self.reset();
        for file in self.files.values_mut().filter(|file| !file.forgotten.is_empty()) {
            if random(&mut self.random).is_multiple_of(2) {
                Arc::make_mut(file).evict();
            }
        }
    }

    /// Counts a call, and says what goes wrong with it.
    pub(super) fn call(&mut self) -> io::Result<Option<Fault>> {
        let fault = self.faults.get(&self.calls).copied();
        self.calls += 1;
        if self.threads {
            self.note_caller();
        }
        self.faults_fired += u64::from(fault.is_some());
        match fault {
            Some(Fault::Crash) => self.stopped = true,
            Some(Fault::Full) => self.capacity = self.used(),
            _ => {}
        }
        if self.stopped {
            return Err(io::Error::other("the simulated machine has stopped"));
        }
        Ok(fault)
    }

    fn note_caller(&mut self) {
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        if !self.callers.contains(name) {
            self.callers.insert(name.to_owned());
        }
    }

    /// A call that moves no bytes: it cannot be short, and the system tries it again if it is interrupted.
    pub(super) fn plain_call(&mut self) -> io::Result<()> {
        match self.call()? {
            None | Some(Fault::Interrupted | Fault::Short | Fault::Full) => Ok(()),
            Some(_) => Err(injected()),
        }
    }

    /// A call that takes up space by itself.
    pub(super) fn making_call(&mut self) -> io::Result<()> {
        match self.call()? {
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            None | Some(Fault::Interrupted | Fault::Short) => Ok(()),
            Some(_) => Err(injected()),
        }
    }

    fn used(&self) -> u64 {
        let sectors: usize = self.files.values().map(|file| file.allocated.len()).sum();
        (sectors * SECTOR) as u64
    }

    /// Sectors that can still be taken up.
    pub(super) fn room(&self) -> usize {
        (self.capacity.saturating_sub(self.used()) / SECTOR as u64) as usize
    }

    pub(super) fn new_file(&mut self, path: &str) -> u64 {
        let id = self.next_file;
        self.next_file += 1;
        self.files.insert(id, Arc::default());
        self.names.insert(path.into(), Some(id));
        id
    }

    pub(super) fn file(&mut self, id: u64) -> io::Result<&mut File> {
        self.files.get_mut(&id).map(Arc::make_mut).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Gives back the space of files that no name leads to any more. Their bytes stay where they lay.
    pub(super) fn free_unnamed(&mut self) {
        let named: BTreeSet<u64> = self.names.values().flatten().copied().collect();
        let gone: Vec<u64> = self.files.keys().filter(|id| !named.contains(id)).copied().collect();
        for id in gone {
            if let Some(file) = self.files.get_mut(&id) {
                Arc::make_mut(file).allocated.clear();
            }
        }
    }

    pub(super) fn keep_stale(&mut self, sectors: Vec<Sector>) {
        self.stale
            .extend(sectors.into_iter().filter(|sector| sector.iter().any(|byte| *byte != 0)));
        let excess = self.stale.len().saturating_sub(STALE_SECTORS_MAX);
        self.stale.drain(..excess);
    }
}

pub(super) fn injected() -> io::Error {
    io::Error::other("an injected failure")
}

/// What a sector of a file holds; behind its end, zeros.
pub(super) fn sector_of(bytes: &[u8], sector: usize) -> Sector {
    let mut held = [0; SECTOR];
    let at = sector * SECTOR;
    if let Some(bytes) = bytes.get(at..bytes.len().min(at + SECTOR)) {
        held[..bytes.len()].copy_from_slice(bytes);
    }
    held
}

impl File {
    /// Whether a power cut can leave it in more than one way, or otherwise than the system sees it.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.dirty.is_empty() || !self.lengths.is_empty() || !self.forgotten.is_empty()
    }

    /// Writes into the cache, as far as there is room for new sectors; how many bytes that were. Where there
    /// is too little for all of a unit none of it is written, not even over what is there.
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

    /// Only what is dirty goes down: what a failed sync forgot stays forgotten.
    pub(super) fn sync(&mut self) {
        let length = self.cache.len();
        self.platter.resize(length, 0);
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            let at = sector * SECTOR;
            let end = length.min(at + SECTOR);
            if let (Some(last), true) = (versions.last(), at < end) {
                self.platter[at..end].copy_from_slice(&last[..end - at]);
            }
        }
        self.lengths.clear();
    }

    /// A sync that failed: the pages are marked clean and were not written; the cache still shows them.
    pub(super) fn forget(&mut self, chance: &mut u64) {
        let end_of_file = self.cache.len();
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            if sector * SECTOR >= end_of_file {
                // That a file was cut is no page, and is not forgotten.
                self.dirty.insert(sector, versions);
                continue;
            }
            // Some of it the system may have written back before, in its own time.
            let at = sector * SECTOR;
            let end = self.platter.len().min(at + SECTOR);
            let way = random(chance) as usize % (versions.len() + 1);
            if let (Some(written), true) = (versions.get(way), at < end) {
                self.platter[at..end].copy_from_slice(&written[..end - at]);
            }
            self.forgotten.insert(sector);
        }
    }

    /// The cache lets go of clean pages; the next look finds what the platter has.
    fn evict(&mut self) {
        for sector in std::mem::take(&mut self.forgotten) {
            let at = sector * SECTOR;
            let end = self.cache.len().min(at + SECTOR);
            if at < end {
                let held = sector_of(&self.platter, sector);
                Arc::make_mut(&mut self.cache)[at..end].copy_from_slice(&held[..end - at]);
            }
        }
    }

    /// The machine is on again, and this is what the platter has.
    pub(super) fn come_back_as(&mut self, left: Vec<u8>) {
        self.cache = Arc::new(left.clone());
        self.platter = left;
        self.dirty.clear();
        self.lengths.clear();
        self.forgotten.clear();
    }
}
