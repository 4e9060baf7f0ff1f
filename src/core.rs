//! What all handles of one open log share, and how it ends. The last handle closes it.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use crate::catalog::{Candidate, Catalog, Meta, Snapshot, Wants};
use crate::commit::Queue;
use crate::disk::{Disk, process_id};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::options::{Collect, Options};
use crate::recovery::Survey;
use crate::ring::Budget;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::types::{StreamId, StreamState};
use crate::upkeep::{Background, CollectOptions, CollectReport, Collector};
use crate::writer::Writer;

/// What is said of a volatile stream.
#[derive(Debug)]
pub(crate) struct Card {
    pub(crate) meta: Meta,
    pub(crate) state: StreamState,
}

/// What all handles of a log share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) queue: Arc<Queue<Writer>>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) options: Options,
    /// Held by whoever moves whole files: one at a time.
    pub(crate) upkeep: Mutex<()>,
    background: Background,
    /// Streams with a living handle and nothing on disk, and what is said of them.
    pub(crate) volatile: papaya::HashMap<StreamId, Option<Arc<Card>>>,
    closed: AtomicBool,
    /// The process that opened it: in a fork of it the log is closed.
    process: u32,
    /// What was found when the log was opened, and where.
    pub(crate) survey: Survey,
    pub(crate) path: PathBuf,
}

impl Core {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        catalog: Arc<Catalog>,
        writer: Writer,
        options: Options,
        survey: Survey,
        path: PathBuf,
    ) -> Self {
        Self {
            disk,
            catalog,
            queue: Queue::new(Box::new(writer)),
            budget: Arc::new(Budget::new(options.memory_bytes_max)),
            options,
            upkeep: Mutex::new(()),
            background: Background::default(),
            volatile: papaya::HashMap::new(),
            closed: AtomicBool::new(false),
            process: process_id(),
            survey,
            path,
        }
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Collects by itself from now on, if the options say so.
    pub(crate) fn collect_in_background(self: &Arc<Self>) {
        if self.options.collect != Collect::Background || !self.disk.allows_threads() {
            return;
        }
        let weak = Arc::downgrade(self);
        let mut seen = 0;
        self.background.start(move || {
            let Some(core) = weak.upgrade() else { return };
            let now = core.catalog.watermark().visible;
            if now != seen {
                seen = now;
                // What could not be collected is tried again when something has changed.
                let _ = core.collect(CollectOptions::new());
            }
        });
    }

    /// What is still wanted of the log is kept, and the space of the rest given back. Alone: whoever else moves files
    /// waits, and so does closing.
    pub(crate) fn collect(&self, options: CollectOptions) -> Result<CollectReport> {
        self.collect_where(options, None)
    }

    /// As [`Core::collect`]; a test may say itself what is wanted.
    pub(crate) fn collect_where(
        &self,
        options: CollectOptions,
        wants: Option<Wants<'_>>,
    ) -> Result<CollectReport> {
        let _alone = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_open("collect")?;
        if self.process != process_id() {
            return Err(Error::new(ErrorKind::Closed, "collect after fork"));
        }
        if self.catalog.is_doubtful() || !self.survey.is_sound() {
            // Somebody may still want what nobody is known to want.
            let place = self.survey.damages.first().map(|damage| damage.place.clone());
            let error = Error::corrupt(
                "collect",
                place.unwrap_or(Place { path: "segments".into(), segment: None, offset: None }),
            );
            return Ok(CollectReport { refused: vec![error], ..CollectReport::default() });
        }
        // The segments first: what is in them was there when it was asked what can be reached.
        let snapshot = Snapshot::new(Arc::clone(&self.catalog));
        let reach = self.catalog.reach();
        let reached = |batch: &Candidate<'_>| reach.wants(batch);
        Collector {
            disk: &*self.disk,
            snapshot: &snapshot,
            wants: wants.unwrap_or(&reached),
            options,
            segment_bytes_max: self.options.segment_bytes_max,
            is_over: &|| self.is_closed(),
        }
        .collect()
    }

    pub(crate) fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.is_closed() { Err(Error::new(ErrorKind::Closed, operation)) } else { Ok(()) }
    }

    /// Finishes what was asked for and ends the log; the first to call it is told how that went.
    pub(crate) fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Relaxed);
        if self.process != process_id() {
            return Err(Error::new(ErrorKind::Closed, "close after fork"));
        }
        self.background.stop();
        // Whoever moves files stops, before another process may.
        let _alone = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        match self.queue.close() {
            Some(writer) => writer.close(),
            None => Ok(()),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Errors can only be told by `Log::close`; nothing that was acknowledged depends on this.
        let _ = self.close();
    }
}
