//! `amberlog retain`: trims streams that are over a bound, and deletes idle ones.

use std::path::PathBuf;
use std::time::Duration;

use amberlog::maintenance::{Bound, RetainOptions, RetainReport};
use amberlog::options::Retention;
use amberlog::{Seq, StreamId, Timestamp};
use serde::Serialize;

use crate::output::{ExitVerdict, Out, Outcome, close, in_log, note, waiting};
use crate::reading::{open_to_change, options};
use crate::units::{count, parse_age, parse_bytes, parse_label};

const DETAILS: &str = "\
Later readers no longer see trimmed and deleted events; forks keep what they
share. Events that were committed together are dropped together. `compact` gives
back the space. With --dry-run nothing is changed, and what would be dropped is
listed.";

/// Arguments of `retain`.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = DETAILS,
    group(clap::ArgGroup::new("bound").required(true).multiple(true)
        .args(["max_age", "max_events", "max_bytes", "max_idle"]))
)]
pub(crate) struct RetainArgs {
    /// Directory of the log
    log: PathBuf,
    /// Trim events that were committed longer ago than this: 90s, 15m, 12h, 30d or 8w
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    max_age: Option<Duration>,
    /// Keep at most this many events of each stream, the newest
    #[arg(long, value_name = "N")]
    max_events: Option<u64>,
    /// Keep the newest events of each stream that fit in this many bytes: 4096, 64k, 1M, 2G
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    max_bytes: Option<usize>,
    /// Delete streams that have had no commit for longer than this
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    max_idle: Option<Duration>,
    /// Apply only to streams with this label; may be repeated, to include streams with any of the
    /// labels
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Include archived streams
    #[arg(long)]
    archived: bool,
    /// Trust a clock that is far behind the log's last commit, too. A clock that is far ahead is
    /// always trusted here
    #[arg(long)]
    trust_clock: bool,
    /// Only report what would be dropped
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct RetainSummary {
    dry_run: bool,
    /// Time up to which ages were counted.
    now: Option<Timestamp>,
    streams_trimmed: u64,
    streams_deleted: u64,
    events_dropped: u64,
    streams: Vec<TrimmedFields>,
    refused: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TrimmedFields {
    stream: StreamId,
    seqs: [Seq; 2],
    over: Bound,
}

/// Runs retention. Returns exit code 1 when streams were left alone because of damage, 2 when some
/// work could not be done.
pub(crate) fn run(args: &RetainArgs, out: &mut Out) -> Outcome {
    let rule = args.rule();
    let options = match args.labels.as_slice() {
        [] => options().retain(rule),
        labels => labels
            .iter()
            .fold(options(), |options, (key, value)| options.retain_label(key, value, rule)),
    };
    let (log, sound) = open_to_change(options, &args.log)?;
    let how = RetainOptions::new();
    let how = if args.trust_clock { how.trust_clock() } else { how };
    let how = if args.dry_run { how.dry_run() } else { how };
    let report = waiting("selecting events", || log.retain(how)).map_err(in_log(&args.log))?;
    close(log, &args.log)?;
    report.refused.iter().for_each(note);
    out.result(&summary(&report, args.dry_run), print)?;
    Ok(ExitVerdict::of_log(sound).max(ExitVerdict::of_refused(&report.refused)))
}

impl RetainArgs {
    fn rule(&self) -> Retention {
        let rule = Retention::new();
        let rule = self.max_age.map_or(rule, |age| rule.age_max(age));
        let rule = self.max_events.map_or(rule, |events| rule.events_max(events));
        let rule = self.max_bytes.map_or(rule, |bytes| rule.bytes_max(bytes as u64));
        let rule = self.max_idle.map_or(rule, |age| rule.idle_max(age));
        if self.archived { rule.archived() } else { rule }
    }
}

fn summary(report: &RetainReport, dry_run: bool) -> RetainSummary {
    let streams = report.trimmed.iter().map(|trimmed| TrimmedFields {
        stream: trimmed.stream,
        seqs: [trimmed.seqs.start, trimmed.seqs.end],
        over: trimmed.over,
    });
    RetainSummary {
        dry_run,
        now: report.now,
        streams_trimmed: report.streams_trimmed(),
        streams_deleted: report.streams_deleted(),
        events_dropped: report.events_dropped(),
        streams: streams.collect(),
        refused: report.refused.iter().map(ToString::to_string).collect(),
    }
}

fn print(retained: &RetainSummary, out: &mut Out) -> std::io::Result<()> {
    for TrimmedFields { stream, seqs: [start, end], over } in &retained.streams {
        let what = match over {
            Bound::Idle => "deleted, over the idle bound".to_owned(),
            over => format!("trimmed to {end}, over the {over} bound"),
        };
        let events = count(end.get().saturating_sub(start.get()), "event");
        out.line(format_args!("{stream}  {what}: {events}"))?;
    }
    out.line(format_args!(
        "{}{} trimmed, {} deleted, {} dropped",
        if retained.dry_run { "dry run: " } else { "" },
        count(retained.streams_trimmed, "stream"),
        retained.streams_deleted,
        count(retained.events_dropped, "event")
    ))
}
