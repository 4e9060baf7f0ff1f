//! Reading: pins a read view, finds batches, verifies them and lends their events.
//!
//! A read of a whole batch verifies its checksum every time. A lookup inside a batch verifies the
//! checksum once after the segment was opened. An index entry is only a hint: the commit it points
//! to is checked before use. Readers depend on their read view only, never on the writer. Damage is
//! returned as an error at its place in the order, and reading continues after it.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod batch;
mod by_position;
mod by_stream;
mod event;
mod extent;
mod measure;
mod walker;

pub use by_position::AllEvents;
pub use by_stream::Events;
pub use event::{Event, EventRef};

pub(crate) use batch::Batch;
pub(crate) use event::BatchContext;
pub(crate) use measure::{Measure, Vouched};

use crate::catalog::{Lineage, ReadView};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Position, StreamId, StreamState};

impl ReadView {
    /// Returns the events of a stream, first to last. [`Events::range`] narrows them and `rev()`
    /// reverses them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownStream`] if the read view does not contain the stream;
    /// [`ErrorKind::Deleted`].
    pub fn events(&self, stream: StreamId) -> Result<Events> {
        let refused = |kind| Error::new(kind, "read");
        let view = self.view(stream).ok_or_else(|| refused(ErrorKind::UnknownStream(stream)))?;
        if view.state() == StreamState::Deleted {
            return Err(refused(ErrorKind::Deleted(stream)));
        }
        let lineage = Lineage::new(view.tip, view.head);
        Ok(Events::durable(self.clone(), stream, lineage, view.start()..view.head))
    }

    /// Returns all events of the log in commit order, starting with the commit at `from`;
    /// [`Position::START`] starts with the first commit.
    ///
    /// **This also returns events of deleted streams, and events that were trimmed or rewound,
    /// until a compaction drops them**, which keeps them while their stream or a fork shows other
    /// events of their commit. The same seq of a stream can therefore appear once for each
    /// generation. To read only what streams show now, use [`ReadView::events`] for each stream.
    ///
    /// Finds the start in some microseconds, however large the log is. The iterator reports damage
    /// that may have hit commits from the start on, and none that hit only earlier ones.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PositionOutOfRange`] if `from` is more than one after the last commit.
    pub fn all_events(&self, from: impl Into<Position>) -> Result<AllEvents> {
        let (from, last) = (from.into(), self.position());
        if from.get() > last.get().saturating_add(1) {
            return Err(Error::new(ErrorKind::PositionOutOfRange { asked: from, last }, "read"));
        }
        Ok(AllEvents::new(self.clone(), from.get().max(1)))
    }

    /// Finds the stream that a user's input refers to: a full id, a name, or a prefix of an id,
    /// tried in this order. Hyphens in ids are ignored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownName`]; [`ErrorKind::UnknownStream`]; [`ErrorKind::Deleted`]; or
    /// [`ErrorKind::AmbiguousPrefix`] if several ids start with the prefix.
    pub fn resolve(&self, text: &str) -> Result<StreamId> {
        if let Ok(id) = text.parse::<StreamId>() {
            return match self.view(id).map(|view| view.state()) {
                None => Err(Error::new(ErrorKind::UnknownStream(id), "resolve")),
                Some(StreamState::Deleted) => Err(Error::new(ErrorKind::Deleted(id), "resolve")),
                Some(_) => Ok(id),
            };
        }
        if let Some(id) = self.find(text) {
            return Ok(id);
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
