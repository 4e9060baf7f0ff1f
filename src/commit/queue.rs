//! Queue of a log: the commits that wait for a leader, and the writer that a leader takes.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::group_delay::GroupDelay;
use super::watch::{LOOK_EVERY, Watch};
use super::{GroupWriter, Pending, Ticket};
use crate::error::{Error, ErrorKind};
use crate::failures::{BackgroundTask, Failures};
use crate::options::CommitOptions;
use crate::sabotage::{Sabotage, broken};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Condvar, EventCount, HAS_TIME, Mutex, MutexGuard, OwnThread, spawn};

/// Size at which a group stops growing, so that its first commit does not wait for its last.
const GROUP_BYTES_MAX: u64 = 8 << 20;
/// Number of event counts that groups take in turn. With several, the waiters of a group have
/// usually left before a later group reuses theirs; if not, some wake-ups are spurious.
const EVENT_COUNTS: usize = 4;

/// Commits that wait for a leader, and the writer.
#[derive(Debug)]
pub(crate) struct Queue<W> {
    inner: Mutex<Inner<W>>,
    /// Number of queued commits, readable without the lock.
    queued: AtomicUsize,
    /// Event counts on which the waiters of a group sleep, except its first: it sleeps alone,
    /// because it may have to lead. Each group takes the next event count.
    event_counts: [EventCount; EVENT_COUNTS],
    wake_commit_thread: Condvar,
    /// Notified whenever the writer comes back, once the log is closing.
    writer_back: Condvar,
    /// True if the log may have a thread of its own.
    may_spawn: bool,
    failures: Option<Arc<Failures>>,
}

#[derive(Debug)]
struct Inner<W> {
    forming: VecDeque<Arc<Pending>>,
    /// `None` while a thread leads.
    writer: Option<Box<W>>,
    /// The commit thread is to lead. Without that thread, the current leader continues with the
    /// rest.
    requested: bool,
    closed: bool,
    /// The closing thread has taken the writer for good.
    ended: bool,
    delay: GroupDelay,
    /// Event count of the group that forms now.
    event_count: usize,
    commit_thread: Option<OwnThread>,
    /// The commit thread was asked for: it serves tickets that are awaited or dropped.
    serves: bool,
    watch: Watch,
    /// Number of commits that leaders have taken.
    taken: u64,
    /// Empty vectors, kept for their memory.
    spare_group: Vec<Arc<Pending>>,
    spare_wakers: Vec<Waker>,
}

impl<W: GroupWriter> Queue<W> {
    pub(crate) fn new(writer: Box<W>) -> Arc<Self> {
        let may_spawn = writer.allows_threads();
        let failures = writer.failures();
        let inner = Inner {
            forming: VecDeque::new(),
            writer: Some(writer),
            requested: false,
            closed: false,
            ended: false,
            delay: GroupDelay::default(),
            event_count: 0,
            commit_thread: None,
            serves: false,
            watch: Watch::default(),
            taken: 0,
            spare_group: Vec::new(),
            spare_wakers: Vec::new(),
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            queued: AtomicUsize::new(0),
            event_counts: Default::default(),
            wake_commit_thread: Condvar::new(),
            writer_back: Condvar::new(),
            may_spawn,
            failures,
        })
    }

    /// Queues a commit. A leader takes it when its ticket is waited for, awaited or dropped, or was
    /// kept for a while, or together with another commit.
    pub(crate) fn submit(self: &Arc<Self>, pending: Arc<Pending>) -> Ticket
    where
        W: Sync,
    {
        let mut inner = self.lock();
        if inner.closed {
            drop(inner);
            pending.settle(Err(Error::new(ErrorKind::Closed, "commit")));
        } else {
            if !inner.forming.is_empty() {
                pending.share(inner.event_count);
            }
            inner.forming.push_back(Arc::clone(&pending));
            self.queued.store(inner.forming.len(), Ordering::Relaxed);
            if !pending.starts_later {
                self.watch(&mut inner);
            }
        }
        Ticket::new(pending, Arc::clone(self) as Arc<dyn TicketQueue>)
    }

    /// Lets the commit thread look at the queue from time to time. A model checker has no time, and
    /// some simulated disks no threads: there a commit whose ticket is kept waits for another.
    fn watch(self: &Arc<Self>, inner: &mut Inner<W>)
    where
        W: Sync,
    {
        if !HAS_TIME || !self.may_spawn || !inner.watch.wake() {
            return;
        }
        if inner.commit_thread.is_some() {
            self.wake_commit_thread.notify_one();
        } else if !self.spawn_commit_thread(inner) {
            // The next commit tries again.
            inner.watch.sleep();
        }
    }

    /// Starts the commit thread. Returns false if no thread is available.
    fn spawn_commit_thread(self: &Arc<Self>, inner: &mut Inner<W>) -> bool
    where
        W: Sync,
    {
        let queue = Arc::clone(self);
        inner.commit_thread = spawn("amberlog-commit", move || queue.run_commit_thread()).ok();
        inner.commit_thread.is_some()
    }

    /// Returns the ticket of a commit that is refused at once.
    pub(crate) fn refuse(self: &Arc<Self>, error: Error) -> Ticket
    where
        W: Sync,
    {
        let pending = Pending::new(Vec::new(), CommitOptions::new(), Vec::new());
        pending.settle(Err(error));
        Ticket::new(pending, Arc::clone(self) as Arc<dyn TicketQueue>)
    }

    /// Takes the writer and the next group, unless another thread leads or the queue is empty.
    pub(super) fn try_lead(&self) -> Option<Leadership<'_, W>> {
        let mut inner = self.lock();
        if inner.forming.is_empty() {
            return None;
        }
        let writer = inner.writer.take()?;
        let queued = inner.forming.len();
        if let Some(wait) = inner.delay.wait_for(queued) {
            drop(inner);
            let took = wait.until(|| self.queued.load(Ordering::Relaxed));
            inner = self.lock();
            let queued = inner.forming.len();
            inner.delay.waited(&wait, queued, took);
        }
        let mut group = std::mem::take(&mut inner.spare_group);
        let mut bytes = 0;
        while let Some(next) = inner.forming.front() {
            bytes += next.bytes();
            if bytes > GROUP_BYTES_MAX && !group.is_empty() {
                break;
            }
            group.extend(inner.forming.pop_front());
        }
        inner.taken += group.len() as u64;
        self.queued.store(inner.forming.len(), Ordering::Relaxed);
        inner.event_count = (inner.event_count + 1) % EVENT_COUNTS;
        let began = Instant::now();
        Some(Leadership { queue: self, writer: Some(writer), group, began, finished: false })
    }

    /// Returns the writer, lets the next leader start, and wakes the waiters of the group. Returns
    /// true if the caller must lead for the rest.
    fn hand_over(&self, writer: Box<W>, mut group: Vec<Arc<Pending>>, took: Duration) -> bool {
        // Before the writer is back: a closed log has recorded all its failures.
        let failed = group.iter().filter(|pending| pending.failed() == Some(true));
        failed
            .filter_map(|pending| pending.hidden_failure())
            .for_each(|error| self.note_failure(error));
        let mut inner = self.lock();
        let queued = inner.forming.len();
        inner.delay.ended(group.len(), queued, took);
        inner.writer = Some(writer);
        let more = !inner.forming.is_empty() && !broken(Sabotage::TellNobody);
        let left =
            more && !inner.forming.iter().any(|pending| pending.wake_to_lead(&self.event_counts));
        let has_thread = inner.commit_thread.is_some() && inner.serves;
        if left && has_thread {
            self.wake_commit_thread.notify_one();
        }
        // Without a commit thread that serves, a queued commit without a waiter is either just
        // kept, and its thread, or the watch, will find the writer here, or its start was
        // requested.
        inner.requested = more && (inner.requested || left && has_thread);
        let must_lead = left && !has_thread && inner.requested;
        if inner.closed {
            self.writer_back.notify_all();
        }
        let mut wakers = std::mem::take(&mut inner.spare_wakers);
        drop(inner);
        let mut waited_for = [false; EVENT_COUNTS];
        for pending in &group {
            let (event_count, waker) = pending.wake();
            if let Some(is_waited_for) =
                event_count.and_then(|event_count| waited_for.get_mut(event_count))
            {
                *is_waited_for = true;
            }
            wakers.extend(waker);
        }
        let event_counts = self.event_counts.iter().zip(waited_for);
        event_counts
            .filter(|(_, is_waited_for)| *is_waited_for)
            .for_each(|(event_count, _)| event_count.ring());
        // Wakers are foreign code and may do anything, for example close the log and wait for its
        // threads. They run last. If one panics, the others still run and this thread keeps
        // leading: the panic is the waker's, not the commit's.
        for waker in wakers.drain(..) {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
        group.clear();
        let mut inner = self.lock();
        (inner.spare_group, inner.spare_wakers) = (group, wakers);
        must_lead
    }

    /// Body of the commit thread: leads on request, and for kept commits, until the log closes.
    fn run_commit_thread(&self) {
        let mut inner = self.lock();
        loop {
            if inner.requested || inner.is_kept() {
                inner.requested = false;
                drop(inner);
                while let Some(leadership) = self.try_lead() {
                    // A panic has poisoned the log by now; later commits must learn of it.
                    let _ = catch_unwind(AssertUnwindSafe(|| leadership.run()));
                }
                inner = self.lock();
            } else if inner.closed {
                return;
            } else if inner.watch.is_awake() {
                inner = self.wake_commit_thread.wait_timeout(inner, LOOK_EVERY);
            } else {
                inner = self.wake_commit_thread.wait(inner);
            }
        }
    }

    /// Rejects new commits, leads for the queued ones, and returns the writer to the first caller.
    pub(crate) fn close(&self) -> Option<Box<W>> {
        let commit_thread = {
            let mut inner = self.lock();
            inner.closed = true;
            inner.commit_thread.take()
        };
        self.wake_commit_thread.notify_one();
        commit_thread.into_iter().for_each(OwnThread::join);
        loop {
            while !broken(Sabotage::LeaveQueue)
                && let Some(leadership) = self.try_lead()
            {
                leadership.run();
            }
            let mut inner = self.lock();
            while inner.writer.is_none() && !inner.ended {
                inner = self.writer_back.wait(inner);
            }
            if inner.ended || inner.forming.is_empty() || broken(Sabotage::LeaveQueue) {
                inner.ended = true;
                self.writer_back.notify_all();
                return inner.writer.take();
            }
        }
    }

    fn note_failure(&self, error: Error) {
        if let Some(failures) = &self.failures {
            failures.fails(BackgroundTask::Commit, error);
        }
    }

    /// Returns the number of commits that wait for a leader.
    #[cfg(all(test, feature = "sim"))]
    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner<W>> {
        self.inner.lock()
    }
}

impl<W> Inner<W> {
    /// Looks at the queue. Returns true if a commit in it is kept, and no thread leads.
    fn is_kept(&mut self) -> bool {
        if !self.watch.is_awake() || self.writer.is_none() {
            return false;
        }
        let nth = self.forming.iter().position(|pending| !pending.starts_later);
        self.watch.look(nth.map(|nth| self.taken + nth as u64))
    }
}

/// The right to lead one group. If the leader panics, the log is poisoned and every waiter is
/// woken.
pub(super) struct Leadership<'a, W: GroupWriter> {
    queue: &'a Queue<W>,
    writer: Option<Box<W>>,
    group: Vec<Arc<Pending>>,
    began: Instant,
    /// The writer returned. Tells a panic of the writer from an unrelated unwinding of this thread.
    finished: bool,
}

impl<W: GroupWriter> Leadership<'_, W> {
    fn run(mut self) {
        self.lead();
    }

    fn lead(&mut self) {
        if let Some(writer) = &mut self.writer {
            writer.commit_group(&self.group);
        }
        self.finished = true;
    }

    /// Returns the writer to the queue. Returns true if a thread must lead for the rest.
    fn finish(&mut self) -> bool {
        let Some(mut writer) = self.writer.take() else {
            return false;
        };
        if !self.finished {
            writer.poison();
            for pending in self.group.iter().filter(|_| !broken(Sabotage::LeaveGroup)) {
                pending.settle(Err(Error::new(ErrorKind::Poisoned, "commit")));
            }
        }
        self.queue.hand_over(writer, std::mem::take(&mut self.group), self.began.elapsed())
    }
}

impl<W: GroupWriter> Drop for Leadership<'_, W> {
    fn drop(&mut self) {
        let mut left = self.finish();
        while left && let Some(mut next) = self.queue.try_lead() {
            // A panic has poisoned the log by now; later commits must learn of it.
            let _ = catch_unwind(AssertUnwindSafe(|| next.lead()));
            left = next.finish();
        }
    }
}

/// View of the queue for tickets.
pub(super) trait TicketQueue: Send + Sync {
    /// Leads one group on this thread, unless another thread leads.
    fn lead_here(&self) -> bool;
    /// Asks the commit thread to lead.
    fn ask_commit_thread(self: Arc<Self>);
    /// Returns the event counts shared by the waiters of each group.
    fn event_counts(&self) -> &[EventCount];
    /// Records the failure of a commit whose ticket was dropped.
    fn note(&self, error: Error);
}

impl<W: GroupWriter + Sync> TicketQueue for Queue<W> {
    fn lead_here(&self) -> bool {
        self.try_lead().map(Leadership::run).is_some()
    }

    fn event_counts(&self) -> &[EventCount] {
        &self.event_counts
    }

    fn note(&self, error: Error) {
        self.note_failure(error);
    }

    fn ask_commit_thread(self: Arc<Self>) {
        let mut inner = self.lock();
        if inner.forming.is_empty() || inner.requested || inner.closed {
            return;
        }
        inner.requested = true;
        inner.serves = true;
        if inner.commit_thread.is_some() {
            self.wake_commit_thread.notify_one();
        } else if !self.may_spawn || !self.spawn_commit_thread(&mut inner) {
            // No thread is available. A current leader continues with this commit; without one,
            // this caller has to wait, or the commit would never start.
            inner.requested = !broken(Sabotage::ForgetWhoAsked);
            drop(inner);
            self.lead_here();
        }
    }
}
