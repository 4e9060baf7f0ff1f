//! Queries: the streams that a list shows, and their order.

use std::fmt::Display;

use super::cursor::{Cursor, ListKey};
use crate::format::checksum;
use crate::sabotage::{Sabotage, broken};
use crate::segment::TimeWindow;
use crate::types::{StreamId, StreamState, Timestamp};

/// Default number of streams on a page.
const PAGE_STREAMS: usize = 100;

/// Sort order of a list of streams.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum Order {
    /// By stream id, and so by creation.
    #[default]
    Created,
    /// By each stream's last commit.
    Committed,
    /// By the value of the label with this key, compared byte by byte; equal values by stream id.
    /// Streams without the label are not listed.
    ///
    /// Values are compared from the left, so a host that sorts by a time or a number of its own
    /// writes it at a fixed width (`2026-11-30T12:00:00Z`, `0042`).
    ///
    /// The first list by a key sorts all streams; after that the log maintains the order, for the 8
    /// keys used most recently. [`crate::Log::stats`] counts its memory.
    Label(String),
}

impl Order {
    /// Returns the key of the label that this order sorts by.
    pub(super) fn label_key(&self) -> Option<&str> {
        match self {
            Self::Label(key) => Some(key),
            Self::Created | Self::Committed => None,
        }
    }
}

/// Filter and order of a list of streams. By default: the active streams, in the order of their
/// creation.
#[derive(Clone, Default, Debug)]
pub struct Query {
    pub(super) order: Order,
    pub(super) descending: bool,
    pub(super) limit: Option<usize>,
    pub(super) after: Option<Cursor>,
    pub(super) states: Option<Vec<StreamState>>,
    pub(super) labels: Vec<(String, Option<String>)>,
    pub(super) name_prefix: Option<String>,
    pub(super) parent: Option<StreamId>,
    pub(super) created_from: Option<Timestamp>,
    pub(super) created_until: Option<Timestamp>,
    pub(super) committed: TimeWindow,
    pub(super) volatile: bool,
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
        self.descending = true;
        self
    }

    /// Sets the maximum number of streams on a page, at least 1. Default 100.
    #[must_use]
    pub fn limit(mut self, streams: usize) -> Self {
        self.limit = Some(streams);
        self
    }

    /// Continues after the page that returned this cursor. The query must have the same order,
    /// direction and filter as that page's; the limit may differ. Otherwise the list fails with
    /// [`crate::ErrorKind::ForeignCursor`].
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
    /// Listing opens no stream. Each segment records its earliest and latest time; commit headers
    /// are read only when those do not decide. Streams whose last commit has a damaged header are
    /// listed; volatile streams are not.
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

    /// Adds this process's streams that were never committed, in [`crate::Log::list`]. A
    /// [`crate::ReadView`] shows only committed streams: [`crate::ReadView::list`] lists the same
    /// streams with and without this. When ordered by commit they come last; when ordered by a
    /// label, each page scans all of them. Their heads are known only to their handles and are 0
    /// here.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// Returns the number of streams to look for: one more than the page holds, to learn whether
    /// another page exists.
    pub(crate) fn page_max(&self) -> usize {
        self.limit.unwrap_or(PAGE_STREAMS).max(1).saturating_add(1)
    }

    pub(crate) fn wants_volatile(&self) -> bool {
        self.volatile
    }

    /// Returns a digest of everything that determines the listed streams and their order. Cursors
    /// outlive the process: the digest of a query must never change.
    pub(super) fn digest(&self) -> u32 {
        let mut text = String::new();
        // A length before each text: no two queries look the same.
        let mut put = |part: &dyn Display| {
            let part = part.to_string();
            text += &format!("{}:{part},", part.len());
        };
        match &self.order {
            Order::Created => put(&"created"),
            Order::Committed => put(&"committed"),
            Order::Label(key) => put(&format_args!("label:{key}")),
        }
        [self.descending, self.volatile].iter().for_each(|flag| put(flag));
        let states = [StreamState::Active, StreamState::Archived, StreamState::Deleted];
        states.iter().for_each(|state| put(&self.wants_state(*state)));
        let millis = |time: Timestamp| time.as_micros() / 1_000;
        let [from, until] = [self.created_from, self.created_until].map(|time| time.map(millis));
        let TimeWindow { from: since, until: before } = &self.committed;
        let micros = |time: &Option<Timestamp>| time.map(Timestamp::as_micros);
        for time in [from, until, micros(since), micros(before)] {
            put(&time.map_or_else(String::new, |time| time.to_string()));
        }
        put(&self.parent.map_or_else(String::new, |parent| parent.to_string()));
        put(&self.name_prefix.as_deref().unwrap_or_default());
        let mut labels: Vec<_> = self.labels.iter().collect();
        labels.sort_unstable();
        labels.dedup();
        for (key, value) in labels {
            put(key);
            put(&value.as_ref().map_or_else(String::new, |value| format!("={value}")));
        }
        checksum(0, &[text.as_bytes()])
    }

    pub(super) fn wants_state(&self, state: StreamState) -> bool {
        match &self.states {
            None => state == StreamState::Active,
            Some(states) => states.contains(&state),
        }
    }

    pub(super) fn wants_time(&self, id: StreamId) -> bool {
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
    pub(super) fn wants_plain(&self) -> bool {
        let asks = !self.labels.is_empty()
            || self.name_prefix.is_some()
            || self.parent.is_some()
            || self.order.label_key().is_some();
        !asks && self.wants_state(StreamState::Active)
    }

    /// Tells whether the query matches this metadata.
    pub(super) fn wants_said<'a>(
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
            && self.order.label_key().is_none_or(|key| label(key).is_some())
    }
}

/// Order, direction and start of a scan through a list.
#[derive(Clone, Debug)]
pub(super) struct ListScan<'a> {
    pub(super) order: &'a Order,
    pub(super) is_descending: bool,
    /// Place after which the scan starts, in the scan's direction.
    pub(super) from: Option<ListKey>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_query_never_changes() {
        let parent = StreamId::from_bytes([7; 16]);
        let time = Timestamp::from_micros(1_774_651_635_772_000);
        let every = Query::new().order(Order::Label("rank".into())).descending().volatile();
        let every = every.state(StreamState::Deleted).state(StreamState::Active).parent(parent);
        let every = every.has_label("b").label("a", "1").has_label("b").name_prefix("größe");
        let every = every.created_from(time).created_until(time);
        let every = every.committed_from(time).committed_until(time);
        assert_eq!([Query::new().digest(), every.digest()], [2_758_356_077, 285_427_624]);
        // The digest covers filter and order, however they are written, but not the page.
        let again = every.clone().label("a", "1").state(StreamState::Active).limit(7);
        assert_eq!(again.digest(), every.digest());
        assert_eq!(Query::new().state(StreamState::Active).digest(), Query::new().digest());
    }
}
