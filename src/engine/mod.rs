//! The state of one open log, shared by all its handles. Dropping the last handle closes the log.

mod background;
#[cfg(all(test, feature = "sim", not(any(amberlog_loom, amberlog_shuttle))))]
mod closing;
mod handle;
mod name_turns;
mod stats;
mod volatile;

use std::path::PathBuf;
use std::sync::Arc;

#[cfg(all(test, feature = "sim"))]
pub(crate) use self::background::BackgroundProgress;
pub(crate) use self::handle::Handle;
use self::name_turns::NameTurns;
pub use self::stats::{MemoryStats, Stats};
use self::volatile::Volatile;
pub(crate) use self::volatile::VolatileInfo;
use crate::catalog::Catalog;
use crate::clock::LogClock;
use crate::commit::Queue;
use crate::disk::{Disk, EventClock};
use crate::error::{Error, ErrorKind, Result};
use crate::failures::Failures;
use crate::maintenance::Background;
use crate::options::Options;
use crate::recovery::RecoveryReport;
use crate::ring::Budget;
use crate::sabotage::{Sabotage, broken};
use crate::segment::Ownership;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use crate::sync::{Alone, Turn, process};
use crate::writer::{Context, Writer};

/// State that all handles of a log share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) disk: Arc<dyn Disk>,
    ownership: Arc<Ownership>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) queue: Arc<Queue<Writer>>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) options: Options,
    pub(crate) clock: EventClock,
    pub(crate) present: Arc<LogClock>,
    pub(crate) failures: Arc<Failures>,
    /// Lock of maintenance: one thread at a time moves whole files.
    maintenance: Alone,
    background: Background,
    pub(crate) volatile: Volatile,
    /// Names that `Log::open_or_create` works on.
    pub(crate) creating: NameTurns,
    /// Process that has the log open; 0 once it is closed.
    open_in: AtomicU32,
    /// True once the close is complete.
    has_ended: AtomicBool,
    /// Process that opened the log.
    process: u32,
    /// Number of live handles.
    handles: AtomicUsize,
    /// Number of the next stream handle.
    next_handle: AtomicU32,
    /// Findings of recovery.
    pub(crate) report: RecoveryReport,
    pub(crate) path: PathBuf,
}

impl Engine {
    pub(crate) fn new(
        context: &Context,
        writer: Writer,
        report: RecoveryReport,
        path: PathBuf,
    ) -> Self {
        let disk = Arc::clone(&context.disk);
        let options = context.options.clone();
        Self {
            ownership: Arc::clone(&context.ownership),
            catalog: Arc::clone(&context.catalog),
            queue: Queue::new(Box::new(writer)),
            budget: Arc::new(Budget::new(options.memory_bytes_max)),
            clock: EventClock::new(options.clock, &*disk),
            present: Arc::clone(&context.clock),
            failures: Arc::clone(&context.failures),
            disk,
            options,
            maintenance: Alone::new(),
            background: Background::default(),
            volatile: Volatile::new(),
            creating: NameTurns::default(),
            open_in: AtomicU32::new(process()),
            has_ended: AtomicBool::new(false),
            process: process(),
            handles: AtomicUsize::new(0),
            next_handle: AtomicU32::new(0),
            report,
            path,
        }
    }

    /// Returns the number of the next stream handle. It wraps after 2³² handles.
    pub(crate) fn number_handle(&self) -> u32 {
        self.next_handle.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns true if the log is closed, or was opened by another process.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.open_in.load(Ordering::Relaxed) != process()
    }

    /// Returns true if maintenance must stop because the log was closed meanwhile.
    pub(crate) fn is_over(&self) -> bool {
        self.is_closed() && !broken(Sabotage::GoOnWhenClosed)
    }

    /// Returns true in a fork of the process that opened the log: there any of its locks may be
    /// held forever.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.process != process()
    }

    /// Takes the maintenance lock of an open log.
    pub(crate) fn alone(&self, operation: &'static str) -> Result<Turn<'_>> {
        self.check_open(operation)?;
        let within = "a waker that runs within maintenance may not ask for more of it";
        let alone = self.maintenance.wait();
        let alone = alone.ok_or_else(|| Error::new(ErrorKind::InvalidOption(within), operation))?;
        self.check_open(operation)?;
        Ok(alone)
    }

    /// Fails unless the log is open and was opened by this process.
    #[inline]
    pub(crate) fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.is_closed() { Err(self.not_open(operation)) } else { Ok(()) }
    }

    /// Returns the error of an operation on a log that is not open.
    #[cold]
    pub(crate) fn not_open(&self, operation: &'static str) -> Error {
        let kind = if self.is_elsewhere() { ErrorKind::OtherProcess } else { ErrorKind::Closed };
        Error::new(kind, operation)
    }

    /// Completes pending commits and closes the log; afterwards other processes can open it. Only
    /// the first call returns the result of the close.
    ///
    /// Any thread may call it, even in a waker on one of the log's own threads. That thread has
    /// then finished its work before the close removes anything.
    pub(crate) fn close(&self) -> Result<()> {
        if self.is_elsewhere() {
            return Err(self.not_open("close"));
        }
        self.open_in.store(0, Ordering::Relaxed);
        self.background.stop();
        // Threads that move files must stop before another process may open the log. This may be
        // one of them.
        let _alone = self.maintenance.wait();
        let Some(writer) = self.queue.close() else { return Ok(()) };
        let closed = writer.close();
        self.has_ended.store(true, Ordering::Relaxed);
        closed
    }
}
