//! Versions of a stream's metadata: its name, labels, data and state, now and before.
//!
//! A stream with nothing but events has no version. Each commit that changes the metadata adds one
//! with the position from which it holds, so that a read view finds the version of its time without
//! a lock.

use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::change::{Change, data_bytes, label_nodes_bytes};
use crate::index::ArenaId;
use crate::sabotage::{Sabotage, broken};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::types::{StreamId, StreamState};
use crate::work::step;

/// Metadata of a stream.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Meta {
    pub(crate) name: Option<Box<str>>,
    pub(crate) labels: BTreeMap<Box<str>, Box<str>>,
    pub(crate) data: Option<Arc<[u8]>>,
    /// Stream and seq that this stream was forked from.
    pub(crate) parent: Option<(StreamId, u64)>,
}

impl Meta {
    /// Returns the metadata after a change of it.
    pub(crate) fn after(&self, change: &Change) -> Self {
        // The place of events and the lifecycle are not metadata of this kind.
        let Change {
            fork: _,
            rewind: _,
            name,
            labels,
            data,
            state: _,
            start: _,
            parent,
            is_summary,
        } = change;
        let mut meta = if *is_summary { Self::default() } else { self.clone() };
        if let Some(name) = name {
            meta.name = Some(name.clone()).filter(|name| !name.is_empty());
        }
        for (key, value) in labels {
            match value {
                Some(value) => meta.labels.insert(key.clone(), value.clone()),
                None => meta.labels.remove(key),
            };
        }
        if let Some(data) = data {
            meta.data = Some(Arc::clone(data)).filter(|data| !data.is_empty());
        }
        meta.parent = parent.or(meta.parent);
        meta
    }

    /// Returns the bytes used beyond the struct itself, including data that is shared.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.own_bytes().saturating_add(self.data.as_deref().map_or(0, data_bytes))
    }

    /// Returns the bytes used beyond the struct itself, without the data.
    pub(crate) fn own_bytes(&self) -> usize {
        let texts = self.labels.iter().flat_map(|(key, value)| [key.len(), value.len()]);
        let name = self.name.as_deref().map_or(0, str::len);
        texts.chain([name, label_nodes_bytes(self.labels.len())]).sum()
    }
}

/// Metadata of a durable stream. The catalog counts its bytes until the last version with it is
/// dropped.
#[derive(Debug)]
pub(crate) struct KeptMeta {
    meta: Meta,
    bytes: usize,
    counted: Arc<AtomicUsize>,
}

impl KeptMeta {
    pub(super) fn new(meta: Meta, counted: &Arc<AtomicUsize>) -> Self {
        // The map of name holders keeps a second copy of the name.
        let name = meta.name.as_deref().map_or(0, str::len);
        let bytes = [size_of::<Self>(), meta.memory_bytes(), name].iter().sum();
        counted.fetch_add(bytes, Ordering::Relaxed);
        Self { meta, bytes, counted: Arc::clone(counted) }
    }
}

impl KeptMeta {
    /// Returns the bytes counted for this metadata.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Deref for KeptMeta {
    type Target = Meta;

    fn deref(&self) -> &Meta {
        &self.meta
    }
}

impl Drop for KeptMeta {
    fn drop(&mut self) {
        if !broken(Sabotage::KeepCharges) {
            self.counted.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// Minimum number of versions before unneeded ones are looked for.
const VERSIONS_MIN: u32 = 4;

/// State of a stream from a position on.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// Position of the commit that made this version.
    pub(crate) from: u64,
    /// Branch that the stream is in; `None` stands for its first one.
    pub(crate) tip: Option<ArenaId>,
    pub(crate) state: StreamState,
    /// First seq that is not trimmed.
    pub(crate) start: u64,
    pub(crate) meta: Arc<KeptMeta>,
    /// Position of the commit with the stream's last summary, which supersedes everything before; 0
    /// if the stream has none.
    pub(crate) summary: u64,
    pub(super) older: Option<Arc<Self>>,
    pub(super) depth: Depth,
}

/// Number of older versions of a version.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Depth {
    versions: u32,
    /// Number of versions at which unneeded ones are looked for next: twice the number kept last
    /// time, so that the cost per version is constant even while a read view keeps them.
    ask_at: u32,
}

impl Depth {
    /// Returns the depth of a version that follows `older`.
    pub(super) fn after(older: Option<&Arc<Version>>) -> Self {
        let before = older.map_or_else(Self::default, |older| older.depth);
        let versions = before.versions.saturating_add(u32::from(older.is_some()));
        Self { versions, ask_at: before.ask_at.max(VERSIONS_MIN) }
    }
}

impl Version {
    /// Returns the value of a label.
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        self.meta.labels.get(key).map(|value| &**value)
    }

    /// Tells whether to [`forget`](Self::forget) older versions. A deleted stream keeps all of
    /// them: they record the place of its deletion.
    pub(super) fn is_deep(&self) -> bool {
        self.state != StreamState::Deleted && self.depth.versions >= self.depth.ask_at
    }

    /// Drops the older versions that no read view with a watermark in these ranges, ends included,
    /// can see.
    ///
    /// The previous version always stays, and so do versions that record a deletion. Readers that
    /// already hold a version keep it alive.
    pub(super) fn forget(&mut self, views: &[Range<u64>]) {
        let mut kept = Vec::<Arc<Self>>::new();
        let mut is_cut = false;
        let mut next = self.older.clone();
        let mut until = self.from;
        while let Some(version) = next {
            next = version.older.clone();
            let stays = kept.is_empty() || version.state == StreamState::Deleted;
            let is_needed = stays || is_seen(views, version.from..until);
            until = version.from;
            is_cut |= !is_needed;
            kept.extend(Some(version).filter(|_| is_needed));
        }
        if is_cut {
            self.older = None;
            for version in kept.iter().rev() {
                let mut copy = Self::clone(version);
                copy.older = self.older.take();
                copy.depth = Depth::after(copy.older.as_ref());
                self.older = Some(Arc::new(copy));
            }
            self.depth = Depth::after(self.older.as_ref());
        }
        self.depth.ask_at = self.depth.versions.saturating_mul(2).max(VERSIONS_MIN);
    }

    /// Returns the names that the stream has in the versions that are kept. Names may repeat.
    pub(super) fn names(self: &Arc<Self>) -> impl Iterator<Item = &str> {
        let versions = std::iter::successors(Some(self), |version| version.older.as_ref());
        let named = versions.filter(|version| version.state != StreamState::Deleted);
        named.filter_map(|version| version.meta.name.as_deref())
    }

    /// Returns the newest version up to a position.
    pub(super) fn up_to(self: &Arc<Self>, position: u64) -> Option<Arc<Self>> {
        let mut at = self;
        step();
        while at.from > position {
            step();
            at = at.older.as_ref()?;
        }
        Some(Arc::clone(at))
    }
}

/// Tells whether a read view with a watermark in these ranges, ends included, sees a version that
/// holds for these positions.
fn is_seen(views: &[Range<u64>], positions: Range<u64>) -> bool {
    let at = views.partition_point(|marks| marks.end < positions.start);
    views.get(at).is_some_and(|marks| marks.start < positions.end)
}

impl Drop for Version {
    /// Drops the versions in a loop: recursion could overflow the stack.
    fn drop(&mut self) {
        let mut next = self.older.take();
        while let Some(mut version) = next.and_then(Arc::into_inner) {
            next = version.older.take();
        }
    }
}
