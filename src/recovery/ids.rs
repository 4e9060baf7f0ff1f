//! Recent commit ids of a log that is opened for writing.
//!
//! Replaying the segments notes each id, or only its offset where the commit is not read anyway. At
//! the end, only the offsets among the latest ids are read.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::CommitIds;
use crate::error::Result;
use crate::segment::scan::{Found, Scanner, Step};
use crate::segment::{FilePool, Segment};
use crate::types::{CommitId, through};

/// Latest commits that have an id.
pub(super) struct LatestIds {
    ids_max: usize,
    latest: VecDeque<WithId>,
}

/// A commit that has an id.
enum WithId {
    /// Offset of a commit that was not read.
    At(Arc<Segment>, u64),
    /// Id and position of a commit that was read.
    Known(CommitId, u64),
}

impl LatestIds {
    pub(super) fn new(ids_max: usize) -> Self {
        Self { ids_max, latest: VecDeque::new() }
    }

    /// Notes a commit that has an id, by its offset. Callers note commits in log order.
    pub(super) fn note_at(&mut self, segment: &Arc<Segment>, offset: u64) {
        self.note(WithId::At(Arc::clone(segment), offset));
    }

    /// Notes a commit that was read if it has an id.
    pub(super) fn note_found(&mut self, found: &Found) {
        if let Some(id) = found.id {
            self.note(WithId::Known(id, found.head.position));
        }
    }

    fn note(&mut self, commit: WithId) {
        if self.latest.len() >= self.ids_max {
            self.latest.pop_front();
        }
        if self.ids_max > 0 {
            self.latest.push_back(commit);
        }
    }

    /// Reads the ids that are known by offset only, and returns all, with the commits whose id
    /// cannot be read.
    pub(super) fn read(&self, files: &Arc<FilePool>) -> Result<(CommitIds, Vec<LostId>)> {
        let (mut ids, mut lost) = (CommitIds::new(self.ids_max), Vec::new());
        let mut reading: Option<(&Arc<Segment>, Scanner)> = None;
        for commit in &self.latest {
            let (segment, offset) = match commit {
                WithId::Known(id, position) => {
                    ids.note(*id, *position);
                    continue;
                }
                WithId::At(segment, offset) => (segment, offset),
            };
            let (_, scanner) = match &mut reading {
                Some(open) if Arc::ptr_eq(open.0, segment) => open,
                other => other.insert((segment, scanner(files, segment)?)),
            };
            let found = match scanner.step(*offset)? {
                Step::Commit(found) => Some(found),
                _ => None,
            };
            let position = found.as_ref().map(|found| found.head.position);
            match (found.and_then(|found| found.id), position) {
                (Some(id), Some(position)) => ids.note(id, position),
                _ => {
                    let positions = position.map_or(0..0, |position| through(position, position));
                    lost.push(LostId { number: segment.number(), offset: *offset, positions });
                }
            }
        }
        Ok((ids, lost))
    }
}

/// Commit of a sealed segment whose id cannot be read.
pub(super) struct LostId {
    pub(super) number: u32,
    pub(super) offset: u64,
    /// Its position; empty if that cannot be read either.
    pub(super) positions: Range<u64>,
}

fn scanner(files: &Arc<FilePool>, segment: &Arc<Segment>) -> Result<Scanner> {
    let length = segment.file_bytes(files)?;
    let end = segment.seal_state().map_or(u64::MAX, |sealed| sealed.footer_at);
    Ok(Scanner::new(Arc::clone(segment), end.min(length), Arc::clone(files)))
}
