//! Sorted lists of streams, kept from the second list on.
//!
//! A commit only reports, once, that a stream has moved since it was last sorted. A reader that
//! lists brings the lists up to date and keeps a copy, which shares its nodes with later copies. No
//! reader waits: of two at once, one scans all streams instead.

use std::iter::Peekable;

use super::query::{Cursor, ListScan, Order};
use super::{Branch, Catalog};
use crate::format::Lsn;
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
}

/// Place of a stream in the lists.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Listed {
    /// Start of the stream's last commit.
    place: Lsn,
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
}

/// Sorted lists of the streams in one state.
#[derive(Clone, Default, Debug)]
struct StateLists {
    /// Streams by id.
    created: Ordered<ArenaId>,
    /// Streams by the place of the last commit, and then by id.
    committed: Ordered<Committed>,
}

/// Stream with the start of its last commit, in three words because a log may have very many
/// streams.
#[derive(Clone, Copy, Debug)]
struct Committed {
    segment: u32,
    word: u32,
    root: ArenaId,
}

impl Committed {
    fn new(place: Lsn, root: ArenaId) -> Self {
        Self { segment: place.segment(), word: place.0 as u32, root }
    }

    fn place(self) -> Lsn {
        Lsn(u64::from(self.segment) << 32 | u64::from(self.word))
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
        let kept = LiveOrders { moved: receiver, orders: Orders::default(), listed: Vec::new() };
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
    /// Sorts in the streams that are new or have moved.
    fn bring_up_to_date(&mut self, catalog: &Catalog) {
        let moved: Vec<ArenaId> = self.moved.try_iter().collect();
        let branches = catalog.branches.len() as usize;
        let changed = moved.len().saturating_add(branches).saturating_sub(self.listed.len());
        if changed > branches / SORTED_PART {
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
        for (root, branch) in catalog.branches.iter() {
            if !branch.is_first() {
                self.listed.push(Listed::default());
                continue;
            }
            let (listed, parent) = catalog.listed_now(branch);
            self.listed.push(listed);
            let (created, committed) = &mut states[index_of(listed.state)];
            created.push(root);
            committed.push(Committed::new(listed.place, root));
            children.extend(parent.map(|parent| (parent, root)));
        }
        let id = |root: &ArenaId| catalog.id_of(*root);
        self.orders.states = states.map(|(mut created, mut committed)| {
            created.sort_by_cached_key(id);
            committed.sort_unstable_by_key(|entry| entry.place());
            for together in committed.chunk_by_mut(|entry, next| entry.place() == next.place()) {
                together.sort_unstable_by_key(|entry| id(&entry.root));
            }
            StateLists { created: Ordered::of(&created), committed: Ordered::of(&committed) }
        });
        children.sort_unstable_by_key(|(parent, root)| (*parent, id(root)));
        self.orders.children = Ordered::of(&children);
    }

    fn listed(&mut self, root: ArenaId) -> Option<&mut Listed> {
        self.listed.get_mut(root.index())
    }

    fn add(&mut self, catalog: &Catalog, root: ArenaId, first: &Branch) {
        let (now, parent) = catalog.listed_now(first);
        self.orders.put(catalog, root, (now.state, now.place));
        if let Some(parent) = parent {
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
        self.orders.take(catalog, root, (before.state, before.place));
        let (now, parent) = catalog.listed_now(first);
        self.orders.put(catalog, root, (now.state, now.place));
        if let Some(parent) = parent.filter(|_| !before.is_child) {
            self.orders.put_child(catalog, parent, root);
        }
        if let Some(listed) = self.listed(root) {
            *listed = Listed { is_child: before.is_child || now.is_child, ..now };
        }
    }
}

impl Orders {
    /// Returns the streams whose last commit is not before `end`, and those that are being
    /// committed for the first time and have no place yet, each with its state and its place.
    pub(super) fn since(&self, end: Lsn) -> Vec<(ArenaId, (StreamState, Lsn))> {
        let mut all = Vec::new();
        for state in ALL_STATES {
            let committed = &self.states[index_of(state)].committed;
            let later = committed.backwards(|_| true).take_while(|entry| entry.place() >= end);
            let earlier = committed.forwards(|_| false);
            let earlier = earlier.take_while(|entry| entry.place() == Lsn::default());
            let entries = later.chain(earlier);
            all.extend(entries.map(|entry| (entry.root, (state, entry.place()))));
        }
        all
    }
}

impl Orders {
    pub(super) fn put(
        &mut self,
        catalog: &Catalog,
        root: ArenaId,
        (state, place): (StreamState, Lsn),
    ) {
        let id = catalog.id_of(root);
        let StateLists { created, committed } = &mut self.states[index_of(state)];
        created.insert(root, |other| catalog.id_of(*other) <= id);
        let up_to = |other: &Committed| (other.place(), catalog.id_of(other.root)) <= (place, id);
        committed.insert(Committed::new(place, root), up_to);
    }

    pub(super) fn take(
        &mut self,
        catalog: &Catalog,
        root: ArenaId,
        (state, place): (StreamState, Lsn),
    ) {
        let id = catalog.id_of(root);
        let StateLists { created, committed } = &mut self.states[index_of(state)];
        created.remove(|other| catalog.id_of(*other) <= id, |other| *other == root);
        let up_to = |other: &Committed| (other.place(), catalog.id_of(other.root)) <= (place, id);
        committed.remove(up_to, |other| other.root == root);
    }

    fn put_child(&mut self, catalog: &Catalog, parent: StreamId, root: ArenaId) {
        let key = (parent, catalog.id_of(root));
        let up_to = |(parent, root): &(StreamId, ArenaId)| (*parent, catalog.id_of(*root)) <= key;
        self.children.insert((parent, root), up_to);
    }
}

/// Iterator that merges several sorted lists.
struct Merged<I: Iterator<Item = (Cursor, ArenaId)>> {
    lists: [Option<Peekable<I>>; STATES],
    is_descending: bool,
}

impl<I: Iterator<Item = (Cursor, ArenaId)>> Iterator for Merged<I> {
    type Item = (Cursor, ArenaId);

    fn next(&mut self) -> Option<Self::Item> {
        let heads = self.lists.iter_mut().flatten();
        let heads = heads.filter_map(|list| Some((list.peek()?.0, list)));
        let next = match self.is_descending {
            false => heads.min_by_key(|(cursor, _)| *cursor),
            true => heads.max_by_key(|(cursor, _)| *cursor),
        };
        next?.1.next()
    }
}

impl Orders {
    /// Returns the streams whose states match, in the scan's order from its start on.
    pub(super) fn streams<'a>(
        &'a self,
        catalog: &'a Catalog,
        scan: ListScan,
        wants: impl Fn(StreamState) -> bool,
    ) -> impl Iterator<Item = (Cursor, ArenaId)> + 'a {
        let list = |state| {
            wants(state).then(|| self.states[index_of(state)].list(catalog, scan).peekable())
        };
        let lists = ALL_STATES.map(list);
        Merged { lists, is_descending: scan.is_descending }
    }

    /// Returns the forks of a stream by id, from the scan's start on.
    pub(super) fn children<'a>(
        &'a self,
        catalog: &'a Catalog,
        scan: ListScan,
        parent: StreamId,
    ) -> impl Iterator<Item = (Cursor, ArenaId)> + 'a {
        let key = move |child: &(StreamId, ArenaId)| (child.0, catalog.id_of(child.1));
        let from = scan.from.map(|from| (parent, from.id));
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
        own.map(move |child| (Cursor { place: 0, id: catalog.id_of(child.1) }, child.1))
    }
}

impl StateLists {
    fn list<'a>(
        &'a self,
        catalog: &'a Catalog,
        scan: ListScan,
    ) -> impl Iterator<Item = (Cursor, ArenaId)> + 'a {
        let created = move |root: &ArenaId| Cursor { place: 0, id: catalog.id_of(*root) };
        let committed = move |entry: &Committed| Cursor {
            place: entry.place().0,
            id: catalog.id_of(entry.root),
        };
        let (mut by_id, mut by_place) = (None, None);
        match scan.order {
            Order::Created => by_id = Some(scan.through(&self.created, created)),
            Order::Committed => by_place = Some(scan.through(&self.committed, committed)),
        }
        let by_id = by_id.into_iter().flatten().map(move |root| (created(&root), root));
        by_id
            .chain(by_place.into_iter().flatten().map(move |entry| (committed(&entry), entry.root)))
    }
}

impl ListScan {
    pub(super) fn through<T: Copy>(
        self,
        list: &Ordered<T>,
        cursor: impl Fn(&T) -> Cursor,
    ) -> Walk<'_, T> {
        match self.is_descending {
            false => list.forwards(|entry| self.from.is_some_and(|from| cursor(entry) <= from)),
            true => list.backwards(|entry| self.from.is_none_or(|from| cursor(entry) < from)),
        }
    }
}

impl Catalog {
    fn id_of(&self, root: ArenaId) -> StreamId {
        self.branch(root).map_or(StreamId::from_bytes([0; 16]), |first| first.stream)
    }

    /// Returns the current place of a stream and its parent. From now on the writer reports when it
    /// moves.
    fn listed_now(&self, first: &Branch) -> (Listed, Option<StreamId>) {
        first.is_listed.swap(true, Ordering::AcqRel);
        // The version comes first: a reader that sees a commit's change also sees its place.
        let version = self.version_slot(first).map(|version| version.load());
        let state = version.as_ref().map_or(StreamState::Active, |version| version.state);
        let tip = version.as_ref().and_then(|version| version.tip);
        let tip = tip.and_then(|tip| self.branch(tip)).unwrap_or(first);
        let parent = version.as_ref().and_then(|version| version.meta.parent);
        let listed = Listed { place: tip.last(), state, is_child: parent.is_some() };
        (listed, parent.map(|(parent, _)| parent))
    }

    /// Returns the sorted lists as they are now; `None` when they are locked and the caller has to
    /// scan all streams.
    pub(super) fn orders(&self) -> Option<Orders> {
        let mut kept = self.listing.try_lock()?;
        kept.bring_up_to_date(self);
        Some(kept.orders.clone())
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::catalog::{Asked, Page, Query, ReadView};
    use crate::disk::SimDisk;
    use crate::log::Log;
    use crate::stream::Stream;
    use crate::types::Timestamp;

    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound.max(1)
        }
    }

    fn turn(log: &Log, streams: &mut Vec<Stream>, random: &mut Random) {
        let what = random.below(16);
        let at = random.below(streams.len() as u64) as usize;
        let Some(stream) = streams.get_mut(at).filter(|_| what > 1) else {
            return streams.push(log.create_stream().expect("open"));
        };
        match what {
            2 => drop(stream.archive().wait()),
            3 => drop(stream.unarchive().wait()),
            4 => drop(stream.delete().wait()),
            5 => {
                let fork = stream.fork_at(random.below(stream.head().get() + 1));
                streams.extend(fork.ok());
            }
            6 => {
                let _ = stream.rewind(random.below(stream.head().get() + 1));
                let _ = stream.commit().wait();
            }
            7 => drop(stream.set_label("n", &random.below(3).to_string())),
            8 => {
                streams.iter_mut().for_each(|stream| _ = stream.append("together"));
                let _ = log.commit_all(streams.iter_mut()).wait();
            }
            _ => {
                let _ = stream.append("one");
                let _ = stream.commit().wait();
            }
        }
    }

    fn query(streams: &[Stream], random: &mut Random) -> Query {
        let mut query = Query::new().limit(1 + random.below(7) as usize);
        let id = streams.get(random.below(streams.len() as u64) as usize).map(Stream::id);
        let time = id.and_then(|id| id.created()).unwrap_or(Timestamp::from_micros(0));
        if random.below(2) == 0 {
            query = query.order(Order::Committed);
        }
        if random.below(2) == 0 {
            query = query.descending();
        }
        for state in ALL_STATES.into_iter().filter(|_| random.below(2) == 0) {
            query = query.state(state);
        }
        match random.below(6) {
            0 => query.has_label("n"),
            1 => query.label("n", "1"),
            2 => id.map_or(query.clone(), |id| query.parent(id)),
            3 => query.created_from(time),
            4 => query.created_until(time),
            _ => query,
        }
    }

    /// Returns all pages, from the sorted lists or from a scan of all streams.
    fn pages(view: &ReadView, query: &Query, by_orders: bool) -> Vec<Page> {
        let mut query = query.clone();
        let mut pages = Vec::new();
        loop {
            let asked = Asked::new(&query);
            let mut found = match by_orders {
                true => view.take_from(&asked, view.orders().expect("alone")),
                false => view.look_at_all(&asked),
            };
            asked.sort(&mut found);
            let page = view.page(&asked, found);
            let next = page.next;
            pages.push(page);
            match next {
                Some(next) => query = query.after(next),
                None => return pages,
            }
        }
    }

    /// The sorted lists give the same pages as a scan of all streams, for read views of any age and
    /// for logs that were opened again.
    #[test]
    fn p7_p12_lists_in_order_show_what_a_look_at_all_streams_shows() {
        let mut listed = 0;
        for seed in 0..40 {
            let disk = SimDisk::new(seed);
            let mut random = Random(seed);
            let mut log =
                Log::options().segment_bytes_first(16 << 10).open_on(&disk).expect("opens");
            let mut streams = Vec::new();
            let mut views = Vec::<ReadView>::new();
            for round in 0..12 {
                (0..random.below(40)).for_each(|_| turn(&log, &mut streams, &mut random));
                if round == 6 {
                    let ids: Vec<_> = streams.iter().map(Stream::id).collect();
                    streams.clear();
                    views.clear();
                    log.close().expect("closes");
                    log = Log::options().open_on(&disk).expect("opens again");
                    streams.extend(ids.into_iter().filter_map(|id| log.open_stream(id).ok()));
                }
                views.push(log.read_view());
                if views.len() > 4 {
                    views.remove(random.below(4) as usize);
                }
                for view in &views {
                    for _ in 0..4 {
                        let query = query(&streams, &mut random);
                        let pages = [false, true].map(|by| pages(view, &query, by));
                        assert_eq!(pages[0], pages[1], "seed {seed}, round {round}: {query:?}");
                        listed += pages[0].iter().map(|page| page.streams.len()).sum::<usize>();
                    }
                }
            }
        }
        assert!(listed > 10_000, "{listed}");
    }

    /// F37. A writer of the parent may have been sending at the fork: a child that received would
    /// wait forever.
    #[test]
    fn f37_a_child_leaves_the_orders_of_its_parent_alone() {
        let process = process();
        assert!(Listing { process, ..Listing::default() }.try_lock().is_some());
        let parent = process.wrapping_add(1);
        assert!(Listing { process: parent, ..Listing::default() }.try_lock().is_none());
    }

    #[cfg(amberlog_sabotage)]
    #[test]
    fn control_a_child_that_receives_from_its_parent_is_noticed() {
        let _broken = crate::sabotage::sabotage(Sabotage::ListAsParent);
        std::panic::catch_unwind(f37_a_child_leaves_the_orders_of_its_parent_alone)
            .expect_err("the control is not noticed");
    }
}
