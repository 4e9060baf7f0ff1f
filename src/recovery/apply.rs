//! Applies commits to the catalog and assigns the batches of each stream to their branch.
//!
//! A lost rewind shows in the generation of a later batch, or in a seq that repeats. The stream
//! then continues in a branch of its own, which excludes the rewound events.

use std::collections::HashMap;

use super::scan::Found;
use crate::catalog::{Baseline, Catalog, Change, Lsn, Rewind, Share, StreamRoots};
use crate::format::{BatchHead, BatchKind, GENERATION_MAX, index_order};
use crate::index::BatchRef;
use crate::segment::Segment;
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
    segment.times.note(found.offset, found.head.date);
    if found.is_acknowledged {
        catalog.shows_at_least(Lsn::new(segment.number(), found.end()));
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
        let mut known: Vec<BatchRef> = batches.iter().filter_map(reference).collect();
        known.sort_by_key(|batch| index_order(batch.kind));
        let Some(first_seq) = known.first().map(|batch| batch.first_seq) else { continue };
        let generation = first.generation;
        let root = roots.root(stream);
        let baseline = root.and_then(|root| catalog.baseline(root));
        let change = with_lost_rewind(baseline, recorded, first_seq, generation);
        let share = Share { stream, root, offset, generation, change: change.as_ref() };
        catalog.gather(roots, segment, share, known.into_iter());
    }
}

/// Applies the batches of one stream in a sealed segment, as its footer lists them.
pub(super) fn note_run(
    (catalog, roots): (&Catalog, &mut StreamRoots),
    segment: u32,
    stream: StreamId,
    batches: &[BatchRef],
    changes: &Changes,
) {
    let mut rest = batches;
    while let Some(first) = rest.first() {
        // The branch ends at the next rewind, recorded or lost.
        let continues = |two: &&[BatchRef]| {
            two[1].kind != BatchKind::Rewind && two[1].first_seq >= two[0].first_seq
        };
        let more = rest.windows(2).take_while(continues).count();
        let (piece, later) = rest.split_at(more.saturating_add(1));
        rest = later;
        let Some(last) = piece.last() else { return };
        let seqs = (first.first_seq..last.end_seq(), last.offset);
        let root = roots.root(stream);
        let before = root.and_then(|root| catalog.baseline(root));
        let baseline = before.unwrap_or_default();
        let recorded = changes.get(&(stream, first.offset));
        let generation = match first.kind {
            BatchKind::Rewind | BatchKind::Fork => first.count,
            _ if first.first_seq < baseline.head => baseline.generation.saturating_add(1),
            _ => baseline.generation,
        }
        .min(GENERATION_MAX);
        let mut recorded = recorded.cloned().unwrap_or_default();
        if first.kind == BatchKind::Rewind {
            recorded.rewind = Some(Rewind { to: first.first_seq, seen: 0 });
        }
        let change = with_lost_rewind(before, Some(&recorded), first.first_seq, generation);
        let share = Share {
            stream,
            root,
            offset: first.offset,
            generation,
            change: change.as_ref().filter(|change| !change.is_empty()),
        };
        catalog.gather_sealed(roots, segment, share, seqs.clone());
        let later = piece.iter().filter(|batch| batch.offset > first.offset);
        for batch in later.filter(|batch| batch.kind == BatchKind::Catalog) {
            let Some(change) = changes.get(&(stream, batch.offset)) else { continue };
            let share = Share { offset: batch.offset, change: Some(change), ..share };
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
