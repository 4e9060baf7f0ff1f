//! Findings of a load: damage, the state of every file, and the times that writers vouched for.

use std::ops::Range;

use super::discover::Candidate;
use super::ids::LostId;
use super::replay::DamagedRange;
use super::report::{Damage, DamageKind, RecoveryReport, SegmentReport, SegmentState};
use super::sealed::LostEvents;
use crate::segment::{OldFile, Segment, place};
use crate::types::{Position, Timestamp};

/// Number and length of a file.
#[derive(Clone, Copy)]
pub(super) struct FoundFile {
    pub(super) number: u32,
    pub(super) bytes: u64,
}

impl FoundFile {
    pub(super) fn of(candidate: &Candidate) -> Self {
        Self { number: candidate.number, bytes: candidate.bytes }
    }
}

/// Findings so far.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) report: RecoveryReport,
    /// Unusable files after the last segment that was applied.
    pub(super) in_the_way: Vec<u32>,
    /// Files whose commits are in a later, sparse segment, with the number of that segment.
    pub(super) superseded: Vec<(OldFile, u32)>,
    /// Latest time that a writer vouched for.
    vouched: Timestamp,
}

impl Findings {
    /// Notes the latest time that the segment's writer vouched for, in its tail record or its
    /// commits.
    pub(super) fn vouch(&mut self, segment: &Segment, tail_record: Option<Timestamp>) {
        let commits = Timestamp::from_micros(segment.commits.times().vouched_last);
        let none = Timestamp::default();
        let latest = tail_record.filter(|time| *time != none).unwrap_or(commits);
        if latest != none {
            self.vouched = latest;
        }
    }

    /// Returns the latest time that a writer vouched for, if any.
    pub(super) fn vouched(&self) -> Option<Timestamp> {
        Some(self.vouched).filter(|time| *time != Timestamp::default())
    }

    /// Records a superseded file. A file without a readable header is not removed later.
    pub(super) fn supersede(&mut self, candidate: &Candidate, by: u32) {
        let header = candidate.role.header();
        let state = header.map_or(SegmentState::Unusable, |_| SegmentState::Superseded);
        self.file(FoundFile::of(candidate), 0..0, state);
        let is_gone = candidate.is_gone();
        self.superseded.extend(header.map(|header| (OldFile { header, is_gone }, by)));
    }

    /// Records a commit whose id is lost, unless its damage is known.
    pub(super) fn lost_id(&mut self, lost: &LostId) {
        let place = place(lost.number, lost.offset);
        let is_known = |damage: &Damage| {
            let same = |position: Position| damage.positions.contains(&position);
            damage.place == place || same(Position(lost.positions.start))
        };
        if !self.report.damages.iter().any(is_known) {
            self.damage(DamageKind::Commit, lost.number, lost.offset, lost.positions.clone());
        }
    }

    /// Records a file that may have held the commits of these positions.
    pub(super) fn unusable(&mut self, file: FoundFile, kind: DamageKind, lost: Range<u64>) {
        self.in_the_way.push(file.number);
        self.damage(kind, file.number, 0, lost);
        self.file(file, 0..0, SegmentState::Unusable);
    }

    /// Records damage that a replay found; `bad` lists its unsound commits by position.
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

    pub(super) fn file(&mut self, file: FoundFile, positions: Range<u64>, state: SegmentState) {
        self.report.segments.push(SegmentReport {
            number: file.number,
            bytes: file.bytes,
            positions: Position(positions.start)..Position(positions.end),
            state,
        });
    }

    /// Returns true if the report already contains the loss of these commits.
    pub(super) fn is_reported(&self, lost: &Range<u64>) -> bool {
        // Damage that extends this far was found since the last segment.
        let recent = self.report.damages.iter().rev().take_while(|damage| {
            damage.positions.is_empty() || damage.positions.end.get() > lost.start
        });
        let mut positions = recent.map(|damage| &damage.positions);
        positions.any(|those| those.end.get() == lost.end && those.start.get() <= lost.start)
    }

    /// Returns true if anything damaged here has this kind.
    pub(super) fn has(&self, kind: DamageKind) -> bool {
        self.report.damages.iter().any(|damage| damage.kind == kind)
    }
}
