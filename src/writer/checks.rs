//! Which commits of a group may be written: each is checked against where its streams stand, as the catalog
//! and the commits before it in the group have it. What is refused is settled here, and nothing of it is written.

use std::sync::Arc;

use super::Writer;
use crate::catalog::Standing;
use crate::commit::{Part, Pending};
use crate::error::{Error, ErrorKind};
use crate::format::{COMMIT_BYTES_MAX, RECORD_SHIFT_MAX};
use crate::options::Expect;
use crate::sabotage::{Sabotage, broken};
use crate::segment::Segment;
use crate::types::{Position, Seq, StreamState};

impl Writer {
    /// Settles the commits of the group that cannot be written: those of a poisoned log, those behind a
    /// failed one, those that were made before, those whose stream is not as they expect (P8).
    pub(super) fn refuse(&mut self, group: &[Arc<Pending>]) {
        self.moved.clear();
        self.taken.clear();
        self.granted_bytes = 0;
        for pending in group {
            let refusal = match &self.poisoned {
                Some(cause) => {
                    Some(Error::new(ErrorKind::Poisoned, "commit").because(cause.clone()))
                }
                None => pending.failure_before().or_else(|| self.objection(pending)),
            };
            match refusal {
                Some(error) => pending.settle(Err(error)),
                None if group.len() > 1 => self.move_streams(pending),
                None => {}
            }
        }
    }

    fn move_streams(&mut self, pending: &Pending) {
        for part in pending.parts() {
            let before = self.standing(part).unwrap_or_default();
            let change = part.change();
            let standing = Standing {
                head: part.end_seq(),
                generation: part.generation(),
                state: change.and_then(|change| change.state).unwrap_or(before.state),
                start: change.and_then(|change| change.start).unwrap_or(0).max(before.start),
            };
            self.moved.insert(part.stream, standing);
        }
        self.taken.extend(pending.id.filter(|_| !pending.parts().is_empty()));
    }

    /// Where the stream stands; `None` when it was never committed.
    fn standing(&self, part: &Part) -> Option<Standing> {
        let catalog = &self.ground.catalog;
        self.moved.get(&part.stream).copied().or_else(|| {
            let root = part.root.or_else(|| catalog.root(part.stream))?;
            catalog.standing(root)
        })
    }

    /// Whether something was committed of a stream of which this is only said if nothing was.
    fn touched(&self, part: &Part) -> Option<ErrorKind> {
        let last = part.change()?.untouched?;
        let catalog = &self.ground.catalog;
        let tip = part.root.and_then(|root| catalog.branch(catalog.tip(root)));
        let is_same = tip.is_some_and(|tip| tip.last() == last);
        let is_touched = !is_same || self.moved.contains_key(&part.stream);
        let (expected, actual) = (Seq(part.seen().head), Seq(part.end_seq()));
        is_touched.then_some(ErrorKind::Conflict { expected, actual })
    }

    fn objection(&mut self, pending: &Pending) -> Option<Error> {
        let refused = |kind| Some(Error::new(kind, "commit"));
        if let Some(id) = pending.id.filter(|_| !broken(Sabotage::ForgetCommitIds)) {
            if let Some(position) = self.ids.position(id) {
                return refused(ErrorKind::AlreadyCommitted { position: Position(position) });
            }
            if self.taken.contains(&id) {
                let stream = pending.parts().first().map(|part| part.stream);
                return stream.and_then(|stream| refused(ErrorKind::CommitInFlight(stream)));
            }
        }
        for part in pending.parts() {
            let standing = self.standing(part);
            let kind = locked(part, standing)
                .or_else(|| unexpected(pending.expect, part, standing))
                .or_else(|| self.touched(part));
            if let Some(kind) = kind {
                return refused(kind);
            }
        }
        let bytes_max = COMMIT_BYTES_MAX;
        match self.layout.excess(pending, bytes_max) {
            Some(bytes) => refused(ErrorKind::CommitTooLarge { bytes, bytes_max }),
            None => self.over_quota(pending),
        }
    }

    /// What the commits of the log take on disk.
    fn used_bytes(&self) -> u64 {
        let active = self.active.as_ref().map_or(0, |active| active.segment.number());
        let bytes = |segment: &Arc<Segment>| match segment.seal_state() {
            Some(sealed) => sealed.file_bytes(),
            None if segment.number() == active => {
                self.active.as_ref().map_or(0, |active| active.offset)
            }
            None => segment.header.reserved_bytes,
        };
        let segments: u64 = self.ground.catalog.segments().iter().map(bytes).sum();
        segments.saturating_add(self.ground.catalog.cold_bytes())
    }

    /// Whether there is room for a commit in the quota; those that hold no event may make some.
    fn over_quota(&mut self, pending: &Pending) -> Option<Error> {
        let quota_bytes = self.ground.options.quota_bytes?;
        if pending.parts().iter().all(|part| part.filled.count == 0) {
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

/// Whether the state of the stream lets nothing, or nothing of this, be written.
fn locked(part: &Part, standing: Option<Standing>) -> Option<ErrorKind> {
    if broken(Sabotage::SkipState) {
        return None;
    }
    let change = part.change();
    let writes = part.filled.count > 0 || change.is_some_and(|change| change.rewind.is_some());
    let Standing { state, start, .. } = standing?;
    match state {
        StreamState::Active => {
            let rewind = change.and_then(|change| change.rewind)?;
            let (stream, start) = (part.stream, Seq(start));
            (rewind.to < start.get()).then_some(ErrorKind::Trimmed { stream, start })
        }
        StreamState::Deleted => Some(ErrorKind::Deleted(part.stream)),
        StreamState::Archived => {
            let stays = change.and_then(|change| change.state).is_none();
            (writes && stays).then_some(ErrorKind::Archived(part.stream))
        }
    }
}

/// Whether the stream is not as the commit expects it; if it is, the part knows where it goes.
fn unexpected(expect: Expect, part: &Part, standing: Option<Standing>) -> Option<ErrorKind> {
    let seen = part.seen();
    // A fork that was never committed starts where it was forked.
    let actual = standing.unwrap_or_else(|| {
        let fork = part.change().and_then(|change| change.fork.as_ref());
        let head = fork.map_or(0, |fork| fork.seq);
        Standing { head, generation: fork.map_or(0, |fork| fork.generation), ..Standing::default() }
    });
    let same = (actual.head, actual.generation) == (seen.head, seen.generation);
    let (holds, expected) = match expect {
        Expect::Seen => (same || broken(Sabotage::SkipConflict), seen.head),
        Expect::Any => (true, seen.head),
        Expect::NoStream => (standing.is_none(), 0),
        Expect::Exists => (standing.is_some(), seen.head),
        Expect::At(seq) => (actual.head == seq.get(), seq.get()),
    };
    let rewind = part.change().and_then(|change| change.rewind);
    if !holds || rewind.is_some_and(|rewind| rewind.to > actual.head) {
        let (expected, actual) = (Seq(expected), Seq(actual.head));
        return Some(ErrorKind::Conflict { expected, actual });
    }
    if !same && expect != Expect::Seen {
        part.reseat(actual);
    }
    // Nobody forgets what is not there yet: somebody else may have rewound the stream.
    let start = part.change().and_then(|change| change.start)?;
    let (expected, actual) = (Seq(start), Seq(part.end_seq()));
    (start > actual.get()).then_some(ErrorKind::Conflict { expected, actual })
}
