//! Seqs shown by views: from views to the branches that hold their events.
//!
//! Many views may share many branches. The walk visits each branch once, after all branches
//! based on it, and merges the adjacent ranges that those show of it.

use std::collections::HashMap;
use std::ops::Range;

use super::Catalog;
use crate::index::ArenaId;
use crate::sabotage::{Sabotage, broken};
use crate::work::{step, steps};

/// Sorted ranges of seqs that do not touch.
pub(crate) type Ranges = Vec<Range<u64>>;

/// Branch that views reach.
#[derive(Default)]
struct Visit {
    /// Ranges of seqs that reach it, unsorted.
    reached: Ranges,
    /// Number of branches that have it as their base and are not visited yet.
    left: u32,
}

impl Catalog {
    /// Returns the own seqs that each branch shows to these views, each the seqs of a branch and of
    /// its bases. A branch that views only pass through shows no seqs.
    pub(super) fn shown_seqs(
        &self,
        views: impl Iterator<Item = (ArenaId, Range<u64>)>,
    ) -> HashMap<ArenaId, Ranges> {
        let mut visited: HashMap<ArenaId, Visit> = HashMap::new();
        for (tip, seqs) in views.filter(|(_, seqs)| !seqs.is_empty()) {
            self.visit(&mut visited, tip);
            visited.entry(tip).or_default().reached.push(seqs);
        }
        let is_free = |(_, visited): &(&ArenaId, &Visit)| visited.left == 0;
        let mut free: Vec<ArenaId> = visited.iter().filter(is_free).map(|(at, _)| *at).collect();
        let mut shown = HashMap::with_capacity(visited.len());
        while let Some(at) = free.pop() {
            let Some(branch) = self.branch(at) else { continue };
            let reached = visited.remove(&at).map_or_else(Vec::new, |visited| visited.reached);
            let is_passed = !reached.is_empty();
            let (own, rest) = part(&merge(reached), branch.start());
            if is_passed {
                shown.insert(at, own);
            }
            let Some(base) = self.base(branch) else { continue };
            let Some(below) = visited.get_mut(&base) else { continue };
            below.reached.extend(rest.into_iter().filter(|_| !broken(Sabotage::ForgetShared)));
            below.left = below.left.saturating_sub(1);
            if below.left == 0 {
                free.push(base);
            }
        }
        // Damage has made these branches a cycle: each shows everything.
        let everything = |at: ArenaId| (at, Ranges::from_iter(Some(0..u64::MAX)));
        shown.extend(visited.into_keys().map(everything));
        shown
    }

    /// Adds a branch and its bases that are not known yet.
    fn visit(&self, visited: &mut HashMap<ArenaId, Visit>, tip: ArenaId) {
        let mut next = Some(tip).filter(|tip| !visited.contains_key(tip));
        while let Some(at) = next {
            step();
            visited.entry(at).or_default();
            let base = self.branch(at).and_then(|branch| self.base(branch));
            next = base.filter(|base| !visited.contains_key(base));
            if let Some(base) = base {
                let below = visited.entry(base).or_default();
                below.left = below.left.saturating_add(1);
            }
        }
    }
}

/// Sorts ranges and joins those that touch.
fn merge(mut ranges: Ranges) -> Ranges {
    steps(ranges.len());
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged = Ranges::with_capacity(1);
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Splits ranges into the part from `start` on and the part before it.
fn part(ranges: &[Range<u64>], start: u64) -> (Ranges, Ranges) {
    let own = |range: &Range<u64>| range.start.max(start)..range.end;
    let rest = |range: &Range<u64>| range.start..range.end.min(start);
    let is_some = |range: &Range<u64>| !range.is_empty();
    let both = (ranges.iter().map(own).filter(is_some), ranges.iter().map(rest).filter(is_some));
    (both.0.collect(), both.1.collect())
}
