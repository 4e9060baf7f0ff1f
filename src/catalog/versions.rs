//! Versions of a stream's metadata: its name, labels, data and state, now and before.
//!
//! A stream with nothing but events has no version. Each commit that changes the metadata adds one
//! with the place from which it holds, so that a read view finds the version of its time without a
//! lock.

use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::{Baseline, ForkGuard, Lsn, ReservedName};
use crate::format::{Attribute, put_attribute};
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

/// Bytes of one node of the map of labels. A node holds six labels that were inserted in order.
const LABEL_NODE_BYTES: usize = 376;
const LABELS_PER_NODE: usize = 6;

impl Meta {
    /// Returns the bytes used beyond the struct itself, including data that is shared.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.own_bytes().saturating_add(data_bytes(self.data.as_ref()))
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

fn label_nodes_bytes(labels: usize) -> usize {
    labels.div_ceil(LABELS_PER_NODE).saturating_mul(LABEL_NODE_BYTES)
}

/// Returns the bytes of shared data, which include two reference counts.
fn data_bytes(data: Option<&Arc<[u8]>>) -> usize {
    data.map_or(0, |data| size_of::<[usize; 2]>().saturating_add(data.len()))
}

/// Minimum number of versions before unneeded ones are looked for.
const VERSIONS_MIN: u32 = 4;

/// State of a stream from a place in the log on.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// Start of the commit that made this version.
    pub(crate) from: Lsn,
    /// Branch that the stream is in; `None` stands for its first one.
    pub(crate) tip: Option<ArenaId>,
    pub(crate) state: StreamState,
    /// First seq that is not trimmed.
    pub(crate) start: u64,
    pub(crate) meta: Arc<KeptMeta>,
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
    pub(super) fn forget(&mut self, views: &[Range<Lsn>]) {
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

    /// Returns the newest version before `end`.
    pub(super) fn before(self: &Arc<Self>, end: Lsn) -> Option<Arc<Self>> {
        let mut at = self;
        step();
        while at.from >= end {
            step();
            at = at.older.as_ref()?;
        }
        Some(Arc::clone(at))
    }
}

/// Tells whether a read view with a watermark in these ranges sees a version that holds between two
/// places.
fn is_seen(views: &[Range<Lsn>], between: Range<Lsn>) -> bool {
    let at = views.partition_point(|marks| marks.end <= between.start);
    views.get(at).is_some_and(|marks| marks.start <= between.end)
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

/// Start of a stream that shares the events before it with another stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fork {
    /// Stream of the branch that holds the shared events, itself or in its bases.
    pub(crate) base: StreamId,
    pub(crate) base_generation: u32,
    /// First seq of the fork's own.
    pub(crate) seq: u64,
    /// Generation after all those of the shared events, so that no generation holds a seq twice.
    pub(crate) generation: u32,
}

/// Removal of all events of a stream from a seq on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rewind {
    pub(crate) to: u64,
    /// Head seen by the caller of the rewind.
    pub(crate) seen: u64,
}

/// Name that a commit gives or takes away.
#[derive(Clone, Debug)]
pub(crate) enum NameChange {
    None,
    Given(Box<str>),
    Reserved(Arc<ReservedName>),
}

impl NameChange {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::None => "",
            Self::Given(name) => name,
            Self::Reserved(name) => name.as_str(),
        }
    }
}

/// Changes to one stream in one commit, beside its events.
#[derive(Clone, Default, Debug)]
pub(crate) struct Change {
    pub(crate) fork: Option<Fork>,
    pub(crate) rewind: Option<Rewind>,
    pub(crate) name: Option<NameChange>,
    /// Labels that are set; `None` removes a label.
    pub(crate) labels: BTreeMap<Box<str>, Option<Box<str>>>,
    /// New data; empty data removes it.
    pub(crate) data: Option<Arc<[u8]>>,
    pub(crate) state: Option<StreamState>,
    pub(crate) start: Option<u64>,
    pub(crate) parent: Option<(StreamId, u64)>,
    /// Keeps the shared events alive until the fork is committed.
    pub(crate) shared: Option<Arc<ForkGuard>>,
    /// Precondition of the change: the commit is refused if it does not hold.
    pub(crate) measured: Option<Measured>,
}

/// State of a stream that maintenance relied on when it made a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Measured {
    /// State that was read. The stream may have grown since, but any other change or a rewind
    /// invalidates it.
    pub(crate) baseline: Baseline,
    /// Start of the last commit, if later commits invalidate the change.
    pub(crate) last: Option<Lsn>,
}

impl Measured {
    /// Tells whether the stream's current state is still compatible with what was read.
    pub(crate) fn is_of(&self, now: Baseline) -> bool {
        now.head >= self.baseline.head
            && self.baseline == Baseline { head: self.baseline.head, ..now }
    }
}

impl Change {
    /// Tells whether this changes the metadata, and not only the place of events.
    pub(crate) fn has_attributes(&self) -> bool {
        self.name.is_some()
            || !self.labels.is_empty()
            || self.data.is_some()
            || self.state.is_some()
            || self.start.is_some()
            || self.parent.is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.has_attributes() && self.fork.is_none() && self.rewind.is_none()
    }

    /// Returns the bytes used beyond the struct itself. A reserved name counts twice: the
    /// reservation has a copy.
    pub(crate) fn memory_bytes(&self) -> usize {
        let value = |value: &Option<Box<str>>| value.as_ref().map_or(0, |value| value.len());
        let texts = self.labels.iter().flat_map(|(key, label)| [key.len(), value(label)]);
        let name = self.name.as_ref().map_or(0, |name| name.as_str().len());
        let reserved = match self.name {
            Some(NameChange::Reserved(_)) => size_of::<ReservedName>().saturating_add(name),
            _ => 0,
        };
        let nodes = label_nodes_bytes(self.labels.len());
        texts.chain([name, reserved, nodes, data_bytes(self.data.as_ref())]).sum()
    }

    /// Returns the bytes of the catalog batch and the number of its attributes.
    pub(crate) fn encode(&self) -> (Vec<u8>, u32) {
        let mut bytes = Vec::new();
        let mut count = 0_u32;
        let mut put = |attribute: Attribute<'_>| {
            put_attribute(&attribute, &mut bytes);
            count = count.saturating_add(1);
        };
        if let Some(name) = &self.name {
            put(Attribute::Name(name.as_str()));
        }
        for (key, value) in &self.labels {
            put(Attribute::Label { key, value: value.as_deref() });
        }
        if let Some(data) = &self.data {
            put(Attribute::Data(data));
        }
        if let Some(state) = self.state {
            put(Attribute::State(state));
        }
        if let Some(start) = self.start {
            put(Attribute::Start(start));
        }
        if let Some((stream, seq)) = &self.parent {
            put(Attribute::Parent { stream: *stream.as_bytes(), seq: *seq });
        }
        (bytes, count)
    }

    /// Adds an attribute that was read from a catalog batch.
    pub(crate) fn take(&mut self, attribute: &Attribute<'_>) {
        match *attribute {
            Attribute::Name("") => self.name = Some(NameChange::None),
            Attribute::Name(name) => self.name = Some(NameChange::Given(name.into())),
            Attribute::Label { key, value } => {
                self.labels.insert(key.into(), value.map(Into::into));
            }
            Attribute::Data(data) => self.data = Some(data.into()),
            Attribute::State(state) => self.state = Some(state),
            Attribute::Start(start) => self.start = Some(start),
            Attribute::Parent { stream, seq } => {
                self.parent = Some((StreamId::from_bytes(stream), seq));
            }
            Attribute::Optional => {}
        }
    }

    /// Merges a later change into this one.
    pub(crate) fn and(mut self, later: Self) -> Self {
        self.labels.extend(later.labels);
        let rewind = match (self.rewind, later.rewind) {
            (Some(first), Some(later)) => Some(Rewind { to: first.to.min(later.to), ..first }),
            (first, later) => first.or(later),
        };
        Self {
            fork: later.fork.or(self.fork),
            rewind,
            name: later.name.or(self.name),
            labels: self.labels,
            data: later.data.or(self.data),
            state: later.state.or(self.state),
            start: later.start.or(self.start),
            parent: later.parent.or(self.parent),
            shared: later.shared.or(self.shared),
            measured: later.measured.or(self.measured),
        }
    }

    /// Returns the metadata after this change.
    pub(crate) fn apply(&self, before: &Meta) -> Meta {
        let mut meta = before.clone();
        if let Some(name) = &self.name {
            meta.name = Some(name.as_str()).filter(|name| !name.is_empty()).map(Into::into);
        }
        for (key, value) in &self.labels {
            match value {
                Some(value) => meta.labels.insert(key.clone(), value.clone()),
                None => meta.labels.remove(key),
            };
        }
        if let Some(data) = &self.data {
            meta.data = Some(Arc::clone(data)).filter(|data| !data.is_empty());
        }
        meta.parent = self.parent.or(meta.parent);
        meta
    }
}
