//! `amberlog export` and `amberlog import --jsonl`: a log as JSON Lines, and back.

use std::error::Error as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use amberlog::{Error, Exported, Log, Snapshot, StreamId};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::output::{Failure, Out, Outcome, Verdict, in_log, progress, waiting};
use crate::reading::{open, resolve, tell_damage};
use crate::units::count;

/// How much of a file is read at once.
const READ_BYTES: usize = 256 << 10;

const DETAILS: &str = "\
An export of the whole log can be imported without loss: ids, seqs, times, gaps,
names, labels, data, states, forks that share, rewinds. Positions and commits
are the log's own and not in it. docs/jsonl.md has every line. A damaged event
ends it with exit code 2: nothing is left out silently.

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
}

#[derive(Debug, Serialize)]
struct Summary {
    file: Option<String>,
    streams: u64,
    events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    commits: Option<u64>,
}

/// Writes streams as JSON Lines.
pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let (snapshot, survey) = open(&args.log)?;
    let found = args.streams.iter().map(|text| resolve(&snapshot, &args.log, text));
    let ids = found.collect::<Result<Vec<_>, Failure>>()?;
    let verdict = if survey.is_sound() { Verdict::Done } else { Verdict::Found };
    let Some(path) = &args.output else {
        export(&snapshot, &ids, out.writer()).map_err(|error| of_output(args, error))?;
        return Ok(verdict);
    };
    let unwritable = |error| Failure::Input { what: path.display().to_string(), error };
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = made.map_err(unwritable)?;
    let waiting = waiting("exporting");
    let exported = export(&snapshot, &ids, &mut file);
    waiting.finish_and_clear();
    let exported = match exported {
        Ok(exported) => exported,
        Err(error) => {
            // A part of an export is none.
            let _ = std::fs::remove_file(path);
            return Err(in_log(&args.log)(error));
        }
    };
    file.sync_all().map_err(unwritable)?;
    let file = Some(path.display().to_string());
    let Exported { streams, events, .. } = exported;
    let summary = Summary { file, streams, events, commits: None };
    if out.is_json() {
        out.json(&summary)?;
    } else {
        let (streams, events) = (count(streams, "stream"), count(events, "event"));
        out.line(format_args!("{}: {streams}, {events}", path.display()))?;
    }
    Ok(verdict)
}

fn export(snapshot: &Snapshot, ids: &[StreamId], to: impl Write) -> amberlog::Result<Exported> {
    if ids.is_empty() { snapshot.export_jsonl(to) } else { snapshot.export_streams_jsonl(ids, to) }
}

/// Whoever reads standard output may have seen enough.
fn of_output(args: &Args, error: Error) -> Failure {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match source.map(io::Error::kind) {
        Some(kind) if error.place().is_none() => Failure::Output(kind.into()),
        _ => in_log(&args.log)(error),
    }
}

/// Makes the streams of exports. The first file that is not right ends it, and nothing of it is written.
pub(crate) fn import(log: &Path, files: &[PathBuf], out: &mut Out) -> Outcome {
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
        let imported = into.import_jsonl(from).map_err(in_log(path))?;
        bar.finish_and_clear();
        summaries.push(Summary {
            file: Some(path.display().to_string()),
            streams: imported.streams,
            events: imported.events,
            commits: Some(imported.commits),
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
            out.line(format_args!("{file}: {streams}, {events} in {commits}"))?;
        }
    }
    Ok(if sound { Verdict::Done } else { Verdict::Found })
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
