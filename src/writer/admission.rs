//! Admission of a group's commits: each is checked against the baseline of its streams, as the
//! catalog and earlier commits of the group define it. A refused commit is settled here, and none
//! of it is written.

use std::sync::Arc;

use super::Writer;
use crate::catalog::{Baseline, Measured};
use crate::commit::{Part, Pending, Precondition};
use crate::error::{Error, ErrorKind};
use crate::format::{COMMIT_BYTES_MAX, RECORD_SHIFT_MAX};
use crate::options::Expect;
use crate::sabotage::{Sabotage, broken};
use crate::types::{Position, Seq, StreamState};

impl Writer {
    /// Settles the commits that cannot be written: those of a poisoned log, those after a failed
    /// one, repeated ones, and those whose stream does not match their expectation (P8).
    pub(super) fn refuse(&mut self, group: &[Arc<Pending>]) {
        self.moved.clear();
        self.group_ids.clear();
        self.granted_bytes = 0;
        for pending in group {
            let refusal = match &self.poisoned {
                Some(cause) => Some(poisoned(cause)),
                None => pending.failure_before().or_else(|| self.objection(pending)),
            };
            match refusal {
                Some(error) => pending.settle(Err(error)),
                None if group.len() > 1 => self.move_streams(pending),
                None => {}
            }
        }
    }

    /// Returns the failure of a commit as its ticket reports it. A failure that has poisoned the
    /// log leaves the outcome unknown until the log is reopened.
    pub(super) fn reported(&self, error: Error) -> Error {
        match &self.poisoned {
            Some(cause) => poisoned(cause),
            None => error,
        }
    }

    fn move_streams(&mut self, pending: &Pending) {
        for part in pending.parts() {
            let before = self.baseline(part).unwrap_or_default();
            let change = part.change();
            let baseline = Baseline {
                head: part.end_seq(),
                generation: part.generation(),
                state: change.and_then(|change| change.state).unwrap_or(before.state),
                start: change.and_then(|change| change.start).unwrap_or(0).max(before.start),
                said: if change.is_some() { u64::MAX } else { before.said },
            };
            self.moved.insert(part.stream, baseline);
        }
        self.group_ids.extend(pending.id.filter(|_| !pending.parts().is_empty()));
    }

    /// Returns the baseline of the stream; `None` if it was never committed.
    fn baseline(&self, part: &Part) -> Option<Baseline> {
        let catalog = &self.context.catalog;
        self.moved.get(&part.stream).copied().or_else(|| {
            let root = part.root.or_else(|| catalog.root(part.stream))?;
            catalog.baseline(root)
        })
    }

    /// Returns a conflict if the stream changed since maintenance measured it. Otherwise rebases
    /// the part.
    fn measured_conflict(
        &self,
        part: &Part,
        measured: &Measured,
        baseline: Option<Baseline>,
    ) -> Option<ErrorKind> {
        let actual = baseline.unwrap_or_default();
        let catalog = &self.context.catalog;
        let is_untouched = |last| {
            let tip = part.root.and_then(|root| catalog.branch(catalog.tip(root)));
            let is_same = tip.is_some_and(|tip| tip.last() == last);
            is_same && !self.moved.contains_key(&part.stream)
        };
        let is_same = measured.is_of(actual) || broken(Sabotage::RetainUnseen);
        if is_same && measured.last.is_none_or(is_untouched) {
            part.rebase(actual);
            return None;
        }
        let expected = Seq(measured.baseline.head);
        let actual = Seq(actual.head);
        Some(ErrorKind::Conflict { stream: part.stream, expected, actual })
    }

    fn objection(&mut self, pending: &Pending) -> Option<Error> {
        let refused = |kind| Some(Error::new(kind, "commit"));
        if let Some(id) = pending.id.filter(|_| !broken(Sabotage::ForgetCommitIds)) {
            if let Some(position) = self.ids.position(id) {
                return refused(ErrorKind::AlreadyCommitted { position: Position(position) });
            }
            if self.group_ids.contains(&id) {
                let stream = pending.parts().first().map(|part| part.stream);
                let refused = refused(ErrorKind::CommitInFlight(stream?))?;
                return Some(refused.because("it has the same commit id"));
            }
        }
        for part in pending.checked_parts() {
            let baseline = self.baseline(part);
            let precondition = part.precondition();
            let kind = state_refusal(part, baseline).or_else(|| match precondition {
                Precondition::Measured(measured) => {
                    self.measured_conflict(part, &measured, baseline)
                }
                _ => expectation_conflict(part, baseline),
            });
            if let Some(kind) = kind {
                let is_measured = matches!(precondition, Precondition::Measured(_));
                let why = reason(&kind, part.expect, baseline).filter(|_| !is_measured);
                let error = Error::new(kind, "commit");
                return Some(why.into_iter().fold(error, Error::because));
            }
        }
        let bytes_max = COMMIT_BYTES_MAX;
        match self.layout.excess(pending, bytes_max) {
            Some(bytes) => refused(ErrorKind::CommitTooLarge { bytes, bytes_max }),
            None => self.over_quota(pending),
        }
    }

    /// Returns the number of bytes that the log's commits take on disk.
    fn used_bytes(&self) -> u64 {
        let active = self.active.as_ref();
        self.context.catalog.segments().bytes(|segment| match active {
            Some(active) if active.segment.number() == segment.number() => active.offset,
            _ => segment.header.reserved_bytes,
        })
    }

    /// Returns an error if the commit exceeds the quota. Commits that keep nothing more always
    /// pass, because they may free space.
    fn over_quota(&mut self, pending: &Pending) -> Option<Error> {
        let quota_bytes = self.context.options.quota_bytes?;
        if !pending.parts().iter().any(keeps_more) {
            return None;
        }
        let used_bytes = self.used_bytes() + self.granted_bytes;
        let bytes = self.layout.excess(pending, 0).unwrap_or(0) + RECORD_SHIFT_MAX;
        if used_bytes + bytes > quota_bytes {
            let kind = ErrorKind::QuotaExceeded { used_bytes, quota_bytes };
            return Some(Error::new(kind, "commit"));
        }
        self.granted_bytes += bytes;
        None
    }
}

/// Returns the error of every commit of a log that this cause has stopped.
fn poisoned(cause: &Error) -> Error {
    match cause.is_loss() {
        true => cause.clone(),
        false => Error::new(ErrorKind::Poisoned, "commit").because(cause.clone()),
    }
}

/// Returns true if a part asks for more to be kept: events, a fork, a name, labels or data. What a
/// deletion carries is not kept.
fn keeps_more(part: &Part) -> bool {
    let Some(change) = part.change() else { return part.filled.count > 0 };
    let is_deletion = change.state == Some(StreamState::Deleted);
    !is_deletion && (part.filled.count > 0 || change.asks_to_keep())
}

/// Returns the refusal of a commit that the stream's state forbids.
fn state_refusal(part: &Part, baseline: Option<Baseline>) -> Option<ErrorKind> {
    if broken(Sabotage::SkipState) {
        return None;
    }
    let change = part.change();
    let writes = part.filled.count > 0 || change.is_some_and(|change| change.rewind.is_some());
    let Baseline { state, start, .. } = baseline?;
    match state {
        StreamState::Active => {
            let rewind = change.and_then(|change| change.rewind)?;
            let stream = part.stream;
            let start = Seq(start);
            (rewind.to < start.get()).then_some(ErrorKind::Trimmed { stream, start })
        }
        StreamState::Deleted => Some(ErrorKind::Deleted(part.stream)),
        StreamState::Archived => {
            let stays = change.and_then(|change| change.state).is_none();
            (writes && stays).then_some(ErrorKind::Archived(part.stream))
        }
    }
}

/// Returns the reason for a conflict that the heads alone do not show.
fn reason(kind: &ErrorKind, expect: Expect, baseline: Option<Baseline>) -> Option<&'static str> {
    let ErrorKind::Conflict { expected, actual, .. } = kind else { return None };
    match (expect, baseline) {
        _ if broken(Sabotage::SayNoReason) => None,
        (Expect::Exists, None) => Some("the stream was never committed"),
        (Expect::NoStream, Some(_)) => Some("the stream exists already"),
        _ if expected == actual => Some("it was rewound and has grown again"),
        _ => None,
    }
}

/// Returns a conflict if the stream is not as the commit expects it. Otherwise rebases the part.
fn expectation_conflict(part: &Part, baseline: Option<Baseline>) -> Option<ErrorKind> {
    let expect = part.expect;
    let seen = part.seen();
    // A fork that was never committed starts at its fork point.
    let actual = baseline.unwrap_or_else(|| {
        let fork = part.change().and_then(|change| change.fork.as_ref());
        let head = fork.map_or(0, |fork| fork.seq);
        Baseline { head, generation: fork.map_or(0, |fork| fork.generation), ..Baseline::default() }
    });
    let same = (actual.head, actual.generation) == (seen.head, seen.generation);
    let (holds, expected) = match expect {
        Expect::Seen => (same || broken(Sabotage::SkipConflict), seen.head),
        Expect::Any => (true, seen.head),
        Expect::NoStream => (baseline.is_none(), 0),
        Expect::Exists => (baseline.is_some(), seen.head),
        Expect::At(seq) => (actual.head == seq.get(), seq.get()),
    };
    let is_unseen = !same && part.precondition() == Precondition::Seen;
    let is_unseen = is_unseen || part.trims_regrown(actual);
    let (holds, expected) = match is_unseen && !broken(Sabotage::CutUnseen) {
        true => (false, seen.head),
        false => (holds, expected),
    };
    let rewind = part.change().and_then(|change| change.rewind);
    if !holds || rewind.is_some_and(|rewind| rewind.to > actual.head) {
        let expected = Seq(expected);
        let actual = Seq(actual.head);
        return Some(ErrorKind::Conflict { stream: part.stream, expected, actual });
    }
    if !same && expect != Expect::Seen {
        part.rebase(actual);
    }
    // No stream starts after its end.
    let start = part.change().and_then(|change| change.start)?;
    let expected = Seq(start);
    let actual = Seq(part.end_seq());
    (start > actual.get()).then_some(ErrorKind::Conflict { stream: part.stream, expected, actual })
}
