//! `amberlog collect`: the space back of what nobody wants any more.

use std::path::PathBuf;

use amberlog::{CollectOptions, Log};
use serde::Serialize;

use crate::output::{Out, Outcome, Verdict, in_log, note, waiting};
use crate::reading::tell_damage;
use crate::units::{bytes_text, count};

/// What can be asked of `collect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The log's directory
    log: PathBuf,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Rewrite segments of which so much is dead; 0 means any [default: 50]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    dead: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Collected {
    dry_run: bool,
    freed_bytes: u64,
    written_bytes: u64,
    archive_bytes: u64,
    runs: Vec<Run>,
    refused: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Run {
    segments: Vec<u32>,
    positions: [u64; 2],
    bytes_before: u64,
    bytes_after: u64,
    commits_dropped: u64,
    events_dropped: u64,
}

/// Gives space back. Exit code 1 when something could not be relied on and was left alone.
pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let failed = in_log(&args.log);
    let log = Log::open(&args.log).map_err(&failed)?;
    let sound = tell_damage(log.survey(), &args.log);
    let mut options = CollectOptions::new();
    if args.dry_run {
        options = options.dry_run();
    }
    if let Some(percent) = args.dead {
        options = options.dead_percent_min(percent);
    }
    let waiting = waiting("collecting");
    let report = log.collect(options).map_err(&failed)?;
    waiting.finish_and_clear();
    log.close().map_err(&failed)?;
    report.refused.iter().for_each(note);
    let runs = report.runs.iter().map(|run| Run {
        segments: run.segments.clone(),
        positions: [run.positions.start.get(), run.positions.end.get()],
        bytes_before: run.bytes_before,
        bytes_after: run.bytes_after,
        commits_dropped: run.commits_dropped,
        events_dropped: run.events_dropped,
    });
    let collected = Collected {
        dry_run: args.dry_run,
        freed_bytes: report.freed_bytes(),
        written_bytes: report.written_bytes(),
        archive_bytes: report.archive_bytes,
        runs: runs.collect(),
        refused: report.refused.iter().map(ToString::to_string).collect(),
    };
    if out.is_json() {
        out.json(&collected)?;
    } else {
        print(&collected, out)?;
    }
    let is_fine = sound && collected.refused.is_empty();
    Ok(if is_fine { Verdict::Done } else { Verdict::Found })
}

fn print(collected: &Collected, out: &mut Out) -> std::io::Result<()> {
    for run in &collected.runs {
        let last = run.segments.last().copied().unwrap_or_default();
        out.line(format_args!(
            "{} up to {last:04}: {} become {}, {} dropped",
            count(run.segments.len() as u64, "segment"),
            bytes_text(run.bytes_before),
            bytes_text(run.bytes_after),
            count(run.events_dropped, "event")
        ))?;
    }
    let would = if collected.dry_run { "would be given back" } else { "given back" };
    out.line(format_args!("{} {would}", bytes_text(collected.freed_bytes)))
}
