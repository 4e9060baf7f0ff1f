//! Lineage of a view: the branches that it consists of, found without walking all of them.
//!
//! A view leads from a branch to its base, to the base of that, and so on. A branch that starts at
//! or after the branch it is reached from shows nothing and is skipped, so seqs fall along the
//! links. Each branch also keeps a jump to a distant ancestor, as [`crate::index::Chain`] does:
//! finding the branch of a seq takes a logarithmic number of steps, however often a stream was
//! forked and rewound.

use std::ops::Range;

use super::ancestor::AncestorLink;
use super::{Branch, Catalog};
use crate::index::ArenaId;
use crate::work::step;

/// Part of a view: a range of seqs in one branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) branch: ArenaId,
    pub(crate) seqs: Range<u64>,
}

/// Contents of a view: the seqs before `end` of a branch and of its bases.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Lineage {
    pub(crate) tip: Option<ArenaId>,
    pub(crate) end: u64,
}

impl Lineage {
    pub(crate) fn new(tip: ArenaId, end: u64) -> Self {
        Self { tip: Some(tip), end }
    }
}

impl Catalog {
    /// Returns the part of a view that holds this seq; `None` when that part is lost.
    pub(crate) fn piece(&self, lineage: Lineage, seq: u64) -> Option<Piece> {
        let (mut at, mut end) = (lineage.tip?, lineage.end);
        loop {
            step();
            let start = self.branch(at)?.start();
            if start <= seq {
                return Some(Piece { branch: at, seqs: start.min(end)..end });
            }
            let link = self.base_link(at)?;
            end = end.min(start);
            at = if self.start(link.jump) > seq { link.jump } else { link.up };
        }
    }

    /// Returns the first seq of a view that can be found.
    pub(crate) fn first_seq(&self, lineage: Lineage) -> u64 {
        let Some(mut at) = lineage.tip else { return lineage.end };
        while let Some(link) = self.base_link(at) {
            step();
            at = link.jump;
        }
        self.start(at).min(lineage.end)
    }

    /// Returns the parts of a view that can be found, from last to first. Only the first returned
    /// part may be empty.
    #[cfg(feature = "json")]
    pub(crate) fn pieces(&self, lineage: Lineage) -> impl Iterator<Item = Piece> {
        let mut next = lineage.tip.map(|tip| (tip, lineage.end));
        std::iter::from_fn(move || {
            let (at, end) = next?;
            let start = self.branch(at)?.start().min(end);
            next = self.base_link(at).filter(|_| start > 0).map(|link| (link.up, start));
            Some(Piece { branch: at, seqs: start..end })
        })
    }

    fn start(&self, at: ArenaId) -> u64 {
        self.branch(at).map_or(0, Branch::start)
    }

    pub(super) fn base_link(&self, at: ArenaId) -> Option<AncestorLink> {
        let branch = self.branch(at)?;
        match branch.base_link()?.get() {
            Some(link) => *link,
            None => self.find_base_link(at),
        }
    }

    /// Finds the base link of the branch that a rewind has begun after `before`, so that no reader
    /// has to find the links of many rewinds at once. Leaves this to the readers while the base of
    /// a fork is unknown: an import may add it later.
    pub(super) fn link_rewound(&self, at: ArenaId, before: ArenaId) {
        let is_linked =
            |branch: &Branch| branch.base_link().is_none_or(|link| link.get().is_some());
        let Some(before) = self.branch(before) else { return };
        let base = || self.base(before).and_then(|base| self.branch(base));
        if is_linked(before) || base().is_some_and(is_linked) {
            let _ = self.base_link(at);
        }
    }

    /// Finds the base links of a branch and of all its bases. `None` when it has no base, or when
    /// the base cannot be found, perhaps not yet.
    #[cold]
    fn find_base_link(&self, at: ArenaId) -> Option<AncestorLink> {
        let mut left = Vec::new();
        let mut next = at;
        loop {
            let branch = self.branch(next)?;
            if branch.base_link().is_none_or(|link| link.get().is_some()) {
                break;
            }
            let Some(base) = self.base(branch) else { break };
            left.push((next, base));
            // Damage may make the bases a cycle, which has no end: no link.
            if left.len() > self.branches.len() as usize {
                let links = left.iter().filter_map(|(at, _)| self.branch(*at)?.base_link());
                links.for_each(|link| _ = link.set(None));
                return None;
            }
            next = base;
        }
        while let Some((at, base)) = left.pop() {
            let link = self.base_link_over(self.start(at), base);
            let _ = self.branch(at)?.base_link()?.set(link);
        }
        *self.branch(at)?.base_link()?.get()?
    }

    /// Returns the base link of a branch that starts at `start` and has this base, whose own links
    /// are known.
    fn base_link_over(&self, start: u64, base: ArenaId) -> Option<AncestorLink> {
        let known = |at: ArenaId| *self.branch(at)?.base_link()?.get()?;
        let mut up = base;
        while self.start(up) >= start {
            step();
            let link = known(up)?;
            up = if self.start(link.jump) >= start { link.jump } else { link.up };
        }
        Some(AncestorLink::to(up, known))
    }
}
