//! Who leads: the commits that wait, and the writer that one of the waiting takes.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::gather::Gather;
use super::{Lead, Pending, Ticket};
use crate::error::{Error, ErrorKind};
use crate::sabotage::{Sabotage, broken};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Bell, Condvar, JoinHandle, Mutex, MutexGuard, spawn, thread};

/// A group stops growing at so many bytes, so that the first of it does not wait for the last.
const GROUP_BYTES_MAX: u64 = 8 << 20;
/// A few, so that those who were woken are gone before others wait for the same bell; if not, some are woken for nothing.
const BELLS: usize = 4;

/// The commits that wait for a leader, and the writer that makes one.
#[derive(Debug)]
pub(crate) struct Queue<W> {
    inner: Mutex<Inner<W>>,
    /// How many commits are queued, to look at without the lock.
    queued: AtomicUsize,
    /// For these wait the threads of a group, but for the first, who leads if need be. Each group has the next one.
    bells: [Bell; BELLS],
    wake_server: Condvar,
    /// Told whenever the writer comes back, once the log is closing.
    writer_back: Condvar,
    /// The log may have a thread of its own.
    may_spawn: bool,
}

#[derive(Debug)]
struct Inner<W> {
    forming: VecDeque<Arc<Pending>>,
    /// Here unless somebody leads.
    writer: Option<Box<W>>,
    /// The log's own thread has been asked to lead. Without one: whoever leads goes on with the rest.
    asked: bool,
    closed: bool,
    /// Whoever closed the log has the writer, for good.
    ended: bool,
    gather: Gather,
    /// The bell of those who come now.
    bell: usize,
    server: Option<JoinHandle<()>>,
    /// An empty vector that has its memory already.
    spare_group: Vec<Arc<Pending>>,
}

impl<W: Lead> Queue<W> {
    pub(crate) fn new(writer: Box<W>) -> Arc<Self> {
        let may_spawn = writer.allows_threads();
        let inner = Inner {
            forming: VecDeque::new(),
            writer: Some(writer),
            asked: false,
            closed: false,
            ended: false,
            gather: Gather::default(),
            bell: 0,
            server: None,
            spare_group: Vec::new(),
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            queued: AtomicUsize::new(0),
            bells: Default::default(),
            wake_server: Condvar::new(),
            writer_back: Condvar::new(),
            may_spawn,
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
            if !inner.forming.is_empty() {
                pending.share(inner.bell);
            }
            inner.forming.push_back(Arc::clone(&pending));
            self.queued.store(inner.forming.len(), Ordering::Relaxed);
        }
        Ticket::new(pending, Arc::clone(self) as Arc<dyn Serve>)
    }

    /// Takes the writer and the next group, if nobody leads and somebody is queued.
    pub(super) fn try_lead(&self) -> Option<Leading<'_, W>> {
        let mut inner = self.lock();
        if inner.forming.is_empty() {
            return None;
        }
        let writer = inner.writer.take()?;
        let queued = inner.forming.len();
        if let Some(wait) = inner.gather.wait_for(queued) {
            drop(inner);
            let took = wait.until(|| self.queued.load(Ordering::Relaxed));
            inner = self.lock();
            let queued = inner.forming.len();
            inner.gather.waited(&wait, queued, took);
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
        self.queued.store(inner.forming.len(), Ordering::Relaxed);
        inner.bell = (inner.bell + 1) % BELLS;
        let began = Instant::now();
        Some(Leading { queue: self, writer: Some(writer), group, began, finished: false })
    }

    /// Gives the writer back, lets the next leader start, and wakes whoever the group was for. True: the
    /// caller has to lead for what is left.
    fn hand_over(&self, writer: Box<W>, mut group: Vec<Arc<Pending>>, took: Duration) -> bool {
        let mut inner = self.lock();
        let queued = inner.forming.len();
        inner.gather.ended(group.len(), queued, took);
        inner.writer = Some(writer);
        let more = !inner.forming.is_empty() && !broken(Sabotage::TellNobody);
        let left = more && !inner.forming.iter().any(|pending| pending.nudge(&self.bells));
        let served = inner.server.is_some();
        if left && served {
            self.wake_server.notify_one();
        }
        // Without the log's own thread, what is queued and not waited for is either merely kept, and whoever
        // waits for, awaits or drops one of these tickets finds the writer here; or it was asked for.
        inner.asked = more && (inner.asked || left && served);
        let asked = left && !served && inner.asked;
        if inner.closed {
            self.writer_back.notify_all();
        }
        drop(inner);
        let mut waited_for = [false; BELLS];
        for pending in &group {
            let (bell, waker) = pending.wake();
            if let Some(is_waited_for) = bell.and_then(|bell| waited_for.get_mut(bell)) {
                *is_waited_for = true;
            }
            if let Some(waker) = waker {
                // A waker is the program's code. If it panics, the others of the group still have to be woken,
                // and whoever leads goes on: the panic is the waker's, not the commit's.
                let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
            }
        }
        let bells = self.bells.iter().zip(waited_for);
        bells.filter(|(_, is_waited_for)| *is_waited_for).for_each(|(bell, _)| bell.ring());
        group.clear();
        self.lock().spare_group = group;
        asked
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
            && server.thread().id() != thread::current().id()
        {
            let _ = server.join();
        }
        loop {
            while !broken(Sabotage::LeaveQueue)
                && let Some(leading) = self.try_lead()
            {
                leading.run();
            }
            let mut inner = self.lock();
            while inner.writer.is_none() && !inner.ended {
                inner = self.writer_back.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
            if inner.ended || inner.forming.is_empty() || broken(Sabotage::LeaveQueue) {
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
pub(super) struct Leading<'a, W: Lead> {
    queue: &'a Queue<W>,
    writer: Option<Box<W>>,
    group: Vec<Arc<Pending>>,
    began: Instant,
    /// The writer came back. (A thread that unwinds for another reason may lead as well.)
    finished: bool,
}

impl<W: Lead> Leading<'_, W> {
    fn run(mut self) {
        self.lead();
    }

    fn lead(&mut self) {
        if let Some(writer) = &mut self.writer {
            writer.commit_group(&self.group);
        }
        self.finished = true;
    }

    /// Gives the writer back. True: somebody has to lead for what is left.
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

impl<W: Lead> Drop for Leading<'_, W> {
    fn drop(&mut self) {
        let mut left = self.finish();
        while left && let Some(mut next) = self.queue.try_lead() {
            // A panic has poisoned the log by now; those who come later have to be told so.
            let _ = catch_unwind(AssertUnwindSafe(|| next.lead()));
            left = next.finish();
        }
    }
}

/// The queue, as a ticket sees it.
pub(super) trait Serve: Send + Sync {
    /// Leads one group on this thread, if nobody else does.
    fn lead_here(&self) -> bool;
    /// Lets the log's own thread lead.
    fn ask_server(self: Arc<Self>);
    /// What those wait for who wait together.
    fn bells(&self) -> &[Bell];
}

impl<W: Lead + Sync> Serve for Queue<W> {
    fn lead_here(&self) -> bool {
        self.try_lead().map(Leading::run).is_some()
    }

    fn bells(&self) -> &[Bell] {
        &self.bells
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
        match self.may_spawn.then(|| spawn("amberlog-commit", move || queue.serve())) {
            Some(Ok(server)) => inner.server = Some(server),
            None | Some(Err(_)) => {
                // No thread to be had. If somebody leads, they go on with this; if nobody does, better to
                // make this one wait than to leave the commit undone.
                inner.asked = !broken(Sabotage::ForgetWhoAsked);
                drop(inner);
                self.lead_here();
            }
        }
    }
}
