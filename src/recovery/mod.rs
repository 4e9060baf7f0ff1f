//! Survey and repair: looking without touching, and changing only what must change.
//!
//! Opening is one line read backwards once: discover, account, fold, judge, and then the one repair that a
//! torn tail needs. Everything else waits for somebody to say so.

mod ahead;
mod aside;
pub(crate) mod cold;
mod discover;
pub(crate) mod fold;
mod inspect;
mod load;
mod repair;
mod report;
pub(crate) mod scan;
mod sealed;
mod walk;

use std::path::Path;
use std::sync::Arc;

pub use inspect::{Inspection, Item};
pub use report::{
    Damage, DamageKind, NewSegment, Repair, SegmentReport, SegmentState, Survey, TornTail,
};

use self::discover::Access;
use self::load::{Depth, Loaded, load, load_alone};
use crate::catalog::{Catalog, CommitIds, LogPlace, Snapshot, Watermark};
use crate::disk::{Disk, LockGuard, RealDisk};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::Ending;
use crate::options::Options;
use crate::sabotage::{Sabotage, broken};
use crate::segment::{Segment, Spare, place, segment_bytes};
use crate::types::Position;

/// A log without a lock is read again so often, while what seems damaged keeps changing: then it is a
/// writer at work, and no damage.
const LOOKS_MAX: usize = 8;

/// A log as it was found, ready to go on.
pub(crate) struct Opened {
    pub(crate) catalog: Catalog,
    pub(crate) survey: Survey,
    pub(crate) tail: Tail,
}

/// Where an opened log goes on.
pub(crate) struct Tail {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    /// The file is as long as its header says.
    pub(crate) is_reserved: bool,
    pub(crate) mark: Watermark,
    /// A segment without commits that has the next number.
    pub(crate) spare: Option<Spare>,
    /// Full segments without a footer: segment, where its commits end, last position.
    pub(crate) unsealed: Vec<(Arc<Segment>, u64, u64)>,
    pub(crate) ids: CommitIds,
}

/// Looks at every byte of a log and reports; changes nothing, takes no lock.
///
/// Blocks for as long as it takes to read the whole log.
///
/// # Errors
///
/// [`ErrorKind::NoLog`] when there is none; [`ErrorKind::UnsupportedVersion`] and
/// [`ErrorKind::UnsupportedFeature`] when a newer version wrote it; [`ErrorKind::Io`] when it cannot be read.
/// Damage is no error here: it is in the report.
pub fn survey(path: impl AsRef<Path>) -> Result<Survey> {
    if let Some((disk, name)) = RealDisk::of_file(path.as_ref()) {
        return Ok(load_alone(&disk, &name, Depth::Full)?.survey);
    }
    let disk = RealDisk::new(path.as_ref(), false);
    look_closely(&disk)
}

/// As [`survey`], on a simulated disk.
///
/// # Errors
///
/// As [`survey`].
#[cfg(feature = "sim")]
pub fn survey_on(disk: &crate::disk::SimDisk) -> Result<Survey> {
    look_closely(disk)
}

/// Every byte of the log, and of the archive files that it needs.
fn look_closely(disk: &dyn Disk) -> Result<Survey> {
    let Loaded { catalog, mut survey, .. } = look(disk, Depth::Full)?;
    cold::survey(disk, &Snapshot::new(Arc::new(catalog)), &mut survey)?;
    Ok(survey)
}

/// Repairs a log: clears a torn tail, and begins a new segment behind a file that the log cannot go on in or
/// behind. It drops no byte: what a torn tail held, and spares that were in the way, are kept beside the
/// segments; files that are damaged stay as they are, are reported, and what is lost in them reads as
/// [`ErrorKind::Corrupt`].
///
/// Takes the writer's lock. It may be cut anywhere and run again. Running it twice changes nothing more. The
/// files it makes can be read by those who may read the log's directory.
///
/// # Errors
///
/// As [`survey`], and [`ErrorKind::Locked`] when somebody writes the log; [`ErrorKind::StorageFull`], also when
/// there is no number left for another segment.
pub fn repair(path: impl AsRef<Path>) -> Result<Repair> {
    let place = || Place { path: crate::segment::DIR.into(), segment: None, offset: None };
    let disk = RealDisk::alike(path.as_ref(), crate::segment::DIR)
        .map_err(|error| Error::io("repair", place(), error))?;
    mend(&disk)
}

/// As [`repair`], on a simulated disk.
///
/// # Errors
///
/// As [`repair`].
#[cfg(feature = "sim")]
pub fn repair_on(disk: &crate::disk::SimDisk) -> Result<Repair> {
    mend(disk)
}

fn mend(disk: &dyn Disk) -> Result<Repair> {
    let none = || Error::new(ErrorKind::NoLog, "repair");
    let names = match disk.list("") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(none()),
        result => result.map_err(|error| {
            let place = Place { path: "".into(), segment: None, offset: None };
            Error::io("repair", place, error)
        })?,
    };
    if !names.iter().any(|name| name == crate::segment::DIR) {
        return Err(none());
    }
    let _guard = lock(disk)?;
    let loaded = load(disk, Access::Write, Depth::Full)?.ok_or_else(none)?;
    let mut report = repair::repair(disk, &loaded)?;
    report.after = match report.changed_nothing() {
        true => report.before.clone(),
        false => load(disk, Access::Read, Depth::Full)?.ok_or_else(none)?.survey,
    };
    Ok(report)
}

/// Takes the lock of a log that is on disk.
pub(crate) fn lock(disk: &dyn Disk) -> Result<LockGuard> {
    let place = || Place { path: crate::segment::LOCK.into(), segment: None, offset: None };
    match disk.lock(crate::segment::LOCK) {
        Ok(crate::disk::Lock::Held(guard)) => Ok(guard),
        Ok(crate::disk::Lock::Busy(holder)) => {
            Err(Error::new(ErrorKind::Locked { holder }, "open").at(place()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::NoLog, "open"))
        }
        Err(error) => Err(Error::io("lock", place(), error)),
    }
}

/// Opens a log for writing, under its lock. `None`: nothing is on disk yet.
pub(crate) fn open(disk: &dyn Disk, options: &Options) -> Result<Option<Opened>> {
    let Some(loaded) = load(disk, Access::Write, Depth::Quick)? else {
        return Ok(None);
    };
    if loaded.survey.segments.iter().all(|one| one.state == SegmentState::Spare) {
        let spares = loaded.spares.iter().map(|spare| spare.header.number);
        repair::sweep(disk, &loaded.unfinished, spares.chain(loaded.worn))?;
        return Ok(None);
    }
    let refuse = |number: u32| {
        Error::corrupt("open", place(number, 0)).because(
            "the log cannot go on behind this file; read it, or repair it (`amberlog repair`)",
        )
    };
    if let Some(number) = loaded.in_the_way.first() {
        return Err(refuse(*number));
    }
    if let Some(cut) = loaded.survey.damages.iter().find(|one| one.kind == DamageKind::Cut) {
        // What was cut off may have been acknowledged; its positions must not be given again.
        return Err(refuse(cut.place.segment.unwrap_or(0)));
    }
    let Some((segment, end)) = loaded.last else {
        let number = loaded.survey.segments.iter().map(|one| one.number).max().unwrap_or(0);
        return Err(refuse(number + 1));
    };
    repair::clear_tail(&segment, &end)?;
    let wanted = segment.number() + 1;
    let usual = segment_bytes(options, wanted);
    let (mut spare, mut extra) = (None, loaded.worn);
    for one in loaded.spares {
        if one.header.number == wanted && one.header.reserved_bytes >= usual {
            spare = Some(one);
        } else {
            extra.push(one.header.number);
        }
    }
    repair::sweep(disk, &loaded.unfinished, extra)?;
    repair::sweep_superseded(disk, &loaded.catalog, &loaded.superseded)?;
    if let Some(one) = &spare
        && !broken(Sabotage::AdoptUnsynced)
    {
        // Whoever made it may have died before it, or its name, was durable.
        let failed = |error| Error::io("open", place(wanted, 0), error);
        one.file.sync_data().map_err(failed)?;
        disk.sync_dir(crate::segment::DIR).map_err(failed)?;
    }
    let length = segment.file.len().map_err(|error| segment.io_error("open", 0, error))?;
    let mark = Watermark {
        visible: end.next - 1,
        durable: end.next - 1,
        end: LogPlace::new(segment.number(), end.offset),
    };
    loaded.catalog.raise(mark);
    // Behind a clean close the file was cut. If it is long again, somebody died, or failed, before that was synced.
    let is_reserved =
        length >= segment.header.reserved_bytes && end.witnessed != Some(Ending::Clean);
    let (offset, unsealed, ids) = (end.offset, loaded.unsealed, loaded.ids);
    let tail = Tail { segment, offset, is_reserved, mark, spare, unsealed, ids };
    Ok(Some(Opened { catalog: loaded.catalog, survey: loaded.survey, tail }))
}

/// Whether every commit of a sealed segment is there and whole.
pub(crate) fn is_whole(segment: &Arc<Segment>) -> Result<bool> {
    Ok(matches!(sealed::check(segment)?, sealed::Verdict::Listed(losses) if losses.is_empty()))
}

/// Opens a log for reading only: no lock, no change, whoever may be writing (P12).
pub(crate) fn open_read(disk: Arc<dyn Disk>) -> Result<(Snapshot, Survey)> {
    let loaded = look(&*disk, Depth::Quick)?;
    loaded.catalog.raise(acknowledged(&loaded));
    loaded.catalog.lies_on(disk);
    Ok((Snapshot::new(Arc::new(loaded.catalog)), loaded.survey))
}

/// Opens the log, or the archive file, at `path`.
pub(crate) fn open_read_at(path: &Path) -> Result<(Snapshot, Survey)> {
    let Some((disk, name)) = RealDisk::of_file(path) else {
        return open_read(Arc::new(RealDisk::new(path, false)));
    };
    let loaded = load_alone(&disk, &name, Depth::Quick)?;
    Ok((Snapshot::new(Arc::new(loaded.catalog)), loaded.survey))
}

/// A log as somebody else may be writing it.
pub(crate) struct Standing {
    pub(crate) survey: Survey,
    /// The segment that commits go to; `None` when what there is of it is not all that there was.
    pub(crate) last: Option<Arc<Segment>>,
    /// What was acknowledged.
    pub(crate) snapshot: Snapshot,
}

/// Looks at a log without a lock.
pub(crate) fn standing(disk: &dyn Disk) -> Result<Standing> {
    let loaded = look(disk, Depth::Quick)?;
    let mark = acknowledged(&loaded);
    let is_cut = loaded.survey.damages.iter().any(|one| one.kind == DamageKind::Cut);
    let last = loaded.last.filter(|_| !is_cut).map(|(segment, _)| segment);
    loaded.catalog.raise(mark);
    Ok(Standing { survey: loaded.survey, last, snapshot: Snapshot::new(Arc::new(loaded.catalog)) })
}

/// How much of a log was acknowledged.
fn acknowledged(loaded: &Loaded) -> Watermark {
    let mut mark = loaded.catalog.watermark();
    let acknowledged = loaded.survey.acknowledged.get();
    if let Some((segment, end)) = &loaded.last
        && acknowledged < mark.visible
    {
        // What stands behind the watermark may not be synced yet, and may still be lost.
        mark.visible = acknowledged;
        mark.end = LogPlace::new(segment.number(), end.offset_behind(acknowledged));
    }
    mark.durable = mark.durable.min(mark.visible);
    mark
}

/// The same failure in the same place; elsewhere it may be what a writer is just doing there.
fn is_same(one: &Error, other: &Error) -> bool {
    one.kind() == other.kind() && one.place() == other.place()
}

/// Reads a log that somebody may be writing. Damage counts only when it is seen twice in the same place.
fn look(disk: &dyn Disk, depth: Depth) -> Result<Loaded> {
    let mut before: Option<Result<Survey>> = None;
    for _ in 0..LOOKS_MAX {
        let seen = load(disk, Access::Read, depth);
        match (seen, before.take()) {
            (Ok(None), _) => return Err(Error::new(ErrorKind::NoLog, "open")),
            (Ok(Some(loaded)), last) => {
                let same = matches!(&last, Some(Ok(last)) if last.damages == loaded.survey.damages);
                if loaded.survey.is_sound() || same {
                    return Ok(loaded);
                }
                before = Some(Ok(loaded.survey));
            }
            (Err(error), Some(Err(last))) if is_same(&error, &last) => return Err(error),
            (Err(error), _) => before = Some(Err(error)),
        }
    }
    // A writer that rolls faster than this can look: the last look has the last word.
    load(disk, Access::Read, depth)?.ok_or_else(|| Error::new(ErrorKind::NoLog, "open"))
}

impl Survey {
    /// The position of the first damage, for messages.
    #[must_use]
    pub fn first_damaged(&self) -> Option<Position> {
        self.damages.iter().map(|damage| damage.positions.start).min()
    }
}
