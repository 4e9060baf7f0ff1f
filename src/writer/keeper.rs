//! The keeper: makes the next segment ready and seals the last one, on a thread of its own, so that the
//! commit path meets neither. It never touches the segment that commits go to.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Ground;
use crate::disk::process_id;
use crate::segment::{Segment, Spare, Zero, segment_bytes};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, JoinHandle, Mutex, MutexGuard, rest, spawn};

/// How long the keeper rests between two pieces of a spare that is not urgent.
const REST: Duration = Duration::from_micros(500);
/// A whole segment, as [`Shared::filled`] counts.
const WHOLE: u64 = 1 << 10;

/// A segment that takes no more commits and has no footer yet.
#[derive(Debug)]
pub(crate) struct Full {
    pub(crate) segment: Arc<Segment>,
    /// Where its last commit ends.
    pub(crate) end: u64,
    pub(crate) last_position: u64,
}

/// The thread and what it is asked to do.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The process whose thread that is: a fork of it has none.
    process: u32,
}

struct Shared {
    ground: Arc<Ground>,
    jobs: Mutex<Jobs>,
    changed: Condvar,
    /// How much of the active segment is used, in parts of [`WHOLE`].
    filled: AtomicU64,
}

#[derive(Default)]
struct Jobs {
    /// The number of the spare that is wanted, and the log that it is for.
    wanted: Option<(u32, [u8; 16])>,
    /// It is being made now.
    making: bool,
    spare: Option<Spare>,
    seals: VecDeque<Full>,
    stopping: bool,
    /// The thread has ended, or never started.
    gone: bool,
}

impl Keeper {
    pub(super) fn new(ground: Arc<Ground>) -> Self {
        let shared = Shared {
            ground,
            jobs: Mutex::default(),
            changed: Condvar::new(),
            filled: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), thread: None, process: process_id() }
    }

    /// Asks for the next segment, of which the active one has used so many of so many bytes. If it is there
    /// or on its way, this only says how urgent it is.
    pub(super) fn ask_spare(&mut self, number: u32, log_id: [u8; 16], used: u64, of: u64) {
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

    /// The spare of this number. If it is being made, waits for it; if it was not begun, `None`.
    pub(super) fn take_spare(&mut self, number: u32) -> Option<Spare> {
        self.shared.filled.store(WHOLE, Ordering::Relaxed);
        let mut jobs = self.shared.lock();
        jobs.wanted = None;
        while jobs.making && !jobs.gone {
            jobs = self.shared.changed.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
        jobs.spare.take().filter(|spare| spare.header.number == number)
    }

    /// Seals a full segment, at leisure. One that cannot be sealed stays as it is, whole and readable, and is
    /// sealed when the log is next opened.
    pub(super) fn seal(&mut self, full: Full) {
        self.shared.lock().seals.push_back(full);
        self.start();
    }

    /// Finishes what was begun and gives unused space back.
    pub(super) fn stop(&mut self) {
        if self.process != process_id() {
            std::mem::forget(self.thread.take());
            return;
        }
        self.shared.filled.store(WHOLE, Ordering::Relaxed);
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Some(spare) = self.shared.lock().spare.take() {
            spare.remove(&*self.shared.ground.disk);
        }
    }

    fn start(&mut self) {
        if self.thread.is_some() {
            self.shared.changed.notify_all();
            return;
        }
        if !self.shared.ground.disk.allows_threads() {
            self.shared.work();
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Without a thread, segments are made when they are needed and sealed at the next opening.
        self.thread = spawn("amberlog-space", move || shared.run()).ok();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Tells those who wait that the thread has ended, also when it panicked.
struct Gone<'a>(&'a Shared);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let mut jobs = self.0.lock();
        jobs.gone = true;
        jobs.making = false;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        let _gone = Gone(self);
        loop {
            self.work();
            let jobs = self.lock();
            if jobs.wanted.is_some() || !jobs.seals.is_empty() {
                continue;
            }
            if jobs.stopping {
                return;
            }
            drop(self.changed.wait(jobs).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Does what there is to do.
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
                jobs = self.lock();
                jobs.making = false;
                jobs.spare = spare;
                self.changed.notify_all();
            } else if let Some(full) = jobs.seals.pop_front() {
                drop(jobs);
                let _ = full.segment.seal(full.end, full.last_position);
                jobs = self.lock();
            } else {
                return;
            }
        }
    }

    /// A spare that could not be made is made again, and its failure told, by the commit that needs it.
    fn make(&self, number: u32, log_id: [u8; 16]) -> Option<Spare> {
        let bytes = segment_bytes(&self.ground.options, number);
        let between = |done| self.rest_unless_late(done * WHOLE / bytes);
        Spare::create(&*self.ground.disk, log_id, number, bytes, Zero::Gently(&between)).ok()
    }

    /// Leaves the disk to the commits for a moment, as long as the spare would be whole by the time that three
    /// quarters of the active segment are used. It was asked for at one quarter.
    fn rest_unless_late(&self, done: u64) {
        let filled = self.filled.load(Ordering::Relaxed);
        if done / 2 + WHOLE / 4 > filled && self.ground.disk.allows_threads() {
            rest(REST);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
