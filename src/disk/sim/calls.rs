//! The simulated disk as a log sees it: calls that count, and may fail.

use std::any::Any;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::defect::has_pattern;
use super::disk::{Root, SimDisk};
use super::fault::Fault;
use super::file::SimFile;
use super::names::is_inside;
use super::world::injected;
use crate::disk::clock::uptime;
use crate::disk::{Disk, DiskFile, Identity};
use crate::types::Timestamp;

impl Disk for SimDisk {
    fn create_root(&self) -> io::Result<()> {
        let mut world = self.world();
        world.making_call()?;
        let root = self.root_in(&world)?;
        let above = root.match_indices('/').map(|(at, _)| &root[..at]);
        for dir in above.chain(["", &root]) {
            world.names.set_durably(dir, Some(None));
        }
        Ok(())
    }

    fn root_exists(&self) -> io::Result<bool> {
        let world = self.world();
        // A removed directory existed when it was opened.
        Ok(self.root_in(&world).map_or(true, |root| world.names.get(&root).is_some()))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        world.making_call()?;
        let path = self.at(&world, path)?;
        world.names.check_parent(&path)?;
        if world.names.get(&path).is_none() {
            world.names.set(&path, Some(None));
        }
        Ok(())
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        let path = self.at(&world, path)?;
        match world.names.get(&path) {
            Some(None) if world.names.inside(&path).next().is_some() => {
                Err(io::ErrorKind::DirectoryNotEmpty.into())
            }
            Some(None) => {
                world.names.set(&path, None);
                Ok(())
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, path: &str) -> io::Result<Vec<OsString>> {
        let mut world = self.world();
        world.plain_call()?;
        let path = self.at(&world, path)?;
        if world.names.get(&path) != Some(None) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let last = |name: &String| OsString::from(name.rsplit('/').next().unwrap_or_default());
        Ok(world.names.inside(&path).map(last).collect())
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        world.making_call()?;
        let full = self.at(&world, path)?;
        world.names.check_parent(&full)?;
        if world.names.get(&full).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = world.new_file(&full);
        self.note_known(&mut world, path);
        Ok(Arc::new(SimFile::open(&self.world, &mut world, id)))
    }

    fn open_read(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        world.plain_call()?;
        match world.names.get(&self.at(&world, path)?) {
            Some(Some(id)) => {
                self.note_known(&mut world, path);
                Ok(Arc::new(SimFile::open(&self.world, &mut world, id)))
            }
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
        if let Some(inode) = self.known(&world, path) {
            return Ok(Some(Identity { device: 0, inode }));
        }
        let Ok(path) = self.at(&world, path) else { return Ok(None) };
        // A directory has no inode here; no file has inode 0.
        let found = world.names.get(&path).map(|file| file.unwrap_or(0));
        Ok(found.map(|inode| Identity { device: 0, inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        let new = self.at(&world, to)?;
        if world.names.get(&new).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.renamed(&mut world, from, to)
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        self.renamed(&mut world, from, to)?;
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
        if world.names.get(&to).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = world.names.get(&self.at(&world, from)?).ok_or(io::ErrorKind::NotFound)?;
        world.names.set(&to, Some(file));
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        world.plain_call()?;
        let full = self.at(&world, path)?;
        match world.names.get(&full) {
            Some(Some(_)) => world.names.set(&full, None),
            Some(None) => return Err(io::ErrorKind::IsADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        self.note_known(&mut world, path);
        world.free_unnamed();
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        let fault = world.call()?;
        let path = self.at(&world, path)?;
        if world.names.get(&path) != Some(None) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let omitted = world.omitted_names();
        let inside = |name: &str| {
            is_inside(name, &path) && !omitted.is_some_and(|omitted| has_pattern(name, omitted))
        };
        match fault {
            Some(Fault::LostSync) => {
                world.lose_names(inside);
                world.names.forget(inside);
            }
            Some(Fault::Io) => {}
            _ => world.names.sync(inside),
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
        time.map_or_else(uptime, |time| time.uptime)
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
