//! Listing and finding: pages of streams, from memory alone. No stream is opened, and nothing is left out that
//! was not asked to be.

use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;

use super::snapshot::View;
use super::{LogPlace, Snapshot, StreamInfo};
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

    /// Whether it asks for what only streams have of which something was said.
    fn is_plain(&self) -> bool {
        self.labels.is_empty() && self.name_prefix.is_none() && self.parent.is_none()
    }

    /// Whether the stream is one of those that are asked for.
    pub(crate) fn wants(&self, info: &StreamInfo) -> bool {
        let starts = |prefix: &String| {
            info.name.as_deref().is_some_and(|name| name.starts_with(prefix.as_str()))
        };
        let has = |(key, value): &(String, Option<String>)| {
            info.labels.get(key).is_some_and(|is| value.as_ref().is_none_or(|value| value == is))
        };
        self.wants_state(info.state)
            && self.wants_time(info.id)
            && self.name_prefix.as_ref().is_none_or(starts)
            && self.parent.is_none_or(|id| info.parent.is_some_and(|(parent, _)| parent == id))
            && self.labels.iter().all(has)
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
struct Best {
    query: Query,
    max: usize,
    /// The last of them on top.
    kept: BinaryHeap<(Key, Candidate)>,
}

/// A cursor, in the direction of the list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Forwards(Cursor),
    Backwards(std::cmp::Reverse<Cursor>),
}

/// A stream that is listed unless too many come before it.
enum Candidate {
    Durable(StreamId),
    Volatile(Box<StreamInfo>),
}

impl PartialEq for Candidate {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    /// The keys in front of them decide.
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl Best {
    fn key(&self, place: LogPlace, id: StreamId) -> Key {
        let place = if self.query.order == Order::Created { 0 } else { place.0 };
        let cursor = Cursor { place, id };
        match self.query.backwards {
            false => Key::Forwards(cursor),
            true => Key::Backwards(std::cmp::Reverse(cursor)),
        }
    }

    /// Whether one of this key would be listed.
    fn has_room_for(&self, key: Key) -> bool {
        let is_behind = match (self.query.after, key) {
            (None, _) => true,
            (Some(after), Key::Forwards(cursor)) => cursor > after,
            (Some(after), Key::Backwards(cursor)) => cursor.0 < after,
        };
        // One more than the page has says whether there is a next one.
        let is_full = self.kept.len() > self.max;
        is_behind && (!is_full || self.kept.peek().is_some_and(|(last, _)| key < *last))
    }

    fn keep(&mut self, key: Key, candidate: Candidate) {
        self.kept.push((key, candidate));
        if self.kept.len() > self.max.saturating_add(1) {
            self.kept.pop();
        }
    }
}

impl Snapshot {
    /// A page of streams, from memory. The time that it takes grows with the number of streams, not with
    /// their length.
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
        let max = query.streams_max.unwrap_or(PAGE_STREAMS).max(1);
        let mut best = Best { query: query.clone(), max, kept: BinaryHeap::new() };
        for (root, first) in self.firsts() {
            // What is quickly said comes first.
            if query.order == Order::Created
                && !best.has_room_for(best.key(LogPlace(0), first.stream))
            {
                continue;
            }
            if query.is_plain() && query.wants_time(first.stream) || first.life.load().is_some() {
                let Some(view) = self.view_of(root, first) else { continue };
                if !self.wants(query, &view) {
                    continue;
                }
                let place = match query.order {
                    Order::Created => LogPlace(0),
                    Order::Committed => self.last_place(&view),
                };
                let key = best.key(place, first.stream);
                if best.has_room_for(key) {
                    best.keep(key, Candidate::Durable(first.stream));
                }
            }
        }
        for info in volatile.filter(|info| query.wants(info)) {
            let key = best.key(LogPlace(u64::MAX), info.id);
            if best.has_room_for(key) {
                best.keep(key, Candidate::Volatile(Box::new(info)));
            }
        }
        self.page(best)
    }

    fn page(&self, best: Best) -> Page {
        let max = best.max;
        let sorted = best.kept.into_sorted_vec();
        let next = match sorted.get(max - 1) {
            Some((Key::Forwards(cursor) | Key::Backwards(std::cmp::Reverse(cursor)), _)) => {
                (sorted.len() > max).then_some(*cursor)
            }
            None => None,
        };
        let describe = |(_, candidate)| match candidate {
            Candidate::Durable(id) => self.stream(id),
            Candidate::Volatile(info) => Some(*info),
        };
        let streams = sorted.into_iter().take(max).filter_map(describe).collect();
        Page { streams, next }
    }

    fn wants(&self, query: &Query, view: &View<'_>) -> bool {
        if query.is_plain() {
            return query.wants_state(view.state()) && query.wants_time(view.first.stream);
        }
        query.wants(&self.describe(view))
    }

    /// Where the last commit starts that holds a part of the stream and is visible.
    fn last_place(&self, view: &View<'_>) -> LogPlace {
        let Some(branch) = self.catalog.branch(view.tip) else { return LogPlace(0) };
        let last = branch.last();
        if last < self.mark.end { last } else { self.last_shown(branch).unwrap_or_default() }
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
