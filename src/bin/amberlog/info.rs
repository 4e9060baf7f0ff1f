//! `amberlog info`: facts about a log, or about one stream.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use amberlog::stats::{MemoryCosts, MemoryStats};
use amberlog::verify::{RecordBody, RecordDump, RecoveryReport, SegmentState};
use amberlog::{ErrorKind, Position, StreamId, StreamInfo, Timestamp};
use serde::Serialize;

use crate::list::StreamFields;
use crate::output::{ExitVerdict, Out, Outcome, VerbFailure, in_log, note};
use crate::reading::{Reading, TailShown, open, refuse_file, resolve};
use crate::units::{bytes_text, count};

#[derive(Debug, Serialize)]
struct LogInfo {
    path: String,
    id: Option<StreamId>,
    created: Option<Timestamp>,
    streams: u64,
    deleted_streams: u64,
    events: u64,
    position: Position,
    durable_position: Position,
    segments: u64,
    segments_by_state: BTreeMap<&'static str, u64>,
    bytes_on_disk: u64,
    /// Last position known to have been acknowledged.
    acknowledged_position: Position,
    closed_cleanly: bool,
    needs_repair: bool,
    damages: u64,
    /// Pending work of the log's own, as far as its files show it.
    left_undone: Vec<String>,
    memory: Memory,
}

/// Memory costs in bytes, and the total for this log once it is open.
#[derive(Debug, Serialize)]
struct Memory {
    when_open: u64,
    /// Names, labels and data of all streams.
    metadata: u64,
    #[serde(flatten)]
    costs: MemoryCosts,
}

impl Memory {
    /// Returns the memory of a log that holds this once it is open.
    fn of(memory: &MemoryStats) -> Self {
        let MemoryStats { metadata_bytes: metadata, catalog_bytes, costs, .. } = *memory;
        let when_open = costs.open_log.saturating_add(catalog_bytes).saturating_add(metadata);
        Self { when_open, metadata, costs }
    }

    fn print(&self, out: &mut Out) -> std::io::Result<()> {
        let when_open = bytes_text(self.when_open);
        out.line(format_args!("memory            about {when_open} when open, in bytes:"))?;
        let costs = [
            ("names, labels, data", self.metadata),
            ("an open log", self.costs.open_log),
            ("a volatile stream", self.costs.volatile_stream),
            ("an idle handle", self.costs.idle_stream),
            ("a durable stream", self.costs.durable_stream),
            ("an index entry", self.costs.index_entry),
            ("a commit id", self.costs.commit_id),
            ("a listed stream", self.costs.listed_stream),
        ];
        costs.iter().try_for_each(|(what, bytes)| out.line(format_args!("  {what:<19} {bytes}")))
    }
}

#[derive(Debug, Serialize)]
struct StreamFacts<'a> {
    #[serde(flatten)]
    stream: StreamFields<'a>,
    data_bytes: usize,
    generation: u32,
    events: u64,
    dropped: u64,
    unreadable: u64,
    first_event: Option<Timestamp>,
    last_event: Option<Timestamp>,
    payload_bytes: u64,
    segments: usize,
}

/// Prints facts about the log, or about the stream that `stream` names.
pub(crate) fn run(log: &Path, stream: Option<&str>, out: &mut Out) -> Outcome {
    if stream.is_none() {
        refuse_file(log)?;
    }
    let reading = open(log, TailShown::Settled)?;
    match stream {
        None => of_log(log, &reading, out),
        Some(text) => {
            let info = resolve(&reading.view, log, text)?;
            of_stream(log, &reading, &info, out)
        }
    }
}

fn of_log(log: &Path, reading: &Reading, out: &mut Out) -> Outcome {
    let Reading { view, report, .. } = reading;
    let mut segments_by_state = BTreeMap::new();
    for segment in &report.segments {
        let count = segments_by_state.entry(segment.state.as_str()).or_insert(0_u64);
        *count = count.saturating_add(1);
    }
    let streams = view.streams();
    // Includes events that a ring dropped.
    let shown = |info: &StreamInfo| info.head.get().saturating_sub(info.start.get());
    let (id, created) = identity(log)?;
    let facts = LogInfo {
        path: log.display().to_string(),
        id,
        created,
        streams: streams.len() as u64,
        deleted_streams: report.deleted_streams,
        events: streams.iter().map(shown).sum(),
        position: view.position(),
        durable_position: view.durable_position(),
        segments: report.segments.len() as u64,
        segments_by_state,
        bytes_on_disk: report.segments.iter().map(|segment| segment.bytes).sum(),
        acknowledged_position: report.acknowledged,
        closed_cleanly: report.closed_cleanly,
        needs_repair: report.needs_repair,
        damages: report.damages.len() as u64,
        left_undone: left_undone(report),
        memory: Memory::of(&view.stats().memory),
    };
    out.result(&facts, print_log)?;
    Ok(ExitVerdict::of_log(report.is_sound()))
}

/// Lists work that a writer does on its own and has not done. Failures of a live writer are known
/// only to its own process.
fn left_undone(report: &RecoveryReport) -> Vec<String> {
    let in_state =
        |state| report.segments.iter().filter(|segment| segment.state == state).count() as u64;
    let mut left = Vec::new();
    // A live writer seals one while it fills the next.
    let unsealed = in_state(SegmentState::Unsealed);
    if unsealed > 1 {
        let what = count(unsealed, "full segment");
        left.push(format!("{what} without an index: the next opening for writing seals them"));
    }
    let superseded = in_state(SegmentState::Superseded);
    if superseded > 0 {
        let what = count(superseded, "compacted segment");
        left.push(format!("{what} still there: the next opening for writing removes them"));
    }
    left
}

/// Returns the log's own id, and the log's creation time. The id has the time; a segment has that
/// of the compaction that wrote it.
fn identity(log: &Path) -> Result<(Option<StreamId>, Option<Timestamp>), VerbFailure> {
    for record in RecordDump::open(log).map_err(in_log(log))? {
        match record.map(|record| record.body) {
            Ok(RecordBody::Segment { log_id, created, .. }) => {
                return Ok((Some(log_id), log_id.created().or(Some(created))));
            }
            Ok(RecordBody::NoHeader { .. } | RecordBody::Dropped { .. }) => {}
            _ => break,
        }
    }
    Ok((None, None))
}

fn print_log(facts: &LogInfo, out: &mut Out) -> std::io::Result<()> {
    let mut line = |name: &str, fact: &dyn Display| out.line(format_args!("{name:<16}  {fact}"));
    line("log", &facts.path)?;
    line("id", &known(facts.id))?;
    line("created", &known(facts.created))?;
    let deleted = match facts.deleted_streams {
        0 => String::new(),
        deleted => format!(", and {deleted} deleted"),
    };
    line("streams", &format_args!("{}{deleted}", facts.streams))?;
    line("events", &facts.events)?;
    line("position", &facts.position)?;
    line("durable position", &facts.durable_position)?;
    let states = facts.segments_by_state.iter().map(|(state, number)| format!("{number} {state}"));
    let states = states.collect::<Vec<_>>().join(", ");
    line("segments", &format_args!("{} ({states})", facts.segments))?;
    line("on disk", &exact_bytes_text(facts.bytes_on_disk))?;
    line("closed cleanly", &if facts.closed_cleanly { "yes" } else { "no" })?;
    if facts.position > facts.acknowledged_position {
        let from = facts.acknowledged_position.get().saturating_add(1);
        line("unconfirmed", &format_args!("positions {from} to {}", facts.position))?;
    }
    if facts.needs_repair {
        line("needs repair", &"yes: the log cannot be written until it is repaired")?;
    }
    facts.left_undone.iter().try_for_each(|work| line("left undone", work))?;
    facts.memory.print(out)
}

/// Returns a fact in words, whether it is known or not.
fn known(fact: Option<impl Display>) -> String {
    fact.map_or_else(|| "unknown".to_owned(), |fact| fact.to_string())
}

fn of_stream(log: &Path, reading: &Reading, info: &StreamInfo, out: &mut Out) -> Outcome {
    let failed = in_log(log);
    let mut facts = StreamFacts {
        stream: StreamFields::new(info, reading),
        data_bytes: info.data.as_ref().map_or(0, |data| data.len()),
        generation: info.generation,
        events: 0,
        dropped: 0,
        unreadable: 0,
        first_event: None,
        last_event: None,
        payload_bytes: 0,
        segments: info.segments,
    };
    let start = info.start.get();
    for event in reading.view.events(info.id).map_err(&failed)? {
        match event {
            Ok(event) => {
                // A gap may begin before the stream's current start.
                let dropped = event.dropped_before().min(event.seq().get().saturating_sub(start));
                let payload_bytes = event.payload().len() as u64;
                facts.events = facts.events.saturating_add(1);
                facts.dropped = facts.dropped.saturating_add(dropped);
                facts.payload_bytes = facts.payload_bytes.saturating_add(payload_bytes);
                facts.first_event = facts.first_event.or(Some(event.time()));
                facts.last_event = Some(event.time());
            }
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt { .. }) => note(error),
            Err(error) => return Err(failed(error)),
        }
    }
    let known = facts.events.saturating_add(facts.dropped);
    facts.unreadable = info.head.get().saturating_sub(start).saturating_sub(known);
    out.result(&facts, print_stream)?;
    Ok(ExitVerdict::of_log(facts.unreadable == 0))
}

fn print_stream(facts: &StreamFacts<'_>, out: &mut Out) -> std::io::Result<()> {
    let mut line = |name: &str, fact: &dyn Display| out.line(format_args!("{name:<13}  {fact}"));
    let stream = &facts.stream;
    line("stream", &stream.id)?;
    if let Some(name) = &stream.name {
        line("name", name)?;
    }
    line("created", &known(stream.created))?;
    line("state", &stream.state)?;
    for (key, value) in stream.labels {
        line("label", &format_args!("{key}={value}"))?;
    }
    if let Some(parent) = &stream.parent {
        line("forked from", &format_args!("{} at {}", parent.id, parent.seq))?;
    }
    if stream.start.get() > 0 {
        line("starts at", &stream.start)?;
    }
    if let Some(seq) = stream.confirmed_head {
        line("unconfirmed", &format_args!("from {seq} on"))?;
    }
    if facts.data_bytes > 0 {
        line("data", &bytes_text(facts.data_bytes as u64))?;
    }
    line("events", &facts.events)?;
    if facts.dropped > 0 {
        line("dropped", &facts.dropped)?;
    }
    if facts.unreadable > 0 {
        line("unreadable", &facts.unreadable)?;
    }
    line("first event", &known(facts.first_event))?;
    line("last event", &known(facts.last_event))?;
    line("payload", &exact_bytes_text(facts.payload_bytes))?;
    line("segments", &facts.segments)
}

/// Returns a number of bytes with a unit, and exactly.
fn exact_bytes_text(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", bytes_text(bytes))
}
