//! Open files of a simulated disk, and their locks.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::chance::random;
use super::defect::Defect;
use super::fault::Fault;
use super::hazards::PAGE;
use super::world::{SharedWorld, World, injected};
use crate::disk::{DiskFile, Identity, LockGuard, Pin, Pinned};
use crate::sync::rest;

struct SimLock {
    disk: SharedWorld,
    id: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.lock().locked.remove(&self.id);
    }
}

/// Open file.
#[derive(Debug)]
pub(crate) struct SimFile {
    disk: SharedWorld,
    id: u64,
}

impl SimFile {
    /// Returns a new handle of a file.
    pub(super) fn open(disk: &SharedWorld, world: &mut World, id: u64) -> Self {
        *world.handles.entry(id).or_default() += 1;
        Self { disk: Arc::clone(disk), id }
    }

    /// Checks a mapped read of these bytes.
    ///
    /// # Panics
    ///
    /// Panics if a real process would receive a signal: a page of the range is unreadable, or the
    /// file has become shorter.
    pub(crate) fn check_mapped(&self, range: Range<usize>) {
        let world = self.disk.lock();
        let bytes = world.files.get(&self.id).map_or(0, |file| file.cache.len());
        let pages = range.start / PAGE..range.end.div_ceil(PAGE).max(range.start / PAGE);
        let is_bad = world.hazards.bad(self.id).iter().any(|page| pages.contains(page));
        let is_cut = !range.is_empty() && pages.end > bytes.div_ceil(PAGE);
        drop(world);
        assert!(
            !is_bad && !is_cut,
            "SIGBUS: a mapped read of bytes {range:?} of a file of {bytes}"
        );
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut world = self.disk.lock();
        world.plain_call()?;
        Ok(world.file(self.id)?.cache.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.disk.lock();
        let most = match world.call()? {
            Some(Fault::Interrupted) => return Err(io::ErrorKind::Interrupted.into()),
            Some(Fault::Short) => bytes.len().div_ceil(2),
            Some(Fault::Io | Fault::LostSync | Fault::DoneAndFailed) => {
                if world.defect != Some(Defect::ZerosForErrors) {
                    return Err(injected());
                }
                bytes.fill(0);
                return Ok(bytes.len());
            }
            _ => bytes.len(),
        };
        let length = world.file(self.id)?.cache.len();
        let most = most.min(length.saturating_sub(offset as usize));
        let most = world.hazards.readable(self.id, offset as usize, most)?;
        let cache = &world.file(self.id)?.cache;
        let start = cache.len().min(offset as usize);
        let end = start + most;
        bytes[..end - start].copy_from_slice(&cache[start..end]);
        Ok(end - start)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut world = self.disk.lock();
        let fault = world.call()?;
        world.writes += 1;
        let mut bytes = slices.iter().map(|slice| &**slice).collect::<Vec<&[u8]>>().concat();
        let all = bytes.len();
        match fault {
            Some(Fault::Interrupted) => return Err(io::ErrorKind::Interrupted.into()),
            Some(Fault::Short) => bytes.truncate(bytes.len().div_ceil(2)),
            Some(Fault::Io | Fault::LostSync) => {
                // The write may have taken partial or full effect.
                let part = random(&mut world.random) as usize % (bytes.len() + 1);
                let all = random(&mut world.random).is_multiple_of(2);
                bytes.truncate(if all { bytes.len() } else { part });
            }
            _ => {}
        }
        world.check_length(offset + bytes.len() as u64)?;
        let end = offset as usize + bytes.len();
        world.hazards.write(self.id, offset as usize..end)?;
        let written = world.write(self.id, &bytes, offset as usize)?;
        match fault {
            Some(Fault::Io | Fault::LostSync | Fault::DoneAndFailed) => Err(injected()),
            _ if written == 0 && !bytes.is_empty() => Err(world.no_space.into()),
            _ if world.defect == Some(Defect::ShortWrites) => Ok(all),
            _ => Ok(written),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.disk.lock();
        world.plain_call()?;
        if bytes > world.file(self.id)?.cache.len() as u64 {
            world.check_length(bytes)?;
        }
        world.file_mut(self.id)?.set_len(bytes as usize);
        world.hazards.cut(self.id, bytes as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.disk.lock();
        while world.held {
            drop(world);
            rest(Duration::from_millis(1));
            world = self.disk.lock();
        }
        let fault = world.call()?;
        world.syncs += 1;
        // Drawn only if needed, so that the other effects of a seed do not change.
        let forgets = fault == Some(Fault::LostSync);
        let mut chance = if forgets { random(&mut world.random) | 1 } else { 1 };
        match fault {
            Some(Fault::LostSync) => {
                world.file_mut(self.id)?.forget(&mut chance);
                Err(injected())
            }
            Some(Fault::Io) => Err(injected()),
            Some(Fault::DoneAndFailed) => {
                world.sync(self.id)?;
                Err(injected())
            }
            _ => world.sync(self.id),
        }
    }

    fn map(&self) -> io::Result<Pin> {
        let mut world = self.disk.lock();
        world.plain_call()?;
        let hazards = world.hazards.note_map();
        let bytes = Arc::clone(&world.file(self.id)?.cache);
        let file = Box::new(Self::open(&self.disk, &mut world, self.id));
        Ok(Arc::new(Pinned::Simulated { bytes, file, hazards }))
    }

    fn identity(&self) -> Identity {
        Identity { device: 0, inode: self.id }
    }

    /// Not counted as a call, like `Disk::identity_at`.
    fn links(&self) -> io::Result<u64> {
        let world = self.disk.lock();
        world.check_running()?;
        let links = world.names.links(self.id);
        Ok(if world.defect == Some(Defect::StaleNames) { links.max(1) } else { links })
    }

    fn lock(self: Arc<Self>) -> io::Result<Option<LockGuard>> {
        let mut world = self.disk.lock();
        world.plain_call()?;
        let is_free = world.locked.insert(self.id);
        if let Some(Defect::SharedLocks(pattern)) = world.defect
            && !is_free
            && world.names.has_like(self.id, pattern)
        {
            return Ok(Some(LockGuard::new(())));
        }
        let lock = || SimLock { disk: Arc::clone(&self.disk), id: self.id };
        Ok(is_free.then(|| LockGuard::new(lock())))
    }

    fn is_forsaken(&self) -> bool {
        let world = self.disk.lock();
        world.names.links(self.id) == 0 && world.handles.get(&self.id) == Some(&1)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Some(handles) = self.disk.lock().handles.get_mut(&self.id) {
            *handles -= 1;
        }
    }
}
