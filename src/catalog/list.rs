//! Lists of streams, page by page, from memory.

use std::ops::{Bound, Range};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::cursor::{Cursor, ListKey};
use super::orders::Orders;
use super::query::{ListScan, Order, Query};
use super::view::View;
use super::{Branch, ReadView, StreamInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::index::ArenaId;
use crate::types::{Seq, StreamId, StreamState};

/// One page of a list.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Page {
    /// Streams in the order of the query.
    pub streams: Vec<StreamInfo>,
    /// Cursor for [`Query::after`]; `None` on the last page.
    pub next: Option<Cursor>,
}

impl Query {
    /// Tells whether the query matches a stream that exists only in memory.
    pub(crate) fn matches_volatile(&self, info: &StreamInfo) -> bool {
        let label = |key: &str| info.labels.get(key).map(String::as_str);
        let parent = info.parent.map(|(parent, _)| parent);
        self.committed.is_everything()
            && self.wants_time(info.id)
            && self.wants_said(info.state, info.name.as_deref(), parent, label)
    }
}

/// Returns an id before all ids of this millisecond and after all ids of earlier ones.
fn id_at(millis: u64) -> StreamId {
    let mut bytes = [0; 16];
    let millis = millis.min((1 << 48) - 1);
    for (byte, shift) in bytes.iter_mut().zip([40, 32, 24, 16, 8, 0]) {
        *byte = (millis >> shift) as u8;
    }
    StreamId::from_bytes(bytes)
}

/// Match with its place in the list; a stream that exists only in memory brings its description.
pub(crate) type Found = (ListKey, Option<Box<StreamInfo>>);

/// Query with the bounds of its page.
pub(crate) struct Asked<'a> {
    query: &'a Query,
    /// Range of the ids whose times match.
    ids: Range<Option<StreamId>>,
    /// Size of the page plus one, to learn whether another page exists.
    max: usize,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(query: &'a Query) -> Self {
        Self::of_volatile(query, query.page_max())
    }

    /// Returns a query for streams that exist only in memory, of which at most `max` are needed.
    pub(crate) fn of_volatile(query: &'a Query, max: usize) -> Self {
        let start = query.created_from.map(|from| id_at(from.as_micros() / 1_000));
        let end =
            query.created_until.map(|until| id_at((until.as_micros() / 1_000).saturating_add(1)));
        Self { query, ids: start..end, max }
    }

    /// Returns the place in the list of a stream whose last commit has the position `last`.
    fn list_key<'v>(
        &self,
        id: StreamId,
        last: u64,
        label: impl FnOnce(&str) -> Option<&'v str>,
    ) -> ListKey {
        match &self.query.order {
            Order::Created => ListKey::of_id(id),
            Order::Committed => ListKey { last, ..ListKey::of_id(id) },
            Order::Label(key) => {
                ListKey { value: label(key).map(Into::into), ..ListKey::of_id(id) }
            }
        }
    }

    /// Returns the place in the list of a stream that exists only in memory.
    fn volatile_key(&self, info: &StreamInfo) -> ListKey {
        let label = |key: &str| info.labels.get(key).map(String::as_str);
        self.list_key(info.id, u64::MAX, label)
    }

    /// Tells whether `key` comes before `other` in the list.
    fn is_before(&self, key: &ListKey, other: &ListKey) -> bool {
        if self.query.descending { key > other } else { key < other }
    }

    /// Tells whether the place comes after the previous page.
    fn is_after_last_page(&self, key: &ListKey) -> bool {
        self.query.after.as_ref().is_none_or(|after| self.is_before(&after.last, key))
    }

    /// Returns the scan that yields the page.
    fn scan(&self) -> ListScan<'a> {
        let Query { order, descending, after, .. } = self.query;
        let is_descending = *descending;
        let edge = if is_descending { self.ids.end } else { self.ids.start };
        let edge = edge.filter(|_| *order == Order::Created).map(ListKey::of_id);
        let after = after.as_ref().map(|after| after.last.clone());
        let from = match (after, edge) {
            (Some(after), Some(edge)) if self.is_before(&after, &edge) => Some(edge),
            (after, edge) => after.or(edge),
        };
        ListScan { order, is_descending, from }
    }

    /// Tells whether no id from this one on can match the creation times.
    pub(crate) fn is_past(&self, id: StreamId) -> bool {
        self.query.order == Order::Created
            && match self.query.descending {
                false => self.ids.end.is_some_and(|end| id >= end),
                true => self.ids.start.is_some_and(|start| id < start),
            }
    }

    pub(crate) fn is_descending(&self) -> bool {
        self.query.descending
    }

    /// Tells whether volatile streams come in the order of their ids.
    pub(crate) fn lists_volatile_by_id(&self) -> bool {
        self.query.order.label_key().is_none()
    }

    /// Returns the bound of the ids of volatile streams after the previous page; `None` when no
    /// volatile stream follows.
    pub(crate) fn volatile_from(&self) -> Option<Bound<StreamId>> {
        let from = self.scan().from.filter(|_| self.lists_volatile_by_id());
        let Some(from) = from else { return Some(Bound::Unbounded) };
        let is_volatile = self.query.order == Order::Created || from.last == u64::MAX;
        match (is_volatile, self.query.descending) {
            (true, _) => Some(Bound::Excluded(from.id)),
            // In the order of commits, volatile streams come last.
            (false, false) => Some(Bound::Unbounded),
            (false, true) => None,
        }
    }

    pub(super) fn sort(&self, found: &mut [Found]) {
        match self.query.descending {
            false => found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other)),
            true => found.sort_unstable_by(|(one, _), (other, _)| other.cmp(one)),
        }
    }
}

/// Collects the first matches of a sequence in no particular order.
///
/// At twice the number needed, the matches are sorted and half of them dropped. The cost per match
/// is constant in any order, and one comparison rejects most of them.
pub(crate) struct Best<'a> {
    asked: &'a Asked<'a>,
    kept: Vec<Found>,
    /// Entries at or after this one are not among the best.
    bound: Option<ListKey>,
}

impl<'a> Best<'a> {
    pub(crate) fn new(asked: &'a Asked<'a>) -> Self {
        Self { asked, kept: Vec::new(), bound: None }
    }

    /// Tells whether a match at this place may still be on the page.
    fn has_room_for(&self, key: &ListKey) -> bool {
        self.bound.as_ref().is_none_or(|bound| self.asked.is_before(key, bound))
            && self.asked.is_after_last_page(key)
    }

    fn keep(&mut self, found: Found) {
        self.kept.push(found);
        if self.kept.len() >= self.asked.max.saturating_mul(2) {
            self.cut();
            self.bound = self.kept.last().map(|(key, _)| key.clone());
        }
    }

    /// Keeps a stream that exists only in memory if it may be on the page.
    pub(crate) fn consider_volatile(&mut self, info: StreamInfo) {
        let key = self.asked.volatile_key(&info);
        if self.has_room_for(&key) {
            self.keep((key, Some(Box::new(info))));
        }
    }

    /// Tells whether the page is full.
    pub(crate) fn is_full(&self) -> bool {
        self.kept.len() >= self.asked.max
    }

    /// Returns the first matches, in the order of the list.
    pub(crate) fn take(mut self) -> Vec<Found> {
        self.cut();
        self.kept
    }

    fn cut(&mut self) {
        self.asked.sort(&mut self.kept);
        self.kept.truncate(self.asked.max);
    }
}

impl ReadView {
    /// Returns the sorted lists as of this view, with those of this order.
    pub(super) fn orders(&self, order: &Order) -> Option<Arc<Orders>> {
        let kept = self.orders.get().map(|orders| orders.load_full());
        if let Some(kept) = kept.filter(|orders| orders.has(order)) {
            return Some(kept);
        }
        let orders = Arc::new(self.as_seen(self.catalog.orders(order)?));
        // Another thread may have set its own meanwhile, by another label.
        let first = || Arc::new(ArcSwap::from(Arc::clone(&orders)));
        self.orders.get_or_init(first).store(Arc::clone(&orders));
        Some(orders)
    }

    /// Moves streams that were committed to after this view back to their places in it.
    fn as_seen(&self, mut orders: Orders) -> Orders {
        let catalog = &*self.catalog;
        for (root, listed) in orders.since(self.mark.visible) {
            let shown = catalog.branch(root).and_then(|first| self.view_of(root, first));
            let shown = shown.and_then(|view| Some((self.last_of(&view)?, view)));
            let was = shown.as_ref().map(|(last, view)| (view.state(), *last));
            let label = |key: &str| shown.as_ref().and_then(|(_, view)| view.label(key));
            orders.move_back(catalog, (root, listed), was, label);
        }
        orders
    }
}

impl ReadView {
    /// Returns a page of streams, from memory. Only [`Query::committed_from`] and
    /// [`Query::committed_until`] may read the headers of some commits.
    ///
    /// The time for a page grows with its streams, with the streams skipped because they do not
    /// match, and with the logarithm of the number of streams. The first list of a log, the first
    /// by a label, and a list beside another thread's list scan all streams. Forks of one stream
    /// ([`Query::parent`]) have their own index.
    ///
    /// A view shows only committed streams: [`Query::volatile`] changes nothing here.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ForeignCursor`] if [`Query::after`] has the cursor of another query.
    pub fn list(&self, query: &Query) -> Result<Page> {
        self.list_with(query, Vec::new())
    }

    /// Returns a page that also considers these volatile streams, the first matches in order.
    pub(crate) fn list_with(&self, query: &Query, volatile: Vec<StreamInfo>) -> Result<Page> {
        if query.after.as_ref().is_some_and(|after| after.query != query.digest()) {
            return Err(Error::new(ErrorKind::ForeignCursor, "list"));
        }
        let asked = Asked::new(query);
        let goes_on = query.after.is_some() || query.parent.is_some();
        let is_first = self.orders.get().is_none() && self.catalog.listing.is_first() && !goes_on;
        let orders = if is_first { None } else { self.orders(&query.order) };
        let mut found = match orders {
            Some(orders) => self.take_from(&asked, &orders),
            None => self.look_at_all(&asked),
        };
        let with_key = |info| (asked.volatile_key(&info), Some(Box::new(info)));
        found.extend(volatile.into_iter().map(with_key));
        asked.sort(&mut found);
        Ok(self.page(&asked, found))
    }

    /// Returns the first matches by scanning the sorted lists.
    pub(super) fn take_from(&self, asked: &Asked<'_>, orders: &Orders) -> Vec<Found> {
        let query = asked.query;
        let catalog = &*self.catalog;
        let scan = asked.scan();
        match query.parent {
            None => {
                self.take(asked, orders.streams(catalog, &scan, |state| query.wants_state(state)))
            }
            Some(parent) if query.order == Order::Created => {
                self.take(asked, orders.children(catalog, &scan, parent))
            }
            // The forks are sorted by id and must be sorted again.
            Some(parent) => {
                let mut best = Best::new(asked);
                for (_, root) in orders.children(
                    catalog,
                    &ListScan { from: None, is_descending: false, ..scan },
                    parent,
                ) {
                    if let Some(first) = catalog.branch(root) {
                        self.consider(&mut best, (root, first));
                    }
                }
                best.take()
            }
        }
    }

    /// Returns the first matches of streams that come in the order of the list.
    fn take(
        &self,
        asked: &Asked<'_>,
        streams: impl Iterator<Item = (ListKey, ArenaId)>,
    ) -> Vec<Found> {
        let on_the_way = streams.take_while(|(key, _)| !asked.is_past(key.id));
        let is_wanted = |(key, root): (ListKey, ArenaId)| {
            let first = self.catalog.branch(root)?;
            self.is_wanted(asked, root, first).then_some((key, None))
        };
        on_the_way.filter_map(is_wanted).take(asked.max).collect()
    }

    /// Tells whether the stream matches the query, wherever it is in the list.
    fn is_wanted(&self, asked: &Asked<'_>, root: ArenaId, first: &Branch) -> bool {
        let query = asked.query;
        let asks_place = !query.committed.is_everything();
        let is_plain = first.is_plain();
        if !query.wants_time(first.stream) || is_plain && !query.wants_plain() {
            return false;
        }
        if is_plain && !asks_place {
            return true;
        }
        let Some(view) = self.view_of(root, first) else { return false };
        // Checked last: it may read a commit header.
        let is_in_time =
            || self.last_of(&view).is_some_and(|last| self.is_in_time(&view, last, query));
        Self::matches(query, &view) && (!asks_place || is_in_time())
    }

    /// Returns the first matches by scanning all streams.
    pub(super) fn look_at_all(&self, asked: &Asked<'_>) -> Vec<Found> {
        let mut best = Best::new(asked);
        // Scans roughly in the order of the list: later streams are rejected quickly.
        if asked.query.descending {
            self.firsts().rev().for_each(|first| self.consider(&mut best, first));
        } else {
            self.firsts().for_each(|first| self.consider(&mut best, first));
        }
        best.take()
    }

    /// Keeps the stream with this first branch if it may be on the page. Cheap checks come first.
    fn consider(&self, best: &mut Best<'_>, (root, first): (ArenaId, &Branch)) {
        let asked = best.asked;
        let id = first.stream;
        let query = asked.query;
        let is_plain = first.is_plain();
        if is_plain && !query.wants_plain() {
            return;
        }
        let last = self.last_at_once(first);
        let known = match query.order {
            Order::Created => Some(0),
            Order::Committed => last,
            Order::Label(_) => None,
        };
        if known.is_some_and(|known| !best.has_room_for(&asked.list_key(id, known, |_| None)))
            || !query.wants_time(id)
        {
            return;
        }
        // The time is checked last: that may read a commit header.
        if let Some(last) = last.filter(|_| is_plain) {
            if self.is_in(first, last, &query.committed) {
                best.keep((asked.list_key(id, last, |_| None), None));
            }
            return;
        }
        let Some(view) = self.view_of(root, first) else { return };
        let Some(last) = last.or_else(|| self.last_of(&view)) else { return };
        let key = asked.list_key(id, last, |key| view.label(key));
        if best.has_room_for(&key)
            && Self::matches(query, &view)
            && self.is_in_time(&view, last, query)
        {
            best.keep((key, None));
        }
    }

    /// Returns the page of these matches, which must be sorted.
    pub(super) fn page(&self, asked: &Asked<'_>, mut found: Vec<Found>) -> Page {
        let is_last = found.len() < asked.max;
        found.truncate(asked.max.saturating_sub(1));
        let next = found.last().filter(|_| !is_last);
        let next = next.map(|(key, _)| Cursor { query: asked.query.digest(), last: key.clone() });
        let describe = |(key, volatile): Found| match volatile {
            Some(info) => Some(*info),
            None => self.info(key.id),
        };
        Page { streams: found.into_iter().filter_map(describe).collect(), next }
    }

    fn matches(query: &Query, view: &View<'_>) -> bool {
        query.wants_said(view.state(), view.name(), view.parent(), |key| view.label(key))
    }

    /// Returns the position of the last visible commit that holds a part of the stream.
    pub(super) fn last_of(&self, view: &View<'_>) -> Option<u64> {
        let branch = self.catalog.branch(view.tip)?;
        let last = branch.last();
        if last <= self.mark.visible { Some(last) } else { self.last_shown(branch) }
    }

    /// Tells whether the stream's last visible commit, which has this position, was made in the
    /// window of the query.
    fn is_in_time(&self, view: &View<'_>, last: u64, query: &Query) -> bool {
        let tip = self.catalog.branch(view.tip);
        tip.is_some_and(|tip| self.is_in(tip, last, &query.committed))
    }
}

impl StreamInfo {
    /// Describes a volatile stream, without what only its handle knows.
    pub(crate) fn volatile(id: StreamId, meta: super::Meta, state: StreamState) -> Self {
        let text = |(key, value): (Box<str>, Box<str>)| (key.into(), value.into());
        Self {
            id,
            name: meta.name.map(Into::into),
            labels: meta.labels.into_iter().map(text).collect(),
            data: meta.data,
            state,
            parent: meta.parent.map(|(id, seq)| (id, Seq(seq))),
            start: Seq(0),
            head: Seq(0),
            generation: 0,
            created: id.created(),
            segments: 0,
            is_durable: false,
        }
    }
}
