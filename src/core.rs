//! What all handles of one open log share, and how it ends. The last handle closes it.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::catalog::{Candidate, Catalog, Meta, Snapshot, Wants};
use crate::commit::{Encoded, Part, Pending, Queue, Seat};
use crate::disk::{Disk, process_id};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::options::{Collect, CommitOptions, Expect, Options};
use crate::recovery::Survey;
use crate::ring::{Budget, Filled};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::types::{StreamId, StreamState, Timestamp};
use crate::upkeep::{
    Background, CarryOut, CollectOptions, CollectReport, Collector, RetainOptions, RetainReport,
    Retainer, Sentence,
};
use crate::writer::Writer;

/// So often within the shortest age that is kept somebody looks whether something is older by now.
const LOOKS_PER_AGE: u32 = 16;

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

    /// Forgets and collects by itself from now on, if the options say so.
    pub(crate) fn keep_house_in_background(self: &Arc<Self>) {
        if self.options.collect != Collect::Background || !self.disk.allows_threads() {
            return;
        }
        let weak = Arc::downgrade(self);
        let pause = self.options.retentions.shortest().map(|age| age / LOOKS_PER_AGE);
        let (mut seen, mut looked) = (0, Instant::now());
        self.background.start(move || {
            let Some(core) = weak.upgrade() else { return };
            let visible = || core.catalog.watermark().visible;
            // What could not be done is tried again when something has changed, or time has passed.
            if visible() != seen || pause.is_some_and(|pause| looked.elapsed() >= pause) {
                looked = Instant::now();
                let _ = core.retain(RetainOptions::new());
            }
            let now = visible();
            if now != seen {
                seen = now;
                let _ = core.collect(CollectOptions::new());
            }
        });
    }

    /// What the options do not keep is forgotten. Alone, as [`Core::collect`].
    pub(crate) fn retain(&self, options: RetainOptions) -> Result<RetainReport> {
        let commit = |sentences: &[Sentence]| self.say(sentences);
        self.retain_by(options, &commit)
    }

    /// As [`Core::retain`]; a test may make the commits itself.
    pub(crate) fn retain_by(
        &self,
        options: RetainOptions,
        commit: CarryOut<'_>,
    ) -> Result<RetainReport> {
        let _alone = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_process("retain")?;
        if self.options.retentions.is_empty() {
            return Ok(RetainReport::default());
        }
        if let Some(error) = self.doubt("retain") {
            return Ok(RetainReport { refused: vec![error], ..RetainReport::default() });
        }
        Retainer {
            snapshot: &Snapshot::new(Arc::clone(&self.catalog)),
            retentions: &self.options.retentions,
            now: options.now.unwrap_or_else(Timestamp::now),
            commit: (!options.dry_run).then_some(commit),
            is_over: &|| self.is_closed(),
        }
        .retain()
    }

    /// Commits what is said of streams that nobody needs a handle of, wherever they stand by then.
    pub(crate) fn say(&self, sentences: &[Sentence]) -> Result<()> {
        let part = |one: &Sentence| Part {
            stream: one.stream(),
            root: Some(one.root),
            filled: Filled::nothing(&self.budget),
            crc: 0,
            seat: Seat::new(one.head, one.generation),
            change: Some(Box::new(Encoded::new(one.change.clone()))),
        };
        let parts = sentences.iter().map(part).collect();
        let how = CommitOptions::new().durability(self.options.durability).expect(Expect::Any);
        self.queue.submit(Pending::new(parts, how, Vec::new())).wait().map(drop)
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
        self.check_process("collect")?;
        if let Some(error) = self.doubt("collect") {
            return Ok(CollectReport { refused: vec![error], ..CollectReport::default() });
        }
        // The segments first: what is in them was there when it was asked what can be reached.
        let snapshot = Snapshot::new(Arc::clone(&self.catalog));
        let reach = self.catalog.reach();
        let reached = |batch: &Candidate<'_>| reach.wants(batch);
        let proven = Cell::new(false);
        Collector {
            disk: &*self.disk,
            snapshot: &snapshot,
            wants: wants.unwrap_or(&reached),
            options,
            segment_bytes_max: self.options.segment_bytes_max,
            prove: &|| match proven.replace(true) {
                true => Ok(()),
                false => self.prove().inspect_err(|_| proven.set(false)),
            },
            is_over: &|| self.is_closed(),
        }
        .collect()
    }

    /// Waits until all that was committed is synced, and the disk itself says so.
    fn prove(&self) -> Result<()> {
        let how = CommitOptions { proof: true, ..CommitOptions::new() };
        self.queue.submit(Pending::new(Vec::new(), how, Vec::new())).wait().map(drop)
    }

    /// Why nothing is taken away of this log: somebody may still want what nobody is known to want.
    fn doubt(&self, operation: &'static str) -> Option<Error> {
        if !self.catalog.is_doubtful() && self.survey.is_sound() {
            return None;
        }
        let place = self.survey.damages.first().map(|damage| damage.place.clone());
        let unknown = || Place { path: "segments".into(), segment: None, offset: None };
        Some(Error::corrupt(operation, place.unwrap_or_else(unknown)))
    }

    /// The log is open, and was opened by this process.
    fn check_process(&self, operation: &'static str) -> Result<()> {
        self.check_open(operation)?;
        let is_own = self.process == process_id();
        if is_own { Ok(()) } else { Err(Error::new(ErrorKind::Closed, operation)) }
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
