//! Simulated disk: a page cache separate from a platter, with every liberty that a real disk takes.
//!
//! Unsynced data may survive a power cut in any subset of 512-byte sectors, and in any version
//! written since the last sync. Lengths and names survive independently of data; where only a
//! length survived, old bytes may show. Failures are injected by call number. All randomness comes
//! from one seed. The disk keeps no promise that `docs/format.md` does not assume.

mod cut;
mod defect;
mod fault;
mod file;
mod hazards;
mod names;
mod world;

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;

use self::cut::{Choice, random};
pub use self::defect::Defect;
use self::defect::has_pattern;
pub use self::fault::Fault;
pub(super) use self::file::SimFile;
use self::world::{Time, World, injected};
use super::{Disk, DiskFile, Identity};
use crate::sync::{Mutex, MutexGuard};
use crate::types::Timestamp;

/// Simulated disk that holds a log, and others in sibling directories. Clones share the same disk.
///
/// A program's own tests can use it to fail a log at any call, cut the power, and open the rest:
///
/// ```
/// # fn main() -> amberlog::Result<()> {
/// use amberlog::Log;
/// use amberlog::sim::SimDisk;
///
/// let disk = SimDisk::new(1);
/// let log = Log::options().open_on(&disk)?;
/// let mut stream = log.create_stream()?;
/// stream.append(b"acknowledged").expect("there is room");
/// stream.commit().wait()?;
/// stream.append(b"not committed").expect("there is room");
///
/// let later = disk.after_power_cut(7);
/// let log = Log::options().open_on(&later)?;
/// assert_eq!(log.read_view().events(stream.id())?.count(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
    root: Root,
}

/// Directory of a log.
#[derive(Clone, Debug)]
enum Root {
    /// Directory currently at a path; the first directory is `""`.
    Path(String),
    /// Index of a directory that an open log holds.
    Held(usize),
}

impl SimDisk {
    /// Returns an empty disk. The seed decides what survives power cuts.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { world: Arc::new(Mutex::new(World::new(seed))), root: Root::Path(String::new()) }
    }

    fn with(&self, mut world: World) -> Self {
        let root = match &self.root {
            Root::Held(held) => Root::Path(world.roots[*held].clone().unwrap_or_default()),
            path @ Root::Path(_) => path.clone(),
        };
        // Handles of the other world are not open in this one.
        world.roots.clear();
        Self { world: Arc::new(Mutex::new(world)), root }
    }

    /// Returns the same directory, held open: the handle follows it when it is moved.
    pub(crate) fn hold(&self) -> Self {
        let mut world = self.world();
        let path = self.root_in(&world).ok();
        world.roots.push(path);
        let root = Root::Held(world.roots.len() - 1);
        drop(world);
        Self { world: Arc::clone(&self.world), root }
    }

    /// Returns another directory on this disk, for example for a backup. It shares calls, faults
    /// and power cuts.
    #[must_use]
    pub fn dir(&self, name: &str) -> Self {
        let root = self.at(&self.world(), name).unwrap_or_else(|_| name.to_owned());
        Self { world: Arc::clone(&self.world), root: Root::Path(root) }
    }

    /// Moves the directory to another path, durably, like `mv`. A log that is open continues in it;
    /// a log opened at the old path uses the directory that is there by then.
    pub fn move_to(&self, path: &str) {
        let mut world = self.world();
        if let Ok(from) = self.root_in(&world) {
            world.move_dir(&from, path);
        }
    }

    /// Removes the directory and its content, durably, like `rm -r`. Open files continue without a
    /// name.
    pub fn remove_all(&self) {
        let mut world = self.world();
        if let Ok(root) = self.root_in(&world) {
            world.remove_all(&root);
        }
    }

    /// Returns the path of this directory; fails if it was removed.
    fn root_in(&self, world: &World) -> io::Result<String> {
        match &self.root {
            Root::Path(path) => Ok(path.clone()),
            Root::Held(held) => {
                world.roots[*held].clone().ok_or_else(|| io::ErrorKind::NotFound.into())
            }
        }
    }

    /// Returns the full path of a path in this log.
    fn at(&self, world: &World, path: &str) -> io::Result<String> {
        let root = self.root_in(world)?;
        Ok(match (root.as_str(), path) {
            ("", path) => path.into(),
            (_, "") => root,
            (root, path) => format!("{root}/{path}"),
        })
    }

    /// Number of calls so far, which is also the number of the next call.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.world().calls
    }

    /// Number of syncs of file data so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.world().syncs
    }

    /// Number of writes to files so far, including failed ones.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.world().writes
    }

    /// Blocks all syncs of file data, or lets them continue. Has an effect only if the log may use
    /// its own threads ([`SimDisk::allow_threads`]): otherwise the blocked thread would be the only
    /// one that could release itself.
    pub fn hold_syncs(&self, held: bool) {
        let mut world = self.world();
        world.held = held && world.threads;
    }

    /// Names of all threads that have used the disk since [`SimDisk::allow_threads`].
    #[must_use]
    pub fn callers(&self) -> Vec<String> {
        self.world().callers.iter().cloned().collect()
    }

    /// Injects a fault at the call of this number. Several calls may fail.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.world().faults.insert(call, fault);
    }

    /// Gives the disk a defect, from now on. Copies of it have the same one.
    pub fn set_defect(&self, defect: Defect) {
        self.world().defect = Some(defect);
    }

    /// Removes all faults that have not happened yet. A stopped machine remains stopped.
    pub fn forget_faults(&self) {
        self.world().faults.clear();
    }

    /// Number of injected faults that have happened.
    #[must_use]
    pub fn faults_fired(&self) -> u64 {
        self.world().faults_fired
    }

    /// Sets the number of bytes of file data that the disk can hold.
    pub fn set_capacity(&self, bytes: u64) {
        self.world().capacity = bytes;
    }

    /// Limits the length of each file, like `RLIMIT_FSIZE`: a write or an extension beyond it
    /// changes nothing and fails (`EFBIG`).
    pub fn set_file_bytes_max(&self, bytes: u64) {
        self.world().file_bytes_max = bytes;
    }

    /// Number of bytes of file data that the disk can hold; [`u64::MAX`] unless it was set or a
    /// fault filled the disk.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.world().capacity
    }

    /// Writes back all unsynced data, as a system does in the background. A power cut can no longer
    /// lose any of it, except for what a failed sync has forgotten.
    pub fn write_back(&self) {
        let mut world = self.world();
        world.sync_names(|_| true);
        for file in world.files.values_mut().filter(|file| file.is_unsettled()) {
            Arc::make_mut(file).sync();
        }
    }

    /// Sets the wall clock of this machine. It stands still from now on, except for
    /// [`SimDisk::pass_time`], and can be set to jump in both directions. Without this call the
    /// time is the system's. A log that is already open continues to date events by the clock that
    /// it was opened with; everything else follows at once.
    pub fn set_clock(&self, now: Timestamp) {
        let mut world = self.world();
        let uptime = world.time.map_or_else(super::clock::uptime, |time| time.uptime);
        world.time = Some(Time { now, uptime });
    }

    /// Advances the clock of a machine whose clock was set.
    pub fn pass_time(&self, time: Duration) {
        if let Some(Time { now, uptime }) = &mut self.world().time {
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            *now = Timestamp::from_micros(now.as_micros().saturating_add(micros));
            *uptime = uptime.saturating_add(time);
        }
    }

    /// Allows the log to use its own threads on this disk, as on a real one. The numbers of calls
    /// then depend on the scheduler. Without this call everything happens on the calling threads.
    pub fn allow_threads(&self) {
        self.world().threads = true;
    }

    /// Returns a copy of the disk as any process sees it now. Faults of either disk do not affect
    /// the other, and the lock is free.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut world = self.world().clone();
        world.reset();
        self.with(world)
    }

    /// Returns the disk as a new process finds it after this one was killed: all written data is
    /// present, and the lock is free.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let mut world = self.world().clone();
        world.restart();
        world.lose_names(|_| true);
        self.with(world)
    }

    /// Returns the disk after a power cut: synced data is present, and chance decides about the
    /// rest. Another seed gives another outcome.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut world = self.world().clone();
        world.restart();
        world.random ^= seed.wrapping_mul(0xD134_2543_DE82_EF95) | 1;
        let mut chance = random(&mut world.random) | 1;
        world.power_cut(&mut Choice::by_chance(&mut chance));
        self.with(world)
    }

    /// Number of ways in which a power cut could leave this disk now. Some of them are identical.
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

    /// Returns the disk after a power cut with the outcome of this number, below
    /// [`SimDisk::power_cuts`]. All numbers together leave nothing to chance.
    #[must_use]
    pub fn power_cut(&self, number: u128) -> Self {
        let mut world = self.world().clone();
        world.restart();
        world.power_cut(&mut Choice::Nth(number));
        self.with(world)
    }

    /// Returns a hash of the disk's content, to tell states apart. It is not a CRC: bytes that end
    /// with their own checksum all have the same CRC.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let world = self.world();
        let mut hash = FixedState::default().build_hasher();
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
        self.world.lock()
    }
}

impl Disk for SimDisk {
    fn create_root(&self) -> io::Result<()> {
        let mut world = self.world();
        world.making_call()?;
        let root = self.root_in(&world)?;
        let above = root.match_indices('/').map(|(at, _)| &root[..at]);
        for dir in above.chain(["", &root]) {
            world.set_durably(dir, Some(None));
        }
        Ok(())
    }

    fn root_exists(&self) -> io::Result<bool> {
        let world = self.world();
        // A removed directory existed when it was opened.
        Ok(self.root_in(&world).map_or(true, |root| world.names.contains_key(&root)))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        world.making_call()?;
        let path = self.at(&world, path)?;
        world.check_parent(&path)?;
        if !world.names.contains_key(&path) {
            world.set_name(&path, Some(None));
        }
        Ok(())
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        let path = self.at(&world, path)?;
        match world.names.get(&path) {
            Some(None) if world.names.keys().any(|name| is_inside(name, &path)) => {
                Err(io::ErrorKind::DirectoryNotEmpty.into())
            }
            Some(None) => {
                world.set_name(&path, None);
                Ok(())
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, path: &str) -> io::Result<Vec<OsString>> {
        let mut world = self.world();
        world.plain_call()?;
        let path = self.at(&world, path)?;
        if world.names.get(&path) != Some(&None) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = world.names.keys().filter(|name| is_inside(name, &path));
        let last = |name: &String| OsString::from(name.rsplit('/').next().unwrap_or_default());
        Ok(inside.map(last).collect())
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        world.making_call()?;
        let path = self.at(&world, path)?;
        world.check_parent(&path)?;
        if world.names.contains_key(&path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = world.new_file(&path);
        Ok(Arc::new(self.opened(&mut world, id)))
    }

    fn open_read(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        world.plain_call()?;
        match world.names.get(&self.at(&world, path)?).copied() {
            Some(Some(id)) => Ok(Arc::new(self.opened(&mut world, id))),
            Some(None) => Err(io::ErrorKind::InvalidInput.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn open_write(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_read(path)
    }

    /// Not counted as a call, so that call numbers do not depend on how often names are looked up.
    fn identity_at(&self, path: &str) -> io::Result<Option<Identity>> {
        let world = self.world();
        world.check_running()?;
        let Ok(path) = self.at(&world, path) else { return Ok(None) };
        // A directory has no inode here; no file has inode 0.
        let found = world.names.get(&path).map(|file| file.unwrap_or(0));
        Ok(found.map(|inode| Identity { device: 0, inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        let (from, to) = (self.at(&world, from)?, self.at(&world, to)?);
        if world.names.contains_key(&to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.rename(&from, &to)
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        let (from, to) = (self.at(&world, from)?, self.at(&world, to)?);
        world.rename(&from, &to)?;
        world.free_unnamed();
        Ok(())
    }

    fn holds(&self, path: &Path) -> io::Result<bool> {
        // Sibling directories are distinguished from the log's own by name alone.
        let root = self.root_in(&self.world())?;
        Ok(if root.is_empty() { path.as_os_str().is_empty() } else { path.starts_with(root) })
    }

    fn beside(&self, root: &Path) -> io::Result<Arc<dyn Disk>> {
        let root = Root::Path(root.to_string_lossy().into());
        Ok(Arc::new(Self { world: Arc::clone(&self.world), root }.hold()))
    }

    fn share(&self, from: &str, to: &dyn Disk, path: &str) -> io::Result<()> {
        let to: &Self = (to as &dyn Any).downcast_ref().ok_or(io::ErrorKind::Unsupported)?;
        let mut world = self.world();
        world.making_call()?;
        let to = to.at(&world, path)?;
        if world.names.contains_key(&to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = *world.names.get(&self.at(&world, from)?).ok_or(io::ErrorKind::NotFound)?;
        world.set_name(&to, Some(file));
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        let path = self.at(&world, path)?;
        match world.names.get(&path) {
            Some(Some(_)) => world.set_name(&path, None),
            Some(None) => return Err(io::ErrorKind::IsADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        world.free_unnamed();
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        let fault = world.call()?;
        let path = self.at(&world, path)?;
        if world.names.get(&path) != Some(&None) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let omitted = match world.defect {
            Some(Defect::UnsyncedNames(pattern)) => Some(pattern),
            _ => None,
        };
        let is_omitted = |name: &str| omitted.is_some_and(|omitted| has_pattern(name, omitted));
        let inside = |name: &str| is_inside(name, &path) && !is_omitted(name);
        match fault {
            Some(Fault::LostSync) => world.forget_names(inside),
            Some(Fault::Io) => {}
            _ => world.sync_names(inside),
        }
        match fault {
            Some(Fault::Io | Fault::DoneAndFailed | Fault::LostSync) => Err(injected()),
            _ => Ok(()),
        }
    }

    /// Always `None`: otherwise the content of a lock file would differ from run to run.
    fn holder(&self) -> Option<u32> {
        None
    }

    fn check_file_bytes(&self, bytes: u64) -> io::Result<()> {
        self.world().check_length(bytes)
    }

    fn open_files_max(&self) -> Option<u64> {
        None
    }

    fn now(&self) -> Timestamp {
        self.world().time.map_or_else(Timestamp::now, |time| time.now)
    }

    fn uptime(&self) -> Duration {
        let time = self.world().time;
        time.map_or_else(super::clock::uptime, |time| time.uptime)
    }

    fn has_own_time(&self) -> bool {
        self.world().time.is_some()
    }

    fn looks_are_free(&self) -> bool {
        true
    }

    fn allows_threads(&self) -> bool {
        self.world().threads
    }
}

/// Returns true if a name is that of a direct entry of this directory.
fn is_inside(name: &str, dir: &str) -> bool {
    let (above, last) = name.rsplit_once('/').unwrap_or(("", name));
    above == dir && !last.is_empty()
}

/// Direct access to the bytes of the disk, for tests that damage a log. Not counted as calls.
impl SimDisk {
    /// Returns the bytes of every file by its path in the log's directory, with `/` between its
    /// parts.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let world = self.world();
        let file = |id: &Option<u64>| Some(world.files.get(&(*id)?)?.cache.as_ref().clone());
        let Ok(root) = self.root_in(&world) else { return BTreeMap::new() };
        let inside = |name: &str| match root.as_str() {
            "" => Some(name.to_owned()),
            root => Some(name.strip_prefix(root)?.strip_prefix('/')?.to_owned()),
        };
        world.names.iter().filter_map(|(name, id)| Some((inside(name)?, file(id)?))).collect()
    }

    /// Writes a file as if it had always existed: its directories, its name and its bytes are
    /// durable.
    pub fn write_file(&self, path: &str, bytes: &[u8]) {
        let mut world = self.world();
        let Ok(path) = self.at(&world, path) else { return };
        for dir in std::iter::once("").chain(path.match_indices('/').map(|(at, _)| &path[..at])) {
            world.set_durably(dir, Some(None));
        }
        let id = world.new_file(&path);
        world.set_durably(&path, Some(Some(id)));
        if let Ok(file) = world.file_mut(id) {
            file.write(bytes, 0, usize::MAX, world::SECTOR);
            file.sync();
        }
    }

    /// Removes a file, durably.
    pub fn remove_file(&self, path: &str) {
        let mut world = self.world();
        if let Ok(path) = self.at(&world, path) {
            world.set_durably(&path, None);
        }
    }
}
