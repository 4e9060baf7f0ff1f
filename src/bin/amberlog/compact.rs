//! `amberlog compact`: gives back the space of dead events and superseded metadata.

use std::path::PathBuf;

use amberlog::Position;
use amberlog::maintenance::{CompactOptions, HolderKind};
use serde::Serialize;

use crate::output::{ExitVerdict, Out, Outcome, close, in_log, note, waiting};
use crate::reading::{open_to_change, options};
use crate::units::{bytes_text, count};

const DETAILS: &str = "\
Wholly dead segments are dropped first, which writes nothing and so works on a
full disk. Then partly dead ones are rewritten.

Former names, labels, data and states, and rewinds that no longer divide any
events, count as dead too. If a quarter of the segment that receives commits is
used, and at least --dead percent of that is dead, that segment is ended first;
a dry run says so, and not what would be left of it.

Deleted bytes may remain in the segment that receives commits and in segments
that are less than --dead percent dead. --purge removes them from both: it ends
the segment that receives commits and compacts all others. Removed events that
share a commit with events of their stream that are still shown, by the stream
or a fork, stay until those go too. Names, labels and data of a deleted stream
stay while a fork shows any of its events.

--purge lists the files that still hold purged bytes: files in use by read
views, files with other hard links (backups), files kept by a repair, and
archive files; the exit code is 2 then. It cannot know of other backups and
exports, of files that another process has open, or of blocks that the file
system has freed.";

/// Arguments of `compact`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct CompactArgs {
    /// Directory of the log
    log: PathBuf,
    /// Only report what would be done
    #[arg(long)]
    dry_run: bool,
    /// Rewrite segments that are at least this percentage dead; 0 means any [default: 50]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    dead: Option<u32>,
    /// Remove all dead bytes at once, also from the segment that receives commits; list the files
    /// that still hold some
    #[arg(long, conflicts_with = "dead")]
    purge: bool,
}

#[derive(Debug, Serialize)]
struct CompactSummary {
    dry_run: bool,
    freed_bytes: u64,
    written_bytes: u64,
    runs: Vec<RunFields>,
    /// Segment that received commits, if it was ended first.
    ended: Option<u32>,
    refused: Vec<String>,
    held: Vec<HolderFields>,
}

#[derive(Debug, Serialize)]
struct HolderFields {
    path: String,
    kind: &'static str,
    /// Number of other names; `None` for other kinds.
    links: Option<u64>,
}

#[derive(Debug, Serialize)]
struct RunFields {
    segments: Vec<u32>,
    positions: [Position; 2],
    bytes_before: u64,
    bytes_after: u64,
    commits_dropped: u64,
    events_dropped: u64,
}

/// Compacts the log. Returns exit code 1 when segments were left alone because of damage, 2 when
/// some work could not be done or files may still hold purged bytes.
pub(crate) fn run(args: &CompactArgs, out: &mut Out) -> Outcome {
    let (log, sound) = open_to_change(options(), &args.log)?;
    let mut options = CompactOptions::new();
    if args.dry_run {
        options = options.dry_run();
    }
    if let Some(percent) = args.dead {
        options = options.dead_percent_min(percent);
    }
    if args.purge {
        options = options.purge();
    }
    let report = waiting("compacting", || log.compact(options)).map_err(in_log(&args.log))?;
    close(log, &args.log)?;
    report.refused.iter().for_each(note);
    let runs = report.runs.iter().map(|run| RunFields {
        segments: run.segments.clone(),
        positions: [run.positions.start, run.positions.end],
        bytes_before: run.bytes_before,
        bytes_after: run.bytes_after,
        commits_dropped: run.commits_dropped,
        events_dropped: run.events_dropped,
    });
    let held = report.held.iter().map(|held| HolderFields {
        path: held.path.display().to_string(),
        kind: held.kind.as_str(),
        links: match held.kind {
            HolderKind::HardLinks(links) => Some(links),
            _ => None,
        },
    });
    let compacted = CompactSummary {
        dry_run: args.dry_run,
        freed_bytes: report.freed_bytes(),
        written_bytes: report.written_bytes(),
        runs: runs.collect(),
        ended: report.ended,
        refused: report.refused.iter().map(ToString::to_string).collect(),
        held: held.collect(),
    };
    out.result(&compacted, print)?;
    let gone = if report.held.is_empty() { ExitVerdict::Done } else { ExitVerdict::Incomplete };
    Ok(ExitVerdict::of_log(sound).max(ExitVerdict::of_refused(&report.refused)).max(gone))
}

fn print(compacted: &CompactSummary, out: &mut Out) -> std::io::Result<()> {
    for run in &compacted.runs {
        let last = run.segments.last().copied().unwrap_or_default();
        out.line(format_args!(
            "{} up to {last:04}: {} become {}, {} dropped",
            count(run.segments.len() as u64, "segment"),
            bytes_text(run.bytes_before),
            bytes_text(run.bytes_after),
            count(run.events_dropped, "event")
        ))?;
    }
    if let Some(ended) = compacted.ended {
        let would = if compacted.dry_run {
            "would be ended first, and rewritten"
        } else {
            "was ended first"
        };
        out.line(format_args!("segment {ended:04} received commits: it {would}"))?;
    }
    for held in &compacted.held {
        let links = held.links.map_or_else(String::new, |links| format!(" ({links})"));
        out.line(format_args!("{} may still hold purged bytes: {}{links}", held.path, held.kind))?;
    }
    let would = if compacted.dry_run { "would be given back" } else { "given back" };
    out.line(format_args!("{} {would}", bytes_text(compacted.freed_bytes)))
}
