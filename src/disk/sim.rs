//! The disk that is not there: a page cache apart from a platter, and every liberty that a real one takes.
//!
//! What was not synced may survive a power cut in any subset of 512-byte sectors and in any version that
//! was written since; lengths and names survive apart from data. Failures are injected by the number of the
//! call. Everything random comes from one seed. It keeps no promise that `docs/format.md` does not assume.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::sync::{Arc, PoisonError};

use super::{Disk, DiskFile, Lock, Pin};
use crate::sync::{Mutex, MutexGuard};

const SECTOR: usize = 512;

/// A simulated disk that holds one log. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<World>>);

/// What goes wrong at a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The call fails; a write may have written a part.
    Io,
    /// A sync fails and what it should have written is forgotten: later syncs succeed without it.
    LostSync,
    /// The machine stops here: this call and all later ones fail and change nothing.
    Crash,
}

#[derive(Clone, Debug)]
struct World {
    random: u64,
    calls: u64,
    fault: Option<(u64, Fault)>,
    stopped: bool,
    capacity: u64,
    files: BTreeMap<u64, File>,
    next_file: u64,
    /// Names as the running system sees them; a directory has no file.
    names: BTreeMap<String, Option<u64>>,
    /// Names that a power cut cannot take away.
    durable_names: BTreeMap<String, Option<u64>>,
    locked: bool,
}

#[derive(Clone, Debug, Default)]
struct File {
    cache: Vec<u8>,
    platter: Vec<u8>,
    /// What each sector held since the last sync, oldest first.
    dirty: BTreeMap<usize, Vec<[u8; SECTOR]>>,
    /// Sectors that take up space.
    allocated: BTreeSet<usize>,
}

impl SimDisk {
    /// An empty disk. The seed decides what survives power cuts.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            calls: 0,
            fault: None,
            stopped: false,
            capacity: u64::MAX,
            files: BTreeMap::new(),
            next_file: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            locked: false,
        })))
    }

    /// Calls so far: the number that the next one has.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.world().calls
    }

    /// Lets the call of this number go wrong.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.world().fault = Some((call, fault));
    }

    /// How many bytes of file data the disk can hold.
    pub fn set_capacity(&self, bytes: u64) {
        self.world().capacity = bytes;
    }

    /// The disk as a new process finds it after this one was killed: everything that was written is
    /// there, the lock is free.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let mut world = self.world().clone();
        world.restart();
        Self(Arc::new(Mutex::new(world)))
    }

    /// The disk as it comes back after a power cut: what was synced is there, and of the rest what chance
    /// left. Another seed, another chance.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut world = self.world().clone();
        world.restart();
        world.random ^= seed.wrapping_mul(0xD134_2543_DE82_EF95) | 1;
        world.power_cut();
        Self(Arc::new(Mutex::new(world)))
    }

    /// A hash of everything that is on the disk, to count distinct states.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let world = self.world();
        let mut hash = 0xCBF2_9CE4_8422_2325_u64;
        let mut mix = |bytes: &[u8]| {
            hash = hash.rotate_left(5).wrapping_mul(0x0100_0000_01B3)
                ^ u64::from(crc32fast::hash(bytes));
        };
        for (name, file) in &world.names {
            mix(name.as_bytes());
            if let Some(file) = file.and_then(|id| world.files.get(&id)) {
                mix(&file.cache);
            }
        }
        hash
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    fn chance(&mut self) -> u64 {
        // xorshift64*, Vigna 2016.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33
    }

    fn restart(&mut self) {
        self.locked = false;
        self.stopped = false;
        self.fault = None;
    }

    /// Counts a call, and says what goes wrong with it.
    fn call(&mut self) -> io::Result<Option<Fault>> {
        let number = self.calls;
        self.calls += 1;
        let fault = self.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
        if fault == Some(Fault::Crash) {
            self.stopped = true;
        }
        if self.stopped {
            return Err(io::Error::other("the simulated machine has stopped"));
        }
        Ok(fault)
    }

    fn plain_call(&mut self) -> io::Result<()> {
        match self.call()? {
            None => Ok(()),
            Some(_) => Err(io::Error::other("an injected failure")),
        }
    }

    fn used(&self) -> u64 {
        let sectors: usize = self.files.values().map(|file| file.allocated.len()).sum();
        (sectors * SECTOR) as u64
    }

    fn power_cut(&mut self) {
        let mut names = self.durable_names.clone();
        let changed: BTreeSet<String> =
            self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        for name in changed {
            let now = self.names.get(&name).copied();
            if now != names.get(&name).copied() && self.chance().is_multiple_of(2) {
                match now {
                    Some(file) => names.insert(name, file),
                    None => names.remove(&name),
                };
            }
        }
        // A name in a directory that is gone is gone too.
        let dirs: BTreeSet<String> =
            names.iter().filter(|(_, file)| file.is_none()).map(|(name, _)| name.clone()).collect();
        names.retain(|name, _| match name.rsplit_once('/') {
            Some((dir, _)) => dirs.contains(dir),
            None => name.is_empty() || dirs.contains(""),
        });
        let ids: Vec<u64> = self.files.keys().copied().collect();
        for id in ids {
            let Some(mut file) = self.files.remove(&id) else { continue };
            self.settle(&mut file);
            self.files.insert(id, file);
        }
        self.names.clone_from(&names);
        self.durable_names = names;
    }

    /// Decides what a power cut leaves of a file.
    fn settle(&mut self, file: &mut File) {
        let (old, new) = (file.platter.len(), file.cache.len());
        let length = if self.chance().is_multiple_of(2) { old } else { new };
        let mut left = file.platter.clone();
        left.resize(old.max(new), 0);
        let all = self.chance() % 8;
        for (sector, versions) in &file.dirty {
            let survives = match all {
                0 => true,
                1 => false,
                _ => self.chance().is_multiple_of(2),
            };
            if survives {
                let which = if self.chance().is_multiple_of(4) {
                    self.chance() as usize % versions.len()
                } else {
                    versions.len() - 1
                };
                let at = sector * SECTOR;
                let end = left.len().min(at + SECTOR);
                if at < end {
                    left[at..end].copy_from_slice(&versions[which][..end - at]);
                }
            }
        }
        left.truncate(length);
        file.cache.clone_from(&left);
        file.platter = left;
        file.dirty.clear();
    }

    fn file(&mut self, id: u64) -> io::Result<&mut File> {
        self.files.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl File {
    fn touch(&mut self, sector: usize) {
        let mut now = [0; SECTOR];
        let at = sector * SECTOR;
        if let Some(bytes) = self.cache.get(at..self.cache.len().min(at + SECTOR)) {
            now[..bytes.len()].copy_from_slice(bytes);
        }
        self.dirty.entry(sector).or_default().push(now);
    }
}

impl Disk for SimDisk {
    fn create_root(&self) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        world.names.insert(String::new(), None);
        world.durable_names.insert(String::new(), None);
        Ok(())
    }

    fn root_exists(&self) -> io::Result<bool> {
        Ok(self.world().names.contains_key(""))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        world.names.entry(path.into()).or_insert(None);
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<OsString>> {
        let mut world = self.world();
        world.plain_call()?;
        if !world.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = |name: &&String| {
            let (dir, last) = name.rsplit_once('/').unwrap_or(("", name));
            dir == path && !last.is_empty()
        };
        let last = |name: &String| OsString::from(name.rsplit('/').next().unwrap_or_default());
        Ok(world.names.keys().filter(inside).map(last).collect())
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        world.plain_call()?;
        if world.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = world.next_file;
        world.next_file += 1;
        world.files.insert(id, File::default());
        world.names.insert(path.into(), Some(id));
        Ok(Arc::new(SimFile { disk: self.clone(), id }))
    }

    fn open_read(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        world.plain_call()?;
        match world.names.get(path) {
            Some(Some(id)) => Ok(Arc::new(SimFile { disk: self.clone(), id: *id })),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn open_write(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_read(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        if world.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = world.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        world.names.insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        world.names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        let inside = |name: &String| name.rsplit_once('/').map_or("", |(dir, _)| dir) == path;
        let now: Vec<_> = world
            .names
            .iter()
            .filter(|(name, _)| inside(name))
            .map(|(name, file)| (name.clone(), *file))
            .collect();
        world.durable_names.retain(|name, _| !inside(name) || name.is_empty());
        world.durable_names.extend(now);
        Ok(())
    }

    fn lock(&self, path: &str) -> io::Result<Lock> {
        let mut world = self.world();
        world.plain_call()?;
        if !world.names.contains_key("") {
            return Err(io::ErrorKind::NotFound.into());
        }
        if world.locked {
            return Ok(Lock::Busy(None));
        }
        world.locked = true;
        if !world.names.contains_key(path) {
            let id = world.next_file;
            world.next_file += 1;
            world.files.insert(id, File::default());
            world.names.insert(path.into(), Some(id));
        }
        Ok(Lock::Held(Box::new(SimLock(self.clone()))))
    }

    /// Only where the threads, too, are simulated and repeatable.
    fn allows_threads(&self) -> bool {
        cfg!(amberlog_shuttle)
    }
}

struct SimLock(SimDisk);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.world().locked = false;
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: u64,
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut world = self.disk.world();
        world.plain_call()?;
        Ok(world.file(self.id)?.cache.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.disk.world();
        world.plain_call()?;
        let cache = &world.file(self.id)?.cache;
        let start = cache.len().min(offset as usize);
        let end = cache.len().min(start + bytes.len());
        bytes[..end - start].copy_from_slice(&cache[start..end]);
        Ok(end - start)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut world = self.disk.world();
        let fault = world.call()?;
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        if fault.is_some() {
            // A part may have been written, or even all.
            let part = world.chance() as usize % (bytes.len() + 1);
            let all = world.chance().is_multiple_of(4);
            bytes.truncate(if all { bytes.len() } else { part });
        }
        let room = world.capacity.saturating_sub(world.used()) as usize / SECTOR;
        let file = world.file(self.id)?;
        let at = offset as usize;
        let mut taken = 0;
        let mut end = at + bytes.len();
        for sector in at / SECTOR..end.div_ceil(SECTOR) {
            if !file.allocated.contains(&sector) {
                if taken == room {
                    end = end.min(sector * SECTOR).max(at);
                    break;
                }
                taken += 1;
                file.allocated.insert(sector);
            }
        }
        if end == at && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if file.cache.len() < end {
            file.cache.resize(end, 0);
        }
        file.cache[at..end].copy_from_slice(&bytes[..end - at]);
        for sector in at / SECTOR..end.div_ceil(SECTOR) {
            file.touch(sector);
        }
        match fault {
            Some(_) => Err(io::Error::other("an injected failure")),
            None => Ok(end - at),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.plain_call()?;
        let file = world.file(self.id)?;
        let (old, new) = (file.cache.len(), bytes as usize);
        file.cache.resize(new, 0);
        if new < old {
            file.allocated.retain(|sector| sector * SECTOR < new);
            for sector in new / SECTOR..old.div_ceil(SECTOR) {
                file.touch(sector);
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        let fault = world.call()?;
        let file = world.file(self.id)?;
        match fault {
            Some(Fault::LostSync) => {
                // The pages are marked clean and never written; the cache still shows them.
                file.dirty.clear();
                Err(io::Error::other("an injected sync failure"))
            }
            Some(_) => Err(io::Error::other("an injected failure")),
            None => {
                // Only what is dirty goes down: what a failed sync forgot stays forgotten.
                let length = file.cache.len();
                file.platter.resize(length, 0);
                for (sector, versions) in std::mem::take(&mut file.dirty) {
                    let at = sector * SECTOR;
                    let end = length.min(at + SECTOR);
                    if let (Some(last), true) = (versions.last(), at < end) {
                        file.platter[at..end].copy_from_slice(&last[..end - at]);
                    }
                }
                Ok(())
            }
        }
    }

    fn map(&self) -> io::Result<Pin> {
        let mut world = self.disk.world();
        world.plain_call()?;
        Ok(Arc::new(world.file(self.id)?.cache.clone()))
    }
}
