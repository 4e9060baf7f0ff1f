//! What of a log can still be reached, and so what is still wanted.
//!
//! A batch is wanted as long as a stream that is not deleted shows it, or shares it, or a fork that was not
//! committed yet does. Snapshots do not count: they keep the files that they read. In doubt a batch is wanted.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, PoisonError, Weak};

use super::{Branch, Catalog, Fork, LogPlace, Version};
use crate::format::BatchKind;
use crate::index::At;
use crate::sabotage::{Sabotage, broken};
use crate::segment::Segment;
use crate::sync::Mutex;
use crate::sync::atomic::Ordering;
use crate::types::{StreamId, StreamState};

/// A batch of a sealed segment: is it still wanted?
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) segment: &'a Segment,
    /// Where its commit starts.
    pub(crate) offset: u64,
    pub(crate) stream: StreamId,
    pub(crate) kind: BatchKind,
    /// `None`: not known yet. Then the answer is no when it might be.
    pub(crate) generation: Option<u32>,
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    /// That of its commit; `None` as above.
    pub(crate) position: Option<u64>,
}

/// Who knows what is still wanted.
pub(crate) type Wants<'a> = &'a dyn Fn(&Candidate<'_>) -> bool;

/// Keeps what a fork shares, until the fork is committed or gone.
#[derive(Debug)]
pub(crate) struct Shared(Fork);

/// What forks share that were not committed yet.
#[derive(Default)]
pub(super) struct SharedByForks(Mutex<Forks>);

#[derive(Default)]
struct Forks {
    all: Vec<(Fork, Weak<Shared>)>,
    /// Somebody asks what can be reached: nothing is forgotten meanwhile.
    is_asked: bool,
}

impl Forks {
    fn forget_gone(&mut self) {
        self.all.retain(|(_, shared)| shared.strong_count() > 0);
    }
}

/// What is wanted.
#[derive(Default)]
pub(crate) struct Reach {
    /// Of the streams of which not everything is wanted in the segments.
    streams: HashMap<StreamId, Wanted>,
    /// Archive files: of which streams, with which salts.
    pub(crate) files: HashSet<(StreamId, u32)>,
    /// Ids of commits before this position are forgotten.
    ids_since: u64,
    /// From where to where the views went that were followed from this branch on last: what is shared by many is
    /// followed once.
    walked: HashMap<At, Range<u64>>,
}

/// What is wanted of one stream.
#[derive(Default)]
struct Wanted {
    /// Not everything is, as far as the stream itself is concerned.
    is_partial: bool,
    /// It was rewound: the same seq may be there several times.
    is_rewound: bool,
    /// What is said of it counts.
    is_needed: bool,
    /// The commit that says that it is deleted, or without which nobody would know how long it is.
    keystone: Option<LogPlace>,
    /// Seqs, by generation.
    seqs: Vec<(u32, Range<u64>)>,
}

impl Catalog {
    /// Keeps what a fork shares for as long as what comes back lives. Whoever asks has to look afterwards whether
    /// the stream is still there.
    pub(crate) fn share(&self, fork: Fork) -> Arc<Shared> {
        let shared = Arc::new(Shared(fork));
        let mut forks = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the list grows, and then it has room for as many again: so a fork costs the same however many there
        // were.
        if forks.all.len() == forks.all.capacity() && !forks.is_asked {
            forks.forget_gone();
            let living = forks.all.len();
            forks.all.reserve(living + 1);
        }
        forks.all.push((shared.0, Arc::downgrade(&shared)));
        shared
    }

    /// What can be reached now. What is committed later may share only what can be reached now, too.
    pub(crate) fn reach(&self) -> Reach {
        let forks = || self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        forks().is_asked = true;
        let ids_since = match broken(Sabotage::ForgetCommitIds) {
            true => u64::MAX,
            false => self.ids_since.load(Ordering::Relaxed),
        };
        let mut reach = Reach { ids_since, ..Reach::default() };
        for (root, first) in self.branches.iter().filter(|(_, branch)| branch.is_first()) {
            let version = self.life(first);
            let tip = version.as_ref().and_then(|version| version.tip).unwrap_or(root);
            let start = version.as_ref().map_or(0, |version| version.start);
            let deleted = version.as_ref().and_then(tombstone);
            let measured = version.as_ref().filter(|version| self.is_measured_by(version, tip));
            let cold = version.as_ref().and_then(|version| version.cold.as_ref());
            if deleted.is_some() || start > 0 || tip != root || cold.is_some() {
                let wanted = reach.streams.entry(first.stream).or_default();
                wanted.is_partial = true;
                wanted.is_rewound = tip != root;
                wanted.is_needed |= deleted.is_none() || Self::leaves_file(cold);
                wanted.keystone = deleted.or(measured.map(|version| version.from));
            }
            let is_alone =
                tip == root && self.base(first).is_none() && start == 0 && cold.is_none();
            if deleted.is_none() && !is_alone {
                self.walk(tip, start..u64::MAX, &mut reach);
            }
        }
        // After the streams: a fork that is not here was committed before they were looked at, or its parent lived
        // when it was made and had not been deleted when they were. One that has gone since counts once more.
        let mut forks = forks();
        for (fork, _) in forks.all.iter().filter(|_| !broken(Sabotage::ForgetForks)) {
            if let Some(tip) = self.branch_of(fork.base, fork.base_generation) {
                self.walk(tip, 0..fork.seq, &mut reach);
            }
        }
        forks.forget_gone();
        forks.is_asked = false;
        reach
    }

    /// Whether the stream has trimmed all its events, in the commit that holds the last of them: what is said of a
    /// stream tells its length before the commit that says it. It was trimmed before it was ever committed.
    fn is_measured_by(&self, newest: &Version, tip: At) -> bool {
        let is_empty = |branch: &Branch| branch.head() == newest.start && newest.start > 0;
        let tip = self.branch(tip).filter(|branch| is_empty(branch));
        tip.is_some_and(|branch| branch.last() == newest.from)
    }

    /// What a view of these seqs shows that ends in the branch `tip`.
    fn walk(&self, tip: At, seqs: Range<u64>, reach: &mut Reach) {
        let has_cold = self.has_cold();
        self.descend(tip, seqs.end, LogPlace::LAST, |branch, piece| {
            // Where something is cold it also depends on where one comes from what is found.
            if !has_cold && reach.has_walked(piece.branch, seqs.start..piece.seqs.end) {
                return false;
            }
            let wanted = reach.streams.entry(branch.stream).or_default();
            wanted.is_needed = true;
            let shown = piece.seqs.start.max(seqs.start)..piece.seqs.end;
            match piece.cold {
                None => wanted.seqs.push((branch.generation(), shown)),
                Some(_) if shown.is_empty() => {}
                Some(cold) => drop(reach.files.insert((cold.stream, cold.seqs.salt))),
            }
            piece.seqs.start > seqs.start && !broken(Sabotage::ForgetShared)
        });
    }
}

/// Where the stream was deleted.
fn tombstone(newest: &Arc<Version>) -> Option<LogPlace> {
    let mut found = None;
    let mut at = Some(newest);
    while let Some(version) = at.filter(|version| version.state == StreamState::Deleted) {
        found = Some(version.from);
        at = version.older.as_ref();
    }
    found
}

impl Reach {
    /// Whether a view of these seqs was followed from the branch before; if not, it is from now on.
    fn has_walked(&mut self, at: At, seqs: Range<u64>) -> bool {
        let before = self.walked.get(&at);
        let has = before.is_some_and(|one| one.start <= seqs.start && one.end >= seqs.end);
        if !has {
            self.walked.insert(at, seqs);
        }
        has
    }

    /// Whether this batch is still wanted.
    pub(crate) fn wants(&self, batch: &Candidate<'_>) -> bool {
        let Some(wanted) = self.streams.get(&batch.stream).filter(|wanted| wanted.is_partial)
        else {
            return true;
        };
        let place = batch.segment.origin(batch.offset);
        if wanted.keystone.is_some_and(|keystone| keystone.0 == place) {
            return true;
        }
        match batch.kind {
            BatchKind::Events | BatchKind::Gap => {
                if batch.generation.is_none() && wanted.is_rewound {
                    return false;
                }
                let end = batch.first_seq.saturating_add(u64::from(batch.count));
                wanted.seqs.iter().any(|(generation, seqs)| {
                    batch.generation.is_none_or(|of| of == *generation)
                        && batch.first_seq < seqs.end
                        && end > seqs.start
                })
            }
            BatchKind::CommitId
                if batch.position.map_or(self.ids_since == 0, |at| at >= self.ids_since) =>
            {
                // It is the log that remembers it, whatever became of the stream.
                true
            }
            BatchKind::Catalog | BatchKind::Fork | BatchKind::Rewind | BatchKind::CommitId => {
                wanted.is_needed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list of forks grows with those that live, not with those that there were.
    #[test]
    fn forks_that_are_gone_are_forgotten() {
        let catalog = Catalog::new();
        let fork = Fork { base: StreamId::new(), base_generation: 0, seq: 1, generation: 0 };
        let len = || catalog.shared.0.lock().expect("whole").all.len();
        let living: Vec<_> = (0..10).map(|_| catalog.share(fork)).collect();
        (0..10_000).for_each(|_| drop(catalog.share(fork)));
        assert!((10..100).contains(&len()), "{} of 10", len());
        catalog.shared.0.lock().expect("whole").is_asked = true;
        (0..1_000).for_each(|_| drop(catalog.share(fork)));
        assert!(
            len() >= 1_000,
            "{}: who asks what can be reached counts those that go meanwhile",
            len()
        );
        let _ = catalog.reach();
        assert_eq!(len(), living.len());
    }
}
