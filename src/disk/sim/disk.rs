//! The simulated disk as tests see it: its seed, faults, clocks, kills and power cuts.

use std::hash::{BuildHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::chance::{Choice, random};
use super::defect::Defect;
use super::fault::Fault;
use super::world::{SharedWorld, Time, World};
use crate::disk::clock::uptime;
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
    pub(super) world: SharedWorld,
    pub(super) root: Root,
}

/// Directory of a log.
#[derive(Clone, Debug)]
pub(super) enum Root {
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
            Root::Held(held) => Root::Path(world.names.held[*held].clone().unwrap_or_default()),
            path @ Root::Path(_) => path.clone(),
        };
        // Handles of the other world are not open in this one.
        world.names.held.clear();
        world.names.known.clear();
        Self { world: Arc::new(Mutex::new(world)), root }
    }

    /// Returns the same directory, held open: the handle follows it when it is moved.
    pub(crate) fn hold(&self) -> Self {
        let mut world = self.world();
        let path = self.root_in(&world).ok();
        world.names.held.push(path);
        let root = Root::Held(world.names.held.len() - 1);
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
            world.names.move_dir(&from, path);
        }
    }

    /// Removes the directory and its content, durably, like `rm -r`. Open files continue without a
    /// name.
    pub fn remove_all(&self) {
        let mut world = self.world();
        if let Ok(root) = self.root_in(&world) {
            world.names.remove_all(&root);
            world.free_unnamed();
        }
    }

    /// Returns the path of this directory; fails if it was removed.
    pub(super) fn root_in(&self, world: &World) -> io::Result<String> {
        match &self.root {
            Root::Path(path) => Ok(path.clone()),
            Root::Held(held) => {
                world.names.held[*held].clone().ok_or_else(|| io::ErrorKind::NotFound.into())
            }
        }
    }

    /// Returns the full path of a path in this log.
    pub(super) fn at(&self, world: &World, path: &str) -> io::Result<String> {
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
        world.names.sync(|_| true);
        for file in world.files.values_mut().filter(|file| file.is_unsettled()) {
            Arc::make_mut(file).sync();
        }
    }

    /// Sets the wall clock of this machine. It stands still from now on, except for
    /// [`SimDisk::pass_time`], and can be set to jump in both directions. Without this call the
    /// time is the system's. A log that is already open continues to date events by its own clock;
    /// commits and maintenance read the new time at once.
    pub fn set_clock(&self, now: Timestamp) {
        let mut world = self.world();
        let uptime = world.time.map_or_else(uptime, |time| time.uptime);
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
        for (name, file) in &world.names.current {
            name.hash(&mut hash);
            if let Some(file) = file.and_then(|id| world.files.get(&id)) {
                file.cache.hash(&mut hash);
            }
        }
        hash.finish()
    }

    /// Renames a file, for the log that holds this directory.
    pub(super) fn renamed(&self, world: &mut World, from: &str, to: &str) -> io::Result<()> {
        let (old, new) = (self.at(world, from)?, self.at(world, to)?);
        world.names.rename(&old, &new)?;
        self.note_known(world, from);
        self.note_known(world, to);
        Ok(())
    }

    /// Makes the log that holds this directory remember where a name of it leads, if the disk has
    /// that defect.
    pub(super) fn note_known(&self, world: &mut World, path: &str) {
        if let (Root::Held(held), Some(Defect::StaleNames)) = (&self.root, world.defect)
            && let Ok(full) = self.at(world, path)
        {
            let key = (*held, path.to_owned());
            match world.names.get(&full).flatten() {
                Some(id) => world.names.known.insert(key, id),
                None => world.names.known.remove(&key),
            };
        }
    }

    /// Returns the file that this log remembers at a path.
    pub(super) fn known(&self, world: &World, path: &str) -> Option<u64> {
        let Root::Held(held) = self.root else { return None };
        world.names.known.get(&(held, path.to_owned())).copied()
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock()
    }
}
