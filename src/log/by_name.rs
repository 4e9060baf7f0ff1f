//! Opening or creating the stream with a name while other streams take or release that name.
//!
//! Every round of the loop returns, waits for a commit, or follows a change that another thread has
//! made: it never polls (`tests/handles/by_name.rs`).

use super::Log;
use crate::commit::Pending;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{CommitOptions, StreamOptions};
use crate::stream::Stream;
use crate::types::{Durability, StreamId, StreamState};

impl Log {
    /// Opens or creates the stream with this name, while no other thread does.
    pub(super) fn open_or_create_alone(&self, name: &str) -> Result<Stream> {
        // Holder whose commit was in flight, and has been made or has failed since.
        let mut waited_for = None;
        loop {
            if let Some(id) = self.read_view().find(name) {
                match self.open_stream(id) {
                    Err(error) if matches!(error.kind(), ErrorKind::Deleted(_)) => continue,
                    opened => return opened,
                }
            }
            let refused = match self.create_stream_with(&StreamOptions::new().name(name)) {
                Ok(mut stream) => {
                    stream.commit().wait()?;
                    return Ok(stream);
                }
                Err(error) => error,
            };
            let ErrorKind::NameTaken { holder, .. } = *refused.kind() else { return Err(refused) };
            match self.holding(holder, name) {
                Holding::InMemory => {
                    let kind = ErrorKind::NotMaterialized { stream: holder, buffered: None };
                    return Err(Error::new(kind, "open or create"));
                }
                Holding::Renamed => return Err(refused),
                Holding::Changed => {}
                Holding::InFlight if waited_for == Some(holder) => return Err(refused),
                Holding::InFlight => {
                    self.make_queued_commits()?;
                    waited_for = Some(holder);
                }
            }
        }
    }

    /// Finds out how a stream holds a name that was just taken and that no visible stream had.
    fn holding(&self, holder: StreamId, name: &str) -> Holding {
        // First: a stream that is no longer volatile is in the view.
        let is_volatile = self.0.volatile.contains(holder);
        match self.read_view().info(holder) {
            None if is_volatile => Holding::InMemory,
            None => Holding::InFlight,
            Some(info) if info.state == StreamState::Deleted => Holding::Changed,
            Some(info) if info.name.as_deref() == Some(name) => Holding::Changed,
            Some(_) => Holding::Renamed,
        }
    }

    /// Makes the commits that are queued now, by an empty commit after them. Their tickets report
    /// their failures.
    fn make_queued_commits(&self) -> Result<()> {
        let options = CommitOptions::new().durability(Durability::Os);
        let made = self.0.queue.submit(Pending::new(Vec::new(), options, Vec::new())).wait();
        match made {
            Err(error) if error.is_fatal() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Way in which a stream holds a name.
enum Holding {
    /// A handle holds it for a stream that it has not committed.
    InMemory,
    /// Only a commit holds it: the handle of its stream is dropped.
    InFlight,
    /// A handle has renamed its committed stream, and not committed that.
    Renamed,
    /// The name was committed or freed meanwhile.
    Changed,
}
