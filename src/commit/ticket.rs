//! The ticket: what the program holds of a commit under way.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::queue::Serve;
use super::{Commit, Pending};
use crate::error::Result;
use crate::sabotage::{Sabotage, broken};

/// A commit under way. Wait for it, await it on any executor, or drop it: it happens all the same.
///
/// A commit starts when somebody waits for it, awaits it, drops its ticket or says [`Ticket::start`], or
/// together with another commit of the same log; a ticket that is merely kept starts nothing.
#[must_use = "a ticket says whether the commit succeeded"]
pub struct Ticket {
    pending: Arc<Pending>,
    queue: Option<Arc<dyn Serve>>,
}

impl Ticket {
    pub(super) fn new(pending: Arc<Pending>, queue: Arc<dyn Serve>) -> Self {
        Self { pending, queue: Some(queue) }
    }

    /// A ticket whose outcome is decided already.
    pub(crate) fn settled(pending: Arc<Pending>) -> Self {
        Self { pending, queue: None }
    }

    /// Waits until the commit is as durable as it asked to be. The first to wait does the writing, for
    /// itself and for everybody queued: a lone writer pays the disk and nothing else.
    ///
    /// # Errors
    ///
    /// Whatever kept the commit from happening. The events are back in their rings, in order, unless the
    /// log is [`crate::ErrorKind::Poisoned`]: then they are back too, but what the disk has is known only
    /// after reopening.
    pub fn wait(mut self) -> Result<Commit> {
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
            self.pending.wait(queue.as_ref().map_or(&[], |queue| queue.bells()));
        }
    }

    /// Lets the log's own thread begin with the commit now, and returns at once.
    pub fn start(&self) {
        if let Some(queue) = &self.queue
            && !self.is_settled()
        {
            Arc::clone(queue).ask_server();
        }
    }

    /// Whether the commit is decided already.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.pending.is_settled()
    }
}

impl Future for Ticket {
    type Output = Result<Commit>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Wakers are somebody else's code: none of it runs under the lock.
        let waker = context.waker().clone();
        let mut state = self.pending.lock();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        if broken(Sabotage::LateWaker) {
            drop(state);
            state = self.pending.lock();
        }
        let old = state.waker.replace(waker);
        drop(state);
        drop(old);
        if let Some(queue) = &self.queue {
            Arc::clone(queue).ask_server();
        }
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take()
            && !self.is_settled()
        {
            queue.ask_server();
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("settled", &self.is_settled()).finish_non_exhaustive()
    }
}
