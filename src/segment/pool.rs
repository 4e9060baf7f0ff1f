//! Pool of open segment files. A bounded number is open at once, however many segments a log has.
//!
//! Segments are opened when they are read. Finding an open file takes no lock. Opening a file is
//! rare: it locks a slot and closes the file that was in it (the second-chance algorithm: a file
//! that was used since the hand last passed stays). Readers that hold a file keep it open.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwapOption;

use crate::disk::{Disk, DiskFile, Pin, Unread, is_out_of_files, read_around};
use crate::index::FooterIndex;
use crate::options::Reads;
use crate::sabotage::{Sabotage, broken};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

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

/// Slot for an open file. It is locked, not swapped: `arc_swap` tells borrowed pointers apart by
/// address alone, so a weak one must not share an allocation with the strong one in [`OpenRefs`].
type Slot = Mutex<Weak<OpenFile>>;

fn is_open(slot: &Slot) -> bool {
    slot.lock().strong_count() > 0
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

    /// Returns its index, if it is loaded.
    #[inline]
    pub(super) fn footer(&self) -> Option<&Arc<FooterIndex>> {
        self.footer.get()
    }

    /// Keeps its index, unless another thread has loaded it meanwhile; `bytes` of it are in memory
    /// on its account.
    pub(super) fn keep_footer(&self, footer: Arc<FooterIndex>, bytes: u64) {
        // Counted outside the cell: a thread that a model checker suspends inside its initializer
        // would block all others.
        if self.footer.set(footer).is_ok() {
            self.footer_bytes.store(bytes, Ordering::Relaxed);
            self.sum.fetch_add(bytes, Ordering::Relaxed);
        }
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
        self.slots.get_or_init(|| (0..self.slots_max).map(|_| Slot::default()).collect())
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
            let known = slot.lock().upgrade();
            let is_used = known.is_some_and(|known| known.used.swap(false, Ordering::Relaxed));
            if is_used && round < slots.len() {
                continue;
            }
            let closed = std::mem::replace(&mut *slot.lock(), file);
            return closed.upgrade().is_some_and(|closed| {
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

    /// Returns an open file of the segment with these references; reads are positional until it is
    /// mapped.
    pub(super) fn open_file(&self, file: Arc<dyn DiskFile>, refs: &Arc<OpenRefs>) -> OpenFile {
        OpenFile {
            file: Some(file),
            map: None,
            footer: OnceLock::new(),
            used: AtomicBool::new(true),
            refs: Arc::downgrade(refs),
            reads: self.reads,
            footer_bytes: AtomicU64::new(0),
            sum: Arc::clone(&self.footer_bytes),
        }
    }

    /// Opens a file for writing, like [`FilePool::open_path`].
    pub(super) fn open_path_to_write(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.with_room(|| self.disk.open_write(path))
    }

    /// Maps an open file.
    pub(super) fn map(&self, file: &dyn DiskFile) -> io::Result<Pin> {
        self.with_room(|| file.map())
    }

    /// Closes files whose indexes exceed the memory bound, except this one.
    pub(super) fn bound_footers(&self, wanted: &OpenFile) {
        let bytes_max = FOOTER_BYTES_MAX.max(wanted.footer_bytes.load(Ordering::Relaxed));
        for _ in 0..self.slots_max {
            if self.footer_bytes.load(Ordering::Relaxed) <= bytes_max {
                break;
            }
            wanted.used.store(true, Ordering::Relaxed);
            self.put(Weak::new());
        }
    }
}

impl Drop for FilePool {
    fn drop(&mut self) {
        let slots = self.slots.get().into_iter().flatten();
        slots.filter_map(|slot| slot.lock().upgrade()).for_each(|file| file.close());
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
