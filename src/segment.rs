//! One segment file: how it is named, read, and sealed.
//!
//! It is read with positional reads while it grows and through a mapping once it is sealed, so that no
//! mapped file is ever cut. It knows where its batches are; what they mean is decided above.

mod spare;

use std::io::IoSlice;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;

pub(crate) use self::spare::{Spare, Zero, salt, segment_bytes};
use crate::disk::{
    Disk, DiskFile, Pin, Pinned, prefetch, read_at_most, read_exact_at, write_all_at,
};
use crate::error::{Error, Place, Result};
use crate::format::{
    ALIGN, BatchKind, FooterEntry, SegmentHeader, Trailer, decode_trailer, encode_footer, trailer,
};
use crate::index::{ActiveIndex, BatchRef, Cursor, FooterIndex, NONE, StreamBatches, pack};
use crate::sabotage::{Sabotage, broken};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::StreamId;

/// The directory of the segments, in the log's.
pub(crate) const DIR: &str = "segments";
/// The file whose lock the writing process holds, in the log's directory.
pub(crate) const LOCK: &str = "LOCK";

/// The file that says, in a log's directory, that its backup is not finished.
pub(crate) const UNFINISHED_COPY: &str = "UNFINISHED";
/// Behind the name of a file that is not finished.
pub(crate) const UNFINISHED: &str = ".new";

/// A read of at most so many bytes is tried without asking how long the file is.
const READ_UNCHECKED_BYTES_MAX: u64 = 4 << 20;
/// A buffer that is four times as large is not kept for a smaller read.
const BUFFER_KEPT_BYTES_MAX: usize = 256 << 10;
/// The last segment number that can be: there is always a next one to name.
pub(crate) const NUMBER_MAX: u32 = u32::MAX - 1;

/// The name of a segment's file, in [`DIR`]. Its number, not its first position, so that the next one
/// can lie ready, its name durable, before anybody knows what will go into it.
pub(crate) fn file_name(number: u32) -> String {
    format!("{number:010}.seg")
}

/// The path of a segment's file.
pub(crate) fn path(number: u32) -> String {
    format!("{DIR}/{}", file_name(number))
}

/// What a segment's file is called before its header is durable.
pub(crate) fn unfinished_path(number: u32) -> String {
    format!("{}{UNFINISHED}", path(number))
}

/// Whether this is the name of a file that was never finished.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(UNFINISHED).is_some_and(|name| parse_name(name).is_some())
}

/// Makes a new file, in place of what an interrupted attempt may have left.
pub(crate) fn create_anew(disk: &dyn Disk, path: &str) -> std::io::Result<Arc<dyn DiskFile>> {
    match disk.create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            disk.remove(path)?;
            disk.create(path)
        }
        result => result,
    }
}

/// The number in a segment's file name; strict, so that no foreign file is taken for one.
pub(crate) fn parse_name(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let strict = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok()?;
    (strict && (1..=NUMBER_MAX).contains(&number)).then_some(number)
}

/// A place in the order of all bytes of the log, in one word.
pub(crate) fn place_word(segment: u32, offset: u64) -> u64 {
    (u64::from(segment) << 32) | (offset / ALIGN)
}

/// A place in a segment, for an error.
pub(crate) fn place(number: u32, offset: u64) -> Place {
    Place { path: PathBuf::from(path(number)), segment: Some(number), offset: Some(offset) }
}

/// One segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) first_position: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    active: ArcSwapOption<ActiveIndex>,
    sealed: OnceLock<Sealed>,
    /// Of a sparse segment that was made while the log is open: where its commits stood when the log was opened or
    /// they were written, and where they stand now. What is known of streams goes on naming the former.
    moved: Option<Moved>,
    /// Where its file lies, if that is not where those of a log do.
    alone_at: OnceLock<Box<str>>,
    /// The first node of every stream in the chain; only for sealing.
    firsts: Mutex<Vec<(StreamId, u32)>>,
    /// How long the commit was that somebody read last: a guess of how long the next one is.
    pub(crate) usual_bytes: AtomicU64,
}

/// What is known of a segment that will never change again.
pub(crate) struct Sealed {
    pin: Pin,
    /// One bit for each entry of the footer whose batch was found to be what was written.
    sound: OnceLock<Box<[AtomicU64]>>,
    pub(crate) footer: FooterIndex,
    pub(crate) first_position: u64,
    pub(crate) last_position: u64,
    pub(crate) footer_at: u64,
}

/// Where the commits of a sparse segment stood before.
#[derive(Debug)]
pub(crate) struct Moved {
    /// The number of the first segment that it was made of.
    pub(crate) first: u32,
    /// The place of each commit then, and its offset now.
    pub(crate) places: Vec<(u64, u64)>,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed").field("last_position", &self.last_position).finish_non_exhaustive()
    }
}

impl Segment {
    pub(crate) fn active(
        header: SegmentHeader,
        first_position: u64,
        file: Arc<dyn DiskFile>,
    ) -> Self {
        Self {
            header,
            first_position,
            file,
            active: ArcSwapOption::from_pointee(ActiveIndex::new()),
            sealed: OnceLock::new(),
            moved: None,
            alone_at: OnceLock::new(),
            firsts: Mutex::new(Vec::new()),
            usual_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn sealed(header: SegmentHeader, file: Arc<dyn DiskFile>, sealed: Sealed) -> Self {
        Self {
            header,
            first_position: sealed.first_position,
            file,
            active: ArcSwapOption::empty(),
            sealed: OnceLock::from(sealed),
            moved: None,
            alone_at: OnceLock::new(),
            firsts: Mutex::default(),
            usual_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.header.number
    }

    /// As a sparse segment whose commits stood elsewhere.
    pub(crate) fn moved_from(mut self, moved: Moved) -> Self {
        self.moved = Some(moved);
        self
    }

    /// The first number that places of its commits have, as far as they are known from before.
    pub(crate) fn first_origin(&self) -> u32 {
        self.moved.as_ref().map_or(self.number(), |moved| moved.first)
    }

    /// Where the commit at `offset` stood before segments were collected.
    pub(crate) fn origin(&self, offset: u64) -> u64 {
        let here = place_word(self.number(), offset);
        let Some(moved) = &self.moved else { return here };
        let at = moved.places.binary_search_by_key(&offset, |(_, now)| *now);
        at.ok().and_then(|at| moved.places.get(at)).map_or(here, |(before, _)| *before)
    }

    /// Where the first commit stands that is at this place of the log or behind it; `None` when the place is not in
    /// this segment, nor in those that it was made of.
    pub(crate) fn offset_of(&self, place: u64) -> Option<u64> {
        let number = (place >> 32) as u32;
        if !(self.first_origin()..=self.number()).contains(&number) {
            return None;
        }
        let Some(moved) = &self.moved else { return Some((place & u64::from(u32::MAX)) * ALIGN) };
        let at = moved.places.partition_point(|(before, _)| *before < place);
        Some(moved.places.get(at).map_or(u64::MAX, |(_, now)| *now))
    }

    /// Its commits keep their positions, and others were collected from between them.
    pub(crate) fn is_sparse(&self) -> bool {
        self.header.covers.is_some()
    }

    pub(crate) fn seal_state(&self) -> Option<&Sealed> {
        self.sealed.get()
    }

    /// Its file stands alone, here.
    pub(crate) fn stands_alone_at(&self, path: &str) {
        let _ = self.alone_at.set(path.into());
    }

    pub(crate) fn place(&self, offset: u64) -> Place {
        match self.alone_at.get() {
            Some(path) => Place { path: (&**path).into(), segment: None, offset: Some(offset) },
            None => place(self.number(), offset),
        }
    }

    pub(crate) fn error(&self, operation: &'static str, offset: u64) -> Error {
        Error::corrupt(operation, self.place(offset))
    }

    pub(crate) fn io_error(
        &self,
        operation: &'static str,
        offset: u64,
        source: std::io::Error,
    ) -> Error {
        Error::io(operation, self.place(offset), source)
    }

    /// The bytes at `range`, which must lie in the file: in place when sealed, else in a buffer of at
    /// least `ahead` bytes, as far as `end` (where what may be read ends) allows.
    pub(crate) fn read(&self, range: Range<u64>, ahead: u64, end: u64) -> Result<Window> {
        self.read_over(None, range, ahead, end)
    }

    /// The same, into the buffer of a window that was used, if nobody else holds it: it is warm, and no page of
    /// it has to be made.
    pub(crate) fn read_over(
        &self,
        used: Option<Window>,
        range: Range<u64>,
        ahead: u64,
        end: u64,
    ) -> Result<Window> {
        if let Some(sealed) = self.sealed.get() {
            let bytes = (*sealed.pin).as_ref().len() as u64;
            if range.end > bytes {
                return Err(self.error("read", range.start));
            }
            let pin = Arc::clone(&sealed.pin);
            return Ok(Window { pin, start: 0, end: bytes });
        }
        let until = range.end.max(range.start.saturating_add(ahead).min(end));
        if until - range.start > READ_UNCHECKED_BYTES_MAX {
            // Nothing that a damaged length says is allocated before the file is known to be so long.
            let failed = |error| self.io_error("read", range.start, error);
            if range.end > self.file.len().map_err(failed)? {
                return Err(self.error("read", range.start));
            }
        }
        let bytes = (until - range.start) as usize;
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
        let read = match read_at_most(&*self.file, &mut buffer[..bytes], range.start) {
            Err(_) if broken(Sabotage::ReadErrorIsEnd) => {
                buffer.fill(0);
                bytes
            }
            result => result.map_err(|error| self.io_error("read", range.start, error))?,
        };
        if (read as u64) < range.end - range.start {
            return Err(self.error("read", range.start + read as u64));
        }
        let end = range.start + read as u64;
        Ok(Window { pin, start: range.start, end })
    }

    /// Whether the batch here was found to be what was written since the segment was opened. A segment that may still
    /// grow does not remember.
    pub(crate) fn is_known_sound(&self, at: Cursor) -> bool {
        let bits = self.sealed.get().and_then(|sealed| sealed.sound.get());
        let word = bits.and_then(|bits| bits.get(at.entry() as usize / 64));
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (at.entry() % 64) & 1 == 1)
    }

    /// Notes that the batch here is what was written.
    pub(crate) fn note_sound(&self, at: Cursor) {
        let Some(sealed) = self.sealed.get() else { return };
        let words = || (0..sealed.footer.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        if let Some(word) = sealed.sound.get_or_init(words).get(at.entry() as usize / 64) {
            let bit = 1 << (at.entry() % 64);
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// Has the bytes at `range` fetched, as far as they lie in memory and there are any: they will be read soon.
    pub(crate) fn prefetch(&self, range: Range<u64>) {
        if let Some(sealed) = self.sealed.get() {
            let bytes = (*sealed.pin).as_ref();
            let end = bytes.len().min(range.end as usize);
            prefetch(bytes.get(range.start as usize..end).unwrap_or_default());
        }
    }

    /// Notes a batch of an active segment; `last` is the stream's newest node here. Returns the new one.
    pub(crate) fn note(&self, stream: StreamId, last: u32, batch: &BatchRef) -> u32 {
        let active = self.active.load();
        let Some(chain) = &*active else { return NONE };
        let node = chain.push(last, batch.first_seq, pack(batch)).unwrap_or(NONE);
        if last == NONE {
            self.firsts.lock().unwrap_or_else(PoisonError::into_inner).push((stream, node));
        }
        node
    }

    /// The batches of one stream, whose chain runs from `first` to `last` while the segment is active.
    pub(crate) fn batches(&self, stream: StreamId, first: u32, last: u32) -> StreamBatches {
        let active = self.active.load_full();
        match (self.sealed.get(), active) {
            (Some(sealed), _) => {
                let footer = sealed.footer.clone();
                let run = footer.run(stream);
                StreamBatches::Sealed { footer, run }
            }
            (None, Some(chain)) => StreamBatches::Active { chain, first, last },
            // Sealed between the two looks: the seal is stored before the chain is dropped.
            (None, None) => self.batches(stream, first, last),
        }
    }

    /// Writes footer and trailer behind `end`, the end of the last commit, cuts the file there, syncs
    /// it, and maps it. Nothing before `end` is touched.
    pub(crate) fn seal(&self, end: u64, last_position: u64) -> Result<()> {
        let trailer = Trailer {
            log_id: self.header.log_id,
            number: self.number(),
            first_position: self.first_position,
            last_position,
            footer_at: end,
            salt: self.header.salt,
        };
        let bytes = encode_footer(&self.footer_entries(), &trailer);
        let failed = |error| self.io_error("seal", end, error);
        write_all_at(&*self.file, &mut [IoSlice::new(&bytes)], end).map_err(failed)?;
        self.file.set_len(end + bytes.len() as u64).map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        let sealed = Sealed::open(&self.header, &*self.file)
            .map_err(failed)?
            .ok_or_else(|| self.error("seal", end))?;
        let _ = self.sealed.set(sealed);
        self.active.store(None);
        self.firsts.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    fn footer_entries(&self) -> Vec<FooterEntry> {
        let Some(chain) = self.active.load_full() else {
            return Vec::new();
        };
        let mut firsts = self.firsts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        firsts.sort_unstable();
        let mut entries = Vec::new();
        for (stream, first) in firsts {
            let list = StreamBatches::Active { chain: Arc::clone(&chain), first, last: u32::MAX };
            let mut at = list.first();
            while let Some(cursor) = at {
                entries.extend(list.get(cursor).map(|batch| FooterEntry {
                    stream: *stream.as_bytes(),
                    first_seq: batch.first_seq,
                    count: batch.count,
                    offset: batch.offset,
                    kind: batch.kind,
                }));
                at = list.next(cursor);
            }
        }
        entries
    }
}

impl Sealed {
    /// How long the file is.
    pub(crate) fn file_bytes(&self) -> u64 {
        (*self.pin).as_ref().len() as u64
    }

    /// Looks for a seal at the end of the file. `None`: not sealed, or not as it was written.
    pub(crate) fn open(
        header: &SegmentHeader,
        file: &dyn DiskFile,
    ) -> std::io::Result<Option<Self>> {
        let bytes = file.len()?;
        let Some(at) = bytes.checked_sub(trailer::BYTES as u64) else {
            return Ok(None);
        };
        let mut last = [0; trailer::BYTES];
        read_exact_at(file, &mut last, at)?;
        let Some(end) = decode_trailer(&last, header) else {
            return Ok(None);
        };
        if end.footer_at < crate::format::COMMITS_AT || end.footer_at > at {
            return Ok(None);
        }
        let pin = file.map()?;
        let range = end.footer_at as usize..at as usize;
        let footer = FooterIndex::open(Arc::clone(&pin), range, header.salt);
        Ok(footer.map(|footer| Self {
            pin,
            sound: OnceLock::new(),
            footer,
            first_position: end.first_position,
            last_position: end.last_position,
            footer_at: end.footer_at,
        }))
    }
}

/// A part of a segment that is held in memory or in place.
pub(crate) struct Window {
    pin: Pin,
    /// Where in the file the pin starts and ends.
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Window {
    /// The bytes of the file at `range`, when this window holds them.
    pub(crate) fn get(&self, range: Range<u64>) -> Option<&[u8]> {
        if range.start < self.start || range.end > self.end || range.start > range.end {
            return None;
        }
        let at = (range.start - self.start) as usize;
        (*self.pin).as_ref().get(at..at + (range.end - range.start) as usize)
    }

    /// The same bytes, pinned: where in the pin they are.
    pub(crate) fn pinned(&self, range: Range<u64>) -> Option<(Pin, Range<usize>)> {
        let bytes = self.get(range.clone())?.len();
        let at = (range.start - self.start) as usize;
        Some((Arc::clone(&self.pin), at..at + bytes))
    }
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Window({}..{})", self.start, self.end)
    }
}

/// The segments of a log, by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct SegmentSet {
    list: Vec<Arc<Segment>>,
    age: Age,
}

/// Held by the sets of segments of a time, and so by the snapshots that were taken in it.
pub(crate) type Age = Arc<()>;

impl SegmentSet {
    /// The segment of this number, or the sparse one that what was left of it went to.
    pub(crate) fn get(&self, number: u32) -> Option<&Arc<Segment>> {
        let at = self.list.partition_point(|segment| segment.number() < number);
        self.list.get(at).filter(|segment| segment.number() == number || segment.is_sparse())
    }

    /// As this, with one segment in the place of those that it covers.
    pub(crate) fn with_sparse(&self, sparse: Arc<Segment>) -> Self {
        let gone = |one: &Segment| {
            one.number() <= sparse.number() && one.first_position >= sparse.first_position
        };
        let kept = self.list.iter().filter(|segment| !gone(segment)).cloned();
        Self { list: kept.collect(), age: Arc::clone(&self.age) }.with(sparse)
    }

    /// As this, of another age.
    pub(crate) fn in_age(&self, age: &Age) -> Self {
        Self { list: self.list.clone(), age: Arc::clone(age) }
    }

    pub(crate) fn age(&self) -> &Age {
        &self.age
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> {
        self.list.iter()
    }

    pub(crate) fn with(&self, segment: Arc<Segment>) -> Self {
        let mut all = self.list.clone();
        let at = all.partition_point(|one| one.number() < segment.number());
        all.insert(at, segment);
        Self { list: all, age: Arc::clone(&self.age) }
    }

    /// The segment in which the commit of this position would be.
    pub(crate) fn of_position(&self, position: u64) -> Option<&Arc<Segment>> {
        let at = self.list.partition_point(|one| one.first_position <= position);
        self.list.get(at.checked_sub(1)?)
    }

    pub(crate) fn after(&self, number: u32) -> Option<&Arc<Segment>> {
        self.list.get(self.list.partition_point(|one| one.number() <= number))
    }
}

impl BatchRef {
    /// The seq behind the batch, for the kinds that take up seqs. A gap's length is in its bytes.
    pub(crate) fn end_seq(&self) -> u64 {
        match self.kind {
            BatchKind::Events | BatchKind::Gap => {
                self.first_seq.saturating_add(u64::from(self.count))
            }
            BatchKind::Catalog | BatchKind::Fork | BatchKind::Rewind | BatchKind::CommitId => {
                self.first_seq
            }
        }
    }
}
