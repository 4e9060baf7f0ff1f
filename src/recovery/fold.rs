//! From what was found to the catalog: which branch the batches of each stream belong to.
//!
//! A rewind that was lost is noticed where the generation of a batch, or a seq that was given before, says that
//! there was one: so the stream goes on in a branch of its own, and what was rewound stays out of it.

use std::collections::HashMap;

use super::scan::Found;
use crate::catalog::{Catalog, Change, Gathered, Rewind, Share, Standing};
use crate::format::{BatchHead, BatchKind, GENERATION_MAX};
use crate::index::BatchRef;
use crate::segment::Segment;
use crate::types::StreamId;

/// What commits say of streams, by where they start.
pub(super) type Changes = HashMap<(StreamId, u64), Change>;

/// Notes a commit of a segment that is not sealed.
pub(super) fn note_commit(
    catalog: &Catalog,
    gathered: &mut Gathered,
    segment: &Segment,
    found: &Found,
) {
    for batches in found.batches.chunk_by(|one, next| one.stream == next.stream) {
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
        known.sort_by_key(|batch| order(batch.kind));
        let Some(first_seq) = known.first().map(|batch| batch.first_seq) else { continue };
        let generation = first.generation;
        let root = gathered.root(stream);
        let standing = root.and_then(|root| catalog.standing(root));
        let change = whole(standing, found.change(stream), first_seq, generation);
        let share = Share { stream, root, offset, generation, change: change.as_ref() };
        catalog.gather(gathered, segment, share, known.into_iter());
    }
}

/// Notes the batches of one stream in a sealed segment, as the footer lists them.
pub(super) fn note_run(
    (catalog, gathered): (&Catalog, &mut Gathered),
    segment: u32,
    stream: StreamId,
    batches: &[BatchRef],
    changes: &Changes,
) {
    let mut rest = batches;
    while let Some(first) = rest.first() {
        // Up to the next rewind it is one branch.
        let next = rest.iter().skip(1).position(|batch| batch.kind == BatchKind::Rewind);
        let mut end = next.map_or(rest.len(), |next| next + 1);
        if rest.windows(2).take(end - 1).any(|two| two[1].first_seq < two[0].first_seq) {
            end =
                1 + rest.windows(2).take_while(|two| two[1].first_seq >= two[0].first_seq).count();
        }
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        let Some(last) = piece.last() else { return };
        let seqs = (first.first_seq..last.end_seq(), last.offset);
        let root = gathered.root(stream);
        let before = root.and_then(|root| catalog.standing(root));
        let standing = before.unwrap_or_default();
        let said = changes.get(&(stream, first.offset));
        let generation = match first.kind {
            BatchKind::Rewind | BatchKind::Fork => first.count,
            _ if first.first_seq < standing.head => standing.generation + 1,
            _ => standing.generation,
        }
        .min(GENERATION_MAX);
        let mut said = said.cloned().unwrap_or_default();
        if first.kind == BatchKind::Rewind {
            said.rewind = Some(Rewind { to: first.first_seq, seen: 0 });
        }
        let change = whole(before, Some(&said), first.first_seq, generation);
        let share = Share {
            stream,
            root,
            offset: first.offset,
            generation,
            change: change.as_ref().filter(|change| !change.is_empty()),
        };
        catalog.gather_sealed(gathered, segment, share, seqs.clone());
        let later = piece.iter().filter(|batch| batch.offset > first.offset);
        for batch in later.filter(|batch| batch.kind == BatchKind::Catalog) {
            let Some(change) = changes.get(&(stream, batch.offset)) else { continue };
            let share = Share { offset: batch.offset, change: Some(change), ..share };
            catalog.gather_sealed(gathered, segment, share, seqs.clone());
        }
    }
}

/// Forks and rewinds say where everything else of their commit belongs.
pub(crate) fn order(kind: BatchKind) -> (bool, u8) {
    let is_first = matches!(kind, BatchKind::Fork | BatchKind::Rewind | BatchKind::CommitId);
    (!is_first, kind as u8)
}

/// What a commit says, with a rewind that is nowhere said and must have been.
fn whole(
    standing: Option<Standing>,
    said: Option<&Change>,
    first_seq: u64,
    generation: u32,
) -> Option<Change> {
    let is_told = said.is_some_and(|change| change.rewind.is_some());
    let is_lost = standing
        .filter(|_| !is_told)
        .is_some_and(|standing| generation != standing.generation || first_seq < standing.head);
    if !is_lost {
        return said.cloned();
    }
    let rewind = Some(Rewind { to: first_seq, seen: 0 });
    Some(Change { rewind, ..said.cloned().unwrap_or_default() })
}
