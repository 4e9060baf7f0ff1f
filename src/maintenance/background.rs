//! The background thread that compacts on its own when the log's options ask for it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, OwnThread, spawn};

/// Minimum pause between two looks for something to compact.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Pause after a look, as a multiple of the time that the look took.
const REST_FACTOR: u32 = 10;

/// Handle of the background thread.
#[derive(Debug, Default)]
pub(crate) struct Background {
    stopped: Arc<(Mutex<bool>, Condvar)>,
    thread: Mutex<Option<OwnThread>>,
}

impl Background {
    /// Starts the thread, which calls `look` periodically. Without it, only explicit calls compact.
    ///
    /// # Errors
    ///
    /// When the thread cannot be spawned.
    pub(crate) fn start(&self, mut look: impl FnMut() + Send + 'static) -> io::Result<()> {
        let stopped = Arc::clone(&self.stopped);
        let run = move || {
            let mut pause = PAUSE_MIN;
            loop {
                let (flag, changed) = &*stopped;
                let mut over = flag.lock();
                if !*over {
                    // A spurious wakeup only makes the next look early.
                    over = changed.wait_timeout(over, pause);
                }
                if *over {
                    return;
                }
                drop(over);
                let started = Instant::now();
                look();
                pause = PAUSE_MIN.max(started.elapsed() * REST_FACTOR);
            }
        };
        let thread = spawn("amberlog-compact", run)?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Stops the thread and joins it, unless called on that thread. Work in progress has to be
    /// stopped by other means.
    pub(crate) fn stop(&self) {
        *self.stopped.0.lock() = true;
        self.stopped.1.notify_all();
        let thread = self.thread.lock().take();
        thread.into_iter().for_each(OwnThread::join);
    }
}
