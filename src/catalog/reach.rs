//! What of a log can still be reached, and so what is still wanted.
//!
//! A batch is wanted as long as a stream that is not deleted shows it, or shares it, or a fork that was not
//! committed yet does. Snapshots do not count: they keep the files that they read. In doubt a batch is wanted.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, PoisonError, Weak};

use super::{Catalog, Fork, LogPlace, Version};
use crate::format::BatchKind;
use crate::index::At;
use crate::sabotage::{Sabotage, broken};
use crate::segment::Segment;
use crate::sync::Mutex;
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
}

/// Who knows what is still wanted.
pub(crate) type Wants<'a> = &'a dyn Fn(&Candidate<'_>) -> bool;

/// Keeps what a fork shares, until the fork is committed or gone.
#[derive(Debug)]
pub(crate) struct Shared(Fork);

/// What forks share that were not committed yet.
#[derive(Default)]
pub(super) struct SharedByForks(Mutex<Vec<(Fork, Weak<Shared>)>>);

/// What is wanted.
#[derive(Default)]
pub(crate) struct Reach {
    /// Of the streams of which not everything is wanted in the segments.
    streams: HashMap<StreamId, Wanted>,
    /// Archive files: of which streams, with which salts.
    pub(crate) files: HashSet<(StreamId, u32)>,
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
    /// What says that it is deleted.
    tombstone: Option<LogPlace>,
    /// Seqs, by generation.
    seqs: Vec<(u32, Range<u64>)>,
}

impl Catalog {
    /// Keeps what a fork shares for as long as what comes back lives. Whoever asks has to look afterwards whether
    /// the stream is still there.
    pub(crate) fn share(&self, fork: Fork) -> Arc<Shared> {
        let shared = Arc::new(Shared(fork));
        let mut all = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((shared.0, Arc::downgrade(&shared)));
        shared
    }

    /// What can be reached now. What is committed later may share only what can be reached now, too.
    pub(crate) fn reach(&self) -> Reach {
        let mut reach = Reach::default();
        for (root, first) in self.branches.iter().filter(|(_, branch)| branch.before().is_none()) {
            let version = first.life.load_full();
            let tip = version.as_ref().and_then(|version| version.tip).unwrap_or(root);
            let start = version.as_ref().map_or(0, |version| version.start);
            let deleted = version.as_ref().and_then(tombstone);
            let cold = version.as_ref().and_then(|version| version.cold.as_ref());
            if deleted.is_some() || start > 0 || tip != root || cold.is_some() {
                let wanted = reach.streams.entry(first.stream).or_default();
                wanted.is_partial = true;
                wanted.is_rewound = tip != root;
                wanted.is_needed |= deleted.is_none() || Self::leaves_file(cold);
                wanted.tombstone = deleted;
            }
            let is_alone =
                tip == root && self.base(first).is_none() && start == 0 && cold.is_none();
            if deleted.is_none() && !is_alone {
                self.walk(tip, start..u64::MAX, &mut reach);
            }
        }
        // After the streams: a fork that is not here was committed before they were looked at, or its parent lived
        // when it was made and had not been deleted when they were. One that has gone since counts once more.
        let mut forks = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (fork, _) in forks.iter().filter(|_| !broken(Sabotage::ForgetForks)) {
            if let Some(tip) = self.branch_of(fork.base, fork.base_generation) {
                self.walk(tip, 0..fork.seq, &mut reach);
            }
        }
        forks.retain(|(_, shared)| shared.strong_count() > 0);
        reach
    }

    /// What a view of these seqs shows that ends in the branch `tip`.
    fn walk(&self, tip: At, seqs: Range<u64>, reach: &mut Reach) {
        self.descend(tip, seqs.end, LogPlace::LAST, |branch, piece| {
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
    /// Whether this batch is still wanted.
    pub(crate) fn wants(&self, batch: &Candidate<'_>) -> bool {
        let Some(wanted) = self.streams.get(&batch.stream).filter(|wanted| wanted.is_partial)
        else {
            return true;
        };
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
            BatchKind::Catalog | BatchKind::Fork | BatchKind::Rewind | BatchKind::CommitId => {
                let place = batch.segment.origin(batch.offset);
                wanted.is_needed || wanted.tombstone.is_some_and(|deleted| deleted.0 == place)
            }
        }
    }
}
