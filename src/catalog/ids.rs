//! Which commits were given an id by the program, of late: so that a retry is told that it was there before.
//!
//! It is bounded, and what it forgets is forgotten in the same order always: by position. So it is the
//! same after the log was opened again.

use std::collections::{HashMap, VecDeque};

use crate::types::CommitId;

/// So many commits that have an id are remembered, the latest.
pub(crate) const COMMIT_IDS_MAX: usize = 16_384;

/// The ids of the latest commits that have one.
#[derive(Default, Debug)]
pub(crate) struct CommitIds {
    positions: HashMap<CommitId, u64>,
    order: VecDeque<CommitId>,
}

impl CommitIds {
    /// The commit that has this id.
    pub(crate) fn position(&self, id: CommitId) -> Option<u64> {
        self.positions.get(&id).copied()
    }

    /// Commits before this position are forgotten, if they had an id.
    pub(crate) fn since(&self) -> u64 {
        let oldest = self.order.front().filter(|_| self.order.len() >= COMMIT_IDS_MAX);
        oldest.and_then(|id| self.position(*id)).unwrap_or(0)
    }

    /// Notes a commit, behind all that were noted.
    pub(crate) fn note(&mut self, id: CommitId, position: u64) {
        if self.positions.insert(id, position).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > COMMIT_IDS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.positions.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ids_are_forgotten_first() {
        let mut ids = CommitIds::default();
        let id = |n: usize| CommitId::from(n as u128);
        for n in 0..COMMIT_IDS_MAX + 10 {
            ids.note(id(n), n as u64);
        }
        assert_eq!(ids.position(id(9)), None);
        assert_eq!(ids.position(id(10)), Some(10));
        assert_eq!(ids.order.len(), ids.positions.len());
    }
}
