//! Listing and finding: pages of streams, from memory. No stream is opened, and nothing is left out that
//! was not asked to be.

use std::fmt;
use std::str::FromStr;

use super::snapshot::View;
use super::times::Begin;
use super::{Branch, LogPlace, Snapshot, StreamInfo};
use crate::index::At;
use crate::types::{Seq, StreamId, StreamState, Timestamp};

/// Streams on a page, unless another number is asked for.
const PAGE_STREAMS: usize = 100;

/// By what streams are listed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum Order {
    /// By their ids, and so by when they were created.
    #[default]
    Created,
    /// By the commit that last held a part of them.
    Committed,
}

/// Which streams are listed, and in which order. Without more: the active ones, in the order of their creation.
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
    committed_from: Option<Timestamp>,
    committed_until: Option<Timestamp>,
    volatile: bool,
}

impl Query {
    /// The active streams, in the order of their creation.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another order.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// The last one first.
    #[must_use]
    pub fn backwards(mut self) -> Self {
        self.backwards = true;
        self
    }

    /// How many streams a page has at most: at least 1. Default 100.
    #[must_use]
    pub fn streams_max(mut self, streams: usize) -> Self {
        self.streams_max = Some(streams);
        self
    }

    /// The page behind the one that this cursor came with; all else in the query must be as it was.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Those in this state; called again, those in this one as well.
    #[must_use]
    pub fn state(mut self, state: StreamState) -> Self {
        self.states.get_or_insert_default().push(state);
        self
    }

    /// Those with this label, whatever its value is.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>) -> Self {
        self.labels.push((key.into(), None));
        self
    }

    /// Those with this value of this label.
    #[must_use]
    pub fn label_is(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((key.into(), Some(value.into())));
        self
    }

    /// Those whose name starts like this.
    #[must_use]
    pub fn name_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.name_prefix = Some(prefix.into());
        self
    }

    /// Those that were forked from this stream.
    #[must_use]
    pub fn parent(mut self, parent: StreamId) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Those created at this time or later, as far as their ids tell.
    #[must_use]
    pub fn created_from(mut self, time: Timestamp) -> Self {
        self.created_from = Some(time);
        self
    }

    /// Those created before this time, as far as their ids tell.
    #[must_use]
    pub fn created_until(mut self, time: Timestamp) -> Self {
        self.created_until = Some(time);
        self
    }

    /// Those last committed at this time or later: the last commit of any kind counts, by its own time.
    ///
    /// Where the time begins is searched among the last commits of all streams, by reading the heads of about twenty
    /// of them, whatever the number of streams; no stream is opened. What stands in front of something old is old,
    /// whatever the clock said, as for [`crate::Log::retain`]: a clock that jumped shifts where the time begins. Streams
    /// about which nothing can be said because heads of commits are damaged are listed. Volatile ones are not.
    #[must_use]
    pub fn committed_from(mut self, time: Timestamp) -> Self {
        self.committed_from = Some(time);
        self
    }

    /// Those last committed before this time; what [`Query::committed_from`] says holds here too.
    #[must_use]
    pub fn committed_until(mut self, time: Timestamp) -> Self {
        self.committed_until = Some(time);
        self
    }

    /// Also those of this process that were never committed: only with [`crate::Log::list`]. Ordered by commits
    /// they come last. Their heads are known to their handles alone, and read 0 here.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
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
            self.created_from.is_none_or(|from| created >= from)
                && self.created_until.is_none_or(|until| created < until)
        })
    }

    /// Whether a stream may be wanted of which nothing was ever said.
    fn wants_plain(&self) -> bool {
        let asks = !self.labels.is_empty() || self.name_prefix.is_some() || self.parent.is_some();
        !asks && self.wants_state(StreamState::Active)
    }

    /// Whether what is said of the stream is what is asked for.
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

    /// Whether the stream, which is in memory alone, is one of those that are asked for.
    fn wants_volatile_one(&self, info: &StreamInfo) -> bool {
        let label = |key: &str| info.labels.get(key).map(String::as_str);
        let parent = info.parent.map(|(parent, _)| parent);
        let asks_commit = self.committed_from.is_some() || self.committed_until.is_some();
        !asks_commit
            && self.wants_time(info.id)
            && self.wants_said(info.state, info.name.as_deref(), parent, label)
    }
}

/// Where a page ended. It stays good whatever is committed meanwhile: streams that were there and are not changed are
/// listed once. By commits, one that is committed to between two pages moves to the end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cursor {
    /// The place of the last commit; 0 when the order is that of ids.
    place: u64,
    id: StreamId,
}

impl fmt::Display for Cursor {
    /// As text, for whoever asks for the next page from elsewhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.place, self.id)
    }
}

/// A text is no [`Cursor`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoCursor;

impl fmt::Display for NoCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is no cursor of a list")
    }
}

impl std::error::Error for NoCursor {}

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let (place, id) = text.split_once('.').ok_or(NoCursor)?;
        let place = u64::from_str_radix(place, 16).map_err(|_| NoCursor)?;
        Ok(Self { place, id: id.parse().map_err(|_| NoCursor)? })
    }
}

/// A part of a list.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Page {
    /// The streams, in the order that was asked for.
    pub streams: Vec<StreamInfo>,
    /// For [`Query::after`]; `None` when there are no more.
    pub next: Option<Cursor>,
}

/// The first few of those that come by.
///
/// They are put in order when there are twice as many as needed, and half of them go: so each costs the same however
/// they come, and most are turned away by one comparison.
struct Best<'a> {
    query: &'a Query,
    /// Where the times begin between which the last commits are to be.
    from: Option<Begin>,
    until: Option<Begin>,
    /// One more than the page has: that says whether there is a next one.
    max: usize,
    kept: Vec<Found>,
    /// Who is not in front of this is none of them.
    bound: Option<Cursor>,
}

/// A stream that is listed unless too many come before it; and what is known of it, if it is only in memory.
type Found = (Cursor, Option<Box<StreamInfo>>);

impl<'a> Best<'a> {
    /// Of those that were last committed in the time between these.
    fn new(query: &'a Query, [from, until]: [Option<Begin>; 2]) -> Self {
        let max = query.streams_max.unwrap_or(PAGE_STREAMS).max(1).saturating_add(1);
        Self { query, from, until, max, kept: Vec::new(), bound: None }
    }

    /// Whether the last commit, which is here, is in the time that is asked for.
    fn wants_place(&self, place: LogPlace) -> bool {
        self.from.is_none_or(|from| from.may_be_from(place))
            && self.until.is_none_or(|until| until.may_be_before(place))
    }

    fn cursor(&self, place: LogPlace, id: StreamId) -> Cursor {
        let place = if self.query.order == Order::Created { 0 } else { place.0 };
        Cursor { place, id }
    }

    /// Whether the list has `one` before `other`.
    fn is_before(&self, one: &Cursor, other: &Cursor) -> bool {
        if self.query.backwards { one > other } else { one < other }
    }

    /// Whether one here would be listed.
    fn has_room_for(&self, cursor: &Cursor) -> bool {
        self.bound.as_ref().is_none_or(|bound| self.is_before(cursor, bound))
            && self.query.after.as_ref().is_none_or(|after| self.is_before(after, cursor))
    }

    fn keep(&mut self, cursor: Cursor, volatile: Option<Box<StreamInfo>>) {
        self.kept.push((cursor, volatile));
        if self.kept.len() >= self.max.saturating_mul(2) {
            self.sort();
            self.kept.truncate(self.max);
            self.bound = self.kept.last().map(|(cursor, _)| *cursor);
        }
    }

    fn sort(&mut self) {
        match self.query.backwards {
            false => self.kept.sort_unstable_by_key(|(cursor, _)| *cursor),
            true => self.kept.sort_unstable_by_key(|(cursor, _)| std::cmp::Reverse(*cursor)),
        }
    }
}

impl Snapshot {
    /// A page of streams, from memory; for [`Query::committed_from`] and [`Query::committed_until`] the heads of about
    /// twenty commits are read. The time that it takes grows with the number of streams, not with their length.
    #[must_use]
    pub fn list(&self, query: &Query) -> Page {
        self.list_with(query, std::iter::empty())
    }

    /// The same, with streams that are only in memory.
    pub(crate) fn list_with(
        &self,
        query: &Query,
        volatile: impl Iterator<Item = StreamInfo>,
    ) -> Page {
        let times = self.begins_of([query.committed_from, query.committed_until]);
        let mut best = Best::new(query, times);
        // About in the order of the list: so what fills the page comes early, and the rest is turned away.
        if query.backwards {
            self.firsts().rev().for_each(|first| self.consider(&mut best, first));
        } else {
            self.firsts().for_each(|first| self.consider(&mut best, first));
        }
        for info in volatile.filter(|info| query.wants_volatile_one(info)) {
            let cursor = best.cursor(LogPlace::LAST, info.id);
            if best.has_room_for(&cursor) {
                best.keep(cursor, Some(Box::new(info)));
            }
        }
        self.page(best)
    }

    /// Keeps the stream of this first branch if it may be on the page. What is quickly said comes first.
    fn consider(&self, best: &mut Best<'_>, (root, first): (At, &Branch)) {
        let (query, id) = (best.query, first.stream);
        let is_plain = first.is_plain();
        if is_plain && !query.wants_plain() {
            return;
        }
        let place = self.place_at_once(first);
        let asked = match query.order {
            Order::Created => Some(LogPlace::default()),
            Order::Committed => place,
        };
        if asked.is_some_and(|asked| !best.has_room_for(&best.cursor(asked, id)))
            || place.is_some_and(|place| !best.wants_place(place))
            || !query.wants_time(id)
        {
            return;
        }
        if let Some(place) = place.filter(|_| is_plain) {
            return best.keep(best.cursor(place, id), None);
        }
        let Some(view) = self.view_of(root, first) else { return };
        let Some(place) = place.or_else(|| self.last_place(&view)) else { return };
        let cursor = best.cursor(place, id);
        if best.wants_place(place) && best.has_room_for(&cursor) && Self::wants(query, &view) {
            best.keep(cursor, None);
        }
    }

    fn page(&self, mut best: Best<'_>) -> Page {
        best.sort();
        let is_last = best.kept.len() < best.max;
        best.kept.truncate(best.max - 1);
        let next = best.kept.last().filter(|_| !is_last).map(|(cursor, _)| *cursor);
        let describe = |(cursor, volatile): Found| match volatile {
            Some(info) => Some(*info),
            None => self.stream(cursor.id),
        };
        Page { streams: best.kept.into_iter().filter_map(describe).collect(), next }
    }

    fn wants(query: &Query, view: &View<'_>) -> bool {
        query.wants_said(view.state(), view.name(), view.parent(), |key| view.label(key))
    }

    /// Where the last commit starts that holds a part of the stream and is visible.
    pub(super) fn last_place(&self, view: &View<'_>) -> Option<LogPlace> {
        let branch = self.catalog.branch(view.tip)?;
        let last = branch.last();
        if last < self.mark.end { Some(last) } else { self.last_shown(branch) }
    }
}

impl StreamInfo {
    /// What is known of a stream that is only in memory, beside what its handle knows.
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
            moved: None,
        }
    }
}
