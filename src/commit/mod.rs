//! Group commit: turns the commits of many threads into one write and one sync.
//!
//! The first waiter takes the writer and leads: it commits all that is queued by then. Later
//! commits form the next group. Holding the writer *is* leading: there is no other lock, and only
//! the writer is held across disk operations. The log's own commit thread serves tickets that are
//! awaited, dropped, or kept for a while, so a thread of an async runtime never blocks (F37). This
//! room knows nothing about bytes.

mod draft;
mod group_delay;
#[cfg(all(test, amberlog_loom))]
mod models;
mod pending;
mod queue;
mod ticket;
mod watch;

use std::ops::Range;
use std::sync::Arc;

pub(crate) use draft::{Draft, Encoded, Precondition};
pub(crate) use pending::{Part, Pending, Placement};
pub(crate) use queue::Queue;
pub use ticket::Ticket;

use crate::failures::Failures;
use crate::types::{Durability, Position, Seq, Timestamp};

/// Outcome of a successful commit.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Commit {
    /// Number of the commit in the log. An empty commit has the number of the last commit before
    /// it.
    pub position: Position,
    /// Seqs of the events that the commit made durable; for a commit over several streams, those of
    /// the first one passed that has anything to commit. Empty without events. Events that an
    /// overwriting ring dropped before them are not included.
    pub seqs: Range<Seq>,
    /// Time at which the commit was written.
    pub time: Timestamp,
    /// Durability that the commit waited for.
    pub durability: Durability,
}

/// Writer that a leader drives. It settles every commit of a group, whatever happens.
pub(crate) trait GroupWriter: Send + 'static {
    fn commit_group(&mut self, group: &[Arc<Pending>]);
    /// Poisons the log after a panic of the leader: its state can no longer be trusted.
    fn poison(&mut self);
    /// Returns true if the log may have a thread of its own. Otherwise the thread that awaits or
    /// drops a ticket leads.
    fn allows_threads(&self) -> bool {
        true
    }
    /// Returns the list that records failed commits whose tickets were dropped.
    fn failures(&self) -> Option<Arc<Failures>> {
        None
    }
}
