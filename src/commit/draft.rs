//! A change on its way into a commit, with its reservations and its memory charge.
//!
//! A [`Change`] is pure data. A draft adds everything that must last exactly as long as the change
//! may still be committed: a fork's guard over the events it shares, the reservation of a name, and
//! the charge.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::catalog::{ForkGuard, Measured, ReservedName};
use crate::change::Change;
use crate::ring::Charge;

/// Change that no commit has taken yet, with its reservations.
#[derive(Clone, Default, Debug)]
pub(crate) struct Draft {
    pub(crate) change: Change,
    /// Keeps the events that a fork shares.
    pub(crate) shared: Option<Arc<ForkGuard>>,
    /// Keeps the name that the change gives.
    pub(crate) reserved: Option<Arc<ReservedName>>,
    /// The handle has followed another one into a new generation since the start was asked for.
    pub(crate) regrown: bool,
}

impl Draft {
    /// Merges a later draft into this one.
    pub(crate) fn and(self, later: Self) -> Self {
        let Self { change, shared, reserved, regrown } = later;
        // A later name, or none, replaces an earlier reservation.
        let reserved = if change.name.is_some() { reserved } else { self.reserved };
        let regrown = if change.start.is_some() { regrown } else { self.regrown };
        Self { change: self.change.and(change), shared: shared.or(self.shared), reserved, regrown }
    }

    /// Returns the bytes used beyond the struct itself.
    pub(crate) fn memory_bytes(&self) -> usize {
        let reserved = self.reserved.as_ref().map_or(0, |name| name.memory_bytes());
        self.change.memory_bytes().saturating_add(reserved)
    }
}

impl Deref for Draft {
    type Target = Change;

    fn deref(&self) -> &Change {
        &self.change
    }
}

impl DerefMut for Draft {
    fn deref_mut(&mut self) -> &mut Change {
        &mut self.change
    }
}

/// Precondition of a change, besides what its commit expects: the commit is refused if it does not
/// hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Precondition {
    None,
    /// The stream is as its handle saw it: the change names seqs of events that were in flight, so
    /// a rebase of those would give the seqs another meaning.
    Seen,
    /// The stream is as maintenance measured it.
    Measured(Measured),
}

/// Change of a stream in a submitted commit, ready to be written.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) draft: Draft,
    /// Catalog batch; empty if there is none.
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u32,
    pub(crate) precondition: Precondition,
    /// Charge for the change and its encoding.
    #[cfg_attr(
        not(all(test, feature = "sim", not(any(amberlog_loom, amberlog_shuttle)))),
        expect(dead_code, reason = "it counts as long as it lives")
    )]
    charge: Charge,
}

impl Encoded {
    /// Encodes a change and charges the encoded bytes until the commit is done, regardless of the
    /// bound: the change was admitted before.
    pub(crate) fn new(draft: Draft, precondition: Precondition, mut charge: Charge) -> Self {
        let (bytes, count) = draft.encode();
        charge.add(bytes.capacity());
        Self { draft, bytes, count, precondition, charge }
    }

    #[cfg(all(test, feature = "sim", not(any(amberlog_loom, amberlog_shuttle))))]
    pub(crate) fn charge_bytes(&self) -> usize {
        self.charge.bytes()
    }
}
