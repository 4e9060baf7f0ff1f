//! Change of one stream in one commit, besides its events: pure data.
//!
//! The handle collects a [`Change`], the writer encodes it, recovery reads it back, and the catalog
//! applies it. Locks, charges and reservations that go with a change belong to its commit.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::format::{Attribute, put_attribute};
use crate::types::{StreamId, StreamState};

/// Bytes of one node of the map of labels. A node holds six labels that were inserted in order.
const LABEL_NODE_BYTES: usize = 376;
const LABELS_PER_NODE: usize = 6;

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

/// Changes to one stream in one commit, besides its events.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    pub(crate) fork: Option<Fork>,
    pub(crate) rewind: Option<Rewind>,
    /// New name; an empty name removes it.
    pub(crate) name: Option<Box<str>>,
    /// Labels that are set; `None` removes a label.
    pub(crate) labels: BTreeMap<Box<str>, Option<Box<str>>>,
    /// New data; empty data removes it.
    pub(crate) data: Option<Arc<[u8]>>,
    pub(crate) state: Option<StreamState>,
    /// First seq that is not trimmed.
    pub(crate) start: Option<u64>,
    /// Stream and seq that this stream was forked from.
    pub(crate) parent: Option<(StreamId, u64)>,
    /// True if this is all there is to say of the stream: it supersedes everything said before.
    /// Only a compaction makes such a change.
    pub(crate) is_summary: bool,
}

impl Change {
    /// Returns the attributes of the metadata that this changes, in the order of a catalog batch.
    fn attributes(&self) -> impl Iterator<Item = Attribute<'_>> {
        // A new field does not compile until it is listed here, in `and` and in `Meta::after`.
        let Self { fork: _, rewind: _, name, labels, data, state, start, parent, is_summary } =
            self;
        let summary = is_summary.then_some(Attribute::Summary);
        let labels = labels.iter().map(|(key, value)| {
            let value = value.as_deref();
            Attribute::Label { key, value }
        });
        let parent = parent.iter().map(|(stream, seq)| {
            let stream = *stream.as_bytes();
            Attribute::Parent { stream, seq: *seq }
        });
        let name = name.iter().map(|name| Attribute::Name(name));
        summary
            .into_iter()
            .chain(name)
            .chain(labels)
            .chain(data.iter().map(|data| Attribute::Data(data)))
            .chain(state.map(Attribute::State))
            .chain(start.map(Attribute::Start))
            .chain(parent)
    }

    /// Returns true if this changes the metadata, and not only the place of events.
    pub(crate) fn has_attributes(&self) -> bool {
        self.attributes().next().is_some()
    }

    /// Returns true if this asks the log to keep more: a fork, a name, labels or data.
    pub(crate) fn asks_to_keep(&self) -> bool {
        self.fork.is_some()
            || self.parent.is_some()
            || self.name.as_ref().is_some_and(|name| !name.is_empty())
            || self.labels.values().any(Option::is_some)
            || self.data.as_ref().is_some_and(|data| !data.is_empty())
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the bytes used beyond the struct itself.
    pub(crate) fn memory_bytes(&self) -> usize {
        let value_bytes = |attribute| match attribute {
            Attribute::Name(name) => name.len(),
            Attribute::Label { key, value } => key.len().saturating_add(value.map_or(0, str::len)),
            Attribute::Data(data) => data_bytes(data),
            Attribute::State(_) | Attribute::Start(_) => 0,
            Attribute::Parent { .. } | Attribute::Summary | Attribute::Optional => 0,
        };
        let nodes = label_nodes_bytes(self.labels.len());
        self.attributes().map(value_bytes).chain([nodes]).sum()
    }

    /// Returns the bytes of the catalog batch and the number of its attributes.
    pub(crate) fn encode(&self) -> (Vec<u8>, u32) {
        let mut bytes = Vec::new();
        let mut count = 0_u32;
        for attribute in self.attributes() {
            put_attribute(&attribute, &mut bytes);
            count = count.saturating_add(1);
        }
        (bytes, count)
    }

    /// Adds an attribute that was read from a catalog batch.
    pub(crate) fn take(&mut self, attribute: &Attribute<'_>) {
        match *attribute {
            Attribute::Name(name) => self.name = Some(name.into()),
            Attribute::Label { key, value } => {
                self.labels.insert(key.into(), value.map(Into::into));
            }
            Attribute::Data(data) => self.data = Some(data.into()),
            Attribute::State(state) => self.state = Some(state),
            Attribute::Start(start) => self.start = Some(start),
            Attribute::Parent { stream, seq } => {
                self.parent = Some((StreamId::from_bytes(stream), seq));
            }
            Attribute::Summary => self.is_summary = true,
            Attribute::Optional => {}
        }
    }

    /// Merges a later change into this one.
    pub(crate) fn and(self, later: Self) -> Self {
        let Self {
            fork,
            rewind,
            name,
            labels: later_labels,
            data,
            state,
            start,
            parent,
            is_summary,
        } = later;
        let mut labels = self.labels;
        labels.extend(later_labels);
        let rewind = match (self.rewind, rewind) {
            (Some(first), Some(later)) => Some(Rewind { to: first.to.min(later.to), ..first }),
            (first, later) => first.or(later),
        };
        Self {
            fork: fork.or(self.fork),
            rewind,
            name: name.or(self.name),
            labels,
            data: data.or(self.data),
            state: state.or(self.state),
            start: start.or(self.start),
            parent: parent.or(self.parent),
            is_summary: self.is_summary || is_summary,
        }
    }
}

/// Returns an upper bound on the bytes of a map with this number of labels, without their texts.
pub(crate) fn label_nodes_bytes(labels: usize) -> usize {
    labels.div_ceil(LABELS_PER_NODE).saturating_mul(LABEL_NODE_BYTES)
}

/// Returns the bytes of shared data, which include two reference counts.
pub(crate) fn data_bytes(data: &[u8]) -> usize {
    size_of::<[usize; 2]>().saturating_add(data.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Attributes;

    fn of_all_fields() -> Change {
        let base = StreamId::new();
        Change {
            fork: Some(Fork { base, base_generation: 1, seq: 2, generation: 3 }),
            rewind: Some(Rewind { to: 4, seen: 5 }),
            name: Some("name".into()),
            labels: [("set".into(), Some("value".into())), ("gone".into(), None)].into(),
            data: Some([6; 7].into()),
            state: Some(StreamState::Archived),
            start: Some(8),
            parent: Some((base, 9)),
            is_summary: true,
        }
    }

    /// Decoding returns the encoded change, and merging an empty change into it, or it into an
    /// empty one, changes nothing.
    #[test]
    fn p5_a_change_keeps_every_field() {
        let change = of_all_fields();
        assert_eq!(change.clone().and(Change::default()), change);
        assert_eq!(Change::default().and(change.clone()), change);
        let (bytes, count) = change.encode();
        // The fork and the rewind have batches of their own.
        let mut read = Change { fork: change.fork, rewind: change.rewind, ..Change::default() };
        let mut attributes = 0;
        for attribute in Attributes(&bytes) {
            read.take(&attribute.expect("as written"));
            attributes += 1;
        }
        assert_eq!((read, attributes), (change, count));
        assert!(Change::default().is_empty() && !Change::default().has_attributes());
    }
}
