//! State of a simulated disk: names and files, as the running system sees them and as the platter
//! holds them, and the injected faults.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Fault;
use super::cut::random;
use super::defect::{Defect, has_pattern};
use super::hazards::Hazards;
use super::names::keep_reachable;
use crate::sync::thread;
use crate::types::Timestamp;

pub(super) const SECTOR: usize = 512;
/// Maximum number of sectors lost in power cuts that are kept, to show up where nothing has been
/// written yet.
const STALE_SECTORS_MAX: usize = 64;

pub(super) type Sector = [u8; SECTOR];

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) random: u64,
    pub(super) calls: u64,
    pub(super) syncs: u64,
    pub(super) writes: u64,
    /// Set while syncs of file data must wait.
    pub(super) held: bool,
    /// Names of the threads that have made calls.
    pub(super) callers: BTreeSet<String>,
    pub(super) faults: BTreeMap<u64, Fault>,
    pub(super) faults_fired: u64,
    pub(super) defect: Option<Defect>,
    pub(super) stopped: bool,
    pub(super) threads: bool,
    /// Simulated clocks; `None` uses the system's.
    pub(super) time: Option<Time>,
    pub(super) capacity: u64,
    /// Error of a call that finds no space.
    pub(super) no_space: io::ErrorKind,
    /// Maximum length of a file.
    pub(super) file_bytes_max: u64,
    /// Unit of space allocation in bytes: a sector or a page.
    pub(super) unit: usize,
    pub(super) files: BTreeMap<u64, Arc<File>>,
    pub(super) next_file: u64,
    /// Number of open handles by file id.
    pub(super) handles: BTreeMap<u64, usize>,
    /// Names as the running system sees them; a directory has no file id.
    pub(super) names: BTreeMap<String, Option<u64>>,
    /// Names that survive a power cut.
    pub(super) durable_names: BTreeMap<String, Option<u64>>,
    /// Names changed since a sync of their directory last wrote or forgot them. Any other name that
    /// differs from the durable one was lost by a failed sync, and differs until it is changed
    /// again.
    pub(super) unsynced_names: BTreeSet<String>,
    /// Names that no sync makes durable, because of a defect.
    pub(super) lost_names: BTreeSet<String>,
    /// Current paths of the directories that open logs hold; `None` once removed.
    pub(super) roots: Vec<Option<String>>,
    /// Ids of locked files.
    pub(super) locked: BTreeSet<u64>,
    pub(super) hazards: Hazards,
    /// Former contents of the platter.
    pub(super) stale: Vec<Sector>,
}

/// Clocks of the simulated machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    pub(super) now: Timestamp,
    pub(super) uptime: Duration,
}

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
    allocated: BTreeSet<usize>,
    /// True if the file was extended since the last sync.
    is_extended: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            calls: 0,
            syncs: 0,
            writes: 0,
            held: false,
            callers: BTreeSet::new(),
            faults: BTreeMap::new(),
            faults_fired: 0,
            defect: None,
            stopped: false,
            threads: false,
            time: None,
            capacity: u64::MAX,
            no_space: io::ErrorKind::StorageFull,
            file_bytes_max: u64::MAX,
            unit: if seed.is_multiple_of(2) { SECTOR } else { 4096 },
            files: BTreeMap::new(),
            next_file: 1,
            handles: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: BTreeSet::new(),
            lost_names: BTreeSet::new(),
            roots: Vec::new(),
            locked: BTreeSet::new(),
            hazards: Hazards::default(),
            stale: Vec::new(),
        }
    }

    /// Releases all locks and handles, and removes all faults.
    pub(super) fn reset(&mut self) {
        self.locked.clear();
        self.handles.clear();
        self.stopped = false;
        self.held = false;
        self.faults.clear();
    }

    /// Starts a new process: nothing is locked, nothing fails. The cache may have dropped what a
    /// failed sync forgot.
    pub(super) fn restart(&mut self) {
        self.reset();
        let is_lost = |name: &&String| {
            !self.unsynced_names.contains(*name)
                && self.names.get(*name) != self.durable_names.get(*name)
        };
        let all = self.names.keys().chain(self.durable_names.keys());
        let lost: BTreeSet<String> = all.filter(is_lost).cloned().collect();
        if !lost.is_empty() && random(&mut self.random).is_multiple_of(2) {
            for name in lost {
                match self.durable_names.get(&name) {
                    Some(file) => self.names.insert(name, *file),
                    None => self.names.remove(&name),
                };
            }
            keep_reachable(&mut self.names);
        }
        for file in self.files.values_mut().filter(|file| !file.forgotten.is_empty()) {
            if random(&mut self.random).is_multiple_of(2) {
                Arc::make_mut(file).evict();
            }
        }
    }

    /// Returns true if the file has a name of this pattern.
    pub(super) fn is_named_like(&self, id: u64, pattern: &str) -> bool {
        self.names.iter().any(|(name, file)| *file == Some(id) && has_pattern(name, pattern))
    }

    /// Syncs a file, unless the disk has a defect that prevents it.
    pub(super) fn sync(&mut self, id: u64) -> io::Result<()> {
        let defect = self.defect;
        let is_named = matches!(defect, Some(Defect::UnsyncedBytes(pattern)) if self.is_named_like(id, pattern));
        let file = self.file_mut(id)?;
        let is_extended = std::mem::take(&mut file.is_extended);
        let is_omitted = match defect {
            Some(Defect::UnsyncedLength) => is_extended,
            _ => is_named,
        };
        if !is_omitted {
            file.sync();
        }
        Ok(())
    }

    /// Counts a call and returns its fault.
    pub(super) fn call(&mut self) -> io::Result<Option<Fault>> {
        self.shrink_at(self.calls);
        let fault = self.faults.get(&self.calls).copied();
        self.calls += 1;
        if self.threads {
            self.note_caller();
        }
        self.faults_fired += u64::from(fault.is_some());
        if fault == Some(Fault::Crash) {
            self.stopped = true;
        }
        if let Some(no_space) = fault.and_then(Fault::no_space) {
            self.capacity = self.used();
            self.no_space = no_space;
        }
        self.check_running()?;
        Ok(fault)
    }

    /// Fails once the machine has stopped.
    pub(super) fn check_running(&self) -> io::Result<()> {
        if self.stopped {
            Err(io::Error::other("the simulated machine has stopped"))
        } else {
            Ok(())
        }
    }

    fn note_caller(&mut self) {
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        if !self.callers.contains(name) {
            self.callers.insert(name.to_owned());
        }
    }

    /// Makes a call that transfers no bytes: it cannot be short, and the system retries it if it is
    /// interrupted.
    pub(super) fn plain_call(&mut self) -> io::Result<()> {
        match self.call()? {
            None | Some(Fault::Interrupted | Fault::Short) => Ok(()),
            Some(fault) if fault.no_space().is_some() => Ok(()),
            Some(_) => Err(injected()),
        }
    }

    /// Makes a call that occupies space by itself.
    pub(super) fn making_call(&mut self) -> io::Result<()> {
        match self.call()? {
            None | Some(Fault::Interrupted | Fault::Short) => Ok(()),
            Some(fault) => Err(fault.no_space().map_or_else(injected, io::Error::from)),
        }
    }

    /// Fails if a file of this length would exceed the limit.
    pub(super) fn check_length(&self, bytes: u64) -> io::Result<()> {
        let fits = bytes <= self.file_bytes_max;
        if fits { Ok(()) } else { Err(io::ErrorKind::FileTooLarge.into()) }
    }

    fn used(&self) -> u64 {
        let sectors: usize = self.files.values().map(|file| file.allocated.len()).sum();
        (sectors * SECTOR) as u64
    }

    /// Number of free sectors.
    pub(super) fn room(&self) -> usize {
        (self.capacity.saturating_sub(self.used()) / SECTOR as u64) as usize
    }

    pub(super) fn new_file(&mut self, path: &str) -> u64 {
        let id = self.next_file;
        self.next_file += 1;
        self.files.insert(id, Arc::default());
        self.set_name(path, Some(Some(id)));
        id
    }

    pub(super) fn file(&self, id: u64) -> io::Result<&File> {
        self.files.get(&id).map(Arc::as_ref).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Returns a file for changes; copies of the disk keep theirs.
    pub(super) fn file_mut(&mut self, id: u64) -> io::Result<&mut File> {
        self.files.get_mut(&id).map(Arc::make_mut).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Frees the space of files without a name. Their bytes stay on the platter.
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
    io::Error::other("injected failure")
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

    /// Restarts the machine with these bytes on the platter.
    pub(super) fn come_back_as(&mut self, left: Vec<u8>) {
        self.cache = Arc::new(left);
        self.platter = Arc::clone(&self.cache);
        self.dirty.clear();
        self.lengths.clear();
        self.forgotten.clear();
    }
}
