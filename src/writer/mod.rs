//! The one choke point: a group of commits becomes one write, one sync, and then visible.
//!
//! Whoever holds the [`Writer`] leads. It checks each commit, lays the group out, writes it with one
//! gathered write, syncs once, notes the batches in the catalog, and only then raises the wall behind
//! which readers look. It never reads the log: what must be read was read when the log was opened.

mod checks;
mod keeper;
mod layout;
mod space;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub(crate) use self::keeper::Full;
use self::keeper::Keeper;
use self::layout::Layout;
use crate::catalog::{Catalog, CommitIds, LogPlace, Share, Standing, Watermark};
use crate::commit::{Commit, Lead, Part, Pending};
use crate::disk::{Disk, LockGuard, process_id, write_all_at};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BatchKind, COMMITS_AT, Ending, POSITION_MAX, Witness, witness};
use crate::index::BatchRef;
use crate::options::Options;
use crate::sabotage::{Sabotage, broken};
use crate::segment::{Segment, Spare};
use crate::types::{CommitId, Durability, Position, Seq, StreamId, Timestamp};

/// What every part of the writer needs.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) options: Options,
}

/// Writes the log. There is one per open log, and holding it is the right to write.
pub(crate) struct Writer {
    ground: Arc<Ground>,
    keeper: Keeper,
    log_id: [u8; 16],
    /// `None`: nothing on disk yet.
    active: Option<Active>,
    /// The segment before, until the active one holds something durable: then it may be sealed.
    full: Option<Full>,
    /// A file that lies ready, taken from the keeper and not used yet.
    ready: Option<Spare>,
    mark: Watermark,
    layout: Layout,
    /// Where the streams stand that this group has moved so far.
    moved: HashMap<StreamId, Standing>,
    /// Ids that commits of this group have.
    taken: HashSet<CommitId>,
    /// Ids that commits had of late.
    ids: CommitIds,
    /// What commits of this group take of the quota.
    granted_bytes: u64,
    /// Held once the log is on disk.
    lock: Option<LockGuard>,
    /// Why nothing is written any more.
    poisoned: Option<Error>,
    /// Something was committed since the log was opened.
    wrote: bool,
    process: u32,
}

/// The segment that commits go to.
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    /// Where the next commit goes.
    pub(crate) offset: u64,
    /// Something was written and not synced.
    pub(crate) unsynced: bool,
    /// The file is as long as its header says; not so after it was closed cleanly.
    pub(crate) is_reserved: bool,
}

impl Active {
    fn has_commits(&self) -> bool {
        self.offset > COMMITS_AT
    }
}

/// Where an opened log goes on.
pub(crate) struct Resumed {
    pub(crate) log_id: [u8; 16],
    pub(crate) active: Active,
    pub(crate) mark: Watermark,
    pub(crate) lock: LockGuard,
    pub(crate) ids: CommitIds,
    /// A file of zeros that an earlier writer had made ready.
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
    /// The writer of a log of which nothing is on disk yet.
    pub(crate) fn fresh(ground: Arc<Ground>) -> Self {
        Self {
            keeper: Keeper::new(Arc::clone(&ground)),
            ground,
            log_id: *StreamId::new().as_bytes(),
            active: None,
            full: None,
            ready: None,
            mark: Watermark::default(),
            layout: Layout::default(),
            moved: HashMap::new(),
            taken: HashSet::new(),
            ids: CommitIds::default(),
            granted_bytes: 0,
            lock: None,
            poisoned: None,
            wrote: false,
            process: process_id(),
        }
    }

    /// The writer of a log that was opened.
    pub(crate) fn resumed(ground: Arc<Ground>, at: Resumed) -> Self {
        let mut writer = Self::fresh(ground);
        let (number, is_empty) = (at.active.segment.number(), !at.active.has_commits());
        writer.log_id = at.log_id;
        writer.active = Some(at.active);
        writer.mark = at.mark;
        writer.lock = Some(at.lock);
        writer.ready = at.ready;
        writer.ids = at.ids;
        for full in at.unsealed {
            // What a witness alone says of an empty segment may be in memory only.
            let is_before = full.segment.number() + 1 == number;
            if is_empty && is_before {
                writer.full = Some(full);
            } else {
                writer.keeper.seal(full);
            }
        }
        writer
    }

    /// Writes, syncs and publishes the commits that passed their checks.
    fn write_group(&mut self, group: &[Arc<Pending>]) -> Result<()> {
        if self.process != process_id() {
            return Err(Error::new(ErrorKind::Closed, "commit after fork"));
        }
        if self.mark.visible + group.len() as u64 > POSITION_MAX {
            return Err(Error::new(ErrorKind::StorageFull, "commit"));
        }
        let bytes = self.layout.measure(group);
        self.place_for(bytes)?;
        let Some(active) = &self.active else {
            return Err(Error::new(ErrorKind::NotThisLog, "commit"));
        };
        let (segment, offset) = (Arc::clone(&active.segment), active.offset);
        let (time, mark) = (Timestamp::now(), self.mark);
        let end = self.layout.encode(group, segment.header.salt, offset, mark, time);
        if let Err(error) = self.write(&segment, offset, group) {
            self.scrub(&segment, offset, end);
            // It stood where the write began, and readers in other processes go by it.
            let _ = self.write_witness(self.ending());
            return Err(error);
        }
        let synced = group.iter().any(|pending| pending.durability == Durability::Disk);
        if let Some(active) = &mut self.active {
            active.offset = end;
            active.unsynced = true;
        }
        let last_position = mark.visible + self.layout.commits();
        if broken(Sabotage::AckEarly) {
            self.settle_group(group, time, last_position);
        }
        if broken(Sabotage::ShowEarly) {
            self.publish(group, &segment, end, synced);
        }
        if synced {
            self.sync()?;
        }
        if !broken(Sabotage::ShowEarly) {
            self.publish(group, &segment, end, synced);
        }
        if synced {
            self.seal_full();
        }
        self.settle_group(group, time, last_position);
        self.keep_ahead();
        Ok(())
    }

    fn write(&mut self, segment: &Segment, offset: u64, group: &[Arc<Pending>]) -> Result<()> {
        self.layout
            .with_slices(group, |slices| write_all_at(&*segment.file, slices, offset))
            .map_err(|error| segment.io_error("commit", offset, error))
    }

    /// One sync. If it fails nothing is trusted any more: the kernel may have dropped what was not
    /// written and call the next sync a success (P5).
    fn sync(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if !active.unsynced {
            return Ok(());
        }
        active.unsynced = false;
        if broken(Sabotage::SkipSync) {
            return Ok(());
        }
        if let Err(error) = active.segment.file.sync_data() {
            let error = active.segment.io_error("sync", active.offset, error);
            if !broken(Sabotage::GoOnAfterFailedSync) {
                self.poisoned = Some(error.clone());
            }
            return Err(error);
        }
        Ok(())
    }

    /// Lets the keeper seal the segment before this one: only now that this one holds something durable,
    /// and its witness says so.
    fn seal_full(&mut self) {
        if self.active.as_ref().is_some_and(Active::has_commits)
            && let Some(full) = self.full.take()
        {
            self.keeper.seal(full);
        }
    }

    /// Notes the batches, writes the witness, and raises the wall.
    fn publish(&mut self, group: &[Arc<Pending>], segment: &Segment, end: u64, synced: bool) {
        let catalog = &self.ground.catalog;
        for ((pending, at), position) in self.layout.placed(group).zip(self.mark.visible + 1..) {
            for (nth, part) in pending.parts().iter().enumerate() {
                let id = pending.id.filter(|_| nth == pending.first_in_order());
                note(catalog, segment, part, id.is_some(), at);
            }
            if let Some(id) = pending.id {
                self.ids.note(id, position);
            }
        }
        self.mark.visible += self.layout.commits();
        if synced {
            self.mark.durable = self.mark.visible;
        }
        self.mark.end = LogPlace::new(segment.number(), end);
        self.wrote = true;
        // Not synced, and only a hint: it lets readers in other processes see this group now, and the
        // next commit writes over it.
        let _ = self.write_witness(self.ending());
        catalog.raise(self.mark);
    }

    /// How certain the end is now.
    fn ending(&self) -> Ending {
        let unsynced = self.active.as_ref().is_some_and(|active| active.unsynced);
        if unsynced || self.poisoned.is_some() { Ending::Open } else { Ending::Settled }
    }

    fn write_witness(&self, ending: Ending) -> std::io::Result<()> {
        let Some(active) = &self.active else {
            return Ok(());
        };
        let bytes = Witness {
            position: self.mark.visible + 1,
            durable: self.mark.durable,
            time_micros: Timestamp::now().as_micros(),
            ending,
        }
        .encode(active.segment.header.salt);
        let slices = &mut [std::io::IoSlice::new(&bytes)];
        write_all_at(&*active.segment.file, slices, active.offset)
    }

    fn settle_group(&self, group: &[Arc<Pending>], time: Timestamp, last_position: u64) {
        let mut position = last_position - self.layout.commits();
        for pending in group {
            if pending.failed().is_some() {
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
            pending.parts().iter().for_each(|part| part.filled.give_up_if_scarce());
        }
    }

    /// Ends the log's life in this process: what the operating system has is synced, a clean witness
    /// written, the space that was kept ready given back, and the lock released.
    pub(crate) fn close(mut self) -> Result<()> {
        if self.process != process_id() {
            return Ok(());
        }
        let synced = match self.poisoned.take() {
            Some(cause) => Err(Error::new(ErrorKind::Poisoned, "close").because(cause)),
            None => self.sync().map(|()| self.note_synced()),
        };
        self.keeper.stop();
        if let Some(spare) = self.ready.take().filter(|_| self.wrote) {
            spare.remove(&*self.ground.disk);
        }
        synced?;
        if !self.wrote {
            return Ok(());
        }
        self.mark.durable = self.mark.visible;
        let Some(active) = &self.active else {
            return Ok(());
        };
        let (segment, offset) = (Arc::clone(&active.segment), active.offset);
        // The witness first: a short file without one would say that something was cut off.
        self.write_witness(Ending::Clean)
            .and_then(|()| segment.file.sync_data())
            .and_then(|()| segment.file.set_len(offset + witness::BYTES as u64))
            .map_err(|error| segment.io_error("close", offset, error))
    }
}

impl Lead for Writer {
    fn allows_threads(&self) -> bool {
        self.ground.disk.allows_threads()
    }

    fn commit_group(&mut self, group: &[Arc<Pending>]) {
        self.refuse(group);
        if group.iter().all(|pending| pending.failed().is_some()) {
            return;
        }
        if group.iter().all(|pending| pending.parts().is_empty() || pending.failed().is_some()) {
            self.confirm(group);
        } else if let Err(error) = self.write_group(group) {
            for pending in group {
                pending.settle(Err(error.clone()));
            }
        }
    }

    fn poison(&mut self) {
        if self.poisoned.is_none() {
            self.poisoned = Some(Error::new(ErrorKind::Poisoned, "panic in the writer"));
        }
    }
}

impl Writer {
    /// Makes the witness durable. Behind it nothing that it says is in doubt, also for those who only read and whether or
    /// not another commit comes: so what it makes superfluous may go. Everything else is synced.
    fn prove(&mut self) -> Result<()> {
        self.note_synced();
        let ending = self.ending();
        let Some(active) = &mut self.active else { return Ok(()) };
        // Where the file was cut there stands the witness of a clean close.
        if !active.is_reserved || broken(Sabotage::SkipProof) {
            return Ok(());
        }
        active.unsynced = true;
        let (segment, offset) = (Arc::clone(&active.segment), active.offset);
        self.write_witness(ending).map_err(|error| segment.io_error("witness", offset, error))?;
        self.sync()
    }

    /// Settles commits of nothing: at `Disk` they still wait for what was written before them.
    fn confirm(&mut self, group: &[Arc<Pending>]) {
        let disk = group.iter().any(|pending| pending.durability == Durability::Disk);
        let mut synced = if disk { self.sync() } else { Ok(()) };
        if group.iter().any(|pending| pending.proof) {
            synced = synced.and_then(|()| self.prove());
        }
        if synced.is_ok() && disk {
            self.note_synced();
            self.ground.catalog.raise(self.mark);
        }
        let position = Position(self.mark.visible);
        for pending in group {
            pending.settle(synced.clone().map(|()| Commit {
                position,
                seqs: Seq(0)..Seq(0),
                time: Timestamp::now(),
                durability: pending.durability,
            }));
        }
    }
}

fn note(catalog: &Catalog, segment: &Segment, part: &Part, has_id: bool, offset: u64) {
    let dropped = part.filled.dropped;
    let head = part.first_seq() - dropped;
    let batch = |kind, first_seq, count| BatchRef { kind, first_seq, count, offset };
    let some = |is: bool, batch: BatchRef| is.then_some(batch);
    let change = part.change();
    let events = part.filled.count;
    // What says where the events belong stands in front of them.
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
        some(
            dropped > 0 && events > 0,
            batch(BatchKind::Gap, head, u32::try_from(dropped).unwrap_or(u32::MAX)),
        ),
        some(events > 0, batch(BatchKind::Events, part.first_seq(), events)),
    ];
    let (stream, root, generation) = (part.stream, part.root, part.generation());
    let share = Share { stream, root, offset, generation, change };
    catalog.note(segment, share, batches.into_iter().flatten());
    if change.is_some()
        && let Some(root) = catalog.root(part.stream)
    {
        catalog.pass_names(part.stream, root);
    }
}
