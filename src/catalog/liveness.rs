//! Liveness: which batches of a log are still needed.
//!
//! A batch is live while a stream that is not deleted, or a fork that is not committed yet, shows
//! it or shares it. Read views do not count: they keep their files open. In doubt, a batch is live.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Weak};

use super::{Branch, Catalog, Version};
use crate::change::Fork;
use crate::format::{BatchKind, FooterEntry};
use crate::index::ArenaId;
use crate::sabotage::{Sabotage, broken};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::types::{StreamId, StreamState};
use crate::work::step;

/// Batch of a sealed segment whose liveness is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchCandidate {
    pub(crate) stream: StreamId,
    pub(crate) kind: BatchKind,
    pub(crate) generation: u32,
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    /// Position of its commit.
    pub(crate) position: u64,
}

impl BatchCandidate {
    /// Returns the batch that a footer lists.
    pub(crate) fn listed(entry: &FooterEntry) -> Self {
        Self {
            stream: StreamId::from_bytes(entry.stream),
            kind: entry.kind,
            generation: entry.generation,
            first_seq: entry.first_seq,
            count: entry.count,
            position: entry.position,
        }
    }
}

/// Function that tells whether a batch is live.
pub(crate) type LivenessTest<'a> = &'a dyn Fn(&BatchCandidate) -> bool;

/// Keeps the events that a fork shares alive until the fork is committed or dropped.
#[derive(Debug)]
pub(crate) struct ForkGuard {
    is_committed: AtomicBool,
}

impl ForkGuard {
    /// Ends the guard, although its handle may keep it for long: the fork is in the catalog.
    pub(crate) fn settle(&self) {
        self.is_committed.store(true, Ordering::Release);
    }
}

/// Forks that are not committed yet.
#[derive(Default)]
pub(super) struct PendingForks(Mutex<ForkList>);

#[derive(Default)]
struct ForkList {
    all: Vec<(Fork, Weak<ForkGuard>)>,
    /// Set while liveness is computed: entries of dropped forks stay until it ends.
    is_asked: bool,
}

impl ForkList {
    fn forget_gone(&mut self) {
        let is_pending = |guard: Arc<ForkGuard>| !guard.is_committed.load(Ordering::Acquire);
        self.all.retain(|(_, guard)| guard.upgrade().is_some_and(is_pending));
    }
}

/// Live batches of a log.
#[derive(Default)]
pub(crate) struct Liveness {
    /// Streams that are not live as a whole, or that share events.
    streams: HashMap<StreamId, StreamLiveness>,
    /// Position of the oldest commit whose id is still remembered.
    ids_since: u64,
}

/// Live batches of one stream.
#[derive(Default)]
struct StreamLiveness {
    /// Set when the stream itself does not need all its batches.
    is_partial: bool,
    /// Set while the stream's metadata is needed.
    is_needed: bool,
    /// Position of the commit that records the deletion, or of the only commit that records the
    /// stream's length.
    anchor: Option<u64>,
    /// Live seqs with their generations, sorted and disjoint.
    seqs: Vec<(u32, Range<u64>)>,
    /// Generation of the branch that the stream is in.
    generation: u32,
    /// Earlier generations that forks name as their base.
    bases: HashSet<u32>,
}

impl StreamLiveness {
    /// Tells whether the branch of this generation is needed: it is the stream's own, it holds
    /// live seqs, or a fork names it. Nothing is shown of the others, and the next branch that is
    /// needed takes their place.
    fn needs(&self, generation: u32) -> bool {
        // Without the first rewind the first branch would get another generation.
        let is_named = |named| self.bases.contains(&named);
        let is_base = is_named(generation) || generation == 1 && is_named(0);
        let is_needed =
            generation >= self.generation || is_base || self.has(generation, 0..u64::MAX);
        is_needed && !broken(Sabotage::DropRewinds)
    }

    /// Tells whether a seq of this range is live in this generation.
    fn has(&self, generation: u32, range: Range<u64>) -> bool {
        let from = self.seqs.partition_point(|(other, seqs)| {
            step();
            *other < generation || *other == generation && seqs.end <= range.start
        });
        let next = self.seqs.get(from).filter(|(other, _)| *other == generation);
        next.is_some_and(|(_, seqs)| seqs.start < range.end)
    }
}

impl Catalog {
    /// Keeps the events that a fork shares alive as long as the returned guard lives. The caller
    /// must check afterwards that the stream still exists.
    pub(crate) fn share(&self, fork: Fork) -> Arc<ForkGuard> {
        let shared = Arc::new(ForkGuard { is_committed: AtomicBool::new(false) });
        let mut forks = self.pending_forks.0.lock();
        // Dropped forks are removed before the list grows, which then doubles: the cost per fork is
        // constant.
        if forks.all.len() == forks.all.capacity() && !forks.is_asked {
            forks.forget_gone();
            let living = forks.all.len();
            forks.all.reserve(living.saturating_add(1));
        }
        forks.all.push((fork, Arc::downgrade(&shared)));
        shared
    }

    /// Returns the batches that are live now. Later commits can share only batches that are live
    /// now.
    pub(crate) fn liveness(&self) -> Liveness {
        let forks = || self.pending_forks.0.lock();
        {
            let mut forks = forks();
            forks.forget_gone();
            forks.is_asked = true;
        }
        let ids_since = match broken(Sabotage::ForgetCommitIds) {
            true => u64::MAX,
            false => self.ids_since.load(Ordering::Relaxed),
        };
        let mut liveness = Liveness { ids_since, ..Liveness::default() };
        let mut views = Vec::new();
        for (root, first) in self.branches.iter().filter(|(_, branch)| branch.is_first()) {
            let version = self.version_of(first);
            let tip = version.as_ref().and_then(|version| version.tip).unwrap_or(root);
            let start = version.as_ref().map_or(0, |version| version.start);
            let deleted = version.as_ref().and_then(tombstone);
            let measured = version.as_ref().filter(|version| self.is_measured_by(version, tip));
            if deleted.is_some() || start > 0 || tip != root {
                let live = liveness.streams.entry(first.stream).or_default();
                live.is_partial = true;
                live.generation = self.branch(tip).map_or(u32::MAX, Branch::generation);
                live.is_needed |= deleted.is_none();
                live.anchor = deleted.or(measured.map(|version| version.from));
            }
            if let Some((base, generation)) = first.base_name() {
                liveness.streams.entry(base).or_default().bases.insert(generation);
            }
            let is_alone = tip == root && self.base(first).is_none() && start == 0;
            if deleted.is_none() && !is_alone {
                views.push((tip, start..u64::MAX));
            }
        }
        // Forks are read after the streams. A fork missing here was committed before the streams
        // were read, or its parent lived when it was made and was not yet deleted when the streams
        // were read. A fork dropped since then counts once more.
        let mut forks = forks();
        for (fork, _) in forks.all.iter().filter(|_| !broken(Sabotage::ForgetForks)) {
            if let Some(tip) = self.branch_of(fork.base, fork.base_generation) {
                views.push((tip, 0..fork.seq));
            }
            let base = liveness.streams.entry(fork.base).or_default();
            base.bases.insert(fork.base_generation);
        }
        forks.forget_gone();
        forks.is_asked = false;
        drop(forks);
        self.note_shown(views, &mut liveness);
        liveness
    }

    /// Tells whether the commit that holds the stream's last event also trims all events. Metadata
    /// records only the length before its own commit, so that commit is needed.
    fn is_measured_by(&self, newest: &Version, tip: ArenaId) -> bool {
        let is_empty = |branch: &Branch| branch.head() == newest.start && newest.start > 0;
        let tip = self.branch(tip).filter(|branch| is_empty(branch));
        tip.is_some_and(|branch| branch.last() == newest.from)
    }

    /// Adds the seqs that these views show.
    fn note_shown(&self, views: Vec<(ArenaId, Range<u64>)>, liveness: &mut Liveness) {
        for (at, shown) in self.shown_seqs(views.into_iter()) {
            let Some(branch) = self.branch(at) else { continue };
            let live = liveness.streams.entry(branch.stream).or_default();
            live.is_needed = true;
            live.seqs.extend(shown.into_iter().map(|seqs| (branch.generation(), seqs)));
        }
        for live in liveness.streams.values_mut() {
            live.seqs.sort_unstable_by_key(|(generation, seqs)| (*generation, seqs.start));
        }
    }
}

/// Returns the position of the commit that deleted the stream.
fn tombstone(newest: &Arc<Version>) -> Option<u64> {
    let mut found = None;
    let mut at = Some(newest);
    while let Some(version) = at.filter(|version| version.state == StreamState::Deleted) {
        found = Some(version.from);
        at = version.older.as_ref();
    }
    found
}

impl Liveness {
    /// Tells whether the batch is live.
    pub(crate) fn is_live(&self, batch: &BatchCandidate) -> bool {
        let Some(live) = self.streams.get(&batch.stream).filter(|live| live.is_partial) else {
            return true;
        };
        if live.anchor == Some(batch.position) {
            return true;
        }
        match batch.kind {
            BatchKind::Events | BatchKind::Gap | BatchKind::LongGap => {
                let is_short = batch.kind.is_gap() && broken(Sabotage::CompactGaps);
                let seqs = if is_short { 1 } else { batch.kind.seqs(batch.count) };
                let end = batch.first_seq.saturating_add(seqs);
                live.has(batch.generation, batch.first_seq..end)
            }
            // The log remembers the commit id, even if the stream is gone.
            BatchKind::CommitId if batch.position >= self.ids_since => true,
            BatchKind::Rewind => live.is_needed && live.needs(batch.count),
            BatchKind::Catalog | BatchKind::Fork | BatchKind::CommitId => live.is_needed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list of forks grows with the live forks, not with all forks there were.
    #[test]
    fn forks_that_are_gone_are_forgotten() {
        let catalog = Catalog::new();
        let fork = Fork { base: StreamId::new(), base_generation: 0, seq: 1, generation: 0 };
        let len = || catalog.pending_forks.0.lock().all.len();
        let living: Vec<_> = (0..10).map(|_| catalog.share(fork)).collect();
        (0..10_000).for_each(|_| drop(catalog.share(fork)));
        assert!((10..100).contains(&len()), "{} of 10", len());
        catalog.pending_forks.0.lock().is_asked = true;
        (0..1_000).for_each(|_| drop(catalog.share(fork)));
        assert!(len() >= 1_000, "{}: a fork dropped while liveness is computed counts", len());
        let _ = catalog.liveness();
        assert_eq!(len(), living.len());
    }
}
