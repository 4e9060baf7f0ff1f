//! Findings of the loader: damage, segments, the watermark, and the times that writers vouched for.

use std::ops::Range;

use super::{Candidate, File, Later, Loader};
use crate::catalog::{Lsn, Watermark};
use crate::recovery::replay::DamagedRange;
use crate::recovery::report::{Damage, DamageKind, SegmentReport, SegmentState};
use crate::recovery::sealed::LostEvents;
use crate::segment::{OldFile, Segment, place};
use crate::types::{Position, Timestamp};

impl Loader {
    /// Notes the latest time that the segment's writer vouched for, in its tail record or its
    /// commits.
    pub(super) fn vouch(&mut self, segment: &Segment, tail_record: Option<Timestamp>) {
        let commits = Timestamp::from_micros(segment.times.get().vouched_last);
        let none = Timestamp::default();
        let latest = tail_record.filter(|time| *time != none).unwrap_or(commits);
        if latest != none {
            self.vouched = latest;
        }
    }

    /// Records a superseded file. A file without a readable header is not removed later.
    pub(super) fn supersede(&mut self, file: &Candidate, by: u32) {
        let header = file.role.header();
        let state = header.map_or(SegmentState::Unusable, |_| SegmentState::Superseded);
        self.report(&File { number: file.number, bytes: file.bytes }, 0..0, state);
        let is_gone = file.is_gone();
        self.superseded.extend(header.map(|header| (OldFile { header, is_gone }, by)));
    }

    pub(super) fn unusable(&mut self, file: &File, kind: DamageKind, later: Option<Later>) {
        self.in_the_way.push(file.number);
        let end = later.and_then(|later| later.first).unwrap_or(self.next).max(self.next);
        self.damage(kind, file.number, 0, self.next..end);
        self.report(file, 0..0, SegmentState::Unusable);
    }

    pub(super) fn damage_in(
        &mut self,
        number: u32,
        range: DamagedRange,
        bad: &[(u64, LostEvents)],
    ) {
        let at = bad.binary_search_by_key(&range.positions.start, |(position, _)| *position);
        let of_commit = at.ok().and_then(|at| bad.get(at));
        let of_commit =
            of_commit.filter(|(position, _)| range.positions.end == position.saturating_add(1));
        let kind = if of_commit.is_some() { DamageKind::Commit } else { DamageKind::Hole };
        self.damage(kind, number, range.offset, range.positions);
        if let (Some((_, events)), Some(damage)) = (of_commit, self.report.damages.last_mut()) {
            damage.events.clone_from(events);
        }
    }

    pub(super) fn damage(
        &mut self,
        kind: DamageKind,
        number: u32,
        offset: u64,
        positions: Range<u64>,
    ) {
        self.report.damages.push(Damage {
            kind,
            place: place(number, offset),
            positions: Position(positions.start)..Position(positions.end),
            events: Vec::new(),
        });
    }

    pub(super) fn report(&mut self, file: &File, positions: Range<u64>, state: SegmentState) {
        self.report.segments.push(SegmentReport {
            number: file.number,
            bytes: file.bytes,
            positions: Position(positions.start)..Position(positions.end),
            state,
        });
    }

    /// Returns the position of the last commit so far; 0 before the first.
    pub(super) fn last_position(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    pub(super) fn raise(&mut self, end: Lsn) {
        let visible = self.last_position();
        self.catalog.raise(Watermark { visible, durable: self.durable, end });
    }
}
