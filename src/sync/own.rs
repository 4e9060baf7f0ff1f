//! The log's own threads, and the process that owns a handle's memory: both must be known wherever
//! a handle is dropped.
//!
//! Nothing here has a thread-local destructor: it works among the destructors of thread-local
//! values, where `std::thread::current` panics. After a fork the child has the memory of all
//! threads but runs only one: the locks of the others may be held forever, so a handle of the
//! parent is recognized before it takes a lock.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use self::key::{ThreadKey, this_thread};
use super::{JoinHandle, Mutex, MutexGuard, thread};
use crate::sabotage::{Sabotage, broken};

/// Number of forks that led to this process, from 1. A static, and so not controlled by a model
/// checker.
static PROCESS: AtomicU32 = AtomicU32::new(1);

/// Returns a number that changes in every fork of the process. Makes no system call.
#[inline]
pub(crate) fn process() -> u32 {
    if broken(Sabotage::ForgetProcess) {
        return 1;
    }
    PROCESS.load(Ordering::Relaxed)
}

/// Changes [`process`]. Called in the child of every fork, before anything else runs there.
pub(crate) fn note_fork() {
    PROCESS.fetch_add(1, Ordering::Relaxed);
}

#[cfg(any(amberlog_loom, amberlog_shuttle))]
mod key {
    use crate::sync::thread;

    pub(crate) type ThreadKey = thread::ThreadId;

    pub(crate) fn this_thread() -> ThreadKey {
        thread::current().id()
    }

    pub(super) fn start(
        builder: thread::Builder,
        work: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<(thread::JoinHandle<()>, ThreadKey)> {
        let handle = builder.spawn(work)?;
        let key = handle.thread().id();
        Ok((handle, key))
    }
}

#[cfg(not(any(amberlog_loom, amberlog_shuttle)))]
mod key {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    pub(crate) type ThreadKey = u64;

    std::thread_local!(static KEY: Cell<ThreadKey> = const { Cell::new(0) });
    static NEXT: AtomicU64 = AtomicU64::new(1);

    pub(crate) fn this_thread() -> ThreadKey {
        if KEY.get() == 0 {
            KEY.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        KEY.get()
    }

    pub(super) fn start(
        builder: thread::Builder,
        work: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<(thread::JoinHandle<()>, ThreadKey)> {
        let key = NEXT.fetch_add(1, Ordering::Relaxed);
        let work = move || {
            KEY.set(key);
            work();
        };
        Ok((builder.spawn(work)?, key))
    }
}

/// Thread of the log's own. It continues to run if the handle is dropped.
#[derive(Debug)]
pub(crate) struct OwnThread {
    handle: Option<JoinHandle<()>>,
    key: ThreadKey,
    process: u32,
}

/// Starts a thread of the log's own.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<OwnThread> {
    if broken(Sabotage::NoThread) || broken(Sabotage::ForgetWhoAsked) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let (handle, key) = key::start(thread::Builder::new().name(name.into()), work)?;
    Ok(OwnThread { handle: Some(handle), key, process: process() })
}

impl OwnThread {
    /// Waits until the thread has ended, unless it is the current thread.
    pub(crate) fn join(mut self) {
        if self.key != this_thread()
            && self.process == process()
            && let Some(handle) = self.handle.take()
        {
            let _ = handle.join();
        }
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        // A forked child has no such thread, and must not report it to the system.
        if self.process != process() {
            std::mem::forget(self.handle.take());
        }
    }
}

/// Mutual exclusion that knows which thread holds it.
#[derive(Debug)]
pub(crate) struct Alone {
    turn: Mutex<()>,
    holder: Mutex<Option<ThreadKey>>,
}

/// Guard of [`Alone`].
pub(crate) struct Turn<'a> {
    holder: &'a Mutex<Option<ThreadKey>>,
    _turn: MutexGuard<'a, ()>,
}

impl Alone {
    pub(crate) fn new() -> Self {
        Self { turn: Mutex::new(()), holder: Mutex::new(None) }
    }

    /// Waits for the lock. Returns `None` if this thread holds it already.
    pub(crate) fn wait(&self) -> Option<Turn<'_>> {
        if *self.holder.lock() == Some(this_thread()) {
            return None;
        }
        let turn = self.turn.lock();
        *self.holder.lock() = Some(this_thread());
        Some(Turn { holder: &self.holder, _turn: turn })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.holder.lock() = None;
    }
}
