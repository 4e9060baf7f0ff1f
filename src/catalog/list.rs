//! Lists of streams, page by page, from memory.

use std::fmt;
use std::ops::{Bound, Range};
use std::str::FromStr;

use super::orders::Orders;
use super::view::View;
use super::{Branch, Lsn, ReadView, StreamInfo};
use crate::index::ArenaId;
use crate::sabotage::{Sabotage, broken};
use crate::segment::TimeWindow;
use crate::types::{Seq, StreamId, StreamState, Timestamp};

/// Default number of streams on a page.
const PAGE_STREAMS: usize = 100;

/// Sort order of a list of streams.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum Order {
    /// Order of stream ids, and so of creation.
    #[default]
    Created,
    /// Order of each stream's last commit.
    Committed,
}

/// Filter and order of a list of streams. By default: the active streams, in the order of their
/// creation.
#[derive(Clone, Default, Debug)]
pub struct Query {
    order: Order,
    backwards: bool,
    streams_max: Option<usize>,
    after: Option<Cursor>,
    states: Option<Vec<StreamState>>,
    labels: Vec<(String, Option<String>)>,
    name_prefix: Option<String>,
    parent: Option<StreamId>,
    created_from: Option<Timestamp>,
    created_until: Option<Timestamp>,
    committed: TimeWindow,
    volatile: bool,
}

impl Query {
    /// Returns a query for the active streams, in the order of their creation.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the order of the list.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Reverses the order of the list.
    #[must_use]
    pub fn descending(mut self) -> Self {
        self.backwards = true;
        self
    }

    /// Sets the maximum number of streams on a page, at least 1. Default 100.
    #[must_use]
    pub fn limit(mut self, streams: usize) -> Self {
        self.streams_max = Some(streams);
        self
    }

    /// Continues after the page that returned this cursor. The rest of the query must be unchanged.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Keeps streams in this state. Further calls add further states.
    #[must_use]
    pub fn state(mut self, state: StreamState) -> Self {
        self.states.get_or_insert_default().push(state);
        self
    }

    /// Keeps streams with this label, whatever its value.
    #[must_use]
    pub fn has_label(mut self, key: impl Into<String>) -> Self {
        self.labels.push((key.into(), None));
        self
    }

    /// Keeps streams with this value of this label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((key.into(), Some(value.into())));
        self
    }

    /// Keeps streams whose name starts with `prefix`.
    #[must_use]
    pub fn name_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.name_prefix = Some(prefix.into());
        self
    }

    /// Keeps streams that were forked from this stream.
    #[must_use]
    pub fn parent(mut self, parent: StreamId) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Keeps streams created at this time or later. Ids record milliseconds: streams created in the
    /// same millisecond as `time` are listed.
    #[must_use]
    pub fn created_from(mut self, time: Timestamp) -> Self {
        self.created_from = Some(time);
        self
    }

    /// Keeps streams created before this time. Ids record milliseconds: streams created in the same
    /// millisecond as `time` are not listed.
    #[must_use]
    pub fn created_until(mut self, time: Timestamp) -> Self {
        self.created_until = Some(time);
        self
    }

    /// Keeps streams last committed at this time or later. The last commit of any kind counts, with
    /// the time of the clock at that commit. A clock that jumped affects only the commits that it
    /// dated.
    ///
    /// Listing opens no stream. Each segment knows its earliest and its latest time; commit headers
    /// are read only when one of the two matches and the other does not. Streams whose last commit
    /// has a damaged header are listed. Volatile streams are not.
    #[must_use]
    pub fn committed_from(mut self, time: Timestamp) -> Self {
        self.committed.from = Some(time);
        self
    }

    /// Keeps streams last committed before this time, by the rules of [`Query::committed_from`].
    #[must_use]
    pub fn committed_until(mut self, time: Timestamp) -> Self {
        self.committed.until = Some(time);
        self
    }

    /// Adds this process's streams that were never committed; only in [`crate::Log::list`]. In the
    /// order of commits they come last. Only their handles know their heads, which read 0 here.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// Returns the number of streams to look for: one more than the page holds, to learn whether
    /// another page exists.
    pub(crate) fn page_max(&self) -> usize {
        self.streams_max.unwrap_or(PAGE_STREAMS).max(1).saturating_add(1)
    }

    pub(crate) fn wants_volatile(&self) -> bool {
        self.volatile
    }

    fn wants_state(&self, state: StreamState) -> bool {
        match &self.states {
            None => state == StreamState::Active,
            Some(states) => states.contains(&state),
        }
    }

    fn wants_time(&self, id: StreamId) -> bool {
        if self.created_from.is_none() && self.created_until.is_none() {
            return true;
        }
        id.created().is_some_and(|created| {
            let millis = |time: Timestamp| match broken(Sabotage::CompareMicros) {
                true => time.as_micros(),
                false => time.as_micros() / 1_000,
            };
            self.created_from.is_none_or(|from| millis(created) >= millis(from))
                && self.created_until.is_none_or(|until| millis(created) < millis(until))
        })
    }

    /// Tells whether the query can match a stream that has nothing but events.
    fn wants_plain(&self) -> bool {
        let asks = !self.labels.is_empty() || self.name_prefix.is_some() || self.parent.is_some();
        !asks && self.wants_state(StreamState::Active)
    }

    /// Tells whether the query matches this metadata.
    fn wants_said<'a>(
        &self,
        state: StreamState,
        name: Option<&str>,
        parent: Option<StreamId>,
        label: impl Fn(&str) -> Option<&'a str>,
    ) -> bool {
        let starts = |prefix: &String| name.is_some_and(|name| name.starts_with(prefix.as_str()));
        let has = |(key, value): &(String, Option<String>)| {
            label(key).is_some_and(|is| value.as_ref().is_none_or(|value| value == is))
        };
        self.wants_state(state)
            && self.name_prefix.as_ref().is_none_or(starts)
            && self.parent.is_none_or(|id| parent == Some(id))
            && self.labels.iter().all(has)
    }

    /// Tells whether the query matches a stream that exists only in memory.
    pub(crate) fn wants_volatile_one(&self, info: &StreamInfo) -> bool {
        let label = |key: &str| info.labels.get(key).map(String::as_str);
        let parent = info.parent.map(|(parent, _)| parent);
        self.committed.is_everything()
            && self.wants_time(info.id)
            && self.wants_said(info.state, info.name.as_deref(), parent, label)
    }
}

/// End of a page. A cursor stays valid whatever is committed meanwhile: streams that exist and do
/// not change are listed exactly once. In the order of commits, a stream that is committed to
/// between two pages moves to the end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cursor {
    /// Start of the last commit; 0 in the order of ids.
    pub(super) place: u64,
    pub(super) id: StreamId,
}

impl fmt::Display for Cursor {
    /// Formats the cursor as text, which [`FromStr`] parses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.place, self.id)
    }
}

/// Error of a text that is not a [`Cursor`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseCursorError;

impl fmt::Display for ParseCursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a cursor of a list")
    }
}

impl std::error::Error for ParseCursorError {}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, ParseCursorError> {
        let (place, id) = text.split_once('.').ok_or(ParseCursorError)?;
        let place = u64::from_str_radix(place, 16).map_err(|_| ParseCursorError)?;
        Ok(Self { place, id: id.parse().map_err(|_| ParseCursorError)? })
    }
}

/// One page of a list.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Page {
    /// Streams in the order of the query.
    pub streams: Vec<StreamInfo>,
    /// Cursor for [`Query::after`]; `None` on the last page.
    pub next: Option<Cursor>,
}

/// Order, direction and start of a scan through a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListScan {
    pub(super) order: Order,
    pub(super) is_backwards: bool,
    /// Cursor after which the scan starts, in the scan's direction.
    pub(super) from: Option<Cursor>,
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
type Found = (Cursor, Option<Box<StreamInfo>>);

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
        let max = query.page_max();
        let start = query.created_from.map(|from| id_at(from.as_micros() / 1_000));
        let end =
            query.created_until.map(|until| id_at((until.as_micros() / 1_000).saturating_add(1)));
        Self { query, ids: start..end, max }
    }

    fn cursor(&self, place: Lsn, id: StreamId) -> Cursor {
        let place = if self.query.order == Order::Created { 0 } else { place.0 };
        Cursor { place, id }
    }

    /// Tells whether `cursor` comes before `other` in the list.
    fn is_before(&self, cursor: &Cursor, other: &Cursor) -> bool {
        if self.query.backwards { cursor > other } else { cursor < other }
    }

    /// Tells whether the cursor comes after the previous page.
    fn is_after_last_page(&self, cursor: &Cursor) -> bool {
        self.query.after.as_ref().is_none_or(|after| self.is_before(after, cursor))
    }

    /// Returns the scan that yields the page.
    fn scan(&self) -> ListScan {
        let Query { order, backwards: is_backwards, after, .. } = *self.query;
        let edge = if is_backwards { self.ids.end } else { self.ids.start };
        let edge = edge.filter(|_| order == Order::Created).map(|id| Cursor { place: 0, id });
        let from = match (after, edge) {
            (Some(after), Some(edge)) if self.is_before(&after, &edge) => Some(edge),
            (after, edge) => after.or(edge),
        };
        ListScan { order, is_backwards, from }
    }

    /// Tells whether no id from this one on can match the creation times.
    pub(crate) fn is_past(&self, id: StreamId) -> bool {
        self.query.order == Order::Created
            && match self.query.backwards {
                false => self.ids.end.is_some_and(|end| id >= end),
                true => self.ids.start.is_some_and(|start| id < start),
            }
    }

    /// Returns a query with bounds, for streams that exist only in memory.
    pub(crate) fn of_volatile(query: &'a Query) -> Self {
        Self::new(query)
    }

    pub(crate) fn is_backwards(&self) -> bool {
        self.query.backwards
    }

    /// Returns the lower bound of the ids of volatile streams after the previous page; `None` when
    /// no volatile stream follows.
    pub(crate) fn volatile_from(&self) -> Option<Bound<StreamId>> {
        let Some(from) = self.scan().from else { return Some(Bound::Unbounded) };
        let place = self.cursor(Lsn::LAST, from.id).place;
        match (from.place == place, self.query.backwards) {
            (true, _) => Some(Bound::Excluded(from.id)),
            // In the order of commits, volatile streams come last.
            (false, false) => Some(Bound::Unbounded),
            (false, true) => None,
        }
    }

    pub(super) fn sort(&self, found: &mut [Found]) {
        match self.query.backwards {
            false => found.sort_unstable_by_key(|(cursor, _)| *cursor),
            true => found.sort_unstable_by_key(|(cursor, _)| std::cmp::Reverse(*cursor)),
        }
    }
}

/// Collects the first matches of a sequence in no particular order.
///
/// At twice the number needed, the matches are sorted and half of them dropped. The cost per match
/// is constant in any order, and one comparison rejects most of them.
struct Best<'a> {
    asked: &'a Asked<'a>,
    kept: Vec<Found>,
    /// Entries at or after this one are not among the best.
    bound: Option<Cursor>,
}

impl<'a> Best<'a> {
    fn new(asked: &'a Asked<'a>) -> Self {
        Self { asked, kept: Vec::new(), bound: None }
    }

    /// Tells whether a match with this cursor may still be on the page.
    fn has_room_for(&self, cursor: &Cursor) -> bool {
        self.bound.as_ref().is_none_or(|bound| self.asked.is_before(cursor, bound))
            && self.asked.is_after_last_page(cursor)
    }

    fn keep(&mut self, found: Found) {
        self.kept.push(found);
        if self.kept.len() >= self.asked.max.saturating_mul(2) {
            self.cut();
            self.bound = self.kept.last().map(|(cursor, _)| *cursor);
        }
    }

    fn cut(&mut self) {
        self.asked.sort(&mut self.kept);
        self.kept.truncate(self.asked.max);
    }
}

impl ReadView {
    /// Returns a page of streams, from memory. Only [`Query::committed_from`] and
    /// [`Query::committed_until`] may read the headers of some commits.
    ///
    /// A page takes time for its streams, for the streams it skips because they do not match, and
    /// for the logarithm of the number of streams. The first list of a log scans all streams; a
    /// list that runs beside another thread's does, too. Forks of one stream ([`Query::parent`])
    /// have their own index.
    #[must_use]
    pub fn list(&self, query: &Query) -> Page {
        self.list_with(query, Vec::new())
    }

    /// Returns a page that also considers these volatile streams, the first matches in order.
    pub(crate) fn list_with(&self, query: &Query, volatile: Vec<StreamInfo>) -> Page {
        let asked = Asked::new(query);
        let goes_on = query.after.is_some() || query.parent.is_some();
        let is_first = self.orders.get().is_none() && self.catalog.listing.is_first() && !goes_on;
        let mut found = match self.orders().filter(|_| !is_first) {
            Some(orders) => self.take_from(&asked, orders),
            None => self.look_at_all(&asked),
        };
        found.extend(
            volatile
                .into_iter()
                .map(|info| (asked.cursor(Lsn::LAST, info.id), Some(Box::new(info)))),
        );
        asked.sort(&mut found);
        self.page(&asked, found)
    }

    /// Returns the first matches by scanning the sorted lists.
    pub(super) fn take_from(&self, asked: &Asked<'_>, orders: &Orders) -> Vec<Found> {
        let query = asked.query;
        let catalog = &*self.catalog;
        let scan = asked.scan();
        match query.parent {
            None => {
                self.take(asked, orders.streams(catalog, scan, |state| query.wants_state(state)))
            }
            Some(parent) if query.order == Order::Created => {
                self.take(asked, orders.children(catalog, scan, parent))
            }
            // The forks are sorted by id and must be sorted by commit.
            Some(parent) => {
                let mut best = Best::new(asked);
                for (_, root) in orders.children(
                    catalog,
                    ListScan { from: None, is_backwards: false, ..scan },
                    parent,
                ) {
                    if let Some(first) = catalog.branch(root) {
                        self.consider(&mut best, (root, first));
                    }
                }
                best.cut();
                best.kept
            }
        }
    }

    /// Returns the first matches of streams that come in the order of the list.
    fn take(
        &self,
        asked: &Asked<'_>,
        streams: impl Iterator<Item = (Cursor, ArenaId)>,
    ) -> Vec<Found> {
        let on_the_way = streams.take_while(|(cursor, _)| !asked.is_past(cursor.id));
        let is_wanted = |(cursor, root): (Cursor, ArenaId)| {
            let first = self.catalog.branch(root)?;
            self.is_wanted(asked, root, first).then_some((cursor, None))
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
            || self.last_place(&view).is_some_and(|at| self.is_in(at, &query.committed));
        Self::wants(query, &view) && (!asks_place || is_in_time())
    }

    /// Returns the first matches by scanning all streams.
    pub(super) fn look_at_all(&self, asked: &Asked<'_>) -> Vec<Found> {
        let mut best = Best::new(asked);
        // Scans roughly in the order of the list: later streams are rejected quickly.
        if asked.query.backwards {
            self.firsts().rev().for_each(|first| self.consider(&mut best, first));
        } else {
            self.firsts().for_each(|first| self.consider(&mut best, first));
        }
        best.cut();
        best.kept
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
        let place = self.place_at_once(first);
        let known = match query.order {
            Order::Created => Some(Lsn::default()),
            Order::Committed => place,
        };
        if known.is_some_and(|known| !best.has_room_for(&asked.cursor(known, id)))
            || !query.wants_time(id)
        {
            return;
        }
        // Checked last: it may read a commit header.
        let is_in_time = |place| self.is_in(place, &query.committed);
        if let Some(place) = place.filter(|_| is_plain) {
            if is_in_time(place) {
                best.keep((asked.cursor(place, id), None));
            }
            return;
        }
        let Some(view) = self.view_of(root, first) else { return };
        let Some(place) = place.or_else(|| self.last_place(&view)) else { return };
        let cursor = asked.cursor(place, id);
        if best.has_room_for(&cursor) && Self::wants(query, &view) && is_in_time(place) {
            best.keep((cursor, None));
        }
    }

    /// Returns the page of these matches, which must be sorted.
    pub(super) fn page(&self, asked: &Asked<'_>, mut found: Vec<Found>) -> Page {
        let is_last = found.len() < asked.max;
        found.truncate(asked.max.saturating_sub(1));
        let next = found.last().filter(|_| !is_last).map(|(cursor, _)| *cursor);
        let describe = |(cursor, volatile): Found| match volatile {
            Some(info) => Some(*info),
            None => self.info(cursor.id),
        };
        Page { streams: found.into_iter().filter_map(describe).collect(), next }
    }

    fn wants(query: &Query, view: &View<'_>) -> bool {
        query.wants_said(view.state(), view.name(), view.parent(), |key| view.label(key))
    }

    /// Returns the start of the last visible commit that holds a part of the stream.
    pub(super) fn last_place(&self, view: &View<'_>) -> Option<Lsn> {
        let branch = self.catalog.branch(view.tip)?;
        let last = branch.last();
        if last < self.mark.end { Some(last) } else { self.last_shown(branch) }
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
        }
    }
}
