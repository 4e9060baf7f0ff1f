//! Links from a branch to its ancestors, which find the branch of a seq in a logarithm of steps.

use crate::index::ArenaId;

/// Link from a branch to an ancestor, and a jump to a more distant one, by Myers' skew-binary
/// numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct AncestorLink {
    pub(super) up: ArenaId,
    pub(super) jump: ArenaId,
    depth: u32,
}

impl AncestorLink {
    /// Returns a link to `up`. `known` returns the links of `up` and its ancestors.
    pub(super) fn to(up: ArenaId, known: impl Fn(ArenaId) -> Option<Self>) -> Self {
        let depth = |at| known(at).map_or(0, |link| link.depth);
        let over = |at| known(at).map_or(at, |link| link.jump);
        let (jump, further) = (over(up), over(over(up)));
        let is_even =
            depth(up).wrapping_sub(depth(jump)) == depth(jump).wrapping_sub(depth(further));
        Self { up, jump: if is_even { further } else { up }, depth: depth(up).saturating_add(1) }
    }
}
