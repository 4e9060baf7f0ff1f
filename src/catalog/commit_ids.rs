//! Recent commit ids, kept to reject retries of commits that were made before.
//!
//! Bounded by [`Options::commit_ids_max`](crate::Options::commit_ids_max). Ids are dropped by
//! position, the oldest first, so the set is the same after the log is opened again.

use std::collections::{HashMap, VecDeque};

use crate::types::CommitId;

/// Ids of the latest commits that have one.
#[derive(Debug)]
pub(crate) struct CommitIds {
    ids_max: usize,
    positions: HashMap<CommitId, u64>,
    order: VecDeque<CommitId>,
}

impl CommitIds {
    /// Returns a set that keeps the latest `ids_max` ids.
    pub(crate) fn new(ids_max: usize) -> Self {
        Self { ids_max, positions: HashMap::new(), order: VecDeque::new() }
    }

    /// Returns the position of the commit with this id.
    pub(crate) fn position(&self, id: CommitId) -> Option<u64> {
        self.positions.get(&id).copied()
    }

    /// Returns the position of the oldest commit whose id is remembered; 0 while the set is not
    /// full.
    pub(crate) fn since(&self) -> u64 {
        let oldest = self.order.front().filter(|_| self.order.len() >= self.ids_max);
        oldest.and_then(|id| self.position(*id)).unwrap_or(0)
    }

    /// Records a commit, which must be later than all others.
    pub(crate) fn note(&mut self, id: CommitId, position: u64) {
        if self.positions.insert(id, position).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > self.ids_max {
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
        let id = |n: usize| CommitId::from(n as u128);
        for max in [1, 2, 1_000] {
            let mut ids = CommitIds::new(max);
            for n in 0..max + 10 {
                ids.note(id(n), n as u64);
            }
            assert_eq!((ids.position(id(9)), ids.position(id(10))), (None, Some(10)));
            assert_eq!((ids.since(), ids.order.len(), ids.positions.len()), (10, max, max));
        }
    }
}
