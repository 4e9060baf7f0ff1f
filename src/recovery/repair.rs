//! Changing the disk: clearing a torn tail, and going on behind what is damaged.
//!
//! Nothing that may have been acknowledged is dropped, and every step may be cut: what is done is done
//! again the same way.

use std::io::IoSlice;

use super::aside::{keep_bytes, set_aside};
use super::load::Loaded;
use super::report::{DamageKind, NewSegment, Repair, SegmentReport, SegmentState};
use super::walk::End;
use crate::catalog::Catalog;
use crate::disk::{Disk, copy_at, write_all_at};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{COMMIT_BYTES_MIN, COMMITS_AT, Ending, POSITION_MAX, Witness, witness};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{DIR, NUMBER_MAX, Segment, Spare, Zero, path, place};
use crate::types::{Position, StreamId, Timestamp};

/// How large the segment is that a repair begins.
const NEW_BYTES_MIN: u64 = 16 << 10;
const NEW_BYTES_MAX: u64 = 256 << 10;
/// How much a lost segment may have held: what segments usually grow to, and what they can.
const LOST_BYTES_MIN: u64 = 64 << 20;
const LOST_BYTES_MAX: u64 = 4 << 30;

/// Makes the end of the log certain: what is there above the watermark is written once more (after a
/// failed sync the page cache is no evidence), and then the log ends as a clean close ends it, with the file cut
/// behind a witness: of what stood there nothing can come back, whatever the cache has forgotten. Does nothing
/// when the end is certain already. Returns the bytes of the torn tail.
pub(super) fn clear_tail(segment: &Segment, end: &End) -> Result<u64> {
    let failed = |error| segment.io_error("repair", end.offset, error);
    let (file, behind) = (&*segment.file, end.offset + witness::BYTES as u64);
    let settled = match end.witnessed {
        Some(Ending::Settled) => end.torn_to.is_none(),
        Some(Ending::Clean) => file.len().map_err(failed)? == behind,
        // What was read may be in memory only, and so may be the zeros behind it (after a failed write, say).
        Some(Ending::Open) => broken(Sabotage::TrustWitness) && end.torn_to.is_none(),
        None => false,
    };
    if settled && end.witness_durable == end.next - 1 && !broken(Sabotage::RewriteOnOpen) {
        return Ok(0);
    }
    let write = || -> std::io::Result<()> {
        if !broken(Sabotage::TrustPageCache) {
            // Where the next record may start can lie behind the end of a file that was cut.
            let written = end.offset_behind(end.durable)..end.offset.min(file.len()?);
            copy_at(file, written.clone(), file, written.start)?;
        }
        file.sync_data()?;
        let bytes = Witness {
            position: end.next,
            durable: end.next - 1,
            time_micros: Timestamp::now().as_micros(),
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
    write().map_err(failed)?;
    Ok(end.torn_to.map_or(0, |to| to - end.torn_from()))
}

/// Removes spares, and what was never finished.
pub(super) fn sweep(
    disk: &dyn Disk,
    unfinished: &[String],
    spares: impl IntoIterator<Item = u32>,
) -> Result<()> {
    for path in unfinished {
        let place = Place { path: path.into(), segment: None, offset: None };
        disk.remove(path).map_err(|error| Error::io("sweep", place, error))?;
    }
    for number in spares {
        disk.remove(&path(number)).map_err(|error| Error::io("sweep", place(number, 0), error))?;
    }
    Ok(())
}

/// Removes files whose commits are in a later, sparse segment, once that one is known to be whole and durable. As long
/// as it is not, they stay.
pub(super) fn sweep_superseded(
    disk: &dyn Disk,
    catalog: &Catalog,
    superseded: &[(u32, u32)],
) -> Result<()> {
    let segments = catalog.segments();
    for (number, by) in superseded {
        let Some(sparse) = segments.get(*by) else { continue };
        if super::is_whole(sparse)? {
            // Whoever made it may have died before it, or its name, was durable.
            let failed = |error| Error::io("sweep", place(*number, 0), error);
            sparse.file.sync_data().map_err(failed)?;
            disk.sync_dir(DIR).map_err(failed)?;
            disk.remove(&path(*number)).map_err(failed)?;
        }
    }
    Ok(())
}

/// The explicit repair. No byte of a damaged file is touched, and none that is touched is lost.
pub(super) fn repair(disk: &dyn Disk, loaded: &Loaded) -> Result<Repair> {
    let mut report = Repair { before: loaded.survey.clone(), ..Repair::default() };
    let is_cut = report.before.damages.iter().any(|one| one.kind == DamageKind::Cut);
    let used = |one: &&SegmentReport| one.state != SegmentState::Spare;
    let highest = report.before.segments.iter().filter(used).map(|one| one.number).max();
    match (&loaded.last, highest) {
        (Some((segment, end)), _) if !is_cut && loaded.in_the_way.is_empty() => {
            if let Some(torn_to) = end.torn_to {
                let kept_to = torn_to.max(end.offset + witness::BYTES as u64);
                let range = end.offset..kept_to;
                report.set_aside.push(keep_bytes(disk, segment, range)?);
                report.cleared_bytes = clear_tail(segment, end)?;
            }
        }
        (_, Some(highest)) => {
            let spares = loaded.spares.iter().map(|spare| spare.header.number);
            for number in spares.chain(loaded.worn.iter().copied()) {
                report.set_aside.push(set_aside(disk, number)?);
            }
            report.went_on = Some(go_on(disk, loaded, highest)?);
        }
        // Nothing was ever committed.
        (_, None) => {}
    }
    Ok(report)
}

/// Makes an empty segment behind all others; its witness says at which position it starts. Positions that may
/// have been given are never given again: it starts behind all that what was lost could have held.
fn go_on(disk: &dyn Disk, loaded: &Loaded, highest: u32) -> Result<NewSegment> {
    let number = highest + 1;
    let survey = &loaded.survey;
    let reserved = loaded.last.as_ref().map_or(0, |(segment, _)| segment.header.reserved_bytes);
    let largest = survey.segments.iter().map(|one| one.bytes).max().unwrap_or(0).max(reserved);
    let damaged = survey.segments.iter().filter(|one| loaded.in_the_way.contains(&one.number));
    // What is missing altogether may have been twice as large as the largest that is there.
    let lost_bytes = damaged.map(|one| one.bytes).sum::<u64>();
    let lost_bytes =
        lost_bytes.max(largest.saturating_mul(2)).clamp(LOST_BYTES_MIN, LOST_BYTES_MAX);
    let seen = loaded.last.as_ref().map_or(0, |(_, end)| end.seen);
    let first = seen.max(survey.position.get() + 1) + lost_bytes / COMMIT_BYTES_MIN;
    if number > NUMBER_MAX || first > POSITION_MAX {
        return Err(Error::new(ErrorKind::StorageFull, "repair").at(place(number, 0)));
    }
    let log_id = loaded.log_id.unwrap_or(*StreamId::new().as_bytes());
    let bytes = reserved.clamp(NEW_BYTES_MIN, NEW_BYTES_MAX);
    let make = || {
        let spare = Spare::prepare(disk, log_id, number, bytes, Zero::Written)?;
        let witness = Witness {
            position: first,
            durable: first - 1,
            time_micros: spare.header.created_micros,
            ending: Ending::Settled,
        };
        let bytes = witness.encode(spare.header.salt);
        write_all_at(&*spare.file, &mut [IoSlice::new(&bytes)], COMMITS_AT)?;
        spare.file.sync_data()?;
        spare.publish(disk)
    };
    make().map_err(|error| Error::io("repair", place(number, 0), error))?;
    Ok(NewSegment { place: place(number, 0), first: Position(first) })
}

const _: () = assert!(witness::BYTES as u64 <= COMMIT_BYTES_MIN);
