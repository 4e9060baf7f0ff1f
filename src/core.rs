//! What all handles of one open log share, and how it ends. The last handle closes it.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::catalog::{Candidate, Catalog, LogPlace, Meta, Reach, Snapshot, Wants};
use crate::commit::{Encoded, Part, Pending, Queue, Seat};
use crate::disk::{Disk, process_id};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::options::{Collect, CommitOptions, Expect, Options, StreamOptions};
use crate::recovery::Survey;
use crate::ring::{Budget, Filled};
use crate::stream::Stream;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::types::{StreamId, StreamState, Timestamp};
use crate::upkeep::{
    self, ArchiveReport, Background, CarryOut, CollectOptions, CollectReport, Collector,
    MoveReport, Nameless, Pace, RetainOptions, RetainReport, Retainer, Sentence,
};
use crate::writer::Writer;

/// So often within the shortest age that is kept somebody looks whether something is older by now.
const LOOKS_PER_AGE: u32 = 16;
/// A log that moves archived streams by itself leaves those where they are whose files would be shorter than this: a
/// million small streams are no million files.
const MOVED_BYTES_MIN: u64 = 64 << 10;

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
        let (mut seen, mut looked, mut moved) = (0, Instant::now(), LogPlace::default());
        self.background.start(move || {
            let Some(core) = weak.upgrade() else { return };
            let visible = || core.catalog.watermark().visible;
            // What could not be done is tried again when something has changed, or time has passed.
            if visible() != seen || pause.is_some_and(|pause| looked.elapsed() >= pause) {
                looked = Instant::now();
                let _ = core.retain(RetainOptions::new());
            }
            let now = core.catalog.watermark();
            if now.visible != seen {
                seen = now.visible;
                let report = core.move_archived(moved, MOVED_BYTES_MIN);
                if report.is_ok_and(|report| report.refused.is_empty()) {
                    moved = now.end;
                }
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
        let _alone = self.alone("collect")?;
        if let Some(error) = self.doubt("collect") {
            return Ok(CollectReport { refused: vec![error], ..CollectReport::default() });
        }
        let proven = Cell::new(false);
        let prove = || match proven.replace(true) {
            true => Ok(()),
            false => self.prove().inspect_err(|_| proven.set(false)),
        };
        let mut nameless = Nameless::default();
        let (reach, mut report) = self.collect_segments(options, wants, &prove, &mut nameless)?;
        if !options.is_dry_run() {
            let needed = &reach.files;
            match upkeep::sweep(&*self.disk, &self.catalog, needed, &prove, &mut nameless) {
                Ok(bytes) => report.archive_bytes = bytes,
                Err(error) => report.refused.push(error),
            }
            let pace = Pace::new(&self.catalog, &*self.disk);
            nameless.give_back(&*self.disk, pace, &|| self.is_closed());
        }
        Ok(report)
    }

    fn collect_segments(
        &self,
        options: CollectOptions,
        wants: Option<Wants<'_>>,
        prove: &dyn Fn() -> Result<()>,
        nameless: &mut Nameless,
    ) -> Result<(Reach, CollectReport)> {
        // The segments first: what is in them was there when it was asked what can be reached.
        let snapshot = Snapshot::new(Arc::clone(&self.catalog));
        let reach = self.catalog.reach();
        let reached = |batch: &Candidate<'_>| reach.wants(batch);
        let report = Collector {
            disk: &*self.disk,
            snapshot: &snapshot,
            wants: wants.unwrap_or(&reached),
            options,
            segment_bytes_max: self.options.segment_bytes_max,
            prove,
            is_over: &|| self.is_closed(),
        }
        .collect(nameless)?;
        Ok((reach, report))
    }

    /// Moves archived streams to files of their own, those of which something was said at `since` or later.
    pub(crate) fn move_archived(
        self: &Arc<Self>,
        since: LogPlace,
        bytes_min: u64,
    ) -> Result<MoveReport> {
        let _alone = self.alone("move")?;
        let mut report = MoveReport::default();
        let snapshot = Snapshot::new(Arc::clone(&self.catalog));
        for id in snapshot.to_be_moved(since) {
            if self.is_closed() {
                break;
            }
            let moved = match upkeep::has_moved(&snapshot, id) {
                Ok(true) => continue,
                result => result.and_then(|_| self.move_one(id, bytes_min)),
            };
            match moved {
                Ok(moved) => report.moved.extend(moved),
                Err(error) if matches!(error.kind(), ErrorKind::Poisoned) => return Err(error),
                Err(error) => report.refused.push(error),
            }
        }
        Ok(report)
    }

    /// Writes a stream to its archive file: a copy, or what it is read from from then on if it has moved before.
    pub(crate) fn write_archive(self: &Arc<Self>, id: StreamId) -> Result<ArchiveReport> {
        let _alone = self.alone("archive")?;
        if self.catalog.colds_of(id).is_some() {
            let unknown = || Error::new(ErrorKind::UnknownStream(id), "archive");
            return self.move_one(id, 0)?.ok_or_else(unknown);
        }
        let snapshot = Snapshot::new(Arc::clone(&self.catalog));
        upkeep::archive(&*self.disk, &snapshot, id)
    }

    /// The file, then the commit that says so, then the name. What fails leaves a file that nobody needs.
    fn move_one(self: &Arc<Self>, id: StreamId, bytes_min: u64) -> Result<Option<ArchiveReport>> {
        // First, so that the commit fails if anything is done to the stream while the file is written.
        let mut stream = Stream::resume(self, id, &StreamOptions::new())?;
        let snapshot = Snapshot::new(Arc::clone(&self.catalog));
        let Some((seqs, report)) = upkeep::write_cold(&*self.disk, &snapshot, id, bytes_min)?
        else {
            return Ok(None);
        };
        stream.say_cold(seqs).wait()?;
        upkeep::publish(&*self.disk, &self.catalog, id)?;
        Ok(Some(report))
    }

    /// Who moves whole files is alone.
    fn alone(&self, operation: &'static str) -> Result<MutexGuard<'_, ()>> {
        let alone = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_process(operation)?;
        Ok(alone)
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
