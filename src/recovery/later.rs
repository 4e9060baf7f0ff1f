//! Facts about a file from those after it: where the next segment starts, and which sparse segment
//! replaces it.

use super::discover::{Candidate, Rank, Role};

/// Sparse segments in order, each with the first position that it or a later one covers.
pub(super) struct Sparse(Vec<(Rank, u64)>);

impl Sparse {
    pub(super) fn of(candidates: &[Candidate]) -> Self {
        let covers_of = |candidate: &Candidate| match &candidate.role {
            Role::Segment(start) => Some((candidate.rank(), start.header.covers?.first)),
            _ => None,
        };
        let mut all: Vec<(Rank, u64)> = candidates.iter().filter_map(covers_of).collect();
        let mut least = u64::MAX;
        for (_, first) in all.iter_mut().rev() {
            least = least.min(*first);
            *first = least;
        }
        Self(all)
    }

    /// Returns the number of a sparse segment after this file that covers `from` or an earlier
    /// position.
    pub(super) fn covering(&self, candidate: &Candidate, from: u64) -> Option<u32> {
        let after = &self.0[self.0.partition_point(|(sparse, _)| *sparse <= candidate.rank())..];
        // The first positions ascend: the last entry that starts early enough covers `from`.
        let last = after.partition_point(|(_, first)| *first <= from).checked_sub(1)?;
        after.get(last).map(|((sparse, _), _)| *sparse)
    }
}

/// Start of the next segment, which bounds the segment before it.
#[derive(Clone, Copy)]
pub(super) struct Later {
    /// Position of its first commit, if it can be read.
    pub(super) first: Option<u64>,
    /// True if the first position of this segment or of a later one is known.
    pub(super) anchored: bool,
}

impl Later {
    /// Returns the start of each candidate that is a segment.
    pub(super) fn of_each(candidates: &[Candidate]) -> Vec<Option<Self>> {
        let first = |candidate: &Candidate| match &candidate.role {
            Role::Segment(start) => Some(start.first),
            _ => None,
        };
        let mut anchored = false;
        let later = candidates.iter().rev().map(|candidate| {
            let first = first(candidate)?;
            anchored |= first.is_some();
            Some(Self { first, anchored })
        });
        let mut each: Vec<_> = later.collect();
        each.reverse();
        each
    }
}
