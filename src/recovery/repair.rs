//! Changing the disk: clearing a torn tail, and setting files aside.
//!
//! Nothing that may have been acknowledged is dropped, and every step may be cut: what is done is done
//! again the same way.

use std::io::IoSlice;

use super::load::Loaded;
use super::report::{DamageKind, Repair, SegmentState};
use super::walk::End;
use crate::disk::{Disk, read_exact_at, write_all_at, write_zeros_at};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{COMMIT_BYTES_MIN, COMMITS_AT, POSITION_MAX, Witness, witness};
use crate::options::Options;
use crate::sabotage::{Sabotage, broken};
use crate::segment::{DIR, NUMBER_MAX, Segment, Spare, Zero, path, place, segment_bytes};
use crate::types::{StreamId, Timestamp};

/// Makes the end of the log certain: what is there above the watermark is written once more (after a
/// failed sync the page cache is no evidence), what is behind it becomes zeros, and a witness says so.
/// Does nothing when the end is certain already. Returns the bytes cleared.
pub(super) fn clear_tail(segment: &Segment, end: &End) -> Result<u64> {
    let certain = end.witnessed.is_some() && end.witness_durable == end.next - 1;
    if certain && end.torn_to.is_none() {
        return Ok(0);
    }
    let file = &*segment.file;
    let write = || -> std::io::Result<()> {
        if !broken(Sabotage::TrustPageCache) {
            rewrite(segment, end.offset_behind(end.durable), end.offset)?;
        }
        if !broken(Sabotage::LeaveTornTail) {
            let cleared_to = end.torn_to.unwrap_or(end.offset);
            write_zeros_at(file, end.offset, cleared_to)?;
        }
        file.sync_data()?;
        let bytes = Witness {
            position: end.next,
            durable: end.next - 1,
            time_micros: Timestamp::now().as_micros(),
            clean: false,
        }
        .encode(segment.header.salt);
        write_all_at(file, &mut [IoSlice::new(&bytes)], end.offset)?;
        file.sync_data()
    };
    write().map_err(|error| segment.io_error("repair", end.offset, error))?;
    Ok(end.torn_to.map_or(0, |to| to - end.offset))
}

fn rewrite(segment: &Segment, from: u64, to: u64) -> std::io::Result<()> {
    const PIECE_BYTES: u64 = 1 << 20;
    let mut piece = vec![0; PIECE_BYTES.min(to.saturating_sub(from)) as usize];
    // Where the next record may start can lie behind the end of a file that was cut.
    let to = to.min(segment.file.len()?);
    let mut at = from;
    while at < to {
        let bytes = &mut piece[..PIECE_BYTES.min(to - at) as usize];
        read_exact_at(&*segment.file, bytes, at)?;
        write_all_at(&*segment.file, &mut [IoSlice::new(bytes)], at)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

/// Removes files of zeros that an earlier writer had made ready.
pub(super) fn sweep(disk: &dyn Disk, numbers: impl IntoIterator<Item = u32>) -> Result<()> {
    for number in numbers {
        disk.remove(&path(number)).map_err(|error| Error::io("sweep", place(number, 0), error))?;
    }
    Ok(())
}

/// The explicit repair.
pub(super) fn repair(disk: &dyn Disk, loaded: Loaded, options: &Options) -> Result<Repair> {
    let mut report = Repair { before: loaded.survey, ..Repair::default() };
    let highest = report.before.segments.iter().map(|one| one.number).max().unwrap_or(0);
    let mut lost_bytes = 0;
    for number in &loaded.in_the_way {
        lost_bytes += bytes_of(&report, *number);
        report.set_aside.push(set_aside(disk, *number)?);
    }
    let is_cut = report.before.damages.iter().any(|one| one.kind == DamageKind::Cut);
    if let Some((segment, end)) = &loaded.last
        && loaded.in_the_way.is_empty()
        && !is_cut
    {
        report.cleared_bytes = clear_tail(segment, end)?;
    }
    let mut extra: Vec<u32> = loaded.spares.iter().map(|spare| spare.header.number).collect();
    extra.extend(&loaded.blanks);
    sweep(disk, extra.iter().copied())?;
    report.removed = extra.into_iter().map(|number| place(number, 0)).collect();
    let any = report
        .before
        .segments
        .iter()
        .any(|one| !matches!(one.state, SegmentState::Spare | SegmentState::Unusable));
    if any && (loaded.last.is_none() || is_cut || !loaded.in_the_way.is_empty()) {
        report.went_on = true;
        // Positions that may have been given are never given again: the new segment starts behind all
        // that the lost one could have held.
        let lost_bytes = lost_bytes.max(options.segment_bytes_max);
        let seen = loaded.last.as_ref().map_or(0, |(_, end)| end.seen);
        let first = seen.max(report.before.position.get() + 1) + lost_bytes / COMMIT_BYTES_MIN;
        let log_id = loaded.log_id.unwrap_or(*StreamId::new().as_bytes());
        go_on(disk, options, log_id, highest + 1, first)?;
    }
    Ok(report)
}

fn bytes_of(report: &Repair, number: u32) -> u64 {
    let found = report.before.segments.iter().find(|one| one.number == number);
    found.map_or(0, |one| one.bytes)
}

/// Gives a file another name, under which it is no segment any more.
fn set_aside(disk: &dyn Disk, number: u32) -> Result<Place> {
    let aside = format!("{}.damaged", path(number));
    let failed = |error| Error::io("set aside", place(number, 0), error);
    disk.rename(&path(number), &aside).map_err(failed)?;
    disk.sync_dir(DIR).map_err(failed)?;
    Ok(Place { path: aside.into(), segment: Some(number), offset: None })
}

/// Makes an empty segment behind what was lost; its witness says at which position it starts.
fn go_on(
    disk: &dyn Disk,
    options: &Options,
    log_id: [u8; 16],
    number: u32,
    first_position: u64,
) -> Result<()> {
    if number > NUMBER_MAX || first_position > POSITION_MAX {
        return Err(Error::new(ErrorKind::StorageFull, "repair").at(place(number, 0)));
    }
    let failed = |error| Error::io("repair", place(number, 0), error);
    let bytes = segment_bytes(options, number);
    let spare = Spare::create(disk, log_id, number, bytes, Zero::Written).map_err(failed)?;
    let witness = Witness {
        position: first_position,
        durable: first_position - 1,
        time_micros: spare.header.created_micros,
        clean: false,
    };
    let bytes = witness.encode(spare.header.salt);
    write_all_at(&*spare.file, &mut [IoSlice::new(&bytes)], COMMITS_AT)
        .and_then(|()| spare.file.sync_data())
        .map_err(failed)
}

const _: () = assert!(witness::BYTES as u64 <= COMMIT_BYTES_MIN);
