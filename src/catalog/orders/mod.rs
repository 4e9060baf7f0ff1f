//! Sorted lists of streams, kept from the second list on.
//!
//! A commit only reports, once, that a stream has moved since it was last sorted. A reader that
//! lists brings the lists up to date and keeps a copy, which shares its nodes with later copies. No
//! reader waits: of two at once, one scans all streams instead.

mod labels;
#[cfg(all(test, feature = "sim"))]
mod tests;

use std::cmp::Ordering as Compared;
use std::iter::Peekable;
use std::sync::Arc;

use self::labels::{LabelOrders, Labelled};
use super::cursor::ListKey;
use super::query::{ListScan, Order};
use super::{Branch, Catalog, Version};
use crate::index::{ArenaId, Ordered, Walk};
use crate::sabotage::{Sabotage, broken};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, mpsc, process};
use crate::types::{StreamId, StreamState};

/// Divisor of the number of branches: up to that many new and moved streams are inserted singly;
/// with more of them, all streams are sorted again.
const SORTED_PART: usize = 8;
/// Number of stream states.
const STATES: usize = 3;
const ALL_STATES: [StreamState; STATES] =
    [StreamState::Active, StreamState::Archived, StreamState::Deleted];

/// Sorted lists of a catalog, with the queue of streams that moved.
pub(super) struct Listing {
    kept: Mutex<LiveOrders>,
    /// Reports that a sorted stream has moved.
    moved: mpsc::Sender<ArenaId>,
    /// Set once streams were listed, so that a program that lists only once builds no lists.
    was_asked: AtomicBool,
    /// Process that created the lists.
    process: u32,
}

struct LiveOrders {
    moved: mpsc::Receiver<ArenaId>,
    orders: Orders,
    /// Place of each stream in the lists, by the index of its first branch. Later branches are
    /// still unseen.
    listed: Vec<Listed>,
    /// Bytes of the lists by labels that the catalog counts.
    counted: usize,
}

/// Place of a stream in the lists.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Listed {
    /// Position of the stream's last commit; 0 before the first.
    last: u64,
    state: StreamState,
    /// Set when the stream is in the list of forks.
    is_child: bool,
}

/// Sorted lists of streams, each given by its first branch.
#[derive(Clone, Default, Debug)]
pub(super) struct Orders {
    states: [StateLists; STATES],
    /// Forks, by parent and then by id.
    children: Ordered<(StreamId, ArenaId)>,
    labels: LabelOrders,
}

/// Sorted lists of the streams in one state.
#[derive(Clone, Default, Debug)]
struct StateLists {
    /// Streams by id.
    created: Ordered<ArenaId>,
    /// Streams by the position of the last commit, and then by id.
    committed: Ordered<Committed>,
}

/// Stream with the position of its last commit, in three words because a log may have very many
/// streams.
#[derive(Clone, Copy, Debug)]
struct Committed {
    high: u32,
    low: u32,
    root: ArenaId,
}

impl Committed {
    fn new(last: u64, root: ArenaId) -> Self {
        Self { high: (last >> u32::BITS) as u32, low: last as u32, root }
    }

    fn last(self) -> u64 {
        u64::from(self.high) << u32::BITS | u64::from(self.low)
    }
}

fn index_of(state: StreamState) -> usize {
    match state {
        StreamState::Active => 0,
        StreamState::Archived => 1,
        StreamState::Deleted => 2,
    }
}

impl Default for Listing {
    fn default() -> Self {
        let (moved, receiver) = mpsc::channel();
        let orders = Orders::default();
        let kept = LiveOrders { moved: receiver, orders, listed: Vec::new(), counted: 0 };
        Self {
            kept: Mutex::new(kept),
            moved,
            was_asked: AtomicBool::new(false),
            process: process(),
        }
    }
}

impl Listing {
    /// Reports that a stream has moved in the lists. Called by the writer only, after it has noted
    /// the commit.
    pub(super) fn note_moved(&self, first: &Branch, root: ArenaId) {
        // A reader sets the flag before it reads the stream's place, so one of the two sees the
        // other.
        if first.is_listed.swap(false, Ordering::AcqRel) {
            let _ = self.moved.send(root);
        }
    }

    /// Tells whether nothing was listed before.
    pub(super) fn is_first(&self) -> bool {
        !self.was_asked.swap(true, Ordering::Relaxed)
    }

    /// Locks the lists. `None` while another reader holds them, and in a fork of the process: a
    /// message that a writer of the parent was sending would never be complete.
    fn try_lock(&self) -> Option<MutexGuard<'_, LiveOrders>> {
        if self.process != process() && !broken(Sabotage::ListAsParent) {
            return None;
        }
        // A reader that panicked may have left the lists half updated.
        self.kept.try_lock(|kept| (kept.orders, kept.listed) = (Orders::default(), Vec::new()))
    }
}

impl LiveOrders {
    /// Sorts in the streams that are new or have moved, and makes the lists of this order if they
    /// are not kept.
    fn bring_up_to_date(&mut self, catalog: &Catalog, order: &Order) {
        let is_kept = order.label_key().is_none_or(|key| self.orders.labels.ask(key));
        self.sort_in(catalog, is_kept);
        catalog.count_label_lists(&mut self.counted, self.orders.labels.bytes());
    }

    fn sort_in(&mut self, catalog: &Catalog, is_kept: bool) {
        let moved: Vec<ArenaId> = self.moved.try_iter().collect();
        let branches = catalog.branches.len() as usize;
        let changed = moved.len().saturating_add(branches).saturating_sub(self.listed.len());
        // The lists of a new label are made with all others: in one copy of the lists, a stream is
        // everywhere at the place that it had at one moment.
        if !is_kept || changed > branches / SORTED_PART {
            return self.sort_all(catalog);
        }
        for root in moved {
            self.put(catalog, root);
        }
        for (root, branch) in catalog.branches.iter_from(self.listed.len() as u32) {
            self.listed.push(Listed::default());
            if branch.is_first() {
                self.add(catalog, root, branch);
            }
        }
    }

    fn sort_all(&mut self, catalog: &Catalog) {
        self.listed = Vec::with_capacity(catalog.branches.len() as usize);
        let mut states: [(Vec<ArenaId>, Vec<Committed>); STATES] = Default::default();
        let mut children = Vec::new();
        let mut labelled = self.orders.labels.entries();
        for (root, branch) in catalog.branches.iter() {
            if !branch.is_first() {
                self.listed.push(Listed::default());
                continue;
            }
            let (listed, version) = catalog.listed_now(branch);
            self.listed.push(listed);
            if let Some(version) = &version {
                let labels = &self.orders.labels;
                labelled.push(labels, (root, listed.state), |key| version.label(key));
            }
            let (created, committed) = &mut states[index_of(listed.state)];
            created.push(root);
            committed.push(Committed::new(listed.last, root));
            children.extend(parent_in(&version).map(|parent| (parent, root)));
        }
        let id = |root: &ArenaId| catalog.id_of(*root);
        self.orders.states = states.map(|(mut created, mut committed)| {
            created.sort_by_cached_key(id);
            committed.sort_unstable_by_key(|entry| entry.last());
            for together in committed.chunk_by_mut(|entry, next| entry.last() == next.last()) {
                together.sort_unstable_by_key(|entry| id(&entry.root));
            }
            StateLists { created: Ordered::of(&created), committed: Ordered::of(&committed) }
        });
        children.sort_unstable_by_key(|(parent, root)| (*parent, id(root)));
        self.orders.children = Ordered::of(&children);
        self.orders.labels.sort_all(catalog, labelled);
    }

    fn listed(&mut self, root: ArenaId) -> Option<&mut Listed> {
        self.listed.get_mut(root.index())
    }

    fn add(&mut self, catalog: &Catalog, root: ArenaId, first: &Branch) {
        let (now, version) = catalog.listed_now(first);
        self.orders.put(catalog, root, (now.state, now.last));
        self.orders.put_labels(catalog, (root, now.state), version.as_deref());
        if let Some(parent) = parent_in(&version) {
            self.orders.put_child(catalog, parent, root);
        }
        if let Some(listed) = self.listed(root) {
            *listed = now;
        }
    }

    /// Moves a stream to its current place.
    fn put(&mut self, catalog: &Catalog, root: ArenaId) {
        let Some(first) = catalog.branch(root) else { return };
        let Some(before) = self.listed(root).map(|listed| *listed) else { return };
        self.orders.take(catalog, root, (before.state, before.last));
        let (now, version) = catalog.listed_now(first);
        self.orders.put(catalog, root, (now.state, now.last));
        self.orders.put_labels(catalog, (root, now.state), version.as_deref());
        if let Some(parent) = parent_in(&version).filter(|_| !before.is_child) {
            self.orders.put_child(catalog, parent, root);
        }
        if let Some(listed) = self.listed(root) {
            *listed = Listed { is_child: before.is_child || now.is_child, ..now };
        }
    }
}

fn parent_in(version: &Option<Arc<Version>>) -> Option<StreamId> {
    version.as_ref()?.meta.parent.map(|(parent, _)| parent)
}

impl Orders {
    fn put(&mut self, catalog: &Catalog, root: ArenaId, (state, last): (StreamState, u64)) {
        let id = catalog.id_of(root);
        let StateLists { created, committed } = &mut self.states[index_of(state)];
        created.insert(root, |other| catalog.id_of(*other) <= id);
        let up_to = |other: &Committed| (other.last(), catalog.id_of(other.root)) <= (last, id);
        committed.insert(Committed::new(last, root), up_to);
    }

    fn take(&mut self, catalog: &Catalog, root: ArenaId, (state, last): (StreamState, u64)) {
        let id = catalog.id_of(root);
        let StateLists { created, committed } = &mut self.states[index_of(state)];
        created.remove(|other| catalog.id_of(*other) <= id, |other| *other == root);
        let up_to = |other: &Committed| (other.last(), catalog.id_of(other.root)) <= (last, id);
        committed.remove(up_to, |other| other.root == root);
    }

    /// Sets the state and the labels of a stream with this version.
    fn put_labels(
        &mut self,
        catalog: &Catalog,
        at: (ArenaId, StreamState),
        version: Option<&Version>,
    ) {
        self.labels.put(catalog, at, |key| version.and_then(|version| version.label(key)));
    }

    fn put_child(&mut self, catalog: &Catalog, parent: StreamId, root: ArenaId) {
        let key = (parent, catalog.id_of(root));
        let up_to = |(parent, root): &(StreamId, ArenaId)| (*parent, catalog.id_of(*root)) <= key;
        self.children.insert((parent, root), up_to);
    }
}

/// Iterator that merges several sorted lists.
struct Merged<I: Iterator<Item = (ListKey, ArenaId)>> {
    lists: [Option<Peekable<I>>; STATES],
    is_descending: bool,
}

impl<I: Iterator<Item = (ListKey, ArenaId)>> Iterator for Merged<I> {
    type Item = (ListKey, ArenaId);

    fn next(&mut self) -> Option<Self::Item> {
        let heads = self.lists.iter_mut().flatten();
        let heads = heads.filter_map(|list| Some((list.peek()?.0.clone(), list)));
        let next = match self.is_descending {
            false => heads.min_by(|(one, _), (other, _)| one.cmp(other)),
            true => heads.max_by(|(one, _), (other, _)| one.cmp(other)),
        };
        next?.1.next()
    }
}

impl Orders {
    /// Returns the streams whose states match, in the scan's order from its start on.
    pub(super) fn streams<'a, F: Fn(StreamState) -> bool>(
        &'a self,
        catalog: &'a Catalog,
        scan: &ListScan<'a>,
        wants: F,
    ) -> impl Iterator<Item = (ListKey, ArenaId)> + use<'a, F> {
        let list = |state| wants(state).then(|| self.of_state(catalog, scan, state).peekable());
        let lists = ALL_STATES.map(list);
        Merged { lists, is_descending: scan.is_descending }
    }

    /// Returns the forks of a stream by id, from the scan's start on.
    pub(super) fn children<'a>(
        &'a self,
        catalog: &'a Catalog,
        scan: &ListScan<'_>,
        parent: StreamId,
    ) -> impl Iterator<Item = (ListKey, ArenaId)> + use<'a> {
        let key = move |child: &(StreamId, ArenaId)| (child.0, catalog.id_of(child.1));
        let from = scan.from.as_ref().map(|from| (parent, from.id));
        let list = match scan.is_descending {
            false => self.children.forwards(move |child| match from {
                Some(from) => key(child) <= from,
                None => child.0 < parent,
            }),
            true => self.children.backwards(move |child| match from {
                Some(from) => key(child) < from,
                None => child.0 <= parent,
            }),
        };
        let own = list.take_while(move |child| child.0 == parent);
        own.map(move |child| (ListKey::of_id(catalog.id_of(child.1)), child.1))
    }

    /// Returns the streams in one state, in the scan's order from its start on.
    fn of_state<'a>(
        &'a self,
        catalog: &'a Catalog,
        scan: &ListScan<'a>,
        state: StreamState,
    ) -> impl Iterator<Item = (ListKey, ArenaId)> + use<'a> {
        let lists = &self.states[index_of(state)];
        let created = move |root: &ArenaId| ListKey::of_id(catalog.id_of(*root));
        let committed = move |entry: &Committed| ListKey {
            last: entry.last(),
            ..ListKey::of_id(catalog.id_of(entry.root))
        };
        let (mut by_id, mut by_place, mut by_value) = (None, None, None);
        match scan.order {
            Order::Created => {
                by_id = Some(scan.through(&lists.created, |root, from| created(root).cmp(from)));
            }
            Order::Committed => {
                let compare = |entry: &Committed, from: &ListKey| committed(entry).cmp(from);
                by_place = Some(scan.through(&lists.committed, compare));
            }
            Order::Label(key) => {
                let compare = |entry: &Labelled, from: &ListKey| entry.cmp_list_key(catalog, from);
                let list = self.labels.get(key).map(|lists| lists.of_state(state));
                by_value = list.map(|list| scan.through(list, compare));
            }
        }
        let by_id = by_id.into_iter().flatten().map(move |root| (created(&root), root));
        let by_place = by_place.into_iter().flatten();
        let by_value = by_value.into_iter().flatten();
        by_id
            .chain(by_place.map(move |entry| (committed(&entry), entry.root)))
            .chain(by_value.map(move |entry| (entry.list_key(catalog), entry.root)))
    }
}

impl ListScan<'_> {
    fn through<'a, T: Clone>(
        &self,
        list: &'a Ordered<T>,
        compare: impl Fn(&T, &ListKey) -> Compared,
    ) -> Walk<'a, T> {
        let from = self.from.as_ref();
        match self.is_descending {
            false => list.forwards(|entry| from.is_some_and(|from| compare(entry, from).is_le())),
            true => list.backwards(|entry| from.is_none_or(|from| compare(entry, from).is_lt())),
        }
    }
}

impl Catalog {
    fn id_of(&self, root: ArenaId) -> StreamId {
        self.branch(root).map_or(StreamId::from_bytes([0; 16]), |first| first.stream)
    }

    /// Returns the current place of a stream and its version. The writer reports moves of
    /// the stream from now on.
    fn listed_now(&self, first: &Branch) -> (Listed, Option<Arc<Version>>) {
        first.is_listed.swap(true, Ordering::AcqRel);
        // The version comes first: a reader that sees a commit's change also sees its place.
        let version = self.version_of(first);
        let state = version.as_ref().map_or(StreamState::Active, |version| version.state);
        let tip = version.as_ref().and_then(|version| version.tip);
        let tip = tip.and_then(|tip| self.branch(tip)).unwrap_or(first);
        let is_child = parent_in(&version).is_some();
        (Listed { last: tip.last(), state, is_child }, version)
    }

    /// Returns the sorted lists as they are now, with those of this order; `None` when they are
    /// locked and the caller has to scan all streams.
    pub(super) fn orders(&self, order: &Order) -> Option<Orders> {
        let mut kept = self.listing.try_lock()?;
        kept.bring_up_to_date(self, order);
        Some(kept.orders.clone())
    }
}

impl Orders {
    /// Tells whether these are the lists of this order, too.
    pub(super) fn has(&self, order: &Order) -> bool {
        order.label_key().is_none_or(|key| self.labels.get(key).is_some())
    }

    /// Returns the streams whose last commit is after this position, and those that are being
    /// committed for the first time, each with its state and the position of its last commit.
    pub(super) fn since(&self, position: u64) -> Vec<(ArenaId, (StreamState, u64))> {
        let mut all = Vec::new();
        for state in ALL_STATES {
            let committed = &self.states[index_of(state)].committed;
            let later = committed.backwards(|_| true).take_while(|entry| entry.last() > position);
            let earlier = committed.forwards(|_| false);
            let earlier = earlier.take_while(|entry| entry.last() == 0);
            let entries = later.chain(earlier);
            all.extend(entries.map(|entry| (entry.root, (state, entry.last()))));
        }
        all
    }

    /// Moves a stream from where it is `listed` to where it `was`, with the labels that it had;
    /// `None` for a stream that did not exist.
    pub(super) fn move_back<'a>(
        &mut self,
        catalog: &Catalog,
        (root, listed): (ArenaId, (StreamState, u64)),
        was: Option<(StreamState, u64)>,
        label: impl Fn(&str) -> Option<&'a str>,
    ) {
        self.take(catalog, root, listed);
        if let Some(was) = was {
            self.put(catalog, root, was);
        }
        if !broken(Sabotage::SortByNewest) {
            let (state, _) = was.unwrap_or(listed);
            self.labels.put(catalog, (root, state), label);
        }
    }
}
