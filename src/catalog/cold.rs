//! What of a stream is cold: in its archive file, and no longer wanted in the segments.
//!
//! A fact of the log, like every other: a commit says which seqs are in which file. It belongs to the branch that the
//! stream was in then, so that forks that were made later share it, and those that were made before do not need the
//! file. The file is opened when it is first read, and nothing here decides whether it is the right one.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;

use super::snapshot::View;
use super::{Branch, Catalog, LogPlace, Snapshot};
use crate::disk::Disk;
use crate::format::ColdSeqs;
use crate::index::At;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::types::{StreamId, StreamState};

/// So many archive files are kept open that nobody reads at the moment.
const OPEN_FILES_MAX: usize = 32;

/// Seqs of a branch and of its bases that are in an archive file.
pub(crate) struct Cold {
    pub(crate) stream: StreamId,
    /// The branch that the stream was in.
    pub(crate) branch: At,
    pub(crate) seqs: ColdSeqs,
    /// The commit that says so starts here.
    from: LogPlace,
    /// What was said of the stream before.
    older: Option<Arc<Self>>,
    file: ArcSwapOption<ColdFile>,
    /// It was needed no more, and was removed.
    is_gone: AtomicBool,
}

/// An archive file that was opened: a log with one stream.
pub(crate) struct ColdFile {
    pub(crate) snapshot: Snapshot,
    pub(crate) tip: At,
}

/// What a catalog knows of archive files, all of them together.
#[derive(Default)]
pub(super) struct Colds {
    /// There are any.
    any: AtomicBool,
    /// What the newest file of each stream takes that is not deleted.
    file_bytes: AtomicU64,
    /// Where they lie.
    disk: OnceLock<Arc<dyn Disk>>,
    /// Those that were opened last.
    open: Mutex<VecDeque<Arc<Cold>>>,
    /// The directory was looked through once since the log was opened.
    is_swept: AtomicBool,
}

/// The path of a stream's archive file as long as another one has its place.
pub(crate) fn cold_path(stream: StreamId, salt: u32) -> String {
    let path = archive_path(stream);
    format!("{}.{salt:08x}.seg", path.trim_end_matches(".seg"))
}

/// [`StreamId::archive_path`] as the disk wants it.
pub(crate) fn archive_path(stream: StreamId) -> String {
    stream.archive_path().to_string_lossy().into_owned()
}

impl Cold {
    /// The file, if it is open.
    pub(crate) fn opened(&self) -> Option<Arc<ColdFile>> {
        self.file.load_full()
    }

    /// The stream moved before.
    pub(crate) fn is_not_first(&self) -> bool {
        self.older.is_some()
    }

    fn all(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(Some(self), |one| one.older.as_ref())
    }
}

impl Drop for Cold {
    /// One after the other, as [`super::Version`].
    fn drop(&mut self) {
        let mut next = self.older.take();
        while let Some(mut one) = next.and_then(Arc::into_inner) {
            next = one.older.take();
        }
    }
}

impl Catalog {
    /// Says on which disk the archive files lie.
    pub(crate) fn lies_on(&self, disk: Arc<dyn Disk>) {
        let _ = self.colds.disk.set(disk);
    }

    pub(crate) fn disk(&self) -> Option<&Arc<dyn Disk>> {
        self.colds.disk.get()
    }

    /// What archive files take on the disk.
    pub(crate) fn cold_bytes(&self) -> u64 {
        self.colds.file_bytes.load(Ordering::Relaxed)
    }

    /// Keeps a file open that was opened, and closes the one that was opened longest ago.
    pub(crate) fn keep_open(&self, cold: &Arc<Cold>, file: &Arc<ColdFile>) {
        cold.file.store(Some(Arc::clone(file)));
        let mut open = self.colds.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(Arc::clone(cold));
        if open.len() > OPEN_FILES_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.file.store(None);
        }
    }

    /// What is said of a stream from a commit on.
    pub(super) fn note_cold(
        &self,
        (stream, branch): (StreamId, At),
        seqs: ColdSeqs,
        from: LogPlace,
        older: Option<Arc<Cold>>,
    ) -> Arc<Cold> {
        self.colds.any.store(true, Ordering::Release);
        let before = older.as_ref().map_or(0, |older| older.seqs.file_bytes);
        self.colds.file_bytes.fetch_add(seqs.file_bytes.wrapping_sub(before), Ordering::Relaxed);
        let (file, is_gone) = (ArcSwapOption::empty(), AtomicBool::new(false));
        Arc::new(Cold { stream, branch, seqs, from, older, file, is_gone })
    }

    /// The file of a stream that is deleted counts no more.
    pub(super) fn forget_cold(&self, cold: &Cold) {
        self.colds.file_bytes.fetch_sub(cold.seqs.file_bytes, Ordering::Relaxed);
    }

    /// Whether anything at all is cold.
    pub(super) fn has_cold(&self) -> bool {
        self.colds.any.load(Ordering::Acquire)
    }

    /// What of this branch is cold, as far as it was said before `limit`.
    #[inline]
    pub(super) fn cold(&self, at: At, branch: &Branch, limit: LogPlace) -> Option<Arc<Cold>> {
        if !self.has_cold() {
            return None;
        }
        let newest = self.colds_of(branch.stream)?;
        newest.all().find(|cold| cold.branch == at && cold.from < limit).cloned()
    }

    /// What was said last of this stream.
    pub(crate) fn colds_of(&self, stream: StreamId) -> Option<Arc<Cold>> {
        self.version(self.root(stream)?)?.cold.clone()
    }

    /// Whether this was said of the stream, ever.
    pub(crate) fn knows_cold(&self, stream: StreamId, salt: u32) -> bool {
        let newest = self.colds_of(stream);
        newest.is_some_and(|newest| newest.all().any(|cold| cold.seqs.salt == salt))
    }

    /// Everything that was ever said.
    fn each_cold(&self, mut visit: impl FnMut(&Arc<Cold>)) {
        let firsts = self.branches.iter().filter(|(_, branch)| branch.is_first());
        for (_, first) in firsts.filter(|_| self.has_cold()) {
            let newest = self.life(first).and_then(|version| version.cold.clone());
            newest.iter().flat_map(Cold::all).for_each(&mut visit);
        }
    }

    /// Whether there may be files that nobody needs.
    pub(crate) fn may_be_swept(&self, needed: &HashSet<(StreamId, u32)>) -> bool {
        let mut found = !self.colds.is_swept.load(Ordering::Relaxed);
        self.each_cold(|cold| {
            let is_needed = needed.contains(&(cold.stream, cold.seqs.salt));
            found |= !is_needed && !cold.is_gone.load(Ordering::Relaxed);
        });
        found
    }

    /// Says that everything was swept but what is needed and what is `left`: of the rest nothing has to be remembered.
    pub(crate) fn are_gone(
        &self,
        needed: &HashSet<(StreamId, u32)>,
        left: &HashSet<(StreamId, u32)>,
    ) {
        self.colds.is_swept.store(true, Ordering::Relaxed);
        self.each_cold(|cold| {
            let key = (cold.stream, cold.seqs.salt);
            cold.is_gone.store(!needed.contains(&key) && !left.contains(&key), Ordering::Relaxed);
        });
    }

    /// Whether a file may be there that is to be removed, for which it has to be known what was said.
    pub(super) fn leaves_file(cold: Option<&Arc<Cold>>) -> bool {
        cold.is_some_and(|cold| cold.all().any(|one| !one.is_gone.load(Ordering::Relaxed)))
    }
}

impl Snapshot {
    /// The archive files that are needed to read what this shows.
    pub(crate) fn cold_files(&self) -> Vec<Arc<Cold>> {
        let mut all = Vec::new();
        if !self.catalog.has_cold() {
            return all;
        }
        let mut known = HashSet::new();
        for (root, first) in self.firsts() {
            let view = self.view_of(root, first);
            let Some(view) = view.filter(|view| view.state() != StreamState::Deleted) else {
                continue;
            };
            let lineage = self.catalog.lineage(view.tip, view.head, self.mark.end);
            let shown = lineage.pieces().filter(|piece| piece.seqs.end > view.start());
            let cold = shown.filter_map(|piece| piece.cold.as_ref());
            all.extend(cold.filter(|one| known.insert((one.stream, one.seqs.salt))).cloned());
        }
        all
    }

    pub(super) fn cold_of(&self, view: &View<'_>) -> Option<Arc<Cold>> {
        self.catalog.cold(view.tip, self.catalog.branch(view.tip)?, self.mark.end)
    }

    /// The events of the stream that are in its archive file, and which file that is; `None` when none are, or when it
    /// was rewound since.
    pub(crate) fn cold_seqs(&self, stream: StreamId) -> Option<ColdSeqs> {
        Some(self.cold_of(&self.view(stream)?)?.seqs)
    }

    /// Archived streams whose events are not all in their files yet, of those to which something was done at `since`
    /// or later.
    pub(crate) fn to_be_moved(&self, since: LogPlace) -> Vec<StreamId> {
        let is_archived = |view: &View<'_>| {
            let changed = view.changed().is_some_and(|from| from >= since);
            changed && view.state() == StreamState::Archived && view.start() < view.head
        };
        let views = self.firsts().filter(|(_, first)| !first.is_plain());
        let views = views.filter_map(|(root, first)| self.view_of(root, first));
        let wanted = views.filter(is_archived).filter(|view| {
            let cold = self.cold_of(view);
            cold.is_none_or(|cold| cold.seqs.start < view.start() || cold.seqs.end < view.head)
        });
        let mut ids: Vec<StreamId> = wanted.map(|view| view.first.stream).collect();
        ids.sort_unstable();
        ids
    }
}

impl PartialEq for Cold {
    fn eq(&self, other: &Self) -> bool {
        (self.stream, self.seqs.salt) == (other.stream, other.seqs.salt)
    }
}

impl Eq for Cold {}

impl std::fmt::Debug for Cold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cold")
            .field("stream", &self.stream)
            .field("seqs", &self.seqs)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ColdFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColdFile").finish_non_exhaustive()
    }
}
