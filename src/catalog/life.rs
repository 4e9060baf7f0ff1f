//! What is said of a stream beside its events, and what it was before: names, labels, states.
//!
//! A stream of which nothing is said has none of this. Each commit that says something makes a new
//! version, which knows from which place in the log on it is true; so a snapshot finds what was true when it
//! was taken, without a lock, however the stream has changed since.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Cold, LogPlace, ReservedName, Shared};
use crate::format::{Attribute, ColdSeqs, put_attribute};
use crate::index::At;
use crate::types::{StreamId, StreamState};

/// What the host says of a stream.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Meta {
    pub(crate) name: Option<Box<str>>,
    pub(crate) labels: BTreeMap<Box<str>, Box<str>>,
    pub(crate) data: Option<Arc<[u8]>>,
    /// What it was forked from, and where.
    pub(crate) parent: Option<(StreamId, u64)>,
}

/// Of fewer versions than this nobody asks which of them are needed.
const VERSIONS_MIN: u32 = 4;

/// What is true of a stream from a place on.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// The commit that made it so starts here.
    pub(crate) from: LogPlace,
    /// `None`: the stream's first branch.
    pub(crate) tip: Option<At>,
    pub(crate) state: StreamState,
    /// The first seq that is not forgotten.
    pub(crate) start: u64,
    pub(crate) meta: Arc<Meta>,
    /// What of it is in archive files.
    pub(super) cold: Option<Arc<Cold>>,
    pub(super) older: Option<Arc<Self>>,
    pub(super) depth: Depth,
}

/// How many versions stand behind one.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Depth {
    versions: u32,
    /// With so many it is asked again which of them are needed: with twice as many as were, so that each version costs
    /// the same however long a snapshot keeps them.
    ask_at: u32,
}

impl Depth {
    /// That of a version in front of this one.
    pub(super) fn behind(older: Option<&Arc<Version>>) -> Self {
        let before = older.map_or_else(Self::default, |older| older.depth);
        let versions = before.versions + u32::from(older.is_some());
        Self { versions, ask_at: before.ask_at.max(VERSIONS_MIN) }
    }
}

impl Version {
    /// Whether it is time to [`forget`](Self::forget) older ones. Of a deleted stream all are kept: they say where it
    /// was deleted.
    pub(super) fn is_deep(&self) -> bool {
        self.state != StreamState::Deleted && self.depth.versions >= self.depth.ask_at
    }

    /// Forgets older versions that nobody sees who sees what is in front of `horizon`. Who has found one of them keeps it.
    pub(super) fn forget(&mut self, horizon: LogPlace) {
        let mut kept = Vec::new();
        let mut next = self.older.clone();
        while let Some(version) = next {
            next = version.older.clone().filter(|_| version.from >= horizon);
            kept.push(version);
        }
        let is_cut = kept.last().is_some_and(|oldest| oldest.older.is_some());
        if is_cut {
            self.older = None;
            for version in kept.iter().rev() {
                let mut copy = Self::clone(version);
                copy.older = self.older.take();
                copy.depth = Depth::behind(copy.older.as_ref());
                self.older = Some(Arc::new(copy));
            }
            self.depth = Depth::behind(self.older.as_ref());
        }
        self.depth.ask_at = self.depth.versions.saturating_mul(2).max(VERSIONS_MIN);
    }

    /// The version that was true in front of `end`.
    pub(super) fn before(self: &Arc<Self>, end: LogPlace) -> Option<Arc<Self>> {
        let mut at = self;
        while at.from >= end {
            at = at.older.as_ref()?;
        }
        Some(Arc::clone(at))
    }
}

impl Drop for Version {
    /// One after the other: however many there are, the call stack does not grow.
    fn drop(&mut self) {
        let mut next = self.older.take();
        while let Some(mut one) = next.and_then(Arc::into_inner) {
            next = one.older.take();
        }
    }
}

/// The stream starts with events that it shares with another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fork {
    /// The branch that they are in, or in whose bases they are.
    pub(crate) base: StreamId,
    pub(crate) base_generation: u32,
    /// The first seq that is the stream's own.
    pub(crate) seq: u64,
    /// Behind every generation of what it shares, so that no seq is given twice in one.
    pub(crate) generation: u32,
}

/// What stood from a seq on is no part of the stream any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rewind {
    pub(crate) to: u64,
    /// The head that whoever asked for it saw.
    pub(crate) seen: u64,
}

/// A name that a commit gives or takes away.
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

/// What one commit says of one stream beside its events.
#[derive(Clone, Default, Debug)]
pub(crate) struct Change {
    pub(crate) fork: Option<Fork>,
    pub(crate) rewind: Option<Rewind>,
    pub(crate) name: Option<NameChange>,
    /// `None`: the label is taken away.
    pub(crate) labels: BTreeMap<Box<str>, Option<Box<str>>>,
    /// Empty: it is taken away.
    pub(crate) data: Option<Arc<[u8]>>,
    pub(crate) state: Option<StreamState>,
    pub(crate) start: Option<u64>,
    pub(crate) parent: Option<(StreamId, u64)>,
    /// What moved to its archive file.
    pub(crate) cold: Option<ColdSeqs>,
    /// Keeps what a fork shares until the fork is committed.
    pub(crate) shared: Option<Arc<Shared>>,
    /// It is said only if the stream's last commit is still the one that starts here.
    pub(crate) untouched: Option<LogPlace>,
}

impl Change {
    /// Whether it changes what is known of the stream, and not only where its events are.
    pub(crate) fn has_attributes(&self) -> bool {
        self.name.is_some()
            || !self.labels.is_empty()
            || self.data.is_some()
            || self.state.is_some()
            || self.start.is_some()
            || self.parent.is_some()
            || self.cold.is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.has_attributes() && self.fork.is_none() && self.rewind.is_none()
    }

    /// The bytes of the catalog batch, and how many attributes they are.
    pub(crate) fn encode(&self) -> (Vec<u8>, u32) {
        let (mut bytes, mut count) = (Vec::new(), 0);
        let mut put = |attribute: Attribute<'_>| {
            put_attribute(&attribute, &mut bytes);
            count += 1;
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
        if let Some(cold) = self.cold {
            put(Attribute::Cold(cold));
        }
        (bytes, count)
    }

    /// Takes in an attribute that was read.
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
            Attribute::Cold(seqs) => self.cold = Some(seqs),
            Attribute::Optional => {}
        }
    }

    /// Puts `later` on top.
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
            cold: later.cold.or(self.cold),
            shared: later.shared.or(self.shared),
            untouched: later.untouched.or(self.untouched),
        }
    }

    /// What the stream is behind this change.
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
