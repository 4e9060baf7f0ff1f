//! `amberlog verify`: reads all of a log, byte by byte and as its users do, and names damage.

use std::path::PathBuf;

use amberlog::verify::{
    Damage, DamageKind, MissedEvents, RecoveryReport, SegmentReport, TornTail, Unreadable,
    VerifyReport,
};
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
struct VerifySummary {
    sound: bool,
    quick: bool,
    closed_cleanly: bool,
    position: u64,
    durable: u64,
    acknowledged: u64,
    streams: u64,
    deleted_streams: u64,
    segments: Vec<SegmentFacts>,
    damages: Vec<DamageFacts>,
    unreadable: Vec<UnreadableFacts>,
    unread: Vec<UnreadFacts>,
    events: Option<u64>,
    torn_tail: Option<TornFacts>,
    foreign: Vec<String>,
}

/// Half-open range, as in the library.
#[derive(Debug, Serialize)]
struct SpanFields {
    start: u64,
    end: u64,
}

#[derive(Debug, Serialize)]
struct SegmentFacts {
    number: u32,
    state: &'static str,
    bytes: u64,
    positions: SpanFields,
}

#[derive(Debug, Serialize)]
struct DamageFacts {
    kind: &'static str,
    path: String,
    segment: Option<u32>,
    offset: Option<u64>,
    positions: SpanFields,
    events: Vec<LostEvents>,
}

/// Events that a reader misses.
#[derive(Debug, Serialize)]
struct UnreadFacts {
    way: &'static str,
    stream: Option<String>,
    seqs: Option<SpanFields>,
    error: String,
}

#[derive(Debug, Serialize)]
struct LostEvents {
    stream: String,
    seqs: SpanFields,
}

#[derive(Debug, Serialize)]
struct UnreadableFacts {
    path: String,
    segment: Option<u32>,
    offset: Option<u64>,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct TornFacts {
    path: String,
    segment: Option<u32>,
    offset: Option<u64>,
    bytes: u64,
    commits: u64,
}

/// Verifies the log and reports. Changes nothing.
pub(crate) fn run(args: &VerifyArgs, out: &mut Out) -> Outcome {
    let failed = in_log(&args.log);
    let verified = if args.quick {
        let mut verified = VerifyReport::default();
        verified.recovery = amberlog::verify::verify_quick(&args.log).map_err(failed)?;
        verified
    } else {
        let waiting = waiting("reading");
        let verified = amberlog::verify(&args.log).map_err(failed)?;
        waiting.finish_and_clear();
        verified
    };
    if out.is_json() {
        out.json(&report(&verified, args.quick))?;
    } else {
        for line in lines(&verified) {
            out.line(line)?;
        }
    }
    Ok(if verified.is_sound() { ExitVerdict::Done } else { ExitVerdict::Found })
}

fn report(verified: &VerifyReport, quick: bool) -> VerifySummary {
    let report = &verified.recovery;
    VerifySummary {
        sound: verified.is_sound(),
        quick,
        closed_cleanly: report.closed_cleanly,
        position: report.position.get(),
        durable: report.durable.get(),
        acknowledged: report.acknowledged.get(),
        streams: living(report),
        deleted_streams: report.deleted_streams,
        segments: report.segments.iter().map(segment).collect(),
        damages: report.damages.iter().map(damage).collect(),
        unreadable: report.unreadable.iter().map(unreadable).collect(),
        unread: verified.unread.iter().map(unread).collect(),
        events: (!quick).then_some(verified.events),
        torn_tail: report.torn_tail.as_ref().map(torn),
        foreign: report.foreign.iter().map(|place| place.path.display().to_string()).collect(),
    }
}

/// Returns the number of streams that are not deleted.
fn living(report: &RecoveryReport) -> u64 {
    report.streams.saturating_sub(report.deleted_streams)
}

fn unread(unread: &MissedEvents) -> UnreadFacts {
    UnreadFacts {
        way: unread.way.as_str(),
        stream: unread.stream.map(|stream| stream.to_string()),
        seqs: unread.seqs.as_ref().map(span),
        error: unread.error.to_string(),
    }
}

fn span<T: Into<u64> + Copy>(range: &std::ops::Range<T>) -> SpanFields {
    SpanFields { start: range.start.into(), end: range.end.into() }
}

fn segment(segment: &SegmentReport) -> SegmentFacts {
    SegmentFacts {
        number: segment.number,
        state: segment.state.as_str(),
        bytes: segment.bytes,
        positions: span(&segment.positions),
    }
}

fn damage(damage: &Damage) -> DamageFacts {
    let events = damage
        .events
        .iter()
        .map(|(stream, seqs)| LostEvents { stream: stream.to_string(), seqs: span(seqs) });
    DamageFacts {
        kind: damage.kind.as_str(),
        path: damage.place.path.display().to_string(),
        segment: damage.place.segment,
        offset: damage.place.offset,
        positions: span(&damage.positions),
        events: events.collect(),
    }
}

fn unreadable(sector: &Unreadable) -> UnreadableFacts {
    UnreadableFacts {
        path: sector.place.path.display().to_string(),
        segment: sector.place.segment,
        offset: sector.place.offset,
        bytes: sector.bytes,
    }
}

fn torn(torn: &TornTail) -> TornFacts {
    TornFacts {
        path: torn.place.path.display().to_string(),
        segment: torn.place.segment,
        offset: torn.place.offset,
        bytes: torn.bytes,
        commits: torn.commits,
    }
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
            line += &format!(", positions {}..{}", positions.start, positions.end);
        }
        lines.push(line);
        for (stream, seqs) in &damage.events {
            lines.push(format!("  lost: stream {stream}, events {}..{}", seqs.start, seqs.end));
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
