//! `amberlog verify`: every byte of a log is read, and what is not as it was written is named.

use std::path::Path;

use amberlog::{Damage, DamageKind, SegmentReport, Survey, TornTail};
use serde::Serialize;

use crate::output::{Out, Outcome, Verdict, in_log};
use crate::units::{bytes_text, count};

#[derive(Debug, Serialize)]
struct Report {
    sound: bool,
    closed_cleanly: bool,
    position: u64,
    durable: u64,
    acknowledged: u64,
    streams: u64,
    segments: Vec<SegmentFacts>,
    archive_files: u64,
    damages: Vec<DamageFacts>,
    torn_tail: Option<TornFacts>,
}

/// A half-open range, the way the library has them.
#[derive(Debug, Serialize)]
struct Span {
    start: u64,
    end: u64,
}

#[derive(Debug, Serialize)]
struct SegmentFacts {
    number: u32,
    state: &'static str,
    bytes: u64,
    positions: Span,
}

#[derive(Debug, Serialize)]
struct DamageFacts {
    kind: &'static str,
    path: String,
    segment: Option<u32>,
    offset: Option<u64>,
    positions: Span,
    events: Vec<LostEvents>,
}

#[derive(Debug, Serialize)]
struct LostEvents {
    stream: String,
    seqs: Span,
}

#[derive(Debug, Serialize)]
struct TornFacts {
    path: String,
    segment: Option<u32>,
    offset: Option<u64>,
    bytes: u64,
    commits: u64,
}

/// Surveys the log and reports. Changes nothing.
pub(crate) fn run(log: &Path, out: &mut Out) -> Outcome {
    let survey = amberlog::survey(log).map_err(in_log(log))?;
    if out.is_json() {
        out.json(&report(&survey))?;
    } else {
        print(&survey, out)?;
    }
    Ok(if survey.is_sound() { Verdict::Done } else { Verdict::Found })
}

fn report(survey: &Survey) -> Report {
    Report {
        sound: survey.is_sound(),
        closed_cleanly: survey.closed_cleanly,
        position: survey.position.get(),
        durable: survey.durable.get(),
        acknowledged: survey.acknowledged.get(),
        streams: survey.streams,
        segments: survey.segments.iter().map(segment).collect(),
        archive_files: survey.archive_files,
        damages: survey.damages.iter().map(damage).collect(),
        torn_tail: survey.torn_tail.as_ref().map(torn),
    }
}

fn span<T: Into<u64> + Copy>(range: &std::ops::Range<T>) -> Span {
    Span { start: range.start.into(), end: range.end.into() }
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

fn torn(torn: &TornTail) -> TornFacts {
    TornFacts {
        path: torn.place.path.display().to_string(),
        segment: torn.place.segment,
        offset: torn.place.offset,
        bytes: torn.bytes,
        commits: torn.commits,
    }
}

fn print(survey: &Survey, out: &mut Out) -> std::io::Result<()> {
    for damage in &survey.damages {
        let positions = &damage.positions;
        let mut line = format!("damaged: {} in {}", damage.kind.as_str(), damage.place);
        if !positions.is_empty() {
            line += &format!(", positions {}..{}", positions.start, positions.end);
        }
        out.line(line)?;
        for (stream, seqs) in &damage.events {
            out.line(format_args!("  lost: stream {stream}, events {}..{}", seqs.start, seqs.end))?;
        }
    }
    if let Some(torn) = &survey.torn_tail {
        let is_cut = survey.damages.iter().any(|damage| damage.kind == DamageKind::Cut);
        let what = if is_cut {
            "in the file that was cut: it may have been acknowledged"
        } else {
            "never acknowledged as durable, no damage"
        };
        out.line(format_args!(
            "torn tail: {} in {}, {} in it; {what}",
            bytes_text(torn.bytes),
            torn.place,
            count(torn.commits, "whole commit")
        ))?;
    }
    let bytes = survey.segments.iter().map(|one| one.bytes).sum();
    let summary = format!(
        "{}, {}, {}, last position {}",
        count(survey.segments.len() as u64, "segment"),
        bytes_text(bytes),
        count(survey.streams, "stream"),
        survey.position
    );
    if survey.is_sound() {
        out.line(format_args!("sound: {summary}"))
    } else {
        let places = count(survey.damages.len() as u64, "place");
        out.line(format_args!("damaged in {places}: {summary}"))
    }
}
