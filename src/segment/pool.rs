//! Pool of open segment files. A bounded number is open at once, however many segments a log has.
//!
//! Segments are opened when they are read. Finding an open file takes no lock. Opening a file is
//! rare: it takes a slot and closes the file that was in it (the second-chance algorithm: a file
//! that was used since the hand last passed stays). Readers that hold a file keep it open.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind as IoKind};
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::{ArcSwapOption, ArcSwapWeak};

use super::Segment;
use crate::disk::{Disk, DiskFile, Pin, Pinned, Unread, is_out_of_files, read_around};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{decode_header, decode_twin, header, trailer};
use crate::index::FooterIndex;
use crate::options::Reads;
use crate::sabotage::{Sabotage, broken};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::types::range_len;

/// Maximum number of open segments for a scan from one end of the log to the other.
pub(crate) const OPEN_SEGMENTS_FEW: usize = 16;
/// Minimum number of slots.
pub(crate) const OPEN_SEGMENTS_MIN: usize = 4;
/// Upper bound on the number of slots, close to the usual limit of mappings per process.
const OPEN_SEGMENTS_LIMIT: usize = 1 << 16;
/// Divisor of the process's descriptor limit: the pool takes this fraction.
const DESCRIPTORS_DIVISOR: u64 = 4;
/// Maximum number of bytes of indexes in memory for segments that are not mapped.
const FOOTER_BYTES_MAX: u64 = 64 << 20;
/// Maximum number of attempts to find a file that a compaction renames.
const ATTEMPTS_MAX: usize = 8;

/// Pool of the open files of a log, and how they are read.
pub(crate) struct FilePool {
    disk: Arc<dyn Disk>,
    reads: Reads,
    /// Requested maximum of open segments, before limits apply.
    asked_max: usize,
    /// Slots, allocated when the first file is opened: most open logs are only written.
    slots: OnceLock<Box<[Slot]>>,
    slots_max: usize,
    /// Index of the next slot to examine.
    hand: AtomicUsize,
    /// Number of bytes of indexes in memory.
    footer_bytes: Arc<AtomicU64>,
    /// Unreadable ranges, by path.
    unread: Mutex<BTreeMap<String, Vec<Range<u64>>>>,
}

/// Slot for an open file. Initialized on first use, because dropping an `ArcSwapWeak` visits every
/// thread, and there are more slots than most logs have segments.
type Slot = OnceLock<ArcSwapWeak<OpenFile>>;

fn is_open(slot: &Slot) -> bool {
    slot.get().is_some_and(|slot| slot.load().strong_count() > 0)
}

/// Open file. It closes once it is evicted and no reader holds it.
pub(crate) struct OpenFile {
    /// File; `None` if it is mapped, which needs no descriptor.
    pub(super) file: Option<Arc<dyn DiskFile>>,
    pub(super) map: Option<Pin>,
    /// Index of a sealed segment, once loaded.
    footer: OnceLock<Arc<FooterIndex>>,
    /// True if it was used since the hand last passed.
    used: AtomicBool,
    /// References of the segment, which lead to this file.
    refs: Weak<OpenRefs>,
    reads: Reads,
    /// Number of bytes of the index in memory, counted in `sum`.
    footer_bytes: AtomicU64,
    sum: Arc<AtomicU64>,
}

/// References to a segment's open files, by read method.
#[derive(Default)]
pub(super) struct OpenRefs {
    mapped: ArcSwapOption<OpenFile>,
    positional: ArcSwapOption<OpenFile>,
}

impl OpenRefs {
    /// Unlinks the open files.
    pub(super) fn clear(&self) {
        self.mapped.store(None);
        self.positional.store(None);
    }

    pub(super) fn of(&self, reads: Reads) -> &ArcSwapOption<OpenFile> {
        match reads {
            Reads::Mapped => &self.mapped,
            Reads::Positional => &self.positional,
        }
    }
}

impl OpenFile {
    /// Marks the file as used.
    #[inline]
    pub(super) fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Unlinks the file, so that it closes when its last reader drops it.
    fn close(self: &Arc<Self>) {
        if let Some(refs) = self.refs.upgrade() {
            let now = refs.of(self.reads);
            let known = now.load();
            if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, self)) {
                now.compare_and_swap(&known, None);
            }
        }
    }

    /// Returns the index of this sealed segment.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if the index is damaged; [`ErrorKind::Io`].
    #[inline]
    pub(super) fn footer(&self, segment: &Segment, pool: &FilePool) -> Result<Arc<FooterIndex>> {
        match self.footer.get() {
            Some(footer) => Ok(Arc::clone(footer)),
            None => self.find_footer(segment, pool),
        }
    }

    #[cold]
    fn find_footer(&self, segment: &Segment, pool: &FilePool) -> Result<Arc<FooterIndex>> {
        let Some(sealed) = segment.seal_state() else { return Err(corrupt_index(segment, None)) };
        let salt = segment.header.salt;
        let (found, unread) = match &self.map {
            Some(pin) => {
                let footer = sealed.footer_at as usize..pin.len().saturating_sub(trailer::BYTES);
                (FooterIndex::open(Arc::clone(pin), footer, salt), None)
            }
            None => {
                let (bytes, unread) = self.read_footer(segment, pool)?;
                let end = bytes.len();
                (FooterIndex::open(Arc::new(Pinned::Buffer(bytes)), 0..end, salt), unread)
            }
        };
        let footer = Arc::new(found.ok_or_else(|| corrupt_index(segment, unread.as_deref()))?);
        let read = range_len(&(sealed.footer_at..sealed.file_bytes));
        let bytes = if self.map.is_some() { 0 } else { read };
        // Counted outside the cell: a thread that a model checker suspends inside its initializer
        // would block all others.
        if self.footer.set(Arc::clone(&footer)).is_ok() {
            self.footer_bytes.store(bytes, Ordering::Relaxed);
            self.sum.fetch_add(bytes, Ordering::Relaxed);
        }
        pool.bound_footers(self);
        Ok(self.footer.get().map_or(footer, Arc::clone))
    }

    /// Reads the bytes of the index, as far as the file has them.
    fn read_footer(
        &self,
        segment: &Segment,
        pool: &FilePool,
    ) -> Result<(Vec<u8>, Option<Arc<Unread>>)> {
        let (Some(sealed), Some(file)) = (segment.seal_state(), &self.file) else {
            return Err(corrupt_index(segment, None));
        };
        let at = sealed.footer_at;
        let end = sealed.file_bytes.saturating_sub(trailer::BYTES as u64);
        let mut bytes = vec![0; end.saturating_sub(at) as usize];
        let read = pool.read(&**file, || segment.path(), &mut bytes, at);
        let (read, unread) = read.map_err(|error| segment.io_error("open", at, error))?;
        bytes.truncate(read);
        Ok((bytes, unread))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.footer_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl FilePool {
    pub(crate) fn new(disk: Arc<dyn Disk>, reads: Reads, open_segments_max: usize) -> Arc<Self> {
        let mut slots = open_segments_max.min(OPEN_SEGMENTS_LIMIT);
        if let (Reads::Positional, Some(files)) = (reads, disk.open_files_max()) {
            slots = slots.min(usize::try_from(files / DESCRIPTORS_DIVISOR).unwrap_or(usize::MAX));
        }
        Arc::new(Self {
            disk,
            reads,
            asked_max: open_segments_max,
            slots: OnceLock::new(),
            slots_max: slots.max(OPEN_SEGMENTS_MIN),
            hand: AtomicUsize::new(0),
            footer_bytes: Arc::default(),
            unread: Mutex::default(),
        })
    }

    /// Returns a separate pool for a short scan: it maps nothing, and closes its files when
    /// dropped. A scan from segment to segment needs few open segments; one from stream to stream
    /// needs as many as possible.
    pub(crate) fn beside(&self, open_segments_max: usize) -> Arc<Self> {
        let open_segments_max = open_segments_max.min(self.asked_max);
        Self::new(Arc::clone(&self.disk), Reads::Positional, open_segments_max)
    }

    fn slots(&self) -> &[Slot] {
        self.slots.get_or_init(|| (0..self.slots_max).map(|_| Slot::new()).collect())
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(crate) fn reads(&self) -> Reads {
        self.reads
    }

    /// Returns the maximum number of open segments.
    pub(crate) fn open_segments_max(&self) -> usize {
        self.slots_max
    }

    /// Reads up to the end of the file. Skips and records ranges that the disk cannot read.
    pub(crate) fn read(
        &self,
        file: &dyn DiskFile,
        path: impl FnOnce() -> String,
        bytes: &mut [u8],
        offset: u64,
    ) -> io::Result<(usize, Option<Arc<Unread>>)> {
        let mut unread = Unread::default();
        let read = read_around(file, bytes, offset, &mut unread)?;
        if unread.ranges.is_empty() {
            return Ok((read, None));
        }
        self.note_unread(path(), &unread.ranges);
        Ok((read, Some(Arc::new(unread))))
    }

    fn note_unread(&self, path: String, ranges: &[Range<u64>]) {
        let mut all = self.unread.lock();
        let known = all.entry(path).or_default();
        known.extend(ranges.iter().cloned());
        known.sort_unstable_by_key(|range| range.start);
        known.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
    }

    /// Returns all ranges that the disk could not read so far, sorted, by path.
    pub(crate) fn unread(&self) -> BTreeMap<String, Vec<Range<u64>>> {
        self.unread.lock().clone()
    }

    /// Returns the ranges of one file that the disk could not read.
    pub(crate) fn unread_of(&self, path: &str) -> Vec<Range<u64>> {
        let all = self.unread.lock();
        all.get(path).cloned().unwrap_or_default()
    }

    /// Opens a file for reading. If the process is out of descriptors, closes some files of the
    /// pool first.
    pub(crate) fn open_path(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.with_room(|| self.disk.open_read(path))
    }

    fn with_room<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            match open() {
                Err(error) if is_out_of_files(&error) && self.make_room() => {}
                result => return result,
            }
        }
    }

    /// Closes half of the open files. Returns `false` if none was open.
    fn make_room(&self) -> bool {
        let wanted = self.slots().iter().filter(|slot| is_open(slot)).count().div_ceil(2);
        let rounds = self.slots().iter().chain(self.slots());
        rounds.filter(|_| self.put(Weak::new())).take(wanted).count() > 0
    }

    /// Puts a file in the next slot whose file was not used since the hand last passed. Returns
    /// `true` if that file was closed.
    fn put(&self, file: Weak<OpenFile>) -> bool {
        let slots = self.slots();
        // After one full round every file counts as unused.
        for round in 0..=slots.len() {
            let at = self.hand.fetch_add(1, Ordering::Relaxed).checked_rem(slots.len());
            let Some(slot) = at.and_then(|at| slots.get(at)) else { return false };
            let slot = slot.get_or_init(ArcSwapWeak::default);
            let known = slot.load().upgrade();
            let is_used = known.is_some_and(|known| known.used.swap(false, Ordering::Relaxed));
            if is_used && round < slots.len() {
                continue;
            }
            let closed = slot.swap(file).upgrade();
            return closed.is_some_and(|closed| {
                closed.close();
                true
            });
        }
        false
    }

    /// Puts a newly opened file in a slot, so that it is closed eventually.
    pub(super) fn keep(&self, file: &Arc<OpenFile>) {
        if !broken(Sabotage::CloseNothing) {
            self.put(Arc::downgrade(file));
        }
    }

    /// Closes files whose indexes exceed the memory bound, except this one.
    fn bound_footers(&self, wanted: &OpenFile) {
        let bytes_max = FOOTER_BYTES_MAX.max(wanted.footer_bytes.load(Ordering::Relaxed));
        for _ in 0..self.slots_max {
            if self.footer_bytes.load(Ordering::Relaxed) <= bytes_max {
                break;
            }
            wanted.used.store(true, Ordering::Relaxed);
            self.put(Weak::new());
        }
    }

    /// Opens the file of a segment.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Outdated`] if the file does not exist, or another has its name;
    /// [`ErrorKind::Corrupt`] if the bytes that identify it cannot be read; [`ErrorKind::Io`].
    pub(super) fn open(&self, segment: &Segment) -> Result<OpenFile> {
        let held = segment.held_file();
        let file = match &held {
            Some(file) => Arc::clone(file),
            None => self.find(segment)?,
        };
        let mut open = self.not_mapped(segment, file);
        if self.reads == Reads::Mapped {
            self.map(segment, &mut open)?;
        }
        Ok(open)
    }

    /// Returns the open file of a segment; reads are positional until it is mapped.
    fn not_mapped(&self, segment: &Segment, file: Arc<dyn DiskFile>) -> OpenFile {
        OpenFile {
            file: Some(file),
            map: None,
            footer: OnceLock::new(),
            used: AtomicBool::new(true),
            refs: Arc::downgrade(&segment.refs),
            reads: self.reads,
            footer_bytes: AtomicU64::new(0),
            sum: Arc::clone(&self.footer_bytes),
        }
    }

    /// Finds the file of this segment under its current name.
    fn find(&self, segment: &Segment) -> Result<Arc<dyn DiskFile>> {
        let failed = |error| segment.io_error("open", 0, error);
        let mut before = None;
        for _ in 0..ATTEMPTS_MAX {
            let path = segment.path_now();
            if before.as_ref() == Some(&path) {
                break;
            }
            match self.open_path(&path) {
                Ok(file) if self.is_file_of(segment, &*file)? => return Ok(file),
                Err(error) if error.kind() != IoKind::NotFound => return Err(failed(error)),
                _ => before = Some(path),
            }
        }
        Err(outdated(segment))
    }

    /// Opens the file of a segment for writing, after verifying its identity.
    pub(super) fn open_to_write(&self, segment: &Segment) -> Result<Arc<dyn DiskFile>> {
        let path = segment.path();
        let file = self.with_room(|| self.disk.open_write(&path));
        let file = file.map_err(|error| segment.io_error("open", 0, error))?;
        if self.is_file_of(segment, &*file)? { Ok(file) } else { Err(outdated(segment)) }
    }

    /// Reports whether this is the segment's file: another file may have taken its name.
    fn is_file_of(&self, segment: &Segment, file: &dyn DiskFile) -> Result<bool> {
        let failed = |error| segment.io_error("open", 0, error);
        let path = || segment.path();
        // Loaded once, and before the length: the segment may be sealed, and its file cut, at any
        // moment.
        let mut sealed = segment.seal_state();
        let bytes = file.len().map_err(failed)?;
        if broken(Sabotage::LookLate) {
            sealed = segment.seal_state();
        }
        let mut block = [0; header::BLOCK_BYTES];
        if let Some(sealed) = sealed {
            let last = &mut block[..trailer::BYTES];
            let at = bytes.saturating_sub(trailer::BYTES as u64);
            let (_, unread) = self.read(file, path, last, at).map_err(failed)?;
            if unread.is_none()
                && sealed.is_end_of(last, &segment.header)
                && bytes == sealed.file_bytes
            {
                return Ok(true);
            }
        }
        let (read, unread) = self.read(file, path, &mut block, 0).map_err(failed)?;
        match has_salt(&block[..read], segment.header.salt) {
            Some(false) => Ok(false),
            Some(true) if sealed.is_none() => Ok(true),
            // The header is intact, but the index is not at the end.
            _ => Err(corrupt_index(segment, unread.as_deref())),
        }
    }

    /// Maps the file of a sealed segment, if the system allows it.
    fn map(&self, segment: &Segment, open: &mut OpenFile) -> Result<()> {
        let (Some(sealed), Some(file)) = (segment.seal_state(), &open.file) else {
            return Ok(());
        };
        if let Ok(pin) = self.with_room(|| file.map()) {
            if pin.len() as u64 != sealed.file_bytes {
                return Err(corrupt_index(segment, None));
            }
            open.map = Some(pin);
            open.file = None;
        }
        Ok(())
    }
}

/// Reports whether a header block belongs to the segment with this salt; `None` if neither copy is
/// readable. A sector of another segment may stand over one of the copies.
pub(crate) fn has_salt(block: &[u8], salt: u32) -> Option<bool> {
    let first = decode_header(block).ok().map(|(header, _)| header);
    let mut copies = first.into_iter().chain(decode_twin(block)).peekable();
    copies.peek()?;
    Some(copies.any(|header| header.salt == salt))
}

fn outdated(segment: &Segment) -> Error {
    Error::new(ErrorKind::Outdated, "open").at(segment.place(0))
}

/// Returns the error for a damaged index.
fn corrupt_index(segment: &Segment, unread: Option<&Unread>) -> Error {
    let footer_at = segment.seal_state().map_or(0, |sealed| sealed.footer_at);
    segment.damaged("open", footer_at, unread)
}

impl Drop for FilePool {
    fn drop(&mut self) {
        let slots = self.slots.get().into_iter().flatten();
        slots.filter_map(|slot| slot.get()?.load().upgrade()).for_each(|file| file.close());
    }
}

impl std::fmt::Debug for FilePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open = self.slots().iter().filter(|slot| is_open(slot)).count();
        f.debug_struct("FilePool").field("reads", &self.reads).field("open", &open).finish()
    }
}

impl std::fmt::Debug for OpenRefs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_open = |reads| self.of(reads).load().is_some();
        f.debug_struct("OpenRefs")
            .field("mapped", &is_open(Reads::Mapped))
            .field("positional", &is_open(Reads::Positional))
            .finish()
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::disk::{Identity, LockGuard, SimDisk};
    use crate::format::{COMMITS_AT, SegmentHeader};
    use crate::segment::path;

    /// File whose segment is sealed as soon as its length is read.
    #[derive(Debug)]
    struct SealedMeanwhile<'a>(Arc<dyn DiskFile>, &'a Segment, Arc<FilePool>);

    impl DiskFile for SealedMeanwhile<'_> {
        fn len(&self) -> io::Result<u64> {
            let bytes = self.0.len();
            self.1.seal(&self.2, COMMITS_AT, 1).expect("sealed");
            bytes
        }

        fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
            self.0.read_at(bytes, offset)
        }

        fn write_at(&self, slices: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
            self.0.write_at(slices, offset)
        }

        fn set_len(&self, bytes: u64) -> io::Result<()> {
            self.0.set_len(bytes)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }

        fn map(&self) -> io::Result<Pin> {
            self.0.map()
        }

        fn identity(&self) -> Identity {
            self.0.identity()
        }

        fn links(&self) -> io::Result<u64> {
            self.0.links()
        }

        fn lock(self: Arc<Self>) -> io::Result<Option<LockGuard>> {
            Ok(None)
        }

        fn is_forsaken(&self) -> bool {
            self.0.is_forsaken()
        }
    }

    /// Returns an active segment, the second of a log, in a file of 16 KiB.
    fn active_segment() -> (SimDisk, Arc<FilePool>, Segment) {
        let disk = SimDisk::new(1);
        let header = SegmentHeader {
            log_id: [1; 16],
            number: 2,
            reserved_bytes: 16 << 10,
            created_micros: 0,
            salt: 7,
            covers: None,
        };
        let mut bytes = header.encode().to_vec();
        bytes.resize(16 << 10, 0);
        disk.write_file(&path(2), &bytes);
        let pool = FilePool::new(Arc::new(disk.clone()), Reads::Mapped, 16);
        let segment = Segment::active(header, 1);
        (disk, pool, segment)
    }

    #[test]
    fn p6_p12_a_segment_that_is_sealed_while_it_is_opened_is_no_damage() {
        let (_, pool, segment) = active_segment();
        let file = pool.open_path(&path(2)).expect("exists");
        let file = SealedMeanwhile(file, &segment, Arc::clone(&pool));
        assert!(pool.is_file_of(&segment, &file).expect("no damage"));
        assert!(segment.seal_state().is_some());
    }

    /// F44: a file that became shorter after its length was checked is damage; it does not end the
    /// process.
    #[test]
    fn p6_f44_a_file_that_is_cut_before_it_is_mapped_is_damage() {
        let (disk, pool, segment) = active_segment();
        segment.seal(&pool, COMMITS_AT, 1).expect("sealed");
        let path = path(2);
        let file = pool.open_path(&path).expect("exists");
        assert!(pool.is_file_of(&segment, &*file).expect("its file"));
        let whole = disk.files().remove(&path).expect("exists");
        disk.write_file(&path, &whole[..whole.len() - 1]);
        let mut open = pool.not_mapped(&segment, pool.open_path(&path).expect("exists"));
        let error = pool.map(&segment, &mut open).expect_err("too short");
        assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error}");
    }

    #[cfg(amberlog_sabotage)]
    #[test]
    fn control_a_late_look_at_a_segment_is_noticed() {
        let _broken = crate::sabotage::sabotage(Sabotage::LookLate);
        std::panic::catch_unwind(p6_p12_a_segment_that_is_sealed_while_it_is_opened_is_no_damage)
            .expect_err("the control noticed nothing");
    }
}
