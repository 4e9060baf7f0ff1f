//! Tickets, and who leads: how commits of many threads become one write and one sync.
//!
//! Whoever waits first takes the writer and commits for everybody who is queued by then; those who come
//! meanwhile form the next group. To hold the writer *is* to lead: there is no other lock, and nothing
//! is held across the disk but the writer itself. Tickets that are awaited or dropped are led for by
//! the log's own thread, so no runtime's thread ever waits. This room does not know what a write is.

mod gather;
#[cfg(all(test, amberlog_loom))]
mod models;
mod pending;
mod queue;
mod ticket;

use std::ops::Range;
use std::sync::Arc;

pub(crate) use pending::{Encoded, Part, Pending, Seat};
pub(crate) use queue::Queue;
pub use ticket::Ticket;

use crate::types::{Durability, Position, Seq, Timestamp};

/// What was committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Its number in the log. For a commit of nothing: the last commit before it.
    pub position: Position,
    /// The events that it made durable; of a commit over several streams, those of the first.
    /// What an overwriting ring dropped before them is not counted.
    pub seqs: Range<Seq>,
    /// When it was written.
    pub time: Timestamp,
    /// What it waited for.
    pub durability: Durability,
}

/// What the leader does with a group. It settles every one of them, whatever happens.
pub(crate) trait Lead: Send + 'static {
    fn commit_group(&mut self, group: &[Arc<Pending>]);
    /// The leader panicked; nothing that it did can be trusted.
    fn poison(&mut self);
    /// Whether the log may have a thread of its own. Without one, whoever awaits or drops a ticket leads.
    fn allows_threads(&self) -> bool {
        true
    }
}
