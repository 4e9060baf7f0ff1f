//! One segment of a log: its identity, its state, and reads of its bytes.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use super::commits::CommitIndex;
use super::files::{path, place};
use super::kept::KeptFile;
use super::pool::{FilePool, OpenRefs};
use super::sealed::Sealed;
use super::window::Window;
use crate::disk::{Disk, DiskFile, IoResultExt, Pin, Pinned, Unread};
use crate::error::{Error, Place, Result};
use crate::failures::Failures;
use crate::format::SegmentHeader;
use crate::index::{ActiveIndex, BatchRef, NONE, StreamBatches, pack};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicU64;
use crate::types::{StreamId, range_len};

/// Maximum length of a read that does not check the length of the file first, in bytes.
const READ_UNCHECKED_BYTES_MAX: u64 = 4 << 20;
/// Maximum length of a buffer that is kept for a read of less than a quarter of it, in bytes.
const BUFFER_KEPT_BYTES_MAX: usize = 256 << 10;

/// One segment of a log, active or sealed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) first_position: u64,
    /// Places and times of its commits, by block.
    pub(crate) commits: CommitIndex,
    /// Open files of its readers.
    pub(super) refs: Arc<OpenRefs>,
    /// Its file, held while the log writes it.
    held: ArcSwapOption<HeldFile>,
    pub(super) active: ArcSwapOption<ActiveIndex>,
    pub(super) sealed: OnceLock<Sealed>,
    /// Path of its file, if it lies outside a log.
    alone_at: OnceLock<Box<str>>,
    /// Second name of its file, once another segment took its place.
    pub(super) kept: OnceLock<KeptFile>,
    /// First node of every branch in the chain and the branch's generation, needed only for
    /// sealing.
    pub(super) firsts: Mutex<Vec<(StreamId, u32, u32)>>,
    /// Length of the commit that was read last, in bytes: a guess for the next one.
    pub(crate) usual_bytes: AtomicU64,
    /// Remainder that a compaction measured last, with a digest of the batches that were dead then.
    pub(crate) measured: Mutex<Option<(u64, Left)>>,
}

/// Remainder of a segment after a compaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// Size of the remaining commits in bytes.
    pub(crate) bytes: u64,
    /// True if everything remains.
    pub(crate) is_all: bool,
}

#[derive(Debug)]
struct HeldFile(Arc<dyn DiskFile>);

/// Source of the bytes of a segment.
enum Bytes {
    Mapped(Pin),
    File(Arc<dyn DiskFile>),
}

impl Segment {
    fn new(header: SegmentHeader, first_position: u64, commits: CommitIndex) -> Self {
        Self {
            header,
            first_position,
            commits,
            refs: Arc::default(),
            held: ArcSwapOption::empty(),
            active: ArcSwapOption::empty(),
            sealed: OnceLock::new(),
            alone_at: OnceLock::new(),
            kept: OnceLock::new(),
            firsts: Mutex::default(),
            usual_bytes: AtomicU64::new(0),
            measured: Mutex::default(),
        }
    }

    /// Creates a segment that is not sealed.
    pub(crate) fn active(header: SegmentHeader, first_position: u64) -> Self {
        let segment = Self::new(header, first_position, CommitIndex::new());
        segment.active.store(Some(Arc::new(ActiveIndex::new())));
        segment
    }

    pub(crate) fn sealed(header: SegmentHeader, sealed: Sealed) -> Self {
        let commits = CommitIndex::sealed(sealed.times);
        let segment = Self::new(header, sealed.first_position, commits);
        let _ = segment.sealed.set(sealed);
        segment
    }

    /// Holds its file open for writing.
    pub(crate) fn hold(&self, file: Arc<dyn DiskFile>) {
        self.held.store(Some(Arc::new(HeldFile(file))));
    }

    /// Releases its file; readers open it on demand from now on.
    pub(crate) fn let_go(&self) {
        self.held.store(None);
    }

    pub(crate) fn held_file(&self) -> Option<Arc<dyn DiskFile>> {
        self.held.load().as_ref().map(|held| Arc::clone(&held.0))
    }

    pub(crate) fn number(&self) -> u32 {
        self.header.number
    }

    /// Gives the segment's file a second name before the first is removed. The name lasts until no
    /// reader can ask for this segment.
    ///
    /// # Errors
    ///
    /// Fails if the file system does not support hard links, or the disk is full. Nothing has
    /// changed then.
    pub(crate) fn keep_file(
        &self,
        disk: &Arc<dyn Disk>,
        failures: &Arc<Failures>,
    ) -> std::io::Result<()> {
        // A stand-in is never read.
        if self.kept.get().is_none() && !self.is_gone() {
            let _ = self.kept.set(KeptFile::link(disk, failures, &self.header)?);
        }
        Ok(())
    }

    /// Reports whether the segment is sparse: its commits keep their positions, and others between
    /// them were compacted away.
    pub(crate) fn is_sparse(&self) -> bool {
        self.header.covers.is_some()
    }

    pub(crate) fn seal_state(&self) -> Option<&Sealed> {
        self.sealed.get()
    }

    /// Sets the path of a file outside a log.
    pub(crate) fn stands_alone_at(&self, path: &str) {
        let _ = self.alone_at.set(path.into());
    }

    /// Returns the path of its file, for messages.
    pub(crate) fn path(&self) -> String {
        let path_in_log = || self.gone_path().unwrap_or_else(|| path(self.number()));
        self.alone_at.get().map_or_else(path_in_log, |path| path.to_string())
    }

    pub(crate) fn place(&self, offset: u64) -> Place {
        match self.alone_at.get() {
            Some(path) => Place { path: (&**path).into(), segment: None, offset: Some(offset) },
            None => Place { path: self.path().into(), ..place(self.number(), offset) },
        }
    }

    pub(crate) fn error(&self, operation: &'static str, offset: u64) -> Error {
        Error::corrupt(operation, self.place(offset))
    }

    /// Returns the error for damage, with the cause if the disk could not read the bytes.
    pub(crate) fn damaged(
        &self,
        operation: &'static str,
        offset: u64,
        unread: Option<&Unread>,
    ) -> Error {
        let error = self.error(operation, offset);
        match unread {
            Some(unread) => error.because(unread.to_string()),
            None => error,
        }
    }

    pub(crate) fn io_error(
        &self,
        operation: &'static str,
        offset: u64,
        source: std::io::Error,
    ) -> Error {
        Error::io(operation, self.place(offset), source)
    }

    /// Returns the current length of its file, in bytes.
    pub(crate) fn file_bytes(&self, pool: &FilePool) -> Result<u64> {
        if let Some(sealed) = self.sealed.get() {
            return Ok(sealed.file_bytes);
        }
        match self.bytes(pool)? {
            Bytes::Mapped(pin) => Ok(pin.len() as u64),
            Bytes::File(file) => file.len().at("read", || self.place(0)),
        }
    }

    /// Returns the current source of its bytes, decided by a single load: the segment may be sealed
    /// between two.
    fn bytes(&self, pool: &FilePool) -> Result<Bytes> {
        // Sealing releases the file last.
        if self.sealed.get().is_none()
            && let Some(file) = self.held_file()
        {
            return Ok(Bytes::File(file));
        }
        let open = self.open(pool)?;
        match (&open.map, &open.file) {
            (Some(pin), _) => Ok(Bytes::Mapped(Arc::clone(pin))),
            (None, Some(file)) => Ok(Bytes::File(Arc::clone(file))),
            (None, None) => Err(self.error("read", 0)),
        }
    }

    /// Reads the bytes at `range`, which must lie in the file. The window is in place if the
    /// segment is sealed and mapped; otherwise it is a buffer that extends to `ahead` bytes, but
    /// not past `end`, the end of the readable bytes. The window records the ranges that the disk
    /// could not read.
    pub(crate) fn read(
        &self,
        pool: &FilePool,
        range: Range<u64>,
        ahead: u64,
        end: u64,
    ) -> Result<Window> {
        self.read_over(pool, None, range, ahead, end)
    }

    /// Reads like [`Segment::read`], reusing the buffer of a used window if no other reader holds
    /// it: its pages are already mapped and warm.
    pub(crate) fn read_over(
        &self,
        pool: &FilePool,
        used: Option<Window>,
        range: Range<u64>,
        ahead: u64,
        end: u64,
    ) -> Result<Window> {
        let file = match self.bytes(pool)? {
            Bytes::File(file) => file,
            Bytes::Mapped(pin) => {
                let bytes = pin.len() as u64;
                if range.end > bytes {
                    return Err(self.error("read", range.start));
                }
                return Ok(Window { pin, start: 0, end: bytes, unread: None });
            }
        };
        let until = range.end.max(range.start.saturating_add(ahead).min(end));
        let wanted = range_len(&(range.start..until));
        if wanted > READ_UNCHECKED_BYTES_MAX {
            // Checked before the allocation, because a damaged length field may ask for any number
            // of bytes.
            if range.end > file.len().at("read", || self.place(range.start))? {
                return Err(self.error("read", range.start));
            }
        }
        let bytes = wanted as usize;
        let mut pin = used.map(|used| used.pin).unwrap_or_default();
        if Arc::get_mut(&mut pin).and_then(Pinned::buffer).is_none() {
            pin = Pin::default();
        }
        let Some(buffer) = Arc::get_mut(&mut pin).and_then(Pinned::buffer) else {
            return Err(self.error("read", range.start));
        };
        if buffer.len() < bytes || buffer.len() / 4 > bytes.max(BUFFER_KEPT_BYTES_MAX) {
            *buffer = vec![0; bytes];
        }
        let path = || self.path();
        let read = pool.read(&*file, path, &mut buffer[..bytes], range.start);
        let (read, unread) = read.at("read", || self.place(range.start))?;
        let end = range.start.saturating_add(read as u64);
        if end < range.end {
            return Err(self.error("read", end));
        }
        Ok(Window { pin, start: range.start, end, unread })
    }

    /// Adds a batch to an active segment; `last` is the newest node of its branch here. Returns the
    /// new node.
    pub(crate) fn note(
        &self,
        (stream, generation): (StreamId, u32),
        last: u32,
        batch: &BatchRef,
    ) -> u32 {
        let active = self.active.load();
        let Some(chain) = &*active else { return NONE };
        let node = chain.push(last, batch.first_seq, pack(batch)).unwrap_or(NONE);
        if last == NONE {
            self.firsts.lock().push((stream, node, generation));
        }
        node
    }

    /// Returns the batches of one stream; its chain runs from `first` to `last` while the segment
    /// is active.
    pub(crate) fn batches(
        &self,
        pool: &FilePool,
        stream: StreamId,
        (first, last): (u32, u32),
    ) -> Result<StreamBatches> {
        loop {
            let active = self.active.load_full();
            match (self.sealed.get(), active) {
                (Some(_), _) => {
                    let footer = self.footer(pool)?;
                    let run = footer.run(stream);
                    return Ok(StreamBatches::Sealed { footer, run });
                }
                (None, Some(chain)) => return Ok(StreamBatches::Active { chain, first, last }),
                // Sealed between the two loads: the seal is stored before the chain is dropped.
                (None, None) => {}
            }
        }
    }
}
