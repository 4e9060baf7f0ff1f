//! `amberlog export` and `amberlog import --jsonl`: a log as JSON Lines, and back.

use std::error::Error as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use amberlog::{Error, ExportOptions, Exported, ImportOptions, Log, LostSeqs, Snapshot};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::output::{Failure, Out, Outcome, Verdict, in_log, note, progress, waiting};
use crate::reading::{open, resolve, tell_damage};
use crate::units::count;

/// How much of a file is read at once.
const READ_BYTES: usize = 256 << 10;

const DETAILS: &str = "\
An export of the whole log can be imported without loss: ids, seqs, times, gaps,
names, labels, data, states, forks that share, rewinds. Positions and commits
are the log's own and not in it. docs/jsonl.md has every line. A damaged event
ends it with exit code 2: nothing is left out silently.

With --skip-damaged all that is whole is exported, and the lines say what is
missing: what a verification finds, which is made first and reads every byte,
and, in their place, the seqs that cannot be read. They are told on standard
error as well, the exit code is 1, and an import makes gaps of them and ends
with exit code 1, too.

Streams that are named are exported whole, each for itself.";

/// What can be asked of `export`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct Args {
    /// The log's directory
    log: PathBuf,
    /// Streams: their ids, the beginnings of their ids, or their names [default: all]
    #[arg(value_name = "STREAM")]
    streams: Vec<String>,
    /// A file to write, which must not be there, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Go on where something is damaged, and say so in the lines
    #[arg(long)]
    skip_damaged: bool,
}

#[derive(Debug, Serialize)]
struct Summary {
    file: Option<String>,
    streams: u64,
    events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    commits: Option<u64>,
    /// Seqs.
    lost: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost_seqs: Vec<Lost>,
    /// Places that a verification finds damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    damages: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Lost {
    stream: String,
    seqs: [u64; 2],
    why: String,
}

/// Writes streams as JSON Lines.
pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let (snapshot, mut survey) = open(&args.log)?;
    let found = args.streams.iter().map(|text| resolve(&snapshot, &args.log, text));
    let ids = found.collect::<Result<Vec<_>, Failure>>()?;
    let mut options = ExportOptions::new();
    if !ids.is_empty() {
        options = options.streams(ids);
    }
    if args.skip_damaged {
        let waiting = waiting("verifying");
        survey = amberlog::survey(&args.log).map_err(in_log(&args.log))?;
        waiting.finish_and_clear();
        options = options.skip_damaged(&survey);
    }
    let verdict = |exported: &Exported| {
        exported.lost.iter().for_each(|lost| note(&lost.error));
        let is_whole = survey.is_sound() && exported.lost.is_empty();
        if is_whole { Verdict::Done } else { Verdict::Found }
    };
    let Some(path) = &args.output else {
        let exported = snapshot.export_jsonl_with(&options, out.writer());
        return Ok(verdict(&exported.map_err(|error| of_output(args, error))?));
    };
    let exported = to_file(args, path, &snapshot, &options)?;
    let verdict = verdict(&exported);
    let damages = args.skip_damaged.then_some(survey.damages.len() as u64);
    print(path, &exported, damages, out)?;
    Ok(verdict)
}

fn to_file(
    args: &Args,
    path: &Path,
    snapshot: &Snapshot,
    options: &ExportOptions,
) -> Result<Exported, Failure> {
    let unwritable = |error| Failure::Input { what: path.display().to_string(), error };
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = made.map_err(unwritable)?;
    let waiting = waiting("exporting");
    let exported = snapshot.export_jsonl_with(options, &mut file);
    waiting.finish_and_clear();
    let exported = exported.map_err(|error| {
        // A part of an export is none.
        let _ = std::fs::remove_file(path);
        in_log(&args.log)(error)
    })?;
    file.sync_all().map_err(unwritable)?;
    Ok(exported)
}

fn print(path: &Path, exported: &Exported, damages: Option<u64>, out: &mut Out) -> io::Result<()> {
    let lost_seqs: Vec<Lost> = exported.lost.iter().map(Lost::from).collect();
    let summary = Summary {
        file: Some(path.display().to_string()),
        streams: exported.streams,
        events: exported.events,
        commits: None,
        lost: lost_seqs.iter().map(|one| one.seqs[1] - one.seqs[0]).sum(),
        lost_seqs,
        damages,
    };
    if out.is_json() {
        return out.json(&summary);
    }
    let (streams, events) = (count(summary.streams, "stream"), count(summary.events, "event"));
    let lost = lost_text(summary.lost);
    out.line(format_args!("{}: {streams}, {events}{lost}", path.display()))
}

fn lost_text(lost: u64) -> String {
    if lost == 0 { String::new() } else { format!(", {} lost", count(lost, "event")) }
}

impl From<&LostSeqs> for Lost {
    fn from(lost: &LostSeqs) -> Self {
        Self {
            stream: lost.stream.to_string(),
            seqs: [lost.seqs.start.get(), lost.seqs.end.get()],
            why: lost.error.to_string(),
        }
    }
}

/// Whoever reads standard output may have seen enough.
fn of_output(args: &Args, error: Error) -> Failure {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match source.map(io::Error::kind) {
        Some(kind) if error.place().is_none() => Failure::Output(kind.into()),
        _ => in_log(&args.log)(error),
    }
}

/// Makes the streams of exports; what they say is lost becomes gaps, and is damage found. The first file that is not right ends it, and nothing of it is written.
pub(crate) fn import(log: &Path, files: &[PathBuf], resumes: bool, out: &mut Out) -> Outcome {
    let mut options = ImportOptions::new();
    if resumes {
        options = options.resume();
    }
    let mut opened = Vec::new();
    for path in files {
        let file = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let unreadable = |error| Failure::Input { what: path.display().to_string(), error };
        opened.push((path, file.map_err(unreadable)?));
    }
    let into = Log::open(log).map_err(in_log(log))?;
    let sound = tell_damage(into.survey(), log);
    let mut summaries = Vec::new();
    for (path, (bytes, file)) in opened {
        // Every byte is read twice.
        let bar = progress(bytes * 2, "{wide_bar} {bytes}/{total_bytes} {eta}");
        let from = Watched { from: BufReader::with_capacity(READ_BYTES, file), bar: bar.clone() };
        let imported = into.import_jsonl_with(&options, from).map_err(in_log(path))?;
        bar.finish_and_clear();
        summaries.push(Summary {
            file: Some(path.display().to_string()),
            streams: imported.streams,
            events: imported.events,
            commits: Some(imported.commits),
            lost: imported.lost,
            lost_seqs: Vec::new(),
            damages: None,
        });
    }
    into.close().map_err(in_log(log))?;
    for summary in &summaries {
        if out.is_json() {
            out.json(summary)?;
        } else {
            let (streams, events) =
                (count(summary.streams, "stream"), count(summary.events, "event"));
            let commits = count(summary.commits.unwrap_or_default(), "commit");
            let file = summary.file.as_deref().unwrap_or_default();
            let lost = lost_text(summary.lost);
            out.line(format_args!("{file}: {streams}, {events} in {commits}{lost}"))?;
        }
    }
    let is_whole = summaries.iter().all(|summary| summary.lost == 0);
    Ok(if sound && is_whole { Verdict::Done } else { Verdict::Found })
}

/// A file whose reading is seen.
struct Watched {
    from: BufReader<File>,
    bar: ProgressBar,
}

impl Read for Watched {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.bar.inc(read as u64);
        Ok(read)
    }
}

impl BufRead for Watched {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.from.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.from.consume(bytes);
        self.bar.inc(bytes as u64);
    }
}

impl Seek for Watched {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.from.seek(to)
    }
}
