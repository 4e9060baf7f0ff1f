//! The log's handle: opening, streams, snapshots, closing. Wiring only.

#[cfg(all(test, feature = "sim"))]
mod collecting;
#[cfg(all(test, feature = "sim"))]
mod retaining;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use crate::catalog::{Catalog, LogPlace, Meta, Page, Query, Snapshot, StreamInfo};
use crate::commit::Ticket;
use crate::core::Core;
use crate::disk::{Disk, RealDisk};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::options::{CommitOptions, Options, Privacy, StreamOptions};
use crate::recovery::{self, Survey};
use crate::segment::{DIR, LOCK, UNFINISHED_COPY};
use crate::stream::Stream;
use crate::types::{Status, StreamId, StreamState};
use crate::upkeep::{
    self, ArchiveReport, BackupReport, CollectOptions, CollectReport, MoveReport, RetainOptions,
    RetainReport,
};
use crate::writer::{Active, Full, Ground, Resumed, Writer, Zeroed};

/// A segment must have room for its header and a few commits.
const SEGMENT_BYTES_MIN: u64 = 16 << 10;
/// A segment's places must fit in 29 bits of eight bytes.
const SEGMENT_BYTES_MAX: u64 = 2 << 30;

/// An open log. Cloning it gives another handle on the same log; it closes when the last handle of
/// it and of its streams is gone, or by [`Log::close`], which also tells whether that went well.
#[derive(Clone, Debug)]
pub struct Log(Arc<Core>);

impl Options {
    /// Opens the log at `path` for writing. A log that is not there yet is made by its first commit;
    /// until then nothing at all is on disk (P1).
    ///
    /// Blocks while the unsealed end of the log is replayed: at most [`Options::segment_bytes_max`], plus
    /// the indexes of what is sealed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Locked`] when somebody else writes it, in this process or another;
    /// [`ErrorKind::UnsupportedVersion`] for a newer format; [`ErrorKind::Corrupt`] when the log cannot go
    /// on behind its last segment ([`crate::repair`] can help; other damage is in [`Log::survey`] and stops
    /// nobody); [`ErrorKind::InvalidOption`]; [`ErrorKind::Io`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Log> {
        let path = path.as_ref();
        let disk = RealDisk::new(path, self.privacy == Privacy::Readable);
        open_on(Arc::new(disk), self, path.to_owned())
    }

    /// As [`Options::open`], on a simulated disk.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    #[cfg(feature = "sim")]
    pub fn open_on(self, disk: &crate::disk::SimDisk) -> Result<Log> {
        open_on(Arc::new(disk.clone()), self, PathBuf::new())
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
        if self.ring_bytes_max == 0 || self.memory_bytes_max == 0 {
            return wrong("ring_bytes_max and memory_bytes_max must not be 0");
        }
        Ok(())
    }
}

fn open_on(disk: Arc<dyn Disk>, options: Options, path: PathBuf) -> Result<Log> {
    options.check()?;
    let failed = |path: &str| {
        let place = Place { path: path.into(), segment: None, offset: None };
        move |error| Error::io("open", place, error)
    };
    let mut catalog = Catalog::new();
    let mut survey = Survey::default();
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
        match recovery::open(&*disk, &options)? {
            Some(opened) => {
                catalog = opened.catalog;
                survey = opened.survey;
                resumed = Some((opened.tail, lock));
            }
            // A log whose first commit never happened: it is made as if nothing were there.
            None => drop(lock),
        }
    }
    catalog.lies_on(Arc::clone(&disk));
    let catalog = Arc::new(catalog);
    let ground =
        Ground { disk: Arc::clone(&disk), catalog: Arc::clone(&catalog), options: options.clone() };
    let writer = match resumed {
        None => Writer::fresh(Arc::new(ground)),
        Some((tail, lock)) => Writer::resumed(Arc::new(ground), resume(tail, lock)),
    };
    let core = Arc::new(Core::new(disk, catalog, writer, options, survey, path));
    core.keep_house_in_background();
    Ok(Log(core))
}

fn resume(tail: recovery::Tail, lock: crate::disk::LockGuard) -> Resumed {
    Resumed {
        log_id: tail.segment.header.log_id,
        active: Active {
            segment: tail.segment,
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
            .map(|(segment, end, last_position)| Full { segment, end, last_position })
            .collect(),
    }
}

impl Log {
    /// Opens the log at `path` with the default options; see [`Options::open`].
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// The options, to choose before opening.
    #[must_use]
    pub fn options() -> Options {
        Options::new()
    }

    /// A new stream: an id, and a ring that takes memory as it fills. Nothing is on disk (P1).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`].
    pub fn stream(&self) -> Result<Stream> {
        self.stream_with(&StreamOptions::new())
    }

    /// A new stream that differs from the log's defaults, or has a name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NameTaken`] when a living stream has the name, committed or not;
    /// [`ErrorKind::InvalidName`]; [`ErrorKind::InvalidOption`]; [`ErrorKind::Closed`].
    pub fn stream_with(&self, options: &StreamOptions) -> Result<Stream> {
        self.0.check_open("stream")?;
        Stream::create(Arc::clone(&self.0), options)
    }

    /// A handle to a durable stream, to go on writing it. It takes the time of a look into memory, however
    /// long the stream is. Its commits are checked against the head that it sees now (P8).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownStream`]; [`ErrorKind::NotMaterialized`] when the stream has only a volatile
    /// handle elsewhere in this process; [`ErrorKind::Closed`].
    pub fn resume(&self, id: StreamId) -> Result<Stream> {
        self.resume_with(id, &StreamOptions::new())
    }

    /// As [`Log::resume`], with a ring of its own kind. The options must not name the stream.
    ///
    /// # Errors
    ///
    /// As [`Log::resume`], and [`ErrorKind::InvalidOption`].
    pub fn resume_with(&self, id: StreamId, options: &StreamOptions) -> Result<Stream> {
        self.0.check_open("resume")?;
        Stream::resume(&self.0, id, options)
    }

    /// Commits several streams at once: one marker, all or nothing (P4). Streams with nothing buffered
    /// take no part.
    pub fn commit_all<'a>(&self, streams: impl IntoIterator<Item = &'a mut Stream>) -> Ticket {
        self.commit_all_with(streams, CommitOptions::new())
    }

    /// As [`Log::commit_all`], with options.
    pub fn commit_all_with<'a>(
        &self,
        streams: impl IntoIterator<Item = &'a mut Stream>,
        options: CommitOptions,
    ) -> Ticket {
        Stream::commit_all(&self.0, streams, options)
    }

    /// Where a stream stands, as far as this process knows.
    #[must_use]
    pub fn status(&self, id: StreamId) -> Status {
        // First: what is not volatile any more is committed, and the snapshot shows it.
        let is_volatile = self.0.volatile.pin().contains_key(&id);
        match self.snapshot().view(id).map(|view| view.state()) {
            Some(StreamState::Active) => Status::Durable,
            Some(StreamState::Archived) => Status::Archived,
            Some(StreamState::Deleted) => Status::Deleted,
            None if is_volatile => Status::Volatile,
            None => Status::Unknown,
        }
    }

    /// What is committed now, to list and to read.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(Arc::clone(&self.0.catalog))
    }

    /// A page of streams, as they are now. See [`Snapshot::list`]; this one can also list volatile streams.
    #[must_use]
    pub fn list(&self, query: &Query) -> Page {
        if !query.wants_volatile() {
            return self.snapshot().list(query);
        }
        let volatile: Vec<_> = {
            let known = self.0.volatile.pin();
            known.iter().map(|(id, card)| (*id, card.clone())).collect()
        };
        // Afterwards: what is committed meanwhile is in the one or the other, and listed once.
        let snapshot = self.snapshot();
        let hidden = volatile.into_iter().filter(|(id, _)| snapshot.view(*id).is_none());
        let known = hidden.map(|(id, card)| {
            let (meta, state) = match card {
                Some(card) => (card.meta.clone(), card.state),
                None => (Meta::default(), StreamState::Active),
            };
            StreamInfo::volatile(id, meta, state)
        });
        snapshot.list_with(query, known)
    }

    /// What was found when the log was opened: damage, if any, and what an interrupted writer left.
    #[must_use]
    pub fn survey(&self) -> &Survey {
        &self.0.survey
    }

    /// The log's directory, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Bytes that the rings of all streams, and commits in flight, hold now.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.0.budget.used()
    }

    #[cfg(feature = "json")]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0
    }

    /// Backs the log up into another directory while commits go on: the backup is a log that was closed at
    /// [`BackupReport::position`], the last commit that is visible now, and is durable when this returns.
    ///
    /// `target` must not be there, or be empty. Until the backup is finished it is refused as
    /// [`ErrorKind::UnfinishedBackup`]; one that failed stays there like this and has to be removed. Where the file
    /// system can do that, sealed segments are not copied: the backup shares their blocks, as clones or as further
    /// names of the same file. A backup that is to survive the disk has to be on another.
    ///
    /// Blocks while the rest is copied and synced; commits do not wait for it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotEmpty`]; [`ErrorKind::StorageFull`]; [`ErrorKind::Io`]; [`ErrorKind::Closed`].
    pub fn backup(&self, target: impl AsRef<Path>) -> Result<BackupReport> {
        let _alone = self.0.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.check_open("backup")?;
        upkeep::backup_open(&*self.0.disk, &self.snapshot(), target.as_ref())
    }

    /// Writes a stream, as it is committed now, to a file of its own: all that it shows, what it shares with others
    /// included, and what is said of it. The file can be read anywhere, alone, by [`Snapshot::open`] and the command line.
    /// It lies at [`StreamId::archive_path`] and takes the place of an earlier one; it is durable when this returns. The
    /// stream stays in the log, unless it has moved before ([`Log::move_archived`]): then it moves again, to this file.
    ///
    /// Blocks while the stream is read and written.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownStream`]; [`ErrorKind::Deleted`]; [`ErrorKind::Corrupt`], [`ErrorKind::ArchiveMissing`] and
    /// [`ErrorKind::WrongArchive`] when not all of it can be read: then nothing is written; [`ErrorKind::Conflict`] when
    /// one that has moved is written meanwhile; [`ErrorKind::StorageFull`]; [`ErrorKind::Io`]; [`ErrorKind::Closed`].
    pub fn write_archive(&self, stream: StreamId) -> Result<ArchiveReport> {
        self.0.write_archive(stream)
    }

    /// Moves archived streams to files of their own, those that are not there yet: each is written to
    /// [`StreamId::archive_path`], as by [`Log::write_archive`], and a commit says that it is read from there from now on.
    /// Its events are given back in the segments by the next [`Log::collect`], but for what forks share that were made
    /// before; forks that are made later share the file.
    ///
    /// Who reads the stream notices nothing, as long as the file is there; without it, or with another in its place, this
    /// stream alone answers [`ErrorKind::ArchiveMissing`] or [`ErrorKind::WrongArchive`] for what is in it. To unarchive the
    /// stream copies nothing: what is committed then goes to the segments, and everything to a new file when it was
    /// archived again. By position ([`Snapshot::read_all`]) what was moved and collected is shown no more.
    ///
    /// Blocks while streams are read and written; commits do not wait for it. With [`crate::Collect::Background`] a thread
    /// of the log's own does it for streams that take 64 KiB or more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`]; [`ErrorKind::Poisoned`]. Why single streams did not move is in [`MoveReport::refused`].
    pub fn move_archived(&self) -> Result<MoveReport> {
        self.0.move_archived(LogPlace::default(), 0)
    }

    /// Gives back the space of what nobody wants any more: segments that are mostly dead are rewritten without it.
    ///
    /// Commits keep their positions. Snapshots that were taken before go on reading what they show; its space is free
    /// when they are gone. What cannot be read is left alone and told in [`CollectReport::refused`].
    ///
    /// Blocks while segments are read and written; commits do not wait for it, but share the disk with it. One
    /// collects at a time. Closing the log stops it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`]; [`ErrorKind::Poisoned`], [`ErrorKind::StorageFull`] and [`ErrorKind::Io`] when the disk cannot be
    /// made to prove what was acknowledged: then nothing was collected.
    pub fn collect(&self, options: CollectOptions) -> Result<CollectReport> {
        self.0.collect(options)
    }

    /// Forgets what the log's options do not keep ([`Options::retain`], [`Options::retain_label`]): the oldest events of
    /// streams that are over a bound are trimmed, streams that were idle for too long are deleted. The space is
    /// given back by [`Log::collect`].
    ///
    /// Up to 256 streams go in one commit, together or not at all, and as durably as the log's options say. A stream
    /// that somebody else moves meanwhile is left for the next time. Of a log that is damaged nothing is forgotten.
    ///
    /// Blocks while the heads of some commits are read, for each stream a logarithm of its length, or as many as
    /// [`Retention::bytes_max`](crate::Retention::bytes_max) keeps; and for its own commits. Others do not wait for it.
    /// One works at a time, and not beside [`Log::collect`]. Closing the log stops it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`]. What else goes wrong is in [`RetainReport::refused`].
    pub fn retain(&self, options: RetainOptions) -> Result<RetainReport> {
        self.0.retain(options)
    }

    /// Closes the log: commits that were asked for are finished, everything is synced, space that was kept
    /// ready is given back. What is buffered and was not committed is gone with its handles; they answer
    /// [`ErrorKind::Closed`] from now on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] and [`ErrorKind::StorageFull`] when the last sync failed, [`ErrorKind::Poisoned`] when
    /// an earlier one had. The log is closed in any case.
    pub fn close(self) -> Result<()> {
        self.0.close()
    }
}

impl Snapshot {
    /// Opens the log at `path` for reading only, as it stands now: takes no lock, changes nothing, and works
    /// while another process writes (P12). It shows what was acknowledged, and says what it found. An archive file
    /// ([`Log::write_archive`]) is opened in the same way.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoLog`] when there is none, [`ErrorKind::UnsupportedVersion`], [`ErrorKind::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<(Self, Survey)> {
        recovery::open_read_at(path.as_ref())
    }

    /// As [`Snapshot::open`], on a simulated disk.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::open`].
    #[cfg(feature = "sim")]
    pub fn open_on(disk: &crate::disk::SimDisk) -> Result<(Self, Survey)> {
        recovery::open_read(Arc::new(disk.clone()))
    }
}
