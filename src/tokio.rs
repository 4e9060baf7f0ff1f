//! From async code, without blocking a runtime's thread. Thin: a [`crate::Ticket`] is a future by itself
//! and needs nothing from here; this is for what reads the disk.

use std::collections::VecDeque;
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::options::Options;
use crate::reader::{Event, Events};

/// Events read by one visit to a blocking thread.
const CHUNK_EVENTS: usize = 256;

/// Runs something that reads or opens on the runtime's threads for blocking work.
///
/// # Errors
///
/// What `work` returns, and [`ErrorKind::Closed`] when the runtime shuts down before it is done.
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
    /// As [`Options::open`], without blocking a runtime's thread.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    pub async fn open_async(self, path: impl Into<PathBuf>) -> Result<Log> {
        let path = path.into();
        blocking(move || self.open(path)).await
    }
}

impl Log {
    /// As [`Log::close`], without blocking a runtime's thread.
    ///
    /// # Errors
    ///
    /// As [`Log::close`].
    pub async fn close_async(self) -> Result<()> {
        blocking(move || self.close()).await
    }
}

impl Events {
    /// The same events, read in chunks on the threads for blocking work.
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
    /// The next event. Cancelling this loses the rest: read from the last seq again.
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
