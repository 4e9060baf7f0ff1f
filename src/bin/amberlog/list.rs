//! `amberlog ls`: lists streams, one per line, without opening any.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;

use amberlog::{
    Cursor, Order, Page, Query, ReadView, Seq, StreamId, StreamInfo, StreamState, Timestamp,
};
use serde::Serialize;
use serde_json::json;

use crate::compare::SEEN_LABEL;
use crate::output::{ExitVerdict, Out, Outcome, VerbFailure, in_log, note};
use crate::reading::{Reading, TailShown, open, resolve};

/// Number of streams fetched at once for a full list.
const PAGE_STREAMS: usize = 1000;

/// States of streams, by their words.
const STATES: [(&str, StreamState); 3] = [
    ("active", StreamState::Active),
    ("archived", StreamState::Archived),
    ("deleted", StreamState::Deleted),
];

const DETAILS: &str = "\
Each line has the stream's id, its head (the number of its events, including
those dropped by a ring), the time of its creation, its state unless it is
active, the seq from which on its events are not known to have been acknowledged
(if any), its name and its labels. Without --state and --all only active streams
are listed.

With --limit, a note on standard error tells how to get the next page, if there
is one. With --json each line is one stream, and the note is a line with the JSON
object {\"next\":CURSOR}. --after takes the cursor; order, direction and filter
must be those of the earlier list.";

/// Arguments of `ls`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct ListArgs {
    /// Directory of the log
    log: PathBuf,
    /// List streams in this state; may be repeated
    #[arg(long, value_name = "STATE", value_parser = STATES.map(|(word, _)| word))]
    state: Vec<String>,
    /// List streams in any state
    #[arg(long, conflicts_with = "state")]
    all: bool,
    /// List streams with this label, or with this value of it; may be repeated
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// List streams whose name begins with this prefix
    #[arg(long, value_name = "PREFIX")]
    name: Option<String>,
    /// List forks of this stream
    #[arg(long, value_name = "STREAM")]
    parent: Option<String>,
    /// List streams created at this time or later: 2026-11-22, or 2026-11-22T18:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// List streams created before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// List streams last committed at this time or later
    #[arg(long, value_name = "TIME")]
    committed_since: Option<Timestamp>,
    /// List streams last committed before this time
    #[arg(long, value_name = "TIME")]
    committed_until: Option<Timestamp>,
    /// Order by creation (created), by last commit (committed), or by the value of a label,
    /// streams without it left out (label:KEY)
    #[arg(long, value_name = "ORDER", value_parser = parse_order, default_value = "created")]
    order: Order,
    /// List the last stream first
    #[arg(long)]
    reverse: bool,
    /// List at most this many streams
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Continue after a page of the same list, given its cursor
    #[arg(long, value_name = "CURSOR")]
    after: Option<Cursor>,
}

/// Parses the order of a list.
fn parse_order(text: &str) -> Result<Order, &'static str> {
    match (text, text.strip_prefix("label:")) {
        ("created", _) => Ok(Order::Created),
        ("committed", _) => Ok(Order::Committed),
        (_, Some(key)) if !key.is_empty() => Ok(Order::Label(key.to_owned())),
        _ => Err("invalid order (expected created, committed or label:KEY)"),
    }
}

/// Description of a stream.
#[derive(Debug, Serialize)]
pub(crate) struct StreamFields<'a> {
    pub(crate) id: StreamId,
    pub(crate) start: Seq,
    pub(crate) head: Seq,
    /// Seq after the last confirmed event, if later ones exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) confirmed_head: Option<u64>,
    pub(crate) created: Option<Timestamp>,
    pub(crate) state: &'static str,
    pub(crate) name: Option<&'a str>,
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) parent: Option<ParentFields>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ParentFields {
    pub(crate) id: StreamId,
    pub(crate) seq: Seq,
}

impl<'a> StreamFields<'a> {
    pub(crate) fn new(info: &'a StreamInfo, reading: &Reading) -> Self {
        Self {
            id: info.id,
            start: info.start,
            head: info.head,
            confirmed_head: reading.confirmed_head(info),
            created: info.created,
            state: state_word(info.state),
            name: info.name.as_deref(),
            labels: &info.labels,
            parent: info.parent.map(|(id, seq)| ParentFields { id, seq }),
        }
    }
}

/// Returns the word for a state.
fn state_word(state: StreamState) -> &'static str {
    STATES.iter().find(|(_, other)| *other == state).map_or("unknown", |(word, _)| word)
}

/// Lists streams of the log.
pub(crate) fn run(args: &ListArgs, out: &mut Out) -> Outcome {
    let reading = open(&args.log, TailShown::Settled)?;
    let page_max = args.limit.map_or(PAGE_STREAMS, |limit| limit as usize);
    let mut query = query(args, &reading.view)?.limit(page_max);
    loop {
        let page = reading.view.list(&query).map_err(in_log(&args.log))?;
        print(&page, &reading, out)?;
        let Some(next) = page.next else { break };
        if args.limit.is_none() {
            query = query.after(next);
            continue;
        }
        if out.is_json() {
            let _ = writeln!(io::stderr(), "{}", json!({ "next": next.to_string() }));
        } else {
            note(format_args!("more streams follow: --after {next}"));
        }
        break;
    }
    Ok(ExitVerdict::of_log(reading.report.is_sound()))
}

fn query(args: &ListArgs, view: &ReadView) -> Result<Query, VerbFailure> {
    let mut query = Query::new().order(args.order.clone());
    for (word, state) in STATES {
        if args.all || args.state.iter().any(|asked| asked == word) {
            query = query.state(state);
        }
    }
    for label in &args.label {
        query = match label.split_once('=') {
            Some((key, value)) => query.label(key, value),
            None => query.has_label(label),
        };
    }
    if let Some(prefix) = &args.name {
        query = query.name_prefix(prefix);
    }
    if let Some(parent) = &args.parent {
        // Forks outlive their parents.
        let id = match parent.parse() {
            Ok(id) => id,
            Err(_) => resolve(view, &args.log, parent)?.id,
        };
        query = query.parent(id);
    }
    if let Some(time) = args.since {
        query = query.created_from(time);
    }
    if let Some(time) = args.until {
        query = query.created_until(time);
    }
    if let Some(time) = args.committed_since {
        query = query.committed_from(time);
    }
    if let Some(time) = args.committed_until {
        query = query.committed_until(time);
    }
    if args.reverse {
        query = query.descending();
    }
    Ok(match &args.after {
        Some(cursor) => query.after(cursor.clone()),
        None => query,
    })
}

fn print(page: &Page, reading: &Reading, out: &mut Out) -> io::Result<()> {
    let most = page.streams.iter().map(|info| info.head.get()).max();
    let width = most.unwrap_or(0).to_string().len();
    for info in &page.streams {
        let listed = StreamFields::new(info, reading);
        if out.is_json() {
            out.json(&listed)?;
            continue;
        }
        let created = listed.created.map_or_else(|| "-".to_owned(), |time| time.to_string());
        let mut line = format!("{}  {:>width$}  {created}", listed.id, listed.head);
        if info.state != StreamState::Active {
            line += &format!("  {}", listed.state);
        }
        if let Some(seq) = listed.confirmed_head {
            line += &format!("  unconfirmed from {seq}");
        }
        if let Some(name) = listed.name {
            line += &format!("  {name}");
        }
        // Only `info` and --json show the label of an import.
        for (key, value) in listed.labels.iter().filter(|(key, _)| *key != SEEN_LABEL) {
            line += &format!("  {key}={value}");
        }
        out.line(line)?;
    }
    Ok(())
}
