//! Names on a simulated disk: those that the running system sees, those that survive a power cut,
//! and those that a failed sync of their directory has lost.

use std::collections::BTreeMap;
use std::io;

use super::defect::{Defect, has_pattern};
use super::world::World;

/// Removes names whose directory does not exist.
pub(super) fn keep_reachable(names: &mut BTreeMap<String, Option<u64>>) {
    let known = names.clone();
    let is_dir = |dir: &str| known.get(dir) == Some(&None);
    names.retain(|name, _| match name.rsplit_once('/') {
        Some((dir, _)) => is_dir(dir),
        None => name.is_empty() || is_dir(""),
    });
}

fn is_at_or_below(name: &str, dir: &str) -> bool {
    name.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl World {
    /// Assigns a name to a file or to a directory (`Some(None)`), or removes it; not durable yet.
    pub(super) fn set_name(&mut self, name: &str, file: Option<Option<u64>>) {
        match file {
            Some(file) => self.names.insert(name.to_owned(), file),
            None => self.names.remove(name),
        };
        self.unsynced_names.insert(name.to_owned());
    }

    /// Sets a name like [`World::set_name`], durably.
    pub(super) fn set_durably(&mut self, name: &str, file: Option<Option<u64>>) {
        self.set_name(name, file);
        self.sync_names(|other| other == name);
    }

    /// Fails unless the directory of this path exists.
    pub(super) fn check_parent(&self, path: &str) -> io::Result<()> {
        let (dir, _) = path.rsplit_once('/').unwrap_or_default();
        match self.names.get(dir) {
            Some(None) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let file = *self.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        self.set_name(from, None);
        self.set_name(to, Some(file));
        Ok(())
    }

    /// Makes changed names durable, except for those that an earlier failed sync has forgotten.
    pub(super) fn sync_names(&mut self, which: impl Fn(&str) -> bool) {
        let is_synced = |name: &String| which(name) && !self.lost_names.contains(name);
        let (now, later) =
            std::mem::take(&mut self.unsynced_names).into_iter().partition(is_synced);
        self.unsynced_names = later;
        let now: std::collections::BTreeSet<String> = now;
        for name in now {
            match self.names.get(&name) {
                Some(file) => self.durable_names.insert(name, *file),
                None => self.durable_names.remove(&name),
            };
        }
    }

    /// Fails a sync of a directory: marks its names clean without writing them.
    pub(super) fn forget_names(&mut self, which: impl Fn(&str) -> bool) {
        self.lose_names(&which);
        self.unsynced_names.retain(|name| !which(name));
    }

    /// Loses unsynced names for good, if the disk has that defect.
    pub(super) fn lose_names(&mut self, which: impl Fn(&str) -> bool) {
        if let Some(Defect::LostNames(pattern)) = self.defect {
            let lost = |name: &&String| which(name) && has_pattern(name, pattern);
            self.lost_names.extend(self.unsynced_names.iter().filter(lost).cloned());
        }
    }

    /// Makes the names equal in the cache and on the platter.
    pub(super) fn settle_names(&mut self, names: BTreeMap<String, Option<u64>>) {
        self.names.clone_from(&names);
        self.durable_names = names;
        self.unsynced_names.clear();
        self.lost_names.clear();
    }

    /// Number of names of a file.
    pub(super) fn links(&self, id: u64) -> u64 {
        self.names.values().filter(|file| **file == Some(id)).count() as u64
    }

    pub(super) fn move_dir(&mut self, from: &str, to: &str) {
        let below: Vec<(String, Option<u64>)> = self
            .names
            .iter()
            .filter(|(name, _)| is_at_or_below(name, from))
            .map(|(name, file)| (name.clone(), *file))
            .collect();
        for (name, file) in below {
            self.set_durably(&name, None);
            self.set_durably(&format!("{to}{}", &name[from.len()..]), Some(file));
        }
        for held in self.roots.iter_mut().flatten().filter(|held| is_at_or_below(held, from)) {
            *held = format!("{to}{}", &held[from.len()..]);
        }
    }

    pub(super) fn remove_all(&mut self, dir: &str) {
        let below: Vec<String> =
            self.names.keys().filter(|name| is_at_or_below(name, dir)).cloned().collect();
        for name in below {
            self.set_durably(&name, None);
        }
        for held in &mut self.roots {
            held.take_if(|held| is_at_or_below(held, dir));
        }
        self.free_unnamed();
    }
}
