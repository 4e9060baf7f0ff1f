//! Tickets, and who leads: how commits of many threads become one write and one sync.
//!
//! Whoever waits first takes the writer and commits for everybody who is queued by then; those who come
//! meanwhile form the next group. To hold the writer *is* to lead: there is no other lock, and nothing
//! is held across the disk but the writer itself. Tickets that are awaited or dropped are led for by
//! the log's own thread, so no runtime's thread ever waits. This room does not know what a write is.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use crate::catalog::{ReservedName, StreamEntry};
use crate::error::{Error, ErrorKind, Result};
use crate::ring::Filled;
use crate::types::{Durability, Position, Seq, StreamId, Timestamp};

/// A group stops growing at so many bytes, so that the first of it does not wait for the last.
const GROUP_BYTES_MAX: u64 = 8 << 20;

/// What was committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Its number in the log. For a commit of nothing: the last commit before it.
    pub position: Position,
    /// The events that it made durable; of a commit over several streams, those of the first.
    /// What an overwriting ring dropped before them is not counted.
    pub seqs: Range<Seq>,
    /// When it was written.
    pub time: Timestamp,
    /// What it waited for.
    pub durability: Durability,
}

/// One stream's share of a commit.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) stream: StreamId,
    /// The stream, when it was durable already as this commit was made.
    pub(crate) entry: Option<Arc<StreamEntry>>,
    pub(crate) filled: Filled,
    /// The seq of the first of the events that are left.
    pub(crate) first_seq: u64,
    pub(crate) crc: u32,
    /// The name that this commit gives the stream.
    pub(crate) name: Option<Arc<ReservedName>>,
}

/// A commit that was asked for.
#[derive(Debug)]
pub(crate) struct Pending {
    parts: Parts,
    pub(crate) durability: Durability,
    state: Mutex<State>,
    ready: Condvar,
    settled: AtomicBool,
}

#[derive(Debug)]
enum Parts {
    None,
    One(Part),
    Many(Vec<Part>),
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<Commit>>,
    waker: Option<Waker>,
    /// A thread sleeps here, or is about to.
    waiting: bool,
    /// It should look whether it can lead.
    nudged: bool,
    /// The commits of the same streams that this one stands behind.
    behind: Vec<Arc<Pending>>,
}

impl Pending {
    pub(crate) fn new(
        mut parts: Vec<Part>,
        durability: Durability,
        behind: Vec<Arc<Self>>,
    ) -> Arc<Self> {
        let parts = match (parts.pop(), parts.is_empty()) {
            (None, _) => Parts::None,
            (Some(one), true) => Parts::One(one),
            (Some(last), false) => {
                parts.push(last);
                Parts::Many(parts)
            }
        };
        Self::with(parts, durability, behind)
    }

    pub(crate) fn of_one(part: Part, durability: Durability, behind: Vec<Arc<Self>>) -> Arc<Self> {
        Self::with(Parts::One(part), durability, behind)
    }

    fn with(parts: Parts, durability: Durability, behind: Vec<Arc<Self>>) -> Arc<Self> {
        let state = State { behind, ..State::default() };
        Arc::new(Self {
            parts,
            durability,
            state: Mutex::new(state),
            ready: Condvar::new(),
            settled: AtomicBool::new(false),
        })
    }

    pub(crate) fn parts(&self) -> &[Part] {
        match &self.parts {
            Parts::None => &[],
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Many(parts) => parts,
        }
    }

    /// The parts, to use their buffers again.
    pub(crate) fn into_parts(self) -> impl Iterator<Item = Part> {
        let (one, many) = match self.parts {
            Parts::None => (None, Vec::new()),
            Parts::One(part) => (Some(part), Vec::new()),
            Parts::Many(parts) => (None, parts),
        };
        one.into_iter().chain(many)
    }

    fn bytes(&self) -> u64 {
        self.parts().iter().map(|part| part.filled.frame_bytes() as u64).sum()
    }

    /// `None` while the commit is under way, then whether it failed.
    pub(crate) fn failed(&self) -> Option<bool> {
        let settled = self.settled.load(Ordering::Acquire);
        settled.then(|| matches!(self.lock().outcome, Some(Err(_))))
    }

    /// The failure of a commit that this one stands behind, if one failed. Forgets those commits.
    pub(crate) fn failure_before(&self) -> Option<Error> {
        let behind = std::mem::take(&mut self.lock().behind);
        behind.iter().find_map(|before| match &before.lock().outcome {
            Some(Err(error)) => Some(error.clone()),
            _ => None,
        })
    }

    /// Decides the outcome, once. Whoever waits is woken later, by [`Pending::wake`].
    pub(crate) fn settle(&self, outcome: Result<Commit>) {
        let mut state = self.lock();
        if state.outcome.is_none() {
            state.outcome = Some(outcome);
            self.settled.store(true, Ordering::Release);
        }
    }

    fn wake(&self) {
        let mut state = self.lock();
        let waker = state.waker.take();
        let waiting = state.waiting;
        drop(state);
        if waiting {
            self.ready.notify_all();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Lets a thread that waits here look whether it can lead. False: no thread waits.
    fn nudge(&self) -> bool {
        let mut state = self.lock();
        let could = state.waiting && state.outcome.is_none();
        if could {
            state.nudged = true;
            self.ready.notify_all();
        }
        could
    }

    fn outcome(&self) -> Option<Result<Commit>> {
        if !self.settled.load(Ordering::Acquire) {
            return None;
        }
        self.lock().outcome.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the leader does with a group. It settles every one of them, whatever happens.
pub(crate) trait Lead: Send + 'static {
    fn commit_group(&mut self, group: &[Arc<Pending>]);
    /// The leader panicked; nothing that it did can be trusted.
    fn poison(&mut self);
}

/// The commits that wait for a leader, and the writer that makes one.
#[derive(Debug)]
pub(crate) struct Queue<W> {
    inner: Mutex<Inner<W>>,
    wake_server: Condvar,
    /// Told whenever the writer comes back, once the log is closing.
    writer_back: Condvar,
}

#[derive(Debug)]
struct Inner<W> {
    forming: VecDeque<Arc<Pending>>,
    /// Here unless somebody leads.
    writer: Option<Box<W>>,
    /// The log's own thread has been asked to lead.
    asked: bool,
    closed: bool,
    /// Whoever closed the log has the writer, for good.
    ended: bool,
    server: Option<JoinHandle<()>>,
    /// An empty vector that has its memory already.
    spare_group: Vec<Arc<Pending>>,
}

impl<W: Lead> Queue<W> {
    pub(crate) fn new(writer: Box<W>) -> Arc<Self> {
        let inner = Inner {
            forming: VecDeque::new(),
            writer: Some(writer),
            asked: false,
            closed: false,
            ended: false,
            server: None,
            spare_group: Vec::new(),
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            wake_server: Condvar::new(),
            writer_back: Condvar::new(),
        })
    }

    /// Queues a commit. It is led for when its ticket is waited for, awaited or dropped, or by
    /// whoever leads next.
    pub(crate) fn submit(self: &Arc<Self>, pending: Arc<Pending>) -> Ticket
    where
        W: Sync,
    {
        let mut inner = self.lock();
        if inner.closed {
            drop(inner);
            pending.settle(Err(Error::new(ErrorKind::Closed, "commit")));
        } else {
            inner.forming.push_back(Arc::clone(&pending));
        }
        Ticket { pending, queue: Some(Arc::clone(self) as Arc<dyn Serve>) }
    }

    /// Takes the writer and the next group, if nobody leads and somebody is queued.
    fn try_lead(&self) -> Option<Leading<'_, W>> {
        let mut inner = self.lock();
        if inner.forming.is_empty() {
            return None;
        }
        let writer = inner.writer.take()?;
        let mut group = std::mem::take(&mut inner.spare_group);
        let mut bytes = 0;
        while let Some(next) = inner.forming.front() {
            bytes += next.bytes();
            if bytes > GROUP_BYTES_MAX && !group.is_empty() {
                break;
            }
            group.extend(inner.forming.pop_front());
        }
        Some(Leading { queue: self, writer: Some(writer), group, finished: false })
    }

    /// Gives the writer back, lets the next leader start, and wakes whoever the group was for.
    fn hand_over(&self, writer: Box<W>, mut group: Vec<Arc<Pending>>) {
        let mut inner = self.lock();
        inner.writer = Some(writer);
        let more = !inner.forming.is_empty();
        // Without the log's own thread, nobody asked for what is queued and not waited for: its tickets
        // are merely kept, and whoever waits for, awaits or drops one of them finds the writer here.
        if more && !inner.forming.iter().any(|pending| pending.nudge()) && inner.server.is_some() {
            inner.asked = true;
            self.wake_server.notify_one();
        }
        if inner.closed {
            self.writer_back.notify_all();
        }
        drop(inner);
        for pending in &group {
            // A waker is the program's code. If it panics, the others of the group still have to be woken,
            // and whoever leads goes on: the panic is the waker's, not the commit's.
            let _ = catch_unwind(AssertUnwindSafe(|| pending.wake()));
        }
        group.clear();
        self.lock().spare_group = group;
    }

    /// The log's own thread: leads whenever it is asked, until the log closes.
    fn serve(&self) {
        let mut inner = self.lock();
        loop {
            if inner.asked {
                inner.asked = false;
                drop(inner);
                while let Some(leading) = self.try_lead() {
                    // A panic has poisoned the log by now; those who come later have to be told so.
                    let _ = catch_unwind(AssertUnwindSafe(|| leading.run()));
                }
                inner = self.lock();
            } else if inner.closed {
                return;
            } else {
                inner = self.wake_server.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Lets no more commits in, leads for those that are queued, and returns the writer; to the first
    /// who asks.
    pub(crate) fn close(&self) -> Option<Box<W>> {
        let server = {
            let mut inner = self.lock();
            inner.closed = true;
            inner.server.take()
        };
        self.wake_server.notify_one();
        if let Some(server) = server
            && server.thread().id() != std::thread::current().id()
        {
            let _ = server.join();
        }
        loop {
            while let Some(leading) = self.try_lead() {
                leading.run();
            }
            let mut inner = self.lock();
            while inner.writer.is_none() && !inner.ended {
                inner = self.writer_back.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
            if inner.ended || inner.forming.is_empty() {
                inner.ended = true;
                self.writer_back.notify_all();
                return inner.writer.take();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<W>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who leads. If it panics, the log is poisoned and nobody waits for ever.
struct Leading<'a, W: Lead> {
    queue: &'a Queue<W>,
    writer: Option<Box<W>>,
    group: Vec<Arc<Pending>>,
    /// The writer came back. (A thread that unwinds for another reason may lead as well.)
    finished: bool,
}

impl<W: Lead> Leading<'_, W> {
    fn run(mut self) {
        if let Some(writer) = &mut self.writer {
            writer.commit_group(&self.group);
        }
        self.finished = true;
    }
}

impl<W: Lead> Drop for Leading<'_, W> {
    fn drop(&mut self) {
        let Some(mut writer) = self.writer.take() else {
            return;
        };
        if !self.finished {
            writer.poison();
            for pending in &self.group {
                pending.settle(Err(Error::new(ErrorKind::Poisoned, "commit")));
            }
        }
        self.queue.hand_over(writer, std::mem::take(&mut self.group));
    }
}

/// The queue, as a ticket sees it.
trait Serve: Send + Sync {
    /// Leads one group on this thread, if nobody else does.
    fn lead_here(&self) -> bool;
    /// Lets the log's own thread lead.
    fn ask_server(self: Arc<Self>);
}

impl<W: Lead + Sync> Serve for Queue<W> {
    fn lead_here(&self) -> bool {
        self.try_lead().map(Leading::run).is_some()
    }

    fn ask_server(self: Arc<Self>) {
        let mut inner = self.lock();
        if inner.forming.is_empty() || inner.asked || inner.closed {
            return;
        }
        inner.asked = true;
        if inner.server.is_some() {
            self.wake_server.notify_one();
            return;
        }
        let queue = Arc::clone(&self);
        let thread = std::thread::Builder::new().name("amberlog-commit".into());
        match thread.spawn(move || queue.serve()) {
            Ok(server) => inner.server = Some(server),
            Err(_) => {
                // No thread to be had: better to make this one wait than to leave the commit undone.
                inner.asked = false;
                drop(inner);
                while self.lead_here() {}
            }
        }
    }
}

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
    /// log is [`ErrorKind::Poisoned`]: then they are back too, but what the disk has is known only
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
            let mut state = self.pending.lock();
            while state.outcome.is_none() && !state.nudged {
                state = self.pending.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.nudged = false;
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
        self.pending.settled.load(Ordering::Acquire)
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
