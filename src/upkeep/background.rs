//! The thread that collects by itself, when the log's options say so.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::sync::{Condvar, JoinHandle, Mutex, spawn, thread};

/// It looks so often whether there is something to collect.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// And rests so many times as long as a look took.
const REST_FACTOR: u32 = 10;

/// The thread, until it is stopped.
#[derive(Debug, Default)]
pub(crate) struct Background {
    stopped: Arc<(Mutex<bool>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Background {
    /// Lets `look` be called again and again. Without a thread nothing is collected unless somebody asks.
    pub(crate) fn start(&self, mut look: impl FnMut() + Send + 'static) {
        let stopped = Arc::clone(&self.stopped);
        let run = move || {
            let mut pause = PAUSE_MIN;
            loop {
                let (flag, changed) = &*stopped;
                let mut is_over = flag.lock().unwrap_or_else(PoisonError::into_inner);
                let end = Instant::now() + pause;
                // By hand: the locks of a model checker have no wait with a condition and an end.
                while !*is_over && Instant::now() < end {
                    let left = end.saturating_duration_since(Instant::now());
                    let waited = changed.wait_timeout(is_over, left);
                    is_over = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                if *is_over {
                    return;
                }
                drop(is_over);
                let started = Instant::now();
                look();
                pause = PAUSE_MIN.max(started.elapsed() * REST_FACTOR);
            }
        };
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) =
            spawn("amberlog-collect", run).ok();
    }

    /// Stops it, and waits for it; what it is doing has to be stopped by other means.
    pub(crate) fn stop(&self) {
        *self.stopped.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stopped.1.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}
