//! Opening, verification and repair of a log.
//!
//! Opening discovers the files, replays them in order, finds the end of the log, and clears a torn
//! tail. Any other repair is made only when the caller asks for it with [`repair()`]. Verification
//! changes nothing.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod access;
pub(crate) mod apply;
pub(crate) mod discover;
mod findings;
mod fold;
mod ids;
mod judge;
mod later;
mod load;
mod parallel;
mod quarantine;
mod repair;
mod replay;
mod report;
mod sealed;
mod unread;

use std::path::Path;
use std::sync::Arc;

pub use report::{
    Damage, DamageKind, NewSegment, RecoveryReport, RepairReport, SegmentReport, SegmentState,
    TornTail, Unreadable,
};

use self::access::{Access, LoadDepth};
use self::load::{Loaded, load, load_alone};
use crate::catalog::{Catalog, CommitIds, ReadView, Watermark};
use crate::disk::{Disk, DiskFile, HeldLock, IoResultExt, LockGuard, RealDisk};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::SegmentHeader;
use crate::format::{Ending, Lsn};
use crate::options::{Options, ReadOptions, Reads};
use crate::segment::{
    DIR, FilePool, LOCK, OPEN_SEGMENTS_FEW, Segment, Spare, place, place_of, segment_bytes,
};
use crate::types::Timestamp;

/// Maximum number of reads of an unlocked log whose apparent damage keeps changing. A writer at
/// work causes such changes; damage stays.
const LOOKS_MAX: usize = 32;

/// Log that is ready for its writer.
pub(crate) struct Opened {
    pub(crate) catalog: Catalog,
    pub(crate) report: RecoveryReport,
    pub(crate) tail: Tail,
}

/// End of an opened log, where its writer continues.
pub(crate) struct Tail {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) claim: LockGuard,
    pub(crate) offset: u64,
    /// True if the file is as long as its header states.
    pub(crate) is_reserved: bool,
    pub(crate) mark: Watermark,
    /// Segment without commits that has the next number.
    pub(crate) spare: Option<Spare>,
    /// Full segments without a footer: segment, end of its commits, last position.
    pub(crate) unsealed: Vec<(Arc<Segment>, u64, u64)>,
    pub(crate) ids: CommitIds,
    /// Latest time that earlier writers vouched for.
    pub(crate) vouched: Option<Timestamp>,
}

/// Reads every byte of a log and reports its state; changes nothing and takes no lock.
///
/// Blocks until the whole log is read.
///
/// # Errors
///
/// [`ErrorKind::NoLog`] when there is none; [`ErrorKind::UnsupportedVersion`] and
/// [`ErrorKind::UnsupportedFeature`] when a newer version wrote it; [`ErrorKind::Io`] when it
/// cannot be read. Damage is not an error: the report lists it.
pub fn verify_quick(path: impl AsRef<Path>) -> Result<RecoveryReport> {
    let path = path.as_ref();
    let loaded = match RealDisk::of_file(path) {
        Some((disk, name)) => load_alone(&looking(&(Arc::new(disk) as _)), &name, LoadDepth::Full),
        None => real(path).and_then(|disk| look(&disk, LoadDepth::Full)),
    };
    Ok(loaded.map_err(|error| error.in_log(path))?.report)
}

/// Opens the log's directory for reading.
fn real(path: &Path) -> Result<Arc<dyn Disk>> {
    Ok(Arc::new(RealDisk::new(path, false).at("open", Place::root)?))
}

/// Runs [`verify_quick`] on a simulated disk.
///
/// # Errors
///
/// Fails like [`verify_quick`].
#[cfg(feature = "sim")]
pub fn verify_quick_on(disk: &crate::disk::SimDisk) -> Result<RecoveryReport> {
    Ok(look(&(Arc::new(disk.hold()) as _), LoadDepth::Full)?.report)
}

/// Repairs a log: clears a torn tail, or begins a new segment if damage at the end of the log
/// prevents a writer from continuing.
///
/// Repair drops no byte. It quarantines the bytes of a torn tail, and spares that obstruct the new
/// segment, in files beside the segments. Damaged files stay unchanged and are reported; reading
/// what is lost in them returns [`ErrorKind::Corrupt`].
///
/// Takes the writer's lock. An interrupted repair can be run again, and a second repair changes
/// nothing more. The files it creates have the read permissions of the log's directory.
///
/// # Errors
///
/// Fails like [`verify_quick`], and with [`ErrorKind::Locked`] when a writer has the log open, or
/// [`ErrorKind::StorageFull`] when the disk is full or no segment number is left.
pub fn repair(path: impl AsRef<Path>) -> Result<RepairReport> {
    let path = path.as_ref();
    let disk = RealDisk::alike(path, DIR).at("repair", Place::root);
    disk.and_then(|disk| mend(&(Arc::new(disk) as _))).map_err(|error| error.in_log(path))
}

/// Runs [`repair`] on a simulated disk.
///
/// # Errors
///
/// Fails like [`repair`].
#[cfg(feature = "sim")]
pub fn repair_on(disk: &crate::disk::SimDisk) -> Result<RepairReport> {
    mend(&(Arc::new(disk.hold()) as _))
}

fn mend(disk: &Arc<dyn Disk>) -> Result<RepairReport> {
    let none = || Error::new(ErrorKind::NoLog, "repair");
    let names = match disk.list("") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(none()),
        result => result.at("repair", || place_of(""))?,
    };
    if !names.iter().any(|name| name == DIR) {
        return Err(none());
    }
    let _guard = lock(&**disk)?;
    let access = Access::Write { commit_ids_max: 0 };
    let (loaded, _claims) = load_claimed(disk, access, LoadDepth::Full)?.ok_or_else(none)?;
    let mut report = repair::repair(&loaded)?;
    report.after = match report.changed_nothing() {
        true => report.before.clone(),
        false => load(&looking(disk), Access::Read, LoadDepth::Full)?.ok_or_else(none)?.report,
    };
    Ok(report)
}

/// Takes the lock of a log that is on disk.
pub(crate) fn lock(disk: &dyn Disk) -> Result<HeldLock> {
    match crate::disk::lock(disk, LOCK) {
        Ok(crate::disk::Lock::Held(guard)) => Ok(guard),
        Ok(crate::disk::Lock::Busy(holder)) => {
            Err(Error::new(ErrorKind::Locked { holder }, "open").at(place_of(LOCK)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::NoLog, "open"))
        }
        Err(error) => Err(error).at("lock", || place_of(LOCK)),
    }
}

/// Locked files that a writer may change.
struct Claims {
    /// The file of the last segment.
    last: Option<(Arc<dyn DiskFile>, LockGuard)>,
    spares: Vec<Spare>,
    /// Spares with one damaged copy of their header.
    damaged_spares: Vec<Spare>,
}

/// Reads a log under its lock, and also locks the files a writer may change: the last segment and
/// the spares. A writer that still holds them has lost the `LOCK` file without noticing (F41).
fn load_claimed(
    disk: &Arc<dyn Disk>,
    access: Access,
    depth: LoadDepth,
) -> Result<Option<(Loaded, Claims)>> {
    for _ in 0..LOOKS_MAX {
        let Some(loaded) = load(&looking(disk), access, depth)? else { return Ok(None) };
        let claims = claim(&loaded)?;
        // A writer that has rotated since then holds other files.
        let names = disk.list(DIR).at("list", || place_of(DIR))?;
        if let Some(claims) = claims
            && discover::numbers(&names) == loaded.numbers
        {
            return Ok(Some((loaded, claims)));
        }
    }
    Err(Error::new(ErrorKind::Locked { holder: None }, "open"))
}

/// Locks the last segment and the spares. Returns `None` if any of the files no longer exists.
fn claim(loaded: &Loaded) -> Result<Option<Claims>> {
    let busy = |number| Error::new(ErrorKind::Locked { holder: None }, "open").at(place(number, 0));
    let files = &loaded.files;
    let mut last = None;
    if let Some((segment, _)) = &loaded.last {
        let number = segment.number();
        let Some(file) = there(segment.file_to_write(files))? else { return Ok(None) };
        segment.hold(Arc::clone(&file));
        let Some(lock) = Arc::clone(&file).lock().at("lock", || place(number, 0))? else {
            return Err(busy(number));
        };
        last = Some((file, lock));
    }
    let all = |headers: &[SegmentHeader]| {
        let mut claimed = Vec::with_capacity(headers.len());
        for header in headers {
            let Some(mut spare) = there(Spare::reopen(files, *header))? else { return Ok(None) };
            if !spare.claim().at("lock", || place(header.number, 0))? {
                return Err(busy(header.number));
            }
            claimed.push(spare);
        }
        Ok(Some(claimed))
    };
    let (Some(spares), Some(damaged_spares)) = (all(&loaded.spares)?, all(&loaded.damaged_spares)?)
    else {
        return Ok(None);
    };
    Ok(Some(Claims { last, spares, damaged_spares }))
}

/// Turns an open error into `None` if the file no longer exists or another file has its name.
fn there<T>(opened: Result<T>) -> Result<Option<T>> {
    match opened {
        Err(error) if error.is_gone() => Ok(None),
        opened => opened.map(Some),
    }
}

/// Opens a log for writing, under its lock. Returns `None` if nothing is on disk yet.
pub(crate) fn open(disk: &Arc<dyn Disk>, options: &Options) -> Result<Option<Opened>> {
    let access = Access::Write { commit_ids_max: options.commit_ids_max };
    let Some((loaded, claims)) = load_claimed(disk, access, LoadDepth::Quick)? else {
        return Ok(None);
    };
    if loaded.report.segments.iter().all(|report| report.state == SegmentState::Spare) {
        repair::sweep(
            &**disk,
            &loaded.unfinished,
            claims.spares.into_iter().chain(claims.damaged_spares),
        )?;
        return Ok(None);
    }
    let (files, disk) = (loaded.files, &**disk);
    let refuse = |number: u32| {
        Error::corrupt("open", place(number, 0)).because(
            "the log cannot continue after this file; read the log, or repair it (`amberlog repair`)",
        )
    };
    if let Some(number) = loaded.in_the_way.first() {
        return Err(refuse(*number));
    }
    if let Some(cut) = loaded.report.damages.iter().find(|damage| damage.kind == DamageKind::Cut) {
        // The lost bytes may hold acknowledged commits, whose positions must not be reused.
        return Err(refuse(cut.place.segment.unwrap_or(0)));
    }
    let (Some((segment, end)), Some((file, claim))) = (loaded.last, claims.last) else {
        let number = loaded.report.segments.iter().map(|report| report.number).max().unwrap_or(0);
        return Err(refuse(number.saturating_add(1)));
    };
    repair::clear_tail(&files, &segment, &end, loaded.vouched)?;
    let wanted = segment.number().saturating_add(1);
    let usual = segment_bytes(options, wanted);
    let (mut spare, mut extra) = (None, claims.damaged_spares);
    for found in claims.spares {
        if found.header.number == wanted && found.header.reserved_bytes >= usual {
            spare = Some(found);
        } else {
            extra.push(found);
        }
    }
    repair::sweep(disk, &loaded.unfinished, extra)?;
    repair::sweep_superseded(&files, &loaded.catalog, &loaded.superseded)?;
    if let Some(spare) = &spare {
        // Its writer may have stopped before the spare or its name was durable.
        let synced = spare.file.sync_data().and_then(|()| spare.publish_again(disk));
        synced.at("open", || place(wanted, 0))?;
    }
    let length = file.len().at("open", || segment.place(0))?;
    let mark = Watermark {
        visible: end.last_position(),
        durable: end.last_position(),
        end: Lsn::new(segment.number(), end.offset),
    };
    loaded.catalog.raise(mark);
    // A clean close truncates the file. A longer file means that the truncation was not synced.
    let is_reserved =
        length >= segment.header.reserved_bytes && end.witnessed != Some(Ending::Clean);
    let (offset, unsealed) = (end.offset, loaded.unsealed);
    let (ids, vouched) = (loaded.ids, loaded.vouched);
    let tail =
        Tail { segment, file, claim, offset, is_reserved, mark, spare, unsealed, ids, vouched };
    Ok(Some(Opened { catalog: loaded.catalog, report: loaded.report, tail }))
}

/// Returns true if every commit of a sealed segment exists and is whole.
pub(crate) fn is_whole(segment: &Arc<Segment>, files: &Arc<FilePool>) -> Result<bool> {
    Ok(
        matches!(sealed::check(segment, files)?, sealed::FooterCheck::Listed(losses) if losses.is_empty()),
    )
}

/// Opens a log for reading only, without a lock or a change, even while it is written (P12).
pub(crate) fn open_read(
    disk: &Arc<dyn Disk>,
    options: &ReadOptions,
) -> Result<(ReadView, RecoveryReport)> {
    let loaded = look(disk, LoadDepth::Quick)?;
    if !options.shows_unconfirmed {
        loaded.catalog.raise(acknowledged(&loaded));
    }
    Ok(show(loaded, disk, options))
}

/// Opens the log, or the archive file, at `path`.
pub(crate) fn open_read_at(
    path: &Path,
    options: &ReadOptions,
) -> Result<(ReadView, RecoveryReport)> {
    let Some((disk, name)) = RealDisk::of_file(path) else {
        return open_read(&real(path)?, options);
    };
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let loaded = load_alone(&looking(&disk), &name, LoadDepth::Quick)?;
    Ok(show(loaded, &disk, options))
}

/// Creates a read-only view. No compactor waits for such a view to end, so it opens as many
/// segments as it may at once.
fn show(loaded: Loaded, disk: &Arc<dyn Disk>, options: &ReadOptions) -> (ReadView, RecoveryReport) {
    let files = FilePool::new(Arc::clone(disk), options.reads, options.open_segments_max);
    loaded.catalog.read_by(Arc::clone(&files));
    let view = ReadView::new(Arc::new(loaded.catalog));
    // The newest segments come last, so that they stay open when the pool is full.
    let skipped = view.segments.iter().count().saturating_sub(files.open_segments_max());
    view.segments.iter().skip(skipped).for_each(|segment| segment.warm(&files));
    (view, loaded.report)
}

/// State of a log that another process may be writing.
pub(crate) struct Standing {
    pub(crate) report: RecoveryReport,
    /// Segment that receives commits; `None` if its end is lost.
    pub(crate) last: Option<Arc<Segment>>,
    /// View of the acknowledged commits.
    pub(crate) view: ReadView,
}

/// Reads the state of a log without a lock.
pub(crate) fn standing(disk: &Arc<dyn Disk>) -> Result<Standing> {
    let loaded = look(disk, LoadDepth::Quick)?;
    let mark = acknowledged(&loaded);
    let hides_end = |kind| matches!(kind, DamageKind::Cut | DamageKind::Unreadable);
    let is_cut = loaded.report.damages.iter().any(|damage| hides_end(damage.kind));
    let last = loaded.last.filter(|_| !is_cut).map(|(segment, _)| segment);
    loaded.catalog.raise(mark);
    loaded.catalog.read_by(loaded.files);
    Ok(Standing { report: loaded.report, last, view: ReadView::new(Arc::new(loaded.catalog)) })
}

/// Returns the watermark of the acknowledged commits.
fn acknowledged(loaded: &Loaded) -> Watermark {
    let mut mark = loaded.catalog.watermark();
    let acknowledged = loaded.report.acknowledged.get();
    if let Some((segment, end)) = &loaded.last
        && acknowledged < mark.visible
    {
        // Commits after the watermark may not be synced yet and can still be lost.
        mark.visible = acknowledged;
        mark.end = Lsn::new(segment.number(), end.offset_behind(acknowledged));
    }
    mark.durable = mark.durable.min(mark.visible);
    mark
}

/// Returns true if both errors have the same kind and place. An error elsewhere may be a trace of a
/// writer at work.
fn is_same(error: &Error, other: &Error) -> bool {
    error.kind() == other.kind() && error.place() == other.place()
}

/// Creates a file pool for one pass over the log. It maps no file, so an unreadable sector is
/// reported as damage and raises no signal.
fn looking(disk: &Arc<dyn Disk>) -> Arc<FilePool> {
    FilePool::new(Arc::clone(disk), Reads::Positional, OPEN_SEGMENTS_FEW)
}

/// Reads a log that may be written meanwhile. Damage counts only if two reads find it in the same
/// place.
fn look(disk: &Arc<dyn Disk>, depth: LoadDepth) -> Result<Loaded> {
    let mut before: Option<Result<RecoveryReport>> = None;
    for _ in 0..LOOKS_MAX {
        let seen = load(&looking(disk), Access::Read, depth);
        match (seen, before.take()) {
            (Ok(None), _) => return Err(Error::new(ErrorKind::NoLog, "open")),
            (Ok(Some(loaded)), last) => {
                let same = matches!(&last, Some(Ok(last)) if last.damages == loaded.report.damages);
                if loaded.report.is_sound() || same {
                    return Ok(loaded);
                }
                before = Some(Ok(loaded.report));
            }
            // A file that is gone was compacted meanwhile, maybe the next one of its name as well.
            (Err(error), Some(Err(last))) if is_same(&error, &last) && !error.is_gone() => {
                return Err(error);
            }
            (Err(error), _) => before = Some(Err(error)),
        }
    }
    // A writer rotates segments faster than they can be read: the result of the last read stands.
    load(&looking(disk), Access::Read, depth)?.ok_or_else(|| Error::new(ErrorKind::NoLog, "open"))
}
