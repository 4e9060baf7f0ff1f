//! `amberlog retain`: what is over a bound is trimmed, streams that are idle are deleted.

use std::path::PathBuf;
use std::time::Duration;

use amberlog::{Log, RetainOptions, RetainReport, Retention};
use serde::Serialize;

use crate::output::{Out, Outcome, Verdict, in_log, note, waiting};
use crate::reading::tell_damage;
use crate::units::{count, parse_age, parse_bytes, parse_label};

const DETAILS: &str = "\
What goes is gone for whoever reads from now on; forks keep what they share.
Events that were committed together go together. `collect` gives the space
back. With --dry-run nothing is changed, and what would go is listed.";

/// What can be asked of `retain`.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = DETAILS,
    group(clap::ArgGroup::new("bound").required(true).multiple(true)
        .args(["max_age", "max_events", "max_bytes", "max_idle"]))
)]
pub(crate) struct Args {
    /// The log's directory
    log: PathBuf,
    /// Trim events that were committed longer ago: 90s, 15m, 12h, 30d or 8w
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    max_age: Option<Duration>,
    /// Keep so many events of each stream, the newest
    #[arg(long, value_name = "N")]
    max_events: Option<u64>,
    /// Keep the newest events of each stream that take so many bytes: 4096, 64k, 1M, 2G
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    max_bytes: Option<usize>,
    /// Delete streams of which nothing was committed for so long
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    max_idle: Option<Duration>,
    /// Only streams with this label; may be given several times, for those with any of them
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Archived streams as well
    #[arg(long)]
    archived: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Retained {
    dry_run: bool,
    streams_trimmed: u64,
    streams_deleted: u64,
    events_forgotten: u64,
    streams: Vec<One>,
    refused: Vec<String>,
}

#[derive(Debug, Serialize)]
struct One {
    stream: String,
    seqs: [u64; 2],
    over: String,
}

/// Forgets. Exit code 1 when something could not be relied on and was left alone.
pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let failed = in_log(&args.log);
    let rule = args.rule();
    let options = match args.labels.as_slice() {
        [] => Log::options().retain(rule),
        labels => labels
            .iter()
            .fold(Log::options(), |options, (key, value)| options.retain_label(key, value, rule)),
    };
    let log = options.open(&args.log).map_err(&failed)?;
    let sound = tell_damage(log.survey(), &args.log);
    let how = RetainOptions::new();
    let waiting = waiting("looking for what is to go");
    let report = log.retain(if args.dry_run { how.dry_run() } else { how }).map_err(&failed)?;
    waiting.finish_and_clear();
    log.close().map_err(&failed)?;
    report.refused.iter().for_each(note);
    let retained = tell(&report, args.dry_run);
    if out.is_json() {
        out.json(&retained)?;
    } else {
        print(&retained, out)?;
    }
    let is_fine = sound && retained.refused.is_empty();
    Ok(if is_fine { Verdict::Done } else { Verdict::Found })
}

impl Args {
    fn rule(&self) -> Retention {
        let rule = Retention::new();
        let rule = self.max_age.map_or(rule, |age| rule.age_max(age));
        let rule = self.max_events.map_or(rule, |events| rule.events_max(events));
        let rule = self.max_bytes.map_or(rule, |bytes| rule.bytes_max(bytes as u64));
        let rule = self.max_idle.map_or(rule, |age| rule.idle_max(age));
        if self.archived { rule.archived() } else { rule }
    }
}

fn tell(report: &RetainReport, dry_run: bool) -> Retained {
    let streams = report.forgotten.iter().map(|one| One {
        stream: one.stream.to_string(),
        seqs: [one.seqs.start.get(), one.seqs.end.get()],
        over: one.over.to_string(),
    });
    Retained {
        dry_run,
        streams_trimmed: report.streams_trimmed(),
        streams_deleted: report.streams_deleted(),
        events_forgotten: report.events_forgotten(),
        streams: streams.collect(),
        refused: report.refused.iter().map(ToString::to_string).collect(),
    }
}

fn print(retained: &Retained, out: &mut Out) -> std::io::Result<()> {
    for One { stream, seqs: [start, end], over } in &retained.streams {
        let what = match over.as_str() {
            "idle" => "deleted, idle".to_owned(),
            over => format!("trimmed to {end}, {over}"),
        };
        out.line(format_args!("{stream}  {what}: {}", count(end - start, "event")))?;
    }
    out.line(format_args!(
        "{}{} trimmed, {} deleted, {} forgotten",
        if retained.dry_run { "would be: " } else { "" },
        count(retained.streams_trimmed, "stream"),
        retained.streams_deleted,
        count(retained.events_forgotten, "event")
    ))
}
