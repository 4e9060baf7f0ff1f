//! Verification of sealed segments against their footers.
//!
//! The footer records where each commit starts and which events it holds. Each commit is therefore
//! checked at its known offset without a search, and the events of a lost commit can be named.

use std::collections::HashSet;
use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;

use super::report::DamageKind;
use crate::error::Result;
use crate::format::{BatchHead, BatchKind, COMMITS_AT, CommitPlace, FooterEntry, place_block};
use crate::segment::scan::{Found, Scanner, Step};
use crate::segment::{FilePool, Segment};
use crate::types::{Seq, StreamId, through};

/// Ranges of lost events, by stream.
pub(super) type LostEvents = Vec<(StreamId, Range<Seq>)>;

/// Result of checking a sealed segment against its footer.
pub(super) enum FooterCheck {
    /// Its commits are those of the footer, except for these losses.
    Listed(Vec<Loss>),
    /// The footer does not list the commits that the segment should have, or lists other places.
    Unlisted,
    /// Offset of a sound commit that this build does not understand.
    Unknown(u64),
}

/// Lost or damaged commits in one place.
pub(super) struct Loss {
    pub(super) kind: DamageKind,
    pub(super) offset: u64,
    pub(super) positions: Range<u64>,
    pub(super) events: LostEvents,
}

/// Checks every commit of a sealed segment.
pub(super) fn check(segment: &Arc<Segment>, files: &Arc<FilePool>) -> Result<FooterCheck> {
    let Some(sealed) = segment.seal_state() else { return Ok(FooterCheck::Unlisted) };
    let footer = segment.footer(files)?;
    let mut entries: Vec<FooterEntry> = footer.entries().flatten().collect();
    entries.sort_by_key(|entry| entry.offset);
    let starts = || entries.chunk_by(|entry, next| entry.offset == next.offset);
    let dense = sealed.last_position.saturating_add(1).checked_sub(sealed.first_position);
    let commits = (!segment.is_sparse()).then_some(dense);
    let counted = commits.is_none_or(|commits| commits == Some(starts().count() as u64));
    let at_start = entries.first().is_none_or(|entry| entry.offset == COMMITS_AT);
    if !counted || !at_start {
        return Ok(FooterCheck::Unlisted);
    }
    let mut scanner = Scanner::new(Arc::clone(segment), sealed.footer_at, Arc::clone(files));
    let mut losses = Losses { list: Vec::new(), next: sealed.first_position };
    let mut places = Places { listed: footer.places().peekable(), block: None };
    let mut ends = starts().skip(1).map(|listed| listed[0].offset).chain([sealed.footer_at]);
    for listed in starts() {
        let offset = listed[0].offset;
        let step = scanner.step_until(offset, ends.next().unwrap_or(sealed.footer_at))?;
        let may_stand = |position| match segment.is_sparse() {
            true => (losses.next..=sealed.last_position).contains(&position),
            false => position == losses.next,
        };
        let found = match step {
            Step::Commit(found) if may_stand(found.head.position) => found,
            _ => {
                let lost = (!segment.is_sparse()).then_some(losses.next);
                if !places.agree(offset, lost) {
                    return Ok(FooterCheck::Unlisted);
                }
                losses.lose(segment, offset, listed);
                continue;
            }
        };
        if !places.agree(offset, Some(found.head.position)) {
            return Ok(FooterCheck::Unlisted);
        }
        if found.is_sound() && found.unknown {
            return Ok(FooterCheck::Unknown(offset));
        }
        if found.is_sound() && !is_listed(&found, listed) {
            return Ok(FooterCheck::Unlisted);
        }
        losses.found(segment, &found, listed);
    }
    if places.listed.peek().is_some() {
        return Ok(FooterCheck::Unlisted);
    }
    losses.extend_hole(segment, sealed.last_position);
    Ok(FooterCheck::Listed(losses.list))
}

/// Places in the footer, compared with the commits in their order.
struct Places<I: Iterator<Item = CommitPlace>> {
    listed: Peekable<I>,
    /// Block of the last commit.
    block: Option<u64>,
}

impl<I: Iterator<Item = CommitPlace>> Places<I> {
    /// Tells whether the footer has the place of the next commit, if it is the first of its block.
    /// Nothing tells the position of a lost commit of a sparse segment.
    fn agree(&mut self, offset: u64, position: Option<u64>) -> bool {
        let block = Some(place_block(offset));
        if std::mem::replace(&mut self.block, block) == block {
            return true;
        }
        let is_it = |place: CommitPlace| {
            place.offset == offset && position.is_none_or(|position| place.position == position)
        };
        self.listed.next().is_some_and(is_it)
    }
}

/// Reports whether these entries are those of a commit's batches.
fn is_listed(found: &Found, listed: &[FooterEntry]) -> bool {
    let is_own = |entry: &FooterEntry| {
        let first = found.batches.partition_point(|batch| batch.stream < entry.stream);
        let own = found.batches.get(first..).unwrap_or_default();
        let mut own = own.iter().take_while(|batch| batch.stream == entry.stream);
        let is_it = |batch: &BatchHead| {
            (batch.kind, batch.first_seq, batch.count, batch.generation)
                == (Some(entry.kind), entry.first_seq, entry.count, entry.generation)
        };
        entry.position == found.head.position && own.any(is_it)
    };
    found.batches.len() == listed.len() && listed.iter().all(is_own)
}

/// Losses found so far, and the position of the next commit.
struct Losses {
    list: Vec<Loss>,
    next: u64,
}

impl Losses {
    fn found(&mut self, segment: &Segment, found: &Found, listed: &[FooterEntry]) {
        let position = found.head.position;
        self.extend_hole(segment, position.saturating_sub(1));
        if !found.is_sound() {
            self.list.push(Loss {
                kind: DamageKind::Commit,
                offset: found.offset,
                positions: through(position, position),
                events: [unlisted(found, listed), lost_events(found)].concat(),
            });
        }
        self.next = position.saturating_add(1);
    }

    /// Records a lost commit. Adjacent lost commits form one hole.
    fn lose(&mut self, segment: &Segment, offset: u64, listed: &[FooterEntry]) {
        // A lost commit of a sparse segment has an unknown position; the next commit ends the hole.
        let step = u64::from(!segment.is_sparse());
        let lost = self.next..self.next.saturating_add(step);
        self.next = lost.end;
        match self.list.last_mut() {
            Some(hole) if hole.kind == DamageKind::Hole && hole.positions.end == lost.start => {
                hole.positions.end = lost.end;
                hole.events.extend(events(listed));
            }
            _ => self.list.push(Loss {
                kind: DamageKind::Hole,
                offset,
                positions: lost,
                events: events(listed),
            }),
        }
    }

    /// Extends an open hole of a sparse segment up to the position `last`.
    fn extend_hole(&mut self, segment: &Segment, last: u64) {
        if let Some(hole) = self.list.last_mut()
            && segment.is_sparse()
            && hole.kind == DamageKind::Hole
            && hole.positions.end == self.next
        {
            hole.positions.end = last.saturating_add(1);
        }
    }
}

fn events<'a>(listed: impl IntoIterator<Item = &'a FooterEntry>) -> LostEvents {
    let lost =
        |entry: &FooterEntry| lost_batch(entry.kind, entry.stream, entry.first_seq, entry.count);
    listed.into_iter().filter_map(lost).collect()
}

/// Returns the events that the footer lists and the damaged directory of their commit does not.
fn unlisted(found: &Found, listed: &[FooterEntry]) -> LostEvents {
    let known: HashSet<_> = found.batches.iter().map(|batch| (batch.stream, batch.kind)).collect();
    let is_missing = |entry: &&FooterEntry| !known.contains(&(entry.stream, Some(entry.kind)));
    events(listed.iter().filter(is_missing))
}

/// Returns the events of a commit's damaged batches.
pub(super) fn lost_events(found: &Found) -> LostEvents {
    let bad = found.bad.iter().filter_map(|index| found.batches.get(*index));
    let lost =
        |batch: &BatchHead| lost_batch(batch.kind?, batch.stream, batch.first_seq, batch.count);
    bad.filter_map(lost).collect()
}

/// Returns the events that are lost with a batch.
fn lost_batch(
    kind: BatchKind,
    stream: [u8; 16],
    first_seq: u64,
    count: u32,
) -> Option<(StreamId, Range<Seq>)> {
    match kind {
        BatchKind::Events => Some(span(stream, first_seq, count)),
        // Without the fork batch, the events shared with the base stream cannot be found.
        BatchKind::Fork => Some((StreamId::from_bytes(stream), Seq(0)..Seq(first_seq))),
        // Attributes of the stream are lost, but no event.
        BatchKind::Catalog => Some(span(stream, first_seq, 0)),
        _ => None,
    }
}

fn span(stream: [u8; 16], first_seq: u64, count: u32) -> (StreamId, Range<Seq>) {
    let end = first_seq.saturating_add(u64::from(count));
    (StreamId::from_bytes(stream), Seq(first_seq)..Seq(end))
}
