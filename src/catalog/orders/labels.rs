//! Sorted lists of the streams that have a label, by its value.
//!
//! An entry keeps the value that it is sorted by, whatever becomes of the label: so it is found
//! again when the label changes, and a copy of the lists needs nothing else.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{ALL_STATES, Catalog, ListKey, STATES, index_of};
use crate::index::{ArenaId, Ordered};
use crate::types::{StreamId, StreamState};

/// Maximum number of keys by which streams are kept sorted.
const LABEL_KEYS_MAX: usize = 8;
/// Bytes of an entry beside its value: one in each of two lists, whose nodes may be half empty, and
/// the counts of the shared value.
const ENTRY_BYTES: usize = 4 * size_of::<Labelled>() + size_of::<[usize; 2]>();

/// Stream with the value of its label.
#[derive(Clone, Debug)]
pub(super) struct Labelled {
    pub(super) value: Arc<str>,
    pub(super) root: ArenaId,
    state: StreamState,
}

/// Streams that have a label.
#[derive(Clone, Default, Debug)]
pub(super) struct LabelLists {
    /// Streams in each state by value, and then by id.
    by_value: [Ordered<Labelled>; STATES],
    /// All of them by their place in the catalog: tells where each is in the other lists.
    by_root: Ordered<Labelled>,
    /// Bytes that the lists take, with all values.
    bytes: usize,
}

/// Lists of the labels that were asked for last.
#[derive(Clone, Default, Debug)]
pub(super) struct LabelOrders {
    /// Lists by key, the one asked for last at the end.
    keys: Vec<(Arc<str>, LabelLists)>,
}

impl Labelled {
    pub(super) fn list_key(&self, catalog: &Catalog) -> ListKey {
        let value = Some(Arc::clone(&self.value));
        ListKey { value, ..ListKey::of_id(catalog.id_of(self.root)) }
    }

    /// Compares the entry's place in the list with this value and id.
    fn cmp(&self, catalog: &Catalog, (value, id): (&str, StreamId)) -> Ordering {
        (*self.value).cmp(value).then_with(|| catalog.id_of(self.root).cmp(&id))
    }

    /// Compares the entry's place in the list with another.
    pub(super) fn cmp_list_key(&self, catalog: &Catalog, key: &ListKey) -> Ordering {
        self.cmp(catalog, (key.value.as_deref().unwrap_or_default(), key.id))
    }

    fn bytes(&self) -> usize {
        ENTRY_BYTES.saturating_add(self.value.len())
    }
}

impl LabelLists {
    /// Returns the lists of these entries, which must be sorted by their place in the catalog.
    fn of(catalog: &Catalog, entries: &[Labelled]) -> Self {
        let in_state = |state| {
            let mut some: Vec<_> =
                entries.iter().filter(|entry| entry.state == state).cloned().collect();
            some.sort_unstable_by(|one, other| {
                one.cmp(catalog, (&other.value, catalog.id_of(other.root)))
            });
            Ordered::of(&some)
        };
        Self {
            by_value: ALL_STATES.map(in_state),
            by_root: Ordered::of(entries),
            bytes: entries.iter().map(Labelled::bytes).sum(),
        }
    }

    /// Returns the streams in a state, by value and then by id.
    pub(super) fn of_state(&self, state: StreamState) -> &Ordered<Labelled> {
        &self.by_value[index_of(state)]
    }

    /// Sets the state of a stream and the value of its label; without a value it is in no list.
    fn put(&mut self, catalog: &Catalog, root: ArenaId, state: StreamState, value: Option<&str>) {
        let up_to_root = |other: &Labelled| other.root <= root;
        let before = self.by_root.backwards(up_to_root).next().filter(|entry| entry.root == root);
        let is_same = |entry: &Labelled| entry.state == state && Some(&*entry.value) == value;
        if before.as_ref().map_or(value.is_none(), is_same) {
            return;
        }
        let id = catalog.id_of(root);
        if let Some(before) = before {
            let up_to = |other: &Labelled| other.cmp(catalog, (&before.value, id)).is_le();
            self.by_value[index_of(before.state)].remove(up_to, |other| other.root == root);
            self.by_root.remove(up_to_root, |other| other.root == root);
            self.bytes = self.bytes.saturating_sub(before.bytes());
        }
        if let Some(value) = value {
            let entry = Labelled { value: value.into(), root, state };
            self.bytes = self.bytes.saturating_add(entry.bytes());
            let up_to = |other: &Labelled| other.cmp(catalog, (value, id)).is_le();
            self.by_value[index_of(state)].insert(entry.clone(), up_to);
            self.by_root.insert(entry, up_to_root);
        }
    }
}

impl LabelOrders {
    /// Returns the lists of a label, if they are kept.
    pub(super) fn get(&self, key: &str) -> Option<&LabelLists> {
        self.keys.iter().find(|(other, _)| **other == *key).map(|(_, lists)| lists)
    }

    /// Notes that a label is asked for. Returns true if its lists are kept; otherwise it has empty
    /// ones, to be [filled](Self::sort_all), and takes the place of the one not asked for longest.
    pub(super) fn ask(&mut self, key: &str) -> bool {
        let at = self.keys.iter().position(|(other, _)| **other == *key);
        let kept = at.map(|at| self.keys.remove(at));
        let is_kept = kept.is_some();
        if !is_kept && self.keys.len() >= LABEL_KEYS_MAX {
            self.keys.remove(0);
        }
        self.keys.push(kept.unwrap_or_else(|| (key.into(), LabelLists::default())));
        is_kept
    }

    /// Sets the state of a stream and its labels in all lists.
    pub(super) fn put<'a>(
        &mut self,
        catalog: &Catalog,
        (root, state): (ArenaId, StreamState),
        label: impl Fn(&str) -> Option<&'a str>,
    ) {
        for (key, lists) in &mut self.keys {
            lists.put(catalog, root, state, label(key));
        }
    }

    /// Replaces all lists. `entries` holds the streams of each in the order of the catalog.
    pub(super) fn sort_all(&mut self, catalog: &Catalog, entries: LabelEntries) {
        for ((_, lists), entries) in self.keys.iter_mut().zip(entries.0) {
            *lists = LabelLists::of(catalog, &entries);
        }
    }

    /// Returns the bytes that the lists take.
    pub(super) fn bytes(&self) -> usize {
        self.keys.iter().map(|(_, lists)| lists.bytes).sum()
    }

    /// Returns an empty set of streams to sort, for the labels of these lists.
    pub(super) fn entries(&self) -> LabelEntries {
        LabelEntries(vec![Vec::new(); self.keys.len()])
    }
}

/// Streams to sort, for each label.
pub(super) struct LabelEntries(Vec<Vec<Labelled>>);

impl LabelEntries {
    pub(super) fn push<'a>(
        &mut self,
        orders: &LabelOrders,
        (root, state): (ArenaId, StreamState),
        label: impl Fn(&str) -> Option<&'a str>,
    ) {
        for ((key, _), entries) in orders.keys.iter().zip(&mut self.0) {
            let value = label(key).map(Into::into);
            entries.extend(value.map(|value| Labelled { value, root, state }));
        }
    }
}
