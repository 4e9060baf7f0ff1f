//! Names on a simulated disk: those that the running system sees, those that survive a power cut,
//! and those that a failed sync of their directory has lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::defect::has_pattern;

/// File ids by name; a directory has none.
pub(super) type Entries = BTreeMap<String, Option<u64>>;

#[derive(Clone, Debug, Default)]
pub(super) struct SimNames {
    /// Names as the running system sees them.
    pub(super) current: Entries,
    /// Names that survive a power cut.
    pub(super) durable: Entries,
    /// Names changed since a sync of their directory last wrote or forgot them. Any other name that
    /// differs from the durable one was lost by a failed sync, and differs until it is changed
    /// again.
    unsynced: BTreeSet<String>,
    /// Names that no sync makes durable, because of a defect.
    lost: BTreeSet<String>,
    /// Current paths of the directories that open logs hold; `None` once removed.
    pub(super) held: Vec<Option<String>>,
    /// Files that open logs know by name: the index of a log's directory, and a path in it.
    pub(super) known: BTreeMap<(usize, String), u64>,
}

/// Removes names whose directory does not exist.
pub(super) fn keep_reachable(names: &mut Entries) {
    let known = names.clone();
    let is_dir = |dir: &str| known.get(dir) == Some(&None);
    names.retain(|name, _| match name.rsplit_once('/') {
        Some((dir, _)) => is_dir(dir),
        None => name.is_empty() || is_dir(""),
    });
}

/// Returns true if a name is that of a direct entry of this directory.
pub(super) fn is_inside(name: &str, dir: &str) -> bool {
    let (above, last) = name.rsplit_once('/').unwrap_or(("", name));
    above == dir && !last.is_empty()
}

fn is_at_or_below(name: &str, dir: &str) -> bool {
    name.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl SimNames {
    /// Assigns a name to a file or to a directory (`Some(None)`), or removes it; not durable yet.
    pub(super) fn set(&mut self, name: &str, file: Option<Option<u64>>) {
        match file {
            Some(file) => self.current.insert(name.to_owned(), file),
            None => self.current.remove(name),
        };
        self.unsynced.insert(name.to_owned());
    }

    /// Sets a name like [`SimNames::set`], durably.
    pub(super) fn set_durably(&mut self, name: &str, file: Option<Option<u64>>) {
        self.set(name, file);
        self.sync(|other| other == name);
    }

    /// Returns the id of the file with this name; `Some(None)` is a directory.
    pub(super) fn get(&self, name: &str) -> Option<Option<u64>> {
        self.current.get(name).copied()
    }

    /// Returns the names of the direct entries of a directory.
    pub(super) fn inside(&self, dir: &str) -> impl Iterator<Item = &String> {
        self.current.keys().filter(move |name| is_inside(name, dir))
    }

    /// Fails unless the directory of this path exists.
    pub(super) fn check_parent(&self, path: &str) -> io::Result<()> {
        let (dir, _) = path.rsplit_once('/').unwrap_or_default();
        match self.get(dir) {
            Some(None) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let file = self.get(from).ok_or(io::ErrorKind::NotFound)?;
        self.set(from, None);
        self.set(to, Some(file));
        Ok(())
    }

    /// Makes changed names durable, except for those that an earlier failed sync has forgotten.
    pub(super) fn sync(&mut self, which: impl Fn(&str) -> bool) {
        let is_synced = |name: &String| which(name) && !self.lost.contains(name);
        let (now, later): (BTreeSet<String>, _) =
            std::mem::take(&mut self.unsynced).into_iter().partition(is_synced);
        self.unsynced = later;
        for name in now {
            match self.current.get(&name) {
                Some(file) => self.durable.insert(name, *file),
                None => self.durable.remove(&name),
            };
        }
    }

    /// Fails a sync of a directory: marks its names clean without writing them.
    pub(super) fn forget(&mut self, which: impl Fn(&str) -> bool) {
        self.unsynced.retain(|name| !which(name));
    }

    /// Loses unsynced names of this pattern for good.
    pub(super) fn lose(&mut self, pattern: &str, which: impl Fn(&str) -> bool) {
        let lost = |name: &&String| which(name) && has_pattern(name, pattern);
        self.lost.extend(self.unsynced.iter().filter(lost).cloned());
    }

    /// Returns the names that a failed sync has forgotten.
    pub(super) fn forgotten(&self) -> BTreeSet<String> {
        let is_forgotten = |name: &&String| {
            !self.unsynced.contains(*name) && self.current.get(*name) != self.durable.get(*name)
        };
        self.current.keys().chain(self.durable.keys()).filter(is_forgotten).cloned().collect()
    }

    /// Makes the running system see these names as the platter holds them.
    pub(super) fn evict(&mut self, names: BTreeSet<String>) {
        for name in names {
            match self.durable.get(&name) {
                Some(file) => self.current.insert(name, *file),
                None => self.current.remove(&name),
            };
        }
        keep_reachable(&mut self.current);
    }

    /// Makes the names equal in the cache and on the platter.
    pub(super) fn settle(&mut self, names: Entries) {
        self.current.clone_from(&names);
        self.durable = names;
        self.unsynced.clear();
        self.lost.clear();
    }

    /// Number of names of a file.
    pub(super) fn links(&self, id: u64) -> u64 {
        self.current.values().filter(|file| **file == Some(id)).count() as u64
    }

    /// Returns true if the file has a name of this pattern.
    pub(super) fn has_like(&self, id: u64, pattern: &str) -> bool {
        self.current.iter().any(|(name, file)| *file == Some(id) && has_pattern(name, pattern))
    }

    pub(super) fn move_dir(&mut self, from: &str, to: &str) {
        let below: Vec<(String, Option<u64>)> = self
            .current
            .iter()
            .filter(|(name, _)| is_at_or_below(name, from))
            .map(|(name, file)| (name.clone(), *file))
            .collect();
        for (name, file) in below {
            self.set_durably(&name, None);
            self.set_durably(&format!("{to}{}", &name[from.len()..]), Some(file));
        }
        for held in self.held.iter_mut().flatten().filter(|held| is_at_or_below(held, from)) {
            *held = format!("{to}{}", &held[from.len()..]);
        }
    }

    pub(super) fn remove_all(&mut self, dir: &str) {
        let below: Vec<String> =
            self.current.keys().filter(|name| is_at_or_below(name, dir)).cloned().collect();
        for name in below {
            self.set_durably(&name, None);
        }
        for held in &mut self.held {
            held.take_if(|held| is_at_or_below(held, dir));
        }
    }
}
