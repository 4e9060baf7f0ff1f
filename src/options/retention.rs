//! What is kept of streams, and for how long.

use std::time::Duration;

/// What is kept of a stream. What is over one of its bounds is forgotten by [`crate::Log::retain`], and by nobody else:
/// the oldest events are trimmed ([`crate::Stream::trim`]), or the stream is deleted ([`crate::Stream::delete`]). Forks
/// keep what they share. Without a bound everything is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Retention {
    pub(crate) age_max: Option<Duration>,
    pub(crate) events_max: Option<u64>,
    pub(crate) bytes_max: Option<u64>,
    pub(crate) idle_max: Option<Duration>,
    pub(crate) archived: bool,
}

impl Retention {
    /// Everything, for ever.
    #[must_use]
    pub const fn new() -> Self {
        Self { age_max: None, events_max: None, bytes_max: None, idle_max: None, archived: false }
    }

    /// Events that were committed longer ago are trimmed. Events that were committed together go together; what
    /// stands in front of one that goes is older, whatever a clock said, and goes with it.
    #[must_use]
    pub const fn age_max(mut self, age: Duration) -> Self {
        self.age_max = Some(age);
        self
    }

    /// So many seqs are kept, the newest; what an overwriting ring dropped counts as well.
    #[must_use]
    pub const fn events_max(mut self, events: u64) -> Self {
        self.events_max = Some(events);
        self
    }

    /// The newest events are kept that take at most so many bytes on disk, with their frames' heads. Events that were
    /// committed together go together; those that were committed last stay.
    #[must_use]
    pub const fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = Some(bytes);
        self
    }

    /// A stream of which nothing was committed for so long is deleted, as a whole and for good. Every commit of it
    /// counts, also one that only set a label or trimmed it. What handles of this process have buffered is not
    /// committed, and does not count.
    #[must_use]
    pub const fn idle_max(mut self, age: Duration) -> Self {
        self.idle_max = Some(age);
        self
    }

    /// The same for streams that are archived; otherwise they are left as they are.
    #[must_use]
    pub const fn archived(mut self) -> Self {
        self.archived = true;
        self
    }

    /// The shortest time after which something may have to go though nothing was committed.
    pub(crate) fn shortest(&self) -> Option<Duration> {
        self.age_max.into_iter().chain(self.idle_max).min()
    }
}

/// What is kept of which streams.
#[derive(Clone, Default, Debug)]
pub(crate) struct Retentions {
    pub(crate) all: Option<Retention>,
    /// Of streams with this label; the first that fits.
    pub(crate) labels: Vec<(Box<str>, Box<str>, Retention)>,
}

impl Retentions {
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_none() && self.labels.is_empty()
    }

    /// What is kept of a stream with these labels.
    pub(crate) fn of<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> Option<&Retention> {
        let fits = |(key, value, _): &&(Box<str>, Box<str>, _)| label(key) == Some(&**value);
        self.labels.iter().find(fits).map(|(.., retention)| retention).or(self.all.as_ref())
    }

    /// As [`Retention::shortest`], of all of them.
    pub(crate) fn shortest(&self) -> Option<Duration> {
        let labels = self.labels.iter().map(|(.., retention)| retention);
        labels.chain(&self.all).filter_map(Retention::shortest).min()
    }
}
