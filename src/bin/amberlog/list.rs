//! `amberlog ls`: one line for each stream. No stream is opened for it.

use std::path::PathBuf;

use amberlog::{Cursor, Order, Page, Query, Snapshot, StreamInfo, StreamState, Timestamp};
use clap::ValueEnum;
use serde::Serialize;

use crate::output::{Failure, Out, Outcome, Verdict, note};
use crate::reading::{open, resolve};
use crate::units::{parse_time, printable, rfc3339};

/// Streams that are looked up at once when all are asked for.
const PAGE_STREAMS: usize = 1000;

const DETAILS: &str = "\
A line has the stream's id, the seq at which it ends (its length, with what a
ring dropped), when it was made, its state unless it is active, its name and
its labels. Without --state and --all only active streams are listed.

With --limit there is a note on standard error when there are more, with the
words to go on with; with --json it is a last line {\"next\": …}.";

/// What can be asked of `ls`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct Args {
    /// The log's directory
    log: PathBuf,
    /// Those in this state; may be given several times
    #[arg(long, value_name = "STATE")]
    state: Vec<State>,
    /// Those in any state
    #[arg(long, conflicts_with = "state")]
    all: bool,
    /// Those with this label, or with this value of it; may be given several times
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Those whose name begins like this
    #[arg(long, value_name = "PREFIX")]
    name: Option<String>,
    /// Those that were forked from this stream
    #[arg(long, value_name = "STREAM")]
    parent: Option<String>,
    /// Those made at this time or later: 2026-11-22, or 2026-11-22T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Those made before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    /// Those last committed at this time or later
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    committed_since: Option<Timestamp>,
    /// Those last committed before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    committed_until: Option<Timestamp>,
    /// By when they were made, or by their last commit
    #[arg(long, value_enum, default_value_t = By::Created)]
    order: By,
    /// The last one first
    #[arg(long)]
    reverse: bool,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Go on behind an earlier list of the same kind
    #[arg(long, value_name = "CURSOR")]
    after: Option<Cursor>,
}

/// The state of a stream, in a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum State {
    Active,
    Archived,
    Deleted,
}

/// What a list is ordered by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum By {
    Created,
    Committed,
}

#[derive(Debug, Serialize)]
struct Listed<'a> {
    id: String,
    start: u64,
    head: u64,
    created: Option<String>,
    state: &'static str,
    name: Option<&'a str>,
    labels: &'a std::collections::BTreeMap<String, String>,
    parent: Option<Parent>,
}

#[derive(Debug, Serialize)]
struct Parent {
    id: String,
    seq: u64,
}

#[derive(Debug, Serialize)]
struct Next {
    next: String,
}

impl<'a> Listed<'a> {
    fn new(info: &'a StreamInfo) -> Self {
        Self {
            id: info.id.to_string(),
            start: info.start.get(),
            head: info.head.get(),
            created: info.created.map(rfc3339),
            state: state_word(info.state),
            name: info.name.as_deref(),
            labels: &info.labels,
            parent: info.parent.map(|(id, seq)| Parent { id: id.to_string(), seq: seq.get() }),
        }
    }
}

/// What a state is called.
pub(crate) fn state_word(state: StreamState) -> &'static str {
    match state {
        StreamState::Active => "active",
        StreamState::Archived => "archived",
        StreamState::Deleted => "deleted",
        _ => "unknown",
    }
}

/// Lists streams of the log.
pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let (snapshot, survey) = open(&args.log)?;
    let mut query = query(args, &snapshot)?;
    let page_max = args.limit.map_or(PAGE_STREAMS, |limit| limit as usize);
    query = query.streams_max(page_max);
    loop {
        let page = snapshot.list(&query);
        print(&page, out)?;
        let Some(next) = page.next else { break };
        if args.limit.is_none() {
            query = query.after(next);
            continue;
        }
        if out.is_json() {
            out.json(&Next { next: next.to_string() })?;
        } else {
            note(format_args!("there are more: --after {next}"));
        }
        break;
    }
    Ok(if survey.is_sound() { Verdict::Done } else { Verdict::Found })
}

fn query(args: &Args, snapshot: &Snapshot) -> Result<Query, Failure> {
    let mut query = Query::new().order(match args.order {
        By::Created => Order::Created,
        By::Committed => Order::Committed,
    });
    let all = [State::Active, State::Archived, State::Deleted];
    for state in if args.all { &all[..] } else { &args.state } {
        query = query.state(match state {
            State::Active => StreamState::Active,
            State::Archived => StreamState::Archived,
            State::Deleted => StreamState::Deleted,
        });
    }
    for label in &args.label {
        query = match label.split_once('=') {
            Some((key, value)) => query.label_is(key, value),
            None => query.label(label),
        };
    }
    if let Some(prefix) = &args.name {
        query = query.name_prefix(prefix);
    }
    if let Some(parent) = &args.parent {
        // Forks outlive what they were forked from.
        let id = parent.parse().or_else(|_| resolve(snapshot, &args.log, parent))?;
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
        query = query.backwards();
    }
    Ok(match args.after {
        Some(cursor) => query.after(cursor),
        None => query,
    })
}

fn print(page: &Page, out: &mut Out) -> std::io::Result<()> {
    let most = page.streams.iter().map(|info| info.head.get()).max();
    let width = most.unwrap_or(0).to_string().len();
    for info in &page.streams {
        let listed = Listed::new(info);
        if out.is_json() {
            out.json(&listed)?;
            continue;
        }
        let created = listed.created.as_deref().unwrap_or("-");
        let mut line = format!("{}  {:>width$}  {created}", listed.id, listed.head);
        if info.state != StreamState::Active {
            line += &format!("  {}", listed.state);
        }
        if let Some(name) = listed.name {
            line += &format!("  {}", printable(name));
        }
        for (key, value) in listed.labels {
            line += &format!("  {}", printable(&format!("{key}={value}")));
        }
        out.line(line)?;
    }
    Ok(())
}
