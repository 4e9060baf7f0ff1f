//! Commits that are under way while lines are still read. Every ticket is looked at.

use std::collections::VecDeque;

use amberlog::{Error, Ticket};

/// So many bytes may be under way; then the oldest commit is waited for.
const FLIGHT_BYTES_MAX: u64 = 16 << 20;
/// And so many commits.
const FLIGHT_COMMITS_MAX: usize = 256;

/// A commit that failed, and whose it was.
#[derive(Debug)]
pub(crate) struct Crash {
    /// The number that its owner gave it.
    pub(crate) owner: usize,
    /// Why.
    pub(crate) error: Error,
}

/// Commits under way, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    tickets: VecDeque<(usize, u64, Ticket)>,
    bytes: u64,
    commits: u64,
    events: u64,
}

impl Flight {
    /// Lets a commit start, and waits for older ones if too many are under way.
    pub(crate) fn launch(&mut self, owner: usize, bytes: u64, ticket: Ticket) -> Result<(), Crash> {
        // A ticket that is merely kept starts nothing.
        ticket.start();
        self.tickets.push_back((owner, bytes, ticket));
        self.bytes += bytes;
        while self.bytes > FLIGHT_BYTES_MAX || self.tickets.len() > FLIGHT_COMMITS_MAX {
            self.land_one()?;
        }
        Ok(())
    }

    /// Waits for the oldest. `Ok(false)`: none is under way.
    pub(crate) fn land_one(&mut self) -> Result<bool, Crash> {
        let Some((owner, bytes, ticket)) = self.tickets.pop_front() else {
            return Ok(false);
        };
        self.bytes -= bytes;
        match ticket.wait() {
            Ok(commit) => {
                self.commits += 1;
                self.events += commit.seqs.end.get() - commit.seqs.start.get();
                Ok(true)
            }
            Err(error) => Err(Crash { owner, error }),
        }
    }

    /// Waits for all.
    pub(crate) fn land(&mut self) -> Result<(), Crash> {
        while self.land_one()? {}
        Ok(())
    }

    /// Commits that succeeded.
    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }

    /// Events in them.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }
}
