//! Is a sealed segment what its footer says? Every commit that it lists is looked at where it should stand.
//!
//! The footer is a second account of the segment: it says where each commit starts and which events are in it. So
//! nothing has to be searched for, and of a commit that is lost the events can be named.

use std::ops::Range;
use std::sync::Arc;

use super::report::DamageKind;
use super::scan::{Found, Scanner, Step};
use crate::error::Result;
use crate::format::{BatchKind, COMMITS_AT, FooterEntry};
use crate::segment::Segment;
use crate::types::{Seq, StreamId};

/// Events of streams.
pub(super) type LostEvents = Vec<(StreamId, Range<Seq>)>;

/// What became of a sealed segment.
pub(super) enum Verdict {
    /// Its commits are those of the footer, but for these.
    Listed(Vec<Loss>),
    /// The footer lists other commits than the segment should have.
    Unlisted,
    /// A sound commit, starting here, that this build does not understand.
    Unknown(u64),
}

/// Commits that are lost or hurt.
pub(super) struct Loss {
    pub(super) kind: DamageKind,
    pub(super) offset: u64,
    pub(super) positions: Range<u64>,
    pub(super) events: LostEvents,
}

/// Looks at every commit of a sealed segment.
pub(super) fn check(segment: &Arc<Segment>) -> Result<Verdict> {
    let Some(sealed) = segment.seal_state() else { return Ok(Verdict::Unlisted) };
    let footer = &sealed.footer;
    let mut entries: Vec<FooterEntry> =
        (0..footer.len()).filter_map(|at| footer.entry(at)).collect();
    entries.sort_by_key(|entry| entry.offset);
    let starts = || entries.chunk_by(|one, next| one.offset == next.offset);
    let dense = (sealed.last_position + 1).checked_sub(sealed.first_position);
    let commits = (!segment.is_sparse()).then_some(dense);
    let counted = commits.is_none_or(|commits| commits == Some(starts().count() as u64));
    let at_start = entries.first().is_none_or(|entry| entry.offset == COMMITS_AT);
    if !counted || !at_start {
        return Ok(Verdict::Unlisted);
    }
    let mut scanner = Scanner::new(Arc::clone(segment), sealed.footer_at);
    let mut losses = Losses { list: Vec::new(), next: sealed.first_position };
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
                losses.lose(segment, offset, listed);
                continue;
            }
        };
        if found.is_sound() && found.unknown {
            return Ok(Verdict::Unknown(offset));
        }
        if found.is_sound() && found.batches.len() != listed.len() {
            return Ok(Verdict::Unlisted);
        }
        losses.found(segment, &found, listed);
    }
    losses.end(segment, sealed.last_position);
    Ok(Verdict::Listed(losses.list))
}

/// What was lost so far, and the position that comes next.
struct Losses {
    list: Vec<Loss>,
    next: u64,
}

impl Losses {
    fn found(&mut self, segment: &Segment, found: &Found, listed: &[FooterEntry]) {
        let position = found.head.position;
        self.end(segment, position - 1);
        if !found.is_sound() {
            self.list.push(Loss {
                kind: DamageKind::Commit,
                offset: found.offset,
                positions: position..position + 1,
                events: if found.batches.is_empty() { events(listed) } else { lost_events(found) },
            });
        }
        self.next = position + 1;
    }

    /// Commits that are lost one after the other are one hole.
    fn lose(&mut self, segment: &Segment, offset: u64, listed: &[FooterEntry]) {
        // In a sparse segment nothing tells which position it had: that of the hole ends with the next commit.
        let step = u64::from(!segment.is_sparse());
        let lost = self.next..self.next + step;
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

    /// In a sparse segment, a hole right before reaches up to this position.
    fn end(&mut self, segment: &Segment, last: u64) {
        if let Some(hole) = self.list.last_mut()
            && segment.is_sparse()
            && hole.kind == DamageKind::Hole
            && hole.positions.end == self.next
        {
            hole.positions.end = last + 1;
        }
    }
}

fn events(listed: &[FooterEntry]) -> LostEvents {
    let events = listed.iter().filter(|entry| entry.kind == BatchKind::Events);
    events.map(|entry| span(entry.stream, entry.first_seq, entry.count)).collect()
}

/// The events of the batches of a commit that are not what was written.
pub(super) fn lost_events(found: &Found) -> LostEvents {
    let bad = found.bad.iter().filter_map(|index| found.batches.get(*index));
    bad.filter_map(|batch| match batch.kind? {
        BatchKind::Events => Some(span(batch.stream, batch.first_seq, batch.count)),
        // What it shared cannot be found without.
        BatchKind::Fork => Some((StreamId::from_bytes(batch.stream), Seq(0)..Seq(batch.first_seq))),
        // No event is lost, but what was said of the stream.
        BatchKind::Catalog => Some(span(batch.stream, batch.first_seq, 0)),
        _ => None,
    })
    .collect()
}

fn span(stream: [u8; 16], first_seq: u64, count: u32) -> (StreamId, Range<Seq>) {
    let end = first_seq.saturating_add(u64::from(count));
    (StreamId::from_bytes(stream), Seq(first_seq)..Seq(end))
}
