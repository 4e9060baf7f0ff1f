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

/// Stream that holds a name.
#[derive(Clone, Copy)]
struct Holder {
    stream: StreamId,
    /// True while the stream's newest committed version has the name.
    is_given: bool,
    /// Number of reservations of the name for this stream. While there is one, the name stays with
    /// the stream, even if a commit takes it away.
    reservations: u32,
}

impl Holder {
    fn is_needed(&self) -> bool {
        self.is_given || self.reservations > 0
    }
}

/// Names of a log.
pub(super) struct Names {
    /// Streams by the names that they hold or have reserved now.
    holders: Mutex<HashMap<Box<str>, Holder>>,
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

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Holder>> {
        self.holders.lock()
    }

    /// Returns the first branch of a stream that has or had this name and that `is_wanted`.
    pub(super) fn find(&self, name: &str, is_wanted: impl Fn(ArenaId) -> bool) -> Option<ArenaId> {
        self.index.load().find(self.hasher.hash_one(name), is_wanted)
    }

    /// Changes how a stream holds a name, and frees the name if nothing needs it any more. Does
    /// nothing if another stream has the name by now, or in a fork of the process, because no
    /// thread there may ever unlock the names.
    fn change(&self, name: &str, stream: StreamId, with: impl FnOnce(&mut Holder)) {
        if self.process != process() {
            return;
        }
        let mut holders = self.lock();
        let Some(holder) = holders.get_mut(name).filter(|holder| holder.stream == stream) else {
            return;
        };
        with(holder);
        if !holder.is_needed() {
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
        // A commit that deletes the stream may carry a new name, which it does not give.
        for before in before.into_iter().chain(version.meta.name.as_deref()) {
            if now != Some(before) {
                self.names.change(before, stream, |holder| holder.is_given = false);
            }
        }
        if let Some(now) = now {
            let given = Holder { stream, is_given: true, reservations: 0 };
            let mut holders = self.names.lock();
            let holder = holders.entry(now.into()).or_insert(given);
            match holder.stream == stream {
                true => holder.is_given = true,
                false => *holder = given,
            }
            drop(holders);
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

    /// Reserves a name for a stream that may never be committed, or one that the stream has, so
    /// that it keeps it. A name that a deleted stream has reserved is free: no commit can give it.
    /// On failure, returns the stream that holds the name.
    pub(crate) fn reserve_name(
        self: &Arc<Self>,
        name: &str,
        stream: StreamId,
    ) -> Result<ReservedName, StreamId> {
        let reserved = Holder { stream, is_given: false, reservations: 1 };
        match self.names.lock().entry(name.into()) {
            Entry::Vacant(free) => {
                free.insert(reserved);
            }
            Entry::Occupied(mut taken) => {
                let holder = *taken.get();
                if self.is_deleted(holder.stream) {
                    taken.insert(reserved);
                } else if holder.stream == stream && holder.is_given {
                    taken.get_mut().reservations = holder.reservations.saturating_add(1);
                } else {
                    return Err(holder.stream);
                }
            }
        }
        Ok(ReservedName {
            catalog: Arc::clone(self),
            name: name.into(),
            stream,
            is_over: AtomicBool::new(false),
        })
    }

    /// Returns whether a commit has deleted the stream.
    fn is_deleted(&self, stream: StreamId) -> bool {
        let version = self.root(stream).and_then(|root| self.version(root));
        version.is_some_and(|version| version.state == StreamState::Deleted)
    }
}

/// Name that no other stream can take. It becomes free again when it was not committed and both the
/// stream's handle and any commit that would write it have dropped the reservation, or once the
/// stream is deleted.
pub(crate) struct ReservedName {
    catalog: Arc<Catalog>,
    name: Box<str>,
    stream: StreamId,
    /// Set once a commit took the reservation: from then on commits decide which stream has the
    /// name.
    is_over: AtomicBool,
}

impl ReservedName {
    /// Leaves the name to the stream, whose commit gives it.
    pub(crate) fn give(&self) {
        self.end(|holder| holder.is_given = true);
    }

    /// Frees the name, because the commit that would give it deletes the stream.
    pub(crate) fn free(&self) {
        self.end(|_| {});
    }

    /// Ends the reservation, once.
    fn end(&self, with: impl FnOnce(&mut Holder)) {
        if !self.is_over.swap(true, Ordering::AcqRel) {
            self.catalog.names.change(&self.name, self.stream, |holder| {
                with(holder);
                holder.reservations = holder.reservations.saturating_sub(1);
            });
        }
    }

    /// Returns the bytes of the reservation and of the copy of the name that finds its holder.
    pub(crate) fn memory_bytes(&self) -> usize {
        [size_of::<Self>(), self.name.len(), self.name.len()].iter().sum()
    }
}

impl Drop for ReservedName {
    fn drop(&mut self) {
        self.free();
    }
}

impl fmt::Debug for ReservedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}
