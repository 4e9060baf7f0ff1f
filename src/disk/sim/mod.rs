//! The disk that is not there: a page cache apart from a platter, and every liberty that a real one takes.
//!
//! What was not synced may survive a power cut in any subset of 512-byte sectors and in any version that
//! was written since; lengths and names survive apart from data, and where a length survived alone, old bytes
//! may show. Failures are injected by the number of the call. Everything random comes from one seed. It keeps
//! no promise that `docs/format.md` does not assume.

mod cut;
mod world;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use self::cut::{Choice, random};
use self::world::{World, injected};
use super::{Disk, DiskFile, Lock, Pin, Pinned};
use crate::sabotage::{Sabotage, broken};
use crate::sync::{Mutex, MutexGuard, rest};

/// A simulated disk that holds a log, and others in directories beside it. Clones are the same disk.
///
/// With it a program's own tests can fail its log at any call, cut the power, and open what is left:
///
/// ```
/// # fn main() -> amberlog::Result<()> {
/// use amberlog::{Log, SimDisk};
///
/// let disk = SimDisk::new(1);
/// let log = Log::options().open_on(&disk)?;
/// let mut stream = log.stream()?;
/// stream.append(b"acknowledged").expect("there is room");
/// stream.commit().wait()?;
/// stream.append(b"not committed").expect("there is room");
///
/// let later = disk.after_power_cut(7);
/// let log = Log::options().open_on(&later)?;
/// assert_eq!(log.snapshot().events(stream.id())?.count(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
    /// The log's directory; the first one has no name.
    root: String,
}

/// What goes wrong at a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The call fails; a write may have written a part, or all.
    Io,
    /// A write or a sync does everything, and says that it failed. Any other call merely fails.
    DoneAndFailed,
    /// A sync fails and what it should have written is forgotten: the cache may go on showing it, and later
    /// syncs succeed without it (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
    /// Any other call merely fails.
    LostSync,
    /// The machine stops here: this call and all later ones fail and change nothing.
    Crash,
    /// A read or a write is interrupted before it did anything, and has to be made again.
    Interrupted,
    /// A read or a write does only a part.
    Short,
    /// The disk is full from here on, until [`SimDisk::set_capacity`] says otherwise.
    Full,
}

impl SimDisk {
    /// An empty disk. The seed decides what survives power cuts.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { world: Arc::new(Mutex::new(World::new(seed))), root: String::new() }
    }

    fn with(&self, world: World) -> Self {
        Self { world: Arc::new(Mutex::new(world)), root: self.root.clone() }
    }

    /// Another directory on this disk, for a backup, say: the same calls, faults and power cuts.
    #[must_use]
    pub fn dir(&self, name: &str) -> Self {
        Self { world: Arc::clone(&self.world), root: self.at(name) }
    }

    /// A path of this log, as the disk knows it.
    fn at(&self, path: &str) -> String {
        match (self.root.as_str(), path) {
            ("", path) => path.into(),
            (root, "") => root.into(),
            (root, path) => format!("{root}/{path}"),
        }
    }

    /// Calls so far: the number that the next one has.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.world().calls
    }

    /// Syncs of file data so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.world().syncs
    }

    /// Lets syncs of file data wait from now on, or go on. Only where the log may use threads of its own
    /// ([`SimDisk::allow_threads`]): without them whoever waits could let nobody go on.
    pub fn hold_syncs(&self, held: bool) {
        let mut world = self.world();
        world.held = held && world.threads;
    }

    /// The names of all threads that have used the disk since the log may use threads of its own.
    #[must_use]
    pub fn callers(&self) -> Vec<String> {
        self.world().callers.iter().cloned().collect()
    }

    /// Lets the call of this number go wrong. Several calls may.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.world().faults.insert(call, fault);
    }

    /// Lets nothing go wrong any more. A machine that has stopped stays so.
    pub fn forget_faults(&self) {
        self.world().faults.clear();
    }

    /// How many calls have gone wrong so far.
    #[must_use]
    pub fn faults_fired(&self) -> u64 {
        self.world().faults_fired
    }

    /// How many bytes of file data the disk can hold.
    pub fn set_capacity(&self, bytes: u64) {
        self.world().capacity = bytes;
    }

    /// How many bytes of file data the disk can hold; [`u64::MAX`] unless it was said, or made full.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.world().capacity
    }

    /// Writes back everything that is not synced, as a system does in its own time: a power cut can take none of
    /// it any more, but for what a failed sync has forgotten.
    pub fn write_back(&self) {
        let mut world = self.world();
        world.durable_names = world.names.clone();
        let files: Vec<u64> = world.files.keys().copied().collect();
        for id in files {
            if let Ok(file) = world.file(id) {
                file.sync();
            }
        }
    }

    /// Lets the log use threads of its own on this disk, as it does on a real one. Then the numbers of calls
    /// depend on the scheduler. Without this everything happens on the threads that call.
    pub fn allow_threads(&self) {
        self.world().threads = true;
    }

    /// A copy of the disk as any process sees it now. What goes wrong with one does not go wrong with the other,
    /// and the lock is free.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut world = self.world().clone();
        world.reset();
        self.with(world)
    }

    /// The disk as a new process finds it after this one was killed: everything that was written is
    /// there, the lock is free.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let mut world = self.world().clone();
        world.restart();
        self.with(world)
    }

    /// The disk as it comes back after a power cut: what was synced is there, and of the rest what chance
    /// left. Another seed, another chance.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut world = self.world().clone();
        world.restart();
        world.random ^= seed.wrapping_mul(0xD134_2543_DE82_EF95) | 1;
        let mut chance = random(&mut world.random) | 1;
        world.power_cut(&mut Choice::by_chance(&mut chance));
        self.with(world)
    }

    /// In how many ways a power cut could leave this disk now. Some of them are the same.
    #[must_use]
    pub fn power_cuts(&self) -> u128 {
        let mut world = self.world().clone();
        let mut choice = Choice::Count(1);
        world.power_cut(&mut choice);
        match choice {
            Choice::Count(ways) => ways,
            _ => 0,
        }
    }

    /// One of the ways in which a power cut could leave this disk, by its number below
    /// [`SimDisk::power_cuts`]: with all of them nothing is left to chance.
    #[must_use]
    pub fn power_cut(&self, number: u128) -> Self {
        let mut world = self.world().clone();
        world.restart();
        world.power_cut(&mut Choice::Nth(number));
        self.with(world)
    }

    /// A hash of everything that is on the disk, to count distinct states. (No CRC: what ends with its own
    /// checksum has the same one, whatever it says.)
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let world = self.world();
        let mut hash = DefaultHasher::new();
        for (name, file) in &world.names {
            name.hash(&mut hash);
            if let Some(file) = file.and_then(|id| world.files.get(&id)) {
                file.cache.hash(&mut hash);
            }
        }
        hash.finish()
    }

    fn opened(&self, world: &mut World, id: u64) -> SimFile {
        *world.handles.entry(id).or_default() += 1;
        SimFile { disk: self.clone(), id }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimDisk {
    fn create_root(&self) -> io::Result<()> {
        let mut world = self.world();
        world.making_call()?;
        let above = self.root.match_indices('/').map(|(at, _)| &self.root[..at]);
        for dir in above.chain(["", &self.root]) {
            world.names.insert(dir.into(), None);
            world.durable_names.insert(dir.into(), None);
        }
        Ok(())
    }

    fn root_exists(&self) -> io::Result<bool> {
        Ok(self.world().names.contains_key(&self.root))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        world.making_call()?;
        world.names.entry(self.at(path)).or_insert(None);
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<OsString>> {
        let mut world = self.world();
        world.plain_call()?;
        let path = self.at(path);
        if !world.names.contains_key(&path) {
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
        world.making_call()?;
        let path = self.at(path);
        if world.names.contains_key(&path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = world.new_file(&path);
        Ok(Arc::new(self.opened(&mut world, id)))
    }

    fn open_read(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        world.plain_call()?;
        match world.names.get(&self.at(path)).copied() {
            Some(Some(id)) => Ok(Arc::new(self.opened(&mut world, id))),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn open_write(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_read(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        let to = self.at(to);
        if world.names.contains_key(&to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = world.names.remove(&self.at(from)).ok_or(io::ErrorKind::NotFound)?;
        world.names.insert(to, file);
        Ok(())
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        let file = world.names.remove(&self.at(from)).ok_or(io::ErrorKind::NotFound)?;
        world.names.insert(self.at(to), file);
        world.free_unnamed();
        Ok(())
    }

    fn beside(&self, root: &Path) -> Arc<dyn Disk> {
        Arc::new(Self { world: Arc::clone(&self.world), root: root.to_string_lossy().into() })
    }

    fn share(&self, from: &str, root: &Path, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.making_call()?;
        let to = format!("{}/{to}", root.display());
        if world.names.contains_key(&to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = *world.names.get(&self.at(from)).ok_or(io::ErrorKind::NotFound)?;
        world.names.insert(to, file);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        world.names.remove(&self.at(path)).ok_or(io::ErrorKind::NotFound)?;
        world.free_unnamed();
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        let path = self.at(path);
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
        world.making_call()?;
        if !world.names.contains_key(&self.root) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let path = self.at(path);
        if world.locked.contains(&path) && !broken(Sabotage::ShareLock) {
            return Ok(Lock::Busy(None));
        }
        world.locked.insert(path.clone());
        if !world.names.contains_key(&path) {
            world.new_file(&path);
        }
        Ok(Lock::Held(Box::new(SimLock(self.clone(), path))))
    }

    fn allows_threads(&self) -> bool {
        self.world().threads
    }
}

struct SimLock(SimDisk, String);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.world().locked.remove(&self.1);
    }
}

/// A file that somebody has open.
#[derive(Debug)]
pub(crate) struct SimFile {
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
        let most = match world.call()? {
            Some(Fault::Interrupted) => return Err(io::ErrorKind::Interrupted.into()),
            Some(Fault::Short) => bytes.len().div_ceil(2),
            Some(Fault::Io | Fault::LostSync | Fault::DoneAndFailed) => return Err(injected()),
            _ => bytes.len(),
        };
        let cache = &world.file(self.id)?.cache;
        let start = cache.len().min(offset as usize);
        let end = cache.len().min(start + most);
        bytes[..end - start].copy_from_slice(&cache[start..end]);
        Ok(end - start)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut world = self.disk.world();
        let fault = world.call()?;
        let mut bytes = slices.iter().map(|slice| &**slice).collect::<Vec<&[u8]>>().concat();
        match fault {
            Some(Fault::Interrupted) => return Err(io::ErrorKind::Interrupted.into()),
            Some(Fault::Short) => bytes.truncate(bytes.len().div_ceil(2)),
            Some(Fault::Io | Fault::LostSync) => {
                // A part may have been written, or even all.
                let part = random(&mut world.random) as usize % (bytes.len() + 1);
                let all = random(&mut world.random).is_multiple_of(2);
                bytes.truncate(if all { bytes.len() } else { part });
            }
            _ => {}
        }
        let (room, unit) = (world.room(), world.unit);
        let written = world.file(self.id)?.write(&bytes, offset as usize, room, unit);
        match fault {
            Some(Fault::Io | Fault::LostSync | Fault::DoneAndFailed) => Err(injected()),
            _ if written == 0 && !bytes.is_empty() => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(written),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.plain_call()?;
        world.file(self.id)?.set_len(bytes as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        while world.held {
            drop(world);
            rest(Duration::from_millis(1));
            world = self.disk.world();
        }
        let fault = world.call()?;
        world.syncs += 1;
        // Drawn only where it is needed: what a seed does elsewhere stays the same.
        let forgets = fault == Some(Fault::LostSync);
        let mut chance = if forgets { random(&mut world.random) | 1 } else { 1 };
        let file = world.file(self.id)?;
        match fault {
            Some(Fault::LostSync) => {
                file.forget(&mut chance);
                Err(injected())
            }
            Some(Fault::Io) => Err(injected()),
            Some(Fault::DoneAndFailed) => {
                file.sync();
                Err(injected())
            }
            _ => {
                file.sync();
                Ok(())
            }
        }
    }

    fn map(&self) -> io::Result<Pin> {
        let mut world = self.disk.world();
        world.plain_call()?;
        let bytes = Arc::clone(&world.file(self.id)?.cache);
        let _open = Box::new(self.disk.opened(&mut world, self.id));
        Ok(Arc::new(Pinned::Simulated { bytes, _open }))
    }

    fn is_forsaken(&self) -> bool {
        let world = self.disk.world();
        let is_nameless = !world.names.values().any(|id| *id == Some(self.id));
        is_nameless && world.handles.get(&self.id) == Some(&1)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Some(handles) = self.disk.world().handles.get_mut(&self.id) {
            *handles -= 1;
        }
    }
}

/// The disk as bytes, for whoever damages a log by hand. Calls are not counted.
impl SimDisk {
    /// Every file: its path in the log's directory, with `/` between its parts, and its bytes.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let world = self.world();
        let file = |id: &Option<u64>| Some(world.files.get(&(*id)?)?.cache.as_ref().clone());
        let inside = |name: &str| match self.root.as_str() {
            "" => Some(name.to_owned()),
            root => Some(name.strip_prefix(root)?.strip_prefix('/')?.to_owned()),
        };
        world.names.iter().filter_map(|(name, id)| Some((inside(name)?, file(id)?))).collect()
    }

    /// Puts a file there, as if it had always been: its directories, its name and its bytes are durable.
    pub fn write_file(&self, path: &str, bytes: &[u8]) {
        let mut world = self.world();
        let path = self.at(path);
        let dirs = path.match_indices('/').map(|(at, _)| path[..at].to_owned());
        for dir in std::iter::once(String::new()).chain(dirs) {
            world.names.insert(dir.clone(), None);
            world.durable_names.insert(dir, None);
        }
        let id = world.new_file(&path);
        world.durable_names.insert(path, Some(id));
        if let Ok(file) = world.file(id) {
            file.write(bytes, 0, usize::MAX, world::SECTOR);
            file.sync();
        }
    }

    /// Takes a file away, for good.
    pub fn remove_file(&self, path: &str) {
        let mut world = self.world();
        world.names.remove(&self.at(path));
        world.durable_names.remove(&self.at(path));
    }
}
