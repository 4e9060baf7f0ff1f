//! Opening and reading from async code, without blocking a thread of the runtime. A
//! [`crate::Ticket`] is itself a future and needs nothing from this module.

use std::collections::VecDeque;
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::options::Options;
use crate::reader::{Event, Events};

/// Number of events read per visit to a blocking thread.
const CHUNK_EVENTS: usize = 256;

/// Runs `work`, which reads or opens a log, on the runtime's threads for blocking work.
///
/// # Errors
///
/// The errors of `work`, and [`ErrorKind::Closed`] when the runtime shuts down before `work` is
/// done.
///
/// # Panics
///
/// Outside a tokio runtime, and with whatever `work` panics with.
pub async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        Err(_) => Err(Error::new(ErrorKind::Closed, "blocking")),
    }
}

impl Options {
    /// Opens a log like [`Options::open`], without blocking a runtime's thread.
    ///
    /// # Errors
    ///
    /// The errors of [`Options::open`].
    pub async fn open_async(self, path: impl Into<PathBuf>) -> Result<Log> {
        let path = path.into();
        blocking(move || self.open(path)).await
    }
}

impl Log {
    /// Closes the log like [`Log::close`], without blocking a runtime's thread.
    ///
    /// # Errors
    ///
    /// The errors of [`Log::close`].
    pub async fn close_async(self) -> Result<()> {
        blocking(move || self.close()).await
    }
}

impl Events {
    /// Returns these events, read in chunks on the threads for blocking work.
    #[must_use]
    pub fn into_async(self) -> AsyncEvents {
        AsyncEvents { events: Some(self), ready: VecDeque::new() }
    }
}

/// The events of a stream, for async code.
#[derive(Debug)]
pub struct AsyncEvents {
    events: Option<Events>,
    ready: VecDeque<Result<Event>>,
}

impl AsyncEvents {
    /// Returns the next event. Cancelling this call loses the rest of the iteration: start a new
    /// one after the last seq.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        if let Some(event) = self.ready.pop_front() {
            return Some(event);
        }
        let mut events = self.events.take()?;
        let read = blocking(move || {
            let chunk: VecDeque<_> = events.by_ref().take(CHUNK_EVENTS).collect();
            Ok((events, chunk))
        });
        match read.await {
            Ok((events, chunk)) => {
                if chunk.len() == CHUNK_EVENTS {
                    self.events = Some(events);
                }
                self.ready = chunk;
                self.ready.pop_front()
            }
            Err(error) => Some(Err(error)),
        }
    }
}
