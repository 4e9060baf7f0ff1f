//! `amberlog verify`: reads all of a log, byte by byte and as its users do, and names damage.

use std::cmp::Ordering;
use std::ops::Range;
use std::path::PathBuf;

use amberlog::verify::{DamageKind, RecoveryReport, SegmentReport, VerifyReport};
use amberlog::{Place, Position, Seq, StreamId};
use serde::Serialize;

use crate::output::{ExitVerdict, Out, Outcome, in_log, waiting};
use crate::units::{bytes_text, count, streams_text};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Directory of the log, or an archive file
    log: PathBuf,
    /// Only check every byte and its checksum: do not read streams, forks and commits as users do
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Serialize)]
struct VerifySummary<'a> {
    sound: bool,
    quick: bool,
    closed_cleanly: bool,
    position: Position,
    durable: Position,
    acknowledged: Position,
    streams: u64,
    deleted_streams: u64,
    segments: &'a [SegmentReport],
    damages: Vec<DamageFacts<'a>>,
    unreadable: Vec<BytesFacts<'a>>,
    unread: Vec<UnreadFacts<'a>>,
    events: Option<u64>,
    torn_tail: Option<BytesFacts<'a>>,
    foreign: Vec<String>,
}

#[derive(Debug, Serialize)]
struct DamageFacts<'a> {
    kind: DamageKind,
    #[serde(flatten)]
    place: &'a Place,
    positions: &'a Range<Position>,
    events: Vec<LostEvents<'a>>,
}

#[derive(Debug, Serialize)]
struct LostEvents<'a> {
    stream: &'a StreamId,
    seqs: &'a Range<Seq>,
}

/// Events that a reader misses.
#[derive(Debug, Serialize)]
struct UnreadFacts<'a> {
    way: &'static str,
    stream: Option<StreamId>,
    seqs: Option<&'a Range<Seq>>,
    error: String,
}

/// Bytes of a file that are no record.
#[derive(Debug, Serialize)]
struct BytesFacts<'a> {
    #[serde(flatten)]
    place: &'a Place,
    bytes: u64,
    /// Number of whole commits in a torn tail.
    #[serde(skip_serializing_if = "Option::is_none")]
    commits: Option<u64>,
}

/// Verifies the log and reports. Changes nothing.
pub(crate) fn run(args: &VerifyArgs, out: &mut Out) -> Outcome {
    let mut verified = VerifyReport::default();
    if args.quick {
        let found = amberlog::verify::verify_quick(&args.log);
        verified.recovery = found.map_err(in_log(&args.log))?;
    } else {
        let found = waiting("reading", || amberlog::verify(&args.log));
        verified = found.map_err(in_log(&args.log))?;
    }
    out.result(&report(&verified, args.quick), |_, out| {
        lines(&verified).into_iter().try_for_each(|line| out.line(line))
    })?;
    Ok(ExitVerdict::of_log(verified.is_sound()))
}

fn report(verified: &VerifyReport, quick: bool) -> VerifySummary<'_> {
    let report = &verified.recovery;
    let damages = report.damages.iter().map(|damage| DamageFacts {
        kind: damage.kind,
        place: &damage.place,
        positions: &damage.positions,
        events: damage.events.iter().map(|(stream, seqs)| LostEvents { stream, seqs }).collect(),
    });
    let unread = verified.unread.iter().map(|missed| UnreadFacts {
        way: missed.way.as_str(),
        stream: missed.stream,
        seqs: missed.seqs.as_ref(),
        error: missed.error.to_string(),
    });
    let unreadable = report.unreadable.iter().map(|sector| BytesFacts {
        place: &sector.place,
        bytes: sector.bytes,
        commits: None,
    });
    VerifySummary {
        sound: verified.is_sound(),
        quick,
        closed_cleanly: report.closed_cleanly,
        position: report.position,
        durable: report.durable,
        acknowledged: report.acknowledged,
        streams: living(report),
        deleted_streams: report.deleted_streams,
        segments: &report.segments,
        damages: damages.collect(),
        unreadable: unreadable.collect(),
        unread: unread.collect(),
        events: (!quick).then_some(verified.events),
        torn_tail: report.torn_tail.as_ref().map(|torn| BytesFacts {
            place: &torn.place,
            bytes: torn.bytes,
            commits: Some(torn.commits),
        }),
        foreign: report.foreign.iter().map(|place| place.path.display().to_string()).collect(),
    }
}

/// Returns the number of streams that are not deleted.
fn living(report: &RecoveryReport) -> u64 {
    report.streams.saturating_sub(report.deleted_streams)
}

/// Returns the lines of the text report.
fn lines(verified: &VerifyReport) -> Vec<String> {
    let mut lines = verify_lines(&verified.recovery);
    for unread in &verified.unread {
        lines.push(format!("cannot be read, {}: {}", unread.way.as_str(), unread.error));
    }
    lines.push(summary(verified));
    lines
}

fn verify_lines(report: &RecoveryReport) -> Vec<String> {
    let mut lines = Vec::new();
    for damage in &report.damages {
        let positions = &damage.positions;
        let mut line = format!("damaged: {} in {}", damage.kind.as_str(), damage.place);
        if !positions.is_empty() {
            let last = positions.end.get().saturating_sub(1);
            line += &match positions.start.get() == last {
                true => format!(", position {last}"),
                false => format!(", positions {} to {last}", positions.start),
            };
        }
        lines.push(line);
        for (stream, seqs) in &damage.events {
            let last = seqs.end.get().saturating_sub(1);
            lines.push(match seqs.start.get().cmp(&last) {
                _ if seqs.is_empty() => {
                    format!("  lost: stream {stream}, its name, labels, data or state")
                }
                Ordering::Equal => format!("  lost: stream {stream}, event {last}"),
                _ => format!("  lost: stream {stream}, events {} to {last}", seqs.start),
            });
        }
    }
    for sector in &report.unreadable {
        let bytes = bytes_text(sector.bytes);
        lines.push(format!("the disk cannot read {bytes} in {}", sector.place));
    }
    if let Some(torn) = &report.torn_tail {
        let hides_end = |kind| matches!(kind, DamageKind::Cut | DamageKind::Unreadable);
        let is_cut = report.damages.iter().any(|damage| hides_end(damage.kind));
        let (what, why) = if is_cut {
            ("torn tail", "in a file whose end is missing: it may have been acknowledged")
        } else {
            // A live writer's commit in progress looks like that of a writer that was killed.
            ("unfinished", "being written, or cut short: never acknowledged as durable, no damage")
        };
        lines.push(format!(
            "{what}: {} in {}, {} in it; {why}",
            bytes_text(torn.bytes),
            torn.place,
            count(torn.commits, "whole commit")
        ));
    }
    for place in &report.foreign {
        lines.push(format!("foreign, no damage: {place}"));
    }
    lines
}

fn summary(verified: &VerifyReport) -> String {
    let report = &verified.recovery;
    let bytes = report.segments.iter().map(|segment| segment.bytes).sum();
    let summary = format!(
        "{}, {}, {}, last position {}",
        count(report.segments.len() as u64, "segment"),
        bytes_text(bytes),
        streams_text(living(report), report.deleted_streams),
        report.position
    );
    if verified.is_sound() {
        format!("sound: {summary}")
    } else if report.is_sound() {
        format!("every byte is as it was written, but readers miss some events: {summary}")
    } else {
        let places = count(report.damages.len() as u64, "place");
        format!("damaged in {places}: {summary}")
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use amberlog::Log;
    use amberlog::sim::{SimDisk, verify_on};

    use super::*;

    /// A closed log with one stream of three commits.
    fn log() -> SimDisk {
        let disk = SimDisk::new(1);
        let log = Log::options().open_on(&disk).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        for _ in 0..3 {
            stream.append([7; 5_000]).expect("room");
            stream.commit().wait().expect("committed");
        }
        disk
    }

    /// The page after the header, with the first commit.
    fn without_a_page(disk: &SimDisk) -> VerifyReport {
        let disk = disk.copy();
        disk.set_unreadable("segments/0000000001.seg", 8 << 10..12 << 10);
        verify_on(&disk).expect("looked at")
    }

    #[test]
    fn f44_a_page_that_the_disk_cannot_read_is_named() {
        let lines = lines(&without_a_page(&log()));
        let named = "the disk cannot read 4.0 KiB in segments/0000000001.seg at byte 8192";
        assert!(lines.iter().any(|line| line == named), "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("damaged in ")), "{lines:#?}");
    }

    #[test]
    fn f22_a_log_of_sound_bytes_that_readers_miss_is_not_sound() {
        let disk = log();
        let mut verified = verify_on(&disk).expect("looked at");
        let sound = lines(&verified);
        assert!(matches!(sound.as_slice(), [line] if line.starts_with("sound: 1 segment, ")));
        verified.unread = without_a_page(&disk).unread;
        let lines = lines(&verified);
        assert!(lines[0].starts_with("cannot be read, forwards: "), "{lines:#?}");
        let last = lines.last().expect("a summary");
        assert!(
            last.starts_with("every byte is as it was written, but readers miss some events: ")
        );
        assert!(!report(&verified, false).sound);
    }
}
