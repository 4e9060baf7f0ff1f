//! State of a simulated disk: names and files, and the injected faults.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::bytes::{File, SECTOR, Sector};
use super::chance::random;
use super::defect::Defect;
use super::fault::Fault;
use super::hazards::Hazards;
use super::names::SimNames;
use crate::sync::{Mutex, thread};
use crate::types::Timestamp;

/// Maximum number of sectors lost in power cuts that are kept, to show up where nothing has been
/// written yet.
const STALE_SECTORS_MAX: usize = 64;

/// State that all handles of a disk share.
pub(super) type SharedWorld = Arc<Mutex<World>>;

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
    pub(super) names: SimNames,
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
            names: SimNames::default(),
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
        let forgotten = self.names.forgotten();
        if !forgotten.is_empty() && random(&mut self.random).is_multiple_of(2) {
            self.names.evict(forgotten);
        }
        for file in self.files.values_mut().filter(|file| !file.forgotten.is_empty()) {
            if random(&mut self.random).is_multiple_of(2) {
                Arc::make_mut(file).evict();
            }
        }
    }

    /// Writes bytes to a file, and returns how many.
    pub(super) fn write(&mut self, id: u64, bytes: &[u8], at: usize) -> io::Result<usize> {
        let (room, unit, defect) = (self.room(), self.unit, self.defect);
        let file = self.file_mut(id)?;
        if defect == Some(Defect::SkippedRewrites)
            && file.cache[at.min(file.cache.len())..].starts_with(bytes)
        {
            return Ok(bytes.len());
        }
        Ok(file.write(bytes, at, room, unit))
    }

    /// Syncs a file, unless the disk has a defect that prevents it.
    pub(super) fn sync(&mut self, id: u64) -> io::Result<()> {
        let defect = self.defect;
        let is_named = matches!(defect, Some(Defect::UnsyncedBytes(pattern)) if self.names.has_like(id, pattern));
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

    /// Fails a sync of a directory, or ends a process: the names are not written, and with a defect
    /// never will be.
    pub(super) fn lose_names(&mut self, which: impl Fn(&str) -> bool) {
        if let Some(Defect::LostNames(pattern)) = self.defect {
            self.names.lose(pattern, which);
        }
    }

    /// Returns the pattern of the names that syncs of directories leave out.
    pub(super) fn omitted_names(&self) -> Option<&'static str> {
        match self.defect {
            Some(Defect::UnsyncedNames(pattern)) => Some(pattern),
            _ => None,
        }
    }

    /// Shortens the file that is due before this call.
    fn shrink_at(&mut self, call: u64) {
        let Some((name, bytes)) = self.hazards.shrinks.remove(&call) else { return };
        let Some(Some(id)) = self.names.get(&name) else { return };
        if let Ok(file) = self.file_mut(id)
            && file.cache.len() as u64 > bytes
        {
            file.set_len(bytes as usize);
            file.sync();
        }
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
        self.names.set(path, Some(Some(id)));
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
        let named: BTreeSet<u64> = self.names.current.values().flatten().copied().collect();
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
