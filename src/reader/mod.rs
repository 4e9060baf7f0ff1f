//! Reading: pin a snapshot, find, check, lend.
//!
//! Who reads a whole batch has it verified against its checksums each time; who looks up a part of one, when nobody
//! has done so since the segment was opened. An index entry is only a hint.
//! Readers see what their snapshot shows and nothing of the writer. What is damaged is told as an error
//! at its place, and reading goes on behind it.

mod batch;
mod by_position;
mod by_stream;
mod event;
mod measure;
mod walker;

pub use by_position::LogEvents;
pub use by_stream::Events;
pub use event::{Event, EventRef};

pub(crate) use batch::Batch;
pub(crate) use event::Held;
pub(crate) use measure::Measure;

use crate::catalog::Snapshot;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Position, StreamId, StreamState};

impl Snapshot {
    /// The events of a stream, from its first to its last; [`Events::range`] and `rev()` choose others.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownStream`] when the snapshot shows nothing of it; [`ErrorKind::Deleted`].
    pub fn events(&self, stream: StreamId) -> Result<Events> {
        let refused = |kind| Error::new(kind, "read");
        let view = self.view(stream).ok_or_else(|| refused(ErrorKind::UnknownStream(stream)))?;
        if view.state() == StreamState::Deleted {
            return Err(refused(ErrorKind::Deleted(stream)));
        }
        let lineage = self.catalog.lineage(view.tip, view.head, self.mark.end);
        Ok(Events::durable(self.clone(), stream, lineage, view.start()..view.head))
    }

    /// All events of the log in the order of their commits, from the commit at `from` on;
    /// [`Position::START`] means from the first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PositionOutOfRange`] when `from` lies more than one behind the last commit.
    pub fn read_all(&self, from: Position) -> Result<LogEvents> {
        let last = self.position();
        if from.get() > last.get() + 1 {
            return Err(Error::new(ErrorKind::PositionOutOfRange { asked: from, last }, "read"));
        }
        Ok(LogEvents::new(self.clone(), from.get().max(1)))
    }

    /// The stream that a person means: by id, by name, or by the beginning of an id. Hyphens in ids do not matter.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownName`]; [`ErrorKind::UnknownStream`]; [`ErrorKind::Deleted`]; or [`ErrorKind::AmbiguousPrefix`] when several ids start like this.
    pub fn resolve(&self, text: &str) -> Result<StreamId> {
        if let Some(id) = self.find(text) {
            return Ok(id);
        }
        if let Ok(id) = text.parse::<StreamId>() {
            return match self.view(id).map(|view| view.state()) {
                None => Err(Error::new(ErrorKind::UnknownStream(id), "resolve")),
                Some(StreamState::Deleted) => Err(Error::new(ErrorKind::Deleted(id), "resolve")),
                Some(_) => Ok(id),
            };
        }
        let plain = |text: String| text.replace('-', "");
        let prefix = plain(text.to_ascii_lowercase());
        let mut found = self
            .streams()
            .into_iter()
            .map(|info| info.id)
            .filter(|id| !prefix.is_empty() && plain(id.to_string()).starts_with(&prefix));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(Error::new(ErrorKind::UnknownName(text.into()), "resolve")),
            _ => Err(Error::new(ErrorKind::AmbiguousPrefix(text.into()), "resolve")),
        }
    }
}
