//! Retention: bounds on the age, number and size of a stream's events.

use std::time::Duration;

/// Retention bounds of a stream. [`crate::Log::retain`] applies them: it trims the oldest events
/// over a bound ([`crate::Stream::trim`]) or deletes an idle stream ([`crate::Stream::delete`]).
/// Forks keep shared events. Without a bound the log keeps everything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Retention {
    pub(crate) age_max: Option<Duration>,
    pub(crate) events_max: Option<u64>,
    pub(crate) bytes_max: Option<u64>,
    pub(crate) idle_max: Option<Duration>,
    pub(crate) archived: bool,
}

impl Retention {
    /// Returns a retention without bounds.
    #[must_use]
    pub const fn new() -> Self {
        Self { age_max: None, events_max: None, bytes_max: None, idle_max: None, archived: false }
    }

    /// Trims events that were committed longer ago than this. Events of one commit are trimmed
    /// together, and so are all events before a trimmed one, regardless of the clock.
    #[must_use]
    pub const fn age_max(mut self, age: Duration) -> Self {
        self.age_max = Some(age);
        self
    }

    /// Keeps this many of the newest seqs, including seqs that an overwriting ring dropped.
    #[must_use]
    pub const fn events_max(mut self, events: u64) -> Self {
        self.events_max = Some(events);
        self
    }

    /// Keeps the newest events that take up at most this many bytes on disk, with their frame
    /// headers. Events of one commit are dropped together; those of the last commit stay.
    #[must_use]
    pub const fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = Some(bytes);
        self
    }

    /// Deletes, entirely and for good, a stream that has had no commit for this long. Every commit
    /// counts, including one that only sets a label or trims. Events that a handle has buffered are
    /// not committed and do not count.
    #[must_use]
    pub const fn idle_max(mut self, age: Duration) -> Self {
        self.idle_max = Some(age);
        self
    }

    /// Applies the bounds to archived streams too; by default they are left alone.
    #[must_use]
    pub const fn archived(mut self) -> Self {
        self.archived = true;
        self
    }

    /// Returns the shortest time after which an event may expire without a new commit.
    pub(crate) fn shortest(&self) -> Option<Duration> {
        self.age_max.into_iter().chain(self.idle_max).min()
    }
}

/// Retentions of all streams, and by label.
#[derive(Clone, Default, Debug)]
pub(crate) struct Retentions {
    pub(crate) all: Option<Retention>,
    /// Retentions of streams with a label; the first that matches counts.
    pub(crate) labels: Vec<(Box<str>, Box<str>, Retention)>,
}

impl Retentions {
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_none() && self.labels.is_empty()
    }

    /// Returns the retention of a stream with these labels.
    pub(crate) fn of<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> Option<&Retention> {
        let fits = |(key, value, _): &&(Box<str>, Box<str>, _)| label(key) == Some(&**value);
        self.labels.iter().find(fits).map(|(.., retention)| retention).or(self.all.as_ref())
    }

    /// Returns the shortest [`Retention::shortest`] of all.
    pub(crate) fn shortest(&self) -> Option<Duration> {
        let labels = self.labels.iter().map(|(.., retention)| retention);
        labels.chain(&self.all).filter_map(Retention::shortest).min()
    }
}
