//! The rotation worker: creates the next segment and seals the previous one on its own thread, so
//! that the commit path does neither. It does not touch the active segment.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Context;
use crate::disk::LockGuard;
use crate::error::{Error, ErrorKind, Result};
use crate::failures::BackgroundTask;
use crate::segment::{FITTED_BYTES_MIN, Segment, Spare, Zero, place, segment_bytes};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, OwnThread, process, rest, spawn};

/// Pause of the rotation worker between two pieces of a spare that is not urgent.
const REST: Duration = Duration::from_micros(500);
/// Name of the thread.
const THREAD: &str = "amberlog-space";
/// A whole segment, in the unit of [`Shared::filled`].
const WHOLE: u64 = 1 << 10;

/// Segment that takes no more commits and has no footer yet.
#[derive(Debug)]
pub(crate) struct Full {
    pub(crate) segment: Arc<Segment>,
    /// End of its last commit.
    pub(crate) end: u64,
    pub(crate) last_position: u64,
    /// Kept until it is sealed; `None` for a segment of an earlier process.
    pub(crate) lock: Option<LockGuard>,
}

/// Handle of the worker thread and its jobs.
pub(super) struct RotationWorker {
    shared: Arc<Shared>,
    thread: Option<OwnThread>,
    /// Process that owns the thread; a fork of it has none.
    process: u32,
}

struct Shared {
    context: Arc<Context>,
    jobs: Mutex<Jobs>,
    changed: Condvar,
    /// Used share of the active segment, in units of 1 / [`WHOLE`].
    filled: AtomicU64,
}

#[derive(Default)]
struct Jobs {
    /// Number of the requested spare, and the id of its log.
    wanted: Option<(u32, [u8; 16])>,
    /// The spare is being created.
    making: bool,
    /// A segment is being sealed.
    sealing: bool,
    spare: Option<Spare>,
    seals: VecDeque<Full>,
    stopping: bool,
    /// The thread has ended or never started.
    has_ended: bool,
}

impl RotationWorker {
    pub(super) fn new(context: Arc<Context>) -> Self {
        let shared = Shared {
            context,
            jobs: Mutex::default(),
            changed: Condvar::new(),
            filled: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), thread: None, process: process() }
    }

    /// Requests the next segment, given that `used` of the active one's `of` bytes are in use. If
    /// it exists or is being created, only updates its urgency.
    pub(super) fn request_spare(&mut self, number: u32, log_id: [u8; 16], used: u64, of: u64) {
        self.shared.filled.store(used * WHOLE / of, Ordering::Relaxed);
        {
            let mut jobs = self.shared.lock();
            if jobs.spare.is_some() || jobs.making || jobs.wanted.is_some() {
                return;
            }
            jobs.wanted = Some((number, log_id));
        }
        self.start();
    }

    /// Returns the spare of this number. Waits for one that is being created; `None` if its
    /// creation has not begun.
    pub(super) fn take_spare(&mut self, number: u32) -> Option<Spare> {
        self.shared.filled.store(WHOLE, Ordering::Relaxed);
        let mut jobs = self.shared.lock();
        jobs.wanted = None;
        while jobs.making && !jobs.has_ended {
            jobs = self.shared.changed.wait(jobs);
        }
        jobs.spare.take().filter(|spare| spare.header.number == number)
    }

    /// Queues a full segment for sealing. One that cannot be sealed stays complete and readable,
    /// and is sealed at the next open.
    pub(super) fn seal(&mut self, full: Full) {
        self.shared.lock().seals.push_back(full);
        self.start();
    }

    /// Waits until all queued segments are sealed.
    pub(super) fn finish_seals(&self) {
        if self.process != process() {
            return;
        }
        if self.thread.is_none() {
            return self.shared.work();
        }
        let mut jobs = self.shared.lock();
        while (jobs.sealing || !jobs.seals.is_empty()) && !jobs.has_ended {
            jobs = self.shared.changed.wait(jobs);
        }
    }

    /// Finishes jobs in progress, stops the thread, and gives unused space back.
    pub(super) fn stop(&mut self) {
        if self.process != process() {
            return;
        }
        self.shared.filled.store(WHOLE, Ordering::Relaxed);
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        self.thread.take().into_iter().for_each(OwnThread::join);
        let spare = self.shared.lock().spare.take();
        if let Some(spare) = spare.filter(|_| self.shared.context.ownership.lost().is_none()) {
            spare.remove(&*self.shared.context.disk);
        }
    }

    fn start(&mut self) {
        if self.thread.is_some() {
            self.shared.changed.notify_all();
            return;
        }
        if !self.shared.context.disk.allows_threads() {
            self.shared.work();
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Without a thread, segments are created on demand and sealed at the next open.
        let started = spawn(THREAD, move || shared.run()).map_err(no_thread);
        self.thread = self.shared.context.failures.note(BackgroundTask::StartThread, started);
    }
}

fn no_thread(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "start a thread").because(error)
}

impl Drop for RotationWorker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Notifies waiting threads that the worker has ended, even by a panic.
struct EndGuard<'a>(&'a Shared);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        let mut jobs = self.0.lock();
        jobs.has_ended = true;
        // Jobs that a panic interrupted.
        let making = std::mem::take(&mut jobs.making).then_some(BackgroundTask::MakeSegment);
        let sealing = std::mem::take(&mut jobs.sealing).then_some(BackgroundTask::SealSegment);
        for task in making.into_iter().chain(sealing) {
            self.0.context.failures.fails(task, Error::new(ErrorKind::Panicked, task.as_str()));
        }
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        let _guard = EndGuard(self);
        loop {
            self.work();
            let jobs = self.lock();
            if jobs.wanted.is_some() || !jobs.seals.is_empty() {
                continue;
            }
            if jobs.stopping {
                return;
            }
            drop(self.changed.wait(jobs));
        }
    }

    /// Runs jobs until none is left.
    fn work(&self) {
        let mut jobs = self.lock();
        loop {
            if jobs.stopping {
                jobs.wanted = None;
            }
            if let Some((number, log_id)) = jobs.wanted.take() {
                jobs.making = true;
                drop(jobs);
                let spare = self.make(number, log_id);
                let spare = self.context.failures.note(BackgroundTask::MakeSegment, spare);
                jobs = self.lock();
                jobs.making = false;
                jobs.spare = spare;
                self.changed.notify_all();
            } else if let Some(full) = jobs.seals.pop_front() {
                jobs.sealing = true;
                drop(jobs);
                let owned = self.context.check_owned();
                let files = owned.and_then(|()| self.context.catalog.files());
                let sealed =
                    files.and_then(|files| full.segment.seal(files, full.end, full.last_position));
                self.context.failures.note(BackgroundTask::SealSegment, sealed);
                drop(full.lock);
                jobs = self.lock();
                jobs.sealing = false;
                self.changed.notify_all();
            } else {
                return;
            }
        }
    }

    /// Creates a spare. If it fails, the commit that needs the segment creates it.
    fn make(&self, number: u32, log_id: [u8; 16]) -> Result<Spare> {
        let bytes = segment_bytes(&self.context.options, number);
        self.context.check_owned()?;
        let between = |done| match self.lock().stopping {
            true => Err(std::io::ErrorKind::Interrupted.into()),
            false => {
                self.rest_unless_late(done * WHOLE / bytes);
                Ok(())
            }
        };
        let disk = &*self.context.disk;
        let failed = |error| match self.lock().stopping {
            true => Error::new(ErrorKind::Closed, "create"),
            false => Error::io("create", place(number, 0), error),
        };
        let sizes = (bytes, FITTED_BYTES_MIN.min(bytes));
        let zero = Zero::Gently(&between);
        let spare = Spare::prepare_fitting(disk, log_id, number, sizes, zero);
        let spare = spare.map_err(failed)?;
        if let Err(error) = self.context.check_owned() {
            spare.remove(disk);
            return Err(error);
        }
        spare.named(disk).map_err(failed)
    }

    /// Pauses to leave the disk to commits, while the spare can still be complete before three
    /// quarters of the active segment are used. (It is requested at one quarter.)
    fn rest_unless_late(&self, done: u64) {
        let filled = self.filled.load(Ordering::Relaxed);
        if done / 2 + WHOLE / 4 > filled && self.context.disk.allows_threads() {
            rest(REST);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock()
    }
}
