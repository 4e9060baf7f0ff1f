//! Names of streams, and reservations of names.
//!
//! Handles and the writer share a lock that guards the holders of names. Readers do not take it:
//! they use an index of streams by name, which also lists former holders, and check each stream's
//! name in their read view.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Catalog;
use crate::index::{ArenaId, HashIndex};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, process};
use crate::types::{StreamId, StreamState};

/// Bounds on the entries of the index before it is rebuilt: this number, twice the number of
/// streams with versions, and one per `NAMED_PART` streams, whichever is largest. A rebuild then
/// costs no more than the inserts since the last one.
const ENTRIES_MIN: u32 = 64;
const NAMED_PART: u32 = 4;

/// Names of a log.
pub(super) struct Names {
    /// Streams by the names that they hold or have reserved now.
    holders: Mutex<HashMap<Box<str>, StreamId>>,
    /// First branches of streams that have or had a name, by the name's hash.
    index: ArcSwap<HashIndex>,
    hasher: RandomState,
    /// Process whose threads take the lock.
    process: u32,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            holders: Mutex::new(HashMap::new()),
            index: ArcSwap::from_pointee(HashIndex::new()),
            hasher: RandomState::new(),
            process: process(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, StreamId>> {
        self.holders.lock()
    }

    /// Returns the first branch of a stream that has or had this name and that `is_wanted`.
    pub(super) fn find(&self, name: &str, is_wanted: impl Fn(ArenaId) -> bool) -> Option<ArenaId> {
        self.index.load().find(self.hasher.hash_one(name), is_wanted)
    }

    /// Frees a name, unless another stream has it by now. Does nothing in a fork of the process,
    /// because no thread there may ever unlock the names.
    fn release(&self, name: &str, stream: StreamId) {
        if self.process != process() {
            return;
        }
        let mut holders = self.lock();
        if holders.get(name) == Some(&stream) {
            holders.remove(name);
        }
    }
}

impl Catalog {
    /// Updates the holders of names after a commit of this stream. The writer calls it after
    /// noting the commit.
    pub(crate) fn pass_names(&self, stream: StreamId, root: ArenaId) {
        let Some(version) = self.version(root) else { return };
        let now = version.meta.name.as_deref().filter(|_| version.state != StreamState::Deleted);
        let before = version.older.as_ref().and_then(|older| older.meta.name.as_deref());
        let before = before.or(version.meta.name.as_deref()).filter(|name| now != Some(*name));
        if let Some(before) = before {
            self.names.release(before, stream);
        }
        if let Some(now) = now {
            self.names.lock().insert(now.into(), stream);
            self.index_name(now, root);
        }
    }

    fn index_name(&self, name: &str, root: ArenaId) {
        let names = &self.names;
        let index = names.index.load();
        let hash = names.hasher.hash_one(name);
        if index.find(hash, |at| at == root).is_some() {
            return;
        }
        let entries_max = ENTRIES_MIN
            .max(self.versions.len().saturating_mul(2))
            .max(self.branches.len() / NAMED_PART);
        if index.len() < entries_max {
            index.insert(hash, root);
            return;
        }
        // Most of its entries are outdated. Every name that a read view can show is in a version
        // that is kept.
        let anew = HashIndex::with_room_for(entries_max as usize);
        for (root, first) in self.branches.iter().filter(|(_, branch)| !branch.is_plain()) {
            for name in self.version_of(first).iter().flat_map(|version| version.names()) {
                let hash = names.hasher.hash_one(name);
                if anew.find(hash, |at| at == root).is_none() {
                    anew.insert(hash, root);
                }
            }
        }
        names.index.store(Arc::new(anew));
    }

    /// Records all names of a stream found while opening the log, including earlier ones that a
    /// view may show.
    pub(super) fn find_names(&self, stream: StreamId, root: ArenaId) {
        self.pass_names(stream, root);
        let newest = self.version(root);
        let names = newest.iter().flat_map(|version| version.names());
        names.for_each(|name| self.index_name(name, root));
    }

    /// Reserves a name for a stream that may never be committed. On failure, returns the stream
    /// that holds it.
    pub(crate) fn reserve_name(
        self: &Arc<Self>,
        name: &str,
        stream: StreamId,
    ) -> Result<ReservedName, StreamId> {
        match self.names.lock().entry(name.into()) {
            Entry::Vacant(free) => {
                free.insert(stream);
                Ok(ReservedName {
                    catalog: Arc::clone(self),
                    name: name.into(),
                    stream,
                    is_given: AtomicBool::new(false),
                })
            }
            Entry::Occupied(taken) => Err(*taken.get()),
        }
    }
}

/// Name that no other stream can take. It becomes free again when it was not committed and both the
/// stream's handle and any commit that would write it have dropped the reservation.
pub(crate) struct ReservedName {
    catalog: Arc<Catalog>,
    name: Box<str>,
    stream: StreamId,
    /// Set once the name is committed: from then on commits decide which stream has it.
    is_given: AtomicBool,
}

impl ReservedName {
    /// Leaves the name to the stream, whose commit gives it.
    pub(crate) fn give(&self) {
        self.is_given.store(true, Ordering::Release);
    }

    /// Returns the bytes of the reservation and of the copy of the name that finds its holder.
    pub(crate) fn memory_bytes(&self) -> usize {
        [size_of::<Self>(), self.name.len(), self.name.len()].iter().sum()
    }
}

impl Drop for ReservedName {
    fn drop(&mut self) {
        if !self.is_given.load(Ordering::Acquire) {
            self.catalog.names.release(&self.name, self.stream);
        }
    }
}

impl fmt::Debug for ReservedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}
