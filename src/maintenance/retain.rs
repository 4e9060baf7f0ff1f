//! Retention: trims events and deletes streams that the log's options do not keep, with ordinary
//! commits. Compaction gives back the space.
//!
//! The events to drop are found in memory and in the heads of commits; one commit covers many
//! streams.

use std::fmt;
use std::ops::Range;

use crate::catalog::{Baseline, Measured, ReadView, View};
use crate::change::Change;
use crate::error::{Error, ErrorKind, Result};
use crate::index::ArenaId;
use crate::options::{Retention, Retentions};
use crate::reader::{Measure, Vouched};
use crate::sabotage::{Sabotage, broken};
use crate::types::{Seq, StreamId, StreamState, Timestamp};

/// Maximum number of streams per commit: one sync for all of them, without a long wait for other
/// commits.
const STREAMS_MAX: usize = 256;

/// Options of [`crate::Log::retain`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RetainOptions {
    pub(crate) dry_run: bool,
    pub(crate) now: Option<Timestamp>,
    pub(crate) trusts_clock: bool,
    /// True for calls by the log itself.
    pub(crate) in_background: bool,
}

impl RetainOptions {
    /// Creates options that drop whatever the log's options do not keep. Ages are counted up to the
    /// present as the log knows it: the system's clock at the opening plus the time that has passed
    /// since. If the clock was ahead by more than [`crate::Options::clock_jump_max`] at the
    /// opening, calling [`crate::Log::retain`] makes the log trust it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn in_background(mut self) -> Self {
        self.in_background = true;
        self
    }

    /// Only reports what would be dropped.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Counts ages up to this time instead of the present.
    #[must_use]
    pub fn now(mut self, now: Timestamp) -> Self {
        self.now = Some(now);
        self
    }

    /// Declares the system's clock correct, however far it is from the log's present: the log
    /// continues from there, in the background too. For a clock that was corrected after it had
    /// been wrong for a long time.
    #[must_use]
    pub fn trust_clock(mut self) -> Self {
        self.trusts_clock = true;
        self
    }
}

/// Outcome of a retention run, or of a dry run.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RetainReport {
    /// Time up to which ages were counted. `None` if nothing was dropped by age or idleness,
    /// because the time is not known ([`ErrorKind::ClockJumped`]) or the options keep everything.
    pub now: Option<Timestamp>,
    /// Streams that lost something, one entry each.
    pub trimmed: Vec<TrimmedStream>,
    /// Reasons for leaving alone streams that may be over a bound: they cannot be measured, or the
    /// commit failed, which ends the run.
    pub refused: Vec<Error>,
}

/// Loss of one stream.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TrimmedStream {
    /// Id of the stream.
    pub stream: StreamId,
    /// Seqs that it showed before and no longer shows.
    pub seqs: Range<Seq>,
    /// Bound that the stream exceeded.
    pub over: Bound,
}

/// Bounds of a [`Retention`].
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
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
    /// Returns the number of streams deleted.
    #[must_use]
    pub fn streams_deleted(&self) -> u64 {
        self.trimmed.iter().filter(|stream| stream.over == Bound::Idle).count() as u64
    }

    /// Returns the number of streams trimmed.
    #[must_use]
    pub fn streams_trimmed(&self) -> u64 {
        self.trimmed.len() as u64 - self.streams_deleted()
    }

    /// Returns the number of events dropped, including gaps left by a ring.
    #[must_use]
    pub fn events_dropped(&self) -> u64 {
        self.trimmed.iter().map(|stream| stream.seqs.end.get() - stream.seqs.start.get()).sum()
    }
}

/// Change to commit for a stream.
#[derive(Clone, Debug)]
pub(crate) struct Directive {
    pub(crate) root: ArenaId,
    pub(crate) change: Change,
    /// Precondition of the change.
    pub(crate) measured: Measured,
    what: TrimmedStream,
}

impl Directive {
    pub(crate) fn stream(&self) -> StreamId {
        self.what.stream
    }
}

/// Function that makes one commit of all directives, and waits for it.
pub(crate) type CarryOut<'a> = &'a dyn Fn(&[Directive]) -> Result<()>;

/// Single retention run.
pub(crate) struct Retainer<'a> {
    pub(crate) view: &'a ReadView,
    pub(crate) vouched: &'a Vouched,
    pub(crate) retentions: &'a Retentions,
    /// Present time; `None` if it is not known.
    pub(crate) now: Option<Timestamp>,
    /// Function that commits; `None` in a dry run.
    pub(crate) commit: Option<CarryOut<'a>>,
    /// Returns whether to stop; called between streams.
    pub(crate) is_over: &'a dyn Fn() -> bool,
}

impl Retainer<'_> {
    pub(crate) fn retain(&self) -> Result<RetainReport> {
        let mut report = RetainReport { now: self.now, ..RetainReport::default() };
        let mut round = Vec::new();
        let most = if broken(Sabotage::RetainApart) { 1 } else { STREAMS_MAX };
        for stream_view in self.view.views() {
            if (self.is_over)() {
                return Err(Error::new(ErrorKind::Closed, "retain"));
            }
            match self.directive(&stream_view) {
                Ok(directive) => round.extend(directive),
                Err(error) => report.refused.push(error),
            }
            if round.len() == most && !self.carry_out(&mut round, &mut report) {
                return Ok(report);
            }
        }
        self.carry_out(&mut round, &mut report);
        Ok(report)
    }

    /// Returns false if the log takes no commits now.
    fn carry_out(&self, round: &mut Vec<Directive>, report: &mut RetainReport) -> bool {
        let round = std::mem::take(round);
        match self.commit {
            Some(commit) => carry_out(commit, &round, report),
            None => {
                report.trimmed.extend(round.into_iter().map(|directive| directive.what));
                true
            }
        }
    }

    /// Returns the directive for this stream, if it exceeds a bound.
    fn directive(&self, stream_view: &View<'_>) -> Result<Option<Directive>> {
        let Some(retention) = self.retentions.of(|key| stream_view.label(key)) else {
            return Ok(None);
        };
        match stream_view.state() {
            StreamState::Deleted => return Ok(None),
            StreamState::Archived if !retention.archived => return Ok(None),
            _ => {}
        }
        let Some(tip) = self.view.catalog.branch(stream_view.tip) else { return Ok(None) };
        let mut change = Change::default();
        let mut untouched = None;
        let (end, over) = match self.idle_since(stream_view, retention, tip.last())? {
            Some(last) => {
                (untouched, change.state) = (Some(last), Some(StreamState::Deleted));
                (stream_view.head, Bound::Idle)
            }
            None => {
                let (start, over) = self.start(stream_view, retention)?;
                if start <= stream_view.start() {
                    return Ok(None);
                }
                change.start = Some(start);
                (start, over)
            }
        };
        let Some(root) = self.view.catalog.root(stream_view.first.stream) else { return Ok(None) };
        let seqs = Seq(stream_view.start())..Seq(end);
        let what = TrimmedStream { stream: stream_view.first.stream, seqs, over };
        let baseline = Baseline {
            head: stream_view.head,
            generation: tip.generation(),
            state: stream_view.state(),
            start: stream_view.start(),
            said: stream_view.said(),
        };
        let measured = Measured { baseline, last: untouched };
        Ok(Some(Directive { root, change, measured, what }))
    }

    /// Returns the position of the last commit of a stream that was idle for too long. `last` is
    /// the position of its last commit now.
    fn idle_since(
        &self,
        stream_view: &View<'_>,
        retention: &Retention,
        last: u64,
    ) -> Result<Option<u64>> {
        let latest = retention.idle_max.and_then(|idle_max| self.latest(idle_max));
        let Some(latest) = latest else { return Ok(None) };
        // The stream had a commit after the read view was taken.
        if last > self.view.mark.visible {
            return Ok(None);
        }
        let is_idle = Measure::new(self.view, self.vouched, stream_view).is_idle_since(latest)?;
        Ok(is_idle.then_some(last))
    }

    /// Returns the latest time that is older than `age_max`; `None` if there is none or the time is
    /// not known.
    fn latest(&self, age_max: std::time::Duration) -> Option<Timestamp> {
        let micros = u64::try_from(age_max.as_micros()).ok()?;
        self.now?.as_micros().checked_sub(micros)?.checked_sub(1).map(Timestamp::from_micros)
    }

    /// Returns the new start of the stream, and the bound that requires it.
    fn start(&self, stream_view: &View<'_>, retention: &Retention) -> Result<(u64, Bound)> {
        let mut found = (stream_view.start(), Bound::Events);
        let mut raise = |start: u64, over| {
            if start > found.0 {
                found = (start, over);
            }
        };
        if let Some(events_max) = retention.events_max {
            raise(stream_view.head.saturating_sub(events_max), Bound::Events);
        }
        if let Some(latest) = retention.age_max.and_then(|age_max| self.latest(age_max)) {
            raise(Measure::new(self.view, self.vouched, stream_view).after(latest)?, Bound::Age);
        }
        if let Some(bytes_max) = retention.bytes_max {
            raise(
                Measure::new(self.view, self.vouched, stream_view).within(bytes_max)?,
                Bound::Bytes,
            );
        }
        Ok(found)
    }
}

/// Commits the directives, and fewer at once when another writer is using one of their streams,
/// which is then left alone. Returns false if the log takes no commits now.
fn carry_out(commit: CarryOut<'_>, round: &[Directive], report: &mut RetainReport) -> bool {
    if round.is_empty() {
        return true;
    }
    match commit(round) {
        Ok(()) => {
            report.trimmed.extend(round.iter().map(|directive| directive.what.clone()));
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

/// Returns whether a commit failed because another writer changed one of its streams.
fn is_moved(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict { .. } | ErrorKind::Deleted(_))
}
