//! Applies commits to the catalog and assigns the batches of each stream to their branch.
//!
//! A lost rewind shows in the generation of a later batch, or in a seq that repeats. The stream
//! then continues in a branch of its own, which excludes the rewound events. So the batches of a
//! branch never overlap, which readers rely on.

use std::collections::HashMap;

use crate::catalog::{Baseline, Catalog, Share, StreamRoots};
use crate::change::{Change, Rewind};
use crate::format::{BatchHead, BatchKind, FooterEntry, GENERATION_MAX, index_order};
use crate::index::BatchRef;
use crate::segment::Segment;
use crate::segment::scan::{Found, overlapping};
use crate::types::StreamId;

/// Changes to streams, by stream and commit offset.
pub(super) type Changes = HashMap<(StreamId, u64), Change>;

/// Applies a commit of an unsealed segment.
pub(super) fn note_commit(
    catalog: &Catalog,
    roots: &mut StreamRoots,
    segment: &Segment,
    found: &Found,
) {
    segment.commits.note([found.offset], found.head.position, found.head.date);
    if found.is_acknowledged {
        catalog.shows_at_least(found.head.position);
    }
    for (batches, recorded) in found.shares() {
        let Some(first) = batches.first() else { continue };
        let stream = StreamId::from_bytes(first.stream);
        let offset = found.offset;
        let reference = |batch: &BatchHead| {
            Some(BatchRef {
                kind: batch.kind?,
                first_seq: batch.first_seq,
                count: batch.count,
                offset,
            })
        };
        // The scanner reports overlapping batches as damage; the branch does not take them.
        let repeated = overlapping(batches);
        let disjoint = batches.iter().enumerate().filter(|(at, _)| !repeated.contains(at));
        let mut known: Vec<BatchRef> = disjoint.filter_map(|(_, batch)| reference(batch)).collect();
        known.sort_by_key(|batch| index_order(batch.kind));
        let Some(first_seq) = known.first().map(|batch| batch.first_seq) else { continue };
        let generation = first.generation;
        let root = roots.root(stream);
        let baseline = root.and_then(|root| catalog.baseline(root));
        let change = with_lost_rewind(baseline, recorded, first_seq, generation);
        let position = found.head.position;
        let share = Share { stream, root, position, generation, change: change.as_ref() };
        catalog.gather(roots, segment, share, known.into_iter());
    }
}

/// Batches of one stream in a sealed segment, as its footer lists them.
pub(super) struct Run<'a> {
    pub(super) segment: u32,
    pub(super) stream: StreamId,
    pub(super) batches: &'a [FooterEntry],
}

/// Applies the batches of one stream in a sealed segment.
pub(super) fn note_run(
    (catalog, roots): (&Catalog, &mut StreamRoots),
    run: &Run<'_>,
    changes: &Changes,
) {
    let &Run { segment, stream, batches } = run;
    // The branch ends at the next rewind, recorded or lost.
    let continues = |batch: &FooterEntry, next: &FooterEntry| {
        let end = batch.first_seq.saturating_add(batch.kind.seqs(batch.count));
        next.generation == batch.generation && next.first_seq >= end
    };
    for piece in batches.chunk_by(continues) {
        let (Some(first), Some(last)) = (piece.first(), piece.last()) else { return };
        let end = last.first_seq.saturating_add(last.kind.seqs(last.count));
        let seqs = (first.first_seq..end, last.position);
        let root = roots.root(stream);
        let before = root.and_then(|root| catalog.baseline(root));
        // A footer with valid checksums may list any batches.
        let is_late = |before: &Baseline| {
            (first.generation, first.first_seq) < (before.generation, before.head)
        };
        let after = before.filter(is_late).map(|before| before.generation.saturating_add(1));
        let generation = after.unwrap_or(first.generation).min(GENERATION_MAX);
        let mut recorded = changes.get(&(stream, first.offset)).cloned().unwrap_or_default();
        if first.kind == BatchKind::Rewind {
            recorded.rewind = Some(Rewind { to: first.first_seq, seen: 0 });
        }
        let change = with_lost_rewind(before, Some(&recorded), first.first_seq, generation);
        let share = Share {
            stream,
            root,
            position: first.position,
            generation,
            change: change.as_ref().filter(|change| !change.is_empty()),
        };
        catalog.gather_sealed(roots, segment, share, seqs.clone());
        let later = piece.iter().filter(|batch| batch.offset > first.offset);
        for batch in later.filter(|batch| batch.kind == BatchKind::Catalog) {
            let Some(change) = changes.get(&(stream, batch.offset)) else { continue };
            let share = Share { position: batch.position, change: Some(change), ..share };
            catalog.gather_sealed(roots, segment, share, seqs.clone());
        }
    }
}

/// Returns the change of a commit, completed by a rewind if one was lost.
fn with_lost_rewind(
    baseline: Option<Baseline>,
    recorded: Option<&Change>,
    first_seq: u64,
    generation: u32,
) -> Option<Change> {
    let is_recorded = recorded.is_some_and(|change| change.rewind.is_some());
    let is_lost = baseline
        .filter(|_| !is_recorded)
        .is_some_and(|baseline| generation != baseline.generation || first_seq < baseline.head);
    if !is_lost {
        return recorded.cloned();
    }
    let rewind = Some(Rewind { to: first_seq, seen: 0 });
    Some(Change { rewind, ..recorded.cloned().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId::from_bytes([1; 16]);

    fn batch(kind: BatchKind, first_seq: u64, count: u32, position: u64) -> FooterEntry {
        let (stream, offset, generation) = (*STREAM.as_bytes(), 4096 + 200 * position, 0);
        FooterEntry { stream, kind, first_seq, count, offset, position, generation }
    }

    /// P13: a footer with valid checksums may list any batches. Those that repeat seqs start a
    /// branch, so that both directions of a read find the same ones.
    #[test]
    fn p13_batches_of_a_branch_never_overlap() {
        let catalog = Catalog::new();
        let mut roots = StreamRoots::default();
        let batches = [
            batch(BatchKind::Events, 0, 2, 1),
            batch(BatchKind::Gap, 2, 10, 2),
            batch(BatchKind::Events, 2, 1, 3),
            batch(BatchKind::Events, 3, 1, 4),
        ];
        let run = Run { segment: 1, stream: STREAM, batches: &batches };
        note_run((&catalog, &mut roots), &run, &Changes::new());
        let root = roots.root(STREAM).expect("known");
        let baseline = catalog.baseline(root).expect("a branch");
        assert_eq!((baseline.head, baseline.generation), (4, 1));
        assert_eq!(catalog.branch(root).map(|first| first.head()), Some(12));
    }

    /// P13: one commit may say anything of a stream, too.
    #[test]
    fn p13_a_commit_keeps_the_first_of_batches_that_overlap() {
        let head = |kind, first_seq, count| BatchHead {
            stream: [1; 16],
            first_seq,
            count,
            kind: Some(kind),
            order: 0,
            generation: 0,
            start: 0,
            end: 0,
            crc: 0,
        };
        let gap = head(BatchKind::Gap, 2, 10);
        let (inside, after) = (head(BatchKind::Events, 5, 1), head(BatchKind::Events, 12, 1));
        assert_eq!(overlapping(&[gap, inside]), [1]);
        assert_eq!(overlapping(&[inside, gap]), [0], "a gap comes before events");
        assert_eq!(overlapping(&[gap, after]), [0; 0]);
        assert_eq!(overlapping(&[gap, gap, gap]), [1, 2]);
    }
}
