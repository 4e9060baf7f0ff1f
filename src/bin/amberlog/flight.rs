//! Commits in flight while more lines are read. Every ticket's outcome is checked.

use std::collections::VecDeque;

use amberlog::{Commit, Error, Ticket};

/// Maximum number of bytes in flight; beyond it, the oldest commit is awaited.
const FLIGHT_BYTES_MAX: u64 = 16 << 20;
/// Maximum number of commits in flight.
const FLIGHT_COMMITS_MAX: usize = 256;

/// Failed commit and its owner.
#[derive(Debug)]
pub(crate) struct Crash {
    /// Number given by the owner.
    pub(crate) owner: usize,
    /// Cause of the failure.
    pub(crate) error: Error,
}

/// Commits in flight, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    tickets: VecDeque<(usize, u64, Ticket)>,
    bytes: u64,
    commits: u64,
    events: u64,
}

impl Flight {
    /// Starts a commit, and waits for older ones if too many are in flight.
    pub(crate) fn launch(&mut self, owner: usize, bytes: u64, ticket: Ticket) -> Result<(), Crash> {
        // At once: events may be lost with the machine until then.
        ticket.start();
        self.tickets.push_back((owner, bytes, ticket));
        self.bytes = self.bytes.saturating_add(bytes);
        while self.bytes > FLIGHT_BYTES_MAX || self.tickets.len() > FLIGHT_COMMITS_MAX {
            self.land_one()?;
        }
        Ok(())
    }

    /// Waits for the oldest commit. Returns false if none is in flight.
    fn land_one(&mut self) -> Result<bool, Crash> {
        let Some((owner, bytes, ticket)) = self.tickets.pop_front() else {
            return Ok(false);
        };
        self.bytes = self.bytes.saturating_sub(bytes);
        let commit = ticket.wait().map_err(|error| Crash { owner, error })?;
        self.count(&commit);
        Ok(true)
    }

    /// Counts a commit that succeeded.
    pub(crate) fn count(&mut self, commit: &Commit) {
        let events = commit.seqs.end.get().saturating_sub(commit.seqs.start.get());
        self.commits = self.commits.saturating_add(1);
        self.events = self.events.saturating_add(events);
    }

    /// Waits for all commits.
    pub(crate) fn land(&mut self) -> Result<(), Crash> {
        while self.land_one()? {}
        Ok(())
    }

    /// Returns the number of commits that succeeded.
    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }

    /// Returns the number of events in them.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }
}
