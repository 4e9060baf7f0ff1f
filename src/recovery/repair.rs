//! Repairs on disk: clears a torn tail, and continues the log after damage.
//!
//! A repair keeps everything that may have been acknowledged. Each step can be interrupted, and the
//! next repair repeats it with the same result.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::load::Loaded;
use super::quarantine::{keep_bytes, quarantine_file};
use super::replay::End;
use super::report::{DamageKind, NewSegment, RepairReport, SegmentReport, SegmentState};
use crate::catalog::Catalog;
use crate::disk::{Disk, IoResultExt, copy_at, write_all_at};
use crate::error::{Error, ErrorKind, Result, is_full};
use crate::format::{COMMIT_BYTES_MIN, COMMITS_AT, Ending, POSITION_MAX, TailRecord, tail_record};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{
    DIR, FilePool, NUMBER_MAX, OldFile, Segment, Spare, Zero, open_own, path, place, place_of,
    remove_made, unfinished_path,
};
use crate::types::{Position, StreamId, Timestamp};

/// Size limits of the segment that a repair creates.
const NEW_BYTES_MIN: u64 = 16 << 10;
const NEW_BYTES_MAX: u64 = 256 << 10;
/// Limits of the assumed size of a lost segment: the usual and the maximum size of a segment.
const LOST_BYTES_MIN: u64 = 64 << 20;
const LOST_BYTES_MAX: u64 = 4 << 30;

/// Settles the end of the log and returns the number of bytes of the torn tail.
///
/// Writes the commits above the watermark again, because the page cache proves nothing after a
/// failed sync. Then ends the log like a clean close: a tail record, with the file truncated after
/// it, so that no bytes of the torn tail can reappear. Does nothing if the end is settled already.
pub(super) fn clear_tail(
    files: &FilePool,
    segment: &Segment,
    end: &End,
    vouched: Option<Timestamp>,
) -> Result<u64> {
    let here = || segment.place(end.offset);
    let file = &*segment.file_to_write(files)?;
    let behind = end.behind_tail_record();
    let settled = match end.witnessed {
        Some(Ending::Settled) => end.torn_to.is_none(),
        Some(Ending::Clean) => file.len().at("repair", here)? == behind,
        // The bytes that were read, and the zeros after them, may exist only in the page cache.
        Some(Ending::Open) => broken(Sabotage::TrustTailRecord) && end.torn_to.is_none(),
        None => false,
    };
    if settled && end.tail_record_durable == end.last_position() && !broken(Sabotage::RewriteOnOpen)
    {
        return Ok(0);
    }
    let write = || -> std::io::Result<()> {
        // In a truncated file, the offset of the next record can exceed the file's length.
        let written = end.offset_behind(end.durable)..end.offset.min(file.len()?);
        copy_at(file, written.clone(), file, written.start)?;
        file.sync_data()?;
        let bytes = TailRecord {
            position: end.next,
            durable: end.last_position(),
            vouched: vouched.unwrap_or_default(),
            ending: Ending::Clean,
        }
        .encode(segment.header.salt);
        write_all_at(file, &mut [IoSlice::new(&bytes)], end.offset)?;
        file.sync_data()?;
        if !broken(Sabotage::LeaveTornTail) {
            file.set_len(behind)?;
        }
        file.sync_data()
    };
    write().at("repair", here)?;
    Ok(end.torn_bytes())
}

/// Removes spares and unfinished files that discovery has attributed to this log.
pub(super) fn sweep(
    disk: &dyn Disk,
    unfinished: &[String],
    spares: impl IntoIterator<Item = Spare>,
) -> Result<()> {
    for path in unfinished {
        disk.remove(path).at("sweep", || place_of(path))?;
    }
    for spare in spares {
        let number = spare.header.number;
        let removed = remove_made(disk, &path(number), &*spare.file);
        removed.at("sweep", || place(number, 0))?;
    }
    Ok(())
}

/// Removes files whose commits are in a later, sparse segment, once that segment is known to be
/// whole and durable. Keeps them until then.
pub(super) fn sweep_superseded(
    files: &Arc<FilePool>,
    catalog: &Catalog,
    superseded: &[(OldFile, u32)],
) -> Result<()> {
    let (disk, segments) = (files.disk(), catalog.segments());
    let mut made_again = None;
    for (old, by) in superseded {
        let Some(sparse) = segments.get(*by) else { continue };
        if super::is_whole(sparse, files)? {
            let here = || place(old.header.number, 0);
            if made_again != Some(*by) {
                match make_again(files, sparse) {
                    Err(error) if is_full(&error) => continue,
                    result => result.at("sweep", here)?,
                }
                made_again = Some(*by);
            }
            old.remove(&**disk).at("sweep", here)?;
        }
    }
    Ok(())
}

/// Replaces a segment by a copy, because its compactor may have stopped before the segment or its
/// name was durable. Another sync proves nothing about a name that a failed sync has lost (F46);
/// the name of a new file is unaffected.
fn make_again(files: &FilePool, segment: &Segment) -> io::Result<()> {
    let disk = &**files.disk();
    let path = segment.path();
    let found = files.open_path(&path)?;
    let unfinished = unfinished_path(&segment.header);
    let copy = disk.create(&unfinished)?;
    let made = || {
        copy_at(&*found, 0..found.len()?, &*copy, 0)?;
        copy.sync_data()?;
        if !segment.is_gone() {
            open_own(disk, &segment.header)?;
        }
        disk.replace(&unfinished, &path)?;
        disk.sync_dir(DIR)
    };
    made().inspect_err(|_| drop(remove_made(disk, &unfinished, &*copy)))
}

/// Repairs a loaded log. Leaves damaged files unchanged, and quarantines all bytes that it clears.
pub(super) fn repair(loaded: &Loaded) -> Result<RepairReport> {
    let (files, disk) = (&*loaded.files, &**loaded.files.disk());
    let mut report = RepairReport { before: loaded.report.clone(), ..RepairReport::default() };
    let is_cut = report.before.damages.iter().any(|damage| damage.kind == DamageKind::Cut);
    let used = |segment: &&SegmentReport| segment.state != SegmentState::Spare;
    let highest = report.before.segments.iter().filter(used).map(|segment| segment.number).max();
    match (&loaded.last, highest) {
        (Some((segment, end)), _) if !is_cut && loaded.in_the_way.is_empty() => {
            if let Some(torn_to) = end.torn_to {
                let kept_to = torn_to.max(end.behind_tail_record());
                let range = end.offset..kept_to;
                report.set_aside.push(keep_bytes(files, segment, range)?);
                report.cleared_bytes = clear_tail(files, segment, end, loaded.vouched)?;
            }
        }
        (_, Some(highest)) => {
            for spare in loaded.spares.iter().chain(&loaded.damaged_spares) {
                report.set_aside.push(quarantine_file(disk, spare.number)?);
            }
            // An interrupted repair may have left unfinished files.
            sweep(disk, &loaded.unfinished, [])?;
            report.went_on = Some(continue_after(disk, loaded, highest)?);
        }
        // Nothing was ever committed.
        (_, None) => {}
    }
    Ok(report)
}

/// Creates an empty segment after all others; its tail record states its first position. No
/// position that may have been assigned is reused: the segment starts after the most commits that
/// the lost bytes could have held.
fn continue_after(disk: &dyn Disk, loaded: &Loaded, highest: u32) -> Result<NewSegment> {
    let number = highest.saturating_add(1);
    let report = &loaded.report;
    let reserved = loaded.last.as_ref().map_or(0, |(segment, _)| segment.header.reserved_bytes);
    let largest =
        report.segments.iter().map(|segment| segment.bytes).max().unwrap_or(0).max(reserved);
    let damaged = report
        .segments
        .iter()
        .filter(|segment| loaded.in_the_way.binary_search(&segment.number).is_ok());
    // A missing segment may have been twice as large as the largest remaining segment.
    let lost_bytes = damaged.map(|segment| segment.bytes).fold(0, u64::saturating_add);
    let lost_bytes =
        lost_bytes.max(largest.saturating_mul(2)).clamp(LOST_BYTES_MIN, LOST_BYTES_MAX);
    let seen = loaded.last.as_ref().map_or(0, |(_, end)| end.seen);
    let next = report.position.get().saturating_add(1);
    let first = seen.max(next).saturating_add(lost_bytes / COMMIT_BYTES_MIN);
    if number > NUMBER_MAX || first > POSITION_MAX {
        return Err(Error::new(ErrorKind::StorageFull, "repair").at(place(number, 0)));
    }
    let log_id = loaded.log_id.unwrap_or(*StreamId::new().as_bytes());
    let bytes = reserved.clamp(NEW_BYTES_MIN, NEW_BYTES_MAX);
    let make = || {
        let spare = Spare::prepare(disk, log_id, number, bytes, Zero::Written)?;
        let tail_record = TailRecord {
            position: first,
            durable: first.saturating_sub(1),
            vouched: loaded.vouched.unwrap_or_default(),
            ending: Ending::Settled,
        };
        let bytes = tail_record.encode(spare.header.salt);
        write_all_at(&*spare.file, &mut [IoSlice::new(&bytes)], COMMITS_AT)?;
        spare.file.sync_data()?;
        spare.publish(disk).inspect_err(|_| spare.remove(disk))
    };
    make().at("repair", || place(number, 0))?;
    Ok(NewSegment { place: place(number, 0), first: Position(first) })
}

const _: () = assert!(tail_record::BYTES as u64 <= COMMIT_BYTES_MIN);
