//! The write path: turns a group of commits into one write and one sync, then publishes it.
//!
//! The thread that holds the [`Writer`] leads. It checks each commit, lays the group out, writes it
//! with one gathered write, syncs once, adds the batches to the catalog, and only then raises the
//! published watermark that bounds all readers. It reads no event: opening the log read all that it
//! needs.

mod admission;
mod layout;
mod proof;
mod rotation;
mod space;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use self::layout::Layout;
pub(crate) use self::rotation::Full;
use self::rotation::RotationWorker;
pub(crate) use self::space::Zeroed;
use self::space::kept_bytes;
use crate::catalog::{Baseline, Catalog, CommitIds, Share, Watermark};
use crate::clock::LogClock;
use crate::commit::{Commit, GroupWriter, Part, Pending};
use crate::disk::{Disk, DiskFile, HeldLock, IoResultExt, LockGuard, process_id, write_all_at};
use crate::error::{Error, ErrorKind, Result};
use crate::failures::{BackgroundTask, Failures};
use crate::format::{
    BatchKind, COMMITS_AT, Ending, Lsn, POSITION_MAX, TailRecord, gap_batches, tail_record,
};
use crate::index::BatchRef;
use crate::options::Options;
use crate::sabotage::{Sabotage, broken};
use crate::segment::{Ownership, Segment, Spare};
use crate::types::{CommitId, Durability, Position, Seq, StreamId, Timestamp};

/// Fraction of the active segment that is filled before the previous segment is sealed, unless the
/// log closes earlier. Waking the rotation worker at the roll itself would slow that commit down
/// most on a busy machine.
const SEAL_AFTER: u64 = 16;

/// Weight of groups after which names are compared again with the files held: reached by this
/// number of unsynced groups, or a quarter as many synced ones. A check takes 1 to 3 µs, at most 1
/// % of the time of either.
const CHECK_WEIGHT: u32 = 64;
const CHECK_WEIGHT_SYNCED: u32 = 4;
/// Time after which names are compared again when groups are rare.
const CHECK_AFTER: Duration = Duration::from_millis(100);

/// Maximum number of streams, and of commit ids, for which memory is kept between groups.
const STREAMS_KEPT_MAX: usize = 16 << 10;

/// State shared by all parts of the writer.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clock: Arc<LogClock>,
    pub(crate) options: Options,
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) failures: Arc<Failures>,
}

impl Context {
    /// Fails once this process no longer owns the log.
    fn check_owned(&self) -> Result<()> {
        self.ownership.check_last(&*self.disk, &self.catalog.segments())
    }
}

/// Writer of the log. There is one per open log; holding it is the right to write.
pub(crate) struct Writer {
    context: Arc<Context>,
    rotation: RotationWorker,
    log_id: [u8; 16],
    /// `None` until the log has its first segment on disk.
    active: Option<Active>,
    /// Previous segment. It may be sealed once the active one holds a durable record.
    full: Option<Full>,
    /// Spare file taken from the rotation worker and not used yet.
    ready: Option<Spare>,
    mark: Watermark,
    layout: Layout,
    /// Standings of the streams that earlier commits of this group moved.
    moved: HashMap<StreamId, Baseline>,
    /// Commit ids used in this group.
    group_ids: HashSet<CommitId>,
    /// Recent commit ids.
    ids: CommitIds,
    /// Bytes of the quota granted to commits of this group.
    granted_bytes: u64,
    /// `None` until the log is on disk.
    lock: Option<HeldLock>,
    /// Error that stopped all writing.
    poisoned: Option<Error>,
    /// Uptime at the last comparison of names with the files held.
    checked_at: Duration,
    /// Weight of the groups since then.
    weight_since_check: u32,
    /// True once a commit was written by this process.
    wrote: bool,
    /// System id of the process that opened the log.
    process: u32,
}

/// Segment that takes the commits.
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: String,
    pub(crate) lock: Option<LockGuard>,
    /// Offset of the next commit.
    pub(crate) offset: u64,
    /// True after a write that was not synced.
    pub(crate) unsynced: bool,
    /// True if the file is as long as its header says; false after a clean close.
    pub(crate) is_reserved: bool,
    /// Extent of the zeros that the next commits overwrite.
    pub(crate) zeroed: Zeroed,
}

impl Active {
    fn has_commits(&self) -> bool {
        self.offset > COMMITS_AT
    }

    /// Returns true once the roll is some time ago, so that deferred work does not add to its cost.
    fn has_begun(&self) -> bool {
        self.offset >= COMMITS_AT + self.segment.header.reserved_bytes / SEAL_AFTER
    }
}

/// State from which an opened log continues.
pub(crate) struct Resumed {
    pub(crate) log_id: [u8; 16],
    pub(crate) active: Active,
    pub(crate) mark: Watermark,
    pub(crate) lock: HeldLock,
    pub(crate) ids: CommitIds,
    /// Zeroed spare file left by an earlier writer.
    pub(crate) ready: Option<Spare>,
    /// Full segments that a crash left without a footer.
    pub(crate) unsealed: Vec<Full>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("mark", &self.mark).finish_non_exhaustive()
    }
}

impl Writer {
    /// Returns the writer of a log that is not on disk yet.
    pub(crate) fn fresh(context: Arc<Context>) -> Self {
        let checked_at = context.disk.uptime();
        Self {
            rotation: RotationWorker::new(Arc::clone(&context)),
            ids: CommitIds::new(context.options.commit_ids_max),
            context,
            log_id: *StreamId::new().as_bytes(),
            active: None,
            full: None,
            ready: None,
            mark: Watermark::default(),
            layout: Layout::default(),
            moved: HashMap::new(),
            group_ids: HashSet::new(),
            granted_bytes: 0,
            lock: None,
            poisoned: None,
            checked_at,
            weight_since_check: 0,
            wrote: false,
            process: process_id(),
        }
    }

    /// Returns the writer of an opened log.
    pub(crate) fn resumed(context: Arc<Context>, at: Resumed) -> Self {
        let mut writer = Self::fresh(context);
        let number = at.active.segment.number();
        let is_empty = !at.active.has_commits();
        writer.log_id = at.log_id;
        writer.active = Some(at.active);
        writer.mark = at.mark;
        writer.context.ownership.begin(&at.lock);
        writer.lock = Some(at.lock);
        writer.ready = at.ready;
        writer.ids = at.ids;
        writer.context.catalog.note_ids(&writer.ids);
        for full in at.unsealed {
            // The tail record of an empty segment may be in memory only, so the segment before it
            // is not sealed yet.
            let is_before = full.segment.number() + 1 == number;
            if is_empty && is_before {
                writer.full = Some(full);
            } else {
                writer.rotation.seal(full);
            }
        }
        writer
    }

    /// Returns true in a fork of the process that opened the log. It asks the system with every
    /// group, because some ways to create a child process do not announce it, and two writing
    /// processes would overwrite each other's commits.
    fn is_other_process(&self) -> bool {
        self.process != process_id() && !broken(Sabotage::ForgetProcess)
    }

    /// Writes, syncs and publishes the commits that passed their checks.
    fn write_group(&mut self, group: &[Arc<Pending>]) -> Result<()> {
        if self.is_other_process() {
            return Err(Error::new(ErrorKind::OtherProcess, "commit"));
        }
        if self.mark.visible + group.len() as u64 > POSITION_MAX {
            return Err(Error::new(ErrorKind::StorageFull, "commit"));
        }
        let Some(bytes) = self.layout.measure(group) else {
            return Err(Error::new(ErrorKind::StorageFull, "commit"));
        };
        let synced = group.iter().any(|pending| pending.durability == Durability::Disk);
        self.check_names(synced)?;
        self.place_for(bytes, kept_bytes(group))?;
        let Some(active) = &self.active else {
            return Err(Error::new(ErrorKind::NotThisLog, "commit"));
        };
        let segment = Arc::clone(&active.segment);
        let offset = active.offset;
        let date = self.context.clock.date();
        let mark = self.mark;
        let end = self.layout.encode(group, segment.header.salt, offset, mark, date);
        if let Err(error) = self.write(&segment, offset, group) {
            self.scrub(&segment, offset, end);
            // The write covered the tail record, on which readers in other processes rely.
            self.hint();
            return Err(error);
        }
        segment.commits.note(self.layout.offsets(), mark.visible + 1, date);
        if let Some(active) = &mut self.active {
            active.offset = end;
            active.unsynced = true;
        }
        let last_position = mark.visible + self.layout.commits();
        if broken(Sabotage::AckEarly) {
            self.settle_group(group, date.time, last_position);
        }
        if broken(Sabotage::ShowEarly) {
            self.publish(group, &segment, end, synced);
        }
        if synced {
            self.sync()?;
            self.check_synced()?;
        }
        if !broken(Sabotage::ShowEarly) {
            self.publish(group, &segment, end, synced);
        }
        self.settle_group(group, date.time, last_position);
        if synced && self.active.as_ref().is_some_and(Active::has_begun) {
            self.seal_full();
        }
        self.prepare_next();
        Ok(())
    }

    fn write(&mut self, segment: &Segment, offset: u64, group: &[Arc<Pending>]) -> Result<()> {
        let Some(file) = self.active.as_ref().map(|active| &*active.file) else {
            return Err(Error::new(ErrorKind::NotThisLog, "commit"));
        };
        self.layout
            .with_slices(group, |slices| write_all_at(file, slices, offset))
            .at("commit", || segment.place(offset))
    }

    /// Syncs the active segment. After a failure the log is poisoned: the kernel may have dropped
    /// the unwritten pages and report success for the next sync (P5).
    fn sync(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if !active.unsynced {
            return Ok(());
        }
        active.unsynced = false;
        if let Err(error) = active.file.sync_data() {
            let error = active.segment.io_error("sync", active.offset, error);
            if !broken(Sabotage::GoOnAfterFailedSync) {
                self.poisoned = Some(error.clone());
            }
            return Err(error);
        }
        Ok(())
    }

    /// Fails once names refer to files other than those held. Names are compared after enough
    /// groups, or enough time, since the last check.
    fn check_names(&mut self, synced: bool) -> Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        let context = &self.context;
        self.weight_since_check += if synced { CHECK_WEIGHT_SYNCED } else { 1 };
        let now = context.disk.uptime();
        let is_recent = self.weight_since_check < CHECK_WEIGHT
            && now.saturating_sub(self.checked_at) < CHECK_AFTER;
        if is_recent && !context.disk.looks_are_free() {
            return Ok(());
        }
        (self.weight_since_check, self.checked_at) = (0, now);
        let checked = context.ownership.check(&*context.disk, &active.path, &*active.file);
        checked.inspect_err(|error| {
            if error.is_loss() {
                self.poisoned = Some(error.clone());
            }
        })
    }

    /// Fails, for good, once the synced segment has lost its name: its commits would be
    /// acknowledged and lost.
    fn check_synced(&mut self) -> Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        let checked = self.context.ownership.check_file(&active.path, &*active.file);
        checked.inspect_err(|error| self.poisoned = Some(error.clone()))
    }

    /// Hands the previous segment to the rotation worker for sealing. Waits until the active
    /// segment holds a durable commit and its tail record says so.
    fn seal_full(&mut self) {
        if self.active.as_ref().is_some_and(Active::has_commits)
            && let Some(full) = self.full.take()
        {
            self.rotation.seal(full);
        }
    }

    /// Adds the batches to the catalog, writes the tail record, and raises the published watermark.
    fn publish(&mut self, group: &[Arc<Pending>], segment: &Segment, end: u64, synced: bool) {
        let catalog = &self.context.catalog;
        for ((pending, at), position) in self.layout.placed(group).zip(self.mark.visible + 1..) {
            let first = pending.id.map(|_| pending.first_in_order());
            for (nth, part) in pending.parts().iter().enumerate() {
                note(catalog, segment, part, first == Some(nth), (at, position));
            }
            if let Some(id) = pending.id {
                self.ids.note(id, position);
                catalog.note_ids(&self.ids);
            }
        }
        self.mark.visible += self.layout.commits();
        if synced {
            self.mark.durable = self.mark.visible;
        }
        self.mark.end = Lsn::new(segment.number(), end);
        self.wrote = true;
        // An unsynced hint: it shows this group to readers in other processes, and the next commit
        // overwrites it.
        self.hint();
        catalog.raise(self.mark);
    }

    /// Returns the certainty of the log's end.
    fn ending(&self) -> Ending {
        let unsynced = self.active.as_ref().is_some_and(|active| active.unsynced);
        if unsynced || self.poisoned.is_some() { Ending::Open } else { Ending::Settled }
    }

    /// Writes the tail record after the last commit, for readers in other processes.
    fn hint(&self) {
        let Some(active) = &self.active else { return };
        let written = self.write_tail_record(self.ending());
        let failed = |error| active.segment.io_error("write tail record", active.offset, error);
        self.context.failures.note(BackgroundTask::WriteTailRecord, written.map_err(failed));
    }

    fn write_tail_record(&self, ending: Ending) -> std::io::Result<()> {
        let Some(active) = &self.active else {
            return Ok(());
        };
        let bytes = TailRecord {
            position: self.mark.visible + 1,
            durable: self.mark.durable,
            vouched: self.context.clock.vouched(),
            ending,
        }
        .encode(active.segment.header.salt);
        let slices = &mut [std::io::IoSlice::new(&bytes)];
        write_all_at(&*active.file, slices, active.offset)
    }

    fn settle_group(&self, group: &[Arc<Pending>], time: Timestamp, last_position: u64) {
        let mut position = last_position - self.layout.commits();
        for pending in group {
            if pending.failed().is_some() || pending.proof {
                continue;
            }
            let first = pending.parts().first();
            position += u64::from(first.is_some());
            let start = first.map_or(0, Part::first_seq);
            let count = first.map_or(0, |part| u64::from(part.filled.count));
            pending.settle(Ok(Commit {
                position: Position(position),
                seqs: Seq(start)..Seq(start + count),
                time,
                durability: pending.durability,
            }));
            pending.parts().iter().for_each(|part| part.filled.release_if_scarce());
        }
    }

    /// Closes the log in this process: syncs pending writes, writes a clean tail record, gives the
    /// reserved space back, and releases the lock.
    pub(crate) fn close(mut self) -> Result<()> {
        if self.is_other_process() {
            return Ok(());
        }
        if self.wrote && self.poisoned.is_none() {
            self.poisoned = self.context.check_owned().err();
        }
        let synced = match self.poisoned.take() {
            Some(cause) if cause.is_loss() => Err(cause),
            Some(cause) => Err(Error::new(ErrorKind::Poisoned, "close").because(cause)),
            None => self.sync().map(|()| self.note_synced()),
        };
        self.rotation.stop();
        let is_owned = self.context.ownership.lost().is_none();
        if let Some(spare) = self.ready.take().filter(|_| self.wrote && is_owned) {
            spare.remove(&*self.context.disk);
        }
        synced?;
        if !self.wrote {
            return Ok(());
        }
        self.mark.durable = self.mark.visible;
        let Some(active) = &self.active else {
            return Ok(());
        };
        let segment = &active.segment;
        let file = &active.file;
        let offset = active.offset;
        // The tail record first: a short file without one would look truncated.
        self.write_tail_record(Ending::Clean)
            .and_then(|()| file.sync_data())
            .and_then(|()| file.set_len(offset + tail_record::BYTES as u64))
            .at("close", || segment.place(offset))
    }
}

impl GroupWriter for Writer {
    fn allows_threads(&self) -> bool {
        self.context.disk.allows_threads()
    }

    fn failures(&self) -> Option<Arc<Failures>> {
        Some(Arc::clone(&self.context.failures))
    }

    fn commit_group(&mut self, group: &[Arc<Pending>]) {
        self.refuse(group);
        self.make_commits(group);
        if group.iter().any(|pending| pending.proof && pending.failed().is_none()) {
            self.prove(group);
        }
        self.release_memory();
    }

    fn poison(&mut self) {
        if self.poisoned.is_none() {
            self.poisoned = Some(Error::new(ErrorKind::Poisoned, "panic in the writer"));
        }
    }
}

impl Writer {
    /// Releases the excess memory of a group with very many commits or streams.
    fn release_memory(&mut self) {
        self.layout.release_memory();
        if self.moved.capacity().max(self.group_ids.capacity()) > 2 * STREAMS_KEPT_MAX {
            (self.moved, self.group_ids) = (HashMap::new(), HashSet::new());
        }
    }

    fn make_commits(&mut self, group: &[Arc<Pending>]) {
        if group.iter().all(|pending| pending.failed().is_some()) {
            return;
        }
        if group.iter().all(|pending| pending.parts().is_empty() || pending.failed().is_some()) {
            self.confirm(group);
        } else if let Err(error) = self.write_group(group) {
            let error = self.reported(error);
            for pending in group {
                pending.settle(Err(error.clone()));
            }
        }
    }

    /// Settles empty commits; those at `Disk` still wait for all earlier writes.
    fn confirm(&mut self, group: &[Arc<Pending>]) {
        let disk = group.iter().any(|pending| pending.durability == Durability::Disk);
        let synced = if disk { self.sync() } else { Ok(()) };
        let synced =
            synced.and_then(|()| self.check_names(disk)).and_then(|()| self.check_synced());
        let synced = synced.map_err(|error| self.reported(error));
        if synced.is_ok() && disk {
            self.note_synced();
            self.context.catalog.raise(self.mark);
        }
        for pending in group.iter().filter(|pending| !pending.proof || synced.is_err()) {
            pending.settle(synced.clone().map(|()| self.empty_commit(pending.durability)));
        }
    }

    /// Returns the outcome of an empty commit.
    fn empty_commit(&self, durability: Durability) -> Commit {
        let position = Position(self.mark.visible);
        Commit { position, seqs: Seq(0)..Seq(0), time: self.context.disk.now(), durability }
    }
}

fn note(
    catalog: &Catalog,
    segment: &Segment,
    part: &Part,
    has_id: bool,
    (offset, position): (u64, u64),
) {
    let dropped = part.filled.dropped;
    let head = part.first_seq() - dropped;
    let batch = |kind, first_seq, count| BatchRef { kind, first_seq, count, offset };
    let some = |is: bool, batch: BatchRef| is.then_some(batch);
    let change = part.change();
    let events = part.filled.count;
    let gaps = gap_batches(head, dropped);
    let gap = |nth: usize| {
        let (kind, first_seq, count) = gaps[nth];
        some(count > 0, batch(kind, first_seq, count))
    };
    // Batches that place the events come before them.
    let batches = [
        change.and_then(|change| {
            change.fork.map(|fork| batch(BatchKind::Fork, fork.seq, fork.generation))
        }),
        change.and_then(|change| {
            change.rewind.map(|_| batch(BatchKind::Rewind, head, part.generation()))
        }),
        some(has_id, batch(BatchKind::CommitId, head, 1)),
        part.change
            .as_ref()
            .filter(|encoded| encoded.count > 0)
            .map(|encoded| batch(BatchKind::Catalog, head, encoded.count)),
        gap(0),
        gap(1),
        some(events > 0, batch(BatchKind::Events, part.first_seq(), events)),
    ];
    part.give_name();
    let generation = part.generation();
    let share = Share { stream: part.stream, root: part.root, position, generation, change };
    catalog.note(segment, share, batches.into_iter().flatten());
    if let Some(shared) = part.change.as_ref().and_then(|encoded| encoded.draft.shared.as_ref()) {
        shared.settle();
    }
    if change.is_some()
        && let Some(root) = catalog.root(part.stream)
    {
        catalog.pass_names(part.stream, root);
    }
}
