//! `amberlog info`: facts about a log, or about one stream.

use std::collections::BTreeMap;
use std::path::Path;

use amberlog::stats::MemoryStats;
use amberlog::verify::{RecordBody, RecordDump, RecoveryReport, SegmentState};
use amberlog::{ErrorKind, StreamId, StreamInfo, Timestamp};
use serde::Serialize;

use crate::list::{ParentFields, state_word};
use crate::output::{ExitVerdict, Out, Outcome, VerbFailure, in_log, note};
use crate::reading::{Reading, TailShown, open, refuse_file, resolve};
use crate::units::{bytes_text, count};

#[derive(Debug, Serialize)]
struct LogInfo {
    path: String,
    id: Option<String>,
    created: Option<String>,
    streams: u64,
    deleted_streams: u64,
    events: u64,
    position: u64,
    durable_position: u64,
    segments: u64,
    segments_by_state: BTreeMap<&'static str, u64>,
    bytes_on_disk: u64,
    /// Last position known to have been acknowledged.
    acknowledged_position: u64,
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
    open_log: u64,
    volatile_stream: u64,
    idle_stream: u64,
    durable_stream: u64,
    index_entry: u64,
    commit_id: u64,
    listed_stream: u64,
}

impl Memory {
    /// Returns the memory of a log that holds this once it is open.
    fn of(memory: &MemoryStats) -> Self {
        let MemoryStats { metadata_bytes: metadata, catalog_bytes, costs, .. } = *memory;
        Self {
            when_open: costs.open_log.saturating_add(catalog_bytes).saturating_add(metadata),
            metadata,
            open_log: costs.open_log,
            volatile_stream: costs.volatile_stream,
            idle_stream: costs.idle_stream,
            durable_stream: costs.durable_stream,
            index_entry: costs.index_entry,
            commit_id: costs.commit_id,
            listed_stream: costs.listed_stream,
        }
    }

    fn print(&self, out: &mut Out) -> std::io::Result<()> {
        let when_open = bytes_text(self.when_open);
        out.line(format_args!("memory            about {when_open} when open, in bytes:"))?;
        let costs = [
            ("names, labels, data", self.metadata),
            ("an open log", self.open_log),
            ("a volatile stream", self.volatile_stream),
            ("an idle handle", self.idle_stream),
            ("a durable stream", self.durable_stream),
            ("an index entry", self.index_entry),
            ("a commit id", self.commit_id),
            ("a listed stream", self.listed_stream),
        ];
        costs.iter().try_for_each(|(what, bytes)| out.line(format_args!("  {what:<19} {bytes}")))
    }
}

#[derive(Debug, Serialize)]
struct StreamFacts {
    id: String,
    name: Option<String>,
    created: Option<String>,
    state: &'static str,
    labels: BTreeMap<String, String>,
    data_bytes: usize,
    parent: Option<ParentFields>,
    generation: u32,
    start: u64,
    head: u64,
    /// Seq after the last confirmed event, if later ones exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed_head: Option<u64>,
    events: u64,
    dropped: u64,
    unreadable: u64,
    first_event: Option<String>,
    last_event: Option<String>,
    payload_bytes: u64,
    segments: u64,
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
            let id = resolve(&reading.view, log, text)?;
            of_stream(log, &reading, id, out)
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
    let (id, created) = identity(log)?;
    let facts = LogInfo {
        path: log.display().to_string(),
        id: id.map(|id| id.to_string()),
        created: created.map(|time| time.to_string()),
        streams: streams.len() as u64,
        deleted_streams: report.deleted_streams,
        events: streams.iter().map(shown_events).sum(),
        position: view.position().get(),
        durable_position: view.durable_position().get(),
        segments: report.segments.len() as u64,
        segments_by_state,
        bytes_on_disk: report.segments.iter().map(|segment| segment.bytes).sum(),
        acknowledged_position: report.acknowledged.get(),
        closed_cleanly: report.closed_cleanly,
        needs_repair: report.needs_repair,
        damages: report.damages.len() as u64,
        left_undone: left_undone(report),
        memory: Memory::of(&view.stats().memory),
    };
    if out.is_json() {
        out.json(&facts)?;
    } else {
        print_log(&facts, out)?;
    }
    Ok(ExitVerdict::of_log(report.is_sound()))
}

/// Returns the number of events that a stream shows, including those dropped by a ring.
fn shown_events(info: &StreamInfo) -> u64 {
    info.head.get().saturating_sub(info.start.get())
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
    let unknown = || "unknown".to_owned();
    let states: Vec<String> =
        facts.segments_by_state.iter().map(|(state, number)| format!("{number} {state}")).collect();
    out.line(format_args!("log               {}", facts.path))?;
    let id = facts.id.clone().unwrap_or_else(unknown);
    out.line(format_args!("id                {id}"))?;
    let created = facts.created.clone().unwrap_or_else(unknown);
    out.line(format_args!("created           {created}"))?;
    let deleted = match facts.deleted_streams {
        0 => String::new(),
        deleted => format!(", and {deleted} deleted"),
    };
    out.line(format_args!("streams           {}{deleted}", facts.streams))?;
    out.line(format_args!("events            {}", facts.events))?;
    out.line(format_args!("position          {}", facts.position))?;
    out.line(format_args!("durable position  {}", facts.durable_position))?;
    out.line(format_args!("segments          {} ({})", facts.segments, states.join(", ")))?;
    out.line(format_args!(
        "on disk           {} ({} bytes)",
        bytes_text(facts.bytes_on_disk),
        facts.bytes_on_disk
    ))?;
    let closed = if facts.closed_cleanly { "yes" } else { "no" };
    out.line(format_args!("closed cleanly    {closed}"))?;
    if facts.position > facts.acknowledged_position {
        let from = facts.acknowledged_position.saturating_add(1);
        out.line(format_args!("unconfirmed       positions {from} to {}", facts.position))?;
    }
    if facts.needs_repair {
        out.line("needs repair      yes: the log cannot be written until it is repaired")?;
    }
    for work in &facts.left_undone {
        out.line(format_args!("left undone       {work}"))?;
    }
    facts.memory.print(out)
}

fn of_stream(log: &Path, reading: &Reading, id: StreamId, out: &mut Out) -> Outcome {
    let view = &reading.view;
    let failed = in_log(log);
    let info = view.info(id);
    let head = info.as_ref().map_or(0, |info| info.head.get());
    let start = info.as_ref().map_or(0, |info| info.start.get());
    let parent = info.as_ref().and_then(|info| info.parent);
    let mut facts = StreamFacts {
        id: id.to_string(),
        name: info.as_ref().and_then(|info| info.name.clone()),
        created: id.created().map(|time| time.to_string()),
        state: info.as_ref().map_or("unknown", |info| state_word(info.state)),
        labels: info.as_ref().map(|info| info.labels.clone()).unwrap_or_default(),
        data_bytes: info.as_ref().and_then(|info| info.data.as_ref()).map_or(0, |data| data.len()),
        parent: parent.map(|(id, seq)| ParentFields { id: id.to_string(), seq: seq.get() }),
        generation: info.as_ref().map_or(0, |info| info.generation),
        start,
        head,
        confirmed_head: info.as_ref().and_then(|info| reading.confirmed_head(info)),
        events: 0,
        dropped: 0,
        unreadable: 0,
        first_event: None,
        last_event: None,
        payload_bytes: 0,
        segments: info.as_ref().map_or(0, |info| info.segments as u64),
    };
    let mut last = None;
    for event in view.events(id).map_err(&failed)? {
        match event {
            Ok(event) => {
                // A gap may begin before the stream's current start.
                let dropped = event.dropped_before().min(event.seq().get().saturating_sub(start));
                let payload_bytes = event.payload().len() as u64;
                facts.events = facts.events.saturating_add(1);
                facts.dropped = facts.dropped.saturating_add(dropped);
                facts.payload_bytes = facts.payload_bytes.saturating_add(payload_bytes);
                if last.is_none() {
                    facts.first_event = Some(event.time().to_string());
                }
                last = Some(event.time());
            }
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt { .. }) => note(error),
            Err(error) => return Err(failed(error)),
        }
    }
    facts.last_event = last.map(|time| time.to_string());
    let known = facts.events.saturating_add(facts.dropped);
    facts.unreadable = head.saturating_sub(start).saturating_sub(known);
    if out.is_json() {
        out.json(&facts)?;
    } else {
        print_stream(&facts, out)?;
    }
    Ok(if facts.unreadable == 0 { ExitVerdict::Done } else { ExitVerdict::Found })
}

fn print_stream(facts: &StreamFacts, out: &mut Out) -> std::io::Result<()> {
    let unknown = "unknown".to_owned();
    out.line(format_args!("stream         {}", facts.id))?;
    if let Some(name) = &facts.name {
        out.line(format_args!("name           {}", name))?;
    }
    let created = facts.created.as_ref().unwrap_or(&unknown);
    out.line(format_args!("created        {created}"))?;
    out.line(format_args!("state          {}", facts.state))?;
    for (key, value) in &facts.labels {
        out.line(format_args!("label          {key}={value}"))?;
    }
    if let Some(parent) = &facts.parent {
        out.line(format_args!("forked from    {} at {}", parent.id, parent.seq))?;
    }
    if facts.start > 0 {
        out.line(format_args!("starts at      {}", facts.start))?;
    }
    if let Some(seq) = facts.confirmed_head {
        out.line(format_args!("unconfirmed    from {seq} on"))?;
    }
    if facts.data_bytes > 0 {
        out.line(format_args!("data           {}", bytes_text(facts.data_bytes as u64)))?;
    }
    out.line(format_args!("events         {}", facts.events))?;
    if facts.dropped > 0 {
        out.line(format_args!("dropped        {}", facts.dropped))?;
    }
    if facts.unreadable > 0 {
        out.line(format_args!("unreadable     {}", facts.unreadable))?;
    }
    let first = facts.first_event.as_ref().unwrap_or(&unknown);
    out.line(format_args!("first event    {first}"))?;
    let last = facts.last_event.as_ref().unwrap_or(&unknown);
    out.line(format_args!("last event     {last}"))?;
    out.line(format_args!(
        "payload        {} ({} bytes)",
        bytes_text(facts.payload_bytes),
        facts.payload_bytes
    ))?;
    out.line(format_args!("segments       {}", facts.segments))
}
