//! `amberlog info`: what is known of a log, or of one stream.

use std::collections::BTreeMap;
use std::path::Path;

use amberlog::{ErrorKind, Inspection, Item, MEMORY_COSTS, Snapshot, StreamId, Survey, Timestamp};
use serde::Serialize;

use crate::list::state_word;
use crate::output::{Failure, Out, Outcome, Verdict, in_log, note};
use crate::reading::{open, resolve};
use crate::units::{bytes_text, printable, rfc3339};

#[derive(Debug, Serialize)]
struct LogInfo {
    path: String,
    id: Option<String>,
    created: Option<String>,
    streams: u64,
    events: u64,
    position: u64,
    durable_position: u64,
    segments: u64,
    segments_by_state: BTreeMap<&'static str, u64>,
    bytes_on_disk: u64,
    closed_cleanly: bool,
    damages: u64,
    memory: Memory,
}

/// What things cost in memory, in bytes, and what this log takes by it once it is open.
#[derive(Debug, Serialize)]
struct Memory {
    when_open: u64,
    open_log: u64,
    volatile_stream: u64,
    idle_stream: u64,
    durable_stream: u64,
    index_entry: u64,
}

impl Memory {
    fn of(streams: u64) -> Self {
        let costs = MEMORY_COSTS;
        Self {
            when_open: costs.open_log + streams * costs.durable_stream,
            open_log: costs.open_log,
            volatile_stream: costs.volatile_stream,
            idle_stream: costs.idle_stream,
            durable_stream: costs.durable_stream,
            index_entry: costs.index_entry,
        }
    }

    fn print(&self, out: &mut Out) -> std::io::Result<()> {
        let when_open = bytes_text(self.when_open);
        out.line(format_args!("memory            about {when_open} when open, in bytes:"))?;
        let costs = [
            ("an open log", self.open_log),
            ("a volatile stream", self.volatile_stream),
            ("an idle handle", self.idle_stream),
            ("a durable stream", self.durable_stream),
            ("an index entry", self.index_entry),
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
    parent: Option<String>,
    parent_seq: Option<u64>,
    generation: u32,
    start: u64,
    head: u64,
    events: u64,
    dropped: u64,
    unreadable: u64,
    first_event: Option<String>,
    last_event: Option<String>,
    payload_bytes: u64,
    segments: u64,
    /// The seqs that are in its archive file.
    moved: Option<[u64; 2]>,
}

/// Tells what is known of the log, or of the stream that `stream` names.
pub(crate) fn run(log: &Path, stream: Option<&str>, out: &mut Out) -> Outcome {
    let (snapshot, survey) = open(log)?;
    match stream {
        None => of_log(log, &snapshot, &survey, out),
        Some(text) => {
            let id = resolve(&snapshot, log, text)?;
            of_stream(log, &snapshot, id, out)
        }
    }
}

fn of_log(log: &Path, snapshot: &Snapshot, survey: &Survey, out: &mut Out) -> Outcome {
    let mut segments_by_state = BTreeMap::new();
    for segment in &survey.segments {
        *segments_by_state.entry(segment.state.as_str()).or_insert(0) += 1;
    }
    let streams = snapshot.streams();
    let (id, created) = identity(log)?;
    let facts = LogInfo {
        path: log.display().to_string(),
        id: id.map(|id| id.to_string()),
        created: created.map(rfc3339),
        streams: streams.len() as u64,
        events: streams.iter().map(|info| info.head.get()).sum(),
        position: snapshot.position().get(),
        durable_position: snapshot.durable_position().get(),
        segments: survey.segments.len() as u64,
        segments_by_state,
        bytes_on_disk: survey.segments.iter().map(|one| one.bytes).sum(),
        closed_cleanly: survey.closed_cleanly,
        damages: survey.damages.len() as u64,
        memory: Memory::of(streams.len() as u64),
    };
    if out.is_json() {
        out.json(&facts)?;
    } else {
        print_log(&facts, out)?;
    }
    Ok(if survey.is_sound() { Verdict::Done } else { Verdict::Found })
}

/// The log's own id, and when its oldest segment was made.
fn identity(log: &Path) -> Result<(Option<StreamId>, Option<Timestamp>), Failure> {
    for item in Inspection::open(log).map_err(in_log(log))? {
        match item {
            Ok(Item::Segment { log_id, created, .. }) => return Ok((Some(log_id), Some(created))),
            Ok(Item::NoHeader { .. }) => {}
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
    out.line(format_args!("streams           {}", facts.streams))?;
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
    facts.memory.print(out)
}

fn of_stream(log: &Path, snapshot: &Snapshot, id: StreamId, out: &mut Out) -> Outcome {
    let failed = in_log(log);
    let info = snapshot.stream(id);
    let head = info.as_ref().map_or(0, |info| info.head.get());
    let start = info.as_ref().map_or(0, |info| info.start.get());
    let parent = info.as_ref().and_then(|info| info.parent);
    let mut facts = StreamFacts {
        id: id.to_string(),
        name: info.as_ref().and_then(|info| info.name.clone()),
        created: id.created().map(rfc3339),
        state: info.as_ref().map_or("unknown", |info| state_word(info.state)),
        labels: info.as_ref().map(|info| info.labels.clone()).unwrap_or_default(),
        data_bytes: info.as_ref().and_then(|info| info.data.as_ref()).map_or(0, |data| data.len()),
        parent: parent.map(|(id, _)| id.to_string()),
        parent_seq: parent.map(|(_, seq)| seq.get()),
        generation: info.as_ref().map_or(0, |info| info.generation),
        start,
        head,
        events: 0,
        dropped: 0,
        unreadable: 0,
        first_event: None,
        last_event: None,
        payload_bytes: 0,
        segments: info.as_ref().map_or(0, |info| info.segments as u64),
        moved: info.and_then(|info| info.moved).map(|moved| [moved.start.get(), moved.end.get()]),
    };
    let mut last = None;
    for event in snapshot.events(id).map_err(&failed)? {
        match event {
            Ok(event) => {
                facts.events += 1;
                // A gap may begin before the stream does now.
                facts.dropped += event.dropped_before().min(event.seq().get() - start);
                facts.payload_bytes += event.payload().len() as u64;
                if last.is_none() {
                    facts.first_event = Some(rfc3339(event.time()));
                }
                last = Some(event.time());
            }
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt { .. }) => note(error),
            Err(error) => return Err(failed(error)),
        }
    }
    facts.last_event = last.map(rfc3339);
    facts.unreadable = (head - start.min(head)).saturating_sub(facts.events + facts.dropped);
    if out.is_json() {
        out.json(&facts)?;
    } else {
        print_stream(&facts, out)?;
    }
    Ok(if facts.unreadable == 0 { Verdict::Done } else { Verdict::Found })
}

fn print_stream(facts: &StreamFacts, out: &mut Out) -> std::io::Result<()> {
    let unknown = "unknown".to_owned();
    out.line(format_args!("stream         {}", facts.id))?;
    if let Some(name) = &facts.name {
        out.line(format_args!("name           {}", printable(name)))?;
    }
    let created = facts.created.as_ref().unwrap_or(&unknown);
    out.line(format_args!("created        {created}"))?;
    out.line(format_args!("state          {}", facts.state))?;
    for (key, value) in &facts.labels {
        out.line(format_args!("label          {}", printable(&format!("{key}={value}"))))?;
    }
    if let (Some(parent), Some(seq)) = (&facts.parent, facts.parent_seq) {
        out.line(format_args!("forked from    {parent} at {seq}"))?;
    }
    if facts.start > 0 {
        out.line(format_args!("starts at      {}", facts.start))?;
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
    out.line(format_args!("segments       {}", facts.segments))?;
    match facts.moved {
        Some([start, end]) => {
            out.line(format_args!("moved          {start}..{end} are in its archive file"))
        }
        None => Ok(()),
    }
}
