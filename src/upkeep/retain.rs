//! Forgetting what the log's options do not keep any more: trims and deletes of many streams, as commits like any
//! other. What they forget is given back by whoever collects.
//!
//! What has to go is found in memory and in the heads of commits; the streams of one commit go together.

use std::fmt;
use std::ops::Range;

use crate::catalog::{Change, LogPlace, Snapshot, View};
use crate::error::{Error, ErrorKind, Result};
use crate::index::At;
use crate::options::{Retention, Retentions};
use crate::reader::Measure;
use crate::sabotage::{Sabotage, broken};
use crate::types::{Seq, StreamId, StreamState, Timestamp};

/// So many streams go in one commit: one sync for all, and nobody waits long behind it.
const STREAMS_MAX: usize = 256;

/// How [`crate::Log::retain`] goes about it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RetainOptions {
    pub(crate) dry_run: bool,
    pub(crate) now: Option<Timestamp>,
}

impl RetainOptions {
    /// What the log's options do not keep is forgotten, by the system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only says what would go.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Ages are counted up to this moment instead of now.
    #[must_use]
    pub fn now(mut self, now: Timestamp) -> Self {
        self.now = Some(now);
        self
    }
}

/// What was forgotten, or would be.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RetainReport {
    /// One entry for each stream of which something went.
    pub forgotten: Vec<Forgotten>,
    /// Why streams were left as they are although something of them may have to go: they cannot be measured, or the
    /// commit failed, and then nothing was tried after it.
    pub refused: Vec<Error>,
}

/// What went of one stream.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Forgotten {
    /// The stream.
    pub stream: StreamId,
    /// The seqs that it showed before and shows no more.
    pub seqs: Range<Seq>,
    /// Which bound let them go.
    pub over: Bound,
}

/// The bounds of a [`Retention`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Bound {
    /// [`Retention::age_max`].
    Age,
    /// [`Retention::events_max`].
    Events,
    /// [`Retention::bytes_max`].
    Bytes,
    /// [`Retention::idle_max`]: the stream is deleted.
    Idle,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Age => "age",
            Self::Events => "events",
            Self::Bytes => "bytes",
            Self::Idle => "idle",
        })
    }
}

impl RetainReport {
    /// Streams that were deleted.
    #[must_use]
    pub fn streams_deleted(&self) -> u64 {
        self.forgotten.iter().filter(|one| one.over == Bound::Idle).count() as u64
    }

    /// Streams that were trimmed.
    #[must_use]
    pub fn streams_trimmed(&self) -> u64 {
        self.forgotten.len() as u64 - self.streams_deleted()
    }

    /// Events that went, with those that a ring had dropped.
    #[must_use]
    pub fn events_forgotten(&self) -> u64 {
        self.forgotten.iter().map(|one| one.seqs.end.get() - one.seqs.start.get()).sum()
    }
}

/// What is to be said of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Sentence {
    pub(crate) root: At,
    /// Where it stands.
    pub(crate) head: u64,
    pub(crate) generation: u32,
    pub(crate) change: Change,
    what: Forgotten,
}

impl Sentence {
    pub(crate) fn stream(&self) -> StreamId {
        self.what.stream
    }
}

/// Who makes one commit of all of these, and waits for it.
pub(crate) type CarryOut<'a> = &'a dyn Fn(&[Sentence]) -> Result<()>;

/// Forgets once.
pub(crate) struct Retainer<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) retentions: &'a Retentions,
    pub(crate) now: Timestamp,
    /// `None`: only says what would go.
    pub(crate) commit: Option<CarryOut<'a>>,
    /// Asked between streams: whether to leave it at that.
    pub(crate) is_over: &'a dyn Fn() -> bool,
}

impl Retainer<'_> {
    pub(crate) fn retain(&self) -> Result<RetainReport> {
        let mut report = RetainReport::default();
        let mut round = Vec::new();
        let most = if broken(Sabotage::RetainApart) { 1 } else { STREAMS_MAX };
        for view in self.snapshot.views() {
            if (self.is_over)() {
                return Err(Error::new(ErrorKind::Closed, "retain"));
            }
            match self.sentence(&view) {
                Ok(sentence) => round.extend(sentence),
                Err(error) => report.refused.push(error),
            }
            if round.len() == most && !self.carry_out(&mut round, &mut report) {
                return Ok(report);
            }
        }
        self.carry_out(&mut round, &mut report);
        Ok(report)
    }

    /// False: the log takes no commits now.
    fn carry_out(&self, round: &mut Vec<Sentence>, report: &mut RetainReport) -> bool {
        let round = std::mem::take(round);
        match self.commit {
            Some(commit) => carry_out(commit, &round, report),
            None => {
                report.forgotten.extend(round.into_iter().map(|one| one.what));
                true
            }
        }
    }

    /// What is to be said of this stream, if anything.
    fn sentence(&self, view: &View<'_>) -> Result<Option<Sentence>> {
        let Some(retention) = self.retentions.of(|key| view.label(key)) else { return Ok(None) };
        match view.state() {
            StreamState::Deleted => return Ok(None),
            StreamState::Archived if !retention.archived => return Ok(None),
            _ => {}
        }
        let Some(tip) = self.snapshot.catalog.branch(view.tip) else { return Ok(None) };
        let mut change = Change::default();
        let (end, over) = match self.idle_since(view, retention, tip.last())? {
            Some(last) => {
                change.state = Some(StreamState::Deleted);
                change.untouched = Some(last);
                (view.head, Bound::Idle)
            }
            None => {
                let (start, over) = self.start(view, retention)?;
                if start <= view.start() {
                    return Ok(None);
                }
                change.start = Some(start);
                (start, over)
            }
        };
        let Some(root) = self.snapshot.catalog.root(view.first.stream) else { return Ok(None) };
        let seqs = Seq(view.start())..Seq(end);
        let what = Forgotten { stream: view.first.stream, seqs, over };
        Ok(Some(Sentence { root, head: view.head, generation: tip.generation(), change, what }))
    }

    /// The last commit of a stream that was idle for too long. `last`: where that is now.
    fn idle_since(
        &self,
        view: &View<'_>,
        retention: &Retention,
        last: LogPlace,
    ) -> Result<Option<LogPlace>> {
        let Some(idle_max) = retention.idle_max else { return Ok(None) };
        // Something was committed since the snapshot was taken.
        if last >= self.snapshot.mark.end {
            return Ok(None);
        }
        let time = Measure::new(self.snapshot, view).last_commit()?;
        Ok(self.is_older(time, idle_max).then_some(last))
    }

    fn is_older(&self, time: Timestamp, age_max: std::time::Duration) -> bool {
        self.latest(age_max).is_some_and(|latest| time <= latest)
    }

    /// The latest moment that is older than this; `None`: there is none.
    fn latest(&self, age_max: std::time::Duration) -> Option<Timestamp> {
        let micros = u64::try_from(age_max.as_micros()).ok()?;
        self.now.as_micros().checked_sub(micros)?.checked_sub(1).map(Timestamp::from_micros)
    }

    /// Where the stream is to start, and why not before.
    fn start(&self, view: &View<'_>, retention: &Retention) -> Result<(u64, Bound)> {
        let mut found = (view.start(), Bound::Events);
        let mut raise = |start: u64, over| {
            if start > found.0 {
                found = (start, over);
            }
        };
        if let Some(events_max) = retention.events_max {
            raise(view.head.saturating_sub(events_max), Bound::Events);
        }
        if let Some(latest) = retention.age_max.and_then(|age_max| self.latest(age_max)) {
            raise(Measure::new(self.snapshot, view).after(latest)?, Bound::Age);
        }
        if let Some(bytes_max) = retention.bytes_max {
            raise(Measure::new(self.snapshot, view).within(bytes_max)?, Bound::Bytes);
        }
        Ok(found)
    }
}

/// Commits these, and fewer of them at once when somebody else is at one of them: that one is left as it is. False:
/// the log takes no commits now.
fn carry_out(commit: CarryOut<'_>, round: &[Sentence], report: &mut RetainReport) -> bool {
    if round.is_empty() {
        return true;
    }
    match commit(round) {
        Ok(()) => {
            report.forgotten.extend(round.iter().map(|one| one.what.clone()));
            true
        }
        Err(error) if is_moved(&error) => {
            let (left, right) = round.split_at(round.len() / 2);
            let alone = round.len() == 1;
            alone || carry_out(commit, left, report) && carry_out(commit, right, report)
        }
        Err(error) => {
            report.refused.push(error);
            false
        }
    }
}

/// Whether a commit failed because of what somebody else did to one of its streams.
fn is_moved(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict { .. } | ErrorKind::Deleted(_))
}
