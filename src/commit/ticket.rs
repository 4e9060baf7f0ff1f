//! Ticket: a program's handle on a commit in progress.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::queue::TicketQueue;
use super::{Commit, Pending};
use crate::error::{Error, ErrorKind, Result};
use crate::options::CommitOptions;
use crate::sabotage::{Sabotage, broken};
use crate::sync::{Condvar, Mutex};

/// Commit in progress. Wait for it, await it on any executor, or drop it: the commit is attempted
/// in any case.
///
/// A commit starts when a caller waits for its ticket, awaits it, drops it or calls
/// [`Ticket::start`], or when another commit of the same log starts. If its ticket is merely kept,
/// the log's commit thread starts it within a tenth of a second, unless it was queued with
/// [`CommitOptions::later`]. Commits that are submitted one after the other, and whose
/// tickets are waited for afterwards, share one write and one sync.
///
/// Dropping a ticket drops its error. If the commit fails, its events return to their handle's
/// ring, in memory only, and are lost once the handle is dropped. The failure is recorded in
/// [`crate::Log::background_errors`] as [`crate::maintenance::BackgroundTask::Commit`], even if the
/// outcome was known before the ticket was dropped, unless [`Ticket::wait`] or a poll had returned
/// it.
#[must_use = "a ticket says whether the commit succeeded"]
pub struct Ticket {
    pending: Arc<Pending>,
    queue: Option<Arc<dyn TicketQueue>>,
}

impl Ticket {
    pub(super) fn new(pending: Arc<Pending>, queue: Arc<dyn TicketQueue>) -> Self {
        Self { pending, queue: Some(queue) }
    }

    /// Returns a ticket whose outcome is already known.
    pub(crate) fn settled(pending: Arc<Pending>) -> Self {
        Self { pending, queue: None }
    }

    /// Returns a ticket for a commit that is refused in a fork of the process.
    pub(crate) fn failed(error: Error) -> Self {
        let pending = Pending::new(Vec::new(), CommitOptions::new(), Vec::new());
        pending.settle(Err(error));
        Self::settled(pending)
    }

    /// Returns the error for a fork of the process that submitted the commit: only that process
    /// learns the outcome.
    fn other_process_error(&self) -> Option<Error> {
        self.pending.is_other_process().then(|| Error::new(ErrorKind::OtherProcess, "commit"))
    }

    /// Waits until the commit is as durable as requested. The first waiter writes for itself and
    /// for all queued commits: a lone writer pays for the disk and nothing else.
    ///
    /// # Errors
    ///
    /// The error that prevented the commit. The events are back in their rings, in order. After
    /// [`crate::ErrorKind::Poisoned`] they are back as well, but the outcome of the commit whose
    /// sync failed is unknown: only reopening shows whether the disk holds it. In a fork of the
    /// process: [`crate::ErrorKind::OtherProcess`].
    pub fn wait(mut self) -> Result<Commit> {
        if let Some(error) = self.other_process_error() {
            return Err(error);
        }
        let queue = self.queue.take();
        {
            self.pending.lock().waiting = true;
        }
        loop {
            if let Some(outcome) = self.pending.outcome() {
                return outcome;
            }
            if queue.as_ref().is_some_and(|queue| queue.lead_here()) {
                continue;
            }
            self.pending.wait(queue.as_ref().map_or(&[], |queue| queue.event_counts()));
        }
    }

    /// Waits like [`Ticket::wait`], but for at most `timeout`. Returns `None` if the outcome is not
    /// known by then; the ticket stays valid. The log's commit thread does the writing, so that a
    /// slow disk cannot hold up the caller. Only if no thread can be started does this call write
    /// itself, and may then exceed `timeout`.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<Commit>> {
        let began = Instant::now();
        let thread = Arc::new(ThreadWaker::default());
        let waker = Waker::from(Arc::clone(&thread));
        loop {
            if let Poll::Ready(outcome) =
                Pin::new(&mut *self).poll(&mut Context::from_waker(&waker))
            {
                return Some(outcome);
            }
            let left = timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                return None;
            }
            thread.wait(left);
        }
    }

    /// Asks the log's commit thread to start the commit now, and returns at once.
    pub fn start(&self) {
        if let Some(queue) = &self.queue
            && !self.is_settled()
            && !self.pending.is_other_process()
        {
            Arc::clone(queue).ask_commit_thread();
        }
    }

    /// Returns true if the outcome is known.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.pending.is_settled()
    }
}

impl Future for Ticket {
    type Output = Result<Commit>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(error) = self.other_process_error() {
            return Poll::Ready(Err(error));
        }
        // Wakers are foreign code: none of it runs under the lock.
        let waker = context.waker().clone();
        let mut state = self.pending.lock();
        if let Some(outcome) = &state.outcome {
            let outcome = outcome.clone();
            drop(state);
            // The outcome was reported: dropping the ticket hides nothing.
            self.get_mut().queue = None;
            return Poll::Ready(outcome);
        }
        if broken(Sabotage::LateWaker) {
            drop(state);
            state = self.pending.lock();
        }
        let old = state.waker.replace(waker);
        drop(state);
        drop(old);
        if let Some(queue) = &self.queue {
            Arc::clone(queue).ask_commit_thread();
        }
        Poll::Pending
    }
}

/// Wakes a thread that waits for a ticket as a task does.
#[derive(Default)]
pub(super) struct ThreadWaker {
    pub(super) is_woken: Mutex<bool>,
    pub(super) changed: Condvar,
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock() = true;
        self.changed.notify_all();
    }
}

impl ThreadWaker {
    /// Waits until the thread is woken, at most for `time`. May return early.
    fn wait(&self, time: Duration) {
        let mut is_woken = self.is_woken.lock();
        if !*is_woken {
            is_woken = self.changed.wait_timeout(is_woken, time);
        }
        *is_woken = false;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        if self.pending.is_other_process() || self.pending.failed() == Some(false) {
            return;
        }
        match self.pending.drop_ticket() {
            Some(error) => queue.note(error),
            None if self.is_settled() => {}
            None => queue.ask_commit_thread(),
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("settled", &self.is_settled()).finish_non_exhaustive()
    }
}
