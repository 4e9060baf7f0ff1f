//! Handle of the log: opens it, creates streams, takes read views, closes it. Contains wiring only.

mod by_name;
#[cfg(all(test, feature = "sim"))]
mod clocks;
#[cfg(all(test, feature = "sim"))]
mod compacting;
#[cfg(all(test, feature = "sim"))]
mod failing;
#[cfg(all(test, feature = "sim"))]
mod retaining;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::{Catalog, Page, Query, ReadView};
use crate::clock::LogClock;
use crate::commit::Ticket;
use crate::disk::{Disk, RealDisk, watch_forks};
use crate::engine::{Engine, Handle, Stats};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::failures::{BackgroundError, Failures};
use crate::maintenance::{
    self, ArchiveReport, BackupReport, CompactOptions, CompactReport, RetainOptions, RetainReport,
};
use crate::options::{
    CommitOptions, Expect, Options, Privacy, RING_BYTES_MIN, ReadOptions, StreamOptions,
};
use crate::recovery::{self, RecoveryReport};
use crate::segment::{DIR, FilePool, LOCK, OPEN_SEGMENTS_MIN, Ownership, UNFINISHED_COPY, path};
use crate::stream::{Idle, Stream, check_name};
use crate::types::{StreamId, StreamState};
use crate::writer::{Active, Context, Full, Resumed, Writer, Zeroed};

/// Minimum segment size: the header and a few commits.
const SEGMENT_BYTES_MIN: u64 = 16 << 10;
/// Maximum segment size: offsets in units of eight bytes must fit in 29 bits.
const SEGMENT_BYTES_MAX: u64 = 2 << 30;

/// Open log. A clone is another handle on the same log. The log closes when its last handle,
/// including those of its streams, is dropped, or by [`Log::close`], which also reports errors.
/// When either returns, the log can be opened again; backups, archives and compactions in progress
/// end with [`ErrorKind::Closed`].
///
/// In a child process after a `fork`, handles opened by the parent return
/// [`ErrorKind::OtherProcess`] and close nothing; committed events remain readable.
#[derive(Clone, Debug)]
pub struct Log(pub(crate) Handle);

impl Options {
    /// Opens the log at `path` for writing. If none exists, the first commit creates it; nothing is
    /// on disk until then (P1). Other files in the directory are ignored and kept. A file that has
    /// the name of a segment without being one of this log is reported as damage.
    ///
    /// Blocks while the unsealed end of the log is replayed: at most
    /// [`Options::segment_bytes_max`], plus the indexes of sealed segments.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Locked`] when another writer has the log open, in this process or another;
    /// [`ErrorKind::UnsupportedVersion`] for a newer format; [`ErrorKind::Corrupt`] when the log
    /// cannot continue after its last segment ([`crate::verify::repair`] can help; other damage is
    /// in [`Log::recovery_report`] and does not prevent opening); [`ErrorKind::InvalidOption`];
    /// [`ErrorKind::Io`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Log> {
        let path = path.as_ref();
        let disk = RealDisk::new(path, self.privacy == Privacy::Readable)
            .map_err(|error| Error::io("open", Place::root(), error).in_log(path))?;
        open_on(Arc::new(disk), self, path.to_owned()).map_err(|error| error.in_log(path))
    }

    /// Opens a log on a simulated disk, like [`Options::open`].
    ///
    /// # Errors
    ///
    /// The errors of [`Options::open`].
    #[cfg(feature = "sim")]
    pub fn open_on(self, disk: &crate::disk::SimDisk) -> Result<Log> {
        open_on(Arc::new(disk.hold()), self, PathBuf::new())
    }

    fn check(&self) -> Result<()> {
        let wrong = |what| Err(Error::new(ErrorKind::InvalidOption(what), "open"));
        if self.segment_bytes_first < SEGMENT_BYTES_MIN {
            return wrong("segment_bytes_first must be at least 16 KiB");
        }
        if self.segment_bytes_max < self.segment_bytes_first
            || self.segment_bytes_max > SEGMENT_BYTES_MAX
        {
            return wrong("segment_bytes_max must be from segment_bytes_first to 2 GiB");
        }
        if self.commit_ids_max == 0 {
            return wrong("commit_ids_max must not be 0");
        }
        if self.ring_bytes_max < RING_BYTES_MIN {
            return wrong("ring_bytes_max must be at least 64 bytes");
        }
        if self.memory_bytes_max == 0 {
            return wrong("memory_bytes_max must not be 0");
        }
        check_open_segments(self.open_segments_max)
    }
}

fn check_open_segments(max: usize) -> Result<()> {
    match max < OPEN_SEGMENTS_MIN {
        true => {
            let wrong = ErrorKind::InvalidOption("open_segments_max must be at least 4");
            Err(Error::new(wrong, "open"))
        }
        false => Ok(()),
    }
}

impl ReadOptions {
    /// Opens a log with these options, like [`ReadView::open`].
    ///
    /// # Errors
    ///
    /// The errors of [`ReadView::open`], and [`ErrorKind::InvalidOption`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<(ReadView, RecoveryReport)> {
        check_open_segments(self.open_segments_max)?;
        let path = path.as_ref();
        recovery::open_read_at(path, &self).map_err(|error| error.in_log(path))
    }

    /// Opens a log on a simulated disk, like [`ReadOptions::open`].
    ///
    /// # Errors
    ///
    /// The errors of [`ReadOptions::open`].
    #[cfg(feature = "sim")]
    pub fn open_on(self, disk: &crate::disk::SimDisk) -> Result<(ReadView, RecoveryReport)> {
        check_open_segments(self.open_segments_max)?;
        let disk: Arc<dyn Disk> = Arc::new(disk.hold());
        recovery::open_read(&disk, &self)
    }
}

fn open_on(disk: Arc<dyn Disk>, options: Options, path: PathBuf) -> Result<Log> {
    options.check()?;
    watch_forks();
    let failed = |path: &str| {
        let place = Place { path: path.into(), segment: None, offset: None };
        move |error| Error::io("open", place, error)
    };
    let mut catalog = Catalog::new();
    let mut report = RecoveryReport::default();
    let mut resumed = None;
    let names = match disk.root_exists().map_err(failed(""))? {
        true => disk.list("").map_err(failed(""))?,
        false => Vec::new(),
    };
    if names.iter().any(|name| name == UNFINISHED_COPY) {
        return Err(Error::new(ErrorKind::UnfinishedBackup, "open"));
    }
    if names.iter().any(|name| name == LOCK || name == DIR) {
        let lock = recovery::lock(&*disk)?;
        match recovery::open(&disk, &options)? {
            Some(opened) => {
                catalog = opened.catalog;
                report = opened.report;
                resumed = Some((opened.tail, lock));
            }
            // The first commit never happened: the log is created as if nothing existed.
            None => drop(lock),
        }
    }
    let files = FilePool::new(Arc::clone(&disk), options.reads, options.open_segments_max);
    catalog.read_by(files);
    let catalog = Arc::new(catalog);
    let ownership = Arc::new(Ownership::default());
    let vouched = resumed.as_ref().and_then(|(tail, _)| tail.vouched);
    let clock = Arc::new(LogClock::new(Arc::clone(&disk), vouched, options.clock_jump_max));
    let failures = Arc::new(Failures::new(Arc::clone(&disk)));
    let context = Arc::new(Context { disk, catalog, clock, options, ownership, failures });
    let writer = match resumed {
        None => Writer::fresh(Arc::clone(&context)),
        Some((tail, lock)) => Writer::resumed(Arc::clone(&context), resume(tail, lock)),
    };
    let engine = Arc::new(Engine::new(&context, writer, report, path));
    engine.start_background();
    Ok(Log(Handle::new(engine)))
}

fn resume(tail: recovery::Tail, lock: crate::disk::HeldLock) -> Resumed {
    Resumed {
        log_id: tail.segment.header.log_id,
        active: Active {
            path: path(tail.segment.number()),
            lock: Some(tail.claim),
            segment: tail.segment,
            file: tail.file,
            offset: tail.offset,
            unsynced: false,
            is_reserved: tail.is_reserved,
            // A file that was cut ends here.
            zeroed: if tail.is_reserved { Zeroed::ALL } else { Zeroed::NONE },
        },
        mark: tail.mark,
        lock,
        ready: tail.spare,
        ids: tail.ids,
        unsealed: tail
            .unsealed
            .into_iter()
            .map(|(segment, end, last_position)| Full { segment, end, last_position, lock: None })
            .collect(),
    }
}

impl Log {
    /// Opens the log at `path` with the default options; see [`Options::open`].
    ///
    /// # Errors
    ///
    /// The errors of [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// Returns the default options, to change before opening.
    #[must_use]
    pub fn options() -> Options {
        Options::new()
    }

    /// Creates a stream: an id, and a ring that takes memory as it fills. Nothing is written to
    /// disk (P1).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`].
    pub fn create_stream(&self) -> Result<Stream> {
        self.create_stream_with(&StreamOptions::new())
    }

    /// Creates a stream that has a name, an id of the host's choice ([`StreamOptions::id`]), or
    /// limits that differ from the log's defaults.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::StreamExists`] when a stream has the id, committed or not, and
    /// [`ErrorKind::Deleted`] when one had it; [`ErrorKind::NameTaken`] when a stream that is not
    /// deleted has the name, committed or not; [`ErrorKind::InvalidName`];
    /// [`ErrorKind::NameIsAnId`]; [`ErrorKind::NameReserved`]; [`ErrorKind::InvalidOption`];
    /// [`ErrorKind::Refused`] when the log's memory has no room for the name
    /// ([`crate::AppendError::MemoryFull`]); [`ErrorKind::Closed`].
    pub fn create_stream_with(&self, options: &StreamOptions) -> Result<Stream> {
        self.0.check_open("create stream")?;
        Stream::create(self.0.clone(), options)
    }

    /// Opens a durable stream for writing. Takes the time of a lookup in memory, however long the
    /// stream is. The handle's commits are checked against the head that the stream has now (P8).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownStream`]; [`ErrorKind::Deleted`]; [`ErrorKind::NotMaterialized`] when
    /// the stream has only a volatile handle elsewhere in this process; [`ErrorKind::Closed`].
    pub fn open_stream(&self, id: StreamId) -> Result<Stream> {
        self.open_stream_with(id, &StreamOptions::new())
    }

    /// Opens a durable stream like [`Log::open_stream`], with ring options of its own. The options
    /// must give the stream neither a name nor an id.
    ///
    /// # Errors
    ///
    /// The errors of [`Log::open_stream`], and [`ErrorKind::InvalidOption`].
    pub fn open_stream_with(&self, id: StreamId, options: &StreamOptions) -> Result<Stream> {
        self.0.check_open("open stream")?;
        Stream::open(&self.0, id, options)
    }

    /// Opens the stream with this name for writing, or creates it if no stream has the name.
    /// Threads that call this at the same time get handles of the same stream.
    ///
    /// A newly created stream is committed at once, without events, because no other thread could
    /// find it otherwise. This blocks for one commit, with the log's durability. Opening an
    /// existing stream takes the time of a lookup in memory. An archived stream stays archived: it
    /// takes no events until [`Stream::unarchive`]. The name of a deleted stream is free. When only
    /// a commit in flight holds the name, because its stream's handle was dropped, this call makes
    /// the log's queued commits, including delayed ones ([`CommitOptions::later`]), and opens the
    /// stream.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotMaterialized`] when a handle in this process reserves the name for a stream
    /// that it has not committed yet; [`ErrorKind::NameTaken`], with the holder, when a
    /// handle has renamed a committed stream to this name but has not committed the change, or when
    /// the commit that creates the holder failed and its ticket is still kept; those of
    /// [`Log::create_stream_with`]; and the error that prevented the commit, in which case no
    /// stream was created.
    pub fn open_or_create(&self, name: &str) -> Result<Stream> {
        self.0.check_open("open or create")?;
        check_name(name)?;
        let _turn = self.0.creating.wait_for(name);
        self.open_or_create_alone(name)
    }

    /// Commits several streams atomically, with one marker (P4). Streams with nothing to commit are
    /// left out.
    pub fn commit_all<'a>(&self, streams: impl IntoIterator<Item = &'a mut Stream>) -> Ticket {
        self.commit_all_with(streams, CommitOptions::new())
    }

    /// Commits several streams like [`Log::commit_all`], with options.
    pub fn commit_all_with<'a>(
        &self,
        streams: impl IntoIterator<Item = &'a mut Stream>,
        options: CommitOptions,
    ) -> Ticket {
        let streams = streams.into_iter().map(|stream| (stream, options.expect));
        Stream::commit_all(&self.0, streams, options, Idle::LeftOut)
    }

    /// Commits several streams like [`Log::commit_all_with`], each with its own expectation in
    /// place of that of the options. If a stream does not meet its expectation, nothing is written,
    /// and [`ErrorKind::Conflict`] names the stream. Streams with nothing to commit are checked as
    /// well.
    ///
    /// ```
    /// # use amberlog::{CommitOptions, Expect, Log, Stream};
    /// # fn transfer(log: &Log, from: &mut Stream, to: &mut Stream) -> amberlog::Result<()> {
    /// let streams = [(from, Expect::Seen), (to, Expect::Any)];
    /// log.commit_all_expecting(streams, CommitOptions::new()).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn commit_all_expecting<'a>(
        &self,
        streams: impl IntoIterator<Item = (&'a mut Stream, Expect)>,
        options: CommitOptions,
    ) -> Ticket {
        Stream::commit_all(&self.0, streams, options, Idle::Checked)
    }

    /// Makes every acknowledged commit durable, including those made with
    /// [`Durability::Os`](crate::Durability::Os). The ticket resolves to the last position: from
    /// then on, no later opening misses a commit up to that position. Commits submitted earlier are
    /// included. Costs two syncs, for which later commits wait, or nothing if nothing was
    /// committed.
    pub fn sync(&self) -> Ticket {
        self.0.sync()
    }

    /// Returns the state of a stream, durable or volatile, as known to this process; `None` for an
    /// id that was never committed and has no live handle here. [`Log::read_view`] tells a durable
    /// stream from a volatile one.
    #[must_use]
    pub fn state(&self, id: StreamId) -> Option<StreamState> {
        // First: a stream that is no longer volatile is committed, and the read view shows it.
        let volatile = self.0.volatile.state(id);
        self.read_view().view(id).map(|stream_view| stream_view.state()).or(volatile)
    }

    /// Returns a view of everything committed now, for listing and reading.
    #[must_use]
    pub fn read_view(&self) -> ReadView {
        ReadView::new(Arc::clone(&self.0.catalog))
    }

    /// Returns a page of streams as of now. With [`Query::volatile`] the list also has the volatile
    /// streams of this process, which a [`ReadView`] does not show.
    ///
    /// # Errors
    ///
    /// Fails like [`ReadView::list`].
    pub fn list(&self, query: &Query) -> Result<Page> {
        if !query.wants_volatile() {
            return self.read_view().list(query);
        }
        let mut max = query.page_max();
        loop {
            let earlier = self.read_view();
            let is_durable = |id| earlier.view(id).is_some();
            let mut volatile = self.0.volatile.list(query, max, is_durable);
            let are_all = volatile.len() < max;
            // Last: a stream committed meanwhile is in one of the two, and listed once.
            let view = self.read_view();
            volatile.retain(|info| view.view(info.id).is_none());
            if are_all || volatile.len() >= query.page_max() {
                return view.list_with(query, volatile);
            }
            max = max.saturating_mul(2);
        }
    }

    /// Returns the findings of the opening: damage, if any, and the leftovers of an interrupted
    /// writer.
    #[must_use]
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.0.report
    }

    /// Returns the failures since the opening that could not be returned to a caller, at most one
    /// entry per task: retention and compaction in the background, making and sealing segments,
    /// commits whose tickets were dropped, and so on. Empty if there were none. No acknowledged
    /// commit depends on these tasks; if one keeps failing, the log grows or its next opening is
    /// slow. Can still be called on a clone after the log is closed.
    #[must_use]
    pub fn background_errors(&self) -> Vec<BackgroundError> {
        self.0.failures.all()
    }

    /// Returns the log's directory, as passed to the opening.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns statistics of the log as of now: the memory that it holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    #[cfg(feature = "json")]
    pub(crate) fn handle(&self) -> &Handle {
        &self.0
    }

    /// Backs the log up into another directory while commits continue. The backup is durable when
    /// this returns: a log that was closed at [`BackupReport::position`], the last commit visible
    /// now.
    ///
    /// `target` must be empty or not exist, and must lie outside the log's own directory. Opening
    /// an unfinished backup fails with [`ErrorKind::UnfinishedBackup`]; a backup that failed stays
    /// unfinished and must be removed. Where the file system supports it, sealed segments are not
    /// copied: the backup shares their blocks, as clones or as hard links. A backup that must
    /// survive the loss of the disk has to be on another disk.
    ///
    /// Blocks while the rest is copied and synced; commits do not wait for it. Closing the log
    /// stops it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotEmpty`]; [`ErrorKind::InsideLog`]; [`ErrorKind::StorageFull`];
    /// [`ErrorKind::Io`]; [`ErrorKind::Closed`].
    pub fn backup(&self, target: impl AsRef<Path>) -> Result<BackupReport> {
        let _alone = self.0.alone("backup")?;
        let is_over = || self.0.is_over();
        maintenance::backup_open(&self.0.disk, &self.read_view(), target.as_ref(), &is_over)
    }

    /// Writes the committed state of a stream to a file of its own: its events, including those
    /// shared with other streams, and its attributes. [`ReadView::open`] and the command line read
    /// the file alone, anywhere. Its path is [`StreamId::archive_path`]; it replaces an earlier
    /// one, and is durable when this returns. It is a copy that the log neither needs nor reads
    /// again.
    ///
    /// Blocks while the stream is read and written.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownStream`]; [`ErrorKind::NotMaterialized`] when it was never committed;
    /// [`ErrorKind::Deleted`]; [`ErrorKind::Corrupt`] when part of it cannot be read, in which case
    /// nothing is written; [`ErrorKind::StorageFull`]; [`ErrorKind::Io`]; [`ErrorKind::Closed`].
    pub fn write_archive(&self, stream: StreamId) -> Result<ArchiveReport> {
        self.0.write_archive(stream)
    }

    /// Gives back the space of dead batches: of events that no stream shows, of names, labels, data
    /// and states that later ones replaced, and of rewinds that no longer divide any events. Drops
    /// wholly dead segments, then rewrites mostly dead ones. Dropping writes nothing and works on a
    /// full disk.
    ///
    /// If a quarter of the segment that receives commits is used, and most of that is dead, ends it
    /// first. Otherwise deleted bytes
    /// stay in it, in any segment that is not sealed
    /// yet, and in segments below [`CompactOptions::dead_percent_min`]. [`CompactOptions::purge`]
    /// removes them from there too, and lists in [`CompactReport::held`] the files that still hold
    /// some: segments in use by read views or shared with backups, and archive files.
    ///
    /// Commits keep their positions. Older read views keep their content; its space is freed when
    /// they are dropped. Segments that cannot be read are left alone and reported in
    /// [`CompactReport::refused`].
    ///
    /// Blocks while segments are read and written; commits do not wait for that, but share the disk
    /// with it. Only one compaction runs at a time. Closing the log stops it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`]; [`ErrorKind::Poisoned`], [`ErrorKind::StorageFull`] and
    /// [`ErrorKind::Io`] when the acknowledged commits cannot be made provable on disk, or when a
    /// purge cannot begin a new segment or seal the previous one: then nothing was compacted.
    /// [`ErrorKind::Io`] also when, after a purge, the directory cannot be synced or listed.
    pub fn compact(&self, options: CompactOptions) -> Result<CompactReport> {
        self.0.compact(options)
    }

    /// Drops events and streams that the log's options do not keep ([`Options::retain`],
    /// [`Options::retain_label`]): trims the oldest events of streams over a bound, and deletes
    /// streams that were idle for too long. [`Log::compact`] gives back the space.
    ///
    /// Each commit covers up to 256 streams, atomically and as durably as the log's options say. A
    /// stream that another handle changes meanwhile is left for the next run. Nothing is dropped
    /// from a damaged log.
    ///
    /// Blocks for its own commits, and while it reads commit headers: per stream a number
    /// logarithmic in its length, or as many as
    /// [`Retention::bytes_max`](crate::options::Retention::bytes_max) keeps. Other commits do not
    /// wait for it. Only one retention or [`Log::compact`] runs at a time. Closing the log stops
    /// it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`]. Other failures are in [`RetainReport::refused`].
    pub fn retain(&self, options: RetainOptions) -> Result<RetainReport> {
        self.0.retain(options)
    }

    /// Closes the log: completes the commits in progress, syncs everything, and gives back
    /// preallocated space. Uncommitted events are lost; handles return [`ErrorKind::Closed`] from
    /// now on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] and [`ErrorKind::StorageFull`] when the last sync failed,
    /// [`ErrorKind::Poisoned`] when an earlier one failed. The log is closed in any case.
    pub fn close(self) -> Result<()> {
        self.0.close()
    }
}

impl ReadView {
    /// Opens the log at `path` for reading only, as it is now. Takes no lock, changes nothing, and
    /// works while another process writes (P12). The view shows acknowledged commits; the findings
    /// of the opening are returned with it. Also opens archive files ([`Log::write_archive`]).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoLog`] when there is no log, [`ErrorKind::UnsupportedVersion`],
    /// [`ErrorKind::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<(Self, RecoveryReport)> {
        ReadOptions::new().open(path)
    }

    /// Opens a log on a simulated disk, like [`ReadView::open`].
    ///
    /// # Errors
    ///
    /// The errors of [`ReadView::open`].
    #[cfg(feature = "sim")]
    pub fn open_on(disk: &crate::disk::SimDisk) -> Result<(Self, RecoveryReport)> {
        ReadOptions::new().open_on(disk)
    }

    /// Opens the log at `path` for reading only, like [`ReadView::open`], and shows all whole
    /// commits, including those after [`RecoveryReport::acknowledged`], which are not known to have
    /// been acknowledged ([`Event::position`](crate::Event::position) tells them apart). A live
    /// writer may still fail to sync them. Without a live writer the view is exactly what the log
    /// shows after its next opening for writing, or after its repair if it needs one
    /// ([`RecoveryReport::needs_repair`]).
    ///
    /// # Errors
    ///
    /// The errors of [`ReadView::open`].
    pub fn open_unconfirmed(path: impl AsRef<Path>) -> Result<(Self, RecoveryReport)> {
        ReadOptions::new().unconfirmed(true).open(path)
    }

    /// Opens a log on a simulated disk, like [`ReadView::open_unconfirmed`].
    ///
    /// # Errors
    ///
    /// The errors of [`ReadView::open`].
    #[cfg(feature = "sim")]
    pub fn open_unconfirmed_on(disk: &crate::disk::SimDisk) -> Result<(Self, RecoveryReport)> {
        ReadOptions::new().unconfirmed(true).open_on(disk)
    }
}
