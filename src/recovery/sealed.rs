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
    let commits = (sealed.last_position + 1).checked_sub(sealed.first_position);
    let at_start = entries.first().is_none_or(|entry| entry.offset == COMMITS_AT);
    if commits != Some(starts().count() as u64) || !at_start {
        return Ok(Verdict::Unlisted);
    }
    let mut scanner = Scanner::new(Arc::clone(segment), sealed.footer_at);
    let mut losses: Vec<Loss> = Vec::new();
    let mut ends = starts().skip(1).map(|listed| listed[0].offset).chain([sealed.footer_at]);
    for (position, listed) in (sealed.first_position..).zip(starts()) {
        let offset = listed[0].offset;
        let step = scanner.step_until(offset, ends.next().unwrap_or(sealed.footer_at))?;
        let found = match step {
            Step::Commit(found) if found.head.position == position => Some(found),
            _ => None,
        };
        match found {
            Some(found) if found.is_sound() && found.unknown => {
                return Ok(Verdict::Unknown(offset));
            }
            Some(found) if found.is_sound() && found.batches.len() == listed.len() => {}
            Some(found) if found.is_sound() => return Ok(Verdict::Unlisted),
            Some(found) => losses.push(Loss {
                kind: DamageKind::Commit,
                offset,
                positions: position..position + 1,
                events: if found.batches.is_empty() { events(listed) } else { lost_events(&found) },
            }),
            None => lose(&mut losses, offset, position, listed),
        }
    }
    Ok(Verdict::Listed(losses))
}

/// Commits that are lost one after the other are one hole.
fn lose(losses: &mut Vec<Loss>, offset: u64, position: u64, listed: &[FooterEntry]) {
    match losses.last_mut() {
        Some(hole) if hole.kind == DamageKind::Hole && hole.positions.end == position => {
            hole.positions.end += 1;
            hole.events.extend(events(listed));
        }
        _ => losses.push(Loss {
            kind: DamageKind::Hole,
            offset,
            positions: position..position + 1,
            events: events(listed),
        }),
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
